"""The map of when generated images pay: who stands where, what is compared, and below how many labels images help."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers import judging
from tests.helpers.arms_data import SECTION
from tests.helpers.worlds import ANALYSIS, World
from workflow_scripts.lib.classify import arm_settings
from workflow_scripts.lib.judge import experiment, regime_map, scoring
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.regime_map import Cell
from workflow_scripts.lib.judge.wording import analysis_report, map_sentences
from workflow_scripts.lib.scores.prediction_file import write_predictions

FEW = {"name": "few", "labelled": 0.1, "unlabelled": "seen", "selection": "same"}
SOURCES = {
    "own": {"sees": "labelled", "labelled": 0.1},
    "pseudo": {"sees": "pseudo_labelled", "labelled": 0.1},
    "half": {"sees": "labelled", "labelled": 0.5},
    "shared": {"sees": "labelled", "labelled": 1},
    "truth": {"sees": "simulator", "labelled": 1},
}
ARMS = {
    # name -> (method, options, skill)
    "real_only": ("real_only", {}, 2.6),
    "pool": ("pool", {"synthetic_set": "shared"}, 2.6),
    "real_few": ("real_only", {"regime": FEW}, 1.0),
    "part_few": ("real_only", {"regime": FEW, "real_fraction": 0.5}, 0.6),
    "pseudo_few": ("pseudo_label", {"regime": FEW}, 1.6),
    "resample_few": ("resample_real", {"regime": FEW, "synthetic_set": "own"}, 1.0),
    "nearest_few": ("nearest_real", {"regime": FEW, "synthetic_set": "own"}, 3.0),
    "own_few": ("pool", {"regime": FEW, "synthetic_set": "own"}, 0.2),
    "better_few": ("pool", {"regime": FEW, "synthetic_set": "pseudo"}, 3.0),
    "other_few": ("pool", {"regime": FEW, "synthetic_set": "half"}, 3.0),
    "true_few": ("pool", {"regime": FEW, "synthetic_set": "truth"}, 3.5),
    "more_few": ("more_real", {"regime": FEW}, 3.0),
    "longer_few": ("pool", {"regime": FEW, "synthetic_set": "own", "budget": 2}, 4.0),
}


def entries() -> list[dict]:
    return [{"name": name, "method": method} | options for name, (method, options, _) in ARMS.items()]


def settings() -> dict[str, dict]:
    return {entry["name"]: arm_settings.effective(entry, SECTION) for entry in entries() if "budget" not in entry}


def groups_of() -> dict[str, float]:
    return {entry["name"]: 20.0 if "regime" in entry else 200.0 for entry in entries()}


def test_arms_stand_in_their_regime_by_what_they_are() -> None:
    few, full = regime_map.arrange(settings(), groups_of(), SOURCES, "real_only")
    assert (few.name, few.groups, few.baseline) == ("few", 20, "real_few")
    assert few.controls == ["pseudo_few", "resample_few"], "no placebo, and no curve of real images"
    assert few.ceilings == ["true_few", "more_few"]
    assert few.generated == {"labelled": ["own_few"], "pseudo_labelled": ["better_few"]}, "half of the labels: no place"
    # With all labels every kind of generator saw the same.
    assert (full.name, full.groups, full.baseline) == ("", 200, "real_only")
    assert full.generated == {"labelled": ["pool"], "pseudo_labelled": ["pool"]}


def test_a_generator_that_saw_no_further_images_does_not_stand_for_those_that_did() -> None:
    """A regime that labels everything may show further images, such as a new cell line: the whole one saw none."""
    seen = {"name": "line_seen", "labelled": 1, "unlabelled": "seen", "selection": "same"}
    arms = [
        ("real_known", "real_only", {}),
        ("pool_known", "pool", {"synthetic_set": "a"}),
        ("real_seen", "real_only", {"regime": seen}),
        ("pool_seen", "pool", {"synthetic_set": "b", "regime": seen}),
    ]
    sources = {"a": {"sees": "labelled", "labelled": 1}, "b": {"sees": "unlabelled", "labelled": 1, "further": True}}
    own = {
        name: arm_settings.effective({"name": name, "method": method} | more, SECTION) for name, method, more in arms
    }
    found = regime_map.arrange(own, dict.fromkeys(own, 60.0), sources, "real_known")
    assert [one.generated for one in found] == [{"labelled": ["pool_known"]}, {"unlabelled": ["pool_seen"]}]


def test_real_images_that_are_augmented_or_mixed_are_controls_too() -> None:
    own = {
        name: arm_settings.effective({"name": name, "method": method}, SECTION)
        for name, method in (("real_only", "real_only"), ("mixed", "mixup"), ("two", "two_baselines"))
    }
    [found] = regime_map.arrange(own, dict.fromkeys(own, 60.0), {}, "real_only")
    assert found.controls == ["mixed"]


@pytest.mark.parametrize(
    ("source", "labelled", "seen"),
    [
        ({"sees": "unlabelled", "labelled": 0.1}, 0.1, "unlabelled"),
        ({"sees": "labelled", "labelled": 1}, 0.1, "everything"),
        ({"sees": "labelled", "labelled": 1}, 1, "labelled"),
        ({"sees": "labelled", "labelled": 0.1}, 1, None),
        ({}, 1, None),
    ],
)
def test_what_a_generator_saw_is_told_beside_the_labels_of_the_arm(source, labelled, seen) -> None:
    assert regime_map.what_was_seen(source, labelled) == seen


@pytest.mark.parametrize(
    ("gain", "beyond", "state"),
    [
        ((0.1, 0.05, 0.15), (0.1, 0.02, 0.2), regime_map.HELPS),
        ((0.1, 0.05, 0.15), (0.1, 0.0, 0.2), regime_map.NO_MORE),
        ((0.1, 0.05, 0.15), None, regime_map.UNCONTROLLED),
        ((0.1, -0.01, 0.15), (0.1, 0.02, 0.2), regime_map.UNDECIDED),
        ((-0.1, -0.2, -0.01), (0.1, 0.02, 0.2), regime_map.HURTS),
        ((float("nan"),) * 3, None, regime_map.UNDECIDED),
    ],
)
def test_states(gain, beyond, state) -> None:
    assert regime_map.state(gain, beyond) == state


def test_gains_fall_to_zero_on_a_straight_line_of_the_logarithm() -> None:
    groups = np.array([10.0, 100.0, 1000.0])
    # Columns: falls midway between the second and the third; at the second; nowhere; none at first; twice.
    gains = np.array([[0.3, 0.2, 0.1, -0.1, 0.1], [0.1, 0.0, 0.1, 0.2, -0.3], [-0.1, -0.1, 0.1, 0.1, 0.2]])
    found = regime_map.crossing(groups, gains)
    assert found == pytest.approx([100 * 10**0.5, 100, np.inf, 0, 10 * 10**0.25])


def test_a_limit_has_the_interval_of_its_draws() -> None:
    cell = Cell("labelled", "few", 10.0, "pool", "pseudo", (0.2,) * 3, (0.1,) * 3, regime_map.HELPS)
    cells = [cell, replace(cell, groups=1000.0, state=regime_map.UNDECIDED), replace(cell, saw="everything")]
    # Net gains: the estimate, then four draws, which are mirrored at it.
    nets = np.array([[0.1, 0.1, 0.1, -0.1, 0.1], [-0.1, 0.1, -0.1, -0.1, -0.3], [0.1] * 5])
    [limit] = regime_map.limits(cells, nets, 0.5)
    assert limit.saw == "labelled" and limit.helps_at == [10.0], "one regime has no limit"
    # Draws cross at 10^1.5, 10^2, 10^2.5 and nowhere; the middle half of these.
    assert limit.groups == pytest.approx((100, 10**1.5, 10**2.5))


@pytest.mark.parametrize(("cells", "most_missed"), [(1, 0.05), (2, 0.09)])
def test_the_smallest_of_equal_gains_has_an_interval_that_covers_it(cells: int, most_missed: float) -> None:
    rng, inside = np.random.default_rng(1), []
    for _ in range(1500):
        nets = []
        for _ in range(cells):
            shared = rng.normal(0, 0.7, 401)  # of the arm, in both of its gains; the last number is the error made
            errors = shared + rng.normal(0, 0.7, (2, 401))
            nets.append(
                regime_map.net_gain(SimpleNamespace(estimate=0.1 + errors[:, -1], errors=errors[:, :-1]), [0, 1])
            )
        net = regime_map.mirrored(np.min(nets, axis=0))
        assert net[0] == min(one[0] for one in nets)
        low, high = np.quantile(net[1:], [0.025, 0.975])
        inside.append((low <= 0.1, high >= 0.1))
    below, above = np.mean(inside, axis=0)
    assert 0.96 < below < 0.995 and 1 - most_missed < above < 0.985, (below, above)


def test_cells_with_one_number_of_labels_have_no_limit_and_count_as_the_one_that_gains_least() -> None:
    cell = Cell("unlabelled", "few", 60.0, "pool", "pseudo", (0.2,) * 3, (0.1,) * 3, regime_map.HELPS)
    cells = [cell, replace(cell, regime="other", state=regime_map.UNDECIDED)]
    nets = np.array([[0.1] * 5, [-0.1] * 5])
    assert regime_map.limits(cells, nets, 0.5) == []
    cells.append(replace(cell, groups=10.0))
    [limit] = regime_map.limits(cells, np.vstack([nets, [0.1] * 5]), 0.5)
    assert limit.helps_at == [10.0] and limit.groups[0] == pytest.approx(600**0.5)


def test_the_best_is_chosen_on_validation_scores_and_the_declared_arm_speaks_first() -> None:
    scores = {"a": 0.2, "b": 0.5, "c": float("nan")}
    assert regime_map.best(["a", "c", "b"], scores) == "b"
    assert regime_map.best(["a", "b"], scores, declared="a") == "a"
    assert regime_map.best([], scores) == ""


def predictions() -> tuple[World, dict]:
    """Arms of known skills in a world; `resample_few` is the better control on the validation part alone."""
    world, found = World(3, groups=160), {}
    for entry in entries():
        cells = world.arm(entry["name"], ARMS[entry["name"]][2], luck=0.2)
        for cell in cells:
            cell.settings = arm_settings.effective(entry, SECTION)
            cell.numbers = {"real_groups": groups_of()[entry["name"]]}
        found[entry["name"]] = cells
    for chosen, good in zip(found["resample_few"], found["true_few"], strict=True):
        chosen.parts["validation"] = good.parts["validation"]
    return world, found


@pytest.fixture(scope="module")
def judged():
    """The arms, scored."""
    world, found = predictions()
    names = {str(name) for cells in found.values() for cell in cells for part in cell.parts.values()
             for name in part.groups}  # fmt: skip
    tested = experiment.Experiment(world.classes, sorted(names), found)
    analysis = ANALYSIS | {"draws": 200, "metric": "map", "primary_arm": "better_few"}
    return scoring.score_experiment(Question(analysis, entries(), 1), tested, 1)


def test_cells_are_compared_with_their_baseline_and_their_best_control(judged) -> None:
    found = regime_map.measure(judged, SOURCES)
    assert [(cell.saw, cell.regime, cell.arm, cell.control) for cell in found.cells] == [
        ("labelled", "few", "own_few", "resample_few"),
        ("labelled", "", "pool", ""),
        ("pseudo_labelled", "few", "better_few", "resample_few"),
        ("pseudo_labelled", "", "pool", ""),
    ], "the control that is best on the validation part, not on the test part"
    own, _, better, full = found.cells
    assert own.state == regime_map.HURTS and better.state == regime_map.HELPS and full.state == regime_map.UNDECIDED
    test = {name: float(judged.primary_level[name].macro["map"][0]) for name in ARMS}
    assert better.gain[0] == pytest.approx(test["better_few"] - test["real_few"], abs=1e-6)
    assert better.beyond[0] == pytest.approx(test["better_few"] - test["resample_few"], abs=1e-6)
    assert [limit.saw for limit in found.limits] == ["labelled", "pseudo_labelled"]
    assert found.limits[0].groups == (0, 0, 0) and not found.limits[0].helps_at
    assert found.limits[1].helps_at == [20] and found.limits[1].groups[0] > 20
    said = map_sentences.sentences(map_sentences.report(found, judged.question), {"better_few": "Worth much."})
    assert said[0].endswith(
        "are not shown to help more than the best control at any number of proteins (20 to 200 labelled)."
    )
    assert "with pseudo-labels, help" in said[1] and said[1].endswith("Worth much.")


def test_the_figure_has_each_part_once_in_a_regime(judged) -> None:
    points = regime_map.measure(judged, SOURCES).points
    few = [(point.part, point.series, point.arm) for point in points if point.regime == "few"]
    assert few == [
        ("baseline", "real_only", "real_few"),
        ("control", "pseudo_label", "pseudo_few"),
        ("control", "resample_real", "resample_few"),
        ("ceiling", "simulator", "true_few"),
        ("ceiling", "more_real", "more_few"),
        ("generated", "labelled", "own_few"),
        ("generated", "pseudo_labelled", "better_few"),
    ]
    test = float(judged.primary_level["better_few"].macro["map"][0])
    assert points[6].score[0] == pytest.approx(test) and points[6].score[1] < test < points[6].score[2]


def test_a_run_of_one_regime_has_no_map(judged) -> None:
    assert regime_map.measure(judged, {}) is None, "nobody says what the generators saw"
    names = [name for name, (_, options, _) in ARMS.items() if "regime" not in options]
    alone = replace(judged, question=Question(judged.question.analysis | {"primary_arm": "pool"},
                                              [entry for entry in entries() if entry["name"] in names], 1))  # fmt: skip
    assert regime_map.measure(alone, SOURCES) is None


LIMIT = {"saw": "unlabelled", "helps_at": [20.0], "groups": 63.2, "groups_low": 0, "groups_high": None}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "without labels, help below about 63 labelled proteins (95 % interval: fewer than 20 to more than 320)."),
        ({"groups": None}, "help with 20 labelled proteins, but that is not shown for all numbers tried "
         "(20 to 320)."),
        ({"groups": None, "groups_low": 118.0, "helps_at": [20.0, 80.0, 321.0]},
         "help at all numbers of labelled proteins that were tried, 20 to 320 (95 % interval: 120 to more than 320)."),
        ({"groups": 0}, "help with 20 labelled proteins, but are not shown to help with fewer."),
        ({"helps_at": [80.0], "groups": 100.0}, "but are not shown to help with every other number tried."),
        ({"helps_at": [80.0]}, "but are not shown to help with every other number tried."),
        ({"helps_at": []}, "are not shown to help more than the best control at any number of proteins "
         "(20 to 320 labelled)."),
    ],
)  # fmt: skip
def test_sentences(changed, said) -> None:
    text = map_sentences.sentence(LIMIT | changed, [20.0, 80.0, 321.0], 0.95, "protein")
    assert text.startswith("Images of a generator that saw the other images as well") and text.endswith(said)


def test_the_stage_writes_the_map_beside_its_verdicts(tmp_path) -> None:
    for cells in predictions()[1].values():
        for cell in cells:
            write_predictions(tmp_path / f"{cell.arm}-{cell.fold}.h5", cell)
    asked = {"arms": entries(), "primary_arm": "better_few"}
    judging.declare(tmp_path / "declared", ANALYSIS | {"draws": 100} | asked)
    assert judging.run(tmp_path, declared=tmp_path / "declared", generators_saw=SOURCES, **asked) == 0
    found = json.loads((tmp_path / "out" / "analysis").read_text())["map"]
    assert [entry["regime"] for entry in found["regimes"]] == ["few", "all"]
    assert [(cell["saw"], cell["arm"]) for cell in found["cells"]][2] == ("pseudo_labelled", "better_few")
    assert judging.run(tmp_path, declared=tmp_path / "declared", out="plain", **asked) == 0
    assert "map" not in json.loads((tmp_path / "plain" / "analysis").read_text())


def test_a_control_that_has_not_seen_what_the_generator_saw_is_told() -> None:
    arms = [
        {"name": "a", "synthetic_set": "pseudo", "control": "resample"},
        {"name": "b", "synthetic_set": "pseudo", "control": "pseudo"},
        {"name": "c", "synthetic_set": "own", "control": "resample"},
        {"name": "d", "synthetic_set": "pseudo"},
        {"name": "e", "synthetic_set": "whole", "control": "resample"},
        {"name": "f", "synthetic_set": "further", "control": "pretrained"},
        {"name": "g", "synthetic_set": "further", "control": "resample"},
    ]
    methods = {"resample": "resample_real", "pseudo": "pseudo_label", "pretrained": "ssl_pretrain"}
    known = SimpleNamespace(settings=lambda name: {"method": methods[name]})
    saw = SOURCES | {"whole": {"sees": "pseudo_labelled", "labelled": 1}}
    saw |= {"further": {"sees": "unlabelled", "labelled": 1, "further": True}}
    [told] = analysis_report.unseen_by_controls(Question(ANALYSIS, arms, 1), known, saw)
    assert told.endswith("saw: a (resample), g (resample). A gain beyond it may come from these images.")
    assert analysis_report.unseen_by_controls(Question(ANALYSIS, arms[1:4], 1), known, saw) == []
