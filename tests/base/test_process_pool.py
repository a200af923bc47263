"""Processes of a pool do not outlive the one that they work for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.helpers.checkout import wait_for

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, time
from workflow_scripts.lib.base import process_pool

if __name__ == "__main__":
    with process_pool.pool(2) as pool:
        print(*{pool.submit(os.getpid).result() for _ in range(50)}, flush=True)
        pool.submit(time.sleep, 1000)
        pool.submit(time.sleep, 1000)
"""


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has buried has no command line any more."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_end_with_the_process_that_was_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(program)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    pids = [int(word) for word in process.stdout.readline().split()]
    assert pids and all(map(lives, pids))
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(map(lives, pids)), seconds=20)
