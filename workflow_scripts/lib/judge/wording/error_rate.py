"""How often the judge is wrong, and the gain that a run could have found, in words."""

from __future__ import annotations

from typing import Any


def measured(record: dict[str, Any] | None, metric: str, repeats: int, digest: str) -> str:
    """The measured rate of wrong claims, for the metric and the number of repeats of the run.

    `record` is benchmarks/judge_calibration.json; `digest` is that of the judge's present code."""
    of_metric = [row for row in (record or {}).get("worlds", []) if row["metric"] == metric]
    if record is None or not of_metric:
        return "The rate of wrong claims has not been measured for this metric and these settings of the analysis."
    # Other numbers of repeats say nothing of this one: more repeats are not judged better in every world.
    rows = [row for row in of_metric if row["repeats"] == repeats]
    if not rows:
        tried = " and ".join(str(count) for count in sorted({row["repeats"] for row in of_metric}))
        return f"The rate of wrong claims has been measured with {tried} repeats, not with {repeats}."
    worst = max(rows, key=lambda row: row["fraction"])
    kinds = f"{len(rows)} worlds" if len(rows) > 1 else "one world"
    worlds = f"{sum(row['repetitions'] for row in rows):,} repetitions of {kinds} in which these arms had no effect"
    wrong = sum(row["wrong"] for row in rows) / sum(row["repetitions"] for row in rows)
    text = (
        f"In {worlds}, with {_repeats(repeats)}, this analysis wrongly claimed a difference for at least one arm "
        f"in {_percent(wrong)} (aim: {_percent(1 - record['confidence'])}; worst world: {_percent(worst['fraction'])}, "
        f"upper limit {_percent(worst['upper'])})."
    )
    if repeats < 2:
        text += " With one repeat, the variance between repeats cannot be separated from an effect. With three it can."
        trained = [row["fraction"] for row in rows if row.get("world") == "trained"]
        if trained:
            text += (
                f" Among copies of one arm that were really trained, on simulated cells, it was {_percent(trained[0])}."
            )
    if record["code"] != digest:
        text += " This rate was measured with an earlier version of the analysis."
    return text


def detectable(answer: dict[str, Any]) -> str:
    """The smallest true gain of the primary arm that the whole rule would find."""
    size = answer.get("detectable")
    if size is None or not answer.get("training_luck", True):
        return ""
    over = f"over {answer['baseline']}" + (f" and over {answer['control']}" if answer.get("control") else "")
    return f"A true gain of {size:.3f} {over} would be found with a power of {100 * answer['power']:g} %."


def _repeats(count: int) -> str:
    return "one repeat" if count == 1 else f"{count} repeats"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
