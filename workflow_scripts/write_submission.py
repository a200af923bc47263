"""write_submission: what an arm says about the unlabelled test images of Kaggle 2018, as the table that Kaggle takes.

Reads the images one block at a time, as preprocess_images reads the others, and averages the probabilities of the arm's
classifiers over all folds and repeats. A class is predicted where its mean probability reaches the mean of its
thresholds; an image that reaches none gets its most probable class. The table (`Id,Predicted`) has every Id of the
sample once, in the sample's order. The images are looked at for nothing else.

Example:
    python -m workflow_scripts.write_submission --arms repeat0/fold0/arms/job0.json repeat0/fold1/arms/job0.json \\
        --thresholds thresholds.csv --images-dir test --sample sample_submission.csv --out submission.csv \\
        --settings '{"arm": "mix_loss", "batch": 128, "preprocess_images": {...}, "threads": 1}'
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.classify import classifier_file
from workflow_scripts.lib.classify.backbones import Backbone
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.images import image_list, invalid_input, user_tables
from workflow_scripts.lib.images.image_set import select_channels
from workflow_scripts.lib.images.invalid_input import Fault
from workflow_scripts.lib.images.read_image import Reader
from workflow_scripts.lib.scores import arm_list

LEVEL = "image"  # of the thresholds: a submission has one row an image


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of arms (JSON) of all folds")
    out.add_argument("--thresholds", type=Path, required=True, help="thresholds of all arms and folds (CSV)")
    out.add_argument("--images-dir", type=Path, required=True, help="folder of the test images")
    out.add_argument("--sample", type=Path, required=True, help="sample_submission.csv: the Ids and their order")
    out.add_argument("--classes", type=Path, help="CSV with number and name; without it names come from the settings")
    out.add_argument("--out", type=Path, required=True, help="the table to write")
    return out.parse_args(argv)


@dataclass
class Ensemble:
    """The classifiers of one arm, asked together."""

    members: list[Classifier]
    networks: list[Backbone]
    channels: list[str]  # of the images, of which an arm may look at some alone
    thresholds: np.ndarray  # (K,)
    numbers: list[int]  # of the classes, as the competition has them
    bad: list[Fault] = field(default_factory=list)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Mean probabilities float64 (n, K) of images uint8 (n, C, H, W)."""
        total = np.zeros((len(images), len(self.numbers)))
        seen = select_channels(images, self.channels, self.members[0].channels)
        for member, network in zip(self.members, self.networks, strict=True):
            logits = classifier_file.predict(network, seen, member.mean, member.std)
            total += torch.from_numpy(logits).double().sigmoid().numpy()
        return total / len(self.members)

    def predicted(self, probabilities: np.ndarray) -> str:
        """The numbers of the predicted classes of one image."""
        chosen = np.flatnonzero(probabilities >= self.thresholds)
        if not len(chosen):
            chosen = probabilities.argmax(keepdims=True)
        return " ".join(map(str, sorted(self.numbers[index] for index in chosen)))


def write_submission(args: argparse.Namespace) -> None:
    """Write the table `args.out`."""
    settings = args.settings
    device.use_threads(settings["threads"])
    for path, what in ((args.sample, "sample table"), (args.images_dir, "folder of test images")):
        if not path.exists():
            raise UserError(
                f"{path}: there is no such {what}. Name them in write_submission.images and .sample, or let them be "
                "fetched (fetch_images.kaggle.test_images: true)"
            )
    ids = read_ids(args.sample)
    reader = Reader(args.images_dir, settings["preprocess_images"])
    arm = load_arm(args, reader)
    reader.learn_depth(ids)
    # Text beforehand would not do: what cannot be read gets the class that is most probable over all others.
    predicted: dict[str, str] = {}
    total = np.zeros(len(arm.numbers))
    with Progress("images", len(ids)) as bar:
        for names, images in _blocks(reader, ids, int(settings["batch"]), int(settings["threads"]), arm.bad):
            found = arm.probabilities(images)
            total += found.sum(axis=0)
            predicted |= {name: arm.predicted(row) for name, row in zip(names, found, strict=True)}
            bar.update(len(predicted) + len({entry.id for entry in arm.bad}))
    data = settings["preprocess_images"]["data"]
    faults = (args.log or args.out).with_suffix(".bad_input.csv")
    invalid_input.settle(arm.bad, len(ids), data["on_invalid"], data["invalid_limit"], faults)
    usual = str(arm.numbers[int(total.argmax())])
    files.write_text(args.out, "Id,Predicted\n" + "".join(f"{name},{predicted.get(name, usual)}\n" for name in ids))
    stage.log.info("%d images, %d of them by the usual class %s", len(ids), len(ids) - len(predicted), usual)


