"""Break-even law: planted laws are found, chance is not taken for one, and what was left out is predicted."""

from __future__ import annotations

import numpy as np
import pytest

from workflow_scripts.lib.judge import break_even
from workflow_scripts.lib.judge.break_even import LawPoint

PLANTED = {"constant": 0.30, "divergence": -0.10, "labelled": -0.20, "seen": 0.08}
REGIMES = {"twentieth": 20, "tenth": 40, "quarter": 100, "half": 200, "all": 400}


def planted(noise: float, seed: int = 0, law: dict[str, float] = PLANTED) -> list[LawPoint]:
    """Five regimes by six generators, half of which saw the labelled groups alone, the others all 400.

    Gains of a regime share the error of its baseline, which is as large as that of an arm."""
    rng, out = np.random.default_rng(seed), []
    for regime, labelled in REGIMES.items():
        of_baseline = rng.normal(0, noise)
        for number in range(6):
            divergence, seen = rng.uniform(0.2, 2.0), labelled if number < 3 else 400
            known = (1, divergence, np.log10(labelled), np.log10(seen))
            gain = sum(law[term] * value for term, value in zip(break_even.TERMS, known, strict=True))
            out.append(LawPoint(regime, gain + rng.normal(0, noise) - of_baseline, divergence, labelled, seen))
    return out


def test_a_law_without_noise_is_found_exactly() -> None:
    law = break_even.fit(planted(0), 0.95)
    assert {name: ends[0] for name, ends in law.terms().items()} == pytest.approx(PLANTED)
    assert law.predict(1.0, 50, 400)[0] == pytest.approx(0.3 - 0.1 - 0.2 * np.log10(50) + 0.08 * np.log10(400))
    checked = break_even.held_out(planted(0), 0.95)
    assert checked.error < 1e-9 < checked.error_of_mean


def test_intervals_cover_the_planted_law_as_often_as_they_say() -> None:
    inside, predicted = [], []
    for seed in range(100):
        law = break_even.fit(planted(0.03, seed), 0.9)
        ends = law.terms()
        inside.append([ends[name][1] <= PLANTED[name] <= ends[name][2] for name in break_even.TERMS])
        new = planted(0.03, seed + 1000)[7]
        _, low, high = law.predict(new.divergence, new.labelled, new.seen)
        predicted.append(low <= new.gain <= high)
    assert np.mean(inside, axis=0) == pytest.approx(0.9, abs=0.09)
    assert np.mean(predicted) == pytest.approx(0.9, abs=0.09)


def test_a_regime_that_was_left_out_tells_a_law_from_chance() -> None:
    lawful = break_even.held_out(planted(0.02), 0.95)
    assert lawful.error < 0.5 * lawful.error_of_mean and lawful.covered > 0.8
    chance = [break_even.held_out(planted(0.05, seed, dict.fromkeys(PLANTED, 0.0)), 0.95) for seed in range(200)]
    assert lawful.predicts and sum(found.predicts for found in chance) <= 6, "it predicts nothing, and that shows"


def test_a_law_that_fails_on_held_out_regimes_predicts_with_wider_intervals() -> None:
    law = break_even.fit(planted(0.02), 0.95)
    narrow, wide = law.predict(1.0, 50, 400), law.predict(1.0, 50, 400, error=10 * law.spread)
    more = law.quantile**2 * (100 - 2) * law.spread**2  # in place of an arm and its baseline
    assert wide[0] == narrow[0] and (wide[2] - wide[0]) ** 2 == pytest.approx((narrow[2] - narrow[0]) ** 2 + more)


def test_the_gain_is_zero_where_the_planted_law_says_so() -> None:
    law = break_even.fit(planted(0.01, 3), 0.95)
    where = 10 ** ((0.30 - 0.10 * 0.5 + 0.08 * np.log10(400)) / 0.20)
    assert 150 < where < 250, "by hand"
    number, low, high = law.break_even(0.5, 400, list(REGIMES.values()))
    assert low < where < high and number == pytest.approx(where, rel=0.15)
    assert law.break_even(10.0, 400, list(REGIMES.values())) is None, "so far from real images that none helps"
    assert law.break_even(0.5, 400, [20, 40]) is None, "helps with all of these"


@pytest.mark.parametrize("spoil", ["few", "regimes", "same"])
def test_points_that_cannot_tell_have_no_law(spoil: str) -> None:
    points = planted(0.01)
    if spoil == "few":
        points = points[::4]
    if spoil == "regimes":
        points = points[:12]
    if spoil == "same":
        points = [LawPoint(p.regime, p.gain, 1.0, p.labelled, p.seen) for p in points]
    assert break_even.fit(points, 0.95) is None
