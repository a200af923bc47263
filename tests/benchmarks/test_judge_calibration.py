"""The judge on trial, in short: few repetitions of small worlds that the judge did not define, and what is made of it.

`python -m benchmarks.judge_calibration` is the long version."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks import judge_calibration, judge_worlds
from benchmarks.judge_worlds import CALIBRATION, TEST, Fresh, Pool, Shape
from workflow_scripts.lib.judge import inference
from workflow_scripts.lib.judge.wording import error_rate, page_opening
from workflow_scripts.lib.page.sections import error_rate_section

SMALL = Shape(groups=140, images=2, classes=4, least=0.1, luck=0.0, class_luck=0.0)
# Networks differ by much more than the draw of the groups explains.
LUCKY = replace(SMALL, luck=0.6, class_luck=0.6)
MANY = ("real_only", "mix", "mix_real", "pool", "resample_real", "a", "b", "c", "d")
DRAWS, REPETITIONS = 120, 24
# At a true rate of 5 % more than 4 of 24 would be seen once in 150 times; at 40 % 4 or fewer once in 100.
MOST = 4


def trial(make, repeats):
    rngs = [np.random.default_rng([1, number]) for number in range(REPETITIONS)]
    return [judge_calibration.summarise(make(repeats, "map", rng), DRAWS, n) for n, rng in enumerate(rngs)]


@pytest.fixture(scope="module")
def lucky():
    """Worlds without an effect, three repeats each."""
    return trial(judge_calibration.fresh(LUCKY), 3)


@pytest.fixture(scope="module")
def many():
    """Worlds without an effect and without luck, three repeats each, of ten comparisons."""
    return trial(judge_calibration.fresh(SMALL, MANY), 3)


@pytest.fixture(scope="module")
def opened(many):
    """The same, but for the primary arm, which gains so much that the others are always tested."""
    # The random numbers are those of `many`, so the other arms are the same and are not scored again.
    short = trial(judge_calibration.fresh(SMALL, MANY[:2], judge_calibration.FOUND_ALWAYS), 3)
    return [one | {"mix": other["mix"]} for one, other in zip(many, short, strict=True)]


PAIRED = inference.paired_intervals
METRICS = judge_calibration.METRICS


def single_intervals(*args):
    found = PAIRED(*args)
    return replace(found, low=found.low_single, high=found.high_single)


def rows_of(judged):
    """What is concluded from each trial, by metric."""
    each = [judge_calibration.rows_of(summaries, DRAWS, number) for number, summaries in enumerate(judged)]
    return {metric: [rows[metric] for rows in each] for metric in METRICS}


def wrong(rows, metric, better=""):
    return judge_calibration.counted(rows[metric], better)["wrong"]


@pytest.fixture(scope="module")
def honest(lucky, many, opened):
    """What the judge concludes as it is."""
    return {"lucky": rows_of(lucky), "many": rows_of(many), "opened": rows_of(opened)}


@pytest.mark.parametrize("metric", METRICS)
def test_the_judge_is_rarely_wrong_about_copies_of_the_baseline(honest, metric):
    assert wrong(honest["lucky"], metric) <= MOST
    assert wrong(honest["many"], metric) <= MOST
    assert wrong(honest["opened"], metric, "mix") <= MOST
    # The primary arm was found in all of them, or the others would not have been tested.
    assert wrong(honest["opened"], metric) == REPETITIONS


def test_a_judge_that_forgets_the_number_of_comparisons_is_told(opened, honest, monkeypatch):
    monkeypatch.setattr(inference, "paired_intervals", single_intervals)
    forgetful = rows_of(opened)
    for metric in METRICS:
        assert wrong(forgetful, metric, "mix") > wrong(honest["opened"], metric, "mix")


def test_a_judge_that_forgets_the_order_of_testing_is_told(many, monkeypatch):
    # With single intervals the rest is wrong often, but not confirmed where the primary arm showed no difference.
    monkeypatch.setattr(inference, "paired_intervals", single_intervals)
    in_order = rows_of(many)
    monkeypatch.setattr(inference, "standing", lambda found, first: [inference.CONFIRMED] * len(found.se))
    forgetful = rows_of(many)
    for metric in METRICS:
        assert wrong(forgetful, metric) > wrong(in_order, metric)


def test_a_judge_that_forgets_the_variance_between_repeats_is_told(lucky, monkeypatch):
    whole = inference.mean_variance

    def none(seen, others, prior):
        return replace(whole(seen, others, prior), luck=np.zeros(1), weights=np.ones(1))

    monkeypatch.setattr(inference, "mean_variance", none)
    forgetful = rows_of(lucky)
    for metric in METRICS:
        assert wrong(forgetful, metric) > MOST


def test_what_the_judge_says_it_can_find_is_found(honest):
    size = judge_calibration.counted(honest["many"]["map"])["detectable"]

    def found(fraction):
        gain = judge_calibration.gain_of(fraction * size, "map", 5, 30, SMALL)
        # The primary arm is tested first: the arms beside it and its control change nothing about it.
        return judge_calibration.power(judge_calibration.fresh(SMALL, MANY[:3], gain), "map", 3, range(24), DRAWS, 5)

    whole = found(1)
    assert whole["effect"] == pytest.approx(whole["detectable"], rel=0.25)
    # Fewer than 14 of 24 would be seen once in 150 times at a power of 80 %; of half the size a quarter is found.
    assert whole["found"] >= 14 > 12 >= found(0.5)["found"]


def test_detectable_effect_of_normal_draws():
    draws = np.random.default_rng(2).normal(0, 0.1, (2, 1, 40_000))
    found = inference.intervals(np.zeros((2, 1)), draws, 0.95, 1)
    width = found.high[0]
    assert found.detectable([0]) == pytest.approx(width + 0.1 * stats.norm.ppf(0.8), rel=0.02)
    # Both of two independent comparisons must be seen: each with a power of the root.
    assert found.detectable([0, 1]) == pytest.approx(width + 0.1 * stats.norm.ppf(0.8**0.5), rel=0.02)
    assert found.detectable([0], power=0.5) == pytest.approx(width, rel=0.02)


def test_p_values_know_that_few_repeats_say_little():
    rng = np.random.default_rng(3)
    draws = np.repeat(rng.normal(0, 0.001, (1, 1, 100_000)), 3, axis=1)
    found = inference.intervals(np.array([[0.1, 0.2, 0.3]]), draws, 0.95, 1)
    # Hardly any doubt but the luck of training: the t-test of three values.
    assert found.p[0] == pytest.approx(stats.ttest_1samp([0.1, 0.2, 0.3], 0).pvalue, rel=0.02)


def test_upper_limit_is_that_of_clopper_and_pearson():
    assert judge_calibration.upper_limit(0, 59) == pytest.approx(0.05, abs=1e-3)  # the rule of three
    assert stats.binom.cdf(30, 600, judge_calibration.upper_limit(30, 600)) == pytest.approx(0.05, rel=1e-6)
    assert judge_calibration.upper_limit(4, 4) == 1.0


def test_gains_that_balance_leave_the_mean_where_it_was():
    gains = np.array([-1.0, 0.0, 1.0])
    curve = np.array([[0.5, 0.2, 0.4], [0.7, 0.4, 0.5], [0.8, 0.5, 0.9]])
    found = judge_worlds.balance(curve, gains, np.array([1, -1, -1]), np.array([True, True, False]), 0.5)
    assert found[0] == 0.5
    # The first gains 0.05, so the second must lose 0.05 at a slope of 0.2; the third is not judged.
    assert found[1] == pytest.approx(-0.25, abs=1e-6)


@pytest.fixture(scope="module")
def fake_pool():
    rng = np.random.default_rng(4)
    owner = np.repeat(np.arange(60), 2)
    labels = (rng.random((60, 3)) < [0.5, 0.4, 0.3])[owner]
    roles = np.where((owner % 2)[:, None] == [0, 1], TEST, CALIBRATION)
    logits = rng.normal(0, 1, (8, 2, *labels.shape)) + 3 * labels - 1.5
    return Pool(1 / (1 + np.exp(-logits)), labels, owner, roles, 2, 0.0)


def test_no_two_arms_are_dealt_the_same_copy(fake_pool):
    hands = fake_pool.deal(np.random.default_rng(5), 3, 2)
    assert [(cell.repeat, cell.fold) for cell in hands[0]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for fold in (0, 1):
        same_fold = [cell.test for hand in hands for cell in hand if cell.fold == fold]
        assert all(np.array_equal(table.labels, same_fold[0].labels) for table in same_fold)
        assert len({table.scores.tobytes() for table in same_fold}) == 6
    # 60 groups were drawn, and one that was drawn twice counts as two.
    assert sum(len(np.unique(cell.test.groups)) for cell in hands[0][:2]) == 60
    with pytest.raises(ValueError, match="8 copies, there are 6"):
        fake_pool.deal(np.random.default_rng(5), 4, 2)


def test_swapping_moves_whole_groups_among_the_arms(fake_pool):
    hands = fake_pool.swapped(np.random.default_rng(6), 4, 1)
    tables = [hand[0].test for hand in hands]
    given = []  # by group, which copy each arm got
    for group in np.unique(tables[0].groups):
        rows, own = tables[0].groups == group, fake_pool.owner == group
        copies = [copy[own].tobytes() for copy in fake_pool.scores[:, 0]]
        given.append(tuple(copies.index(table.scores[rows].tobytes()) for table in tables))
    assert len({frozenset(copies) for copies in given}) == 1 and len(set(given[0])) == 4
    assert len(set(given)) > 10  # of 24 orders


def test_folds_of_a_fresh_world_test_every_group_once_in_each_repeat():
    world = Fresh(SMALL, 2, np.random.default_rng(7))
    assert all(((roles == TEST).sum(axis=1) == 1).all() for roles in world.roles)
    assert not np.array_equal(*world.roles)


def test_one_command_measures_and_writes_what_the_page_prints(tmp_path, capsys):
    out = tmp_path / "record.json"
    words = ["--worlds", "fresh", "--repeats", "1", "--repetitions", "3", "--power-repetitions", "0", "--draws", "40"]
    judge_calibration.main([*words, "--out", str(out)])
    said = capsys.readouterr().out.splitlines()
    # A command that was stopped goes on, to the same end.
    whole = json.loads(out.read_text())
    halves = tmp_path / "halves.json"
    for count in ("2", "3"):
        judge_calibration.main([*words, "--repetitions", count, "--out", str(halves)])
    again = json.loads(halves.read_text())
    for one, other in zip(whole["worlds"], again["worlds"], strict=True):
        assert other == pytest.approx(one)
    assert said[0].startswith("world") and said[1].split()[:4] == ["fresh", "macro_f1", "1", "refit"]
    record = json.loads(out.read_text())
    digest = error_rate_section.judge_digest(judge_calibration.ROOT)
    assert record["code"] == digest and [row["metric"] for row in record["worlds"]] == ["macro_f1", "map"]
    text = error_rate.measured(record, "map", 1, digest)
    assert "In 3 repetitions of one world" in text and "one repeat" in text and "earlier version" not in text


RECORD = {
    "code": "x",
    "confidence": 0.95,
    "worlds": [
        {
            "world": "trained",
            "metric": "map",
            "repeats": 1,
            "repetitions": 500,
            "wrong": 100,
            "fraction": 0.2,
            "upper": 0.23,
        },
        {"metric": "map", "repeats": 3, "repetitions": 600, "wrong": 30, "fraction": 0.05, "upper": 0.068},
        {"metric": "map", "repeats": 3, "repetitions": 400, "wrong": 10, "fraction": 0.025, "upper": 0.042},
    ],
}


def test_the_rate_is_that_of_the_runs_own_number_of_repeats():
    text = error_rate.measured(RECORD, "map", 3, "x")
    assert "In 1,000 repetitions of 2 worlds" in text and "with 3 repeats" in text
    assert "in 4.0 % (aim: 5.0 %; worst world: 5.0 %, upper limit 6.8 %)" in text
    # Other numbers say nothing of the run's own, larger ones neither.
    for repeats in (2, 5):
        assert error_rate.measured(RECORD, "map", repeats, "x").endswith(f"with 1 and 3 repeats, not with {repeats}.")
    once = error_rate.measured(RECORD, "map", 1, "x")
    assert "in 20.0 %" in once and "variance between repeats" in once and "simulated cells, it was 20.0 %" in once
    assert "earlier version" in error_rate.measured(RECORD, "map", 3, "y")
    for record, metric in ((None, "map"), (RECORD, "macro_f1")):
        assert "not been measured" in error_rate.measured(record, metric, 3, "x")


def test_what_could_have_been_found_is_said_of_the_arm_and_its_control():
    answer = {"detectable": 0.0414, "power": 0.8, "baseline": "real_only", "control": "mix_real"}
    assert error_rate.detectable(answer) == (
        "A true gain of 0.041 over real_only and over mix_real would be found with a power of 80 %."
    )
    assert "mix_real" not in error_rate.detectable(answer | {"control": None})
    assert error_rate.detectable(answer | {"detectable": None}) == ""


@pytest.mark.parametrize(("luck", "verdict", "said"), [
    (False, inference.HURTS, True), (True, inference.HURTS, False), (False, inference.INCONCLUSIVE, False),
])  # fmt: skip
def test_a_claim_from_one_repeat_says_so_in_the_headline(luck, verdict, said):
    answer = {
        "arm": "mix", "baseline": "real_only", "control": None, "metric": "map", "level": "image", "confidence": 0.95,
        "difference": -0.1, "low": -0.2, "high": -0.05, "verdict": verdict, "beyond_control": None,
        "control_against_baseline": None, "smallest_effect": 0.02, "gain_not_excluded": 0.0, "loss_not_excluded": 0.2,
        "training_luck": luck,
    }  # fmt: skip
    sizes = {"test_groups": 9, "test_images": 90}
    assert ("single repeat" in page_opening.opening(answer, sizes, 4).headline) == said


def test_a_pool_of_other_settings_is_not_taken(fake_pool, tmp_path, monkeypatch):
    monkeypatch.setattr(judge_worlds, "train_pool", lambda settings: replace(fake_pool, seconds=float(settings.steps)))
    kept, settings = tmp_path / "pool.npz", judge_worlds.PoolSettings(steps=3)
    assert judge_worlds.pool(kept, settings).seconds == 3
    monkeypatch.setattr(judge_worlds, "train_pool", lambda settings: replace(fake_pool, seconds=-1.0))
    again = judge_worlds.pool(kept, settings)
    assert again.seconds == 3 and np.array_equal(again.scores, fake_pool.scores) and again.copies == 6
    assert judge_worlds.pool(kept, replace(settings, steps=4)).seconds == -1
