"""Which arms stand together in figures."""

from __future__ import annotations

import pandas as pd
import pytest

from workflow_scripts.lib.page import arm_categories, arm_figures
from workflow_scripts.lib.page.run_tables import Results
from workflow_scripts.lib.page.sections import arms_section


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


def test_the_table_of_costs_says_what_an_arm_starts_from() -> None:
    arms = [
        {"name": "real", "method": "real_only"},
        {"name": "encoder", "method": "generator_features", "generator": "unet"},
        {"name": "fresh", "method": "generator_random", "generator": "unet"},
        {"name": "filled", "method": "feature_fill"},
    ]
    facts = {"arms": {arm["name"]: {"method": arm["method"], "numbers": {}} for arm in arms}}
    names = pd.DataFrame({"arm": [arm["name"] for arm in arms], "class": ""})
    comparisons = pd.DataFrame(columns=["arm", "relation", "metric", "level", "class", "against"])
    about = {"primary_arm": "encoder", "baseline": "real", "metric": "map"}
    config = {"train_classifier": {"weights": "w/r.pth"}, "arms": arms}
    rows = arms_section.costs(Results(names, comparisons, about, facts), config).rows
    wanted = {"real": "r.pth", "encoder": "generator unet", "fresh": "scratch", "filled": "its fold's baseline"}
    assert {row["arm"]: row["start"] for row in rows} == wanted


@pytest.mark.parametrize(("level", "of"), [("image", "images"), ("protein", "groups")])
def test_the_fraction_of_a_class_is_that_of_the_level(level: str, of: str) -> None:
    names = pd.DataFrame({"arm": ["real", "mix"], "class": ""})
    comparisons = pd.DataFrame(columns=["arm", "relation", "metric", "level", "class", "against"])
    about = {"primary_arm": "mix", "baseline": "real", "metric": "map", "level": level}
    table = arms_section.by_class(Results(names, comparisons, about, {}))
    assert f"fraction of {of}" in [column.title for column in table.columns]
