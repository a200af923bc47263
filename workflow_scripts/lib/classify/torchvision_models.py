"""Models of torchvision: the only module that imports it.

The registry's torchvision wheel is built for CUDA. With a torch without CUDA its compiled operators do not load, and
its import fails because it describes operators that nobody declared. Declaring those two is enough for models and
transforms (not for `ops` and `io`). It must happen before the import, and only then, because a torchvision that fits
its torch declares them itself."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import torch

# Kept for the life of the process: the declarations vanish with the object.
_declared: torch.library.Library | None = None


def _declare_operators() -> torch.library.Library | None:
    if torch.version.cuda or torch.version.hip or not _built_for_gpu():
        return None
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _built_for_gpu() -> bool:
    # Looked up in the file, because importing it is what fails.
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    return re.search(r"__version__ = '[^']*\+(cu|rocm)", text) is not None


_declared = _declare_operators()

from torchvision import models  # noqa: E402
from torchvision.models.swin_transformer import SwinTransformerBlock  # noqa: E402, F401


def architecture(name: str) -> torch.nn.Module | None:
    """One of torchvision's image classifiers with fresh weights; None where it has no such architecture."""
    return models.get_model(name, weights=None) if name in models.list_models(module=models) else None
