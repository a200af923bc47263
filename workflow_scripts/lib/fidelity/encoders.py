"""Encoders: networks in whose features images are compared. A classifier of the run, or the user's own.

A user's own encoder is a file of weights (safetensors; nothing is unpickled) and the name of an architecture: one of
torchvision's classifiers, without its last linear layer, or one of `encoder_choices.ARCHITECTURES`. The weights may
also be those of an optional package, checked by their digest. Its images may have any channels:

    its first layer takes as many channels as are listed   they go in together, in the order listed
    it takes three, or one                                 each listed channel goes in by itself, three times where
                                                           three are wanted; all features stand side by side

What the user's own file learned from before is not known here, so the leak certificate says
`pre-training overlap: unknown`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.classify import classifier_file
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.fidelity import encoder_choices, encoder_networks
from workflow_scripts.lib.fidelity.encoder_choices import ARCHITECTURES, INSTALLED, ArchitectureFacts
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import channel_statistics, select_channels

BATCH = 128  # images at a time on a CPU: with more, the system hands out fresh memory for each layer
BATCH_GPU = 1024


@dataclass(frozen=True)
class Encoder:
    """Encoder: maps images to feature vectors."""

    name: str  # name in the report
    kind: str  # baseline, judge or own
    overlap: str  # what is known of the images that it learned from
    fitted: (
        AccessRecord | None
    )  # rows of the run's images that it knows; None where it cannot know any, or nobody knows
    encode: Callable[[np.ndarray], np.ndarray]  # uint8 (n, C, H, W), all channels of the set -> float32 (n, D)
    decide: Callable[[np.ndarray], np.ndarray] | None = None  # features -> logits (n, K), of a classifier of the run
    licence: str = ""  # of the weights, where it is known


def remembering(encoder: Encoder, images: list[np.ndarray]) -> Encoder:
    """The encoder, which encodes each of these arrays once, however often it is asked."""
    known: dict[int, np.ndarray] = {}

    def encode(asked: np.ndarray) -> np.ndarray:
        place = next((number for number, array in enumerate(images) if array is asked), None)
        if place is None:
            return encoder.encode(asked)
        if place not in known:
            known[place] = encoder.encode(asked)
        return known[place]

    return replace(encoder, encode=encode)


def of_classifier(classifier: Classifier, kind: str, channels: list[str]) -> Encoder:
    """Encoder from the pooled features of a classifier of the run, for images of these channels."""
    if not set(classifier.channels) <= set(channels):
        raise UserError(
            f"the {kind} looks at the channels {', '.join(classifier.channels)}; the images have {', '.join(channels)}"
        )
    where = device.device()
    network = classifier.network(where)
    mean, std = classifier.mean.to(where), classifier.std.to(where)

    def ready(block: torch.Tensor) -> torch.Tensor:
        return network.features(classifier_file.standardise(block, mean, std))

    def decide(features: np.ndarray) -> np.ndarray:
        # In float32: bfloat16 logits would tie.
        with torch.inference_mode():
            return network.head(torch.from_numpy(features).to(where)).cpu().numpy()

    fitted = AccessRecord.from_json(classifier.access_record) if classifier.access_record else None
    return Encoder(
        name=f"the {kind}",
        kind=kind,
        overlap="none with held-out images" if fitted else "none: fitted on freshly simulated cells",
        fitted=fitted,
        encode=lambda images: _run(ready, select_channels(images, channels, classifier.channels), where),
        decide=decide,
    )


def own(
    settings: dict[str, Any], channels: list[str], train: np.ndarray, key: str = "assess_synthetic.encoder"
) -> Encoder:
    """Encoder of the user, from the config's mapping `key`, for images of these channels.

    Without means and spreads of its own it gets channels standardised as in the train images uint8 (n, C, H, W)."""
    architecture = settings["architecture"]
    problem = encoder_choices.problem(settings)
    if problem:
        raise UserError(f"{key}.{problem}")
    path = encoder_choices.weights_file(settings)
    network, taken = _build(path, settings, key)
    facts = ARCHITECTURES.get(architecture)
    listed = settings["channels"] or _usual_order(facts, taken, channels) or channels
    unknown = [name for name in listed if name not in channels]
    if unknown:
        raise UserError(f"{key}.channels names {unknown[0]!r}; the images have {', '.join(channels)}")
    together = taken == len(listed)
    # Channels that mean something to a network cannot go in one by one.
    if not together and (taken not in (1, 3) or (facts is not None and facts.orders)):
        raise UserError(
            f"{path} takes {taken} channels, and {len(listed)} are listed ({', '.join(listed)}): list as many in "
            f"{key}.channels"
        )
    where = device.device()
    network = network.to(where, memory_format=torch.channels_last).eval()
    mean, std = _normalisation(settings, train, channels, listed, where, key)
    size = settings["size"]

    def ready(block: torch.Tensor) -> torch.Tensor:
        images = classifier_file.standardise(block, mean, std)
        if size is not None and size != images.shape[-1]:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
        if together:
            return network(images).flatten(1)
        each = [images[:, c : c + 1].expand(-1, taken, -1, -1) for c in range(len(listed))]
        return torch.cat([_alone(network, channel) for channel in each], dim=1)

    try:
        _run(ready, select_channels(train[:1], channels, listed), where)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"{architecture} does not take images of {size or train.shape[-1]} px ({error}): "
            f"say in {key}.size which it takes"
        ) from None
    packaged = settings["weights"] == INSTALLED
    way = f"channels {', '.join(listed)} {'together' if together else 'one by one'}"
    known = f"{path.name}, {files.file_digest(path)[:8]}"
    return Encoder(
        name=f"{architecture} ({way if packaged else known})",
        kind="own",
        overlap=f"none: {ARCHITECTURES[architecture].installed.trained_on}" if packaged else "unknown",
        fitted=None,
        encode=lambda images: _run(ready, select_channels(images, channels, listed), where),
        licence=facts.licence if facts is not None else "",
    )


def _alone(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Features (n, D) of one channel of images; of a channel that is blank in all of them, computed once."""
    if (images == images[:1, :, :1, :1]).all():
        return network(images[:1]).flatten(1).expand(len(images), -1)
    return network(images).flatten(1)


