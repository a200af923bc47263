"""Label regimes of a run: how many groups and images each labels, and how many it only shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.page.html_page import Column, PageTable
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import Regime
from workflow_scripts.lib.split.roles import Role

LABELLED = (Role.TRAIN, Role.VALIDATION, Role.CALIBRATION)


def table(images: Path, tables: list[tuple[int, Path]], config: dict[str, Any]) -> PageTable | None:
    """A row for each regime, means over folds; None where everything is labelled. `tables` are roles by repeat."""
    regimes = [Regime(**entry) for entry in config.get("regimes", [])]
    if all(regime.whole for regime in regimes):
        return None
    with ImageSet(images) as source:
        ids, groups = source.ids, source.groups
    rows = []
    for regime in regimes:
        counts: dict[str, list[int]] = {}
        for _, path in tables:
            for fold in range(role_table.count_folds(path)):
                own = role_table.read(path, fold, ids, regime)
                for role in LABELLED:
                    counts.setdefault(role, []).append(len(set(groups[own == role])))
                counts.setdefault("images", []).append(int((own == Role.TRAIN).sum()))
                counts.setdefault("shown", []).append(int((own == Role.UNLABELLED).sum()))
        row: dict[str, Any] = {"regime": regime.name, "fraction": regime.labelled}
        rows.append(row | {name: float(np.mean(values)) for name, values in counts.items()})
    columns = [
        Column("regime", "regime", "name"),
        Column("fraction", "labelled", "percent"),
        *(Column(role, f"{role} groups", "count") for role in LABELLED),
        Column("images", "labelled train images", "count"),
        Column("shown", "shown without labels", "count"),
    ]
    note = "Fractions are of the train groups, and nested. Every arm is tested on the same images."
    return PageTable("regimes", "Label regimes, means over folds and repeats", columns, rows, note=note)
