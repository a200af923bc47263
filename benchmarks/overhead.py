"""What the workflow itself costs: wall-clock of the default run, beside the work that its jobs did.

    python -m benchmarks.overhead                                 # the default config on 2 cores, as results/overhead
    python -m benchmarks.overhead --rates benchmarks/rates.json   # the same, and keeps the rates it saw
    python -m benchmarks.overhead --finished results/demo         # reads a run that was made in one go

No schedule is faster than the longest chain of jobs that wait for each other, nor than all core-seconds spread over the
cores. The ratio of the wall-clock to the larger of the two is what planning, starting, waiting and an uneven end cost
(aim: at most 1.10). Python and its imports count as work: they are in every job's seconds.

--rates writes what `predict_cost` multiplies the work of other runs by; the machine should be idle."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from workflow_scripts.lib.base import machine
from workflow_scripts.lib.base.files import write_json
from workflow_scripts.lib.cost import measured_rates, scheduling
from workflow_scripts.lib.cost.workloads import Job

ROOT = Path(__file__).resolve().parents[1]
RUN = "overhead"
AIM = 1.10
ORIGIN = "the default run"


def run(cores: int, settings: list[str]) -> float:
    """Run the workflow from nothing; seconds of the whole program."""
    shutil.rmtree(ROOT / "results" / RUN, ignore_errors=True)
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--quiet", "all", "--config", f"run={RUN}"]
    started = time.monotonic()
    subprocess.run([*command, *settings], cwd=ROOT, check=True)  # noqa: S603 - our own interpreter
    return time.monotonic() - started


def measured(folder: Path) -> tuple[list[Job], dict[str, float], dict[str, float]]:
    """The jobs of a finished run that were timed, their seconds, and their core-seconds."""
    prediction = measured_rates.read_prediction(folder / "cost.json")
    if prediction is None:
        sys.exit(f"{folder} has no cost.json to tell how its jobs hang together: run it again")
    jobs, seconds, core = [], {}, {}
    for job in measured_rates.jobs_from_json(prediction["jobs"]):
        found = measured_rates.benchmark(folder / "benchmarks" / job.stage / f"{job.name}.tsv")
        if found is not None:
            jobs.append(job)
            seconds[job.key], used = found[0], found[2] or 0.0
            # Of several threads those that were busy; the sampling of short jobs misses much of their time.
            core[job.key] = max(found[0], min(used, job.threads * found[0]))
    return jobs, seconds, core


def span(folder: Path) -> float:
    """Seconds from the beginning of the first job to the end of the last one, by the dates of their files."""
    files = [(path.stat().st_mtime, measured_rates.benchmark(path)) for path in (folder / "benchmarks").rglob("*.tsv")]
    ends = [(end, found[0]) for end, found in files if found is not None]
    if not ends:
        sys.exit(f"{folder}/benchmarks has no benchmark file: run it again")
    return max(end for end, _ in ends) - min(end - seconds for end, seconds in ends)


def shown(jobs: list[Job], seconds: dict[str, float], core: dict[str, float], wall: float, cores: int) -> float:
    """Print the figures; the ratio."""
    path, spread = scheduling.critical_path(jobs, seconds), sum(core.values()) / cores
    best = scheduling.schedule(jobs, seconds, cores, 0)
    ratio = wall / max(path, spread)
    print(f"{len(jobs)} jobs on {cores} cores of {machine.described()}")
    print(f"wall-clock                      {wall:8.1f} s")
    print(f"core-seconds / cores            {spread:8.1f} s ({sum(core.values()):.1f} s together)")
    print(f"longest chain of jobs           {path:8.1f} s")
    print(f"the same jobs begun at once     {best:8.1f} s, each as soon as it can")
    verdict = "holds" if ratio <= AIM else "DOES NOT HOLD"
    print(f"ratio                           {ratio:8.3f} (aim: at most {AIM}: {verdict})")
    return ratio


def keep(folder: Path, path: Path) -> None:
    """Write the rates of a run as a file that predictions start from."""
    found = measured_rates.observed(folder)
    for entry in [*found.rates, *found.starts]:
        entry.run = ORIGIN
    about = f"python -m benchmarks.overhead --rates {path.name}, on {machine.described()}"
    write_json(path, found.to_json() | {"made_by": about})
    print(f"{path}: {len(found.rates)} rates of {len({rate.kind for rate in found.rates})} stages")


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--cores", type=int, default=2)
    out.add_argument("--finished", type=Path, help="folder of a run that is there, made in one go with so many cores")
    out.add_argument("--rates", type=Path, help="where to keep the rates")
    out.add_argument("settings", nargs="*", help="further words for --config, such as seed=2")
    args = out.parse_args(argv)
    wall = span(args.finished) if args.finished else run(args.cores, args.settings)
    folder = args.finished or ROOT / "results" / RUN
    shown(*measured(folder), wall, args.cores)
    if args.rates:
        keep(folder, args.rates)
    return 0


if __name__ == "__main__":
    sys.exit(main())
