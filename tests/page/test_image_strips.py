"""lib.page.image_strips: channels have the colours that microscopists give them."""

import numpy as np

from workflow_scripts.lib.page import image_strips


def test_channels_are_coloured_by_their_names_and_no_two_alike():
    colours = image_strips.colours_of
    assert colours(["gfp", "rfp"]) == ["green", "red"]
    assert colours(["DIC", "mCherry", "dapi"]) == ["grey", "red", "blue"]
    assert colours(["nuclei", "syp1-GFP", "membrane"]) == ["blue", "green", "magenta"]
    assert len(set(colours(["a", "b", "green", "c"]))) == 4
    assert colours(["rfp"]) == ["grey"], "one channel alone is shown in grey"


def test_a_channel_shows_its_colour():
    images = np.zeros((1, 2, 4, 4), dtype=np.uint8)
    images[0, 1] = 255
    assert image_strips.compose(images, ["gfp", "rfp"], np.array([255, 255]))[0, 0, 0].tolist() == [1, 0.1, 0.1]
