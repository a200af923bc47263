"""Model package of an arm: weights of all its classifiers, and code that builds their networks without MixLoc.

weights/repeat{r}_fold{f}.safetensors   weights of each classifier
mixloc_networks/                        the modules that build the network, which import each other alone
model.json                              channels, sizes, normalisation, classes, thresholds, files
ensemble.pt                             TorchScript of all classifiers, where it answers bit for bit alike"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from workflow_scripts.lib.base import source_code
from workflow_scripts.lib.classify import network_choices
from workflow_scripts.lib.classify.classifier_file import Classifier

FORMAT_VERSION = 1
CODE = "mixloc_networks"
TORCHSCRIPT = "ensemble.pt"
# `from workflow_scripts.lib.PACKAGE import MODULES` and `from workflow_scripts.lib.PACKAGE.MODULE import NAMES`.
_MODULES = re.compile(r"from workflow_scripts\.lib\.(\w+) import ([\w, ]+)")
_NAMES = re.compile(r"from workflow_scripts\.lib\.(\w+)\.(\w+) import")


def network_code(first: str = "classify/backbones") -> dict[str, str]:
    """Text of the modules that build networks, by file name, as a package of its own."""
    out = {"__init__.py": ""}
    waiting = [first]
    while waiting:
        module = waiting.pop()
        name = f"{module.partition('/')[2]}.py"
        if name in out:
            continue
        text = (source_code.ROOT / source_code.PACKAGE / "lib" / f"{module}.py").read_text(encoding="utf-8")
        for package, names in _MODULES.findall(text):
            waiting += [f"{package}/{part.strip()}" for part in names.split(",")]
        waiting += [f"{package}/{part}" for package, part in _NAMES.findall(text)]
        out[name] = _NAMES.sub(r"from .\2 import", _MODULES.sub(r"from . import \2", text))
    return out


class _Whole(nn.Module):
    """Mean probabilities of all classifiers, from pixels 0 to 255 (n, C, s, s)."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.networks = nn.ModuleList([member.network(torch.device("cpu")) for member in members])
        for number, member in enumerate(members):
            self.register_buffer(f"mean{number}", member.mean.view(-1, 1, 1).float())
            self.register_buffer(f"std{number}", member.std.view(-1, 1, 1).float())

    def forward(self, images: Tensor) -> Tensor:
        """(n, C, s, s) -> (n, K)."""
        total = torch.zeros(())
        for number, network in enumerate(self.networks):
            mean, std = getattr(self, f"mean{number}"), getattr(self, f"std{number}")
            total = total + network((images / 255 - mean) / std).sigmoid()
        return total / len(self.networks)


def torchscript(members: Sequence[Classifier], path: Path) -> str:
    """Write the ensemble as TorchScript; the reason where it is left out, because it would not answer alike."""
    whole = _Whole(members).eval()
    shape = (len(members[0].channels), members[0].size, members[0].size)
    draws = np.random.default_rng(0)
    example, other = (torch.tensor(draws.integers(0, 256, (count, *shape)), dtype=torch.float32) for count in (2, 5))
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(whole, example, check_trace=False)
            torch.jit.save(traced, path)
            if torch.equal(traced(other), whole(other)):
                return ""
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        path.unlink(missing_ok=True)
        return f"cannot be traced: {(str(error).splitlines() or [type(error).__name__])[0]}"
    path.unlink()
    return "does not answer bit for bit as the network does"


def write(folder: Path, members: Sequence[Classifier]) -> dict[str, Any]:
    """Write weights and code into a folder; what model.json says of them."""
    (folder / CODE).mkdir()
    for name, text in network_code().items():
        (folder / CODE / name).write_text(text, encoding="utf-8")
    (folder / "weights").mkdir()
    listed = []
    for member in members:
        name = f"weights/repeat{member.repeat}_fold{member.fold}.safetensors"
        save_file({key: value.contiguous().cpu() for key, value in member.weights.items()}, folder / name)
        own = {"mean": member.mean.tolist(), "std": member.std.tolist()}
        if "encoder" in member.settings:  # part of how its network is built
            own["encoder"] = member.settings["encoder"]
        listed.append({"weights": name, "repeat": member.repeat, "fold": member.fold} | own)
    first = members[0]
    problem = torchscript(members, folder / TORCHSCRIPT)
    return {
        "format_version": FORMAT_VERSION,
        "arm": first.arm,
        "classes": first.classes,
        "channels": first.channels,
        "size": first.size,
        # The arguments of mixloc_networks.backbones.build.
        "network": {
            "name": first.settings["backbone"],
            "channels": len(first.channels),
            "classes": len(first.classes),
            "size": first.size,
            "cosine_scale": network_choices.cosine_scale(first.settings),
            "channel_marks": network_choices.marks_channels(first.settings),
        },
        "normalisation": "pixels / 255, minus mean, divided by std, channel by channel",
        "members": listed,
        "torchscript": None if problem else TORCHSCRIPT,
        "torchscript_problem": problem,
        "torch": torch.__version__,
    }
