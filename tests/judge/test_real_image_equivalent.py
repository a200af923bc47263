"""The learning curve over real images, and what arms are worth on it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.helpers.arms_data import SECTION
from tests.helpers.worlds import ANALYSIS, World
from workflow_scripts.lib.classify import arm_settings
from workflow_scripts.lib.judge import experiment, real_image_equivalent, scoring
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.wording import analysis_report, equivalents
from workflow_scripts.lib.page import curve_figures, html_page, run_tables
from workflow_scripts.lib.page.sections import arms_section

IMAGES = np.array([100.0, 200.0, 400.0, 800.0])


def test_arms_are_placed_in_a_straight_line_of_the_logarithm() -> None:
    curve = (0.2 + 0.1 * np.log2(IMAGES / 100))[:, None].repeat(5, axis=1)
    found = real_image_equivalent.place(IMAGES, curve, np.array([0.2, 0.25, 0.4, 0.19, 0.51]))
    assert found[:3] == pytest.approx([100, 100 * 2**0.5, 400])
    assert found[3] == 0 and found[4] == np.inf, "beyond the ends nothing is known"


def test_a_curve_that_falls_is_averaged_as_isotonic_regression_does() -> None:
    drawn = np.array([[1.0, 3.0, 2.0, 4.0], [4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 1.0]]).T
    expected = np.array([[1.0, 2.5, 2.5, 4.0], [2.5] * 4, [1.0, 2.0, 3.0, 4.0], [1.5, 1.5, 2.5, 2.5]]).T
    assert np.allclose(real_image_equivalent.rising(drawn), expected)


def test_the_interval_covers_the_true_number() -> None:
    rng = np.random.default_rng(4)
    true, inside, noise, worlds = 300.0, [], 0.03, 300
    heights = 0.2 + 0.1 * np.log2(IMAGES / 100)
    target = np.interp(np.log(true), np.log(IMAGES), heights)
    # What all arms share (the proteins that were tested) cancels; the rest is each arm's own.
    mixing = np.linalg.cholesky(noise**2 * (0.5 * np.eye(5) + 0.5))
    for _ in range(worlds):
        estimate = np.append(heights, target) + mixing @ rng.standard_normal(5)
        drawn = estimate[:, None] + mixing @ rng.standard_normal((5, 400))
        both = np.concatenate([estimate[:, None], drawn], axis=1)
        _, low, high = real_image_equivalent.interval(
            real_image_equivalent.place(IMAGES, real_image_equivalent.rising(both[:4]), both[4]), 0.95
        )
        inside.append(low <= true <= high)
    assert 0.91 <= np.mean(inside) <= 0.995


@pytest.mark.parametrize(("repeats", "luck"), [(2, 0.03), (3, 0.03), (3, 0.0), (1, 0.0)])
def test_the_interval_covers_the_true_number_whatever_the_repeats_are(repeats: int, luck: float) -> None:
    # An arm as good as 400 images, on a curve of four arms; each arm has luck of its own in each repeat.
    heights = np.append(0.2 + 0.1 * np.log2(IMAGES / 100), 0.4)
    inside, groups, worlds = [], 120, 200
    for world in range(worlds):
        rng = np.random.default_rng(world)
        weights = rng.standard_exponential((groups, 300))
        parts = 0.3 * rng.standard_normal(groups) + 0.2 * rng.standard_normal((5, groups))
        own = heights[:, None] + luck * rng.standard_normal((5, repeats))
        scores = own + parts.mean(axis=1, keepdims=True)
        draws = (own[..., None] + (parts @ weights / weights.sum(axis=0))[:, None]).astype(float)
        errors = real_image_equivalent.placing_errors(scores, draws, world)
        both = scores.mean(axis=1, keepdims=True) + np.hstack([np.zeros((5, 1)), errors])
        _, low, high = real_image_equivalent.interval(
            real_image_equivalent.place(IMAGES, real_image_equivalent.rising(both[:4]), both[4]), 0.95
        )
        inside.append(low <= 400 <= high)
    assert 0.91 <= np.mean(inside) <= 0.985, np.mean(inside)


INF = np.inf


@pytest.mark.parametrize(
    ("ends", "most", "said", "within"),
    [
        ((550, 440, 700), 800, "Pool was worth about 150 more real images beside", "40 more to 300 more"),
        ((450, 380, 610), 800, "Pool was worth not more than 210 more real images beside", "20 fewer to 210 more"),
        ((500, 300, INF), 800, "What pool was worth in real images cannot be told", "100 fewer to more than 400 more"),
        ((700, 500, INF), 800, "Pool was worth at least 100 more real images", "100 more to more than 400 more"),
        ((INF, INF, INF), 800, "Pool was worth more than 400 more real images beside the 400 that there are.", ""),
        ((250, 0, 380), 800, "Pool cost as much as having 150 fewer real images", "more than 300 fewer to 20 fewer"),
        ((0, 0, 0), 800, "Pool cost as much as having more than 300 fewer real images of the 400.", ""),
        ((380, 300, INF), 400, "What pool was worth in real images cannot", "100 fewer to more than there are"),
        ((INF, INF, INF), 400, "Pool was worth more real images than the 400 there are; an arm more_real", ""),
    ],
)
def test_sentences(ends, most, said, within) -> None:
    text = equivalents.sentence("pool", ends, (100, 400, most), 0.95)
    assert text.startswith(said) and text.endswith(".")
    assert not within or f"{within})." in text


ARMS = {
    # name -> (method, options, skill, images of each fold)
    "quarter": ("real_only", {"real_fraction": 0.25}, 1.2, 100),
    "real_only": ("real_only", {}, 2.0, 400),
    "more_real": ("more_real", {}, 2.8, 1600),
    "mix": ("pool", {"synthetic_set": "p"}, 2.4, 400),
    "planned": ("more_real", {"synthetic_set": "p"}, 2.4, 1600),
    "longer": ("pool", {"synthetic_set": "p", "budget": 2}, 2.9, 400),
}


@pytest.fixture(scope="module")
def judged():
    """An experiment of known skills, what the judge made of it, and its arms as the config has them."""
    world = World(3, groups=160)
    entries = [{"name": name, "method": method} | options for name, (method, options, *_) in ARMS.items()]
    found = {}
    for entry in entries:
        found[entry["name"]] = world.arm(entry["name"], ARMS[entry["name"]][2], luck=0.2)
        for cell in found[entry["name"]]:
            cell.settings = arm_settings.effective(entry, SECTION)
            cell.numbers = {"real_images": ARMS[entry["name"]][3], "real_groups": 10, "steps": cell.settings["steps"]}
    groups = sorted(
        {
            str(name)
            for cells in found.values()
            for cell in cells
            for part in cell.parts.values()
            for name in part.groups
        }
    )
    tested = experiment.Experiment(world.classes, groups, found)
    analysis = ANALYSIS | {"draws": 200, "metric": "map"}
    return scoring.score_experiment(Question(analysis, entries, 1), tested, 1)


def told(run):
    """What analysis.json says of the curve."""
    return equivalents.report(real_image_equivalent.measure(run), run.question)


def test_arms_of_the_same_settings_are_placed_on_the_curve(judged) -> None:
    found = told(judged)
    assert [point["arm"] for point in found["points"]] == ["quarter", "real_only", "more_real"]
    assert [point["images"] for point in found["points"]] == [100, 400, 1600] and found["images"] == 400
    # Other steps are another curve; images drawn to a synthetic set's labels are no point of this one.
    assert [row["arm"] for row in found["arms"]] == ["mix", "planned"]
    mix = found["arms"][0]
    # Its skill lies halfway: twice the images, as far as the interval tells.
    assert mix["low"] <= 400 <= (mix["high"] or 1200) and 0 < mix["worth"] < 1200
    assert found["sentence"] == mix["sentence"]
    assert found["sentence"].startswith("Mixing in the synthetic set p (mix) was worth about")
    assert found["arms"][1]["sentence"].lower().find("the arm planned was worth") == 0
    json.dumps(analysis_report.plain(found), allow_nan=False)


def test_a_curve_that_is_not_shown_to_rise_tells_nothing(judged) -> None:
    flat = judged.summaries["image"] | {"more_real": judged.summaries["image"]["quarter"]}
    found = told(replace(judged, summaries={"image": flat}))
    assert not found["rises"]
    assert found["sentence"].endswith("cannot be told: with 100 to 1,600 the score is not shown to rise.")


def test_nothing_is_said_without_a_curve(judged) -> None:
    tested, question = judged.experiment, judged.question
    few = [entry for entry in question.arms if entry["name"] in ("real_only", "mix")]
    kept = {name: cells for name, cells in tested.arms.items() if name in ("real_only", "mix")}
    alone = experiment.Experiment(tested.classes, tested.groups, kept)
    few = replace(judged, experiment=alone, question=replace(question, arms=few))
    assert real_image_equivalent.measure(few) is None


def test_figure_and_table(judged, tmp_path) -> None:
    analysis = judged.question.analysis
    facts = {"worth": analysis_report.plain(told(judged)), "analysis": analysis}
    found = run_tables.Results(_empty(), _empty(), analysis, facts)
    drawn = [text.get_text() for axes in curve_figures.draw_worth(found).axes for text in axes.texts]
    assert drawn == [row["arm"] for row in sorted(facts["worth"]["arms"], key=lambda row: row["score"])]
    table = arms_section.worth(found)
    html_page.write_tables(tmp_path / "tables", [table], "tables")
    text = (tmp_path / "tables/worth.csv").read_text().splitlines()
    assert text[0] == "arm,images,score,score_low,score_high,worth,low,high" and len(text) == 6
    none = run_tables.Results(_empty(), _empty(), analysis, {"analysis": analysis})
    assert "No arm has fewer or more" in curve_figures.draw_worth(none).texts[0].get_text()


def _empty():
    columns = ("arm", "class", "metric", "level", "part", "repeat", "relation", "against")
    return run_tables.pd.DataFrame(columns=columns)


def test_stronger_augmentation_is_on_the_same_curve_and_map():
    own = [arm_settings.effective({"name": one, "method": one}, SECTION) for one in ("strong_augment", "real_only")]
    assert real_image_equivalent.common_settings(own[0]) == real_image_equivalent.common_settings(own[1])


@pytest.mark.parametrize("rises", [True, False])
def test_numbers_are_told_only_where_the_curve_rises(rises):
    row = {"arm": "mix", "score": 0.5, "worth": 340.0, "low": -20.0, "high": 900.0}
    facts = {"worth": {"points": [], "images": 400, "rises": rises, "arms": [row]}}
    names = ["arm", "relation", "metric", "level", "class", "against"]
    about = {"primary_arm": "mix", "baseline": "real", "metric": "map"}
    empty = pd.DataFrame({"arm": [], "class": []})
    [shown] = arms_section.worth(run_tables.Results(empty, pd.DataFrame(columns=names), about, facts)).rows
    assert [shown[end] for end in ("worth", "low", "high")] == ([340, -20, 900] if rises else [None] * 3)
