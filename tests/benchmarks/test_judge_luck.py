"""Worlds of luck, in short: few repetitions, and what the truth of a claim is."""

import numpy as np
import pytest

from benchmarks import judge_luck
from benchmarks.judge_luck import WORLDS


def test_the_table_has_both_claims_of_each_world(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--worlds", "bad generator", "--repeats", "2", "--folds", "2", "--repetitions", "3", "--draws", "40"]
    judge_luck.main([*words, "--groups", "40"])
    rows = [[cell.strip() for cell in line.split("|")[1:6]] for line in capsys.readouterr().out.splitlines()[2:]]
    of = [["these_proteins", "primary"], ["these_proteins", "rest"]]
    of += [["other_proteins", "primary"], ["other_proteins", "rest"]]
    assert rows == [["bad generator", "2", "2", *words] for words in of]


def test_luck_of_the_training_set_is_part_of_the_truth_about_these_proteins() -> None:
    def made(name: str) -> judge_luck.Simulated:
        return judge_luck.simulate(WORLDS[name], 2, 2, 30, np.random.default_rng(1))

    found = made("training set, most")
    assert found.truths[0].all() and not found.truths[1].any() and not found.plan.fixed
    assert not np.any(made("training").truths)
    assert made("cell lines").plan.fixed
    assert made("unequal groups").plan.freedom < 30 < made("training").plan.freedom
