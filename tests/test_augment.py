"""Augmentation: exact where it only moves pixels, within its limits elsewhere, the same for the first n of a batch."""

import pytest
import torch

from workflow_scripts.lib import augment

OFF = {"turn": False, "flip": False, "scale": [1.0, 1.0], "aspect": [1.0, 1.0], "intensity": 0.0}


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


def dihedral(image):
    turned = [torch.rot90(image, quarter, (1, 2)) for quarter in range(4)]
    return turned + [turn.flip(2) for turn in turned]


def test_off_changes_nothing():
    images = torch.rand(5, 3, 16, 16)
    assert torch.allclose(augment.apply(images, augment.draw(5, 3, OFF, generator())), images, atol=1e-5)


def test_turns_and_flips_only_permute_pixels_and_all_eight_occur():
    image = torch.rand(2, 9, 9)
    draws = augment.draw(200, 2, OFF | {"turn": True, "flip": True}, generator())
    found = augment.apply(image.expand(200, 2, 9, 9), draws)
    distance = torch.stack([(found - other).abs().amax(dim=(1, 2, 3)) for other in dihedral(image)])
    assert (distance.min(dim=0).values < 1e-4).all()
    counts = torch.bincount(distance.argmin(dim=0), minlength=8)
    assert counts.min() >= 10


def test_first_images_do_not_depend_on_how_many_are_used():
    settings = OFF | {"turn": True, "flip": True, "scale": [0.8, 1.0], "aspect": [0.9, 1.1], "intensity": 0.2}
    images = torch.rand(8, 2, 16, 16)
    draws = augment.draw(8, 2, settings, generator())
    assert torch.allclose(augment.apply(images, draws)[:3], augment.apply(images[:3], draws.first(3)), atol=1e-6)
    again = augment.draw(8, 2, settings, generator())
    assert torch.equal(draws.grid, again.grid)
    assert torch.equal(draws.gain, again.gain)
    assert not torch.equal(draws.grid, augment.draw(8, 2, settings, generator(4)).grid)


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
    images = torch.full((400, 2, 4, 4), 0.2)
    found = augment.apply(images, augment.draw(400, 2, OFF | {"intensity": intensity}, generator()))
    ratio = (found / 0.2).mean(dim=(2, 3)).log()
    assert ratio.abs().max() <= intensity + 1e-4
    assert ratio.abs().max() > 0.9 * intensity
    assert (ratio[:, 0] - ratio[:, 1]).abs().max() > intensity, "channels change independently"
    assert (
        augment.apply(torch.ones(400, 2, 4, 4), augment.draw(400, 2, OFF | {"intensity": 1.0}, generator())).max() <= 1
    )
