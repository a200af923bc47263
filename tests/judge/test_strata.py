"""strata.csv: the primary question within cell lines and tiers of reliability, beside a plain loop."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score

from tests.helpers import judging
from tests.helpers.worlds import ANALYSIS, ARMS, CLASSES
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.judge import experiment, fixed_scoring, scoring, strata
from workflow_scripts.lib.judge.analysis_choices import METRICS
from workflow_scripts.lib.judge.fixed_scoring import Decided
from workflow_scripts.lib.judge.fold_scores import ScoredRows
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.thresholds import Rule, decisions
from workflow_scripts.lib.scores.prediction_file import read_predictions

PLACES = [(0, 0), (0, 1), (1, 0), (1, 1)]
NUMBERS = ["score", "score_against", "difference", "low", "high", "se", "p", "q"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two repeats of three arms, their cell lines and tiers; the third line has few groups, some images none."""
    folder = tmp_path_factory.mktemp("strata")
    world = judging.write_world(folder, repeats=2, skills=(1.0, 2.5, 1.0), groups=90)
    count = len(world.owner)
    line = np.array(["<b>A</b>", "line, B", ""])[(np.arange(count) + world.owner) % 3].astype(object)
    line[world.owner < 3] = "rare"
    tier = np.array(["enhanced", "approved"])[world.owner % 2]
    columns = {"cell_line": line, "reliability": tier, "gene": world.owner.astype(str), "plate": tier}
    with write_images(folder / "set.hdf5", ["green"], CLASSES, 4) as writer:
        # In another order than the predictions have.
        order = np.random.default_rng(0).permutation(count)
        ids = [f"image{row:05d}" for row in order]
        blank, labels = np.zeros((count, 1, 4, 4)), world.labels[order]
        writer.append(blank, labels, ids, ids, {name: list(values[order]) for name, values in columns.items()})
    return folder


def judge(folder, out="out", level="image", **changes) -> pd.DataFrame:
    """strata.csv of the judging."""
    more = ["--images", str(folder / "set.hdf5"), "--strata", str(folder / out / "strata.csv")]
    before = judging.aggregate_metrics.main
    try:
        judging.aggregate_metrics.main = lambda argv: before([*argv, *more])
        assert judging.run(folder, out=out, level=level, **changes) == 0
    finally:
        judging.aggregate_metrics.main = before
    return pd.read_csv(folder / out / "strata.csv", keep_default_na=False, na_values={name: [""] for name in NUMBERS})


def naive(folder, arm: str, value: str, level: str, classes: list[int]) -> tuple[float, float]:
    """Macro-F1 and mAP of an arm in a cell line, by loops and scikit-learn."""
    lines = dict(zip(*columns(folder), strict=True))
    thresholds = pd.read_csv(folder / "out" / "thresholds", keep_default_na=False)
    f1, maps = [], []
    for repeat in (0, 1):
        truth, said, in_folds = [], [], []
        for fold in (0, 1):
            part = read_predictions(folder / f"{arm}-{repeat}-{fold}.h5").parts["test"]
            rows = [i for i, name in enumerate(part.ids) if lines[name] == value]
            scores, labels, groups = part.probabilities[rows], part.labels[rows], part.groups[rows]
            if level == "protein":
                names = sorted(set(groups))
                scores = np.stack([scores[groups == name].mean(axis=0) for name in names])
                labels = np.stack([labels[groups == name].max(axis=0) for name in names])
            own = thresholds.query("arm == @arm and repeat == @repeat and fold == @fold and level == @level")
            cuts = own.set_index("class").loc[CLASSES, "threshold"].to_numpy()
            truth.append(labels)
            said.append(scores >= cuts)
            known = [k for k in classes if labels[:, k].any()]
            in_folds.append({k: average_precision_score(labels[:, k], scores[:, k]) for k in known})
        truth, said = np.concatenate(truth)[:, classes], np.concatenate(said)[:, classes]
        f1.append(f1_score(truth, said, average="macro"))
        maps.append(np.mean([np.mean([fold[k] for fold in in_folds if k in fold]) for k in classes]))
    return float(np.mean(f1)), float(np.mean(maps))


