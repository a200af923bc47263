"""Missing channels of images (data.missing_channel): how many images lack which, by class, and whether this goes with
the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.split import confounding
from workflow_scripts.lib.split.confounding import Association


def refuse_empty(present: np.ndarray, channels: Sequence[str]) -> None:
    """Raise UserError where a channel is missing in every image, by a mask (n, C) of those that are there."""
    for name, there in zip(channels, present.any(axis=0), strict=True):
        if len(present) and not there:
            raise UserError(
                f"every image lacks the channel {name!r}: take it out of preprocess_images.channels, or set data.files"
            )


def by_class(labels: np.ndarray, classes: Sequence[str], present: np.ndarray) -> list[dict[str, Any]]:
    """Images of each class that lack each channel: rows with `class`, `images`, and c0, c1 … by channel."""
    out = []
    for name, of_class in [("all", np.ones(len(labels), dtype=bool)), *zip(classes, labels.T > 0, strict=True)]:
        lacking = (~present[of_class]).sum(axis=0)
        out.append(
            {"class": name, "images": int(of_class.sum())} | {f"c{k}": int(n) for k, n in enumerate(lacking.tolist())}
        )
    return out


def association(labels: np.ndarray, groups: np.ndarray, names: np.ndarray) -> Association | None:
    """How strongly missing channels, by their names (n,), go with the labels (n, K); None where nothing can be said."""
    return next(iter(confounding.associations(labels, groups, {"missing channels": names})), None)


def described(present: np.ndarray, channels: Sequence[str]) -> str:
    """How many images lack which channel, in a sentence without its end."""
    counts = (~present).sum(axis=0)
    told = ", ".join(f"{name} in {count:,}" for name, count in zip(channels, counts.tolist(), strict=True) if count)
    return f"{(~present.all(axis=1)).sum():,} of {len(present):,} images lack a channel ({told})"


def warning(found: Association | None) -> str | None:
    """A sentence where missing channels go with the labels; None otherwise."""
    if found is None or not found.confounded:
        return None
    return (
        f"missing channels go with the labels (Cramér's V {found.v:.2f}): a classifier may learn which channels are "
        "missing instead"
    )
