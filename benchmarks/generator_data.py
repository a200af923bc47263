"""What the benchmarks of generators share: settings, images, a grouped split, an encoder, and contact sheets.

Needs torch, numpy, h5py, safetensors and PyYAML; sampling also pandas, contact sheets Pillow, simulated cells scipy,
and raw images all that the stages need."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import arm_settings, backbones, classifier_file, classifier_training
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.split import assignment

ROOT = Path(__file__).resolve().parents[1]
HPA_CELLS = "MIXLOC_HPA_CELLS"
# Roles of groups: the encoder learns from groups that no generator trains on and none is judged by.
FRACTIONS = {"encoder": 0.28, "select": 0.07, "train": 0.40, "held": 0.25}
PARTS = tuple(FRACTIONS)
# Settings of a generator that config.yaml's entries may leave out.
OPTIONAL = {"weighting", "attention", "patch", "snapshot", "ema_widths", "noise_level", "sees", "reference_channels"}


@dataclass
class Cells:
    """Images in memory with what is known of them."""

    images: np.ndarray  # uint8 (n, C, s, s)
    labels: np.ndarray  # uint8 (n, K)
    groups: np.ndarray  # str (n,)
    classes: list[str]
    source: str  # for the first line of the output

    def part(self, rows: np.ndarray) -> Cells:
        """Some of them."""
        return Cells(self.images[rows], self.labels[rows], self.groups[rows], self.classes, self.source)

    def __len__(self) -> int:
        return len(self.images)


def common_flags(doc: str | None) -> argparse.ArgumentParser:
    """The command line that these benchmarks share."""
    out = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--images", type=Path, help="image set (HDF5); simulated cells where none is given")
    out.add_argument("--cells", type=int, default=4000, help="simulated cells")
    out.add_argument("--size", type=int, default=32, help="side of simulated cells, or of those of hpa-cells")
    out.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    out.add_argument("--threads", type=int, default=2, help="threads on a CPU")
    out.add_argument("--generator", default="unet", help="entry of the config's list of generators")
    out.add_argument("--settings", type=json.loads, default={}, help="JSON: replaces single settings of the generator")
    out.add_argument("--seed", type=int, default=1)
    return out


def use_device(name: str, threads: int) -> torch.device:
    """Settle where everything runs; the project's own code takes the GPU wherever it sees one."""
    if name == "cpu":
        # Read when CUDA is first looked at, which has not happened yet.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    device.use_threads(threads)
    where = device.device()
    if name == "cuda" and where.type != "cuda":
        sys.exit("--device cuda: torch sees no GPU here (take --device cpu)")
    return where


def config() -> dict[str, Any]:
    """The project's defaults."""
    return yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


