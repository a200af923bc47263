"""Pieces of the program that kills whole runs: what it compares, what it kills, and what it prints."""

import csv
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks import kill_runs, run_contents


def write_run(folder: Path, seconds: float, value: int = 1) -> Path:
    """A folder of files as runs write them; `seconds` may differ between runs, `value` may not."""
    (folder / "logs" / "train").mkdir(parents=True)
    (folder / "logs" / "train" / "a.log").write_text(f"{seconds}")
    (folder / "report.html").write_text(f"took {seconds}")
    (folder / "plot.svg").write_text(f"<svg>{value}</svg>")
    about = {"seconds": str(seconds), "settings": json.dumps({"steps": value, "seconds": seconds})}
    save_file({"weight": np.full(3, value)}, folder / "g.safetensors", about)
    with h5py.File(folder / "p.h5", "w") as file:
        file["history/seconds"] = np.array([seconds])
        file["test/scores"] = np.array([value])
        file["ids"] = np.array([f"cell-{value}"], dtype=object)
        file.attrs["made"] = json.dumps({"seconds": seconds})
    entry = {"declared_at": f"at {seconds}", "hash": value, "note": f"on 2026-01-01 00:0{int(seconds)}"}
    (folder / "ledger.jsonl").write_text(json.dumps(entry) + "\n")
    (folder / "job0.json").write_text(json.dumps({"arms": [{"seconds": seconds, "digest": value}]}))
    with (folder / "history.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["step", "seconds"], [value, seconds]])
    return folder


def test_times_may_differ(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a", 1.5), write_run(tmp_path / "b", 2.5)
    assert run_contents.differences(first, second) == (6, [])


def test_anything_else_may_not(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a", 1.5, 1), write_run(tmp_path / "b", 1.5, 2)
    (first / "metrics.csv").touch()
    (second / "g.resume.pt").touch()
    (second / "extra.csv").touch()
    _, found = run_contents.differences(first, second)
    assert sorted(found) == [
        "extra.csv: new", "g.resume.pt: left behind", "g.safetensors: differs", "history.csv: differs",
        "job0.json: differs", "ledger.jsonl: differs", "metrics.csv: missing", "p.h5: differs", "plot.svg: differs",
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["test/scores", "ids", "about"])
def test_one_value_of_an_array_file_is_seen(tmp_path: Path, place: str) -> None:
    first, second = write_run(tmp_path / "a", 1.5), write_run(tmp_path / "b", 1.5)
    with h5py.File(second / "p.h5", "r+") as file:
        if place == "about":
            file.attrs["made"] = json.dumps({"seconds": 1.5, "seed": 2})
        else:
            del file[place]
            file[place] = np.array([7])
    assert run_contents.differences(first, second)[1] == ["p.h5: differs"]


def test_kinds_of_kills_come_as_often_as_they_should() -> None:
    rng = random.Random(1)
    drawn = Counter(kill_runs.picked(rng) for _ in range(2000))
    assert all(abs(drawn[kind] / 2000 - often) < 0.05 for kind, often in kill_runs.KINDS.items())
    assert [kill_runs.picked(random.Random(3)) for _ in range(2)] == [kill_runs.picked(random.Random(3))] * 2


# A stand-in for Snakemake with one job: a stage by its command line.
SNAKEMAKE = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)', '{}x'])"


def started() -> tuple[subprocess.Popen[bytes], int]:
    """A process in a session of its own, and the number of its job."""
    process = subprocess.Popen([sys.executable, "-c", SNAKEMAKE.format(kill_runs.STAGE)], start_new_session=True)
    end = time.monotonic() + 60
    while not (jobs := [pid for pid in kill_runs.stages_of({process.pid}) if pid != process.pid]):
        assert time.monotonic() < end
        time.sleep(0.02)
    return process, jobs[0]


def alive(pid: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("kind", list(kill_runs.KINDS))
def test_a_kill_takes_what_it_says(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process, job = started()
    monkeypatch.setattr(kill_runs, "stages_of", lambda groups: [job])
    groups = {process.pid}
    assert kill_runs.kill(process, groups, kind, random.Random(1))
    end = time.monotonic() + 30
    while kind != "Snakemake alone" and alive(job) and time.monotonic() < end:
        time.sleep(0.02)
    assert alive(job) == (kind == "Snakemake alone")
    if kind == "one job":
        assert process.wait(30) == 0, "it goes on, and sees what became of its job"
    assert (groups == set()) == (kind == "everything")
    kill_runs.kill_group(os.getpgid(job) if alive(job) else process.pid)
    process.wait()


def test_result_is_told_with_counts() -> None:
    tally = kill_runs.Tally(Counter({"everything": 2, "one job": 1}), 3, 1, 40, ["killed0/metrics.csv: differs"])
    assert tally.lines() == [
        "kills: 3 (2 everything, 0 Snakemake alone, 1 one job)", "restarts: 3", "runs finished: 1",
        "files compared: 40", "files different: 1", "  killed0/metrics.csv: differs",
    ]  # fmt: skip
