"""Quality of generated cells against the time that the generator is trained: the trade-off behind the default run.

    snakemake --cores 2 -- results/demo/judge.safetensors results/demo/repeat0/fold0/arms/job0.json
    python -m benchmarks.quality_for_time --run-dir results/demo --steps 400 800 1600 3200
    python -m benchmarks.quality_for_time --run-dir results/demo --variants variants.yaml --out curve.csv

The stages themselves train, sample and assess every variant of a generator, in a process each. They use repeat 0, fold
0 of a run whose images, folds, judge and baseline are there. A variant is a list entry of YAML: `name`, and under
`generator` and `synthetic_set` the settings that differ from the config's first entries.

Printed, and written to --out, are:
    core-seconds of training and of sampling: user and system time of one process with one thread
    the independent judge's mean agreement with the labels, and its lowest AUC of a class
    Fréchet distance, precision and recall, each with its floor: held-out real cells"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.generator_data import ROOT, config
from workflow_scripts.lib.config import check, stage_views

COLUMNS = (
    "variant", "train_seconds", "sample_seconds", "agreement", "lowest_auc", "low_auc_classes", "frechet",
    "frechet_floor", "precision", "recall", "recall_floor",
)  # fmt: skip
LOW_AUC = 0.85


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--run-dir", type=Path, default=Path("results/demo"), help="a run with images, folds and judge")
    out.add_argument("--steps", type=int, nargs="*", default=[], help="train the config's first generator so long")
    out.add_argument("--variants", type=Path, help="further variants (YAML list)")
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--out", type=Path, help="table to write (CSV)")
    out.add_argument("--keep", type=Path, help="folder in which generators and synthetic sets are kept")
    return out.parse_args(argv)


def variants(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All variants, as entries with name, generator and synthetic_set."""
    listed = [{"name": f"{steps} steps", "generator": {"steps": steps}} for steps in args.steps]
    return listed + (yaml.safe_load(args.variants.read_text()) if args.variants else [])


def stage(name: str, settings: dict[str, Any], **flags: Any) -> float:
    """Run a stage with these settings and flags; its core-seconds."""
    command = [sys.executable, "-m", f"workflow_scripts.{name}", "--settings", json.dumps(settings)]
    for flag, value in flags.items():
        command += [f"--{flag.replace('_', '-')}", str(value)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        said = done.stderr.strip().splitlines()
        sys.exit(next((line for line in said if " failed: " in line), f"{name} failed: {said[-1:]}"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(variant: dict[str, Any], run: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Train, sample and assess one variant."""
    whole = check.check(config())
    generator = whole["generators"][0] | variant.get("generator", {})
    synthetic_set = whole["synthetic_sets"][0] | variant.get("synthetic_set", {})
    for entry in (generator, synthetic_set):
        entry.pop("regime", None)  # all labels
    fold = {"images": run / "images.h5", "folds": run / "repeat0/folds.csv", "repeat": 0, "fold": 0, "seed": seed}
    folder.mkdir(parents=True, exist_ok=True)
    weights, made = folder / "generator.safetensors", folder / f"{synthetic_set['name']}.h5"
    spent = {
        "train_seconds": stage(
            "train_ddpm", generator | {"threads": 1}, **fold, out=weights, history=folder / "history.csv"
        ),
        "sample_seconds": stage("sample_ddpm", synthetic_set | {"threads": 1}, **fold, generator=weights, out=made),
    }
    tables = {name: folder / f"{name}.csv" for name in ("scores", "fidelity", "closest", "each")}
    stage(
        "assess_synthetic",
        stage_views.assess_settings(whole) | {"threads": 1},
        **fold | tables,
        synthetic=made,
        judge=run / "judge.safetensors",
        baseline=run / "repeat0/fold0/arms/job0.json",
        about=folder / "about.json",
    )
    return {"variant": variant["name"]} | spent | quality(tables["scores"], tables["fidelity"])


def quality(scores: Path, fidelity: Path) -> dict[str, float]:
    """Figures of one synthetic set, from the tables of assess_synthetic."""
    judged = pd.read_csv(scores)
    auc = judged["auc_generated"].dropna()
    rows = pd.read_csv(fidelity).query("scope == 'all'")
    # The first encoder is the baseline; a second, independent one may follow.
    rows = rows[rows["encoder"] == rows["encoder"].iloc[0]].set_index(["measure", "contender"])["value"]
    return {
        "agreement": rows["agreement", "generated"],
        "lowest_auc": auc.min(),
        "low_auc_classes": int((auc < LOW_AUC).sum()),
        "frechet": rows["frechet", "generated"],
        "frechet_floor": rows["frechet", "floor"],
        "precision": rows["precision", "generated"],
        "recall": rows["recall", "generated"],
        "recall_floor": rows["recall", "floor"],
    }


def main(argv: list[str] | None = None) -> int:
    """Measure all variants; print and write the table."""
    args = parse_args(argv)
    rows = []
    for variant in variants(args):
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            folder = args.keep / variant["name"].replace(" ", "_") if args.keep else Path(place)
            row = measured(variant, args.run_dir.resolve(), folder.resolve(), args.seed)
        rows.append(row)
        told = ", ".join(f"{key} {value:.3g}" for key, value in row.items() if key != "variant")
        print(f"{row['variant']}: {told} ({time.monotonic() - started:.0f} s)", flush=True)
        if args.out:
            with args.out.open("w", newline="", encoding="utf-8") as handle:
                writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
