"""lib.judge.more_repeats: forecasts beside longer runs that were really drawn."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import more_repeats as benchmark
from workflow_scripts.lib.judge import more_repeats
from workflow_scripts.lib.judge.more_repeats import Exchangeable, Trainings
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.training_variance import Design


def drawn(name: str, repeats: int, folds: int, number: int, control: bool = True) -> Trainings:
    """A run of a world without effects, perhaps without a control."""
    found = benchmark.drawn(name, repeats, folds, 300, number)
    return found if control else Trainings(found.values[:2], found.draws[:2], found.plan)


@pytest.mark.parametrize(
    ("name", "folds", "others", "control"),
    [("training", 1, False, True), ("training", 2, False, False), ("training x3", 2, False, True)]
    + [("quiet", 2, False, True), ("training set, half", 2, True, True), ("cell lines", 2, False, True)],
)
def test_the_forecast_is_what_longer_runs_show(name: str, folds: int, others: bool, control: bool) -> None:
    facts, forecasts = [], []
    for number in range(8):
        seen = drawn(name, 4, folds, number, control)
        found = more_repeats.forecast(seen, others, 0.95, number, [8])
        forecasts.append((found.longer[0].half_width, found.longer[0].detectable))
        assert found.longer[0].low <= found.longer[0].half_width <= found.longer[0].high
        facts.append(benchmark.judged(drawn(name, 8, folds, 1000 + number, control), others))
    told = np.median(forecasts, axis=0) / np.median(facts, axis=0)
    assert told == pytest.approx([1, 1], abs=0.2), told


def test_what_remains_is_what_very_long_runs_come_to() -> None:
    found = more_repeats.forecast(drawn("training", 4, 2, 1), False, 0.95, 1, [])
    half, _ = benchmark.judged(drawn("training", 60, 2, 2), False)
    assert found.longer == [] and found.least == pytest.approx(half, rel=0.15)


def test_the_same_run_has_the_same_forecast() -> None:
    seen = drawn("training", 3, 2, 1)
    assert more_repeats.forecast(seen, False, 0.95, 5, [6]) == more_repeats.forecast(seen, False, 0.95, 5, [6])


def test_the_run_of_an_experiment_and_what_tells_nothing_of_longer_ones() -> None:
    seen = drawn("training", 3, 2, 1)
    names, metric = ("mix", "base", "placebo"), "map"
    scored = [
        SimpleNamespace(fold_macro={metric: values}, fold_draws={metric: draws}, design=seen.plan)
        for values, draws in zip(seen.values, seen.draws, strict=True)
    ]
    analysis = {"metric": metric, "primary_arm": "mix", "baseline": "base", "confidence": 0.95}
    arms = [{"name": "base"}, {"name": "mix", "control": "placebo"}, {"name": "placebo"}]
    run = SimpleNamespace(question=Question(analysis, arms, 4), primary_level=dict(zip(names, scored, strict=True)))
    found = more_repeats.measure(run, leaves_out=False)
    assert found == more_repeats.forecast(seen, False, 0.95, 4, [6, 12])
    assert more_repeats.measure(run, leaves_out=True) is None, "later repeats test the same cell lines again"

    def planned(design: Design) -> SimpleNamespace:
        arms = {name: SimpleNamespace(**vars(one) | {"design": design}) for name, one in run.primary_level.items()}
        return SimpleNamespace(question=run.question, primary_level=arms)

    assert more_repeats.measure(planned(replace(seen.plan, fixed=True)), leaves_out=True) is not None
    many = Design([(repeat, 0) for repeat in range(201)], np.eye(201), fixed=False)
    assert more_repeats.measure(planned(many), leaves_out=False) is None, "it would take hours"
    once = Design([(0, 0), (0, 1)], np.eye(2), fixed=False)
    assert more_repeats.measure(planned(once), leaves_out=False) is None, "one repeat shows no luck"


def test_arms_that_never_differ_have_no_width() -> None:
    plan = Design([(repeat, 0) for repeat in range(3)], np.eye(3), fixed=False)
    seen = Trainings(np.full((2, 3), 0.5), np.full((2, 3, 50), 0.5), plan)
    found = more_repeats.forecast(seen, False, 0.95, 1, [6])
    assert (found.longer[0].half_width, found.longer[0].detectable, found.least) == (0, 0, 0)


def test_drawn_repeats_have_the_covariance_of_those_seen() -> None:
    rng = np.random.default_rng(3)
    common, apart = rng.normal(size=(2, 2, 2))
    within, between = common @ common.T + apart @ apart.T, common @ common.T
    found = Exchangeable(within, between).draw(3, 200_000, rng).swapaxes(0, 1).reshape(6, -1)
    whole = np.kron(np.eye(3), within - between) + np.tile(between, (3, 3))
    assert np.cov(found) == pytest.approx(whole, abs=0.05 * within.max())
    again = Exchangeable.of(whole.reshape(3, 2, 3, 2))
    assert again.within == pytest.approx(within) and again.between == pytest.approx(between)
