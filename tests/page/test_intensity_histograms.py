"""Histograms of intensities by plate: what is counted, which values are shown, and that the figure holds them."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_hex

from workflow_scripts.lib.images import colour_choices
from workflow_scripts.lib.page import data_figures, figure_style, intensity_histograms
from workflow_scripts.lib.page.intensity_histograms import BINS, MOST, RAW_EDGES, IntensityHistograms


def test_each_pixel_counts_once_for_its_value_and_channel() -> None:
    values = ["dim", "bright", "dim"]
    shown = IntensityHistograms(["dna", "actin"], "plate", values, 3)
    images = np.zeros((3, 2, 4, 4), dtype=np.uint8)
    images[1, 1] = 255
    raw = np.full((3, 2, 4, 4), 20, dtype=np.uint16)
    raw[1] = 60_000
    shown.add(values[:2], images[:2], raw[:2])
    shown.add(values[2:], images[2:], raw[2:])
    assert shown.values == ["bright", "dim"] and shown.images == [1, 2]
    assert shown.after[:, :, 0].tolist() == [[16, 0], [32, 32]]
    assert shown.after[0, 1, BINS - 1] == 16
    for row, value in enumerate((60_000, 20)):
        place = int(np.searchsorted(RAW_EDGES, value, "right")) - 1
        assert shown.before[row, 0, place] == shown.before[row, 0].sum() == (1 + row) * 16


def test_twelve_values_are_shown_and_the_others_named() -> None:
    values = [f"p{number:02d}" for number in range(15) for _ in range(15 - number)]
    shown = IntensityHistograms(["dna"], "plate", values, len(values))
    assert shown.values == [f"p{number:02d}" for number in range(MOST)]
    assert shown.text.endswith("Not shown: p12, p13, p14.")
    shown.add(values, np.full((len(values), 1, 2, 2), 7, dtype=np.uint8), None)
    assert shown.after.sum() == 4 * sum(15 - number for number in range(MOST)) and not shown.before.any()
    assert "after normalisation, by plate" in shown.text


def test_the_column_is_the_one_asked_for_or_one_with_a_usual_name() -> None:
    columns = {"well": ["A1"], "plate": [""], "batch": ["b"]}
    assert intensity_histograms.column_of("well", columns) == "well"
    assert intensity_histograms.column_of(None, columns) == "batch", "an empty column tells nothing apart"
    assert intensity_histograms.column_of(None, {"well": ["A1"]}) is None
    shown = IntensityHistograms(["dna"], None, None, 9)
    assert shown.values == ["all images"] and shown.images == [9] and "no column such as the plate" in shown.text


def test_the_figure_has_a_panel_for_each_channel_before_and_after() -> None:
    shown = IntensityHistograms(["dna", "actin"], "plate", ["a", "b"], 2)
    pixels = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8).repeat(2, 0).repeat(2, 1)
    shown.add(["a", "b"], pixels, pixels.astype(np.uint16) * 100)
    with figure_style.style():
        figure = data_figures.draw_histograms(shown)
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert titles == ["dna, before", "dna, after", "actin, before", "actin, after"]
        assert figure_style.svg_text(figure).count("<svg") == 1
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]


def test_channels_have_the_colours_of_their_pictures() -> None:
    channels, chosen = ["dna", "actin", "er"], {"er": "#3060ff", "actin": "magenta"}
    shown = IntensityHistograms(channels, "plate", ["a"], 1)
    pixels = np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4)
    shown.add(["a"], pixels, None)
    theme = figure_style.THEME
    expected = [theme["blue"][0], theme["purple"][0], "#3060ff"]
    with figure_style.style():
        panels = data_figures.draw_histograms(shown, chosen).axes
        lines = data_figures.draw_intensity(np.ones((3, 256)), channels, chosen).axes[0].lines
    assert [to_hex(axes.collections[0].get_facecolor()[0]) for axes in panels] == expected
    assert [to_hex(line.get_color()) for line in lines] == expected
    # Two channels of one colour differ by their lines.
    with figure_style.style():
        lines = data_figures.draw_intensity(np.ones((2, 256)), ["a", "b"], {"a": "red", "b": "red"}).axes[0].lines
    assert lines[0].get_color() == lines[1].get_color() and lines[0].get_linestyle() != lines[1].get_linestyle()


def test_chosen_colours_stand_out_from_light_and_dark_pages() -> None:
    assert colour_choices.on_any_page("#3060ff") == "#3060ff", "it does so by itself"
    for colour in ("#ffff00", "#000000", "#ffffff", "#00007f"):
        drawn = colour_choices.on_any_page(colour)
        own = colour_choices._luminance(colour_choices.rgb(drawn))
        assert min((own + 0.05) / 0.06, 1.05 / (own + 0.05)) > 2.95, colour
