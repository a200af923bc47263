"""Arms of several label regimes: which may be paired, whose thresholds are whose, and beside what an arm is worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.arms_data import SECTION
from tests.helpers.worlds import ANALYSIS, World
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import arm_settings
from workflow_scripts.lib.judge import declaration, experiment, real_image_equivalent, scoring
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.wording import equivalents
from workflow_scripts.lib.page import run_tables
from workflow_scripts.lib.page.sections import arms_section
from workflow_scripts.lib.scores.prediction_file import Predictions, Scored, write_predictions

FEW = {"name": "few", "labelled": 0.5, "unlabelled": "seen", "selection": "same"}
ENTRIES = [
    {"name": "real_only", "method": "real_only", "regime": "all"},
    {"name": "real_few", "method": "real_only", "regime": "few"},
    {"name": "mix", "method": "pool", "regime": "few", "synthetic_set": "p", "baseline": "real_few"},
    {"name": "mix_all", "method": "pool", "regime": "all", "synthetic_set": "p"},
]
SKILLS = {"real_only": 2.6, "real_few": 1.2, "mix": 1.9, "mix_all": 2.6}
IMAGES = {"all": 400, "few": 100}


def halved(part: Scored) -> Scored:
    """The first half of the rows, whole groups of three images."""
    count = len(part) // 6 * 3
    return Scored(part.ids[:count], part.groups[:count], part.labels[:count], part.logits[:count])


def arms() -> dict[str, list[Predictions]]:
    """Predictions of all arms; those with few labels have half of the validation and calibration groups."""
    world, out = World(5, groups=160), {}
    for entry in ENTRIES:
        name, regime = entry["name"], entry["regime"]
        out[name] = world.arm(name, SKILLS[name], luck=0.2)
        for cell in out[name]:
            told = entry | {"regime": FEW} if regime == "few" else {k: v for k, v in entry.items() if k != "regime"}
            cell.settings = arm_settings.effective(told, SECTION)
            cell.numbers = {"real_images": IMAGES[regime], "real_groups": 10, "steps": 12}
            if regime == "few":
                cell.parts |= {part: halved(cell.parts[part]) for part in ("validation", "calibration")}
    return out


def written(folder: Path, cells: dict[str, list[Predictions]]) -> list[Path]:
    paths = []
    for name, folds in cells.items():
        for cell in folds:
            paths.append(folder / f"{name}-{cell.fold}.h5")
            write_predictions(paths[-1], cell)
    return paths


def test_arms_of_other_regimes_may_have_other_thresholds_but_not_other_tests(tmp_path: Path) -> None:
    cells, names = arms(), [entry["name"] for entry in ENTRIES]
    found = experiment.read_experiment(written(tmp_path, cells), names)
    fitted = found.thresholds_fitted_on()
    assert [(entry.get("regime"), entry["fold"], entry["arms"]) for entry in fitted] == [
        (None, 0, ["mix_all", "real_only"]), (None, 1, ["mix_all", "real_only"]),
        ("few", 0, ["mix", "real_few"]), ("few", 1, ["mix", "real_few"]),
    ]  # fmt: skip
    assert set(fitted[2]["ids"]) < set(fitted[0]["ids"])
    cells["mix"][1].parts["calibration"] = halved(cells["mix"][1].parts["calibration"])
    with pytest.raises(UserError, match=r"'real_few' and 'mix' .* differ in the ids of their calibration part"):
        experiment.read_experiment(written(tmp_path, cells), names)
    cells = arms()
    cells["mix"][0].parts["test"] = halved(cells["mix"][0].parts["test"])
    with pytest.raises(UserError, match=r"'real_only' and 'mix' .* differ in the ids of their test part"):
        experiment.read_experiment(written(tmp_path, cells), names)


@pytest.fixture(scope="module")
def told() -> dict:
    """What analysis.json says about the worth of these arms."""
    cells = arms()
    groups = sorted({str(name) for folds in cells.values() for cell in folds for part in cell.parts.values()
                     for name in part.groups})  # fmt: skip
    tested = experiment.Experiment(cells["mix"][0].classes, groups, cells)
    question = Question(ANALYSIS | {"draws": 200, "metric": "map", "primary_arm": "mix"}, ENTRIES, 1)
    run = scoring.score_experiment(question, tested, 1)
    return equivalents.report(real_image_equivalent.measure(run), question)


def test_an_arm_is_worth_images_beside_those_that_its_regime_labels(told: dict) -> None:
    assert [(point["arm"], point["images"]) for point in told["points"]] == [("real_few", 100), ("real_only", 400)]
    rows = {row["arm"]: row for row in told["arms"]}
    assert (rows["mix"]["beside"], rows["mix"]["regime"]) == (100, "few") and told["images"] == 100
    assert 0 < rows["mix"]["worth"] < 300, "between its own baseline and all labels"
    assert "beside the 100 labelled in the regime few" in told["sentence"]
    assert (rows["mix_all"]["beside"], rows["mix_all"]["regime"]) == (400, "")


def test_the_table_says_beside_how_many_images_each_arm_stands(told: dict) -> None:
    empty = run_tables.pd.DataFrame(columns=["arm", "relation", "against"])
    table = arms_section.worth(run_tables.Results(empty, empty, ANALYSIS, {"worth": told}))
    assert [column.key for column in table.columns][:4] == ["arm", "images", "score", "beside"]
    assert {row["arm"]: row.get("beside") for row in table.rows if "worth" in row} == {"mix": 100, "mix_all": 400}


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((0, 0, 0), "Pool was worth fewer real images than the 100 that it has; an arm of fewer would tell."),
        ((130, 0, 200), "Pool was worth not more than 100 more real images beside the 100 labelled in the regime few "
                        "(95 % interval: fewer than it has to 100 more)."),
    ],
)  # fmt: skip
def test_below_the_smallest_regime_nothing_is_known(ends: tuple, said: str) -> None:
    assert equivalents.sentence("pool", ends, (100, 100, 400), 0.95, "few") == said


def test_the_comparison_with_another_regime_shares_no_error_rate() -> None:
    analysis = ANALYSIS | {"primary_arm": "mix"}
    question = Question(analysis, ENTRIES, 1)
    assert {pair.arm for pair in question.family_pairs()} == {"mix", "mix_all"}
    assert [(pair.arm, pair.against) for pair in question.outside_pairs()] == [("real_few", "real_only")]
    assert declaration.family(ANALYSIS | {"primary_arm": "real_few"}, ENTRIES) == ["mix", "mix_all", "real_few"]
    alone = replace(question, arms=[entry for entry in ENTRIES if entry["name"] != "mix"])
    assert {pair.arm for pair in alone.family_pairs()} == {"mix_all"}, "it is a baseline though nothing rests on it"
