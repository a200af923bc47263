"""Random SIGKILLs over whole runs, Snakemake included: is every file that of an undisturbed run?

    python -m benchmarks.kill_runs --minutes 60                                      # the default config
    python -m benchmarks.kill_runs --configfile presets/ci.yaml --minutes 10 --mean-interval 20

One run is made undisturbed. Others are killed again and again at random moments, and started anew, until they have
ended. A kill takes everything (as when a machine goes down), Snakemake alone (its jobs go on by themselves), or one job
(as the system does when memory is short). After the time is up, the last run is left in peace until it has ended.

Compared are all files but logs, benchmarks, and the page and the prediction of costs, which tell times; in the other
files, values that are times. Afterwards nothing half-written may be left, and a dry run must find nothing to do.

Ends with exit status 1 if anything differs, or if a run fails by itself."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import run_contents

ROOT = Path(__file__).resolve().parent.parent
# What a kill takes, and how often.
KINDS = {"everything": 0.6, "Snakemake alone": 0.2, "one job": 0.2}
STAGE = "workflow_scripts."


class FailedByItself(Exception):
    """A run that ended with an error though nothing of it was killed."""


@dataclass
class Tally:
    """What was done, and what came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    runs: int = 0
    compared: int = 0
    different: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The result as it is printed."""
        kinds = ", ".join(f"{self.kills[kind]} {kind}" for kind in KINDS)
        return [
            f"kills: {self.kills.total()} ({kinds})",
            f"restarts: {self.restarts}",
            f"runs finished: {self.runs}",
            f"files compared: {self.compared}",
            f"files different: {len(self.different)}",
            *(f"  {line}" for line in self.different[:20]),
        ]


@dataclass
class Workflow:
    """The command line of a run in a folder."""

    configfiles: Sequence[Path]
    cores: int

    def command(self, folder: Path, *more: str) -> list[str]:
        """As a user would start it, in a folder of its own."""
        overlays = ["--configfile", *map(str, self.configfiles)] if self.configfiles else []
        start = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--directory", str(folder)]
        return [*start, "--cores", str(self.cores), "--rerun-incomplete", *more, *overlays]

    def start(self, folder: Path, *more: str) -> subprocess.Popen[bytes]:
        """Start it in a session of its own; what it prints is added to `printed.txt`."""
        folder.mkdir(exist_ok=True)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        own = {"PATH": path, "MIXLOC_CHECKPOINT_SECONDS": os.environ.get("MIXLOC_CHECKPOINT_SECONDS", "1")}
        with (folder / "printed.txt").open("ab") as printed:
            return subprocess.Popen(  # noqa: S603
                self.command(folder, *more), cwd=ROOT, env=os.environ | own, stdout=printed, stderr=printed,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def finish(self, folder: Path, *more: str) -> None:
        """Start it and wait until it has ended well."""
        if self.start(folder, *more).wait():
            raise FailedByItself(printed(folder))


def printed(folder: Path, most: int = 3000) -> str:
    """The last that a run has printed."""
    return (folder / "printed.txt").read_text(encoding="utf-8", errors="replace")[-most:]


def picked(rng: random.Random) -> str:
    """What the next kill takes."""
    return rng.choices(list(KINDS), list(KINDS.values()))[0]


def stages_of(groups: set[int]) -> list[int]:
    """Numbers of the processes of stages in these process groups."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            pid = int(entry.name)
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if os.getpgid(pid) in groups and b"python" in words[0] and any(STAGE.encode() in word for word in words):
                found.append(pid)
        except (ValueError, OSError):
            continue  # no process, or one that has just ended
    return found


def kill_group(group: int) -> None:
    """SIGKILL to a process group, if there is anything left of it."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def kill(process: subprocess.Popen[bytes], groups: set[int], kind: str, rng: random.Random) -> bool:
    """Kill what `kind` says; False where there was no job to kill."""
    if kind == "one job":
        jobs = stages_of(groups)
        if not jobs:
            return False
        try:
            os.kill(rng.choice(jobs), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True
    if kind == "everything":
        for group in groups:
            kill_group(group)
        groups.clear()
    else:
        process.kill()
    process.wait()
    return True


def disturbed(workflow: Workflow, folder: Path, rng: random.Random, mean: float, until: float, tally: Tally) -> None:
    """One run from its start to its end, killed again and again until the time is up."""
    groups: set[int] = set()
    while True:
        process = workflow.start(folder)
        groups.add(process.pid)
        killed_job = False
        while process.poll() is None:
            pause = rng.expovariate(1 / mean)
            if time.monotonic() + pause > until:
                process.wait()
                break
            try:
                process.wait(pause)
            except subprocess.TimeoutExpired:
                kind = picked(rng)
                if kill(process, groups, kind, rng):
                    tally.kills[kind] += 1
                    killed_job = killed_job or kind == "one job"
        if process.returncode == 0:
            break
        if process.returncode > 0 and not killed_job:
            raise FailedByItself(printed(folder))
        tally.restarts += 1
        workflow.finish(folder, "--unlock")
    for group in groups:  # orphans that have nothing more to do
        kill_group(group)


def nothing_to_do(workflow: Workflow, folder: Path) -> bool:
    """Whether Snakemake would run no job any more."""
    command = workflow.command(folder, "--dry-run")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    return done.returncode == 0 and "Nothing to be done" in done.stdout + done.stderr


def compare(workflow: Workflow, wanted: Path, found: Path, tally: Tally) -> list[str]:
    """Add what is different to the tally, and return it."""
    compared, different = run_contents.differences(wanted / "results", found / "results")
    if not nothing_to_do(workflow, found):
        different.append("a dry run would make files again")
    tally.compared += compared
    tally.different += [f"{found.name}/{line}" for line in different]
    tally.runs += 1
    return different


def main(argv: list[str] | None = None) -> int:
    """The program."""
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--configfile", type=Path, nargs="*", default=[], help="overlays of config.yaml, as for Snakemake")
    out.add_argument("--minutes", type=float, default=120, help="for how long runs are killed")
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--mean-interval", type=float, default=60, help="mean time to a kill, in seconds")
    out.add_argument("--cores", type=int, default=2)
    out.add_argument("--folder", type=Path, help="work here and keep it, with its undisturbed run")
    args = out.parse_args(argv)
    folder = (args.folder or Path(tempfile.mkdtemp(prefix="mixloc-kill-runs-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    workflow = Workflow([path.resolve() for path in args.configfile], args.cores)
    tally, rng = Tally(), random.Random(args.seed)
    failed = ""
    try:
        started = time.monotonic()
        workflow.finish(folder / "undisturbed")
        print(f"undisturbed: {time.monotonic() - started:.0f} s", flush=True)
        until = time.monotonic() + 60 * args.minutes
        while time.monotonic() < until:
            again = folder / f"killed{tally.runs}"
            disturbed(workflow, again, rng, args.mean_interval, until, tally)
            different = compare(workflow, folder / "undisturbed", again, tally)
            print(f"{again.name}: {tally.kills.total()} kills so far, {len(different)} different", flush=True)
            if not different:
                shutil.rmtree(again)
    except FailedByItself as error:
        failed = str(error)
        print(f"A RUN FAILED BY ITSELF\n{failed}")
    print("\n".join(tally.lines()))
    sound = not failed and not tally.different
    if args.folder is None and sound:
        shutil.rmtree(folder)
    elif not sound:
        print(f"kept: {folder}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
