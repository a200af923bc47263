"""How long splitting takes, and how even the folds are beside those of the package iterative-stratification.

    pip install iterative-stratification      # for the comparison alone; without it the rest is printed
    OMP_NUM_THREADS=1 python -m benchmarks.make_folds train.csv
    OMP_NUM_THREADS=1 python -m benchmarks.make_folds HPAv18.csv.gz --groups-from-id

A table has columns Id and Target (class numbers with blanks between them). With --groups-from-id an Id reads
gene_antibody_..., and images that share a gene or an antibody, through any chain, are one group; the package cannot
keep groups and splits the bare rows of the same table.

Seconds: the whole stage, from an image set with these rows to folds.csv, on one core. Deviation: mean over folds and
classes of the absolute difference between the class's share of a fold's test part and its fraction of all images."""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from workflow_scripts import make_folds
from workflow_scripts.lib.base import stage
from workflow_scripts.lib.images.grouping import connected
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.split import assignment
from workflow_scripts.lib.split.roles import Role

ROOT = Path(__file__).resolve().parents[1]

SIDE = 8  # pixels: only the labels matter here


def read_table(path: Path, groups_from_id: bool) -> tuple[list[str], np.ndarray, list[str]]:
    """Ids, labels (n, K) and groups of a label table."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as handle:
        rows = list({row["Id"]: row for row in csv.DictReader(handle)}.values())
    targets = [[int(kind) for kind in row["Target"].split()] for row in rows]
    labels = np.zeros((len(rows), 1 + max(max(target, default=0) for target in targets)), dtype=np.uint8)
    for number, target in enumerate(targets):
        labels[number, target] = 1
    ids = [row["Id"] for row in rows]
    if not groups_from_id:
        return ids, labels, ids
    parts = [name.split("_") for name in ids]
    return ids, labels, connected([[part[0] for part in parts], [part[1] for part in parts]], len(ids))


def run_stage(ids: list[str], labels: np.ndarray, groups: list[str], count: int) -> tuple[float, np.ndarray]:
    """Seconds of the stage, and the roles (n, folds)."""
    default = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["make_folds"]
    fractions = default["fractions"] | {"test": 1 / count, "calibration": 0.1, "validation": 0.1}
    settings = default | {"folds": count, "fractions": fractions}
    with tempfile.TemporaryDirectory() as folder:
        images, out = Path(folder) / "images.h5", Path(folder) / "folds.csv"
        with write_images(images, ["green"], [f"class {k}" for k in range(labels.shape[1])], SIDE) as writer:
            writer.append(np.zeros((len(ids), 1, SIDE, SIDE), dtype=np.uint8), labels, ids, groups)
        start = time.perf_counter()
        words = ["--images", str(images), "--out", str(out), "--repeat", "0", "--seed", "1"]
        make_folds.make_folds(make_folds.parse_args([*words, "--settings", json.dumps(settings)]))
        took = time.perf_counter() - start
        with out.open(encoding="utf-8") as handle:
            table = list(csv.DictReader(handle))
    return took, np.array([[row[f"fold{fold}"] for fold in range(count)] for row in table], dtype=object)


def deviation(labels: np.ndarray, tests: list[np.ndarray]) -> float:
    """Mean absolute difference of a class's share of a test part from its fraction of all images."""
    whole = labels.mean(0)
    return float(np.mean([np.abs(labels[rows].mean(0) - whole) for rows in tests]))


def rival(labels: np.ndarray, count: int) -> tuple[float, list[np.ndarray]] | None:
    """Seconds and test parts of iterative-stratification, if it is installed."""
    try:
        from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
    except ImportError:
        return None
    start = time.perf_counter()
    splitter = MultilabelStratifiedKFold(n_splits=count, shuffle=True, random_state=1)
    tests = [test for _, test in splitter.split(np.zeros(len(labels)), labels)]
    return time.perf_counter() - start, tests


def main(argv: list[str] | None = None) -> None:
    """Print the figures of one table."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("table", type=Path, help="CSV with Id and Target, perhaps with .gz")
    out.add_argument("--groups-from-id", action="store_true", help="Ids read gene_antibody_...")
    out.add_argument("--folds", type=int, default=5)
    args = out.parse_args(argv)
    stage.log.setLevel(logging.ERROR)
    ids, labels, groups = read_table(args.table, args.groups_from_id)
    took, roles = run_stage(ids, labels, groups, args.folds)
    ours = deviation(labels, [np.flatnonzero(roles[:, fold] == Role.TEST) for fold in range(args.folds)])
    print(f"{args.table.name}: {len(ids):,} images, {len(set(groups)):,} groups, {labels.shape[1]} classes")
    print(f"  make_folds                {took:6.1f} s  deviation {1e6 * ours:8.2f} e-6, {args.folds} folds of 4 roles")
    empty = [
        pair
        for fold in range(args.folds)
        for pair in assignment.missing(labels, roles[:, fold], [str(kind) for kind in range(labels.shape[1])])
    ]
    print(f"  classes without a positive in some role of some fold: {sorted({kind for kind, _ in empty}) or 'none'}")
    found = rival(labels, args.folds)
    if found is None:
        print("  iterative-stratification is not installed: no comparison")
        return
    took, tests = found
    theirs = deviation(labels, tests)
    print(f"  iterative-stratification  {took:6.1f} s  deviation {1e6 * theirs:8.2f} e-6, single images")
    print(f"  ratio of the deviations   {ours / theirs:6.2f}")


if __name__ == "__main__":
    main()
