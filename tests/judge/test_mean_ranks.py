"""Mean ranks and their critical difference, against numbers in print and by hand."""

import numpy as np
import pytest

from workflow_scripts.lib.judge import mean_ranks


@pytest.mark.parametrize(("arms", "quantile"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_demsars_table(arms: int, quantile: float) -> None:
    scores = {f"arm{number}": np.full(14, float(number)) for number in range(arms)}
    found = mean_ranks.measure(scores, 0.95)
    assert found.critical == pytest.approx(quantile * np.sqrt(arms * (arms + 1) / (6 * 14)), rel=1e-3)
    assert found.arms == [f"arm{number}" for number in reversed(range(arms))] and list(found.ranks) == list(
        range(1, arms + 1)
    )


def test_equal_scores_share_their_rank() -> None:
    found = mean_ranks.measure({"a": np.array([0.5, 0.1]), "b": np.array([0.5, 0.9]), "c": np.array([0.7, 0.2])}, 0.95)
    assert dict(zip(found.arms, found.ranks, strict=True)) == {"a": 2.75, "b": 1.75, "c": 1.5}


def test_bars_join_the_longest_runs_of_arms_alike() -> None:
    ranks = mean_ranks.MeanRanks(list("abcde"), np.array([1.0, 2.0, 2.5, 4.5, 4.9]), 9, 1.6)
    assert ranks.alike() == [(0, 2), (3, 4)]
    ranks = mean_ranks.MeanRanks(list("abc"), np.array([1.0, 2.0, 3.0]), 9, 0.5)
    assert ranks.alike() == []
    ranks = mean_ranks.MeanRanks(list("abcd"), np.array([1.0, 2.0, 3.0, 3.9]), 9, 2.0)
    assert ranks.alike() == [(0, 2), (1, 3)]
