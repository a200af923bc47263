"""Training an arm: what begins anew when self-supervision ends."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from tests.helpers.arms_data import ENTRIES, SECTION, cells
from workflow_scripts.lib.classify import arm_settings
from workflow_scripts.lib.classify.classifier_training import Trainer
from workflow_scripts.lib.classify.training_step import Images

STEPS, FIRST = 12, 4


def trainer(name: str) -> Trainer:
    section = SECTION | {"steps": STEPS, "batch": 8, "warmup": 0.5, "learning_rate": 0.01, "pretrain": FIRST / STEPS}
    second = Images(*cells(14, 2)) if name == "ssl_pretrain" else None
    settings = arm_settings.effective(ENTRIES[name], section)
    return Trainer(settings, Images(*cells(20, 1)), second, 5, torch.device("cpu"))


def test_labelled_steps_after_self_supervision_have_a_schedule_of_their_own() -> None:
    rates = [trainer("ssl_pretrain").rate(number) for number in range(STEPS)]
    assert rates[:2] == pytest.approx([0.005, 0.01]), "warm-up over half of four steps"
    assert rates[FIRST : FIRST + 4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01]), "and over half of eight"
    assert all(later < earlier for earlier, later in pairwise(rates[7:]))
    assert [trainer("real_only").rate(number) for number in range(6)] == pytest.approx(
        [0.01 * (number + 1) / 6 for number in range(6)]
    )


def test_the_optimiser_forgets_the_gradients_of_self_supervision() -> None:
    arm = trainer("ssl_pretrain")
    for number in range(FIRST):
        arm.advance(number)
    weight = next(value for value in arm.network.trunk.parameters() if value.ndim == 4)
    before = weight.detach().clone()
    large = float(arm.optimiser.state[weight]["exp_avg_sq"].sum())
    arm.advance(FIRST)
    state = arm.optimiser.state[weight]
    assert float(state["step"]) == 1 and float(state["exp_avg_sq"].sum()) < large / 100
    # Adam's first step has the size of the learning rate, whatever the gradient.
    moved = (weight.detach() - before).abs().median()
    assert float(moved) == pytest.approx(arm.rate(FIRST), rel=0.1)
