"""lib.base.files: outputs are whole or absent, and one process at a time works on an output."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workflow_scripts.lib.base import files

ROOT = Path(__file__).resolve().parents[2]

HALF_WRITTEN = """
import sys, time
from pathlib import Path
from workflow_scripts.lib.base.files import atomic
with atomic(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""

# Says in a common file when it waits, holds the lock and lets it go; holds it until its own flag appears.
HOLDER = """
import os, sys, time
from pathlib import Path
from workflow_scripts.lib.base.files import lock
out, events, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def tell(what):
    handle = os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{name} {what}\\n".encode())
    os.close(handle)
with lock(out, lambda holder: tell(f"waits for {holder}")):
    tell("in")
    while not Path(f"{events}.{name}").exists():
        time.sleep(0.01)
    tell("out")
"""


@pytest.fixture
def start():
    """Start Python programs that end with the test at the latest."""
    started = []

    def begin(program: str, *words: object) -> subprocess.Popen:
        child = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        child.kill()
        child.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def eventually(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    out = tmp_path / "new" / "table.csv"
    with files.atomic(out) as part:
        part.write_text("half")
        assert not out.exists()
        assert part.suffix == ".csv"
        part.write_text("whole")
    assert out.read_text() == "whole"
    assert names(out.parent) == ["table.csv"]


def test_an_exception_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    out = tmp_path / "table.csv"
    out.write_text("old")
    with pytest.raises(RuntimeError), files.atomic(out) as part:
        part.write_text("half")
        raise RuntimeError
    assert out.read_text() == "old"
    assert names(tmp_path) == ["table.csv"]


def test_a_killed_writer_leaves_no_output_and_the_next_one_sweeps(tmp_path, start):
    out = tmp_path / "weights.bin"
    dead, living = start(HALF_WRITTEN, out), start(HALF_WRITTEN, out)
    assert dead.stdout.readline() == living.stdout.readline() == "half\n"
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    assert not out.exists()
    assert len(names(tmp_path)) == 2
    files.write_text(out, "whole")
    # What a living process still writes is not touched.
    rest = [name for name in names(tmp_path) if name != "weights.bin"]
    assert len(rest) == 1
    assert f"-{living.pid}-" in rest[0]
    assert out.read_text() == "whole"


def test_sweeping_spares_parts_of_other_outputs_and_machines(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, text=True)
    mine = f"{files._HOST}-{gone.stdout.strip()}-0123abcd"
    for name in (f".a.{mine}.part.csv", f".b.{mine}.part.csv", ".a.elsewhere-1-0123abcd.part.csv"):
        (tmp_path / name).write_text("half")
    files.write_text(tmp_path / "a.csv", "whole")
    assert names(tmp_path) == [".a.elsewhere-1-0123abcd.part.csv", f".b.{mine}.part.csv", "a.csv"]


def test_a_folder_replaces_the_old_one_entirely(tmp_path):
    out = tmp_path / "train"
    for content in ("one", "two"):
        with files.atomic(out) as part:
            part.mkdir()
            (part / content).write_text(content)
    assert names(out) == ["two"]
    assert names(tmp_path) == ["train"]
    with pytest.raises(RuntimeError), files.atomic(out) as part:
        part.mkdir()
        raise RuntimeError
    assert names(out) == ["two"]
    assert names(tmp_path) == ["train"]


def test_json_is_the_same_for_the_same_content_and_never_nan(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": 1, "é": [2]})
    files.write_json(tmp_path / "b.json", {"é": [2], "x": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_digests_follow_content():
    assert files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1}) != files.digest({"a": 1, "b": 3})


def test_waiters_enter_one_after_the_other(tmp_path, start):
    out, events = tmp_path / "out.bin", tmp_path / "events"

    def said() -> list[str]:
        return events.read_text().splitlines() if events.exists() else []

    first = start(HOLDER, out, events, "a")
    assert eventually(lambda: "a in" in said())
    waiters = {name: start(HOLDER, out, events, name) for name in "bc"}
    assert eventually(lambda: {f"{name} waits for {first.pid}" for name in waiters} <= set(said()))
    Path(f"{events}.a").touch()
    assert eventually(lambda: "b in" in said() or "c in" in said())
    # A third one that comes now finds the lock taken, though the first holder has removed its file.
    waiters["d"] = start(HOLDER, out, events, "d")
    assert eventually(lambda: any(line.startswith("d ") for line in said()))
    assert len([name for name in waiters if f"{name} in" in said()]) == 1, said()
    for name in waiters:
        Path(f"{events}.{name}").touch()
    assert [child.wait(60) for child in waiters.values()] == [0, 0, 0]
    order = [line for line in said() if "waits" not in line]
    assert [line.split()[1] for line in order] == ["in", "out"] * 4
    assert not [name for name in names(tmp_path) if "lock" in name]


def test_a_killed_holder_frees_the_lock(tmp_path, start):
    out, events = tmp_path / "out.bin", tmp_path / "events"
    holder = start(HOLDER, out, events, "a")
    assert eventually(lambda: events.exists() and "a in" in events.read_text())
    second = start(HOLDER, out, events, "b")
    assert eventually(lambda: "b waits" in events.read_text())
    assert "b in" not in events.read_text()
    os.kill(holder.pid, signal.SIGKILL)
    Path(f"{events}.b").touch()
    assert second.wait(60) == 0
    assert "a out" not in events.read_text()
    assert not [name for name in names(tmp_path) if "lock" in name]


def test_a_lock_on_a_file_system_that_fails_hides_no_error(tmp_path, monkeypatch):
    def fails(self, missing_ok=False):
        raise OSError(errno.EROFS, "read-only")

    with pytest.raises(KeyError, match="first"), files.lock(tmp_path / "out"):
        monkeypatch.setattr(Path, "unlink", fails)
        raise KeyError("first")


def test_an_exception_frees_the_lock(tmp_path):
    with pytest.raises(RuntimeError), files.lock(tmp_path / "out.bin"):
        raise RuntimeError
    with files.lock(tmp_path / "out.bin", lambda holder: pytest.fail(f"waits for {holder}")):
        pass
    assert names(tmp_path) == []