def columns(folder):
    with strata.ImageSet(folder / "set.hdf5") as source:
        return source.ids, source.column("cell_line")


@pytest.mark.parametrize("level", ["protein", "image"])
def test_numbers_are_those_of_a_plain_loop(folder, level):
    table = judge(folder, level=level)
    known = table[(table["column"] == "cell_line") & table["judged"]]
    assert set(known["stratum"]) == {"<b>A</b>", "line, B"}, "unknown ones are no stratum"
    for value, rows in known.groupby("stratum"):
        classes = judged_in(folder, value)
        assert set(rows["classes"]) == {len(classes)}
        scores = {arm["name"]: naive(folder, arm["name"], value, level, classes) for arm in ARMS}
        for row in rows.to_dict("records"):
            at = METRICS.index(row["metric"])
            expected = scores[row["arm"]][at], scores[row["against"]][at]
            assert (row["score"], row["score_against"]) == pytest.approx(expected, abs=1e-6)
            assert row["difference"] == pytest.approx(expected[0] - expected[1], abs=1e-6)
            assert row["low"] < row["difference"] < row["high"]
            assert row["level"] == level
    gain = known.query("arm == 'mix' and relation == 'baseline' and metric == 'map'")
    assert (gain["difference"] > 0).all() and set(gain["verdict"]) == {"helps"}


def judged_in(folder, value: str) -> list[int]:
    """Classes with five positive groups or more among the test images of a line, in each repeat."""
    lines = dict(zip(*columns(folder), strict=True))
    owners: list[set] = [set() for _ in CLASSES]
    for fold in (0, 1):
        part = read_predictions(folder / f"mix-0-{fold}.h5").parts["test"]
        for name, group, row in zip(part.ids, part.groups, part.labels, strict=True):
            for k in np.flatnonzero(row):
                owners[k] |= {group} if lines[name] == value else set()
    return [k for k, groups in enumerate(owners) if len(groups) >= ANALYSIS["minimum_positive_groups"]]


def test_strata_of_few_groups_are_listed_and_not_judged(folder):
    table = judge(folder)
    rare = table[table["stratum"] == "rare"]
    assert len(rare) == 1 and not rare.iloc[0]["judged"]
    assert "5 needed" in rare.iloc[0]["reason"]
    assert np.isnan(rare.iloc[0]["difference"]) and rare.iloc[0]["verdict"] == ""
    assert list(table.columns) == strata.COLUMNS
    assert set(table["repeats"]) == {2}
    assert set(table["column"]) == {"cell_line", "reliability"}, "other columns are no strata"


def test_false_discoveries_are_counted_over_all_strata(folder):
    table = judge(folder)
    table = table[table["judged"]]
    for _, rows in table.groupby(["metric", "relation"]):
        q = stats.false_discovery_control(rows["p"].to_numpy())
        assert rows["q"].to_numpy() == pytest.approx(q, abs=1e-8)
        assert ((rows["verdict"] == "inconclusive") == (q > 0.05)).all()


def kish(owners: np.ndarray) -> float:
    """Effective number of groups of these rows."""
    sizes = np.unique(owners, return_counts=True)[1]
    return sizes.sum() ** 2 / (sizes**2).sum()


