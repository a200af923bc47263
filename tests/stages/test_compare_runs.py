"""compare_runs: two runs on one self-contained page."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers import fake_run
from tests.helpers.fake_run import FakeRun
from tests.helpers.html_reader import Reader
from workflow_scripts import compare_runs
from workflow_scripts.lib.page import run_comparison

TEMPLATE = Path(compare_runs.__file__).parent / "lib" / "page" / "comparison.html"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A drawn run with its settings, and a copy in which one setting and one score are others."""
    first: FakeRun = fake_run.drawn(tmp_path_factory)
    second = tmp_path_factory.mktemp("second") / "run"
    shutil.copytree(first.folder, second)
    for folder, ratio in ((first.folder, 0.5), (second, 0.75)):
        (folder / "tables").mkdir(exist_ok=True)
        arms = [{"name": "pool", "ratio": ratio, "note": "<b>"}]
        (folder / "tables" / "settings.json").write_text(json.dumps({"run": folder.name, "arms": arms, "seed": 1}))
    text = (second / "metrics.csv").read_text(encoding="utf-8")
    line = next(row for row in text.splitlines() if row.startswith("pool,mean,pooled,test,image,macro_f1,,"))
    cells = line.split(",")
    cells[7] = str(float(cells[7]) + 0.125)
    (second / "metrics.csv").write_text(text.replace(line, ",".join(cells)), encoding="utf-8")
    return first.folder, second


def compare(one: Path, other: Path, out: Path) -> int:
    return compare_runs.main(
        ["--runs", f"first={one}", f"second={other}", "--template", str(TEMPLATE), "--out", str(out)]
        + ["--settings", "{}", "--log", str(out.with_suffix(".log"))]
    )


def test_the_page_shows_what_differs_and_is_self_contained(runs: tuple[Path, Path], tmp_path: Path) -> None:
    assert compare(*runs, tmp_path / "page.html") == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    words = " ".join(" ".join(Reader(text).words).split())
    assert "Settings that differ: 1" in words and "arms.pool.ratio 0.5 0.75" in words
    assert "the same images and the same folds" in words
    assert "+0.125" in words
    assert words.count(json.loads((runs[0] / "analysis.json").read_text())["answer"]["sentence"][:40]) == 2
    assert text.count("<svg") >= 4, "pictures of both runs"
    assert not re.search(r'(src|href)="(?!data:|#)', text) and "<script" not in text


def test_other_folds_and_unknown_settings_are_told(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    (other / "tables" / "settings.json").unlink()
    with (other / "repeat0" / "folds.csv").open("a") as handle:
        handle.write("\n")
    one, two = run_comparison.read("first", runs[0]), run_comparison.read("other", other)
    assert "other folds" in run_comparison.sameness(one, two)
    alike = replace(one, facts=one.facts | {"judged": []})
    assert "judge other classes" in run_comparison.sameness(one, alike)
    (other / "images.h5").unlink()  # as clean=all does
    assert "no image set any more in other" in run_comparison.sameness(one, two)
    table = run_comparison.settings_table(one, two)
    assert not table.rows and "Unknown for other" in table.note


def test_what_is_no_finished_run_is_refused(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert compare(runs[0], tmp_path, tmp_path / "page.html") == 1
    assert "is no finished run" in capsys.readouterr().err
    assert compare(runs[0], runs[0], tmp_path / "page.html") == 1
    assert "compared with itself" in capsys.readouterr().err


def test_settings_are_told_apart_by_the_names_of_their_entries() -> None:
    found = run_comparison.flat({"a": {"b": 1}, "arms": [{"name": "x", "ratio": 2}], "list": [1, 2], "empty": []})
    assert found == {"a.b": "1", "arms.x.ratio": "2", "list": "[1, 2]", "empty": "[]"}
