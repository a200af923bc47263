"""lib.judge.comparisons: the rows of every pair of arms by hand, and verdicts on worlds whose truth is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.worlds import ANALYSIS, ARMS, SAME, World, experiment, summaries
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.judge import comparisons, inference, scoring
from workflow_scripts.lib.judge.question import Pair, Question
from workflow_scripts.lib.judge.scoring import Summary


def verdicts(seed, skills, metric="macro_f1", **more):
    found = summaries(seed, skills, **more)
    analysis = ANALYSIS | {"draws": more.get("draws", 200), "metric": metric}
    rows = comparisons.macro_rows(Question(analysis, ARMS, seed), found, "image")
    return {row["arm"]: row for row in rows if row["family"] == "primary" and row["relation"] == "baseline"}


@pytest.mark.parametrize("metric", ["macro_f1", "map"])
def test_arms_of_equal_skill_are_rarely_told_apart(metric):
    found = [verdicts(100 + seed, SAME, metric, repeats=3).values() for seed in range(40)]
    assert all(any(row["standing"] == "confirmed" for row in rows) for rows in found), "the first step always counts"
    false = [
        any(row["verdict"].split(",")[0] in ("helps", "hurts") and row["standing"] == "confirmed" for row in rows)
        for rows in found
    ]
    # At a true rate of 5 % more than 6 of 40 would be seen once in 150 times.
    assert sum(false) <= 6


def test_a_planted_effect_is_found_with_its_sign_and_beyond_its_control():
    found = [verdicts(200 + seed, {"real_only": 1.0, "mix": 3.5, "mix_real": 1.0}) for seed in range(5)]
    assert all(one["mix"]["verdict"] == "helps" and one["mix"]["difference"] > 0 for one in found)
    worse = verdicts(210, {"real_only": 3.5, "mix": 1.0, "mix_real": 3.5})
    assert worse["mix"]["verdict"] == "hurts"


def test_an_effect_that_the_control_shares_is_not_credited():
    found = [verdicts(300 + seed, {"real_only": 1.0, "mix": 3.5, "mix_real": 3.5})["mix"] for seed in range(5)]
    assert sum(one["verdict"] == "helps, no more than its control" for one in found) >= 4


def test_intervals_cover_the_true_difference():
    # The truth is what a large test set would show: a world of 6,000 groups with the same skills.
    skills = {"real_only": 2.0, "mix": 2.6}
    large = summaries(1, skills, draws=2, groups=6000)
    truth = {m: large["mix"].macro[m][0] - large["real_only"].macro[m][0] for m in ("macro_f1", "map")}
    hits = dict.fromkeys(truth, 0)
    for seed in range(40):
        found = summaries(400 + seed, skills, groups=160)
        for name in truth:
            pair = [Pair("mix", "real_only", "baseline")]
            question = Question(ANALYSIS | {"draws": 200}, ARMS, seed)
            one = comparisons.compare_macro(question, found, pair, name)
            hits[name] += one.low_single[0] <= truth[name] <= one.high_single[0]
    assert min(hits.values()) >= 34


DRAWS = np.tile([-1.0, 1.0], 50)  # of deviation 1 and of size 1 in each draw: every interval is one deviation wide
CLASSES = ["nucleus", "golgi", "rods"]


def summary(macro: float, classes: list[float], deviation: float = 0.0) -> Summary:
    """An arm of these scores by each metric, in one repeat, whose draws lie this far to both sides."""
    plain = {name: np.array([macro]) for name in scoring.MACRO}
    by_class = {name: np.array([classes]) for name in scoring.BY_CLASS}
    draws = dict.fromkeys(plain, macro + deviation * DRAWS[None])
    class_draws = {name: values[..., None] + deviation * DRAWS for name, values in by_class.items()}
    return Summary(None, None, plain, draws, by_class, class_draws)


@pytest.fixture
def by_hand() -> dict[str, Summary]:
    """The baseline, an arm 0.15 above it and its control 0.03 above it, both with a standard error of 0.1."""
    return {
        "real_only": summary(0.5, [0.5, 0.5, 0.5]),
        "mix": summary(0.65, [0.9, 0.55, 0.1], 0.1),
        "mix_real": summary(0.53, [0.5, 0.5, 0.5], 0.1),
    }


def test_rows_of_averages_by_hand(by_hand: dict[str, Summary]) -> None:
    rows = comparisons.family_rows(Question(ANALYSIS | {"draws": 100}, ARMS, 1), by_hand, "macro_f1", "image")
    one = {(row["arm"], row["relation"]): row for row in rows}
    assert [(row["arm"], row["against"], row["relation"]) for row in rows] == [
        ("mix", "real_only", "baseline"),
        ("mix_real", "real_only", "baseline"),
        ("mix", "mix_real", "control"),
    ]
    first = one["mix", "baseline"]
    assert [first[name] for name in ("difference", "low", "high", "se")] == pytest.approx([0.15, 0.05, 0.25, 0.1])
    # The interval ends 0.1 beside the estimate, where the p-value of a normal error is 5 %.
    assert first["p"] == pytest.approx(math.erfc(1.5 * 1.959964 / math.sqrt(2)), rel=1e-5)
    # The arm and its control err alike, so that their difference is certain.
    beyond = one["mix", "control"]
    assert [beyond[name] for name in ("difference", "low", "high")] == pytest.approx([0.12, 0.12, 0.12])
    assert (first["verdict"], beyond["verdict"]) == ("helps", "more than its control")
    control = one["mix_real", "baseline"]
    assert [control[name] for name in ("low", "high")] == pytest.approx([-0.07, 0.13])
    assert (control["verdict"], control["standing"]) == ("inconclusive", "exploratory"), "one repeat"
    # To be found, a gain must be 0.1 + 0.1 where the draw is on the low side.
    assert first["detectable"] == pytest.approx(0.2) and beyond["detectable"] is None
    assert {row["family"] for row in rows} == {"primary"} and {row["class"] for row in rows} == {""}


def test_a_gain_no_larger_than_the_controls_is_not_credited(by_hand: dict[str, Summary]) -> None:
    by_hand["mix_real"] = summary(0.7, [0.5, 0.5, 0.5], 0.1)
    rows = comparisons.family_rows(Question(ANALYSIS | {"draws": 100}, ARMS, 1), by_hand, "macro_f1", "image")
    assert [row["verdict"] for row in rows] == ["helps, no more than its control", "helps", "less than its control"]


def test_other_averages_and_arms_outside_the_family_confirm_nothing(by_hand: dict[str, Summary]) -> None:
    question = Question(ANALYSIS | {"draws": 100, "family": ["mix"]}, ARMS, 1)
    rows = comparisons.macro_rows(question, by_hand, "image")
    inside = [row for row in rows if row["family"] != "outside"]
    outside = [row for row in rows if row["family"] == "outside"]
    assert {row["arm"] for row in inside} == {"mix"} and {row["arm"] for row in outside} == {"mix_real"}
    assert {row["metric"]: row["family"] for row in inside} == {
        "macro_f1": "primary",
        "map": "secondary",
        "micro_f1": "secondary",
    }
    assert {row["standing"] for row in rows if row["family"] != "primary"} == {inference.EXPLORATORY}
    assert {(row["low"], row["high"], row["verdict"]) for row in outside} == {(None, None, "")}
    assert outside[0]["low_single"] == pytest.approx(-0.07) and outside[0]["high_single"] == pytest.approx(0.13)


def test_rows_of_classes_by_hand(by_hand: dict[str, Summary]) -> None:
    question = Question(ANALYSIS | {"draws": 100}, ARMS, 1)
    arms = experiment(World(1, groups=8), {"real_only": 2.0})
    arms.classes = CLASSES
    run = scoring.ScoredRun(question, arms, None, None, {}, np.array([True, False, True]), {})
    rows = [row for row in comparisons.class_rows(run, by_hand, "image") if row["metric"] == "f1"]
    one = {(row["arm"], row["relation"], row["class"]): row for row in rows}
    assert len(one) == 6 and {key[2] for key in one} == {"nucleus", "rods"}, "golgi is not judged"
    gain, loss = one["mix", "baseline", "nucleus"], one["mix", "baseline", "rods"]
    assert (gain["difference"], gain["low_single"], gain["high_single"]) == pytest.approx((0.4, 0.3, 0.5))
    assert loss["difference"] == pytest.approx(-0.4)
    # Four comparisons share a false discovery rate: two p-values of 4 standard errors, and two of 1 for no difference.
    p = math.erfc(4 * 1.959964 / math.sqrt(2))
    assert (gain["p"], gain["q"], loss["q"]) == pytest.approx((p, 2 * p, 2 * p), rel=1e-3)
    assert one["mix_real", "baseline", "rods"]["q"] == pytest.approx(1)
    assert [gain["verdict"], loss["verdict"]] == ["helps", "hurts"]
    assert one["mix_real", "baseline", "rods"]["verdict"] == "inconclusive"
    assert one["mix", "control", "nucleus"]["verdict"] == "more than its control"
    assert {(row["low"], row["family"], row["standing"]) for row in rows} == {(None, "exploratory", "exploratory")}


def test_all_rows_of_a_run_and_its_cross_check() -> None:
    arms = experiment(World(5, groups=60), {"real_only": 1.0, "mix": 3.0, "mix_real": 1.0}, repeats=2)
    run = scoring.score_experiment(Question(ANALYSIS | {"draws": 50}, ARMS, 1), arms, 1)
    rows = comparisons.compare_arms(run)
    assert all(set(row) == set(comparisons.COLUMNS) for row in rows)
    assert {(row["repeats"], row["training_luck"]) for row in rows} == {(2, True)}
    # Three pairs by three averages and, for each judged class, by two metrics; at both levels.
    assert len(rows) == 2 * (3 * 3 + 2 * 3 * run.judged.sum())
    within = {name: one.test.fold_macro_f1(run.judged)[:, 0] for name, one in run.primary_level.items()}
    (found,) = [row for row in comparisons.cross_check(run) if row["arm"] == "mix" and row["relation"] == "baseline"]
    differences = within["mix"] - within["real_only"]
    assert found["folds"] == 4 and found["worst_fold"] == differences.min()
    expected = inference.nadeau_bengio(differences, 1.0, 0.95)  # two folds: as many images are tested as trained on
    assert (found["difference"], found["low"], found["high"]) == pytest.approx(expected)


def test_nothing_is_claimed_of_other_proteins_where_the_train_part_stays() -> None:
    found = {
        name: replace(one, design=replace(one.design, shared=np.ones_like(one.design.shared), fixed=False))
        for name, one in summaries(7, SAME, draws=20, repeats=2).items()
    }
    narrow = ANALYSIS | {"draws": 20}
    rows = comparisons.family_rows(Question(narrow, ARMS, 7), found, "macro_f1", "image")
    assert rows and all(row["beside_low"] is None for row in rows), "nothing is said of the other level either"
    wide = Question(narrow | {"claim": "other_proteins"}, ARMS, 7)
    with pytest.raises(UserError, match="all repeats have the same train part"):
        comparisons.family_rows(wide, found, "macro_f1", "image")


def test_the_other_level_does_not_depend_on_the_order_of_arms() -> None:
    found = summaries(8, SAME, draws=50, repeats=3)
    few = found["mix_real"].design
    # An arm of a regime with few labels holds back fewer groups, so that more seem to be trained on.
    found["mix_real"] = replace(found["mix_real"], design=replace(few, shared=few.shared * 0.3 + 0.001))
    question = Question(ANALYSIS | {"draws": 50}, ARMS, 8)
    ends = [
        [row["beside_high"] for row in comparisons.family_rows(question, arms, "macro_f1", "image")]
        for arms in (found, dict(reversed(found.items())))
    ]
    assert ends[0] == ends[1] and None not in ends[0]


def test_nothing_is_claimed_of_other_proteins_where_a_fold_has_no_score() -> None:
    found = summaries(9, SAME, draws=20, repeats=2)
    for one in found.values():
        one.fold_macro["map"][1] = np.nan
    narrow = ANALYSIS | {"draws": 20, "metric": "map"}
    rows = comparisons.family_rows(Question(narrow, ARMS, 9), found, "map", "image")
    assert rows and all(row["beside_low"] is None for row in rows)
    wide = Question(narrow | {"claim": "other_proteins"}, ARMS, 9)
    with pytest.raises(UserError, match="a fold tests no image of any judged class"):
        comparisons.family_rows(wide, found, "map", "image")
    rows = comparisons.family_rows(wide, found, "map", "image", "secondary")
    assert {row["claim"] for row in rows} == {"these_proteins"}, "of another metric the narrower claim is made"


def test_the_cross_check_takes_the_images_that_the_regime_labels() -> None:
    arms = experiment(World(5, groups=60), {"real_only": 1.0, "few": 1.0, "mix": 3.0, "mix_real": 1.0}, repeats=2)
    entries = [
        {"name": "real_only", "method": "real_only"},
        {"name": "few", "method": "real_only"},
        {"name": "mix", "method": "pool", "baseline": "few", "control": "mix_real"},
        {"name": "mix_real", "method": "resample_real", "baseline": "few"},
    ]
    for name, count in (("real_only", 100), ("few", 10), ("mix", 500), ("mix_real", 10)):
        record = AccessRecord("world", 1000)
        record.record("fit", range(count))
        for fold in arms.arms[name]:
            fold.access_record = record.to_json()
    run = scoring.score_experiment(Question(ANALYSIS | {"draws": 20}, entries, 1), arms, 1)
    tested = np.mean([len(fold.parts["test"]) for fold in arms.arms["few"]])
    within = {name: one.test.fold_macro_f1(run.judged)[:, 0] for name, one in run.primary_level.items()}
    for row in comparisons.cross_check(run):
        differences = within[row["arm"]] - within[row["against"]]
        expected = inference.nadeau_bengio(differences, tested / 10, 0.95)
        assert (row["difference"], row["low"], row["high"]) == pytest.approx(expected), row["arm"]
