"""Channels have the colours of the config, else those that microscopists give them; legend and scale bar."""

import numpy as np
import pytest

from workflow_scripts.lib.images import colour_choices
from workflow_scripts.lib.page import figure_style, image_legend, image_strips


def test_channels_are_coloured_by_their_names_and_no_two_alike():
    colours = colour_choices.colours_of
    assert colours(["gfp", "rfp"]) == ["green", "red"]
    assert colours(["DIC", "mCherry", "dapi"]) == ["grey", "red", "blue"]
    assert colours(["nuclei", "syp1-GFP", "membrane"]) == ["blue", "green", "magenta"]
    assert len(set(colours(["a", "b", "green", "c"]))) == 4
    assert colours(["rfp"]) == ["grey"], "one channel alone is shown in grey"


def test_a_channel_shows_its_colour():
    images = np.zeros((1, 2, 4, 4), dtype=np.uint8)
    images[0, 1] = 255
    assert image_strips.compose(images, ["gfp", "rfp"], np.array([255, 255]))[0, 0, 0].tolist() == [1, 0.1, 0.1]


def test_the_colours_of_the_config_come_first():
    chosen = {"gfp": "#3060ff", "dna": "magenta"}
    assert colour_choices.colours_of(["gfp", "dna", "rfp"], chosen) == ["#3060ff", "magenta", "red"]
    assert colour_choices.colours_of(["gfp"], chosen) == ["#3060ff"]
    images = np.full((1, 2, 4, 4), 255, dtype=np.uint8)
    images[0, 1] = 0
    shown = image_strips.compose(images, ["gfp", "rfp"], np.array([255, 255]), chosen)
    assert shown[0, 0, 0] == pytest.approx([0x30 / 255, 0x60 / 255, 1])


@pytest.mark.parametrize("colour", [*colour_choices.COLOURS, "#000000", "#000080"])
def test_names_can_be_read_on_black(colour):
    shown = colour_choices.rgb(colour_choices.on_black(colour))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in shown]
    assert (np.dot([0.2126, 0.7152, 0.0722], linear) + 0.05) / 0.05 >= 4.4
    assert colour_choices.on_black(colour) not in {code for pair in figure_style.THEME.values() for code in pair}


@pytest.mark.parametrize(
    ("side", "pixel_size", "length"),
    [(64, None, "20 px"), (16, None, "5 px"), (1, None, "1 px"), (128, 0.16, "10 µm"), (64, 0.01, "0.2 µm")],
)
def test_the_scale_bar_is_a_round_part_of_an_image(side, pixel_size, length):
    legend = image_legend.make(["gfp"], side, None, pixel_size)
    assert legend.length == length
    assert legend.fraction * side * (pixel_size or 1) == pytest.approx(float(length.split()[0]))


def test_a_figure_names_its_channels_and_its_scale():
    legend = image_legend.make(["a" * 40, "b" * 40, "gfp"], 64)
    fig = figure_style.figure(1)
    image_legend.draw(fig, legend, 0.4)
    words = {text.get_text(): text.get_color() for text in fig.texts}
    assert words["gfp"] == "#00ff00" and "20 px" in words
    assert image_legend.height(legend) > image_legend.height(image_legend.make(["gfp"], 64))
    (bar,) = fig.artists or fig.lines
    assert np.ptp(bar.get_xdata()) * figure_style.WIDTH == pytest.approx(0.4 * 20 / 64)
