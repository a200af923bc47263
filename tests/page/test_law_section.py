"""The break-even law on the page: its points come from map, comparisons and fidelity; chance predicts nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.judge.test_break_even import PLANTED, planted
from workflow_scripts.lib.page.run_tables import Results
from workflow_scripts.lib.page.sections import fidelity_section, law_section

FRACTIONS = {"twentieth": 0.05, "tenth": 0.1, "quarter": 0.25, "half": 0.5, "all": 1}


def made(law: dict[str, float], noise: float) -> tuple[Results, dict, dict]:
    """A run whose arms follow a planted law, its config, and the divergences of its synthetic sets."""
    arms, rows, divergences, regimes = [], [], {}, {}
    for number, point in enumerate(planted(noise, 1, law)):
        name, saw = f"arm{number}", "labelled" if point.seen == point.labelled else "unlabelled"
        divergences[f"set{number}"] = point.divergence
        arms.append({"name": name, "synthetic_set": f"set{number}"})
        regime = regimes.setdefault(point.regime, {"regime": point.regime, "groups": point.labelled, "generated": {}})
        regime["generated"].setdefault(saw, []).append(name)
        rows.append({"arm": name, "relation": "baseline", "against": "real", "difference": point.gain})
    about = {"metric": "map", "level": "image", "class": "", "low": 0.0, "high": 0.0, "low_single": 0.0}
    table = pd.DataFrame(rows).assign(**about, high_single=0.0, standing="", verdict="")
    facts = {"map": {"regimes": list(regimes.values())}}
    config = {"arms": arms, "regimes": [{"name": name, "labelled": part} for name, part in FRACTIONS.items()]}
    return Results(pd.DataFrame(), table, {"metric": "map", "confidence": 0.95}, facts), config, divergences


def test_the_points_are_the_generated_arms_by_what_they_saw() -> None:
    results, config, divergences = made(PLANTED, 0)
    points, wanted = law_section.law_points(results, config, divergences), planted(0, 1)
    assert points == wanted
    assert law_section.law_points(results, config | {"data": {"unlabelled": {"images": "x"}}}, divergences) == []
    divergences.pop("set3")
    assert len(law_section.law_points(results, config, divergences)) == len(wanted) - 1, "its images were not assessed"


def test_a_law_that_held_predicts_and_says_that_it_is_a_prediction() -> None:
    found = law_section.read(*made(PLANTED, 0.01), "protein")
    assert set(found["tables"]) == {"law", "law_predictions"}
    said, more = found["sentences"]
    assert "30 generated arms of 5 regimes" in said and "it predicts a gain below about" in more
    table = found["tables"]["law_predictions"]
    assert "prediction" in table.caption and "not measurements" in table.note
    row = table.rows[0]
    truth = 0.3 - 0.1 * row["divergence"] - 0.2 * np.log10(20) + 0.08 * np.log10(20)
    assert (row["labelled"], row["seen"]) == (20, 20) and row["gain"][1] < truth < row["gain"][2]


def test_where_the_law_is_chance_nothing_is_predicted() -> None:
    found = law_section.read(*made(dict.fromkeys(PLANTED, 0.0), 0.05), "protein")
    assert set(found["tables"]) == {"law"} and "nothing is predicted" in found["sentences"][1]


def test_a_run_without_a_map_has_no_law() -> None:
    assert law_section.read(Results(pd.DataFrame(), pd.DataFrame(), {}, {}), {}, {}, "protein") is None


def test_divergences_are_means_over_folds_of_the_distance_of_all_images(tmp_path) -> None:
    placed = []
    for fold, value in enumerate((0.2, 0.4, 7.0)):
        rows = [
            ("all", "frechet", "generated", value),
            ("all", "frechet", "floor", 9),
            ("class", "frechet", "generated", 9),
        ]
        table = pd.DataFrame(rows, columns=["scope", "measure", "contender", "value"]).assign(
            low="", high="", encoder="x", too_small=fold == 2
        )
        table.to_csv(tmp_path / f"{fold}.csv", index=False)
        placed.append(("own", tmp_path / f"{fold}.csv"))
    assert fidelity_section.divergences(placed) == pytest.approx({"own": 0.3})
