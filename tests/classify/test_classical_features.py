"""Hand-made features against cases worked by hand, and against scikit-image where both define them."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.feature import graycomatrix, graycoprops
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import footprint_rectangle, opening

from workflow_scripts.lib.classify import classical_features as classical
from workflow_scripts.lib.images import orientation

SIZE = 24


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    """Smooth random images uint8 (6, 3, 24, 24), whose foregrounds have several objects."""
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.random((6, 3, SIZE, SIZE)), (0, 0, 1.5, 1.5))
    low, high = (end(smooth, axis=(2, 3), keepdims=True) for end in (np.min, np.max))
    return (255 * (smooth - low) / (high - low)).astype(np.uint8)


def named(images: np.ndarray) -> list[dict[str, float]]:
    """Features of each image by name."""
    names = classical.names(images.shape[1], images.shape[-1])
    found = classical.features(images)
    assert found.shape == (len(images), len(names)) and len(set(names)) == len(names)
    return [dict(zip(names, map(float, row), strict=True)) for row in found]


def test_a_constant_image_is_flat_everywhere():
    image = np.full((1, 2, SIZE, SIZE), 51, dtype=np.uint8)
    [found] = named(image)
    assert all(np.isfinite(list(found.values())))
    expected = {
        "channel 0: mean": 0.2, "channel 0: deviation": 0, "channel 0: entropy": 0, "channel 0: quantile 0.5": 0.2,
        "channel 0: contrast at 1 px": 0, "channel 0: energy at 1 px": 1, "channel 0: pattern of 8 ones at 1 px": 1,
        "channel 0: granularity at 1 px": 0, "foreground 0: area": 0, "foreground 0: objects": 0,
        "foreground 0: area of far": 1, "channel 1: light in far of foreground 0": 1,
        "correlation of channels 0 and 1": 0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_a_disc_has_its_area_axes_and_light():
    """A disc of radius 5 px in 40 px, bright beyond it in the other channel."""
    size, radius = 40, 5.0
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    disc = np.hypot(x, y) <= radius
    image = np.zeros((1, 2, size, size), dtype=np.uint8)
    image[0, 0][disc], image[0, 1][~disc] = 200, 100
    [found] = named(image)
    area = disc.sum()
    assert area == pytest.approx(np.pi * radius**2, rel=0.03)
    expected = {
        "channel 0: mean": 200 / 255 * area / size**2, "channel 0: largest": 200 / 255,
        "foreground 0: area": area / size**2, "foreground 0: objects": 1, "foreground 0: largest area": area / size**2,
        "foreground 0: distance from middle": 0, "foreground 0: eccentricity": 0,
        # Of the square that bounds it.
        "foreground 0: extent": area / 100, "foreground 1: area": 1 - area / size**2,
        "channel 1: light in core of foreground 0": 0, "channel 1: light in rim of foreground 0": 0,
        "correlation of channels 0 and 1": -1,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    inside = [found[f"channel 0: light in {zone} of foreground 0"] for zone in ("core", "rim")]
    assert sum(inside) == pytest.approx(1) and min(inside) > 0
    assert found["foreground 0: long axis"] * size == pytest.approx(2 * radius, rel=0.05)


def test_objects_are_counted_and_grains_are_removed_by_openings_of_their_size():
    image = np.zeros((1, 1, 32, 32), dtype=np.uint8)
    for at in (4, 14, 24):
        image[0, 0, at : at + 3, at : at + 3] = 90  # squares of 3 px
    image[0, 0, 20:27, 2:9] = 90  # and one of 7 px, which an opening of radius 3 leaves
    [found] = named(image)
    assert found["foreground 0: objects"] == 4
    assert found["foreground 0: largest area"] == pytest.approx(49 / 1024)
    light = 27 + 49
    assert [found[f"channel 0: granularity at {radius} px"] for radius in (1, 2, 3, 4)] == pytest.approx(
        [0, 27 / light, 0, 49 / light]
    )


def test_features_do_not_depend_on_the_eight_orientations(cells):
    plain = classical.features(cells)
    for turned in orientation.all_orientations(cells):
        assert np.allclose(classical.features(turned), plain, atol=2e-5)
    assert np.ptp(plain, axis=0).max() > 0.1


def test_an_image_has_the_same_features_in_any_block(cells, monkeypatch):
    whole = classical.features(cells)
    monkeypatch.setattr(classical, "BLOCK", 4)
    assert np.array_equal(classical.features(cells), whole)
    assert classical.features(cells[:0]).shape == (0, whole.shape[1])


def test_co_occurrence_is_that_of_scikit_image(cells):
    for distance in classical.PAIRS:
        ours = classical.co_occurrence(cells, distance)
        for n, c in np.ndindex(cells.shape[:2]):
            image = cells[n, c]
            level = (image.astype(int) * classical.LEVELS // (int(image.max()) + 1)).astype(np.uint8)
            theirs = 0
            # scikit-image steps along a circle: a diagonal pair of ours is √2 as far.
            for far, angle in ((1, 0), (1, np.pi / 2), (2**0.5, np.pi / 4), (2**0.5, 3 * np.pi / 4)):
                theirs = theirs + graycomatrix(level, [far * distance], [angle], classical.LEVELS, symmetric=True)
            assert np.array_equal(ours[n, c], theirs[:, :, 0, 0])
            properties = dict(zip(classical.HARALICK, classical.haralick(cells[n : n + 1])[0, c].T, strict=True))
            share = (theirs / theirs.sum()).astype(np.float64)
            for name in ("contrast", "dissimilarity", "homogeneity", "energy", "correlation"):
                at = classical.PAIRS.index(distance)
                assert properties[name][at] == pytest.approx(graycoprops(share, name)[0, 0], rel=1e-6)


def test_thresholds_and_openings_are_those_of_scikit_image(cells):
    masks, thresholds = classical.foreground(cells)
    grains = classical.granularity(cells)
    for n, c in np.ndindex(cells.shape[:2]):
        image = cells[n, c]
        assert thresholds[n, c] == threshold_otsu(image)
        assert np.array_equal(masks[n, c], image > threshold_otsu(image))
        left = [image] + [
            opening(image, footprint_rectangle((2 * r + 1, 2 * r + 1))) for r in classical.opening_radii(SIZE)
        ]
        light = np.array([part.sum(dtype=int) for part in left])
        assert grains[n, c] == pytest.approx(-np.diff(light) / light[0])


def test_shapes_are_those_of_regionprops(cells):
    masks, thresholds = classical.foreground(cells)
    found = classical.shapes(masks, thresholds)
    several = 0
    for n, c in np.ndindex(cells.shape[:2]):
        ours = dict(zip(classical.SHAPES, found[n, c], strict=True))
        objects = regionprops(label(masks[n, c], connectivity=2))
        largest = max(objects, key=lambda one: one.area)
        several += len(objects) > 1
        assert ours["objects"] == len(objects)
        expected = {
            "largest area": largest.area / SIZE**2, "extent": largest.extent, "eccentricity": largest.eccentricity,
            "long axis": largest.axis_major_length / SIZE, "short axis": largest.axis_minor_length / SIZE,
        }  # fmt: skip
        assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert several > 3, "the case must test which object is the largest"


def test_a_pattern_counts_ones_where_they_lie_in_one_arc():
    image = np.zeros((1, 1, 3, 3), dtype=np.uint8)
    image[0, 0, 1, 1] = 5
    image[0, 0, 0] = 9  # three neighbours in a row are as bright as the middle, or brighter
    assert classical.local_binary_patterns(image)[0, 0, 0].argmax() == 3
    image[0, 0, 2, 1] = 9  # a fourth, apart from them
    assert classical.local_binary_patterns(image)[0, 0, 0].argmax() == classical.PATTERNS.index("not uniform")
    assert classical.local_binary_patterns(image).sum() == pytest.approx(len(classical.RINGS))


def test_zones_cover_every_pixel_once(cells):
    masks, _ = classical.foreground(cells)
    inside = classical.zones(masks)
    assert (inside.sum(axis=2) == 1).all()
    assert np.array_equal(inside[:, :, 0] | inside[:, :, 1], masks)
