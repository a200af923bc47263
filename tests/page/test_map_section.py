"""The page's section *When it pays* and its figure, from a made map."""

from __future__ import annotations

import matplotlib.colors
import pandas as pd
import pytest

from workflow_scripts.lib.judge import regime_map
from workflow_scripts.lib.judge.wording import map_sentences, page_opening
from workflow_scripts.lib.page import figure_style, map_figures
from workflow_scripts.lib.page.run_tables import Results
from workflow_scripts.lib.page.sections import map_section

REGIMES = [("twentieth", 20.0), ("tenth", 41.0), ("quarter", 102.0), ("half", 205.0), ("all", 410.0)]
STATES = [regime_map.HELPS, regime_map.NO_MORE, regime_map.UNDECIDED, regime_map.HURTS, regime_map.UNCONTROLLED]


def ends(name: str, value: float, half: float = 0.03) -> dict[str, float]:
    return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}


def made(saws: tuple[str, ...] = regime_map.SAW, regimes: list[tuple[str, float]] = REGIMES) -> Results:
    """A run with a map of these kinds of generators and regimes; the last regime has no control."""
    cells, points = [], []
    for row, saw in enumerate(saws):
        for column, (regime, groups) in enumerate(regimes):
            gain = 0.1 - 0.04 * column - 0.01 * row
            cell = {"saw": saw, "regime": regime, "groups": groups, "arm": f"pool_{regime}_{saw}", "control": "pseudo"}
            cell |= {"state": STATES[(row + column) % 5] if regime != "all" else STATES[4]} | ends("gain", gain)
            cells.append(cell | (ends("beyond", gain - 0.03) if regime != "all" else {"control": ""}))
    series = [("baseline", "real_only", 0.30), ("control", "pseudo_label", 0.34), ("control", "ssl_pretrain", 0.33)]
    series += [("control", "resample_real", 0.29), ("ceiling", "more_real", 0.52), ("ceiling", "simulator", 0.48)]
    series += [("generated", saw, 0.36 + 0.02 * row) for row, saw in enumerate(saws)]
    for part, name, start in series:
        for column, (regime, groups) in enumerate(regimes):
            at = {"part": part, "series": name, "regime": regime, "groups": groups, "arm": f"{name}_{regime}"}
            points.append(at | ends("score", start + column * (0.62 - start) / len(regimes), 0.025))
    limits = [{"saw": saws[0], "helps_at": [20.0]} | ends("groups", 60.0, 30.0)] if len(regimes) > 1 else []
    facts = {
        "metric": "macro_f1", "confidence": 0.95, "cells": cells, "points": points, "limits": limits,
        "regimes": [{"regime": name, "groups": n, "baseline": "real", "controls": []} for name, n in regimes],
    }  # fmt: skip
    analysis = {"metric": "macro_f1", "smallest_effect": 0.02, "primary_arm": cells[0]["arm"]}
    metrics = pd.DataFrame({"arm": [cells[0]["arm"]], "class": [""]})
    return Results(metrics, pd.DataFrame(columns=["relation"]), analysis, {"map": facts})


def test_a_run_without_a_map_has_no_section() -> None:
    bare = Results(pd.DataFrame(), pd.DataFrame(), {}, {})
    assert map_section.table(bare, "protein") is None and map_section.sentences(bare, "protein") == []


def test_the_table_has_a_row_for_each_cell() -> None:
    shown = map_section.table(made(), "protein")
    assert len(shown.rows) == 20 and shown.columns[2].title == "labelled proteins"
    assert shown.rows[0]["gain"] == pytest.approx((0.1, 0.07, 0.13)) and shown.rows[0]["saw"] == "labelled only"
    assert shown.rows[0]["beyond"] == pytest.approx((0.07, 0.04, 0.1)) and "beyond" not in shown.rows[4]
    assert [shown.mark(row) for row in shown.rows[:2]] == ["primary", ""]


def test_the_sentence_tells_the_number_and_what_the_images_are_worth() -> None:
    found = made()
    found.facts["worth"] = {"arms": [{"arm": "pool_twentieth_labelled", "sentence": "It was worth 90 more."}]}
    [said] = map_section.sentences(found, "well")
    assert said == (
        "Images of a generator that saw the labelled images alone help below about 60 labelled wells "
        "(95 % interval: 30 to 90). It was worth 90 more."
    )


def test_the_figure_shows_every_series_and_writes_the_state_into_each_cell() -> None:
    with figure_style.style():
        fig = map_figures.draw_map(made())
    scores, gains, cells = fig.axes
    assert scores.get_xscale() == gains.get_xscale() == "log"
    assert [text.get_text() for text in scores.get_xticklabels()] == ["20", "41", "102", "205", "410"]
    assert len([line for line in scores.lines if len(line.get_xdata()) == 5]) == len(fig.legends[0].texts) == 10
    written = [text.get_text() for text in cells.texts]
    assert len(written) == 20 and written[0] == "helps\n+0.100" and written[4].startswith("no control")
    assert {text.split("\n")[0] for text in written} == set(map_section.STATES.values())
    # Rings: no control to compare with.
    paper = matplotlib.colors.to_hex(figure_style.PAPER)
    rings = [line for line in gains.lines if line.get_marker() == "o" and line.get_markerfacecolor() == paper]
    assert len(rings) == 4


def test_a_map_of_two_regimes_is_drawn_too_and_a_run_without_one_says_so() -> None:
    with figure_style.style():
        fig = map_figures.draw_map(made(("everything",), [("few", 41.0), ("all", 410.0)]))
        assert len(fig.axes) == 3 and len(fig.axes[2].texts) == 2
        [said] = map_figures.draw_map(Results(pd.DataFrame(), pd.DataFrame(), {}, {})).texts
    assert "Fewer than two label regimes" in said.get_text()


def test_a_map_of_a_single_repeat_claims_nothing() -> None:
    found = made()
    found.facts["sizes"] = {"repeats": 1}
    assert all("exploratory" in text for text in map_section.sentences(found, "protein"))
    assert "exploratory" in map_section.table(found, "protein").note
    with figure_style.style():
        cells = map_figures.draw_map(found).axes[2]
    fills = {matplotlib.colors.to_hex(patch.get_facecolor()) for patch in cells.patches}
    assert not fills & {figure_style.GAIN, figure_style.LOSS}


def test_two_regimes_of_one_number_count_once() -> None:
    limit = {"saw": "unlabelled", "helps_at": [20.0, 80.0], "groups": None, "groups_low": 80.0, "groups_high": None}
    assert "help at all numbers" in map_sentences.sentence(limit, [20.0, 20.0, 80.0], 0.95, "protein")


def test_a_single_repeat_does_not_speak_of_other_proteins() -> None:
    answer = {"training_luck": False, "claim": "other_proteins", "beside_low": None}
    assert "as well" not in page_opening.beyond_these(answer, "protein")
