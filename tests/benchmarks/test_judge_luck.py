"""Worlds of luck, in short: few repetitions, and what the truth of a claim is."""

import numpy as np
import pytest

from benchmarks import judge_luck
from benchmarks.judge_luck import WORLDS


def test_the_table_has_both_claims_of_each_world(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--worlds", "training", "cell lines", "--repeats", "2", "--repetitions", "4", "--draws", "40"]
    judge_luck.main([*words, "--groups", "40"])
    rows = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["training", "2", "these_proteins"],
        ["training", "2", "other_proteins"],
        ["cell lines", "2", "these_proteins"],
        ["cell lines", "2", "other_proteins"],
    ]


def test_luck_of_the_training_set_is_part_of_the_truth_about_these_proteins() -> None:
    found = judge_luck.simulate(WORLDS["training set, most"], 2, 30, np.random.default_rng(1))
    assert found.truths[0] != 0 and found.truths[1] == 0 and not found.plan.fixed
    assert judge_luck.simulate(WORLDS["training"], 2, 30, np.random.default_rng(1)).truths == (0, 0)
    assert judge_luck.simulate(WORLDS["cell lines"], 2, 30, np.random.default_rng(1)).plan.fixed
