"""The whole workflow at the size of the reference study, with a handful of steps: what each stage takes.

    OMP_NUM_THREADS=1 python -m benchmarks.study_size --folder KEEP --out table.csv
    OMP_NUM_THREADS=1 python -m benchmarks.study_size --images 2000 --generated 700      # minutes

31,072 images of 128 px, four channels and 28 classes that occur together as in the Kaggle 2018 table, 10,752 generated
images for each synthetic set, the classifiers ResNet-18 and `small`, each as baseline, with pooling and with its
control. One repeat of two folds is run. 5 repeats of 5 folds, with the study's steps, are only planned and predicted.

The images are the channels of a few hundred noisy pictures in other combinations; their files share their blocks. The
label table is drawn by the program, or given (`--table`). The real images are not needed.

Made small: the generator (patches of a sixteenth of the side, two resolutions of 32 and 64 channels), its 10
evaluations an image without guidance, and all steps of training (`--steps`). So seconds of training and sampling say
nothing about the study. Memory, disk, the seconds of all other stages and the size of the page do.

Each stage has one thread. The table lists jobs, seconds of the longest and of all, their processor time, the most
memory that a job has held, and the disk that their files take. Ends with exit status 1 where a job fails, or where
report.html has 10 MB or more."""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from benchmarks import study_labels
from benchmarks.dag import planned
from benchmarks.preprocess_images import make_folder
from workflow_scripts.lib.base.progress import duration
from workflow_scripts.lib.cost import disk_use, measured_rates

ROOT = Path(__file__).resolve().parents[1]
RUN, PLAN = "study_size", "study_size_plan"
DISTINCT = 500  # pictures that are drawn
AIM = 10.0  # MB of report.html
BACKBONES = ("resnet18", "small")  # the first one's arm `pool` is the primary arm


@dataclass
class Taken:
    """What the jobs of a stage took; of files that no single stage wrote, only their disk."""

    stage: str
    jobs: int = 0
    longest: float = 0.0  # seconds
    together: float = 0.0
    cpu: float = 0.0  # seconds of processor time of all jobs, as Snakemake saw it
    memory: int = 0  # MB
    disk: int = 0  # bytes

    def line(self) -> str:
        """As it is printed."""
        seconds = f"{self.longest:9.1f} {self.together:9.1f} {self.cpu:9.1f}"
        told = f"{self.jobs:5d} {seconds} {self.memory:7d}" if self.jobs else " " * 43
        return f"{self.stage:40} {told} {self.disk / 1e6:10.1f}"


# The run --------------------------------------------------------------------------------------------------------------


def generator(size: int, steps: int) -> dict[str, Any]:
    """A U-Net that sees 16 x 16 patches."""
    return {
        "base": "unet",
        "widths": [32, 64],
        "blocks": [1, 1],
        "patch": size // 16,
        "steps": steps,
        "batch": 32,
    }


def arms() -> list[dict[str, Any]]:
    """Of each backbone a baseline, pooling, and its control."""
    out = []
    for backbone in BACKBONES:
        common = {"backbone": backbone, "synthetic_set": "balanced", "baseline": f"real_{backbone}"}
        out += [
            {"name": f"real_{backbone}", "method": "real_only", "backbone": backbone},
            {"name": f"pool_{backbone}", "method": "pool", "control": f"resample_{backbone}"} | common,
            {"name": f"resample_{backbone}", "method": "resample_real"} | common,
        ]
    return out


def settings(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The config of the run, without what is the default."""
    drawn = {"base": "balanced", "count": args.generated, "evaluations": 10, "batch": 128}
    return {
        "run": RUN,
        "data": {
            "source": "folder",
            "images": str(folder / "set" / "train"),
            "table": str(folder / "set" / "labels.csv"),
            "class_names": "kaggle_2018",
        },
        "preprocess_images": {"size": args.size},
        "make_folds": {
            "repeats": args.repeats,
            "folds": args.folds,
            "fractions": {"test": 0.2, "calibration": 0.1, "validation": 0.07},
        },
        "generators": [generator(args.size, args.steps)],
        "synthetic_sets": [drawn | {"guidance": {"scale": 1, "interval": [0.2, 20], "against": None}}],
        "train_classifier": {"steps": args.steps, "batch": 64, "checkpoints": 1},
        "arms": arms(),
        "analysis": {"baseline": f"real_{BACKBONES[0]}", "primary_arm": f"pool_{BACKBONES[0]}"},
        "compute": {"threads": 1},
    }


def plan(config: dict[str, Any], repeats: int, folds: int, steps: int) -> dict[str, Any]:
    """The same with the study's repeats, folds and steps."""
    return config | {
        "run": PLAN,
        "make_folds": config["make_folds"] | {"repeats": repeats, "folds": folds},
        "generators": [entry | {"steps": steps} for entry in config["generators"]],
        "train_classifier": config["train_classifier"] | {"steps": steps},
    }


def snakemake(folder: Path, config: dict[str, Any], cores: int, *words: str) -> bool:
    """Run the workflow in a folder; whether all jobs have ended well. What it prints goes to a file there."""
    overlay = folder / f"{config['run']}.yaml"
    overlay.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(overlay), "--cores", str(cores), "--keep-going", "--rerun-incomplete"]
    # Jobs call `python`.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"PATH": path}
    with (folder / "printed.txt").open("a", encoding="utf-8") as told:
        done = subprocess.run([*command, *words], cwd=folder, env=environment, stdout=told, stderr=told)  # noqa: S603
    return done.returncode == 0


