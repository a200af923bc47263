"""What an arm is there for, as the page sorts them; apart from `arms`, so that training does not depend on it."""

from __future__ import annotations

from typing import Any

from workflow_scripts.lib import arms, generators

GENERATED, RIVALS, PLACEBOS, CEILINGS = "generated images", "real images alone", "placebos", "ceilings"
PURPOSES = (GENERATED, RIVALS, PLACEBOS, CEILINGS)


def purpose(entry: dict[str, Any], plans: dict[str, dict[str, Any]]) -> str:
    """One of PURPOSES; `plans` by name, as cells that the simulator itself draws are a ceiling."""
    method = arms.METHODS.get(entry.get("method", ""))
    plan = plans.get(entry.get("plan", ""), {})
    if method is None or method.learns_from_generated:
        return CEILINGS if plan.get("generator") == generators.SIMULATOR else GENERATED
    if arms.is_yardstick(entry):
        return CEILINGS
    return PLACEBOS if method.partners in arms.NOTHING_NEW and method.partners != arms.RESAMPLED else RIVALS
