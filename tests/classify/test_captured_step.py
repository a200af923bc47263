"""Steps as functions of tensors alone: they end where plain steps end, and what cannot be captured is said."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.arms_data import ENTRIES, SECTION, cells
from workflow_scripts.lib.classify import (
    arm_choices,
    arm_settings,
    backbones,
    captured_step,
    classifier_training,
    source_choices,
    training_step,
)
from workflow_scripts.lib.classify.classifier_training import Images, Trainer
from workflow_scripts.lib.compute import step_graph

CPU, STEPS = torch.device("cpu"), 4
REAL, MADE = cells(20, 1), cells(14, 2)
# Their loss depends on the number of the step, or they draw numbers of their own.
VARYING = {"anneal", "cutmix", "fixmatch", "one_class", "pretrain_finetune", "ssl_pretrain", "strong_augment"}


def trainer(name: str) -> Trainer:
    settings = arm_settings.effective(ENTRIES[name], SECTION | {"steps": STEPS, "batch": 8})
    method = arm_choices.METHODS[settings["method"]]
    weights = torch.linspace(0.5, 1.5, len(MADE[0])).numpy()
    second = Images(*MADE, synthetic=True, weights=weights) if method.second_source else None
    if method.second_source in source_choices.FEATURES:
        second.features = torch.randn(len(weights), 128, generator=torch.Generator().manual_seed(1)).numpy()
    return Trainer(settings, Images(*REAL), second, 5, CPU)


def advanced(name: str) -> Trainer:
    out = trainer(name)
    for number in range(STEPS):
        out.advance(number)
    return out


# Those with the encoder of a generator step as real_only does.
STEP_OF = {
    entry["method"]: name for name, entry in ENTRIES.items() if not arm_choices.METHODS[entry["method"]].generator
}
DIFFERENT = {(arm_choices.METHODS[method].step or method): name for method, name in STEP_OF.items()}


@pytest.mark.parametrize("method", DIFFERENT)
def test_a_captured_step_ends_with_the_weights_of_a_plain_one(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = advanced(DIFFERENT[method])
    # As on a GPU, up to the capture itself.
    monkeypatch.setattr(step_graph, "why_not", lambda where: None)
    monkeypatch.setattr(step_graph, "WARM_UP", STEPS)
    captured = advanced(DIFFERENT[method])
    assert (captured.graph.reason is not None) == (method in VARYING), captured.graph.describe()
    assert captured.step.seen == plain.step.seen
    assert torch.equal(captured.loss_sum, plain.loss_sum)
    for name, value in plain.network.state_dict().items():
        assert torch.equal(value, captured.network.state_dict()[name]), name


def test_a_method_that_asks_for_something_else_later_is_an_error() -> None:
    step = trainer("real_only").step
    tensors = captured_step.drawn(step, [("real", 8)])
    later = captured_step.Replayed(step, [("real", 8)], tensors)
    with pytest.raises(RuntimeError, match="asks for 4 of real"):
        later.real(4)


def test_a_network_that_draws_is_not_captured() -> None:
    network = trainer("real_only").network
    assert captured_step.network_reason(network) is None
    network.trunk.layers.append(backbones.StochasticDepth(0.1, network.draws))
    assert captured_step.network_reason(network) == "its network draws random numbers"


def test_blocks_hold_the_rows_of_each_step_and_fresh_draws() -> None:
    source, batch = trainer("real_only").step.real_source, 8
    block = source._rows_of_block(1)
    for place in (0, 3, training_step.BLOCK - 1):
        assert block[place].tolist() == source._indices(training_step.BLOCK + place).tolist()
    make = source._block_maker("augment")
    one, again, other = make(0), make(0), make(1)
    assert len(one.grid) == training_step.BLOCK * batch
    assert torch.equal(one.grid, again.grid) and not torch.equal(one.grid, other.grid)
    values = training_step.PerBlock(lambda number: number)
    assert [values.of(step) for step in (0, 63, 64, 5)] == [(0, 0), (0, 63), (1, 0), (0, 5)]


def test_a_loss_is_summed_in_place_where_a_captured_step_adds_to_it() -> None:
    made = trainer("real_only")
    kept = made.loss_sum
    made.advance(0)
    made.check(classifier_training.Images(*REAL))
    made.restore(made.state() | {"loss_sum": torch.ones((), dtype=torch.float64)})
    assert made.loss_sum is kept and float(kept) == 1
