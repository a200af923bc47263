"""The results tables of a run as those who show them need them: metrics.csv, comparisons.csv, analysis.json."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.judge import inference

METRIC_NAMES = {
    "macro_f1": "macro-F1",
    "map": "mean average precision",
    "micro_f1": "micro-F1",
    "f1": "F1",
    "ap": "average precision",
}
SHORT_NAMES = METRIC_NAMES | {"map": "mAP", "ap": "AP"}
# The score of one class that belongs to an average.
BY_CLASS = {"macro_f1": "f1", "map": "ap", "micro_f1": "f1"}


@dataclass(frozen=True)
class Difference:
    """An arm minus another, with the interval that may be quoted."""

    against: str
    value: float
    low: float
    high: float
    in_family: bool  # the declared one; otherwise the interval is of this comparison alone
    verdict: str
    confirmed: bool  # by the order of testing
    q: float = math.nan  # false-discovery rate among all classes at which the difference stands; NaN: of no class

    @property
    def said(self) -> str:
        """The verdict as it may be quoted."""
        if not self.verdict:
            return "not in the family"
        claims = self.verdict != inference.INCONCLUSIVE
        return f"{self.verdict} (exploratory)" if claims and not self.confirmed else self.verdict


@dataclass
class Results:
    """Scores and comparisons of all arms, and what was declared before they were known."""

    metrics: pd.DataFrame
    comparisons: pd.DataFrame
    analysis: dict[str, Any]  # the declared block: metric, level, primary, baseline, smallest_effect, ...
    facts: dict[str, Any]  # all of analysis.json: hash, judged classes, and what else the judge found out

    @property
    def metric(self) -> str:
        """The primary metric."""
        return self.analysis.get("metric", "macro_f1")

    @property
    def confirms(self) -> bool:
        """Whether the run can confirm anything: a single repeat cannot."""
        return self.facts.get("sizes", {}).get("repeats", 0) != 1

    @property
    def caveat(self) -> str:
        """What follows a claim of a run that confirms nothing; begins with a space."""
        told = " This is exploratory: a single repeat, whose intervals do not contain the variance between repeats."
        return "" if self.confirms else told

    @property
    def level(self) -> str:
        """What is scored: image or protein."""
        return self.analysis.get("level", "image")

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with."""
        return self.analysis.get("baseline", "real_only")

    @property
    def compared_with(self) -> str:
        """The baseline by name, where all arms have the same; an arm may have one of its own."""
        rows = self.comparisons[self.comparisons["relation"] == "baseline"]
        return self.baseline if set(rows["against"]) <= {self.baseline} else "its baseline"

    @property
    def smallest_effect(self) -> float:
        """The smallest difference worth having, as declared."""
        return float(self.analysis.get("smallest_effect") or 0.0)

    @property
    def confidence(self) -> float:
        """Nominal coverage of the intervals."""
        return float(self.analysis.get("confidence") or 0.95)

    @property
    def arms(self) -> list[str]:
        """All arms in the order of the config, as far as the tables tell."""
        return list(dict.fromkeys(self.metrics["arm"]))

    def by_training(self, metric: str) -> dict[str, np.ndarray]:
        """arm -> its test scores (N,) in all folds and repeats, of the arms that were trained in all of them."""
        rows = pd.concat([self._scores(arm, metric, "test", "") for arm in self.arms])
        rows = rows[~rows["fold"].astype(str).isin(("pooled", "mean", ""))]
        table = rows.pivot_table(index="arm", columns=["repeat", "fold"], values="value").reindex(self.arms).dropna()
        return {str(arm): table.loc[arm].to_numpy() for arm in table.index}

    @property
    def regimes(self) -> dict[str, str]:
        """arm -> its label regime, in a run that has several."""
        told = {arm: facts.get("regime") for arm, facts in self.facts.get("arms", {}).items()}
        return {arm: regime for arm, regime in told.items() if regime}

    @property
    def controls(self) -> dict[str, str]:
        """arm -> its control."""
        if "controls" in self.facts:
            return {arm: control for arm, control in self.facts["controls"].items() if control}
        rows = self.comparisons[self.comparisons["relation"] == "control"]
        return dict(zip(rows["arm"], rows["against"], strict=True))

    @property
    def primary(self) -> str:
        """The arm that the question is about; the first arm with a control where none was declared."""
        declared = self.analysis.get("primary_arm") or ""
        others = [arm for arm in self.arms if arm != self.baseline]
        if declared in others:
            return declared
        return next((arm for arm in others if arm in self.controls), others[0] if others else self.baseline)

    @property
    def classes(self) -> list[str]:
        """Classes in the order of the tables."""
        return [name for name in dict.fromkeys(self.metrics["class"]) if name]

    @property
    def judged(self) -> list[str]:
        """Classes with enough positive test groups."""
        if "judged" in self.facts:
            return [name for name in self.classes if name in self.facts["judged"]]
        if "judged" in self.metrics:
            said = set(self.metrics.loc[self.metrics["judged"].astype(str) == "True", "class"])
            return [name for name in self.classes if name in said]
        return self.classes

    @property
    def unjudged(self) -> list[str]:
        """Classes with too few positive test groups to say anything."""
        return [name for name in self.classes if name not in self.judged]

    def score(self, arm: str, metric: str, part: str = "test", kind: str = "", column: str = "value") -> float:
        """A score averaged over repeats, or another column of its row; NaN where the table has none."""
        rows = self._scores(arm, metric, part, kind)
        rows = rows[rows["repeat"].astype(str) == "mean"]
        return float(rows[column].iloc[0]) if len(rows) and column in rows else np.nan

    def _scores(self, arm: str, metric: str, part: str, kind: str) -> pd.DataFrame:
        table = self.metrics
        return table[
            (table["arm"] == arm)
            & (table["metric"] == metric)
            & (table["part"] == part)
            & (table["level"] == self.level)
            & (table["class"] == kind)
        ]

    def by_fold(self, arm: str, metric: str) -> pd.Series:
        """The test scores of single folds, by repeat and fold."""
        rows = self._scores(arm, metric, "test", "")
        rows = rows[rows["repeat"].str.isdecimal() & rows["fold"].str.isdecimal()].astype({"repeat": int, "fold": int})
        return rows.set_index(["repeat", "fold"])["value"]

    def by_repeat(self, arm: str, metric: str) -> pd.Series:
        """The test scores of whole repeats."""
        rows = self._scores(arm, metric, "test", "")
        rows = rows[rows["repeat"].str.isdecimal() & ~rows["fold"].str.isdecimal()].astype({"repeat": int})
        return rows.set_index("repeat")["value"]

    def difference(self, arm: str, relation: str = "baseline", metric: str = "", kind: str = "") -> Difference | None:
        """How an arm compares with its baseline or control; None where nothing was compared."""
        table = self.comparisons
        rows = table[
            (table["arm"] == arm)
            & (table["relation"] == relation)
            & (table["metric"] == (metric or self.metric))
            & (table["level"] == self.level)
            & (table["class"] == kind)
        ]
        if not len(rows):
            return None
        row = rows.iloc[0]
        in_family = bool(np.isfinite(row["low"]) and np.isfinite(row["high"]))
        low, high = (row["low"], row["high"]) if in_family else (row["low_single"], row["high_single"])
        confirmed = row["standing"] == inference.CONFIRMED
        ends = (float(row["difference"]), float(low), float(high))
        q = float(row["q"]) if "q" in rows else math.nan
        return Difference(str(row["against"]), *ends, in_family, str(row["verdict"]), confirmed, q)

    def groups(self) -> list[list[str]]:
        """Arms with their control at the end of each list; the primary arm's first, the baseline left out."""
        out: dict[str, list[str]] = {}
        serving = set(self.controls.values())
        arms = [self.primary] + [arm for arm in self.arms if arm not in (self.primary, self.baseline)]
        for arm in arms:
            control = self.controls.get(arm)
            if control and control != self.baseline:
                out.setdefault(control, []).append(arm)
            elif arm not in serving:
                out.setdefault(f"\0{arm}", []).append(arm)
        return [members + ([] if key.startswith("\0") else [key]) for key, members in out.items()]


def read(metrics: Path, comparisons: Path, analysis: Path) -> Results:
    """Read the tables that aggregate_metrics wrote."""
    facts = json.loads(Path(analysis).read_text(encoding="utf-8"))
    text = {"arm": str, "class": str, "metric": str, "level": str}
    tables = []
    for path, more in (
        (metrics, {"part": str, "repeat": str, "fold": str}),
        (comparisons, {"against": str, "relation": str, "verdict": str, "family": str, "standing": str}),
    ):
        # Class names may be words such as "NA": only empty cells of number columns are missing values.
        table = pd.read_csv(path, dtype=text | more, keep_default_na=False, na_values={})
        lacking = [name for name in text if name not in table]
        if lacking:
            raise UserError(f"{path} has no column {lacking[0]!r}: delete it and run again")
        for name in ("value", "low", "high", "difference", "low_single", "high_single", "q"):
            if name in table:
                table[name] = pd.to_numeric(table[name], errors="coerce")
        tables.append(table)
    declared = facts.get("analysis", facts)
    return Results(tables[0], tables[1], declared, facts)
