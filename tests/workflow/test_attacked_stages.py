"""Stages with too little memory, on a folder that fails, and killed: what they say, what they leave, how they go on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import attack_stages
from tests.helpers.checkout import OTHER_CORES, ROOT, Checkout, kill, processes, wait_for

STAGES = ("preprocess_images", "train_ddpm", "train_classifier", "certify_leaks")


@pytest.mark.workflow
def test_an_attacked_stage_says_so_in_one_line_and_ends_equal_afterwards(clone: Checkout, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.txt", tmp_path / "found.json"
    plan.write_text(clone.snakemake("--dry-run", "--printshellcmds", "--forceall").stdout, encoding="utf-8")
    words = ["--run", clone.folder, "--plan", plan, "--tries", "2", "--out", out, "--only", *STAGES]
    command = [sys.executable, "-m", "benchmarks.attack_stages", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert {one["stage"] for one in found} == set(STAGES)
    outcomes = sum((Counter(one["outcomes"]) for one in found), Counter())
    assert outcomes["peace: ended well"] == len(STAGES) and outcomes["memory: failed in one line"]
    said = [one["said"].get("memory", "") for one in found]
    assert any("out of memory: " in line and "This process took" in line and "mem_mb" in line for line in said), said
    if shutil.which("cc"):
        assert outcomes["folder: failed in one line"]
        assert any("the file system failed: " in one["said"].get("folder", "") for one in found)


@pytest.mark.workflow
def test_a_job_that_the_system_kills_is_named_with_what_to_do(clone: Checkout) -> None:
    output = clone.run / "repeat0/fold0/generators/unet.safetensors"
    output.unlink()
    process = clone.start(str(output.relative_to(clone.folder)), cores=OTHER_CORES)
    wait_for(output.with_name("unet.resume.pt").exists)
    for pid in processes("train_ddpm"):
        if Path(f"/proc/{pid}/cwd").readlink() == clone.folder:
            kill(pid)
    printed = process.communicate(timeout=300)[0]
    told = [line for line in printed.splitlines() if line.startswith("MixLoc: train_ddpm was killed")]
    assert process.returncode and len(told) == 1, printed[-4000:]
    assert "logs/train_ddpm/repeat0_fold0_unet.log" in told[0] and "run again with more memory" in told[0]
    page = (clone.run / "progress.html").read_text(encoding="utf-8")
    assert "Stopped: " in page and 'http-equiv="refresh"' not in page


def job_with(folder: Path, content: str | None) -> tuple[attack_stages.Job, list[tuple[Path, Path]]]:
    """A job with one output, as it was and as it was left."""
    out, kept = folder / "a.txt", folder / "kept.txt"
    kept.write_text("whole", encoding="utf-8")
    if content is not None:
        out.write_text(content, encoding="utf-8")
    return attack_stages.Job("train", [], [out]), [(out, kept)]


@pytest.mark.parametrize(
    ("status", "text", "content", "problem"),
    [
        (1, "train failed: out of memory", None, ""),
        (0, "done", "whole", ""),
        (1, "train failed: out of memory", "half", "neither absent nor whole"),
        (1, "nothing", None, "0 lines"),
        (1, "train failed: x\nTraceback (most recent call last)", None, "more than one line"),
        (-11, "", None, "SIGSEGV"),
        (0, "done", None, "ended well without"),
    ],
)
def test_what_is_wrong_about_an_end_is_seen(
    tmp_path: Path, status: int, text: str, content: str | None, problem: str
) -> None:
    job, moved = job_with(tmp_path, content)
    problems, line = attack_stages.judged(job, status, text, moved)
    assert problem in (problems or [""])[0] and bool(problems) == bool(problem)
    assert line == (text.splitlines()[0] if "failed: " in text else "")


def test_outputs_come_back_whatever_a_stage_has_left(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "inside").write_text("whole", encoding="utf-8")
    with attack_stages.taken_away([tmp_path / "a"], tmp_path / "kept") as moved:
        assert not (tmp_path / "a").exists()
        assert [path for path, _ in attack_stages.pairs(moved)] == [tmp_path / "a" / "inside"]
        (tmp_path / "a").write_text("half", encoding="utf-8")
    assert (tmp_path / "a" / "inside").read_text() == "whole" and not (tmp_path / "kept").exists()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_folder_fails_as_often_as_it_should_and_nothing_else_does(tmp_path: Path) -> None:
    program = f"""
import os, sys
from benchmarks import attack_stages
attack_stages.PAUSE = 0
os.chdir({str(tmp_path)!r})
attack_stages.failing_folder(0.2, 7)
failed = []
for number in range(500):
    try:
        open("a", "w").close()
    except OSError as error:
        failed.append(error.errno)
    open("/dev/null").close()
print(len(failed), *sorted(set(failed)))
"""
    library = attack_stages.compiled(tmp_path)
    own = {attack_stages.SHIM: str(library), "LD_PRELOAD": str(library)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    count, *numbers = map(int, done.stdout.split())
    assert 60 < count < 140 and numbers == [5, 116], "EIO and ESTALE"
