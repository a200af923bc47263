"""Choice of the width of a generator's weight average after training, by the loss on the fold's validation part.

The rule: of the widths of `ema_widths`, the one with the lowest mean loss. It is the loss that the training minimises,
without its weighting, on validation images. All widths see the same images, noise and noise levels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.base.stage import log
from workflow_scripts.lib.generate import diffusion
from workflow_scripts.lib.generate.generator_training import Pixels, Trained, losses
from workflow_scripts.lib.generate.networks import make_network
from workflow_scripts.lib.generate.training_examples import Examples
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import regime_of
from workflow_scripts.lib.split.roles import Role

EXAMPLES = 512  # validation images that the loss is a mean over, at least; each comes with fresh noise

Weights = dict[str, torch.Tensor]
Validation = tuple[np.ndarray, np.ndarray]  # images uint8 (n, C, s, s), labels (n, K)


def read_validation(source: ImageSet, table: Path, fold: int, settings: dict[str, Any]) -> Validation | None:
    """Validation images and labels of a fold, read for selection; None where no width is to be chosen."""
    if not settings.get("ema_widths"):
        return None
    rows = role_table.rows(table, fold, source.ids, Role.VALIDATION, regime_of(settings))
    if not len(rows):
        raise UserError(f"generator {settings['name']} has ema_widths, and fold {fold} has no validation images")
    part = source.read(rows, "select")
    return part.images, part.labels


@torch.inference_mode()
def validation_losses(
    candidates: dict[float, Weights],
    validation: Validation,
    settings: dict[str, Any],
    pixels: Pixels,
    seed: int,
    where: torch.device,
    dtype: torch.dtype,
) -> dict[float, float]:
    """Mean loss of each set of weights on the validation images."""
    images, labels = validation
    objective, pixels = diffusion.of_settings(settings), pixels.on(where)
    examples = Examples(images, labels, settings, derive(seed, "average"), None, where)
    network = make_network(settings, images.shape[1], labels.shape[1], images.shape[-1], dtype)
    # The first process alone chooses, so it needs all noise levels.
    batches = [examples.take(objective, step, whole=True) for step in range(-(-EXAMPLES // examples.batch))]
    found = {}
    for width, weights in candidates.items():
        network.load_state_dict(weights)
        network.to(where).settle()
        each = [losses(objective, network, pixels, batch).mean() for batch in batches]
        found[width] = float(torch.stack(each).mean())
    return found


def chosen_weights(
    trained: Trained,
    validation: Validation | None,
    settings: dict[str, Any],
    pixels: Pixels,
    seed: int,
    where: torch.device,
    dtype: torch.dtype,
) -> tuple[Weights, dict[str, Any]]:
    """Weights of the width with the lowest loss, and how it was chosen; those of `ema_width` where none is chosen."""
    if validation is None:
        return trained.weights, {}
    found = validation_losses(trained.candidates, validation, settings, pixels, seed, where, dtype)
    best = min(found, key=lambda width: found[width])
    told = ", ".join(f"{width:g}: {loss:.4f}" for width, loss in found.items())
    log.info("width of the weight average by the loss on the validation part: %g (%s)", best, told)
    return trained.candidates[best], {"width": best, "losses": list(found.items())}
