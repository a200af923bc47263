"""Which other runs beside this one tested the same images: every attempt is listed, not the last one alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge.wording import page_opening
from workflow_scripts.lib.page import run_tables
from workflow_scripts.lib.page.html_page import Column, PageTable

# Two sets show the same cells if this fraction of the images of the smaller set has equal ids and labels in both. At
# another size or with other channels they are still the same evidence.
SAME = 0.5


def table(own: Path, images: Path) -> PageTable | None:
    """The finished runs in the folders beside `own`, the folder of this run, on the images of its set; None: there are
    none. What cannot be read is no finished run."""
    mine = _labelled(images)
    rows = []
    for folder in sorted(own.absolute().parent.iterdir()):
        if folder.resolve() == own.resolve() or not (folder / "analysis.json").is_file():
            continue
        try:
            facts = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
            if _same_images(own, mine, folder):
                rows.append(_row(folder.name, facts))
        except (UserError, OSError, ValueError, KeyError, TypeError):
            continue
    columns = [
        Column("run", "run", "name"),
        Column("declared", "declared"),
        Column("arm", "primary arm"),
        Column("against", "against"),
        Column("metric", "metric"),
        Column("difference", "difference", "difference"),
        Column("verdict", "verdict"),
    ]
    note = (
        "Only runs in the same folder are listed. Choices based on their results were based on the test images. Runs "
        "whose image set was deleted are compared by Ids and groups."
    )
    return PageTable("other_runs", "Other runs that tested these images", columns, rows, note) if rows else None


def _same_images(own: Path, mine: dict[str, Any], folder: Path) -> bool:
    if (folder / "images.h5").is_file():
        return _alike(mine, _labelled(folder / "images.h5"))
    # Cleaned: labels are gone with the images, but Ids and groups stay.
    return _alike(_grouped(own), _grouped(folder))


def _grouped(run: Path) -> dict[str, str]:
    """The group of every image by its id, from the table of roles."""
    with (run / "repeat0" / "folds.csv").open(encoding="utf-8", newline="") as handle:
        return {row["id"]: row["group"] for row in csv.DictReader(handle)}


def _labelled(path: Path) -> dict[str, frozenset[str]]:
    """The labels of every image by its id."""
    with ImageSet(path) as source:
        classes = np.array(source.classes, dtype=object)
        hot = source.labels(None, "inspect").astype(bool)
        return {str(name): frozenset(classes[row].tolist()) for name, row in zip(source.ids, hot, strict=True)}


def _alike(mine: dict[str, Any], theirs: dict[str, Any]) -> bool:
    # Simulated cells of other runs have the same ids, and other labels where they are other cells.
    same = sum(theirs.get(name) == value for name, value in mine.items())
    return bool(mine and theirs) and same >= SAME * min(len(mine), len(theirs))


def _row(run: str, facts: dict[str, Any]) -> dict[str, Any]:
    answer = facts["answer"]
    return {
        "run": run,
        "declared": facts["declared"]["declared_at"][:10],
        "arm": answer["arm"],
        "against": answer["baseline"],
        "metric": run_tables.SHORT_NAMES.get(answer["metric"], answer["metric"]),
        "difference": tuple(float(answer[end]) for end in ("difference", "low", "high")),
        "verdict": answer["verdict"] + page_opening.alone(answer),
    }
