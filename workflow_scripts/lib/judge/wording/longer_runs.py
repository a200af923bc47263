"""What more repeats would tell, in words (`longer_runs` in analysis.json)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from workflow_scripts.lib.judge.more_repeats import Forecast


def report(forecast: Forecast) -> dict[str, Any]:
    """The longer runs, and the half-width that remains."""
    return {"runs": [asdict(run) for run in forecast.longer], "least_half_width": forecast.least}


def sentence(longer: dict[str, Any] | None) -> str:
    """The gain that a run of more repeats would find; stands behind that of this run. Empty where nothing is known."""
    if not longer or not longer["runs"]:
        return ""
    first = longer["runs"][0]
    return f"In a run of {first['repeats']} repeats that would be a gain of about {first['detectable']:.3f}."
