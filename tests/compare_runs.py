"""Compare what two runs measured: a change of structure or wording must leave every number as it was.

    git worktree add ../before COMMIT                                  # the version to compare with
    for OVERLAY in presets/ci.yaml tests/reference/short.yaml; do
        snakemake --cores 2 --configfile $OVERLAY                      # in both folders
    done
    snakemake --cores 2 --configfile presets/paper.yaml tests/reference/replay.yaml -- forensics paper
    python -m tests.compare_runs ../before/results results

Tables are compared byte by byte once renamed columns carry their present names. Same machine, same number of threads.
Exits with 1 when a number differs and prints the first differing line of each table."""

from __future__ import annotations

import argparse
import sys
from itertools import zip_longest
from pathlib import Path

RUNS = ("ci", "short", "replay")
TABLES = ("metrics.csv", "comparisons.csv", "thresholds.csv", "strata.csv", "study.csv", "forensics.csv")
# Columns that earlier versions called otherwise: old name, present name.
RENAMED = {"strategy": "arm", "plan": "synthetic_set"}


def lines(path: Path) -> list[str]:
    """The lines of a table, its header in present names."""
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    return [",".join(RENAMED.get(name, name) for name in header.split(",")), *rows]


def difference(before: Path, after: Path) -> str | None:
    """How two tables differ, in one line, or None."""
    if not before.is_file() or not after.is_file():
        return None if before.is_file() == after.is_file() else f"{before if after.is_file() else after} is missing"
    for number, (old, new) in enumerate(zip_longest(lines(before), lines(after)), 1):
        if old != new:
            return f"line {number}: {old!r} became {new!r}"
    return None


def main(argv: list[str] | None = None) -> int:
    """The program."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="folder of the runs before, as results")
    parser.add_argument("after", type=Path, help="folder of the runs after")
    parser.add_argument("--runs", nargs="+", default=RUNS)
    args = parser.parse_args(argv)
    differing = 0
    for run in args.runs:
        compared = [name for name in TABLES if (args.before / run / name).is_file()]
        for name in compared:
            found = difference(args.before / run / name, args.after / run / name)
            differing += found is not None
            print(f"{run}/{name}: {found or f'equal, {len(lines(args.before / run / name)) - 1} rows'}")
        if not compared:
            differing += 1
            print(f"{run}: nothing to compare in {args.before / run}")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
