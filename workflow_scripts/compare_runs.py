"""compare_runs: two finished runs on one self-contained page: settings that differ, verdicts, scores, pictures.

Example:
    python -m workflow_scripts.compare_runs --runs first=results/first second=results/second \\
        --template workflow_scripts/lib/page/comparison.html --out results/compare/first_second.html --settings '{}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.page import html_page, run_comparison


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--runs", nargs=2, required=True, metavar="NAME=FOLDER", help="the two runs")
    out.add_argument("--template", type=Path, required=True, help="the page to fill in")
    out.add_argument("--out", type=Path, required=True, help="page to write")
    return out.parse_args(argv)


def compare_runs(args: argparse.Namespace) -> None:
    """Write the page `args.out`."""
    (first, here), (second, there) = arguments.pairs(args.runs, "--runs")
    if here.resolve() == there.resolve():
        raise UserError(f"{here} is compared with itself: name two runs")
    context = run_comparison.context(run_comparison.read(first, here), run_comparison.read(second, there))
    files.write_text(args.out, html_page.render(args.template.read_text(encoding="utf-8"), context))
    stage.log.info("%s", context["sameness"])
    stage.log.info("%s, %.1f MB", args.out, args.out.stat().st_size / 2**20)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("compare_runs", args, lambda: compare_runs(args))


if __name__ == "__main__":
    sys.exit(main())
