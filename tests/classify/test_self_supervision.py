"""VICReg against values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from workflow_scripts.lib.classify import self_supervision
from workflow_scripts.lib.classify.self_supervision import COVARIANCE, EPSILON, INVARIANCE, VARIANCE, vicreg


def test_the_three_terms_by_hand() -> None:
    # Columns of variance 2 and 1/2 over two images, and covariance 1 between them.
    first = torch.tensor([[0.0, 0.0], [2.0, 1.0]])
    second = first + torch.tensor([1.0, 0.0])
    apart = 0.5  # the mean of 1, 0, 1, 0
    spread = (1 - (0.5 + EPSILON) ** 0.5) / 2  # the first column varies enough
    common = 2 * (1 + 1) / 2  # two views; both entries off the diagonal, by two columns
    expected = INVARIANCE * apart + VARIANCE * spread + COVARIANCE * common
    assert float(vicreg(first, second)) == pytest.approx(expected, rel=1e-5)


def test_a_collapsed_representation_costs_most() -> None:
    one, varied = torch.zeros(8, 4), 3 * torch.eye(8)[:, :4]
    assert float(vicreg(one, one)) == pytest.approx(VARIANCE * (1 - EPSILON**0.5), rel=1e-4)
    assert float(vicreg(varied, varied)) < float(vicreg(one, one)) / 5


def test_the_projector_is_the_same_for_a_seed_and_leaves_other_draws_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, other = (self_supervision.projector(6, 3).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.rand(1), expected)
