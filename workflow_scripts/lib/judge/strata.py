"""The primary question asked again within each cell line and each tier of reliability: strata.csv.

Exploratory: intervals each for itself, and a false discovery rate over all strata. Within a stratum the average is over
the classes that have enough positive test groups there, so averages of different strata are over different classes;
a difference between arms is always over the same. Thresholds are those of the whole calibration part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge import fixed_scoring, inference, scoring
from workflow_scripts.lib.judge.comparisons import Pair
from workflow_scripts.lib.judge.experiment import Experiment
from workflow_scripts.lib.judge.fixed_scoring import Decided
from workflow_scripts.lib.judge.scoring import Rule, Table

COLUMNS = ("cell_line", "reliability")
DRAWS = 500  # at most: enough for intervals that only explore
TABLE = ["column", "stratum", "images", "groups", "classes", "arm", "against", "relation", "metric", "level"]
TABLE += ["score", "score_against", "difference", "low", "high", "se", "p", "q", "verdict", "judged", "reason"]
Row = dict[str, Any]


def known_columns(images: Path, found: Experiment) -> dict[str, list[np.ndarray]]:
    """For each column that the image set has with two values or more: the values (n,) of the test images of each fold,
    "" where unknown."""
    with ImageSet(images) as source:
        ids = source.ids.astype(str)
        columns = {name: source.column(name).astype(str) for name in COLUMNS if name in source.columns()}
    order = np.argsort(ids)
    rows = []
    for cell in next(iter(found.arms.values())):
        wanted = cell.parts["test"].ids.astype(str)
        at = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
        if (ids[at] != wanted).any():
            absent = str(wanted[ids[at] != wanted][0])
            raise UserError(f"{images} has no image {absent!r}, which was predicted: run again")
        rows.append(at)
    out = {name: [values[at] for at in rows] for name, values in columns.items()}
    return {name: parts for name, parts in out.items() if len(set(np.concatenate(parts)) - {""}) > 1}


def table(
    found: Experiment,
    columns: dict[str, list[np.ndarray]],
    judged: np.ndarray,
    rule: Rule,
    analysis: dict[str, Any],
    arms: list[dict[str, Any]],
    weights: np.ndarray,
    seed: int,
) -> list[Row]:
    """Rows of strata.csv; `judged` (K,) are the classes judged on the whole test part; `weights` (G, B)."""
    if not columns:
        return []
    pairs = fixed_scoring.question(analysis, arms)
    weights = np.ascontiguousarray(weights[:, :DRAWS])
    decided: dict[str, list[Decided]] = {}
    for name in fixed_scoring.arms_of(pairs):
        thresholds = [
            scoring.fit_thresholds(cell.calibration, rule).values for cell in found.cells(name, analysis["level"])
        ]
        # A stratum is cut out of the images; proteins are put together from those that it has.
        cells = zip(found.cells(name, "image"), thresholds, strict=True)
        decided[name] = [Decided(cell.repeat, cell.fold, cell.test, values) for cell, values in cells]
    rows: list[Row] = []
    for column, parts in columns.items():
        values, counts = np.unique(np.concatenate(parts), return_counts=True)
        for value in values[np.lexsort((values, -counts))]:
            if value:
                inside = [part == value for part in parts]
                about = {"column": column, "stratum": str(value), "level": analysis["level"]}
                rows += [about | row for row in _stratum(decided, inside, judged, rule, analysis, pairs, weights, seed)]
    _discover(rows, analysis["confidence"])
    return rows


def _stratum(
    decided: dict[str, list[Decided]],
    inside: list[np.ndarray],
    judged: np.ndarray,
    rule: Rule,
    analysis: dict[str, Any],
    pairs: list[Pair],
    weights: np.ndarray,
    seed: int,
) -> list[Row]:
    own = {name: _restricted(cells, inside, analysis["level"]) for name, cells in decided.items()}
    first, images = own[pairs[0].arm], [np.count_nonzero(rows) for rows in inside]
    positive = fixed_scoring.positive_groups(first).min(axis=0)
    enough = judged & (positive >= analysis["minimum_positive_groups"])
    about: Row = {"images": _in_a_repeat(first, images), "groups": _in_a_repeat(first), "classes": int(enough.sum())}
    if not enough.any():
        most = int(positive[judged].max(initial=0))
        reason = f"at most {most} positive test groups a class, {analysis['minimum_positive_groups']} needed"
        return [about | {"judged": False, "reason": reason}]
    scores = {name: fixed_scoring.score(cells, rule.kind, weights, enough) for name, cells in own.items()}
    rows = []
    for metric in scoring.METRICS:
        found = fixed_scoring.compare(scores, pairs, metric, analysis["confidence"], seed)
        for i, pair in enumerate(pairs):
            rows.append(
                about
                | {"arm": pair.arm, "against": pair.against, "relation": pair.relation, "metric": metric}
                | {"score": scores[pair.arm].mean(metric), "score_against": scores[pair.against].mean(metric)}
                | {"difference": found.estimate[i], "low": found.low_single[i], "high": found.high_single[i]}
                | {"se": found.se[i], "p": float(found.p_values()[i]), "judged": True, "reason": ""}
            )
    return rows


def _restricted(cells: list[Decided], inside: list[np.ndarray], level: str) -> list[Decided]:
    out = []
    for cell, rows in zip(cells, inside, strict=True):
        part = Table(cell.table.scores[rows], cell.table.labels[rows], cell.table.groups[rows])
        part = scoring.per_protein(part) if level == "protein" else part
        out.append(Decided(cell.repeat, cell.fold, part, cell.thresholds))
    return out


def _in_a_repeat(cells: list[Decided], images: list[int] | None = None) -> int:
    """Images, or without `images` groups, in the test parts of a repeat; of the repeat that has fewest."""
    found = []
    for repeat in sorted({cell.repeat for cell in cells}):
        mine = [i for i, cell in enumerate(cells) if cell.repeat == repeat]
        if images is None:
            found.append(len(np.unique(np.concatenate([cells[i].table.groups for i in mine]))))
        else:
            found.append(sum(images[i] for i in mine))
    return int(min(found))


def _discover(rows: list[Row], confidence: float) -> None:
    """Adjusted p-values over all strata, by metric and relation, and what they let one say."""
    for metric in scoring.METRICS:
        for relation in ("baseline", "control"):
            mine = [row for row in rows if (row.get("metric"), row.get("relation")) == (metric, relation)]
            if not mine:
                continue
            gain, loss = (
                (inference.HELPS, inference.HURTS) if relation == "baseline" else (inference.MORE, inference.LESS)
            )
            for row, q in zip(mine, inference.benjamini_hochberg(np.array([row["p"] for row in mine])), strict=True):
                said = gain if row["difference"] > 0 else loss
                row |= {"q": float(q), "verdict": said if q <= 1 - confidence else inference.INCONCLUSIVE}
