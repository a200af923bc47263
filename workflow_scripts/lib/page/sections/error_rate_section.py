"""What the judge itself is worth: its measured rate of wrong claims, and the gain that a run could have found.

The rate comes from `benchmarks/judge_calibration.json`, which `python -m benchmarks.judge_calibration` writes from
worlds without an effect; the size from the run's own intervals (analysis.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base import source_code

RECORD = "benchmarks/judge_calibration.json"
JUDGE = tuple(
    f"workflow_scripts/lib/{name}.py"
    for name in ("judge/comparisons", "judge/inference", "scores/f1", "scores/ranking_metrics", "judge/scoring")
)


def judge_digest(root: Path) -> str:
    """Digest of the code that decides what is said about an arm."""
    return source_code.digest(root / name for name in JUDGE)


def read(root: Path) -> dict[str, Any] | None:
    """The record of the checkout at `root`, None where there is none."""
    path = root / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def measured(record: dict[str, Any] | None, metric: str, repeats: int, digest: str) -> str:
    """How often this judge claims a difference where there is none, in words; `metric` and `repeats` are the run's."""
    # More repeats than were tried are judged at least as well as the most that were.
    rows = [row for row in (record or {}).get("worlds", []) if row["metric"] == metric and row["repeats"] <= repeats]
    most = max((row["repeats"] for row in rows), default=0)
    rows = [row for row in rows if row["repeats"] == most]
    if record is None or not rows:
        return "How often this way of judging claims a difference wrongly has not been measured for this metric."
    if most < repeats == 2:
        return (
            "How often this way of judging claims a difference wrongly has been measured with one repeat, which cannot "
            "tell the luck of training from an effect, and with three, which can; not with two."
        )
    worst = max(rows, key=lambda row: row["fraction"])
    kinds = f"{len(rows)} worlds" if len(rows) > 1 else "one world"
    worlds = f"{sum(row['repetitions'] for row in rows):,} repetitions of {kinds} in which these arms had no effect"
    wrong = sum(row["wrong"] for row in rows) / sum(row["repetitions"] for row in rows)
    text = (
        f"In {worlds}, with {_times(most)}, this way of judging wrongly claimed a difference for at least one arm "
        f"in {_percent(wrong)} (aim: {_percent(1 - record['confidence'])}; worst world: {_percent(worst['fraction'])}, "
        f"upper limit {_percent(worst['upper'])})."
    )
    if most < 2:
        text += " One repeat cannot tell the luck of training from an effect; three repeats can."
        trained = [row["fraction"] for row in rows if row.get("world") == "trained"]
        if trained:
            text += (
                f" Among copies of one arm that were really trained, on simulated cells, it was {_percent(trained[0])}."
            )
    if record["code"] != digest:
        text += " That was measured with an earlier version of its code."
    return text


def detectable(answer: dict[str, Any]) -> str:
    """The smallest true gain of the primary arm that the whole rule would find, in words."""
    size = answer.get("detectable")
    if size is None:
        return ""
    over = f"over {answer['baseline']}" + (f" and over {answer['control']}" if answer.get("control") else "")
    return f"A true gain of {size:.3f} {over} would be found with a power of {100 * answer['power']:g} %."


def _times(repeats: int) -> str:
    return "one repeat" if repeats == 1 else f"{repeats} repeats"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
