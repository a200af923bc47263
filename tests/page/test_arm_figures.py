"""Which arms stand together in figures."""

from __future__ import annotations

import pandas as pd

from workflow_scripts.lib.page import arm_categories, arm_figures
from workflow_scripts.lib.page.run_tables import Results


def test_a_control_of_two_kinds_of_arms_stands_with_generated_images() -> None:
    controls = {"true": "again", "pool": "again", "other": "real"}
    entries = [{"name": "true", "method": "pool", "synthetic_set": "s"}]
    entries += [{"name": name, "method": "pool", "synthetic_set": "g"} for name in ("pool", "other")]
    entries += [{"name": name, "method": "resample_real", "synthetic_set": "g"} for name in ("again", "real")]
    config = {
        "arms": [{"name": "base", "method": "real_only"}, *entries],
        "synthetic_sets": [{"name": "s", "generator": "simulator"}, {"name": "g", "generator": "unet"}],
    }
    facts = {"baseline": "base", "controls": controls, "answer": {"arm": "true"}}
    metrics = pd.DataFrame({"arm": [entry["name"] for entry in config["arms"]]})
    analysis = {"primary_arm": "true", "baseline": "base"}
    found = arm_figures.by_category(Results(metrics, pd.DataFrame(), analysis, facts), config)
    assert found == [
        (arm_categories.CEILINGS, [["true"]]),
        (arm_categories.GENERATED, [["pool", "again"], ["other", "real"]]),
    ]