def make_images(args: argparse.Namespace, folder: Path) -> None:
    """The pictures and the label table; pictures that are there are used again."""
    if not (folder / "set" / "train.csv").exists():
        make_folder(folder / "set", args.images, args.size, distinct=DISTINCT)
    table = folder / "set" / "labels.csv"
    if not table.exists():
        if args.table:
            study_labels.copy(table, args.images, args.table)
        else:
            study_labels.write(table, args.images, args.images_a_protein, args.seed)


# What it took ---------------------------------------------------------------------------------------------------------


def measured(run: Path) -> list[Taken]:
    """The stages of a run in the order in which their first jobs ended, then files of no single stage."""
    found: dict[str, Taken] = {}
    for path in sorted((run / "benchmarks").rglob("*.tsv"), key=lambda path: path.stat().st_mtime):
        stage = path.parent.name
        seconds = measured_rates.benchmark(path)
        log = (run / "logs" / stage / f"{path.stem}.log").read_text(encoding="utf-8")
        if seconds is None:
            continue
        row = found.setdefault(stage, Taken(stage))
        row.jobs, row.longest, row.together = row.jobs + 1, max(row.longest, seconds[0]), row.together + seconds[0]
        row.cpu += seconds[2] or 0.0
        row.memory = max(row.memory, *map(int, measured_rates.MEMORY.findall(log)), 0)
    others: dict[str, Taken] = {}
    for file in disk_use.files_of(run):
        writers = [stage for stage in found if any(fnmatch(stage, name) for name in file.part.stage.split(", "))]
        row = found[writers[0]] if len(writers) == 1 else None
        name = f"{file.part.stage}: {file.part.what}"
        row = row or others.setdefault(name, Taken(name))
        row.disk += file.bytes
    return [*found.values(), *others.values()]


def shown(rows: list[Taken], run: Path) -> bool:
    """Print the table and the size of the page; whether that is as aimed at."""
    print(f"{'stage':40} {'jobs':>5} {'longest s':>9} {'all s':>9} {'CPU s':>9} {'MB':>7} {'disk MB':>10}")
    for row in rows:
        print(row.line())
    page = run / "report.html"
    size = page.stat().st_size / 1e6 if page.is_file() else None
    holds = size is not None and size < AIM
    told = "not made" if size is None else f"{size:.1f} MB"
    print(f"report.html: {told} (aim: under {AIM:g} MB: {'holds' if holds else 'DOES NOT HOLD'})", flush=True)
    return holds


def write(path: Path, rows: list[Taken]) -> None:
    """Write the table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow([field.name for field in fields(Taken)])
        writer.writerows(astuple(row) for row in rows)


def show_plan(folder: Path, config: dict[str, Any], cores: int) -> bool:
    """Print how long planning takes and what the prediction says; whether both could be made."""
    seconds, megabytes, jobs = planned(config)
    print(f"planned: {jobs} jobs in {seconds:.1f} s of CPU with {megabytes:.0f} MB")
    if not snakemake(folder, config, cores, "cost"):
        return False
    log = (folder / "results" / PLAN / "logs" / "predict_cost" / "predict_cost.log").read_text(encoding="utf-8")
    # The last start of the program counts; its lines begin with date, time and level.
    lines = [re.sub(r"^\S+ \S+ \w+ ", "", line) for line in log.splitlines()]
    first = max((place for place, line in enumerate(lines) if ", process " in line), default=0)
    print("\n".join(lines[first + 1 : -2]), flush=True)
    return True


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"images": 31_072, "generated": 10_752, "size": 128, "repeats": 1, "folds": 2, "steps": 10, "cores": 1}
    sizes |= {"images-a-protein": 5, "plan-repeats": 5, "plan-folds": 5, "plan-steps": 20_000}
    sizes |= {"seed": 1}
    for name, value in sizes.items():
        out.add_argument(f"--{name}", type=int, default=value, help=f"default: {value}")
    out.add_argument("--table", type=Path, help="label table with the columns Id and Target, and perhaps gene")
    out.add_argument("--folder", type=Path, help="work here and keep it; what it holds already is not made again")
    out.add_argument("--out", type=Path, help="where to write the table of stages (CSV)")
    out.add_argument("--no-plan", action="store_true", help="leave out what is only planned")
    return out.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    args = parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mixloc-study-") as name:
        folder = (args.folder or Path(name)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        make_images(args, folder)
        print(f"pictures and table in {duration(time.monotonic() - started)}", flush=True)
        config, started, run = settings(args, folder), time.monotonic(), folder / "results" / RUN
        good = snakemake(folder, config, args.cores)
        print(f"wall-clock on {args.cores} cores: {duration(time.monotonic() - started)}")
        rows = measured(run)
        good &= shown(rows, run)
        if args.out:
            write(args.out, rows)
        if good and not args.no_plan:
            good &= show_plan(folder, plan(config, args.plan_repeats, args.plan_folds, args.plan_steps), args.cores)
        if not good:
            print((folder / "printed.txt").read_text(encoding="utf-8")[-3000:], file=sys.stderr)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
