"""Augmentation: exact where it only moves pixels, a plain bilinear look-up elsewhere, within its limits, and the same
for the first n of a batch."""

import numpy as np
import pytest
import torch

from workflow_scripts.lib.classify import augment

OFF = {"turn": False, "flip": False, "scale": [1.0, 1.0], "aspect": [1.0, 1.0], "intensity": 0.0}


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


def pictures(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(7))


def apply(pixels, draws):
    """Without standardising: values in [0, 1]."""
    channels = pixels.shape[1]
    return augment.apply(pixels, draws, torch.zeros(channels), torch.ones(channels))


def dihedral(image):
    turned = [torch.rot90(image, quarter, (1, 2)) for quarter in range(4)]
    return turned + [turn.flip(2) for turn in turned]


def looked_up(image, coordinates, gain):
    """One image (C, H, W) as its draws say, pixel by pixel in float64; `coordinates` (2, 3) run from -1 to 1 between
    the outer edges of the image."""
    height, width = image.shape[1:]
    out = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            x, y = coordinates @ [(2 * column + 1) / width - 1, (2 * row + 1) / height - 1, 1]
            # Pixel centres lie half a pixel from the edge; beyond the outer centres the border goes on.
            x = min(max(((x + 1) * width - 1) / 2, 0), width - 1)
            y = min(max(((y + 1) * height - 1) / 2, 0), height - 1)
            left, top = int(x), int(y)
            right, below = min(left + 1, width - 1), min(top + 1, height - 1)
            upper = image[:, top, left] * (1 - x + left) + image[:, top, right] * (x - left)
            lower = image[:, below, left] * (1 - x + left) + image[:, below, right] * (x - left)
            out[:, row, column] = upper * (1 - y + top) + lower * (y - top)
    return np.minimum(out / 255 * gain[:, None, None], 1)


FULL = {"turn": True, "flip": True, "scale": [0.5, 1.0], "aspect": [0.7, 1.4], "intensity": 0.5}


@pytest.mark.parametrize("cached", [1, 2**10, 2**18])
@pytest.mark.parametrize("size", [8, 13])
def test_apply_equals_a_plain_look_up_then_gain_white_and_standardising(size, cached, monkeypatch):
    monkeypatch.setattr(augment, "CACHED", cached)
    pixels, mean, std = pictures(12, 3, size, size), torch.tensor([0.1, 0.4, 0.0]), torch.tensor([0.3, 0.05, 1.0])
    draws = augment.draw(12, 3, FULL, generator())
    found = augment.apply(pixels, draws, mean, std)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    cut = 0
    for image, coordinates, gain, each in zip(
        pixels.numpy(), draws.grid.numpy(), draws.gain.numpy(), found, strict=True
    ):
        plain = looked_up(image.astype(float), coordinates.astype(float), gain[:, 0, 0])
        cut += (plain == 1).sum()
        wanted = (plain - mean.numpy()[:, None, None]) / std.numpy()[:, None, None]
        np.testing.assert_allclose(each.numpy(), wanted, atol=1e-4)
    assert cut > 100, "some are cut off at white"


def test_apply_leaves_the_pixels_alone():
    pixels = pictures(4, 2, 8, 8)
    before = pixels.clone()
    apply(pixels, augment.draw(4, 2, FULL, generator()))
    assert torch.equal(pixels, before)


def test_an_empty_batch_stays_empty():
    assert apply(pictures(0, 2, 8, 8), augment.draw(4, 2, FULL, generator()).first(0)).shape == (0, 2, 8, 8)


def test_off_changes_nothing():
    pixels = pictures(5, 3, 16, 16)
    assert torch.allclose(apply(pixels, augment.draw(5, 3, OFF, generator())), pixels / 255, atol=1e-5)


def test_turns_and_flips_only_permute_pixels_and_all_eight_occur():
    pixels = pictures(1, 2, 9, 9)
    draws = augment.draw(200, 2, OFF | {"turn": True, "flip": True}, generator())
    found = apply(pixels.expand(200, 2, 9, 9), draws)
    distance = torch.stack([(found - other).abs().amax(dim=(1, 2, 3)) for other in dihedral(pixels[0] / 255)])
    assert (distance.min(dim=0).values < 1e-4).all()
    counts = torch.bincount(distance.argmin(dim=0), minlength=8)
    assert counts.min() >= 10


def test_first_images_do_not_depend_on_how_many_are_used(monkeypatch):
    monkeypatch.setattr(augment, "CACHED", 3 * 2 * 16 * 16)
    pixels = pictures(8, 2, 16, 16)
    draws = augment.draw(8, 2, FULL, generator())
    for count in (1, 3, 7):
        assert torch.equal(apply(pixels, draws)[:count], apply(pixels[:count], draws.first(count)))
    again = augment.draw(8, 2, FULL, generator())
    assert torch.equal(draws.grid, again.grid)
    assert torch.equal(draws.gain, again.gain)
    assert not torch.equal(draws.grid, augment.draw(8, 2, FULL, generator(4)).grid)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_does_the_same():
    pixels, mean, std = pictures(6, 2, 16, 16), torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.4])
    draws = augment.draw(6, 2, FULL, generator())
    found = augment.apply(pixels.cuda(), draws, mean.cuda(), std.cuda())
    assert torch.allclose(found.cpu(), augment.apply(pixels, draws, mean, std), atol=1e-3)


def test_crops_keep_their_share_of_the_area_and_stay_inside():
    settings = OFF | {"turn": True, "flip": True, "scale": [0.5, 0.7], "aspect": [0.9, 1.1]}
    grid = augment.draw(500, 1, settings, generator()).grid
    area = torch.linalg.det(grid[:, :, :2].double()).abs()
    assert 0.5 - 1e-6 <= area.min() < 0.52
    assert 0.68 < area.max() <= 0.7 + 1e-6
    # The farthest point that is looked up along each axis.
    assert (grid[:, :, :2].abs().sum(dim=2) + grid[:, :, 2].abs()).max() <= 1 + 1e-6


def test_switching_one_off_leaves_the_others_as_they_were():
    full = OFF | {"turn": True, "flip": True, "scale": [0.8, 1.0], "intensity": 0.2}
    assert torch.equal(
        augment.draw(9, 2, full, generator()).gain, augment.draw(9, 2, full | {"turn": False}, generator()).gain
    )


@pytest.mark.parametrize("intensity", [0.1, 0.5])
def test_brightness_of_channels_stays_in_range(intensity):
    pixels = torch.full((400, 2, 4, 4), 51, dtype=torch.uint8)
    found = apply(pixels, augment.draw(400, 2, OFF | {"intensity": intensity}, generator()))
    ratio = (found / 0.2).mean(dim=(2, 3)).log()
    assert ratio.abs().max() <= intensity + 1e-4
    assert ratio.abs().max() > 0.9 * intensity
    assert (ratio[:, 0] - ratio[:, 1]).abs().max() > intensity, "channels change independently"
    white = torch.full((400, 2, 4, 4), 255, dtype=torch.uint8)
    assert apply(white, augment.draw(400, 2, OFF | {"intensity": 1.0}, generator())).max() <= 1
