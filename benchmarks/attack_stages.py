"""Each stage with little memory, on a folder that fails, on a full disk: one line, whole outputs, equal on retry.

    python -m benchmarks.attack_stages                        # the tiny preset; needs a C compiler for the folder
    python -m benchmarks.attack_stages --run FOLDER --tries 20 --seed 2 --only train_ddpm

A finished run is made first, or named by --run: a folder in which Snakemake has finished, with its `results/`. One job
of each stage is then attacked, in a process forked from this one, its outputs taken away:

- memory: its address space may grow by few megabytes only (RLIMIT_AS)
- folder: opening, renaming, flushing of files and making of folders take a while, and fail at random with EIO or ESTALE
  (benchmarks/network_folder.c)
- disk: in the folder a fraction of what the job writes finds room, then writing fails with ENOSPC (the same library)

A stage that fails must say so in one line, and leave each output absent or whole. At last it runs in peace, from
whatever the attacks have left, and its outputs must be those of the finished run. Files of the run are changed and put
back. Ends with exit status 1 if anything else was found."""

from __future__ import annotations

import os

# Before torch is imported: a process with several threads cannot be forked soundly.
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import atexit
import contextlib
import ctypes
import importlib
import json
import random
import re
import resource
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import run_contents
from benchmarks.kill_runs import Workflow

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 300  # seconds for a stage, after which it counts as a hang
MEGABYTES = (1, 8, 32, 128)  # that the address space may grow by
FAULTS = (0.02, 0.1, 0.3)  # fractions of calls that fail
ROOM = (0.0, 0.3, 0.6, 0.9)  # fractions of the bytes of its outputs that a job finds room for
PAUSE = 2000  # microseconds that a call on the slow folder takes
SHIM = "MIXLOC_NETWORK_FOLDER"  # the environment variable with the path of the library
# Imported once, before the stages are forked.
LIBRARIES = ("torch._dynamo", "workflow_scripts.lib.classify.torchvision_models", "matplotlib.backends.backend_pdf",
             "matplotlib.backends.backend_svg", "scipy.stats", "sklearn.linear_model", "skimage", "jinja2")  # fmt: skip
COMMAND = re.compile(r"-m workflow_scripts\.(\w+) (.*)")
OUTPUT = re.compile(r"^\s+output: (.*)")
# More than one line, however it came about.
LOUD = re.compile(r"Traceback|Logging error|Exception ignored|terminate called|Segmentation|^Error in", re.MULTILINE)


@dataclass
class Job:
    """One job of a stage: its command line, and the files that Snakemake expects of it."""

    stage: str
    words: list[str]
    outputs: list[Path]


@dataclass
class Found:
    """What became of a stage."""

    stage: str
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)  # the line of each kind of attack


def jobs_of(printed: str) -> list[Job]:
    """The first job of each stage in what `snakemake --dry-run --printshellcmds` prints."""
    out: dict[str, Job] = {}
    outputs: list[Path] = []
    for line in printed.splitlines():
        if names := OUTPUT.match(line):
            outputs = [Path(name.strip()) for name in names[1].split(", ")]
        elif (command := COMMAND.search(line)) and command[1] not in out:
            out[command[1]] = Job(command[1], shlex.split(command[2]), outputs)
    return list(out.values())


def files_of(job: Job) -> list[Path]:
    """Files and folders that a stage writes: its outputs, and beside a list of arms the folders of those."""
    beside = []
    for path in job.outputs:
        if job.stage == "train_classifier" and path.suffix == ".json":
            arms = json.loads(path.read_text(encoding="utf-8"))["arms"]
            beside += [path.parent / entry["arm"] for entry in arms]
    return [*job.outputs, *beside]


@contextlib.contextmanager
def taken_away(paths: Iterable[Path], kept: Path) -> Iterable[list[tuple[Path, Path]]]:
    """Move files and folders elsewhere while the block runs, and back over whatever it has left."""
    moved = [(path, kept / f"{number}" / path.name) for number, path in enumerate(paths)]
    for path, place in moved:
        place.parent.mkdir(parents=True)
        shutil.move(path, place)
    try:
        yield moved
    finally:
        for path, place in moved:
            remove(path)
            shutil.move(place, path)
        shutil.rmtree(kept)


