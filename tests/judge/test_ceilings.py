"""Ceilings, the learning curve over real images and what arms are worth on it, budgets: who reads what, and sums."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.config.test_check import arm, checked, synthetic_set
from tests.helpers.arms_data import CHANNELS, CLASSES, ENTRIES, SECTION, SIZE, cells
from tests.helpers.worlds import ANALYSIS, World
from workflow_scripts import certify_leaks, make_folds, plot_arms, sample_simulator, train_classifier
from workflow_scripts.lib.classify import arm_choices
from workflow_scripts.lib.config import check
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.images.access_record import Provenance
from workflow_scripts.lib.images.image_set import ImageSet, write_images
from workflow_scripts.lib.judge import comparisons, declaration, experiment, inference, real_image_equivalent, wording
from workflow_scripts.lib.judge.scoring import Rule
from workflow_scripts.lib.page import html_page, run_tables
from workflow_scripts.lib.page.sections import arms_section
from workflow_scripts.lib.scores import prediction_file
from workflow_scripts.lib.simulate import simulator
from workflow_scripts.lib.split import assignment, role_table

FRACTIONS = {"test": 0.2, "calibration": 0.1, "validation": 0.1, "reserve": 0.15, "reserve_same": 0.1, "lockbox": 0.0}


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """300 images of 60 groups of different sizes."""
    path = tmp_path_factory.mktemp("labelled") / "images.h5"
    rng = np.random.default_rng(1)
    member = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 10, 60))[:300])
    labels = np.stack([member % 2 == 0, member % 3 == 0, member % 5 == 0], axis=1)
    with write_images(path, ["green"], ["a", "b", "c"], 4) as writer:
        count = len(member)
        groups = [f"g{number:02d}" for number in member]
        writer.append(np.zeros((count, 1, 4, 4)), labels, [f"i{row:03d}" for row in range(count)], groups)
    return path


def roles_of(images, tmp_path, name="folds.csv", **fractions) -> np.ndarray:
    given = {"folds": 2, "fractions": FRACTIONS | fractions, "stratify_by": None, "leave_out": None, "roles_from": None}
    line = ["--images", str(images), "--out", str(tmp_path / name), "--repeat", "0", "--seed", "1"]
    assert make_folds.main([*line, "--settings", json.dumps(given), "--log", str(tmp_path / "log")]) == 0
    with ImageSet(images) as source:
        return np.stack([role_table.read(tmp_path / name, fold, source.ids) for fold in range(2)], axis=1)


def test_reserve_has_groups_of_its_own_and_reserve_same_images_of_train_groups(labelled, tmp_path) -> None:
    roles = roles_of(labelled, tmp_path)
    with ImageSet(labelled) as source:
        groups, count = source.groups, len(source)
    for own in roles.T:
        holders = {role: set(groups[own == role]) for role in np.unique(own.astype(str))}
        same = holders.pop("reserve_same")
        assert same < holders["train"], "every group that gives images keeps one"
        assert sum(map(len, holders.values())) == len(set(groups)), "no group has two other roles"
        assert (own == "reserve_same").sum() == round(0.1 * count)
        assert (own == "reserve").sum() == pytest.approx(0.15 * count, abs=8)
        # Groups give in proportion: none is emptied while another gives nothing of as many.
        left, given = (
            np.array([((own == role) & (groups == name)).sum() for name in same]) for role in ("train", "reserve_same")
        )
        assert (given / (given + left) < 0.75).all()
    without = roles_of(labelled, tmp_path, "without.csv", reserve_same=0.0)
    assert np.array_equal(np.where(roles == "reserve_same", "train", roles), without), "nobody else is moved"
    assert np.array_equal(roles, roles_of(labelled, tmp_path, "again.csv"))


def test_more_than_train_groups_can_spare_is_told(labelled, tmp_path, capsys) -> None:
    roles = roles_of(labelled, tmp_path, reserve_same=0.5)
    with ImageSet(labelled) as source:
        for own in roles.T:
            kept = own == "train"
            assert len(set(source.groups[kept])) == kept.sum(), "one image of each group is left"
    assert "make_folds.fractions.reserve_same" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no train group has an image to spare"):
        assignment.keep_aside(np.array(["train", "test"], dtype=object), np.array([0, 1]), 0.5, 1)


def test_smaller_shares_of_groups_lie_within_larger_ones_and_keep_the_classes() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 9, 160)
    counts = (rng.random((160, 4)) < [0.5, 0.3, 0.15, 0.1]) * sizes[:, None]
    chosen = {fraction: assignment.nested(counts, sizes, fraction, 7) for fraction in (0.1, 0.125, 0.25, 0.5, 0.7, 1)}
    for (less, small), (more, large) in zip(list(chosen.items())[:-1], list(chosen.items())[1:], strict=True):
        assert (small <= large).all() and less < more
        assert small.sum() == round(less * 160)
    assert chosen[1].all()
    for fraction in (0.25, 0.5):
        part = counts[chosen[fraction]].sum(axis=0) / counts.sum(axis=0)
        assert np.allclose(part, fraction, atol=0.12), "every class has its fraction"
    assert (assignment.nested(counts, sizes, 0.5, 8) != chosen[0.5]).any()


# --- who reads what --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A fold with both kinds of reserve, and arms trained on it; every third image of train groups is kept aside."""
    folder = tmp_path_factory.mktemp("trained")
    images, labels = cells(120, 1)
    groups = np.array([f"g{index // 6:02d}" for index in range(120)])
    cycle = ("train", "train", "reserve", "validation", "calibration", "test")
    roles = np.array([cycle[index // 6 % 6] for index in range(120)], dtype=object)
    roles[(roles == "train") & (np.arange(120) % 3 == 0)] = "reserve_same"
    with write_images(folder / "images.h5", CHANNELS, CLASSES, SIZE, {"grouped_by": "gene"}) as writer:
        writer.append(images, labels, [f"i{index:03d}" for index in range(120)], list(groups))
    with ImageSet(folder / "images.h5") as source:
        role_table.write(folder / "folds.csv", source.ids, source.groups, roles[:, None])
        record = Provenance(source.digest, 120)
    record.record("fit", np.flatnonzero(roles == "train"))
    made, wanted = cells(30, 2)
    about = {"provenance": record.to_json(), "repeat": 0, "fold": 0}
    with write_images(folder / "syn.h5", CHANNELS, CLASSES, SIZE, about) as writer:
        writer.append(made, wanted, [f"syn-{index}" for index in range(30)], ["synthetic"] * 30)
    entries = [
        ENTRIES["real_only"], {"name": "half", "method": "real_only", "real_fraction": 0.5}, ENTRIES["more_real"],
        ENTRIES["more_real_same"], {"name": "more_planned", "method": "more_real", "synthetic_set": "p"}, ENTRIES["pool"],
    ]  # fmt: skip
    given = {"arms": entries, "train_classifier": SECTION | {"steps": 3}, "threads": 1}
    line = ["--images", str(folder / "images.h5"), "--folds", str(folder / "folds.csv"), "--repeat", "0", "--fold", "0"]
    line += ["--synthetic", f"p={folder / 'syn.h5'}", "--arms-dir", str(folder / "arms"), "--seed", "1"]
    line += ["--manifest", str(folder / "arms/job0.json"), "--settings", json.dumps(given)]
    assert train_classifier.main([*line, "--log", str(folder / "log")]) == 0
    return folder, roles, groups


def of(folder, name):
    return prediction_file.read_predictions(folder / "arms" / name / "predictions.h5")


def test_only_more_real_reads_reserve(trained) -> None:
    folder, roles, groups = trained
    rows = {name: set(np.flatnonzero(roles == name)) for name in np.unique(roles.astype(str))}
    fitted = {}
    for name in ("real_only", "half", "more_real", "more_real_same", "more_planned", "pool"):
        found = of(folder, name)
        fitted[name] = set(Provenance.from_json(found.provenance).of("fit"))
        assert found.numbers["synthetic_seen"] == (12 if name == "pool" else 0)
        assert found.numbers["steps"] == 3
    assert fitted["real_only"] == fitted["pool"] == rows["train"]
    assert fitted["more_real"] == fitted["more_planned"] == rows["train"] | rows["reserve"]
    assert fitted["more_real_same"] == rows["train"] | rows["reserve_same"]
    assert fitted["half"] < rows["train"]
    kept = groups[sorted(fitted["half"])]
    assert len(set(kept)) == 4 and set(np.flatnonzero(np.isin(groups, kept) & (roles == "train"))) == fitted["half"]
    for name, images in fitted.items():
        numbers = of(folder, name).numbers
        assert numbers["real_images"] == len(images)
        assert numbers["real_groups"] == len(set(groups[sorted(images)]))


def certify(folder, artefacts=()) -> tuple[int, str]:
    line = [
        "--images",
        str(folder / "images.h5"),
        "--folds",
        f"0={folder / 'folds.csv'}",
        "--out",
        str(folder / "leaks.csv"),
    ]
    line += ["--artefacts", *map(str, artefacts or [folder / "arms/job0.json", folder / "syn.h5"])]
    given = json.dumps({"violations": [], "encoder": "baseline"})
    return certify_leaks.main([*line, "--settings", given, "--log", str(folder / "log")])


def test_the_certificate_lets_more_real_have_its_reserve(trained) -> None:
    assert certify(trained[0]) == 0


@pytest.mark.parametrize(
    ("method", "role"),
    [
        ("real_only", "reserve"), ("real_only", "reserve_same"), ("more_real", "reserve_same"),
        ("more_real_same", "reserve"), ("more_real", "validation"), ("unheard_of", "reserve"),
    ],
)  # fmt: skip
def test_and_nobody_else(trained, tmp_path, capsys, method, role) -> None:
    folder, roles, _ = trained
    arm = of(folder, "real_only")
    record = Provenance.from_json(arm.provenance)
    record.record("fit", np.flatnonzero(roles == role)[:1])
    arm.provenance, arm.settings = record.to_json(), arm.settings | {"method": method}
    prediction_file.write_predictions(tmp_path / "sly.h5", arm)
    (tmp_path / "batch.json").write_text(json.dumps({"arms": [{"arm": "real_only", "predictions": "sly.h5"}]}))
    assert certify(folder, [tmp_path / "batch.json"]) == 1
    assert "LEAK: arm real_only (repeat 0, fold 0), purpose 'fit': 1 images" in capsys.readouterr().err


def test_a_generator_must_not_know_the_reserve(trained, tmp_path, capsys) -> None:
    folder, roles, _ = trained
    with ImageSet(folder / "syn.h5") as made:
        record = made.inherited()
    record.record("fit", np.flatnonzero(roles == "reserve_same")[:2])
    about = {"provenance": record.to_json(), "repeat": 0, "fold": 0}
    with write_images(tmp_path / "syn.h5", CHANNELS, CLASSES, SIZE, about) as writer:
        writer.append(cells(3, 2)[0], cells(3, 2)[1], ["a", "b", "c"], ["synthetic"] * 3)
    assert certify(folder, [tmp_path / "syn.h5"]) == 1
    # Their groups are those of train images: the images are the leak, the groups are not.
    assert "2 images of 0 groups that are not train" in capsys.readouterr().err


# --- the true generator ----------------------------------------------------------------------------------------------


def simulated_settings() -> dict:
    return checked({})["simulate_cells"]


def test_fresh_cells_show_what_is_asked_for_and_are_of_new_proteins() -> None:
    rng = np.random.default_rng(3)
    wanted = rng.random((90, len(simulator.COMPARTMENTS))) < 0.2
    wanted[~wanted.any(axis=1), 0] = True
    given = simulated_settings() | {"size": 16, "images": 5}
    found, genes, rows = np.zeros_like(wanted), [], []
    for which, batch in simulator.as_asked(given, 1, 12345, wanted):
        found[which] = batch.true
        rows += list(which)
        genes += list(batch.genes)
    assert sorted(rows) == list(range(90)) and np.array_equal(found, wanted)
    assert len(set(genes)) == 90, "each of a protein of its own"
    run = {gene for batch in simulator.simulate(given | {"images": 40, "genes": 20}, 1) for gene in batch.genes}
    assert run.isdisjoint(genes)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A little simulated image set with its folds."""
    folder = tmp_path_factory.mktemp("simulated")
    given = simulated_settings() | {"size": 16, "images": 60, "genes": 20}
    batches = list(simulator.simulate(given, 1))
    classes = list(simulator.COMPARTMENTS)
    with write_images(folder / "images.h5", ["red", "green"], classes, 16) as writer:
        for batch in batches:
            writer.append(batch.images[:, :2], batch.labels, list(batch.ids), list(batch.genes))
    with ImageSet(folder / "images.h5") as source:
        roles = np.where(np.isin(source.groups, np.unique(source.groups)[::2]), "train", "test").astype(object)
        role_table.write(folder / "folds.csv", source.ids, source.groups, roles[:, None])
    return folder, given


def sample(folder, given, out, images="images.h5", **synthetic_set) -> int:
    synthetic_set = {"name": "true_cells", "generator": "simulator", "labels": "as_train", "count": 30} | synthetic_set
    line = ["--images", str(folder / images), "--folds", str(folder / "folds.csv"), "--repeat", "0", "--fold", "0"]
    line += [
        "--seed",
        "1",
        "--out",
        str(out),
        "--settings",
        json.dumps({"synthetic_set": synthetic_set, "simulate_cells": given}),
    ]
    return sample_simulator.main([*line, "--log", str(folder / "log")])


def test_a_set_of_the_simulator_is_a_synthetic_set(small_run, tmp_path) -> None:
    folder, given = small_run
    assert sample(folder, given, tmp_path / "one.h5") == sample(folder, given, tmp_path / "two.h5") == 0
    assert sample(folder, given, tmp_path / "other.h5", name="more_cells") == 0
    read = {}
    for name in ("one", "two", "other"):
        with ImageSet(tmp_path / f"{name}.h5") as made, ImageSet(folder / "images.h5") as real:
            read[name] = made.read(None, "inspect")
            assert (made.channels, made.classes, made.size) == (real.channels, real.classes, 16)
            train = role_table.rows(folder / "folds.csv", 0, real.ids, "train")
            assert np.array_equal(made.inherited().of("fit"), train)
            known, pictures = real.labels(train, "inspect"), real.read(None, "inspect").images
    assert len(read["one"]) == 30 and np.array_equal(read["one"].images, read["two"].images)
    assert not np.array_equal(read["one"].images, read["other"].images)
    codes = {tuple(row) for row in known}
    assert {tuple(row) for row in read["one"].labels} <= codes
    same = (read["one"].images[:, None] == pictures[None]).all(axis=(2, 3, 4))
    assert not same.any(), "none of them is an image of the run"


def test_what_the_simulator_cannot_draw_is_told(small_run, tmp_path, capsys) -> None:
    folder, given = small_run
    assert sample(folder, given, tmp_path / "x.h5", sampler="ddim") == 1
    assert "generator simulator has no use for sampler" in capsys.readouterr().err
    with write_images(tmp_path / "other.h5", ["red"], ["a"], 16) as writer:
        writer.append(np.zeros((1, 1, 16, 16)), np.ones((1, 1)), ["i"], ["g"])
    assert sample(folder, given, tmp_path / "x.h5", images=tmp_path / "other.h5") == 1
    assert "other classes than the simulator draws" in capsys.readouterr().err
    assert not (tmp_path / "x.h5").exists()


# --- the curve -------------------------------------------------------------------------------------------------------

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
    text = real_image_equivalent.sentence("pool", ends, (100, 400, most), 0.95)
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
            cell.settings = arm_choices.effective(entry, SECTION)
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
    weights = inference.group_weights(1, len(groups), 200)
    every = np.ones(len(world.classes), dtype=bool)
    rule = Rule("calibrated", 10, True)
    summaries = comparisons.summarise_all(found, lambda name: tested.cells(name, "image"), rule, weights, every, 1)
    return tested, summaries, analysis, entries


def test_arms_of_the_same_settings_are_placed_on_the_curve(judged) -> None:
    tested, summaries, analysis, entries = judged
    found = real_image_equivalent.measured(tested, summaries, analysis, entries, 1)
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
    json.dumps(wording.plain(found), allow_nan=False)


def test_a_curve_that_is_not_shown_to_rise_tells_nothing(judged) -> None:
    tested, summaries, analysis, entries = judged
    flat = summaries | {"more_real": summaries["quarter"]}
    found = real_image_equivalent.measured(tested, flat, analysis, entries, 1)
    assert not found["rises"]
    assert found["sentence"].endswith("cannot be told: with 100 to 1,600 the score is not shown to rise.")


def test_nothing_is_said_without_a_curve(judged) -> None:
    tested, summaries, analysis, entries = judged
    few = [entry for entry in entries if entry["name"] in ("real_only", "mix")]
    kept = {name: cells for name, cells in tested.arms.items() if name in ("real_only", "mix")}
    assert (
        real_image_equivalent.measured(
            experiment.Experiment(tested.classes, tested.groups, kept), summaries, analysis, few, 1
        )
        is None
    )


def test_figure_and_table(judged, tmp_path) -> None:
    tested, summaries, analysis, entries = judged
    facts = {
        "worth": wording.plain(real_image_equivalent.measured(tested, summaries, analysis, entries, 1)),
        "analysis": analysis,
    }
    found = run_tables.Results(_empty(), _empty(), analysis, facts)
    drawn = [text.get_text() for axes in plot_arms.draw_worth(found).axes for text in axes.texts]
    assert drawn == [row["arm"] for row in sorted(facts["worth"]["arms"], key=lambda row: row["score"])]
    table = arms_section.worth(found)
    html_page.write_tables(tmp_path / "tables", [table], "tables")
    text = (tmp_path / "tables/worth.csv").read_text().splitlines()
    assert text[0] == "arm,images,score,score_low,score_high,worth,low,high" and len(text) == 6
    none = run_tables.Results(_empty(), _empty(), analysis, {"analysis": analysis})
    assert "No arm has fewer or more" in plot_arms.draw_worth(none).texts[0].get_text()


def _empty():
    columns = ("arm", "class", "metric", "level", "part", "repeat", "relation", "against")
    return run_tables.pd.DataFrame(columns=columns)


# --- budgets ---------------------------------------------------------------------------------------------------------


def steps_of(method: str, **options) -> int:
    return arm_choices.effective(ENTRIES[method] | options, SECTION | {"steps": 100})["steps"]


def test_a_budget_multiplies_the_steps() -> None:
    assert steps_of("pool") == 100 and steps_of("pool", budget=1.5) == 150
    # A batch of 8 at ratio 1 has four real images, at ratio 3 two; pairs have a half.
    assert steps_of("pool", budget="equal_exposures") == 200
    assert steps_of("robust", budget="equal_exposures", ratio=3.0) == 400
    assert steps_of("mix_loss", budget="equal_exposures") == 200
    assert steps_of("real_only", budget="equal_exposures") == 100
    for method in ("anneal", "pretrain_finetune", "synthetic_only"):
        problem = arm_choices.problem(ENTRIES[method] | {"budget": "equal_exposures"}, SECTION, CHANNELS)
        assert "equal_exposures" in problem and method in problem


def test_a_control_has_the_same_budget() -> None:
    known = {"c": ENTRIES["resample_real"] | {"name": "c", "budget": 2}}
    entry = ENTRIES["pool"] | {"control": "c"}
    assert "another budget: 2 instead of 1" in declaration.control_problem(entry, known, SECTION, "real_only")
    assert declaration.control_problem(entry | {"budget": 2}, known, SECTION, "real_only") is None


def test_unequal_steps_and_trials_are_told() -> None:
    entries = [ENTRIES["real_only"], ENTRIES["resample_real"] | {"budget": 2}]
    entries.append(ENTRIES["pool"] | {"budget": 2, "control": "resample_real", "trials": 6})

    def told(entries) -> str:
        return " ".join(
            declaration.unequal(
                {arm["name"]: arm_choices.effective(arm, SECTION) for arm in entries}, entries, "real_only"
            )
        )

    assert "More optimiser steps than real_only (12), their baseline: resample_real, pool." in told(entries)
    assert (
        "More settings of pool were tried on the validation part (6) than of resample_real (0) and real_only (0)"
        in told(entries)
    )
    long = {"name": "long", "method": "real_only", "budget": 2}
    fair = [entry | {"trials": 6} for entry in [*entries, long]]
    # An arm as long is no baseline of theirs by being there.
    assert "More optimiser steps than real_only (12)" in told(fair)
    beside = [entry | {"baseline": "long"} if entry.get("budget") else entry for entry in fair[:2]]
    assert told([*beside, fair[2] | {"baseline": "long"}, fair[3]]) == ""


def test_trials_are_declared_and_do_not_retrain() -> None:
    entries = [{"name": "a", "method": "real_only"}, {"name": "b", "method": "mixup"}]
    tried = [entries[0], entries[1] | {"trials": 3}]
    assert arm_choices.effective(entries[1], SECTION) == arm_choices.effective(tried[1], SECTION)
    analysis = ANALYSIS | {"baseline": "a", "primary_arm": "b"}
    assert "trials" not in declaration.declaration(analysis, entries), "hashes of before stay as they are"
    assert declaration.declaration_hash(analysis, entries) != declaration.declaration_hash(analysis, tried)


# --- the config ------------------------------------------------------------------------------------------------------

TRUE_CELLS = {"name": "true_cells", "generator": "simulator", "labels": "as_train", "count": 10}


def with_arms(*entries: dict, **more: object) -> dict:
    return {"arms": [*checked({})["arms"], *entries]} | more


@pytest.mark.parametrize(
    ("overlay", "named"),
    [
        (with_arms({"name": "m", "method": "more_real"}), ["m", "make_folds.fractions.reserve above 0"]),
        (
            with_arms({"name": "m", "method": "more_real_same"}, make_folds={"fractions": {"reserve": 0.1}}),
            ["shares.reserve_same above 0"],
        ),
        (arm("pool", real_fraction=0.5), ["pool", "real_fraction", "does not use it"]),
        (with_arms({"name": "h", "method": "real_only", "real_fraction": 0}), ["real_fraction", "more than 0"]),
        (with_arms({"name": "h", "method": "real_only", "real_fraction": 2}), ["real_fraction", "at most 1"]),
        (arm("pool", budget=2), ["pool", "control = 'resample_real'", "budget"]),
        (arm("pool", budget="long"), ["budget"]),
        (arm("synthetic_only", budget="equal_exposures"), ["synthetic_only", "equal_exposures"]),
        (arm("pool", trials=-1), ["trials", "at least 0"]),
        ({"make_folds": {"fractions": {"reserve_same": 0.9}}}, ["make_folds.fractions"]),
        ({"synthetic_sets": [TRUE_CELLS | {"sampler": "ddim"}, *synthetic_set()["synthetic_sets"]]}, ["true_cells", "no use for sampler"]),
        ({"synthetic_sets": [TRUE_CELLS | {"start_noise": 0.5}, *synthetic_set()["synthetic_sets"]]}, ["true_cells", "no use for start_noise"]),
        ({"synthetic_sets": [TRUE_CELLS | {"labels": "feedback"}, *synthetic_set()["synthetic_sets"]]}, ["true_cells", "feedback"]),
        ({"synthetic_sets": [TRUE_CELLS | {"labels": "single"}, *synthetic_set()["synthetic_sets"]]}, ["true_cells", "count"]),
        ({"synthetic_sets": [TRUE_CELLS, *synthetic_set()["synthetic_sets"]], "data": {"label_map": "coarse"}}, ["true_cells", "label_map"]),
        ({"synthetic_sets": [{k: v for k, v in synthetic_set()["synthetic_sets"][0].items() if k != "sampler"}]}, ["sampler", "missing"]),
        ({"generators": [checked({})["generators"][0] | {"name": "simulator"}]}, ["simulator", "taken"]),
    ],
)  # fmt: skip
def test_problems_of_the_config_are_one_line(overlay, named) -> None:
    with pytest.raises(check.ConfigError) as caught:
        checked(overlay)
    assert "\n" not in str(caught.value)
    for word in named:
        assert word in str(caught.value)


def test_what_goes_together_is_taken() -> None:
    fractions = {"make_folds": {"fractions": {"reserve": 0.1, "reserve_same": 0.1}}}
    entries = [
        {"name": "m", "method": "more_real"}, {"name": "mp", "method": "more_real", "synthetic_set": "balanced"},
        {"name": "ms", "method": "more_real_same"}, {"name": "t", "method": "pool", "synthetic_set": "true_cells"},
        {"name": "h", "method": "balanced_real", "real_fraction": 0.5, "trials": 4},
    ]  # fmt: skip
    found = checked(with_arms(*entries, synthetic_sets=[TRUE_CELLS, *synthetic_set()["synthetic_sets"]]) | fractions)
    assert "true_cells" in check.used_sets(found) and not generator_choices.asks_baseline(TRUE_CELLS)
    assert check.job_lists(found)
