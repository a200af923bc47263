"""lib.config.read: a mistake in a config file is told in one line, with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflow_scripts.lib.config import read


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("run: a\ndata: {source: folder\nseed: 1\n", "line 3, column 5: expected ',' or '}', but got ':' while"),
        ("run: a\n\tseed: 1\n", "line 2, column 1: found character '\\t' that cannot start any token"),
        ("run: a\n seed: 1\n", "line 2, column 6: mapping values are not allowed here"),
        ("- a\n", "holds no settings"),
        ("run: a\x00\n", "special characters are not allowed"),
        ("seeds: 1\n", "seeds is not a known key (did you mean seed?)"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_line(text: str, told: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    assert read.main([str(path)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert told in line and (str(path) in line or "known key" in line)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys) -> None:
    assert read.main([str(tmp_path / "none.yaml")]) == 1
    assert capsys.readouterr().err == f"MixLoc config: {tmp_path / 'none.yaml'}: No such file or directory\n"


def test_files_are_laid_over_each_other(tmp_path: Path, capsys) -> None:
    for name, text in {"one.yaml": "run: one\nseed: 3\n", "two.yaml": "run: two\n"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert read.main([str(tmp_path / "one.yaml"), str(tmp_path / "two.yaml")]) == 0
    assert "sound; results go to results/two/" in capsys.readouterr().out