def read_ids(sample: Path) -> list[str]:
    """The Ids of the sample, in its order; each once."""
    ids = user_tables.read_table(sample).need("Id")
    problem = next((text for text in map(image_list.id_problem, ids) if text), None)
    if problem or len(set(ids)) != len(ids) or not ids:
        raise UserError(f"{sample} is no sample of a submission: {problem or 'an Id stands there twice, or none'}")
    return ids


def load_arm(args: argparse.Namespace, reader: Reader) -> Ensemble:
    """The arm's classifiers of all folds, with thresholds averaged over them."""
    name, data = args.settings["arm"], args.settings["preprocess_images"]["data"]
    members = []
    for manifest in args.arms:
        for entry in arm_list.read(manifest):
            if entry["arm"] == name:
                members.append(classifier_file.read(entry["classifier"]))
    if not members:
        raise UserError(f"write_submission.arm = {name!r}: no list of arms has it")
    first = members[0]
    for member in members:
        alike = (member.classes, member.channels, member.size) == (first.classes, first.channels, reader.size)
        if not alike or not set(member.channels) <= set(reader.channels):
            raise UserError(
                f"the classifier of repeat {member.repeat}, fold {member.fold} was trained on other classes, channels "
                "or sizes than the settings have: run again, so that all are trained alike"
            )
    names = user_tables.read_classes(args.classes) if args.classes else list(data["class_names"] or [])
    unknown = [label for label in first.classes if label not in names]
    if unknown:
        raise UserError(
            f"the class {unknown[0]!r} has no number in the competition: a submission needs its classes as they are, "
            "without data.label_map"
        )
    where = device.device()
    networks = [member.network(where) for member in members]
    stage.log.info("arm %s: %d classifiers, %s", name, len(members), device.describe(where))
    return Ensemble(
        members,
        networks,
        list(reader.channels),
        mean_thresholds(args.thresholds, name, first.classes),
        [names.index(c) for c in first.classes],
    )


def mean_thresholds(path: Path, arm: str, classes: list[str]) -> np.ndarray:
    """The threshold of each class (K,), averaged over the folds and repeats of an arm."""
    table = user_tables.read_table(path)
    rows: dict[str, list[float]] = {name: [] for name in classes}
    columns = (table.need(name) for name in ("arm", "level", "class", "threshold"))
    for trained, level, name, threshold in zip(*columns, strict=True):
        if trained == arm and level == LEVEL and name in rows:
            rows[name].append(float(threshold))
    absent = [name for name, values in rows.items() if not values]
    if absent:
        raise UserError(f"{path} has no threshold of arm {arm!r} for class {absent[0]!r}: delete it and run again")
    return np.array([np.mean(values) for values in rows.values()])


def _blocks(
    reader: Reader, ids: list[str], size: int, threads: int, bad: list[Fault]
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Ids and pixels of the images that can be read, a block at a time; what is wrong with the others goes to `bad`."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(ids), size):
            names = ids[start : start + size]
            read = list(zip(names, pool.map(reader.read, names), strict=True))
            bad += [entry for _, (_, faults) in read for entry in faults]
            good = [(name, pixels) for name, (pixels, _) in read if pixels is not None]
            if good:
                yield [name for name, _ in good], np.stack([pixels for _, pixels in good])


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("write_submission", args, lambda: write_submission(args))


if __name__ == "__main__":
    sys.exit(main())
