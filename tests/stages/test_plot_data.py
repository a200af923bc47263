"""plot_data and the tables of the data page: counted by hand, drawn for any number of classes, honest about gaps."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import fake_run
from tests.helpers.fake_run import FakeRun
from workflow_scripts import plot_data
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.page import html_page
from workflow_scripts.lib.page.sections import data_section
from workflow_scripts.lib.page.sections.data_section import Data
from workflow_scripts.lib.split import role_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return fake_run.drawn(tmp_path_factory)


@pytest.fixture(scope="module")
def data(run: FakeRun) -> Data:
    return data_section.read(run.path("images.h5"), [(0, run.path("repeat0/folds.csv"))])


def by_hand() -> Data:
    """Six images of four groups, two folds; the third class is on one image alone."""
    labels = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=np.uint8)
    groups = np.array(["a", "a", "b", "c", "c", "d"], dtype=object)
    roles = {
        (0, 0): np.array(["test", "test", "train", "validation", "validation", "train"], dtype=object),
        (0, 1): np.array(["unused", "unused", "test", "train", "train", "validation"], dtype=object),
        ("1", 0): np.array(["test", "test", "test", "test", "test", "train"], dtype=object),
    }
    columns = {"cell_line": np.array(["x", "x", "y", "x", "", "y"], dtype=object)}
    return Data(labels, ["A", "B", "C"], groups, columns, {}, roles, ["green"], 8)


def rows_of(table: html_page.PageTable, *names: str) -> list[tuple]:
    return [tuple(row[name] for name in names) for row in table.rows]


def test_classes_are_judged_by_the_repeat_with_the_fewest_tested_groups() -> None:
    made = by_hand()
    # Repeat 0 tests the groups a and b, repeat 1 a, b and c.
    assert data_section.tested_groups(made).tolist() == [2, 1, 0]
    table = data_section.classes_table(made, minimum=2)
    assert rows_of(table, "class", "images", "groups", "train", "test", "test_groups", "judged") == [
        ("A", 3, 2, 1, 1, 2, "yes"),
        ("B", 2, 2, 1, 0, 1, "no, 2 needed"),
        ("C", 1, 1, 0, 0, 0, "no, 2 needed"),
    ]
    assert "repeat 0, fold 0" in table.caption


def test_roles_combinations_and_cooccurrence() -> None:
    made = by_hand()
    roles = data_section.roles_table(made)
    assert rows_of(roles, "test_images", "test_groups", "unused_images") == [(2, 1, 0), (1, 1, 2), (5, 3, 0)]
    assert "They are not read" in roles.note
    combinations = data_section.combinations_table(made)
    assert rows_of(combinations, "classes", "labels", "images", "groups")[0] == ("A", 1, 2, 1)
    assert sorted(row["classes"] for row in combinations.rows) == ["A", "A + B", "B", "C", "none"]
    both, fraction = data_section.cooccurrence(made.labels)
    assert both.tolist() == [[3, 1, 0], [1, 2, 0], [0, 0, 1]]
    np.testing.assert_allclose(fraction[1], [0.5, 1, 0])


def test_columns_are_tables_where_they_exist() -> None:
    made = by_hand()
    (table,) = data_section.column_tables(made, ["cell_line", "cell_line", "plate"])
    assert rows_of(table, "value", "images", "groups", "classes", "lacking") == [
        ("x", 3, 2, 2, "C"),
        ("y", 2, 2, 2, "C"),
        ("unknown", 1, 1, 1, "A, B"),
    ]
    made.columns["plate"] = np.array([str(k) for k in range(6)], dtype=object)
    assert len(data_section.column_tables(made, ["plate"])) == 1


def test_group_sizes_cover_all_groups() -> None:
    groups = np.repeat([f"g{k}" for k in range(5)], [1, 1, 3, 7, 2000])
    rows = data_section.group_sizes(groups)
    assert {row["size"]: (row["groups"], row["images"]) for row in rows if row["groups"]} == {
        "1": (2, 2), "3": (1, 3), "6 to 9": (1, 7), "1,000 to 9,999": (1, 2000),
    }  # fmt: skip
    assert sum(row["images"] for row in rows) == len(groups)


def test_what_was_left_out_is_counted_by_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "left_out.csv"
    assert data_section.left_out_table(None) == data_section.left_out_table(path) == ({}, None)
    path.write_text("Id,file,kind,reason\n")
    assert data_section.left_out_table(path) == ({}, None)
    path.write_text("Id,file,kind,reason\nNA,a.png,missing,is missing\nb,b.png,missing,is missing\nc,,twice,twice\n")
    kinds, table = data_section.left_out_table(path)
    assert kinds == {"missing": 2, "twice": 1}
    assert rows_of(table, "Id", "reason")[0] == ("NA", "is missing")


def test_every_figure_is_there_with_its_words(run: FakeRun) -> None:
    texts = {}
    for name in fake_run.DATA_FIGURES:
        for kind in ("svg", "pdf", "png"):
            assert run.path(f"figures/data_{name}.{kind}").stat().st_size > 1000
        text = run.path(f"figures/data_{name}.svg").read_text(encoding="utf-8")
        assert "<script>" not in text
        texts[name] = re.sub(r"<[^>]*>", " ", text)
    assert all("Nucleoplasm" in texts[name] for name in ("classes", "cooccurrence", "samples"))
    assert "images in a group" in texts["groups"]
    assert all(channel in texts["intensity"] for channel in fake_run.CHANNELS)


def test_statistics_of_pixels_are_those_of_the_images(run: FakeRun) -> None:
    with ImageSet(run.path("images.h5")) as source:
        images = source.read(None, "inspect").images
    with run.path("intensity.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["channel"] for row in rows] == fake_run.CHANNELS
    for channel, row in enumerate(rows):
        own = images[:, channel].ravel()
        assert float(row["mean"]) == pytest.approx(own.mean(), rel=1e-4)
        assert float(row["deviation"]) == pytest.approx(own.std(), rel=1e-4)
        assert [float(row[f"p{p}"]) for p in (1, 50, 99)] == pytest.approx(np.percentile(own, [1, 50, 99]), abs=1)
        assert float(row["black"]) == pytest.approx((own == 0).mean(), rel=1e-3)
        assert float(row["saturated"]) == pytest.approx((own == 255).mean(), abs=1e-5)


def test_contact_sheet_shows_the_first_by_id_and_no_group_twice(run: FakeRun, data: Data) -> None:
    with ImageSet(run.path("images.h5")) as source:
        rows = plot_data.samples(source, data, 4)
        title, images = rows[0]
        alone = np.flatnonzero((data.labels == [1, 0, 0, 0]).all(axis=1))
        # Three images of each group stand side by side: every third is the first of its group.
        np.testing.assert_array_equal(images, source.read(alone[::3][:4], "inspect").images)
    assert title == "Nucleoplasm"


def test_equal_inputs_give_equal_files(run: FakeRun) -> None:
    before = {name: run.path(f"figures/data_{name}.svg").read_bytes() for name in fake_run.DATA_FIGURES}
    assert fake_run.draw_data(run) == 0
    assert before == {name: run.path(f"figures/data_{name}.svg").read_bytes() for name in fake_run.DATA_FIGURES}


@pytest.mark.parametrize(("classes", "channels", "images"), [(40, 6, 300), (1, 1, 3)])
def test_any_number_of_classes_and_channels(tmp_path: Path, classes: int, channels: int, images: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"a class of a rather long name, number {k}" for k in range(classes)]
    labels = (rng.random((images, classes)) < 0.05).astype(np.uint8)
    ids = [f"i{row:04d}" for row in range(images)]
    with write_images(tmp_path / "images.h5", [f"c{k}" for k in range(channels)], names, 16) as writer:
        writer.append(rng.integers(0, 256, (images, channels, 16, 16)), labels, ids, ids)
    roles = np.array([["test", "train", "validation"][row % 3] for row in range(images)], dtype=object)[:, None]
    role_table.write(tmp_path / "folds.csv", np.array(ids), np.array(ids), roles)
    words = ["--images", str(tmp_path / "images.h5"), "--folds", f"0={tmp_path / 'folds.csv'}"]
    words += [word for name in fake_run.DATA_FIGURES for word in (f"--{name}", str(tmp_path / f"{name}.svg"))]
    settings = {"per_class": 4, "protein_channel": "c0", "minimum_positive_groups": 3, "intensity_column": None}
    assert plot_data.main([*words, "--table", str(tmp_path / "t.csv"), "--settings", json.dumps(settings)]) == 0
    for name in fake_run.DATA_FIGURES:
        assert html_page.inline_svg((tmp_path / f"{name}.svg").read_text(encoding="utf-8"), name, "a figure")
