"""report: self-contained HTML report of the run, and its tables as CSV.

The page opens with the answer in a sentence and one figure. Then come the evidence, the data, the leak certificate, the
settings, versions and run times. It loads nothing from the network, follows light and dark mode, and fits a phone.
Tables, figures and logs are those of the run's folder.

Example:
    python -m workflow_scripts.report --run-dir results/demo --repeats 1 --folds 2 --sets as_train \\
        --lockbox-ledger results/lockbox_openings.jsonl --template workflow_scripts/lib/page/report.html \\
        --out results/demo/report.html --tables results/demo/tables \\
        --settings '{"report": {"title": "Demo", ...}, "config": {...}}'
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.files import write_json, write_text
from workflow_scripts.lib.page import html_page, page_content
from workflow_scripts.lib.page.page_content import PageSources
from workflow_scripts.lib.page.run_files import RunFiles

ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = arguments.parser(__doc__)
    p.add_argument("--run-dir", type=Path, required=True, help="folder of the run: its tables, figures and logs")
    p.add_argument("--repeats", type=int, required=True, help="number of repeats")
    p.add_argument("--folds", type=int, required=True, help="number of folds")
    p.add_argument("--sets", nargs="*", default=[], help="the synthetic sets that arms use")
    p.add_argument("--lockbox-ledger", type=Path, help="the openings of lockboxes so far, if there were any")
    p.add_argument("--study", type=Path, help="the reference study's table, in a replay of it (CSV)")
    p.add_argument("--forensics", type=Path, help="forensics.json of the replay, if it was made; beside it the rest")
    p.add_argument("--template", type=Path, required=True, help="the page to fill in")
    p.add_argument("--out", type=Path, required=True, help="page to write")
    p.add_argument("--tables", type=Path, required=True, help="folder of CSV tables to write")
    return p.parse_args(argv)


def report(args: argparse.Namespace) -> None:
    """Gather everything, write the tables, fill in the page."""
    files = RunFiles(args.run_dir, args.repeats, args.folds, args.sets)
    sources = PageSources(
        files,
        args.settings["report"],
        args.settings["config"],
        root=ROOT,
        out=args.out,
        lockbox_ledger=args.lockbox_ledger,
        study=args.study,
        forensics=args.forensics,
        log=args.log,
    )
    context, tables = page_content.gather(sources)
    html_page.write_tables(args.tables, tables, os.path.relpath(args.tables, args.out.parent))
    write_json(args.tables / "settings.json", args.settings["config"])
    write_text(args.out, html_page.render(args.template.read_text(encoding="utf-8"), context))
    stage.log.info("%s, %.1f MB", args.out, args.out.stat().st_size / 2**20)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("report", args, lambda: report(args))


if __name__ == "__main__":
    sys.exit(main())
