"""A rehearsal keeps what fails after a night, and cuts what takes the night."""

from __future__ import annotations

import copy

from tests.helpers.configs import DEFAULT, SHIPPED
from workflow_scripts.lib.config import check, rehearsal


def test_images_networks_and_batches_stay_and_steps_draws_and_counts_are_cut() -> None:
    config = copy.deepcopy(DEFAULT)
    config["arms"][0] |= {"steps": 900, "checkpoints": 30}
    small = rehearsal.of(config)
    assert {entry["steps"] for entry in small["generators"]} == {rehearsal.STEPS}
    assert small["train_classifier"]["steps"] == small["arms"][0]["steps"] == rehearsal.STEPS
    assert small["train_classifier"]["checkpoints"] == small["arms"][0]["checkpoints"] == 1
    for before, after in zip(config["synthetic_sets"], small["synthetic_sets"], strict=True):
        assert after.get("count", 0) <= max(before.get("batch", 0), rehearsal.SIMULATED)
    assert small["analysis"]["draws"] == rehearsal.DRAWS < config["analysis"]["draws"]
    for name in ("data", "simulate_cells", "preprocess_images", "make_folds", "seed", "compute", "regimes"):
        assert small[name] == config[name], name
    cut = {"steps", "checkpoints", "count", "per_class"}
    for part in ("generators", "synthetic_sets", "arms"):
        for before, after in zip(config[part], small[part], strict=True):
            assert {key for key in before if before[key] != after[key]} <= cut


def test_a_rehearsal_is_a_run_of_its_own_that_says_what_it_is_and_can_be_rehearsed_no_smaller() -> None:
    small = rehearsal.of(DEFAULT)
    checked = check.check(copy.deepcopy(small))
    assert checked["run"] == "demo-rehearsal" != DEFAULT["run"] and checked["report"]["demonstration"]
    assert "rehearsal" in checked["report"]["demonstration_text"]
    again = rehearsal.of(small)
    assert again | {"run": ""} == small | {"run": ""}
    assert len(rehearsal.name_of("a" * 40)) == rehearsal.LONGEST
    assert rehearsal.name_of("a" * 40) != "a" * 40


def test_what_an_entry_has_from_its_base_is_cut_too() -> None:
    config = copy.deepcopy(DEFAULT) | {
        "generators": [*DEFAULT["generators"], {"base": "unet", "name": "wide", "widths": [128, 192]}],
        "synthetic_sets": [*DEFAULT["synthetic_sets"], {"base": "balanced", "name": "second", "count": 90_000}],
    }
    small = rehearsal.of(config)
    assert small["generators"][-1]["steps"] == rehearsal.STEPS and small["generators"][-1]["widths"] == [128, 192]
    base = next(entry for entry in DEFAULT["synthetic_sets"] if entry["name"] == "balanced")
    assert small["synthetic_sets"][-1]["count"] == base["batch"], "a whole batch"


def test_both_parts_of_a_pre_training_keep_steps() -> None:
    config = copy.deepcopy(DEFAULT)
    config["arms"][0] |= {"pretrain": 0.01}
    kept = rehearsal.of(config)["arms"][0]["pretrain"]
    assert 1 <= kept * rehearsal.STEPS <= rehearsal.STEPS - 1


def test_the_shipped_config_can_be_rehearsed() -> None:
    # An arm and its control have sets of one size there, from a generator and from the simulator.
    assert check.check(rehearsal.of(copy.deepcopy(SHIPPED)))["run"] == "demo-rehearsal"
