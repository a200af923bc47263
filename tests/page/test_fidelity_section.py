"""The page's section "Fidelity": brackets, marks, remarks, and the same figures as CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.helpers import fake_run
from tests.helpers.fake_run import FakeRun
from workflow_scripts.lib.fidelity import distances
from workflow_scripts.lib.page import html_page
from workflow_scripts.lib.page.sections import fidelity_section


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return FakeRun(tmp_path_factory.mktemp("run"))


def synthetic_sets(run: FakeRun, synthetic_set: str = "as_train") -> dict:
    files = [
        [(synthetic_set, run.path(f"repeat0/fold{fold}/synthetic/{synthetic_set}.{name}")) for fold in range(2)]
        for name in ("assess.csv", "fidelity.csv", "assess.json")
    ]
    return fidelity_section.synthetic_sets(*files, fake_run.CONFIG)[0]


def test_every_measure_stands_in_its_bracket(run: FakeRun, tmp_path: Path) -> None:
    tables = synthetic_sets(run)["tables"]
    assert len(tables["bracket"].rows) == len(distances.MEASURES) + len(fidelity_section.FURTHER)
    row = tables["bracket"].rows[0]
    # Means over the two folds: 0 and 1 for generated images, one more for each further contender.
    assert row["generated"] == (0.5, 0.0, 1.0)
    assert row["phase"] == (4.5, 4.0, 5.0)
    html_page.write_tables(tmp_path / "tables", list(tables.values()), "tables")
    with (tmp_path / "tables" / "fidelity_0.csv").open() as handle:
        first = next(csv.DictReader(handle))
    assert (first["floor"], first["floor_low"], first["floor_high"]) == ("1.5", "1.0", "2.0")
    with (tmp_path / "tables" / "fidelity_0_everything.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    scopes = len(fake_run.CLASSES) + 1
    assert len(rows) == scopes * len(tables["bracket"].rows) * len(fidelity_section.CONTENDERS)


def test_small_samples_are_marked_where_they_stand(run: FakeRun) -> None:
    table = synthetic_sets(run)["tables"]["frechet"]
    assert [row["name"] for row in table.rows] == ["all images", *fake_run.CLASSES]
    assert [row["warning"] for row in table.rows] == [""] * 4 + ["too small"]
    assert table.mark(table.rows[-1]) == "control" and "fewer than 50" in table.note
    empty = next(text for column, text, _ in table.cells(table.rows[-1]) if column.key == "generated")
    assert empty == html_page.EMPTY


def test_a_plan_that_is_too_small_as_a_whole_is_a_warning(run: FakeRun, tmp_path: Path) -> None:
    path = run.path("repeat0/fold1/synthetic/as_train.fidelity.csv")
    whole = path.read_text()
    path.write_text(whole.replace(",False,", ",True,"))
    try:
        said = synthetic_sets(run)["warnings"]
    finally:
        path.write_text(whole)
    assert len(said) == 1 and said[0].startswith("Too small to mean anything: 90 real images of 40 groups beside 22")
    assert synthetic_sets(run)["warnings"] == []


def test_what_must_be_known_is_said(run: FakeRun) -> None:
    one, other = synthetic_sets(run)["remarks"], synthetic_sets(run, "balanced")["remarks"]
    assert "pre-training overlap: none with held-out images" in one[0]
    assert any("8 of 128 dimensions" in text for text in one)
    assert any("fitted on the train part" in text for text in one)
    assert not any("other class fractions" in text for text in one)
    assert any("other class fractions" in text for text in other)
    assert any("several functions" in text for text in one)
    path = run.path("repeat0/fold0/synthetic/as_train.assess.json")
    about = json.loads(path.read_text())
    mine = {"name": "mine", "kind": "own", "overlap": "unknown"}
    path.write_text(
        json.dumps(about | {"encoder": mine, "knows_train": False, "reference_channels": ["red"], "start_noise": 0.5})
    )
    try:
        said = synthetic_sets(run)["remarks"]
    finally:
        path.write_text(json.dumps(about))
    assert "mine; pre-training overlap: unknown" in said[0]
    assert any("The channels red were taken from real training images" in text for text in said)
    assert any("variations of real training images, noised to level 0.5" in text for text in said)
    assert not any("variations" in text for text in one)
    assert not any("several functions" in text or "fitted on the train part" in text for text in said)


def test_an_encoder_that_does_not_see_blur_is_found_out(run: FakeRun) -> None:
    assert not any("does not see" in text for text in synthetic_sets(run)["remarks"])
    path = run.path("repeat0/fold0/synthetic/as_train.fidelity.csv")
    whole = path.read_text()
    path.write_text(whole.replace("frechet,blurred,3,2.5,3.5", "frechet,blurred,-2,-3,0"))
    try:
        said = [text for text in synthetic_sets(run)["remarks"] if "does not see" in text]
    finally:
        path.write_text(whole)
    assert len(said) == 1 and "In these features blurred real images are no farther" in said[0]


def test_both_encoders_stand_on_the_page_and_their_disagreement_is_said(run: FakeRun) -> None:
    changed = {}
    for fold in range(2):
        path, about = (
            run.path(f"repeat0/fold{fold}/synthetic/as_train.{end}") for end in ("fidelity.csv", "assess.json")
        )
        changed |= {path: path.read_text(), about: about.read_text()}
        head, *rows = changed[path].splitlines()
        # The second encoder sees generated images as far from real ones as noise is.
        second = [
            row.replace("x,", "other,", 1).replace("generated,0,-0.5,0.5", "generated,8,7.5,8.5")
            .replace("generated,1,0.5,1.5", "generated,8,7.5,8.5")
            for row in rows if ",all images," in row
        ]  # fmt: skip
        path.write_text("\n".join([head, *rows, *second]) + "\n")
        independent = {"name": "other", "overlap": "none: photographs", "licence": "Apache-2.0"}
        about.write_text(json.dumps(json.loads(changed[about]) | {"independent_encoder": independent}))
    try:
        found = synthetic_sets(run)
    finally:
        for path, text in changed.items():
            path.write_text(text)
    assert found["tables"]["bracket"].rows == synthetic_sets(run)["tables"]["bracket"].rows
    rows = found["tables"]["independent"].rows
    assert [row["encoder"] for row in rows[:2]] == ["the <i>baseline</i>", "other"]
    assert (rows[0]["generated"], rows[1]["generated"]) == ((0.5, 0, 1), (8, 7.5, 8.5))
    assert any("overlap: none: photographs; licence of its weights: Apache-2.0." in text for text in found["remarks"])
    [said] = [text for text in found["remarks"] if text.startswith("The encoders")]
    assert said.startswith("The encoders disagree by the Fréchet distance: in the features of the <i>baseline</i>,")
    assert "look like the real ones; in those of other, they do not look like the real ones." in said
    assert "Only one of the two tells generated images from real ones by: Fréchet distance, kernel distance" in said


def test_numbers_of_any_size_are_readable() -> None:
    assert [html_page.estimated(value) for value in (0.0412, -0.041, -0.0001, 50.82, 1234.5, float("nan"))] == [
        "0.041", "−0.041", "0.000", "50.8", "1,234.5", html_page.EMPTY,
    ]  # fmt: skip
    column = html_page.Column("x", "x", "estimate")
    assert html_page.below((0.5, -0.1, 12.34), column) == "−0.100 to 12.3"
    assert html_page.below((0.5, float("nan"), float("nan")), column) == ""
