"""Generator file: trained weights and everything that sampling needs, as safetensors.

It also holds fingerprints of the images that the generator has read, and of their groups. Another laboratory can look
for its own among them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.generate.generator_training import Pixels
from workflow_scripts.lib.generate.networks import Minimal, UNet, make_network
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.fingerprints import BYTES, Fingerprints

FORMAT_VERSION = 1
TRAINED_ON = ("trained_on.images", "trained_on.groups")


@dataclass
class Generator:
    """Trained generator, as stored on disk."""

    repeat: int
    fold: int
    settings: dict[str, Any]
    channels: list[str]
    classes: list[str]
    size: int
    pixels: Pixels
    access_record: AccessRecord
    digest: str  # of everything the weights depend on
    seconds: float
    weights: dict[str, torch.Tensor]
    earlier: dict[str, torch.Tensor] | None = None  # averaged weights at `snapshot` of the training, if it kept some
    average: dict[str, Any] = field(default_factory=dict)  # how the width of the average was chosen, if it was
    trained_on: Fingerprints | None = None  # what it has read; None: written before generators told it

    def network(self, device: torch.device, dtype: torch.dtype, earlier: bool = False) -> UNet | Minimal:
        """Network with its weights, or those of the snapshot, ready for sampling."""
        if earlier and self.earlier is None:
            raise UserError(f"generator {self.settings['name']} has kept no snapshot: train it again with `snapshot`")
        try:
            network = make_network(self.settings, len(self.channels), len(self.classes), self.size, dtype)
            network.load_state_dict(self.earlier if earlier else self.weights)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            what = f"generator {self.settings.get('name')} does not fit its own description"
            raise UserError(f"{what} ({error}): delete its file and run again") from None
        network = network.to(device).eval().requires_grad_(False)
        network.settle()
        return network


def write(path: Path, generator: Generator) -> None:
    """Write a generator atomically."""
    described = {
        "format_version": FORMAT_VERSION,
        "repeat": generator.repeat,
        "fold": generator.fold,
        "settings": generator.settings,
        "channels": generator.channels,
        "classes": generator.classes,
        "size": generator.size,
        "access_record": json.loads(generator.access_record.to_json()),
        "digest": generator.digest,
        "seconds": round(generator.seconds, 3),
        "average": generator.average,
    }
    tensors = {f"network.{name}": value.contiguous() for name, value in generator.weights.items()}
    # Constants are the same tensors in both, and safetensors takes none twice.
    tensors |= {f"earlier.{name}": value.contiguous().clone() for name, value in (generator.earlier or {}).items()}
    tensors |= {"pixels.shift": generator.pixels.shift, "pixels.scale": generator.pixels.scale}
    if generator.trained_on is not None:
        read_before = (generator.trained_on.images, generator.trained_on.groups)
        tensors |= {name: torch.from_numpy(value) for name, value in zip(TRAINED_ON, read_before, strict=True)}
    metadata = {name: json.dumps(value, sort_keys=True) for name, value in described.items()}
    with atomic(path) as part:
        save_file(tensors, part, metadata)


def read(path: Path) -> Generator:
    """Read a generator that `write` wrote."""
    try:
        with safe_open(path, "pt") as file:
            described = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if described.get("format_version") != FORMAT_VERSION:
            raise UserError(f"{path} was written by another version of MixLoc: delete it and run again")
        return _described(described, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} is not a generator that can be read ({error}): delete it and run again") from None


def _in_order(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with `column_values` in the order of `condition_on`, as the network has them: in the file keys are
    sorted."""
    asked, told = settings.get("condition_on") or [], settings.get("column_values") or {}
    if sorted(asked) != sorted(told):
        return settings  # who needs the values says so
    return settings | ({"column_values": {name: told[name] for name in asked}} if asked else {})


def _described(described: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Generator:
    weights, earlier = (
        {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}
        for kind in ("network.", "earlier.")
    )
    return Generator(
        repeat=described["repeat"],
        fold=described["fold"],
        settings=_in_order(described["settings"]),
        channels=described["channels"],
        classes=described["classes"],
        size=described["size"],
        pixels=Pixels(tensors["pixels.shift"], tensors["pixels.scale"]),
        access_record=AccessRecord.from_json(json.dumps(described["access_record"])),
        digest=described["digest"],
        seconds=described["seconds"],
        weights=weights,
        earlier=earlier or None,
        average=described.get("average", {}),
        trained_on=_trained_on(tensors),
    )


def _trained_on(tensors: dict[str, torch.Tensor]) -> Fingerprints | None:
    if TRAINED_ON[0] not in tensors:
        return None
    found = [tensors[name] for name in TRAINED_ON]
    if any(value.dtype != torch.uint8 or value.ndim != 2 or value.shape[1] != BYTES for value in found):
        raise ValueError("what it was trained on is not told by fingerprints")
    return Fingerprints(*(value.numpy() for value in found))


def read_digest(path: Path) -> str:
    """Digest with which a finished generator was written; empty where there is no complete file of this format."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
        return json.loads(about["digest"]) if json.loads(about["format_version"]) == FORMAT_VERSION else ""
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise_if_passing(error)
        return ""
