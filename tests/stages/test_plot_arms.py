"""The figures: what is drawn, which images are shown, and that equal inputs give equal files."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.helpers import fake_run
from tests.helpers.fake_run import FakeRun
from workflow_scripts import plot_arms, plot_images, plot_training
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import colour_choices, orientation
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge import mean_ranks
from workflow_scripts.lib.page import (
    arm_categories,
    arm_figures,
    curve_figures,
    figure_style,
    html_page,
    image_figures,
    image_strips,
    rank_figures,
    run_files,
    run_tables,
    training_figures,
)
from workflow_scripts.lib.page.sections import curves_section


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return fake_run.drawn(tmp_path_factory)


@pytest.fixture(scope="module")
def found(run: FakeRun) -> run_tables.Results:
    return run_tables.read(run.path("metrics.csv"), run.path("comparisons.csv"), run.path("analysis.json"))


def texts(path: Path) -> str:
    """The words of an SVG file, whitespace as one blank."""
    words = re.findall(r"<text[^>]*>(.*?)</text>", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", "", word).strip() for word in words)


def test_every_figure_in_three_formats(run: FakeRun) -> None:
    names = {path.stem for path in run.path("figures").iterdir()}
    assert names >= set(run_files.FIGURES.values())
    assert names >= {"images_repeat0_fold0_as_train", "images_repeat0_fold1_balanced"}
    starts = {".svg": b"<?xml", ".pdf": b"%PDF", ".png": b"\x89PNG"}
    for name in names:
        for suffix, start in starts.items():
            assert run.path(f"figures/{name}{suffix}").read_bytes().startswith(start)


def test_equal_inputs_give_equal_files(run: FakeRun, tmp_path: Path) -> None:
    words = []
    for name in ("metrics.csv", "comparisons.csv", "analysis.json"):
        words += [f"--{name.split('.')[0]}", str(run.path(name))]
    for name in fake_run.ARM_FIGURES:
        words += [f"--{name}", str(tmp_path / f"{name}.svg")]
    words += ["--fidelity", *fake_run.fidelity_tables(run), "--settings", json.dumps(fake_run.CONFIG)]
    assert plot_arms.main(words) == 0
    for name in fake_run.ARM_FIGURES:
        for kind in figure_style.FORMATS:
            again = (tmp_path / f"{name}.{kind}").read_bytes()
            assert again == run.path(f"figures/arms_{name}.{kind}").read_bytes(), f"{name}.{kind}"


def test_forest_shows_every_comparison(run: FakeRun, found: run_tables.Results) -> None:
    shown = texts(run.path("figures/arms_forest.svg"))
    for name, _, _ in fake_run.ARMS[1:]:
        assert name in shown
        difference = found.difference(name)
        assert (
            f"{figure_style.signed(difference.value)} ({figure_style.span(difference.low, difference.high)})"
            in " ".join(shown.split())
        )
    assert shown.index("pool") < shown.index("resample_real") < shown.index("mix_loss")
    assert "smallest effect of interest, 0.02" in shown


def test_ranks_show_every_arm_of_all_trainings_and_too_many_arms_are_said_to_be_so(
    run: FakeRun, found: run_tables.Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = texts(run.path("figures/arms_ranks.svg"))
    ranks = mean_ranks.measure(found.by_training("macro_f1"), 0.95)
    assert ranks.trainings == 2 and sorted(ranks.arms) == sorted(name for name, _, _ in fake_run.ARMS)
    assert all(name in shown for name in ranks.arms) and f"critical difference {ranks.critical:.1f}" in shown
    monkeypatch.setattr(rank_figures, "MOST", 3)
    assert "6 arms are too many" in rank_figures.draw_ranks(found).texts[0].get_text()


def test_long_names_stay_apart_and_leave_the_axis_legible(run: FakeRun, tmp_path: Path) -> None:
    ends = ("_of_a_long_name_resnet18", "_of_a_long_name_resnet34")
    for name in ("metrics.csv", "comparisons.csv", "analysis.json"):
        text = run.path(name).read_text()
        for arm, end in zip(("mix_loss", "pool"), ends, strict=True):
            text = re.sub(rf"\b{arm}\b", f"mix_representation{end}", text)
        (tmp_path / name).write_text(text)
    long = run_tables.read(tmp_path / "metrics.csv", tmp_path / "comparisons.csv", tmp_path / "analysis.json")
    config = {"arms": [{"name": name, "method": "pool"} for name in long.arms]}
    with figure_style.style():
        fig = arm_figures.draw_forest(long, config)
        axes = fig.axes[0]
        labels = [text.get_text() for text in axes.texts if "(" not in text.get_text()]
        assert sum(label.startswith("mix_representation") or "…" in label for label in labels) >= 2
        assert len(labels) == len(set(labels)) == len(long.arms) - 1
        axes.set_xlim(-0.26, 0.04)
        fig.canvas.draw()
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    inside = [box for box in boxes if axes.bbox.x0 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1]
    assert len(inside) >= 2
    assert all(left.x1 + 2 < right.x0 for left, right in itertools.pairwise(inside))


def test_rivals_placebos_and_ceilings_stand_under_headings_of_their_own(found: run_tables.Results) -> None:
    def section(entry: dict[str, Any]) -> str:
        return arm_categories.category(entry, {"p": {"generator": "unet"}, "true": {"generator": "simulator"}})

    assert (
        section({"method": "pool", "synthetic_set": "p"})
        == section({"method": "filtered", "synthetic_set": "p"})
        == arm_categories.GENERATED
    )
    assert section({"method": "strong_augment"}) == section({"method": "mix_loss_real"}) == arm_categories.RIVALS
    assert section({"method": "resample_real", "synthetic_set": "p"}) == arm_categories.RIVALS
    assert (
        section({"method": "noise", "synthetic_set": "p"})
        == section({"method": "blend_real", "synthetic_set": "p"})
        == arm_categories.PLACEBOS
    )
    assert (
        section({"method": "pool", "synthetic_set": "true"})
        == section({"method": "more_real"})
        == arm_categories.CEILINGS
    )
    assert section({"method": "resample_real", "synthetic_set": "true"}) == arm_categories.RIVALS
    assert section({"method": "real_only", "real_fraction": 0.5}) == arm_categories.CEILINGS
    alone = {"arms": [{"name": name, "method": "pool"} for name in found.arms]}
    names = {text.get_text() for text in arm_figures.draw_forest(found, alone).axes[0].texts}
    assert not names & set(arm_categories.CATEGORIES), "one kind needs no heading"
    rival = {"name": "synthetic_only", "method": "cutmix"}
    mixed = {"arms": [rival if entry["name"] == "synthetic_only" else entry for entry in alone["arms"]]}
    heights = {text.get_text(): text.get_position()[1] for text in arm_figures.draw_forest(found, mixed).axes[0].texts}
    assert heights[found.primary] < heights[arm_categories.RIVALS] < heights["synthetic_only"]
    assert heights[arm_categories.GENERATED] < heights[found.primary]


def test_classes_are_drawn_bold_by_their_rate_of_false_discoveries(found: run_tables.Results) -> None:
    kind, arm = found.judged[0], found.primary
    rows = found.comparisons
    chosen = (rows["arm"] == arm) & (rows["relation"] == "baseline") & (rows["class"] == kind)

    def bold(q: float, repeats: int = 2) -> tuple[int, int]:
        changed = rows.copy()
        # An interval beside zero, whose difference stands or not when all classes are looked at.
        changed.loc[rows["class"] != "", "q"] = 1.0
        changed.loc[chosen, ["difference", "low", "high", "low_single", "high_single"]] = [0.2, 0.1, 0.3, 0.1, 0.3]
        changed.loc[chosen, "q"] = q
        facts = found.facts | {"sizes": {"repeats": repeats}}
        drawn = arm_figures.draw_classes(run_tables.Results(found.metrics, changed, found.analysis, facts))
        lines = [line for axes in drawn.axes for line in axes.lines]
        coloured = [line for line in lines if line.get_color() in (figure_style.GAIN, figure_style.LOSS)]
        return sum(line.get_linewidth() == 1.6 for line in lines), len(coloured)

    # A line has a colour where the change holds; nothing else has.
    assert (bold(0.04), bold(0.06)) == ((1, 1), (0, 0))
    assert bold(0.04, repeats=1) == (0, 0), "a single repeat confirms nothing"


@pytest.mark.parametrize("limit", [0.011, 0.04, 0.093, 0.27, 0.56, 1.0])
def test_numbers_below_the_classes_do_not_collide(limit: float) -> None:
    step = arm_figures._round_step(limit)
    wide = 1.27 * 72  # points of a panel
    letters = len(f"−{step:g}") + 1
    # Half of the outer number, half of the zero, and a gap.
    assert step / limit * wide / 2 >= 8.0 * figure_style.LETTER * letters / 2 + 2
    assert step <= 0.75 * limit


def test_classes_are_judged_ones_and_dollars_stay_dollars(run: FakeRun, found: run_tables.Results) -> None:
    shown = texts(run.path("figures/arms_classes.svg"))
    assert found.unjudged == ["Rare"]
    assert shown.count("Rare") == 1
    assert "not judged: Rare" in shown
    assert "$x_1$" in shown
    assert "<script>" not in run.path("figures/arms_classes.svg").read_text()


def swept(
    entries: list[dict[str, Any]], synthetic_sets: list[dict[str, Any]] | None = None
) -> tuple[run_tables.Results, list[curves_section.Sweep]]:
    """The curves of a run with these arms; the n-th gained n hundredths."""
    rows = [
        {"arm": entry["name"], "against": "real_only", "relation": "baseline", "metric": "macro_f1"}
        | {"level": "image", "class": "", "difference": n / 100, "low": n / 100 - 0.02, "high": n / 100 + 0.02}
        | {"low_single": np.nan, "high_single": np.nan, "verdict": "inconclusive", "standing": "confirmed"}
        for n, entry in enumerate(entries)
    ]
    controls = {entry["name"]: entry.get("control") for entry in entries}
    found = run_tables.Results(pd.DataFrame(), pd.DataFrame(rows), {"smallest_effect": 0.01}, {"controls": controls})
    config = {"arms": entries, "synthetic_sets": synthetic_sets or [], "train_classifier": {"ratio": 0.5, "steps": 60}}
    return found, curves_section.sweeps(found, config)


def test_a_ratio_curve_holds_arms_that_differ_in_nothing_else() -> None:
    def pool(name: str, **more: Any) -> list[dict[str, Any]]:
        control = {"name": f"{name}_real", "method": "resample_real"} | more
        return [{"name": name, "method": "pool", "synthetic_set": "p", "control": f"{name}_real"} | more, control]

    # The usual ratio need not be given, and what is given as it is anyway is no difference.
    arms = [*pool("c", ratio=2), *pool("a", ratio=0.1, steps=60), *pool("b")]
    others = [*pool("longer", ratio=1, steps=90), *pool("elsewhere", ratio=4, synthetic_set="q")]
    found, curve = swept([*arms, *others])
    assert [(one.of, one.arms, one.values) for one in curve] == [("ratio", ["a", "b", "c"], [0.1, 0.5, 2.0])]
    assert curve[0].controls == ["a_real", "b_real", "c_real"]
    row = curves_section.sweeps_table(found, curve).rows[0]
    assert row["difference"] == pytest.approx((0.02, 0.0, 0.04)) and row["of_control"][0] == pytest.approx(0.03)
    with figure_style.style():
        axes = curve_figures.draw_sweeps(found, curve).axes[0]
    assert axes.get_xscale() == "log" and axes.get_title(loc="left") == "pool, synthetic set p"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "0.5", "2"]
    # Two points are no curve.
    assert swept([*arms[:4], *others])[1] == []
    with figure_style.style():
        assert "No three arms differ" in curve_figures.draw_sweeps(found, []).texts[0].get_text()


def test_a_guidance_curve_holds_plans_that_differ_in_nothing_else() -> None:
    synthetic_sets = [
        {"name": f"g{scale}", "labels": "balanced", "guidance": {"scale": scale, "interval": [0.2, 20]}}
        for scale in (1, 2, 4)
    ]
    other = {"name": "other", "labels": "single", "guidance": {"scale": 8, "interval": [0.2, 20]}}
    entries = [
        {
            "name": synthetic_set["name"].upper(),
            "method": "mix_loss",
            "synthetic_set": synthetic_set["name"],
            "control": "mix_loss_real",
        }
        for synthetic_set in (*synthetic_sets, other)
    ]
    entries.append({"name": "mix_loss_real", "method": "mix_loss_real"})
    found, curve = swept(entries, [*synthetic_sets, other])
    assert [(one.of, one.arms, one.values) for one in curve] == [("guidance", ["G1", "G2", "G4"], [1.0, 2.0, 4.0])]
    with figure_style.style():
        axes = curve_figures.draw_sweeps(found, curve).axes[0]
    assert axes.get_xscale() == "linear" and axes.get_xlabel() == "guidance scale"
    synthetic_sets[2]["guidance"]["interval"] = [0.1, 20]
    assert swept(entries, [*synthetic_sets, other])[1] == []


def test_usefulness_needs_two_sets(run: FakeRun, found: run_tables.Results) -> None:
    shown = texts(run.path("figures/arms_usefulness.svg"))
    assert all(word in shown for word in ("pool", "mix_loss", "set as_train", "set balanced", "label agreement"))
    assert "resample_real" not in shown
    files = [("balanced", run.path("repeat0/fold0/synthetic/balanced.fidelity.csv"))]
    points = curves_section.usefulness(found, fake_run.CONFIG, files)
    # What an independent encoder says stands in a table of its own.
    twice = run.path("repeat0/twice.csv")
    first = files[0][1].read_text(encoding="utf-8")
    lines = first.splitlines()[1:]
    twice.write_text(first + "\n".join(line.replace("x,", "other,", 1).replace(",0,", ",7,") for line in lines) + "\n")
    again = curves_section.usefulness(found, fake_run.CONFIG, [("balanced", twice)])
    assert [point.fidelity for point in again] == [point.fidelity for point in points]
    assert [point.arm for point in points] == ["mix_loss", "synthetic_only"]
    with figure_style.style():
        assert "fewer than two" in curve_figures.draw_usefulness(found, points).texts[0].get_text()
    broken = run.path("repeat0/broken.csv")
    broken.write_text("encoder,scope,measure\n")
    with pytest.raises(UserError, match=r"broken.csv has no column 'contender': delete it"):
        curves_section.usefulness(found, fake_run.CONFIG, [("balanced", broken)])


def test_groups_put_the_primary_arm_first_and_controls_last(found: run_tables.Results) -> None:
    assert found.groups() == [["pool", "resample_real"], ["mix_loss", "mix_loss_real"], ["synthetic_only"]]
    assert found.primary == "pool"
    assert all("real_only" not in group for group in found.groups())


def test_a_class_called_na_is_a_class(tmp_path: Path, run: FakeRun) -> None:
    table = run.path("metrics.csv").read_text().replace("Nucleoplasm", "NA")
    (tmp_path / "metrics.csv").write_text(table)
    again = run_tables.read(tmp_path / "metrics.csv", run.path("comparisons.csv"), run.path("analysis.json"))
    assert again.classes[0] == "NA"
    assert np.isfinite(again.score("pool", "f1", kind="NA"))


def test_training_table_holds_what_is_drawn(run: FakeRun) -> None:
    table = pd.read_csv(run.path("training.csv"))
    assert set(table["name"]) == {"unet"} | {name for name, _, _ in fake_run.ARMS}
    pool = table[(table["name"] == "pool") & (table["fold"] == 1) & (table["quantity"] == "validation_map")]
    assert pool["step"].tolist() == list(range(10, 110, 10))
    assert pool["value"].to_numpy() == pytest.approx(0.6 - 0.4 * np.exp(-np.arange(10, 110, 10) / 30) + 0.045)
    shown = texts(run.path("figures/training_classifiers.svg"))
    assert all(word in shown for word in ("training loss", "validation mAP", "validation macro-F1", "mix_loss_real"))
    assert "unet (2 folds)" in texts(run.path("figures/training_generators.svg"))


def test_control_has_the_colour_of_its_arm() -> None:
    looks = training_figures.line_looks(
        ["real_only", "a", "b", "ctrl", "c"], {"a": "ctrl", "b": "ctrl", "c": "elsewhere"}
    )
    assert looks["a"]["color"] == looks["b"]["color"] == looks["ctrl"]["color"] != looks["real_only"]["color"]
    assert len({str(looks[name]["ls"]) for name in ("a", "b", "ctrl")}) == 3
    assert looks["c"]["color"] not in (looks["a"]["color"], looks["real_only"]["color"])


def test_no_two_arms_look_alike() -> None:
    controls = {f"arm{index}": f"control{index % 9}" for index in range(12)}
    alone = [f"rival{index}" for index in range(7)]
    looks = training_figures.line_looks(["real_only", *alone, *controls, *dict.fromkeys(controls.values())], controls)
    assert len({json.dumps(look, sort_keys=True) for look in looks.values()}) == len(looks) == 1 + 7 + 12 + 9


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["real_only", "pool", "mix_loss", "mix_loss_real", "resample_real", "mix_representation_real"], 3),
        ([f"mix_representation_real_resnet{depth}" for depth in (18, 34, 50)], 2),
        (["a" * 60, "b" * 60], 1),
        (["real_only"], 1),
    ],
)
def test_a_legend_has_as_many_columns_as_fit(names: list[str], columns: int) -> None:
    assert figure_style.legend_columns(names) == columns
    table = pd.DataFrame({"name": names, "step": 1, "quantity": "loss", "value": 0.5})
    with figure_style.style():
        fig = training_figures.draw_classifiers(table, {})
        fig.canvas.draw()
        box = fig.legends[0].get_window_extent()
    assert box.x1 <= fig.bbox.x1
    assert box.y1 < min(axes.get_tightbbox().y0 for axes in fig.axes)


def test_long_names_of_generators_stay_on_the_page() -> None:
    names = [f"a_generator_with_{index}_times_more_training_than_others" for index in range(5)]
    table = pd.DataFrame({"name": names * 2, "repeat": 0, "fold": 0, "step": [1] * 5 + [2] * 5, "value": 0.5})
    with figure_style.style():
        fig = training_figures.draw_generators(table)
        fig.canvas.draw()
        box = fig.legends[0].get_window_extent()
    assert len(fig.legends[0].get_texts()) == 5
    assert box.x1 <= fig.bbox.x1
    assert box.y1 < fig.axes[0].get_tightbbox().y0


def test_no_generator_is_no_failure(run: FakeRun, tmp_path: Path) -> None:
    words = ["--histories", "--arms", str(run.arms[0]), "--table", str(tmp_path / "t.csv")]
    words += ["--generators", str(tmp_path / "g.svg"), "--classifiers", str(tmp_path / "c.svg")]
    assert plot_training.main([*words, "--settings", '{"controls": {}}']) == 0
    assert "No generator was trained." in texts(tmp_path / "g.svg")


def test_smoothing_keeps_constants_and_length() -> None:
    assert figure_style.smooth(np.full(50, 3.0), 0.2) == pytest.approx(np.full(50, 3.0))
    bumpy = np.tile([0.0, 1.0], 100)
    assert np.abs(figure_style.smooth(bumpy, 0.2) - 0.5).max() < 0.1
    assert figure_style.smooth(bumpy, 0.0).tolist() == bumpy.tolist()


def test_images_are_the_first_of_each_protein_in_their_order() -> None:
    ids = np.array(["d", "a", "c", "b", "e", "f"])
    groups = np.array(["g1", "g1", "g2", "g1", "g3", "g3"])
    labels = np.array([[1, 0], [1, 0], [1, 0], [1, 0], [1, 1], [0, 1]])
    chosen = image_strips.choose(labels, np.array([1, 0]), ids, groups, 3)
    # a is the first of g1, c of g2; then b, a second of g1; e has a further label and comes last.
    assert ids[chosen].tolist() == ["a", "c", "b"]
    assert ids[image_strips.choose(labels, np.array([1, 0]), ids, groups, 9)].tolist() == ["a", "c", "b", "d", "e"]
    assert ids[image_strips.choose(labels, np.array([1, 1]), ids, groups, 9)].tolist() == ["e"]


def test_panel_shows_test_images_only(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[np.ndarray] = []
    original = image_figures._read
    monkeypatch.setattr(
        image_figures, "_read", lambda source, rows: (read.append((len(source), rows)), original(source, rows))[1]
    )
    words = ["--images", str(run.path("images.h5")), "--folds", str(run.path("repeat0/folds.csv")), "--fold", "1"]
    words += [
        "--synthetic",
        str(run.path("repeat0/fold1/synthetic/as_train.h5")),
        "--out",
        str(run.path("again/p.svg")),
    ]
    words += ["--closest", str(run.path("repeat0/fold1/synthetic/as_train.closest.csv")), "--seed", "1"]
    words += ["--pairs", str(run.path("again/q.svg"))]
    monkeypatch.setattr(plot_images, "closest", lambda *given: [])
    settings = '{"per_class": 4, "combinations": 1, "protein_channel": "green"}'
    assert plot_images.main([*words, "--settings", settings]) == 0
    real = np.concatenate([rows for count, rows in read if count == len(run.ids)])
    assert len(real) > 10
    assert set(run.roles[real, 1]) == {"test"}


def test_closest_pairs_are_drawn_with_their_distances(run: FakeRun, tmp_path: Path) -> None:
    shown = texts(run.path("figures/closest_repeat0_fold0_as_train.svg"))
    assert "closest in pixels" in shown and "closest in features of the encoder" in shown
    assert shown.count(", closer") == 4 and shown.count("6.00") == 2
    assert (run.path("figures/closest_repeat0_fold0_as_train.svg").read_text().count("<image")) == 14
    table = tmp_path / "closest.csv"
    table.write_text(run.path("repeat0/fold0/synthetic/as_train.closest.csv").read_text())
    with ImageSet(run.path("images.h5")) as real, ImageSet(run.path("repeat0/fold0/synthetic/as_train.h5")) as made:
        first = image_figures.closest(table, real, made)[1]
        whole = made.read(np.array([1]), "inspect").images
        assert np.array_equal(first.generated, orientation.mirror_then_rotate(whole, 1)[0]), "turned as the table says"
        table.write_text(table.read_text().replace("cell0003", "cell9999"))
        with pytest.raises(UserError, match="run again"):
            image_figures.closest(table, real, made)


def test_the_order_of_panels_is_drawn_by_the_seed(run: FakeRun) -> None:
    settings = {"per_class": 3, "combinations": 1}
    with ImageSet(run.path("images.h5")) as real, ImageSet(run.path("repeat0/fold0/synthetic/as_train.h5")) as made:
        held = np.flatnonzero(run.roles[:, 0] == "test")
        panels = [image_figures.collect(real, held, made, np.random.default_rng(seed), settings) for seed in (1, 1, 2)]
    assert np.array_equal(panels[0][0].real, panels[1][0].real)
    assert not np.array_equal(panels[0][0].real, panels[2][0].real)


def test_colours_and_scale() -> None:
    images = np.zeros((1, 2, 2, 2), dtype=np.uint8)
    images[0, 0, 0, 0], images[0, 1, 1, 1] = 100, 50
    shown = image_strips.compose(images, ["green", "blue"], np.array([100.0, 100.0]))
    assert shown[0, 0, 0].tolist() == [0, 1, 0]
    assert shown[0, 1, 1] == pytest.approx(0.5 * np.array(colour_choices.COLOURS["blue"]))
    assert shown[0, 0, 1].tolist() == [0, 0, 0]
    grey = image_strips.compose(images[:, :1], ["dapi"], np.array([100.0]))
    assert grey[0, 0, 0].tolist() == [1, 1, 1]
    # All colours taken by name, and more channels than there are colours.
    many = [*colour_choices.COLOURS, "actin", "dapi"]
    assert image_strips.compose(np.full((1, len(many), 2, 2), 10, np.uint8), many, np.full(len(many), 10.0)).max() == 1


def test_strip_shrinks_large_images_and_leaves_gaps() -> None:
    wide = image_strips.strip(np.ones((2, 128, 128, 3)), 3)
    assert wide.shape == (64, 3 * 65 - 1, 4)
    assert (wide[:, :64] == 255).all() and not wide[:, 64].any() and not wide[:, 130:].any()


def test_figures_change_their_colours_with_the_page(run: FakeRun) -> None:
    shown = html_page.inline_svg(run.path("figures/arms_forest.svg").read_text(), "forest", "a <b> figure")
    assert "var(--ink)" in shown and "var(--paper)" in shown
    # Every colour has its counterpart: none is left that a dark page would swallow.
    assert set(re.findall(r"#[0-9a-f]{6}\b", shown)) == set()
    assert "a &lt;b&gt; figure" in shown and "<metadata" not in shown and "<!--" not in shown
    assert all(name.startswith("forest-") for name in re.findall(r'\bid="([^"]+)"', shown))


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours as the web's accessibility rules define it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("side", [0, 1])
def test_colours_stand_out_on_their_paper(side: int) -> None:
    for name, pair in figure_style.THEME.items():
        wanted = {"paper": 1, "grid": 1.1, "band": 1.05, "sky": 3}.get(name, 4.5)
        assert contrast(pair[side], figure_style.THEME["paper"][side]) >= wanted, name


def test_signed_numbers_and_intervals() -> None:
    assert [figure_style.signed(value) for value in (0.0314, -0.004, 0.0001, float("nan"))] == [
        "+0.031",
        "−0.004",
        "0.000",
        "–",
    ]
    assert figure_style.span(-0.01, 0.02) == "−0.010 to +0.020"
    assert figure_style.span(float("nan"), 0.02) == ""
