"""Classifier file: trained weights and everything that prediction needs, as safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.classify import backbones, network_choices
from workflow_scripts.lib.classify.backbones import Backbone
from workflow_scripts.lib.compute import device

FORMAT_VERSION = 1
_NETWORK = "network."
_TEXT = ("arm", "access_record", "digest")
_JSON = ("repeat", "fold", "size", "classes", "channels", "settings", "history", "numbers")


@dataclass
class Classifier:
    """Trained classifier of one arm of one fold."""

    arm: str
    repeat: int
    fold: int
    classes: list[str]
    channels: list[str]
    size: int  # of the images it was trained on, in pixels
    settings: dict[str, Any]  # `arm_settings.effective`
    mean: torch.Tensor  # (C,), of pixels in [0, 1] of the real train images
    std: torch.Tensor  # (C,)
    weights: dict[str, torch.Tensor]
    access_record: str = ""  # AccessRecord.to_json(): what it was fitted and selected on
    digest: str = ""  # of settings, inputs and code
    history: dict[str, list[float]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    def network(self, where: torch.device) -> Backbone:
        """The trained network, in evaluation mode."""
        try:
            name, channels, classes = self.settings["backbone"], len(self.channels), len(self.classes)
            scale, encoder = network_choices.cosine_scale(self.settings), self.settings.get("encoder")
            marks = network_choices.marks_channels(self.settings)
            network = backbones.build(name, channels, classes, self.size, 0, scale, encoder, marks)
            network.load_state_dict(self.weights)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            what = f"the classifier of arm {self.arm} does not fit its own description"
            raise UserError(f"{what} ({error}): delete its file and run again") from None
        return network.to(where, memory_format=torch.channels_last).eval()


def write(path: Path, classifier: Classifier) -> None:
    """Write a classifier atomically."""
    tensors = {_NETWORK + name: value.contiguous().cpu() for name, value in classifier.weights.items()}
    tensors |= {"mean": classifier.mean.contiguous().cpu(), "std": classifier.std.contiguous().cpu()}
    about = {name: getattr(classifier, name) for name in _TEXT}
    about |= {name: json.dumps(getattr(classifier, name), sort_keys=True) for name in _JSON}
    with atomic(path) as part:
        save_file(tensors, part, metadata=about | {"format_version": str(FORMAT_VERSION)})


def read(path: Path) -> Classifier:
    """Read a classifier; UserError where it is a file of another kind."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("format_version") != str(FORMAT_VERSION):
                raise UserError(f"{path} is not a classifier of format {FORMAT_VERSION}: delete it and run again")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        described = {name: about[name] for name in _TEXT} | {name: json.loads(about[name]) for name in _JSON}
        mean, std = tensors.pop("mean"), tensors.pop("std")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} is not a classifier that can be read ({error}): delete it and run again") from None
    weights = {name.removeprefix(_NETWORK): value for name, value in tensors.items() if name.startswith(_NETWORK)}
    return Classifier(mean=mean, std=std, weights=weights, **described)


def read_digest(path: Path) -> str:
    """Digest with which a finished classifier was written; empty where there is no complete file of this format."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise_if_passing(error)
        return ""
    return about.get("digest", "") if about.get("format_version") == str(FORMAT_VERSION) else ""


def standardise(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1] (B, C, H, W), standardised by the train part's mean and standard deviation."""
    scaled = (images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    return scaled.contiguous(memory_format=torch.channels_last)


def predict(
    network: Backbone, images: np.ndarray | torch.Tensor, mean: torch.Tensor, std: torch.Tensor, batch: int = 256
) -> np.ndarray:
    """Logits float32 (n, K) of images uint8 (n, C, H, W), in evaluation mode, without augmentation."""
    # The head in float32: bfloat16 logits would tie.
    return _evaluated(network, images, mean, std, batch, network.head, network.head.out_features)


def features(
    network: Backbone, images: np.ndarray | torch.Tensor, mean: torch.Tensor, std: torch.Tensor, batch: int = 256
) -> np.ndarray:
    """Features float32 (n, D) of images, as `predict` takes them."""
    return _evaluated(network, images, mean, std, batch, lambda found: found, network.head.in_features)


def _evaluated(
    network: Backbone,
    images: np.ndarray | torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    batch: int,
    last: Callable[[torch.Tensor], torch.Tensor],
    width: int,
) -> np.ndarray:
    """What `last` makes of the features of images: (n, width)."""
    was_training = network.training
    where = next(network.parameters()).device
    mean, std = mean.to(where), std.to(where)
    dtype = device.fast_dtype(where)
    out = []
    network.eval()
    with torch.inference_mode():
        for block in torch.as_tensor(images).split(batch):
            ready = standardise(block.to(where).float() / 255, mean, std)
            with torch.autocast(where.type, dtype, enabled=dtype != torch.float32):
                found = network.features(ready)
            out.append(last(found.float()).cpu())
    network.train(was_training)
    return torch.cat(out).numpy() if out else np.zeros((0, width), dtype=np.float32)