def generator_settings(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Settings of one generator, as config.yaml has them, with single values replaced."""
    entries = {entry["name"]: entry for entry in config()["generators"]}
    if name not in entries:
        sys.exit(f"--generator {name}: config.yaml has {', '.join(entries)}")
    unknown = set(changes) - set(entries[name]) - OPTIONAL
    if unknown:
        sys.exit(f"--settings: generator {name} has no {', '.join(sorted(unknown))}")
    return entries[name] | changes


def machine(where: torch.device) -> str:
    """One phrase about what computes."""
    return f"{device.describe(where)}, torch {torch.__version__}"


def load_cells(args: argparse.Namespace, hpa: bool = False) -> Cells:
    """The image set that was given, or else the cells of presets/hpa_cells.yaml (`hpa`), or else simulated ones."""
    if args.images is not None:
        return read_set(args.images)
    if hpa and os.environ.get(HPA_CELLS):
        with tempfile.TemporaryDirectory() as place:
            return read_set(_hpa_set(Path(place), args.size))
    if hpa:
        print(f"note: {HPA_CELLS} is not set, so these are simulated cells, not those of presets/hpa_cells.yaml")
    return simulated(args.cells, args.size, args.seed)


def read_set(path: Path) -> Cells:
    """A whole image set in memory."""
    with ImageSet(path) as source:
        part = source.read(None, "inspect")
        return Cells(
            part.images, part.labels, part.groups.astype(str), source.classes, f"{len(part)} images of {path.name}"
        )


def simulated(count: int, size: int, seed: int) -> Cells:
    """Simulated cells with the config's settings; groups are proteins."""
    from workflow_scripts.lib.simulate import simulator

    batches = list(simulator.simulate(simulator_settings(count, size), seed))
    return Cells(
        np.concatenate([batch.images for batch in batches]),
        np.concatenate([batch.labels for batch in batches]).astype(np.uint8),
        np.concatenate([batch.genes for batch in batches]),
        list(simulator.COMPARTMENTS),
        f"{count} simulated cells",
    )


def simulator_settings(count: int, size: int) -> dict[str, Any]:
    """The config's settings for so many simulated cells, with as many images a protein as by default."""
    settings = config()["simulate_cells"]
    genes = max(8, round(count * settings["genes"] / settings["images"]))
    return settings | {"images": count, "genes": genes, "size": size}


def _hpa_set(folder: Path, size: int) -> Path:
    """The image set of presets/hpa_cells.yaml, made by the project's own stage."""
    from workflow_scripts.lib.config import check, stage_views

    both = config()
    preset = yaml.safe_load((ROOT / "presets" / "hpa_cells.yaml").read_text(encoding="utf-8"))
    data = both["data"] | preset["data"]
    given = both | {"data": data, "preprocess_images": both["preprocess_images"] | {"size": size}}
    given["arms"] = preset["arms"]
    checked = check.check(given)
    images, table, groups = (os.path.expandvars(data[key]) for key in ("images", "table", "groups"))
    command = [
        sys.executable, "-m", "workflow_scripts.preprocess_images", "--images-dir", images, "--table", table,
        "--groups", groups, "--out", str(folder / "images.h5"), "--left-out", str(folder / "left_out.csv"),
        "--settings", json.dumps(stage_views.reading(checked) | {"threads": 1}),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        sys.exit(f"preprocess_images failed:\n{done.stderr}")
    return folder / "images.h5"


def split(cells: Cells, seed: int, trained: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Rows of the parts encoder, select, train and held; no group is in two of them.

    `trained` (n,) bool: images of groups that are in part train already, the others share the rest."""
    names, group = np.unique(cells.groups, return_inverse=True)
    counts = np.zeros((len(names), cells.labels.shape[1]), dtype=np.int64)
    np.add.at(counts, group, cells.labels.astype(np.int64))
    sizes = np.bincount(group)
    fractions = dict(FRACTIONS)
    role = np.full(len(names), "train", dtype=object)
    free = np.ones(len(names), dtype=bool)
    if trained is not None:
        free[np.unique(group[trained])] = False
        del fractions["train"]
    assigned = assignment.split(counts[free], sizes[free], fractions, derive(seed, "split"))
    role[free] = np.array(list(fractions), dtype=object)[assigned]
    return {part: np.flatnonzero(role[group] == part) for part in PARTS}


class Encoder:
    """Pooled features of a classifier, float64 (n, D)."""

    def __init__(self, network: backbones.Backbone, mean: torch.Tensor, std: torch.Tensor) -> None:
        self.network, self.mean, self.std = network, mean, std

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features of images uint8 (n, C, s, s), computed in float32 so that they are the same wherever they are."""
        where = next(self.network.parameters()).device
        mean, std = self.mean.to(where), self.std.to(where)
        blocks = torch.from_numpy(images).split(256)
        features = [
            self.network.features(classifier_file.standardise(block.to(where).float() / 255, mean, std)).cpu()
            for block in blocks
        ]
        return torch.cat(features).double().numpy()


def train_encoder(
    cells: Cells, parts: dict[str, np.ndarray], steps: int, seed: int, where: torch.device
) -> tuple[Encoder, float]:
    """A classifier of the parts encoder and select, trained as the arm real_only; and its mean average precision."""
    section = config()["train_classifier"] | {"steps": steps}
    settings = arm_settings.effective({"name": "encoder", "method": "real_only"}, section)
    fit, select = (cells.part(parts[name]) for name in ("encoder", "select"))
    with tempfile.TemporaryDirectory() as place:
        trained = classifier_training.train(
            settings,
            classifier_training.Images(fit.images, fit.labels),
            None,
            classifier_training.Images(select.images, select.labels),
            derive(seed, "encoder"),
            Resume(Path(place) / "resume.pt", ""),
        )
    network = backbones.build(
        settings["backbone"], cells.images.shape[1], cells.labels.shape[1], cells.images.shape[-1], 0
    )
    network.load_state_dict(trained.weights)
    network = network.to(where, memory_format=torch.channels_last).eval()
    return Encoder(network, trained.mean, trained.std), trained.numbers["best_validation_map"]


def contact_sheet(path: Path, images: np.ndarray, columns: int = 12, scale: int = 3) -> None:
    """Images uint8 (n, C, s, s) on a dark sheet in the order given.

    Channels 0 to 2 are red, green and blue, the fourth is added as yellow; a single channel is grey."""
    from PIL import Image

    planes = images.astype(np.float32)
    if planes.shape[1] < 3:
        colours = np.repeat(planes[:, :1], 3, axis=1)
    else:
        colours = planes[:, :3]
        if planes.shape[1] > 3:
            colours = colours + planes[:, 3:4] * np.array([0.5, 0.5, 0], dtype=np.float32)[:, None, None]
    size, rows = images.shape[-1], -(-len(images) // columns)
    sheet = np.full((rows * (size + 1) + 1, columns * (size + 1) + 1, 3), 40, dtype=np.uint8)
    for number, image in enumerate(colours.clip(0, 255).astype(np.uint8)):
        top, left = (1 + place * (size + 1) for place in divmod(number, columns))
        sheet[top : top + size, left : left + size] = image.transpose(1, 2, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.repeat(scale, axis=0).repeat(scale, axis=1)).save(path)
