"""Nuclei of whole fields: found under uneven light, parted where they touch, left out for a reason."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import fields
from workflow_scripts.lib.images import nuclei


def found(labels: np.ndarray, truth: np.ndarray) -> list[int]:
    """How many pieces each disc has become; a rim that went to a neighbour is none."""
    shares = [np.bincount(labels[truth == number]) for number in range(1, truth.max() + 1)]
    return [int((share[1:] > 0.1 * share.sum()).sum()) for share in shares]


@pytest.mark.parametrize("scale", [1, 3])
def test_nuclei_of_any_size_are_found_under_light_that_falls_to_a_third(scale: int) -> None:
    places = tuple((scale * row, scale * column) for row, column in fields.PLACES)
    truth = fields.labels((200 * scale, 300 * scale), 12 * scale, places)
    field = fields.lit(truth, low=0.33)
    diameter = nuclei.typical_diameter(field)
    assert diameter == pytest.approx(24 * scale, rel=0.2)
    labels = nuclei.segment(field, diameter)
    assert found(labels, truth) == [1] * 6 and labels.max() == 6
    for number in range(1, 6):
        area = (labels == labels[places[number - 1]]).sum()
        assert area == pytest.approx((truth == number).sum(), rel=0.25)


def test_nuclei_that_touch_are_parted_and_a_long_one_is_not() -> None:
    rows, columns = np.mgrid[:200, :300]
    long = ((rows - 150) / 11) ** 2 + ((columns - 150) / 19) ** 2 <= 1
    truth = fields.labels(places=((60, 60), (60, 83), (60, 200)))
    truth[long] = 4
    labels = nuclei.segment(fields.lit(truth), 24)
    assert found(labels, truth) == [1] * 4 and labels.max() == 4


@pytest.mark.parametrize("field", [np.zeros((200, 200)), np.random.default_rng(0).normal(500, 60, (200, 200))])
def test_a_field_without_nuclei_shows_none(field: np.ndarray) -> None:
    assert nuclei.typical_diameter(field) is None
    assert not nuclei.segment(field, 24).any()


def test_a_nucleus_is_left_out_for_its_size_or_its_place() -> None:
    truth = fields.labels()
    truth[(truth == 2) & (np.arange(300) > 125)] = 0
    known = nuclei.limits(24, None, None)
    verdicts = [each.verdict for each in nuclei.judge(truth, known, 61)]
    assert verdicts == ["kept", "kept", "kept", "kept", "kept", "touches the border"]
    verdicts = [each.verdict for each in nuclei.judge(truth, nuclei.limits(24, 300, 440), 61)]
    assert verdicts == ["too large", "too small", "too large", "too large", "too large", "touches the border"]
    verdicts = [each.verdict for each in nuclei.judge(truth, known, 120)]
    assert verdicts[0] == "kept" and verdicts[4] == "too near to the border"


def test_a_square_lies_around_its_centre() -> None:
    assert (nuclei.corner(10, 5), nuclei.corner(10.5, 4)) == (8, 9)
    truth = fields.labels(places=((60, 60),))
    (one,) = nuclei.judge(truth, nuclei.limits(24, None, None), 121)
    assert one.verdict == "kept" and (one.row, one.column) == (60, 60), "60 pixels above, and 60 to the left"
