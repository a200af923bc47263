"""Batches of a synthetic set become one array."""

from __future__ import annotations

import torch

from workflow_scripts.lib.generate import synthetic_set


def test_batches_are_joined_in_order_and_let_go() -> None:
    batches = [torch.full((count, 1, 2, 2), count, dtype=torch.uint8) for count in (3, 3, 1)]
    out = synthetic_set.joined(batches)
    assert out[:, 0, 0, 0].tolist() == [3, 3, 3, 3, 3, 3, 1] and out.shape == (7, 1, 2, 2)
    assert batches == [], "what is copied is not held twice"
