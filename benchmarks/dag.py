"""How long Snakemake takes to plan a run of the size of a paper, and how much memory, beside one job for each arm.

    python -m benchmarks.dag                       # 5 repeats, 5 folds, 12 arms at 7 ratios, 6 synthetic sets
    python -m benchmarks.dag --repeats 1 --folds 2 --arms 2 --ratios 2 --synthetic-sets 1 --arms-per-job 8

A dry run of the workflow in this folder, with an overlay that lists so many arms; nothing is made. The number of
classes changes nothing here. The start of a job is measured too: the arms of a job must work twenty times as long."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FRACTION = 0.05  # of a job's time that may go into its start


def overlay(repeats: int, folds: int, arms: int, ratios: int, synthetic_sets: int, arms_per_job: int) -> dict[str, Any]:
    """Settings of a run with a baseline and `arms` x `ratios` arms, `arms_per_job` of them a job."""
    drawn = {"generator": "unet", "labels": "as_train", "sampler": "dpmpp_2m", "evaluations": 20, "clip": True}
    drawn |= {"count": 5000, "batch": 125, "guidance": {"scale": 1.5, "interval": [0.2, 20]}}
    entries = [
        {
            "name": f"pool{kind}_{step}",
            "method": "pool",
            "synthetic_set": f"set{kind % synthetic_sets}",
            "ratio": 0.25 * (step + 1),
        }
        for kind in range(arms)
        for step in range(ratios)
    ]
    return {
        "run": "dag",
        "make_folds": {"repeats": repeats, "folds": folds, "fractions": {"test": 0.2}},
        "synthetic_sets": [{"name": f"set{number}"} | drawn for number in range(synthetic_sets)],
        "arms": [{"name": "real_only", "method": "real_only"}, *entries],
        "analysis": {"primary_arm": entries[0]["name"]},
        "compute": {"arms_per_job": arms_per_job},
    }


# Snakemake, and at its end the peak of the memory of this very program: what the system keeps of a child's resources
# includes the memory of the one that started it.
WATCHED = """
import re, runpy, sys
try:
    runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
finally:
    print("peak kB", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], flush=True)
"""


def planned(settings: dict[str, Any]) -> tuple[float, float, int]:
    """Seconds of CPU and MB of a dry run, which is one process with one thread, and the jobs that it plans."""
    with tempfile.TemporaryDirectory() as folder:
        preset = Path(folder) / "paper_scale.yaml"
        preset.write_text(json.dumps(settings))  # JSON is YAML
        options = ["--dry-run", "--quiet", "rules", "--cores", "1", "--nolock", "--configfile", str(preset)]
        before = os.times()
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", WATCHED, *options],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        after = os.times()
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:])
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    peak, total = re.search(r"^peak kB (\d+)", done.stdout, re.M), re.search(r"^total\s+(\d+)", done.stdout, re.M)
    return seconds, int(peak[1]) / 1024, int(total[1]) if total else 0


def start() -> float:
    """Seconds of CPU until a job of the classifier begins its work: Python and all that it imports."""
    before = os.times()
    command = [sys.executable, "-m", "workflow_scripts.train_classifier", "--help"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # noqa: S603 - our own interpreter
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("repeats", 5), ("folds", 5), ("arms", 12), ("ratios", 7), ("synthetic-sets", 6)):
        out.add_argument(f"--{name}", type=int, default=value)
    out.add_argument("--arms-per-job", type=int, nargs="+", default=[8, 1], help="arms a job")
    args = out.parse_args(argv)
    sizes = (args.repeats, args.folds, args.arms, args.ratios, args.synthetic_sets)
    count = args.repeats * args.folds * (1 + args.arms * args.ratios)
    made = min(args.synthetic_sets, args.arms) * args.repeats * args.folds
    print(f"{count} arms in folds, {made} synthetic sets")
    for count in args.arms_per_job:
        seconds, megabytes, jobs = planned(overlay(*sizes, count))
        print(f"{count} arms a job: {jobs} jobs planned in {seconds:.1f} s of CPU with {megabytes:.0f} MB")
    begins = start()
    print(
        f"a job starts in {begins:.1f} s of CPU: at most {FRACTION:.0%} if its arms take "
        f"{begins / FRACTION:.0f} s together"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
