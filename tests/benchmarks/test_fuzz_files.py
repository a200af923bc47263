"""Damaged files through their readers, in short; and what the program says of readers that crash, hang or babble."""

import os
import signal
import time
from pathlib import Path

import pytest

from benchmarks import fuzz_files
from workflow_scripts.lib.base.errors import UserError


def test_damaged_files_are_read_or_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    status = fuzz_files.main(["--count", "60", "--seed", "3"])
    told = capsys.readouterr().out
    assert status == 0, told
    assert all(f"{kind}: 60 inputs" in told for kind in ("images", "formats", "run_files"))
    assert told.count(" 0 escaped") == 3


@pytest.mark.parametrize("number", [1098, 3959])
def test_pages_that_never_end_are_counted_first(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, the reader of TIFF files went from page to page for ever."""
    monkeypatch.setattr(fuzz_files, "LONGEST", 5)
    found = fuzz_files.fuzz_all("images", fuzz_files.images, range(number, number + 1), 1)
    assert (found.taken + found.refused, found.escaped) == (1, [])


def _crash(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(path: Path) -> None:
    time.sleep(60)


def _babble(path: Path) -> None:
    raise ValueError("first\nsecond")


def _refuse(path: Path) -> None:
    raise UserError("damaged")


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (_crash, "the reader died: SIGKILL"),
        (_hang, "took more than 1 s"),
        (_babble, "ValueError: first"),
        (_refuse, ""),
    ],
)
def test_what_becomes_of_a_reader_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reader: fuzz_files.Reader, said: str
) -> None:
    monkeypatch.setattr(fuzz_files, "LONGEST", 1)

    def sound(folder: Path) -> dict[Path, fuzz_files.Reader]:
        (folder / "a.png").write_bytes(b"sound")
        return {folder / "a.png": reader}

    found = fuzz_files.fuzz_all("images", sound, range(4, 6 if said != "took more than 1 s" else 5), 1)
    if said:
        assert found.escaped and all(said in text and text.startswith("images 1 ") for text in found.escaped)
        assert "images 1 4 (a.png)" in found.escaped[0] and found.taken == found.refused == 0
    else:
        assert (found.refused, found.escaped) == (2, [])


def test_a_process_that_reads_nothing_is_no_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_files, "_read_all", lambda *given: None)
    with pytest.raises(RuntimeError, match="before its first file"):
        fuzz_files.fuzz_all("images", fuzz_files.images, range(2), 1)
