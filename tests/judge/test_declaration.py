"""What is declared of arms: their control, their budget, and how many settings were tried."""

from __future__ import annotations

import json

from tests.helpers.arms_data import ENTRIES, SECTION
from tests.helpers.worlds import ANALYSIS, ARMS
from workflow_scripts.lib.classify import arm_settings
from workflow_scripts.lib.judge import declaration


def test_a_control_has_the_same_budget() -> None:
    known = {"c": ENTRIES["resample_real"] | {"name": "c", "budget": 2}}
    entry = ENTRIES["pool"] | {"control": "c"}
    assert "another budget: 2 instead of 1" in declaration.control_problem(entry, known, SECTION, "real_only")
    assert declaration.control_problem(entry | {"budget": 2}, known, SECTION, "real_only") is None


def test_unequal_steps_and_trials_are_told() -> None:
    entries = [ENTRIES["real_only"], ENTRIES["resample_real"] | {"budget": 2}]
    entries.append(ENTRIES["pool"] | {"budget": 2, "control": "resample_real", "trials": 6})

    def told(entries) -> str:
        return " ".join(
            declaration.unequal(
                {arm["name"]: arm_settings.effective(arm, SECTION) for arm in entries}, entries, "real_only"
            )
        )

    assert "More optimiser steps than real_only (12), their baseline: resample_real, pool." in told(entries)
    assert (
        "More settings of pool were tried on the validation part (6) than of resample_real (0) and real_only (0)"
        in told(entries)
    )
    long = {"name": "long", "method": "real_only", "budget": 2}
    fair = [entry | {"trials": 6} for entry in [*entries, long]]
    # An arm as long is no baseline of theirs by being there.
    assert "More optimiser steps than real_only (12)" in told(fair)
    beside = [entry | {"baseline": "long"} if entry.get("budget") else entry for entry in fair[:2]]
    assert told([*beside, fair[2] | {"baseline": "long"}, fair[3]]) == ""


def test_trials_are_declared_and_do_not_retrain() -> None:
    entries = [{"name": "a", "method": "real_only"}, {"name": "b", "method": "mixup"}]
    tried = [entries[0], entries[1] | {"trials": 3}]
    assert arm_settings.effective(entries[1], SECTION) == arm_settings.effective(tried[1], SECTION)
    analysis = ANALYSIS | {"baseline": "a", "primary_arm": "b"}
    assert "trials" not in declaration.declaration(analysis, entries), "hashes of before stay as they are"
    assert declaration.declaration_hash(analysis, entries) != declaration.declaration_hash(analysis, tried)


def test_hash_changes_with_what_is_declared_and_with_nothing_else():
    reference = declaration.declaration_hash(ANALYSIS, ARMS)
    shuffled = json.loads(json.dumps(dict(reversed(ANALYSIS.items()))))
    assert declaration.declaration_hash(shuffled, ARMS[::-1]) == reference
    retrained = [ARMS[0] | {"loss": "focal"}, *ARMS[1:]]
    assert declaration.declaration_hash(ANALYSIS, retrained) == reference
    for key, value in {"smallest_effect": 0.03, "primary_arm": "pool", "metric": "map", "family": ["mix"]}.items():
        assert declaration.declaration_hash(ANALYSIS | {key: value}, ARMS) != reference
    more = [*ARMS, {"name": "late_idea", "method": "pool"}]
    assert declaration.declaration_hash(ANALYSIS, more) != reference


def test_a_set_to_resample_by_has_as_many_labels_drawn_alike() -> None:
    entry = ENTRIES["pool"] | {"control": "c", "synthetic_set": "large"}
    known = {"c": ENTRIES["resample_real"] | {"name": "c", "synthetic_set": "other"}}
    large = {"name": "large", "labels": "single", "per_class": 500}

    def problem(**other: object) -> str | None:
        sets = [large, large | {"name": "other"} | other]
        return declaration.control_problem(entry, known, SECTION, "real_only", sets)

    assert problem() is None
    known["c"] = ENTRIES["pseudo_label"] | {"name": "c", "synthetic_set": "other"}
    assert problem() is None and "another synthetic_set" in str(problem(per_class=5))
    known["c"] = ENTRIES["resample_real"] | {"name": "c", "synthetic_set": "other"}
    for other in ({"per_class": 5}, {"labels": "as_train"}, {"columns": "unseen"}):
        assert "another synthetic_set" in str(problem(**other)), other