def test_draws_are_those_of_weighted_rows():
    """Each draw is the score of rows weighted by their groups, drawn apart by the factor for few groups."""
    rng = np.random.default_rng(4)
    cells = []
    for repeat, fold in PLACES:
        labels = rng.random((60, 3)) < [0.5, 0.3, 0.2]
        groups = rng.integers(10 * fold, 10 * fold + 10, 60)
        cells.append(
            Decided(repeat, fold, ScoredRows(rng.random(labels.shape), labels, groups), np.array([0.4, 0.5, 0.6]))
        )
    weights = scoring.group_weights(3, 20, 4)
    found = fixed_scoring.score(cells, "calibrated", weights, np.array([True, False, True]))
    for b in range(4):
        for repeat in (0, 1):
            mine, f1, ap = [cell for cell in cells if cell.repeat == repeat], [], []
            for k in (0, 2):
                truth, scores = (
                    np.concatenate([getattr(cell.rows, name)[:, k] for cell in mine]) for name in ("labels", "scores")
                )
                owner = np.concatenate([cell.rows.groups for cell in mine])
                said = scores >= mine[0].thresholds[k]
                plain, drawn = (
                    f1_score(truth, said, sample_weight=w) for w in (np.ones(len(owner)), weights[owner, b])
                )
                n = kish(owner[truth])
                f1.append(plain + np.sqrt((n + 1) / (n - 1)) * (drawn - plain))
                for cell in mine:
                    own, n = cell.rows, kish(cell.rows.groups[cell.rows.labels[:, k]])
                    plain, drawn = (
                        average_precision_score(own.labels[:, k], own.scores[:, k], sample_weight=w)
                        for w in (np.ones(60), weights[own.groups, b])
                    )
                    ap.append(plain + np.sqrt((n + 1) / (n - 1)) * (drawn - plain))
            assert found.draws["macro_f1"][repeat, b] == pytest.approx(np.mean(f1), abs=1e-5)
            assert found.draws["map"][repeat, b] == pytest.approx(np.mean(ap), abs=1e-5)


def test_half_or_largest_says_something_of_every_row():
    table = ScoredRows(np.array([[0.2, 0.3], [0.6, 0.7]]), np.zeros((2, 2), dtype=bool), np.arange(2))
    half = np.array([0.5, 0.5])
    assert decisions(table, half, "half_or_largest").tolist() == [[False, True], [True, True]]
    assert decisions(table, half, "half").tolist() == [[False, False], [True, True]]


def test_without_columns_there_is_an_empty_table_and_foreign_images_are_refused(folder, tmp_path):
    found = experiment.read_experiment(sorted(folder.glob("*.h5")), [arm["name"] for arm in ARMS])
    with strata.ImageSet(folder / "set.hdf5") as source:
        ids, labels = list(source.ids), source.labels(None, "inspect")
    blank = np.zeros((len(ids), 1, 4, 4))
    with write_images(tmp_path / "bare.hdf5", ["green"], CLASSES, 4) as writer:
        writer.append(blank, labels, ids, ids, {"cell_line": ["one"] * len(ids)})
    assert strata.known_columns(tmp_path / "bare.hdf5", found) == {}
    run = scoring.score_experiment(Question(ANALYSIS | {"draws": 20}, ARMS, 1), found, 1)
    assert strata.compare_within_strata(run, tmp_path / "bare.hdf5") == []
    with write_images(tmp_path / "other.hdf5", ["green"], CLASSES, 4) as writer:
        writer.append(blank[:5], labels[:5], ids[:5], ids[:5], {"cell_line": list("aabbb")})
    with pytest.raises(strata.UserError, match=r"other\.hdf5 has no image 'image"):
        strata.known_columns(tmp_path / "other.hdf5", found)


def test_a_line_is_judged_by_the_repeats_that_test_it():
    """Four cell lines that are left out in turn, one in a repeat."""
    question = Question(ANALYSIS, ARMS, 1)

    def fold(repeat: int, skill: float) -> Decided:
        rng, owner = np.random.default_rng(repeat), np.arange(150) // 3
        labels = (rng.random((50, 2)) < 0.4)[owner]
        scores = 1 / (1 + np.exp(-(skill * (labels - 0.5) + rng.normal(0, 1, labels.shape))))
        return Decided(repeat, 0, ScoredRows(scores, labels, owner + 50 * repeat), np.full(2, 0.5))

    decided = {
        arm["name"]: [fold(repeat, skill) for repeat in range(4)] for arm, skill in zip(ARMS, (1, 3, 1), strict=True)
    }
    run = SimpleNamespace(question=question, rule=Rule("calibrated", 10), judged=np.ones(2, dtype=bool))
    weights = scoring.group_weights(1, 200, 100)
    for line in range(4):
        inside = [np.full(150, repeat == line) for repeat in range(4)]
        rows = strata._stratum_rows(run, decided, inside, weights)
        assert all(row["judged"] and (row["images"], row["groups"]) == (150, 50) for row in rows)
