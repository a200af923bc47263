"""Pre-trained weights, such as those from ImageNet, as the initial weights of a backbone.

A file holds the state of torchvision's network of that name: names and tensors, as safetensors or as a torch file that
needs no unpickling. Its classifier is left out. For other channels than red, green and blue, or another image size, the
first layer and the position embeddings are adapted."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.classify.backbones import Backbone

HEADS = ("fc.", "head.", "heads.")  # of torchvision's networks


def load(network: Backbone, path: Path) -> None:
    """Load the weights of a file into the trunk; the head keeps its own."""
    weights = {name: value for name, value in _read(path).items() if not name.startswith(HEADS)}
    own = network.trunk.state_dict()
    for wrong, names in (("lacks", own.keys() - weights.keys()), ("has the unknown", weights.keys() - own.keys())):
        # Counters that only some versions of a file hold; nothing depends on them.
        names = sorted(name for name in names if not name.endswith("num_batches_tracked"))
        if names:
            raise UserError(f"{path} {wrong} weights {names[0]!r}: it is of another backbone; give the right file")
    for name, value in own.items():
        if name in weights:
            fitted = _fitted(weights[name].to(value.dtype), value)
            if fitted.shape != value.shape:
                raise UserError(
                    f"{path} has weights {name!r} of shape {list(weights[name].shape)}, the backbone "
                    f"{list(value.shape)}: it is of another backbone; give the right file"
                )
            value.copy_(fitted)


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} cannot be read as weights ({type(error).__name__}): give another file") from None
    except Exception as error:  # what the restricted unpickler refuses is an error of its own kind
        raise_if_passing(error)
        raise UserError(f"{path} is not a plain table of weights ({type(error).__name__}): give another file") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} is not a table of names and weights: save the network's state_dict")
    return state


def _fitted(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Published weights, adapted where only the number of channels or positions differs."""
    if given.ndim == wanted.ndim == 4 and given.shape[1] != wanted.shape[1]:
        # Every channel gets the mean filter, scaled so that a grey image gives the same response as the published
        # three.
        channels = wanted.shape[1]
        return given.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1) * (given.shape[1] / channels)
    if given.ndim == wanted.ndim == 3 and given.shape[1] != wanted.shape[1]:
        # Positions (1, 1 + side², D): the first belongs to no place, the others form a square that is scaled.
        side, target = (round((value.shape[1] - 1) ** 0.5) for value in (given, wanted))
        square = given[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
        scaled = F.interpolate(square, size=(target, target), mode="bicubic", align_corners=False)
        return torch.cat([given[:, :1], scaled.flatten(2).transpose(1, 2)], dim=1)
    return given
