"""What stages and rules get from a config: jobs, files, settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.configs import DEFAULT, arm, checked, own_images
from workflow_scripts.lib.config import asked_arms, stage_views, views
from workflow_scripts.lib.config.problems import ConfigError
from workflow_scripts.lib.download.http_client import Policy

ASKING = {"name": "asking", "method": "filtered", "synthetic_set": "balanced"}
FEEDBACK = DEFAULT["synthetic_sets"][0] | {"name": "errs", "labels": "feedback"}
TRUE = {"name": "true_cells", "generator": "simulator", "labels": "balanced", "count": 5}


def with_arms(*entries: dict, **more: object) -> dict:
    """The default config with further arms."""
    return checked({"arms": [*DEFAULT["arms"], *entries]} | more)


def names(jobs: list[list[dict]]) -> list[list[str]]:
    return [[entry["name"] for entry in job] for job in jobs]


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_jobs_hold_the_arms_in_order_and_the_baseline_first() -> None:
    config = with_arms(analysis={"baseline": "pool", "primary_arm": "mix_loss"}, compute={"arms_per_job": 3})
    jobs = names(views.job_lists(config))
    assert [len(job) for job in jobs] == [3, 3, 2]
    assert jobs[0] == ["pool", "real_only", "synthetic_only"]
    assert sorted(name for job in jobs for name in job) == sorted(entry["name"] for entry in DEFAULT["arms"])


def test_arms_that_ask_the_baseline_are_in_later_jobs_than_it() -> None:
    learning = {"name": "learning", "method": "pool", "synthetic_set": "errs"}
    config = with_arms(ASKING, learning, synthetic_sets=[*DEFAULT["synthetic_sets"], FEEDBACK])
    jobs = names(views.job_lists(config))
    assert jobs[0] == ["real_only"], "the baseline waits for nothing, and nothing that could be ready waits for it"
    assert jobs[-1] == ["asking", "learning"]
    assert asked_arms.waits(ASKING, config) and asked_arms.waits(learning, config)
    assert asked_arms.asks_baseline([ASKING]) and not asked_arms.asks_baseline([learning]), "its synthetic set asks"


def test_only_what_an_arm_uses_is_sampled_and_trained() -> None:
    config = with_arms(
        {"name": "true", "method": "pool", "synthetic_set": "true_cells"},
        synthetic_sets=[*DEFAULT["synthetic_sets"], TRUE],
    )
    assert views.used_sets(config) == ["balanced", "true_cells"]
    assert views.used_generators(config) == ["unet"], "the simulator is no generator, and nobody uses minimal"
    assert views.sets_from(config, simulator=True) == ["true_cells"]
    assert views.sets_from(config, simulator=False) == ["balanced", "tail_fill", "minimal"]
    assert views.sets_of(config["arms"][-1:]) == ["true_cells"] and views.sets_of(config["arms"][:1]) == []
    used = stage_views.experiment(config)
    assert [entry["name"] for entry in used["generators"]] == ["unet"]
    assert [entry["name"] for entry in used["synthetic_sets"]] == ["balanced", "true_cells"]


def test_the_job_of_the_submitted_arm_is_found() -> None:
    config = with_arms(compute={"arms_per_job": 3})
    assert views.submitted_arm(config) == "mix_representation" and views.submitted_jobs(config) == [2]
    assert views.submitted_jobs(config | {"write_submission": {"arm": "pool"}}) == [0]
    with pytest.raises(ConfigError, match="'nobody' is not among the arms: real_only, "):
        views.submitted_jobs(config | {"write_submission": {"arm": "nobody"}})


# --- files -----------------------------------------------------------------------------------------------------------


def test_several_jobs_read_the_images_or_none() -> None:
    assert views.shard_files(checked({})) == []
    sharded = checked({"preprocess_images": {"shards": 2}})
    assert views.shard_files(sharded) == [f"results/demo/shards/{shard}of2.json" for shard in (0, 1)]
    assert stage_views.reading(sharded) == stage_views.reading(checked({})), "the set is the same for any number"


def test_weights_are_ones_own_file_or_the_record_of_a_download(tmp_path: Path) -> None:
    (tmp_path / "own.pth").touch()
    large = {"preprocess_images": {"size": 64}, "simulate_cells": {"size": 64}}
    overlay = arm("real_only", backbone="resnet18", weights="imagenet") | large
    overlay["arms"].append(
        {"name": "own", "method": "mixup", "backbone": "resnet34", "weights": str(tmp_path / "own.pth")}
    )
    config = checked(overlay)
    assert views.weights_of(config, config["arms"]) == sorted(
        ["results/demo/fetched/weights/resnet18.csv", str(tmp_path / "own.pth")]
    )
    assert views.weights_of(config, config["arms"][1:2]) == []
    told = stage_views.certificate_settings(config)
    assert told["weights"] == {"own": str(tmp_path / "own.pth")}, "ImageNet is known, this file is not"
    assert views.encoder_weights(config) == []
    own = {"architecture": "resnet18", "weights": str(tmp_path / "own.pth"), "channels": None, "size": 64}
    own |= {"normalise": {"mean": [0.5], "std": [0.5]}}
    asked = config | {"embeddings": config["embeddings"] | {"encoder": own}}
    assert views.users_encoders(asked) == [own] and views.encoder_weights(asked) == [], "assess_synthetic asks others"


def test_files_of_the_replay_lie_in_every_fold_and_shard() -> None:
    with pytest.raises(ConfigError, match=r"needs forensics\.models"):
        views.replay_files(checked({}), ".csv")
    config = DEFAULT | {"forensics": DEFAULT["forensics"] | {"models": [{}], "repeats": 1, "shards": 2}}
    assert views.replay_files(config, ".csv") == [
        f"results/demo/repeat0/fold{fold}/replay/{shard}.csv" for fold in (0, 1) for shard in (0, 1)
    ]


def test_the_report_follows_files_that_it_does_not_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert views.forensics_flag(DEFAULT) == ([], "") and views.digest("ledger.jsonl", 8) == ""
    path = tmp_path / "results" / "demo" / "forensics.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    flag, before = views.forensics_flag(DEFAULT)
    assert flag == ["--forensics", "results/demo/forensics.json"] and len(before) == 32
    path.write_text("{ }")
    assert views.forensics_flag(DEFAULT)[1] != before


def test_a_lockbox_must_hold_images() -> None:
    with pytest.raises(ConfigError, match="there is no lockbox"):
        views.require_lockbox(checked({}))
    views.require_lockbox(checked({"make_folds": {"fractions": {"lockbox": 0.1}}}))


# --- settings --------------------------------------------------------------------------------------------------------


def test_settings_are_one_line_whatever_the_order_of_keys() -> None:
    assert views.as_json({"b": 1, "a": "é"}, threads=2) == '{"a": "é", "b": 1, "threads": 2}'


def test_what_changes_no_result_is_no_setting() -> None:
    config = checked({})
    for overlay in ({"simulate_cells": {"processes": 4}}, {"fetch_images": {"folder": "elsewhere"}}):
        changed = checked(overlay)
        for view in (
            stage_views.cells,
            stage_views.fetch_settings,
            stage_views.judge_settings,
            stage_views.experiment,
        ):
            assert view(changed) == view(config)
    assert "folder" not in stage_views.fetch_weights_settings(config)
    assert "images" not in stage_views.simulator_settings(config, "balanced")["simulate_cells"]


def test_how_servers_are_treated_makes_no_image_again() -> None:
    config = checked({})
    for change in ({"timeout": 60}, {"verify": False}, {"total_gb": 9}, {"kaggle": {"archive_gb": 9}}):
        changed = checked({"fetch_images": change})
        assert stage_views.fetched_images(changed) == stage_views.fetched_images(config)
        assert stage_views.fetch_settings(changed) != stage_views.fetch_settings(config)
    for change in ({"limit": {"images": 9}}, {"kaggle": {"test_images": True}}):
        assert stage_views.fetched_images(checked({"fetch_images": change})) != stage_views.fetched_images(config)


def test_a_crate_asks_for_the_weights_that_were_fetched() -> None:
    config = checked({"train_classifier": {"backbone": "resnet18", "weights": "imagenet"}})
    told = stage_views.crate_settings(config)["config"]
    assert all(entry["weights"] == "imagenet" for entry in told["arms"])
    assert all(entry["weights"].endswith(".pth") for entry in config["arms"]), "this run has them as files"


def test_downloads_of_weights_treat_servers_as_downloads_of_images_do() -> None:
    assert set(stage_views.POLICY) == {*Policy.__dataclass_fields__, "total_gb"}
    given = stage_views.fetch_weights_settings(checked({"fetch_images": {"retries": 9}}))
    assert given["retries"] == 9 and given["file_mb"] == DEFAULT["fetch_weights"]["file_mb"]


def test_simulated_cells_have_an_independent_judge(tmp_path: Path) -> None:
    assert stage_views.assess_settings(checked({})) | {
        "judge": "independent",
        "baseline": "real_only",
    } == stage_views.assess_settings(checked({}))
    assert views.judged_by(own_images(tmp_path)) == "real_only"


def test_settings_of_figures_and_submission_travel_as_json() -> None:
    config = checked({})
    assert stage_views.data_settings(config)["per_class"] == 2 * DEFAULT["report"]["panels"]["per_class"]
    handed_in = json.loads(views.as_json(stage_views.submission_settings(config)))
    assert handed_in["arm"] == "mix_representation" and handed_in["preprocess_images"]["data"]["columns"]["id"] == "Id"
