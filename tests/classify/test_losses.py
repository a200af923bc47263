"""Losses against values worked out by hand, and their limits."""

import math

import pytest
import torch

from tests.helpers.arms_data import SECTION
from workflow_scripts.lib.classify import losses, network_choices

LOGITS = torch.tensor([[2.0, -1.0, 0.3], [-3.0, 0.5, 1.0]])
TARGETS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
POSITIVES, COUNT = torch.tensor([5.0, 40.0, 80.0]), 100
BCE = torch.nn.functional.binary_cross_entropy_with_logits(LOGITS, TARGETS, reduction="none")
RIGHT = torch.where(TARGETS > 0, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())  # probability of the right answer


def made(name, **changes):
    return losses.make(name, POSITIVES, COUNT, **(SECTION["losses"].get(name, {}) | changes))


def test_every_loss_is_made_by_a_function():
    assert all(network_choices.LOSSES.function(name, vars(losses)) for name in network_choices.LOSSES)


@pytest.mark.parametrize("name", network_choices.LOSSES)
def test_one_finite_value_an_image_and_a_gradient_even_far_out(name):
    logits = torch.tensor([[200.0, -200.0, 0.0]] * 2, requires_grad=True)
    found = made(name)(logits, torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]))
    assert found.shape == (2,)
    assert torch.isfinite(found).all()
    assert found[0] > found[1], "wrong costs more than right"
    found.sum().backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    "name", [name for name in network_choices.LOSSES if not network_choices.LOSSES[name].hard_labels]
)
def test_soft_targets_are_between(name):
    loss = made(name)
    both = [loss(LOGITS, torch.full_like(LOGITS, value)) for value in (0.0, 1.0)]
    assert torch.allclose(loss(LOGITS, torch.full_like(LOGITS, 0.3)), 0.7 * both[0] + 0.3 * both[1], atol=1e-6)


def test_what_each_is_by_hand():
    assert torch.allclose(made("bce")(LOGITS, TARGETS), BCE.mean(dim=1))
    assert torch.allclose(made("focal")(LOGITS, TARGETS), ((1 - RIGHT) ** 2 * BCE).mean(dim=1), atol=1e-6)
    assert torch.allclose(made("focal", gamma=0)(LOGITS, TARGETS), BCE.mean(dim=1), atol=1e-6)
    plain = made("asymmetric", gamma_positive=2, gamma_negative=2, clip=0)
    assert torch.allclose(plain(LOGITS, TARGETS), made("focal")(LOGITS, TARGETS), atol=1e-6)
    # Negatives: probability 0.7311 less 0.05, to the fourth; positives as they are.
    p = 1 / (1 + math.exp(-1.0)) - 0.05
    found = made("asymmetric")(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 1.0]]))
    assert float(found) == pytest.approx((-(p**4) * math.log(1 - p) + math.log(1 + math.exp(-1.0))) / 2, rel=1e-5)
    assert float(made("asymmetric")(torch.tensor([[-4.0]]), torch.tensor([[0.0]]))) == 0.0


def test_class_balanced_weighs_by_effective_number():
    weights = torch.tensor([(1 - 0.99) / (1 - 0.99**n) for n in (5, 40, 80)])
    expected = (weights / weights.mean() * BCE).mean(dim=1)
    assert torch.allclose(made("class_balanced")(LOGITS, TARGETS), expected, atol=1e-6)
    empty = losses.class_balanced(torch.tensor([0.0, 10.0]), 10, 0.99)
    assert torch.allclose(empty(LOGITS[:, :2], TARGETS[:, :2]), BCE[:, :2].mean(dim=1)), "weight 1, as the other has"


def test_reweighted_lifts_rare_positives_up_to_a_limit():
    # Negatives by positives: 19 (limited to 5), 1.5, and 0.25, which is left at 1.
    weights = torch.where(TARGETS > 0, torch.tensor([5.0, 1.5, 1.0]), 1.0)
    assert torch.allclose(made("reweighted")(LOGITS, TARGETS), (weights * BCE).mean(dim=1), atol=1e-6)


def test_arcface_adds_the_margin_to_the_angles_of_present_classes():
    cosine = torch.tensor([[0.6, -0.2, 0.1]])
    targets = torch.tensor([[1.0, 0.0, 0.0]])
    expected = 30 * torch.tensor([[math.cos(math.acos(0.6) + 0.5), -0.2, 0.1]])
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(expected, targets)
    assert float(made("arcface")(30 * cosine, targets)) == pytest.approx(float(wanted), rel=1e-4)
    # The loss falls with the cosine all the way, also where cos(θ + m) rises again.
    values = made("arcface")(30 * torch.linspace(-1, 1, 201)[:, None], torch.ones(201, 1))
    assert (values.diff() < 0).all()


def test_generalised_lies_between_cross_entropy_and_error():
    assert torch.allclose(losses.generalised(LOGITS, TARGETS, 1e-3), BCE.mean(dim=1), atol=5e-3)
    assert torch.allclose(losses.generalised(LOGITS, TARGETS, 1.0), (1 - RIGHT).mean(dim=1), atol=1e-6)
    # A label that the network is sure is wrong pulls less than one that it doubts; in cross-entropy it pulls more.
    for loss, grows in ((losses.bce(POSITIVES, COUNT), True), (lambda x, t: losses.generalised(x, t, 0.7), False)):
        logits = torch.tensor([[-1.0], [-6.0]], requires_grad=True)
        loss(logits, torch.ones(2, 1)).sum().backward()
        assert (abs(float(logits.grad[1])) > abs(float(logits.grad[0]))) == grows