def remove(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def whole_files(paths: Iterable[Path]) -> list[Path]:
    """The files among these paths, and below the folders among them, without Snakemake's own notes."""
    found = [item for path in paths for item in (path.rglob("*") if path.is_dir() else [path])]
    return [path for path in found if path.is_file() and not path.name.startswith(".snakemake")]


def pairs(moved: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """Each file that was there, with the place where it is kept."""
    return [(path / item.relative_to(place), item) for path, place in moved for item in whole_files([place])]


# Attacks ------------------------------------------------------------------------------------------------------------


def little_memory(megabytes: int) -> None:
    """Let the address space of this process grow by so much and no more."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (megabytes << 20), resource.RLIM_INFINITY))


def failing_folder(chance: float, seed: int) -> None:
    """Let calls on files below the working directory fail at random from now on."""
    fails = ctypes.CDLL(os.environ[SHIM]).folder_fails
    fails.argtypes = [ctypes.c_char_p, ctypes.c_double, ctypes.c_uint, ctypes.c_uint]
    fails(str(Path.cwd()).encode(), chance, seed, PAUSE)


def full_disk(room: int) -> None:
    """Let writing files below the working directory fail after so many bytes."""
    fills = ctypes.CDLL(os.environ[SHIM]).folder_full
    fills.argtypes = [ctypes.c_char_p, ctypes.c_longlong]
    fills(str(Path.cwd()).encode(), room)


def compiled(folder: Path) -> Path | None:
    """The library of the folder that fails or is full; None without a C compiler."""
    compiler, library = shutil.which("cc"), folder / "network_folder.so"
    if compiler is None:
        return None
    source = ROOT / "benchmarks" / "network_folder.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)  # noqa: S603
    return library


# Running ------------------------------------------------------------------------------------------------------------


def run(job: Job, attack: Callable[[], None], told: Path) -> int:
    """The exit status of a stage in a fork of this process, negative for a signal; what it prints is in `told`."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _stage(job, attack, told)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _stage(job: Job, attack: Callable[[], None], told: Path) -> None:
    status = 1
    try:
        signal.alarm(LONGEST)
        atexit._clear()  # what this program leaves behind at its own end
        target = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(target, number)
        sys.argv[:] = [job.stage, *job.words]
        attack()
        try:
            runpy.run_module(f"workflow_scripts.{job.stage}", run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            status = ended.code or 0 if isinstance(ended.code, int | None) else 1
        threading._shutdown()
        atexit._run_exitfuncs()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def judged(
    job: Job, status: int, text: str, moved: list[tuple[Path, Path]], may_die: bool = False
) -> tuple[list[str], str]:
    """What is wrong about how a stage has ended, and the line in which it says so.

    Without memory a library may abort the process. Then Snakemake's last lines say what to do, as after a kill."""
    died = status < 0 and may_die
    problems = []
    lines = [line for line in text.splitlines() if line.startswith(f"{job.stage} failed: ")]
    if status < 0 and not died:
        problems.append(f"ended by {signal.Signals(-status).name}")
    elif status > 0 and len(lines) != 1:
        problems.append(f"{len(lines)} lines say that it failed")
    if LOUD.search(text) and not died:
        problems.append("more than one line")
    for path, place in pairs(moved):
        timed = run_contents.TIMES.search(str(path))  # tells times, which differ
        if path.exists() and not timed and not run_contents.same(path, place):
            problems.append(f"{path} is neither absent nor whole")
        elif status == 0 and not path.exists():
            problems.append(f"ended well without {path}")
    told = lines[0] if lines else ""
    if problems:
        problems.append(text[-2000:])
    return problems, told


def attacked(job: Job, attacks: list[tuple[str, Callable[[], None]]], scratch: Path) -> Found:
    """Attack a stage one time after the other, then let it run in peace."""
    found = Found(job.stage)
    told = scratch / "told.txt"
    with taken_away(files_of(job), scratch / "kept") as moved:
        for name, attack in [*attacks, ("peace", lambda: None)]:
            for path in job.outputs:  # as Snakemake does before a job
                remove(path)
            status = run(job, attack, told)
            text = told.read_text(encoding="utf-8", errors="replace")
            problems, line = judged(job, status, text, moved, may_die=name == "memory")
            if name == "peace":
                if status:
                    problems = problems or [f"did not end well in peace: {text[-3000:]}"]
                folders = {path.parent for path in job.outputs}
                left = [path for place in folders for path in place.iterdir() if ".part" in path.name]
                problems += [f"left behind: {path}" for path in left]
            how = "ended well" if not status else "failed in one line" if status > 0 else "aborted by a library"
            found.outcomes[f"{name}: {how}"] += 1
            found.problems += [f"{name}: {problem}" for problem in problems]
            if line:
                found.said[name] = line
    return found


def attacks_of(stage: str, tries: int, seed: int, folder: bool, size: int) -> list[tuple[str, Callable[[], None]]]:
    """So many attacks of each kind, the same for the same seed, on a job that writes files of this size in all."""
    rng = random.Random(f"{seed} {stage}")
    out: list[tuple[str, Callable[[], None]]] = []
    for number in range(tries):
        most = MEGABYTES[number % len(MEGABYTES)]
        out.append(("memory", lambda most=most: little_memory(most)))
        if folder:
            chance, drawn = FAULTS[number % len(FAULTS)], rng.randrange(1 << 30)
            out.append(("folder", lambda chance=chance, drawn=drawn: failing_folder(chance, drawn)))
            room = int(ROOM[number % len(ROOM)] * size)
            out.append(("disk", lambda room=room: full_disk(room)))
    return out


def attack_all(run_folder: Path, jobs: list[Job], tries: int, seed: int) -> list[Found]:
    """Attack each of the jobs, in the folder of the run; every import is done before."""
    for name in (*LIBRARIES, *(f"workflow_scripts.{job.stage}" for job in jobs)):
        importlib.import_module(name)
    for job in jobs:  # each is run as a program: it must not find itself imported
        sys.modules.pop(f"workflow_scripts.{job.stage}", None)
    os.chdir(run_folder)
    out = []
    with tempfile.TemporaryDirectory(prefix="mixloc-attack-") as scratch:
        for job in jobs:
            started = time.monotonic()
            size = sum(path.stat().st_size for path in whole_files(files_of(job)))
            found = attacked(job, attacks_of(job.stage, tries, seed, SHIM in os.environ, size), Path(scratch))
            out.append(found)
            outcomes = ", ".join(f"{count} {what}" for what, count in sorted(found.outcomes.items()))
            state = "ok" if not found.problems else f"{len(found.problems)} PROBLEMS"
            print(f"{job.stage}: {outcomes}: {state}; {time.monotonic() - started:.1f} s", flush=True)
            for line in found.problems:
                print(f"  {line}", flush=True)
    return out


def planned(workflow: Workflow, folder: Path) -> list[Job]:
    """One job of each stage of a finished run."""
    command = workflow.command(folder, "--dry-run", "--printshellcmds", "--forceall")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    return jobs_of(done.stdout)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--run", type=Path, help="folder of a finished run; without it one is made")
    out.add_argument("--configfile", type=Path, nargs="*", default=[ROOT / "presets" / "ci.yaml"])
    out.add_argument("--plan", type=Path, help="what a dry run with all jobs has printed; without it one is made")
    out.add_argument("--tries", type=int, default=4, help="attacks of each kind")
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--only", nargs="*", help="stages")
    out.add_argument("--out", type=Path, help="JSON file of what was found")
    args = out.parse_args(argv)
    if SHIM not in os.environ:
        return preloaded(sys.argv[1:] if argv is None else argv)
    with contextlib.ExitStack() as stack:
        made = args.run or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mixloc-attacked-")))
        workflow = Workflow([path.resolve() for path in args.configfile], 2)
        if args.run is None:
            workflow.finish(made)
        jobs = jobs_of(args.plan.read_text(encoding="utf-8")) if args.plan else planned(workflow, made)
        jobs = [job for job in jobs if args.only is None or job.stage in args.only]
        place = args.out.resolve() if args.out else None
        if not os.environ[SHIM]:
            del os.environ[SHIM]
            print("no C compiler: the failing folder and the full disk are left out")
        found = attack_all(made.resolve(), jobs, args.tries, args.seed)
        os.chdir(ROOT)
    if place:
        place.write_text(json.dumps([vars(one) for one in found]), encoding="utf-8")
    outcomes = sum((one.outcomes for one in found), Counter())
    print(f"{len(found)} stages: " + ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items())))
    return int(any(one.problems for one in found))


def preloaded(words: list[str]) -> int:
    """This program again with the library of the failing folder, which must be there from the start."""
    with tempfile.TemporaryDirectory(prefix="mixloc-shim-") as name:
        library = compiled(Path(name))
        own = {SHIM: str(library or "")} | ({"LD_PRELOAD": str(library)} if library else {})
        command = [sys.executable, "-m", "benchmarks.attack_stages", *words]
        return subprocess.run(command, env=os.environ | own).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
