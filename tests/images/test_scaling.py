"""lib.images.scaling: areas and intensities by hand."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.transform import resize_local_mean

from tests.helpers.image_folders import noise
from workflow_scripts.lib.images import scaling
from workflow_scripts.lib.images.planes import Unusable


def test_a_pixel_on_a_border_counts_in_both_cells_by_its_fraction() -> None:
    # Three pixels for two cells: the middle one belongs to both by a half.
    row = np.array([[0.0, 30.0, 90.0]] * 3, dtype=np.float32)
    np.testing.assert_allclose(scaling.area_means(row, 2, (0, 0, 3, 3)), [[10, 70], [10, 70]])
    # A window that begins within a pixel: half of the first, all of the second; half of the third is outside.
    np.testing.assert_allclose(scaling.area_means(row, 1, (0.5, 0, 2, 3)), [[20]])


@pytest.mark.parametrize("side", [7, 12, 13])
def test_areas_are_those_of_scikit_image(side: int) -> None:
    values = noise(1, side).astype(np.float32)
    expected = resize_local_mean(values, (5, 5), preserve_range=True)
    np.testing.assert_allclose(scaling.area_means(values, 5, (0, 0, side, side)), expected, rtol=1e-4)


def test_intensities_are_spread_clipped_and_rounded() -> None:
    values = np.array([[-5.0, 0.0, 1.0], [50.2, 100.0, 200.0]])
    np.testing.assert_array_equal(scaling.spread(values, 0, 100), [[0, 0, 3], [128, 255, 255]])
    stretched = scaling.stretch(np.arange(1000, 2001, dtype=np.float32).reshape(7, 143))
    # The lowest and the highest thousandth are clipped.
    assert stretched.flat[0] == stretched.flat[1] == 0 and stretched.flat[-2] == stretched.flat[-1] == 255
    assert stretched.flat[500] in (127, 128)
    assert not scaling.stretch(np.full((4, 4), 7.0)).any(), "a constant channel becomes black"


def test_a_pixel_size_has_a_decimal_comma_or_point_and_nothing_else() -> None:
    scale = scaling.Scaling({"size": 64, "pixel_size": 0.65, "data": {"pixel_size": 0.1}})
    assert scale.window((1000, 1000), "0,325") == scale.window((1000, 1000), " 0.325")
    assert scale.window((1000, 1000), "") == scale.window((1000, 1000), "0.1"), "that of all images"
    for text in ("0.325 µm", "0,3,2", "nan", "-1", "1.000,5"):
        with pytest.raises(Unusable, match="has the pixel size '"):
            scale.window((1000, 1000), text)