def _usual_order(facts: ArchitectureFacts | None, taken: int, channels: list[str]) -> list[str] | None:
    """Channels in the order that an architecture was trained with, where their names tell it."""
    fitting = [
        order for order in (facts.orders if facts else ()) if len(order) == taken and set(order) <= set(channels)
    ]
    return list(fitting[0]) if len(fitting) == 1 else None


def _normalisation(
    settings: dict[str, Any], train: np.ndarray, channels: list[str], listed: list[str], where: torch.device, key: str
) -> tuple[torch.Tensor, torch.Tensor]:
    given, facts = settings["normalise"], ARCHITECTURES.get(settings["architecture"])
    if facts is not None and facts.normalises:
        if given is not None:
            raise UserError(f"{key}.normalise must be null: {settings['architecture']} normalises by itself")
        mean, std = np.zeros(1), np.ones(1)
    elif given is None:
        mean, std = (part / 255 for part in channel_statistics(select_channels(train, channels, listed)))
    else:
        mean, std = np.array(given["mean"]), np.array(given["std"])
        if {len(mean), len(std)} - {1, len(listed)}:
            raise UserError(f"{key}.normalise needs one mean and std, or one for each of {', '.join(listed)}")
    count = len(listed)
    return tuple(
        torch.tensor(np.broadcast_to(part, count).copy(), dtype=torch.float32).to(where) for part in (mean, std)
    )


def _run(ready: Callable[[torch.Tensor], torch.Tensor], images: np.ndarray, where: torch.device) -> np.ndarray:
    dtype, out = device.fast_dtype(where), []
    batch = BATCH if where.type == "cpu" else BATCH_GPU
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            block = torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).to(where).float() / 255
            with torch.autocast(where.type, dtype, enabled=dtype != torch.float32):
                out.append(ready(block).float().cpu())
    return torch.cat(out).numpy() if out else np.zeros((0, 1), dtype=np.float32)


def _build(path: Path, settings: dict[str, Any], key: str) -> tuple[nn.Module, int]:
    architecture = settings["architecture"]
    if settings["weights"] == INSTALLED:
        return _built(architecture, _installed(path, architecture), path)
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise_if_passing(error)
        raise UserError(
            f"{key}.weights = {path} is no safetensors file ({error}); other formats are not read, "
            "because opening them can run code: save the weights with safetensors.torch.save_file"
        ) from None
    if architecture in ARCHITECTURES:
        return _built(architecture, weights, path)
    # Imported here: it takes a second that the run's own classifiers need not wait for.
    from workflow_scripts.lib.classify import torchvision_models

    network = torchvision_models.architecture(architecture)
    if network is None:
        known = f"such as resnet50 or vit_b_16, nor registered here: {', '.join(ARCHITECTURES)}"
        raise UserError(f"{key}.architecture = {architecture!r} is none of torchvision's classifiers, {known}")
    return _torchvision(network, weights, path, architecture, key)


def _built(architecture: str, weights: dict[str, torch.Tensor], path: Path) -> tuple[nn.Module, int]:
    try:
        return ARCHITECTURES.function(architecture, vars(encoder_networks))(weights)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _installed(path: Path, architecture: str) -> dict[str, torch.Tensor]:
    """Weights of an optional package, whose file must be the very one that is known."""
    wanted = ARCHITECTURES[architecture].installed.sha256
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != wanted:
        raise UserError(f"{path} has the SHA-256 {found}, not {wanted}: install {encoder_choices.EXTRA} again")
    return torch.load(path, "cpu", weights_only=True)


def _torchvision(
    network: nn.Module, weights: dict[str, torch.Tensor], path: Path, architecture: str, key: str
) -> tuple[nn.Module, int]:
    """Headless network with the weights of the file, whose first layer decides how many channels it takes."""
    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    first, layer = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    if not linear or f"{first}.weight" not in weights:
        what = f"{path} has no {first}.weight" if linear else "it does not end in a linear layer"
        raise UserError(f"{key}.architecture {architecture}: {what}")
    taken = int(weights[f"{first}.weight"].shape[1]) * layer.groups
    if taken != layer.in_channels:
        fresh = nn.Conv2d(
            taken, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups,
            layer.bias is not None,
        )  # fmt: skip
        network.set_submodule(first, fresh)
    network.set_submodule(linear[-1], nn.Identity())
    body = {name: value for name, value in weights.items() if not name.startswith(f"{linear[-1]}.")}
    try:
        encoder_networks.load(network, body, architecture)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return network, taken
