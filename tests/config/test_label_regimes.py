"""Label regimes in the config: who is in which, their baselines, jobs, and what the certificate is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.configs import DEFAULT, checked
from workflow_scripts.lib.config import given_images, label_regimes, stage_views, views
from workflow_scripts.lib.config.problems import ConfigError
from workflow_scripts.lib.judge import declaration

ALL = {"name": "all", "labelled": 1, "unlabelled": "unused", "selection": "same"}
FEW = {"name": "few", "labelled": 0.1, "unlabelled": "seen", "selection": "same"}
GENERATOR, SET = DEFAULT["generators"][0], DEFAULT["synthetic_sets"][0]
BLIND = GENERATOR | {"name": "blind", "regime": "few", "sees": "unlabelled"}
PSEUDO = GENERATOR | {"name": "pseudo", "regime": "few", "sees": "pseudo_labelled"}
SETS = [SET, *(SET | {"name": name, "generator": name} for name in ("blind", "pseudo"))]


def few(name: str, method: str, **more: object) -> dict:
    return {"name": name, "method": method, "regime": "few"} | more


ARMS = [
    {"name": "real_only", "method": "real_only"},
    few("real_few", "real_only"),
    few("pool_few", "pool", synthetic_set="balanced", control="resample_few"),
    few("resample_few", "resample_real", synthetic_set="balanced"),
    few("pseudo_few", "pseudo_label"),
    few("blind_few", "pool", synthetic_set="blind", control="pseudo_few"),
    few("both_few", "pool", synthetic_set="pseudo"),
]


def regimes(*arms: dict, **more: object) -> dict:
    """A checked config with two regimes and these arms."""
    overlay = {"regimes": [ALL, FEW], "arms": [*ARMS, *arms], "analysis": {"primary_arm": "pool_few"}}
    return checked(overlay | {"generators": [GENERATOR, BLIND, PSEUDO], "synthetic_sets": SETS} | more)


def test_a_run_without_regimes_names_none_anywhere() -> None:
    arms = [{"name": name, "method": name} for name in ("real_only", "mixup")]
    overlay = {"regimes": [ALL], "arms": arms, "analysis": {"primary_arm": "mixup"}}
    plain = checked(overlay)
    named = checked(overlay | {"arms": [entry | {"regime": "all"} for entry in arms]})
    assert checked(overlay | {"regimes": [ALL, FEW]})["regimes"] == [ALL], "what nothing has is dropped"
    assert named["arms"] == plain["arms"]
    assert not any(
        "regime" in entry for section in ("arms", "generators", "synthetic_sets") for entry in plain[section]
    )
    for view in (stage_views.fold_settings, stage_views.experiment, stage_views.certificate_settings):
        assert "regimes" not in view(plain)
    assert stage_views.job_settings(plain, plain["arms"])["arms"] == plain["arms"]


def test_entries_inherit_regimes_and_arms_the_baseline_of_theirs() -> None:
    config = regimes()
    arms, sets = views.by_name(config, "arms"), views.by_name(config, "synthetic_sets")
    assert arms["real_only"]["regime"] == "all" and views.by_name(config, "generators")["unet"]["regime"] == "all"
    assert (sets["balanced"]["regime"], sets["blind"]["regime"]) == ("all", "few"), "that of the generator"
    assert arms["pool_few"]["baseline"] == "real_few" and "baseline" not in arms["real_few"]
    assert declaration.family(config["analysis"], config["arms"]) == sorted(
        ["pool_few", "resample_few", "pseudo_few", "blind_few", "both_few"]
    )
    told = label_regimes.told(config, arms["pool_few"])
    assert told["regime"] == FEW
    assert "regime" not in label_regimes.told(config, arms["real_only"]), "everything is labelled"


def test_arms_that_ask_wait_for_the_baseline_of_their_own_regime() -> None:
    asking = {"name": "asking", "method": "filtered", "synthetic_set": "balanced"}
    config = regimes(asking, compute={"arms_per_job": 8})
    jobs = [[entry["name"] for entry in job] for job in views.job_lists(config)]
    assert jobs[:2] == [["real_only"], ["real_few"]]
    assert jobs[2] == ["pool_few", "resample_few", "blind_few"], "they wait for nothing"
    assert jobs[3:] == [["pseudo_few", "both_few"], ["asking"]], "jobs of one regime"
    assert (views.job_of(config, "real_only"), views.job_of(config, "real_few")) == (0, 1)


SECOND = PSEUDO | {"name": "second", "pseudo_labels_from": "shared_few"}
ROUNDS = {
    "generators": [GENERATOR, BLIND, PSEUDO, SECOND],
    "synthetic_sets": [*SETS, SET | {"name": "second", "generator": "second"}],
}
# The first round: an arm of generated images. Here its generator saw all labels.
SHARED = few("shared_few", "pool", synthetic_set="balanced")
LAST = few("last_few", "pool", synthetic_set="second", control="taught_few")
TAUGHT = few("taught_few", "pseudo_label", pseudo_labels_from="shared_few")


def test_pseudo_labels_of_a_named_arm_wait_for_it_and_it_answers_for_unlabelled_images() -> None:
    config = regimes(SHARED, LAST, TAUGHT, **ROUNDS, compute={"arms_per_job": 8})
    jobs = [[entry["name"] for entry in job] for job in views.job_lists(config)]
    assert jobs[:3] == [["real_only"], ["real_few"], ["shared_few"]]
    assert jobs[4:] == [["pseudo_few", "both_few", "last_few"], ["taught_few"]], "one asked arm a job"
    second = views.by_name(config, "generators")["second"]
    assert views.asked_job(config, second) == views.asked_job(config, views.by_name(config, "arms")["taught_few"]) == 2
    told = [stage_views.job_settings(config, job) for job in views.job_lists(config)]
    assert [settings.get("answer_unlabelled") for settings in told[:3]] == [None, None, ["shared_few"]]
    through = {name: about["through"] for name, about in stage_views.certificate_settings(config)["artefacts"].items()}
    for name in ("generator second", "synthetic second", "arm last_few", "arm taught_few"):
        assert through[name] == ["all"], "by the arm that was asked"
    assert through["generator pseudo"] == through["arm both_few"] == []


def test_groups_of_the_tested_value_are_shown_by_a_regime_in_which_all_else_is_labelled() -> None:
    left_out = {"leave_out": "cell_line", "show_left_out": 0.3}
    shown = FEW | {"labelled": 1}
    config = regimes(regimes=[ALL, shown], make_folds=left_out)
    assert label_regimes.partial(config) == [shown]
    assert stage_views.fold_settings(config)["show_left_out"] == 0.3
    assert "show_left_out" not in stage_views.fold_settings(regimes()), "folds of other runs are as they were"
    with pytest.raises(ConfigError, match=r"shows no unlabelled images"):
        regimes(regimes=[ALL, shown])
    with pytest.raises(ConfigError, match=r"needs make_folds\.leave_out"):
        regimes(make_folds={"show_left_out": 0.3})
    with pytest.raises(ConfigError, match=r"make_folds\.show_left_out gives further images"):
        checked({"make_folds": left_out})


@pytest.mark.parametrize(
    ("arms", "second", "words"),
    [
        ([SHARED, few("x", "pool", synthetic_set="blind", pseudo_labels_from="shared_few")], {}, "no pseudo-labels"),
        ([SHARED, LAST, TAUGHT], {"sees": "unlabelled"}, "sees no pseudo-labels"),
        ([LAST, TAUGHT], {}, "is not among the arms"),
        ([SHARED | {"regime": "all"}, LAST, TAUGHT], {}, "has another regime"),
        ([SHARED, LAST | {"control": "pseudo_few"}], {}, "has the pseudo-labels of 'real_few'"),
        ([SHARED | {"synthetic_set": "second"}, LAST, TAUGHT], {}, "would learn from its own answers"),
    ],
)
def test_what_cannot_be_asked_is_named(arms: list[dict], second: dict, words: str) -> None:
    own = ROUNDS | {"generators": [*ROUNDS["generators"][:3], SECOND | second]}
    with pytest.raises(ConfigError, match=words):
        regimes(*arms, **own)


def test_the_certificate_knows_what_each_artefact_was_made_under() -> None:
    told = stage_views.certificate_settings(regimes())
    assert told["regimes"] == [FEW]
    assert told["artefacts"]["arm pool_few"] == {"regime": "few", "through": ["all"]}
    assert told["artefacts"]["arm blind_few"] == {"regime": "few", "through": []}
    assert told["artefacts"]["generator pseudo"] == {"regime": "few", "through": []}
    assert told["artefacts"]["thresholds of few"] == {"regime": "few", "through": []}
    assert told["artefacts"]["arm real_only"] == {"regime": "all", "through": []}


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ({"arms": [*ARMS, few("x", "real_only", regime="feww")]}, "did you mean few?"),
        ({"regimes": [ALL, FEW, FEW]}, "the name 'few' is given twice"),
        ({"regimes": [ALL | {"labelled": 0.5}, FEW]}, "the name is kept for a regime in which everything is labelled"),
        ({"regimes": [ALL, FEW | {"labelled": 0}]}, "regimes[1].labelled"),
        ({"regimes": [ALL, FEW | {"unlabelled": "unused"}]}, "shows no unlabelled images"),
        ({"arms": [*ARMS, {"name": "x", "method": "fixmatch"}]}, "the regime 'all' shows none"),
        ({"arms": [entry for entry in ARMS if entry["name"] != "real_few"]}, "no arm real_only has the regime 'few'"),
        ({"arms": [*ARMS, few("x", "pool", synthetic_set="balanced", control="y"), few("y", "real_only")]}, "has"),
        (
            {"arms": [*ARMS, few("x", "pool", synthetic_set="balanced", control="y"),
                      {"name": "y", "method": "resample_real", "synthetic_set": "balanced", "baseline": "real_few"}]},
            "has another regime",
        ),
        ({"generators": [GENERATOR, BLIND, PSEUDO | {"labels": "single"}]}, "answers are between 0 and 1"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(overlay: dict, words: str) -> None:
    with pytest.raises(ConfigError) as found:
        regimes(**overlay)
    assert words in str(found.value) and "\n" not in str(found.value)


@pytest.fixture
def folder(tmp_path: Path) -> dict:
    """The section data of a folder of two channels with further images beside it."""
    for name in ("images", "more"):
        (tmp_path / name).mkdir()
    for name in ("labels.csv", "more.csv"):
        (tmp_path / name).write_text("Id,Target\n", encoding="utf-8")
    further = {"images": str(tmp_path / "more"), "table": str(tmp_path / "more.csv")}
    own = {"images": str(tmp_path / "images"), "table": str(tmp_path / "labels.csv")}
    return {"source": "folder", "unlabelled": further, "class_names": ["a", "b"], **own}


MORE = {"name": "more", "labelled": 1, "unlabelled": "seen", "selection": "same"}
MORE_ARMS = [{"name": "real_only", "method": "real_only"}, {"name": "pseudo", "method": "pseudo_label"}]
SHOWN = {"regimes": [MORE], "arms": MORE_ARMS, "analysis": {"primary_arm": "pseudo"}}


def test_further_images_make_a_regime_of_its_own_out_of_one_in_which_everything_is_labelled(folder: dict) -> None:
    config = checked(SHOWN | {"data": folder})
    assert label_regimes.partial(config) == [MORE]
    assert stage_views.job_settings(config, config["arms"])["arms"][1]["regime"] == MORE
    assert "regimes" not in stage_views.fold_settings(config), "it changes no role of a labelled image"
    assert stage_views.certificate_settings(config)["artefacts"]["arm pseudo"] == {"regime": "more", "through": []}
    given = given_images.raw_images(config)
    assert given_images.raw_flags(config, given).endswith(
        f"--unlabelled-images {folder['unlabelled']['images']} --unlabelled-table {folder['unlabelled']['table']}"
    )
    alone = checked(SHOWN | {"data": folder | {"unlabelled": {"table": folder["unlabelled"]["table"]}}})
    assert given_images.raw_images(alone)["unlabelled_images"] == folder["images"], "where no other folder is named"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {
                "regimes": [MORE | {"unlabelled": "unused"}],
                "arms": MORE_ARMS[:1],
                "analysis": {"primary_arm": "real_only"},
            },
            "no regime of an arm",
        ),
        ({"regimes": [MORE | {"name": "all"}]}, "the name is kept for a regime in which everything is labelled"),
        ({"data": {"source": "simulated"}}, "is for images of your own"),
        ({"data": {"unlabelled": {"table": "/nowhere/more.csv"}}}, "data.unlabelled.table = "),
        ({"data": {"unlabelled": None}}, "the regime 'more' shows none"),
    ],
)
def test_mistakes_about_further_images_are_told_in_one_line(folder: dict, changes: dict, words: str) -> None:
    with pytest.raises(ConfigError) as found:
        checked(SHOWN | changes | {"data": folder | changes.get("data", {})})
    assert words in str(found.value) and "\n" not in str(found.value)


def test_another_regime_changes_no_role() -> None:
    """So a new point of the map trains nothing again that is of other regimes."""
    config, other = regimes(), regimes(regimes=[ALL, FEW | {"labelled": 0.3}])
    assert stage_views.fold_settings(other) != stage_views.fold_settings(config)
    assert stage_views.roles_settings(other) == stage_views.roles_settings(config)
    assert stage_views.roles_settings(config)["ranked"] and "ranked" not in stage_views.roles_settings(checked({}))


def test_copies_are_not_looked_for_where_the_generator_has_seen_more_than_the_arm() -> None:
    own = GENERATOR | {"name": "own", "regime": "few"}
    sets = [*SETS, SET | {"name": "own", "generator": "own"}]
    more = {"generators": [GENERATOR, BLIND, PSEUDO, own], "synthetic_sets": sets}
    assert regimes(few("checked", "authentic", synthetic_set="own"), **more)
    for name in ("balanced", "blind"):
        with pytest.raises(ConfigError, match="has seen more: take filtered"):
            regimes(few("checked", "authentic", synthetic_set=name), **more)
