"""clean_run: it shows first, deletes only what it is told to, and never the answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workflow_scripts import clean_run

FOLD = "repeat0/fold0"
STAY = ("report.html", "metrics.csv", "declaration.json", "declarations.jsonl", "tables/a.csv", "notes.txt")
YES = (f"{FOLD}/synthetic/painted.h5", f"{FOLD}/generators/unet.resume.pt", "simulated/train/a.png")
MODELS = (f"{FOLD}/generators/unet.safetensors", f"{FOLD}/arms/pool/predictions.h5", f"{FOLD}/arms/job0.json")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in (*STAY, *YES, *MODELS):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5000)
    return tmp_path / "run"


def clean(run: Path, word: str) -> int:
    out, settings = run / "clean.json", json.dumps({"clean": word})
    return clean_run.main(["--run-dir", str(run), "--out", str(out), "--settings", settings])


def left(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} - {"clean.json"}


def test_it_shows_and_deletes_nothing_unless_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert clean(run, "show") == 0
    assert left(run) == {*STAY, *YES, *MODELS}
    said = capsys.readouterr().err
    assert "generated images, 0.0 MB in 1 file(s), goes with clean=yes" in said and "nothing was deleted" in said
    told = json.loads((run / "clean.json").read_text())
    assert told["deleted"] == 0 and {row["by"] for row in told["parts"]} == {"yes", "all", "never"}


def test_what_it_is_told_goes_with_its_empty_folders(run: Path) -> None:
    assert clean(run, "yes") == 0
    assert left(run) == {*STAY, *MODELS}
    assert not (run / "simulated").exists(), "an empty folder would count as made"
    # Two blocks of the disk each.
    assert json.loads((run / "clean.json").read_text())["deleted"] == len(YES) * 2 * 4096
    assert clean(run, "all") == 0
    assert left(run) == set(STAY)
    assert not (run / "repeat0").exists()


def test_an_unfinished_run_keeps_everything(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.html").unlink()
    assert clean(run, "yes") == 1
    assert "not finished: nothing was deleted" in capsys.readouterr().err
    assert set(YES) < left(run)
    assert clean(run, "show") == 0
    assert clean(run / "nowhere", "show") == 1
