"""Category of an arm (generated, rival, placebo, ceiling), used to group the report.

Apart from `arm_choices`, so that training does not depend on it."""

from __future__ import annotations

from typing import Any

from workflow_scripts.lib.classify import arm_choices, source_choices
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.judge import declaration

GENERATED, RIVALS, PLACEBOS, CEILINGS = "generated images", "real images alone", "placebos", "ceilings"
CATEGORIES = (GENERATED, RIVALS, PLACEBOS, CEILINGS)


def category(entry: dict[str, Any], synthetic_sets: dict[str, dict[str, Any]]) -> str:
    """One of CATEGORIES. Cells that the simulator itself draws are a ceiling; `synthetic_sets` by name."""
    method = arm_choices.METHODS.get(entry.get("method", ""))
    synthetic_set = synthetic_sets.get(entry.get("synthetic_set", ""), {})
    if method is None or method.learns_from_generated:
        return CEILINGS if synthetic_set.get("generator") == generator_choices.SIMULATOR else GENERATED
    if declaration.is_yardstick(entry):
        return CEILINGS
    return (
        PLACEBOS
        if method.second_source in source_choices.NOTHING_NEW and method.second_source != source_choices.RESAMPLED
        else RIVALS
    )


def simulated_sets(config: dict[str, Any]) -> set[str]:
    """Names of the synthetic sets for which no generator is trained: new cells that the simulator draws."""
    return {one["name"] for one in config.get("synthetic_sets", []) if one["generator"] == generator_choices.SIMULATOR}
