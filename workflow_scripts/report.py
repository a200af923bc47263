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
from typing import Any

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.files import write_text
from workflow_scripts.lib.judge.wording import analysis_report
from workflow_scripts.lib.page import html_page, page_figures, run_tables
from workflow_scripts.lib.page.html_page import PageTable
from workflow_scripts.lib.page.run_files import RunFiles
from workflow_scripts.lib.page.run_tables import METRIC_NAMES
from workflow_scripts.lib.page.sections import (
    arms_section,
    cost_section,
    curves_section,
    data_section,
    failures_section,
    fidelity_section,
    forensics_section,
    other_runs_section,
    regimes_section,
    robustness_section,
    stress_section,
    summary_section,
)

ROOT = Path(__file__).resolve().parents[1]
HASH_LETTERS = 8  # of a hash on the first screen; whole ones stand further down
LINKED = ("metrics.csv", "comparisons.csv", "analysis.json", "leaks.csv", "thresholds.csv", "training.csv")


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
    settings, config, out = args.settings["report"], args.settings["config"], args.out
    files = RunFiles(args.run_dir, args.repeats, args.folds, args.sets)
    results = run_tables.read(*(files.file(name) for name in ("metrics.csv", "comparisons.csv", "analysis.json")))
    images = data_section.read(files.file("images.h5"), files.role_tables())
    data, data_tables = data_section.describe(
        images, config, files.file("intensity.csv"), files.optional("left_out.csv")
    )
    opening = summary_section.opening(results, data)
    certificate, statuses = arms_section.leaks(files.file("leaks.csv"))
    foreseen = cost_section.read(files.optional("cost.json"), args.run_dir / "benchmarks")
    fidelity = [(file.synthetic_set, file.path) for file in files.synthetic("fidelity.csv")]
    points = curves_section.usefulness(results, config, fidelity)
    locked, openings = summary_section.lockbox(
        args.lockbox_ledger, files.file("images.h5"), results, images, config, data["unit"]
    )
    failures = failures_section.jobs(args.run_dir / "logs", args.log) if files.optional("logs") else []
    tables = {
        **arm_tables(results, config, points, data_tables),
        "leaks": certificate,
        **named(failures_section.table(failures)),
        **named(regimes_section.table(files.file("images.h5"), files.role_tables(), config)),
        **named(arms_section.generator_times(args.run_dir / "benchmarks")),
        "run_times": arms_section.run_times(args.run_dir / "benchmarks"),
        **foreseen.tables,
        "versions": arms_section.versions(ROOT),
        **named(robustness_section.strata(files.file("strata.csv"), results)),
        **named(openings),
        **named(forensics_section.study_table(args.study)),
        **named(other_runs_section.table(out.parent, files.file("images.h5"))),
    }
    replayed = forensics_section.read(args.forensics, out)
    if replayed:
        tables |= replayed["tables"]
        replayed["figure"] = page_figures.figure(replayed["figure"], "forensics", forensics_section.ALT, out)
    stressed = stress_section.read(files, results, config, out)
    if stressed:
        tables |= stressed["tables"]
        stressed["figure"] = page_figures.figure(stressed["figure"], "stress", stress_section.ALT, out)
    assessed = fidelity_section.synthetic_sets(*of_each_set(files), config)
    every = [*tables.values(), *(table for one in assessed for table in one["tables"].values())]
    html_page.write_tables(args.tables, every, os.path.relpath(args.tables, out.parent))
    closest = page_figures.panels(files.panels("closest"), out, page_figures.CLOSEST_ALT)
    trained = summary_section.generators_trained(files.synthetic("fidelity.csv"), config)
    fitted = arms_section.fitted_at_once(config)
    by_steps = {name: arm for name, arm in results.facts["arms"].items() if name not in fitted}
    context = {
        "settings": settings,
        "run": config.get("run", ""),
        "opening": opening,
        "judge": summary_section.judge_sentence(results, ROOT),
        "same_steps": len({arm["numbers"].get("steps") for arm in by_steps.values()}) == 1,
        "fitted": [name for name in results.facts["arms"] if name not in by_steps],
        "lockbox": locked,
        "verdict": summary_section.verdict_kind(results),
        "facts": summary_section.key_numbers(results, data, statuses, trained),
        "registered": analysis_report.registered(results.facts["declared"], HASH_LETTERS),
        "figures": page_figures.embedded(files, results, out),
        "useful": curves_section.enough(points),
        "failures": failures_section.sentence(failures),
        "panels": page_figures.panels(files.panels("images"), out, page_figures.PANEL_ALT),
        "closest": {shown["synthetic_set"]: shown for shown in closest},
        "pair_tables": page_figures.pair_tables(files, out),
        "tables": tables,
        "fidelity": assessed,
        "foreseen": foreseen.sentence,
        "found": results,
        "metric": METRIC_NAMES.get(results.metric, results.metric),
        "notes": results.facts.get("notes", []),
        "not_judged": results.facts.get("not_judged", []),
        "cross_check": results.facts.get("cross_check", []),
        "data": data,
        "statuses": statuses,
        "config": html_page.pretty_json(config),
        "pinned": arms_section.about_pins(tables["versions"]),
        "theme": html_page.theme_css(),
        "sources": {
            Path(name).stem: os.path.relpath(path, out.parent) for name in LINKED if (path := files.optional(name))
        },
        "replayed": replayed,
        "stressed": stressed,
        "svg": html_page.inline_svg,
    }
    write_text(out, html_page.render(args.template.read_text(encoding="utf-8"), context))
    stage.log.info("%s, %.1f MB", out, out.stat().st_size / 2**20)


def arm_tables(
    results: run_tables.Results,
    config: dict[str, Any],
    points: list[curves_section.Point],
    data_tables: dict[str, PageTable],
) -> dict[str, PageTable]:
    """The tables about arms and data, by name."""
    swept = curves_section.sweeps(results, config)
    return {
        "verdicts": arms_section.verdicts(results),
        "scores": arms_section.scores(results),
        "costs": arms_section.costs(results, config),
        "classes": arms_section.by_class(results),
        "class_changes": arms_section.class_changes(results),
        **({"worth": arms_section.worth(results)} if "worth" in results.facts else {}),
        **data_tables,
        **({"sweeps": curves_section.sweeps_table(results, swept)} if swept else {}),
        **({"usefulness": curves_section.usefulness_table(results, points)} if points else {}),
        "spread": robustness_section.spread(results),
    }


def named(table: PageTable | None) -> dict[str, PageTable]:
    """A table by its name, where it has rows."""
    return {table.name: table} if table and table.rows else {}


def of_each_set(files: RunFiles) -> list[list[tuple[str, Path]]]:
    """Scores, distances and descriptions of the synthetic sets, each as (set, path) of every fold."""
    endings = ("assess.csv", "fidelity.csv", "assess.json")
    return [[(file.synthetic_set, file.path) for file in files.synthetic(ending)] for ending in endings]


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("report", args, lambda: report(args))


if __name__ == "__main__":
    sys.exit(main())
