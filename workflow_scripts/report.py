"""report: the whole run on one self-contained page, and its tables as CSV.

The page opens with the answer in a sentence and one figure; then the evidence, the data, the leak certificate, the
settings, versions and run times. It asks nothing of the network, follows light and dark, and fits a phone.

Example:
    python -m workflow_scripts.report --images images.h5 --folds 0=repeat0/folds.csv --metrics metrics.csv \\
        --comparisons comparisons.csv --analysis analysis.json --strata strata.csv --leaks leaks.csv \\
        --lockbox-ledger results/lockbox_openings.jsonl --thresholds thresholds.csv --training training.csv \\
        --assess as_train/0/0=as_train.assess.csv --fidelity as_train/0/0=as_train.fidelity.csv \\
        --assessed as_train/0/0=as_train.assess.json --panels as_train/0/0=figures/images_as_train.svg \\
        --closest as_train/0/0=figures/closest_as_train.svg \\
        --figures forest=arms_forest.svg classes=arms_classes.svg gap=arms_gap.svg worth=arms_worth.svg \\
        usefulness=... sweeps=... generators=... data_classes=... \\
        --intensity intensity.csv --left-out left_out.csv --benchmarks benchmarks --logs logs \\
        --cost cost.json \\
        --template workflow_scripts/lib/page/report.html --out report.html --tables tables \\
        --settings '{"report": {"title": "Demo", ...}, "config": {...}}'
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import write_text
from workflow_scripts.lib.classify import arm_choices
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge import lockbox_ledger, verdict_tables, wording
from workflow_scripts.lib.page import html_page, run_tables
from workflow_scripts.lib.page.html_page import Table
from workflow_scripts.lib.page.run_tables import METRIC_NAMES, Results
from workflow_scripts.lib.page.sections import (
    arms_section,
    cost_section,
    curves_section,
    data_section,
    error_rate_section,
    failures_section,
    fidelity_section,
    forensics_section,
    other_runs_section,
    robustness_section,
)

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ("forest", "classes", "gap", "worth", "usefulness", "sweeps", "generators", "classifiers")
FIGURES += ("data_classes", "data_cooccurrence", "data_groups", "data_intensity", "data_samples")
PANEL_BYTES = 8 * 2**20
HASH_LETTERS = 8  # of a hash on the first screen; whole ones stand further down


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = arguments.parser(__doc__)
    p.add_argument("--images", type=Path, required=True, help="the image set")
    p.add_argument("--folds", nargs="+", required=True, metavar="REPEAT=CSV", help="each repeat's table of roles")
    p.add_argument("--metrics", type=Path, required=True, help="scores of all arms")
    p.add_argument("--comparisons", type=Path, required=True, help="arms beside their baseline and controls")
    p.add_argument("--analysis", type=Path, required=True, help="declaration, verdicts and answer")
    p.add_argument("--strata", type=Path, help="the primary question by cell line and tier of reliability")
    p.add_argument("--lockbox-ledger", type=Path, help="the openings of lockboxes so far, if there were any")
    p.add_argument("--leaks", type=Path, required=True, help="the leak certificate")
    p.add_argument("--thresholds", type=Path, help="the decision thresholds, to be linked")
    p.add_argument("--training", type=Path, help="losses and validation scores by step, to be linked")
    p.add_argument(
        "--assess", nargs="*", default=[], metavar="SET/REPEAT/FOLD=CSV", help="the judge's scores of synthetic sets"
    )
    p.add_argument("--fidelity", nargs="*", default=[], metavar="SET/REPEAT/FOLD=CSV", help="distances, bracketed")
    p.add_argument("--assessed", nargs="*", default=[], metavar="SET/REPEAT/FOLD=JSON", help="who was asked")
    p.add_argument("--figures", nargs="+", required=True, metavar="NAME=SVG", help=f"figures: {', '.join(FIGURES)}")
    p.add_argument("--panels", nargs="*", default=[], metavar="SET/REPEAT/FOLD=SVG", help="real beside generated")
    p.add_argument("--closest", nargs="*", default=[], metavar="SET/REPEAT/FOLD=SVG", help="what looks like a copy")
    p.add_argument("--intensity", type=Path, required=True, help="statistics of the pixel values (CSV)")
    p.add_argument("--left-out", type=Path, help="what was left out of the images, and why (CSV)")
    p.add_argument("--study", type=Path, help="the reference study's table, in a replay of it (CSV)")
    p.add_argument("--forensics", type=Path, help="forensics.json of the replay, if it was made; beside it the rest")
    p.add_argument("--benchmarks", type=Path, required=True, help="folder of the run times that Snakemake measured")
    p.add_argument("--logs", type=Path, help="folder of the logs that the stages left")
    p.add_argument("--cost", type=Path, help="what the run was predicted to cost (JSON)")
    p.add_argument("--template", type=Path, required=True, help="the page to fill in")
    p.add_argument("--out", type=Path, required=True, help="page to write")
    p.add_argument("--tables", type=Path, required=True, help="folder of CSV tables to write")
    return p.parse_args(argv)


def report(args: argparse.Namespace) -> None:
    """Gather everything, write the tables, fill in the page."""
    settings, config = args.settings["report"], args.settings["config"]
    found = run_tables.read(args.metrics, args.comparisons, args.analysis)
    shown = data_section.read(args.images, data_section.numbered(args.folds))
    data, data_tables = data_section.describe(shown, config, args.intensity, args.left_out)
    certificate, statuses = arms_section.leaks(args.leaks)
    foreseen = cost_section.read(args.cost, args.benchmarks)
    swept = curves_section.sweeps(found, config)
    points = curves_section.usefulness(found, config, arguments.of_sets(args.fidelity, "--fidelity"))
    failed, jobs_said = of_failures(args)
    times = arms_section.generator_times(args.benchmarks)
    tables = {
        "verdicts": arms_section.verdicts(found),
        "scores": arms_section.scores(found),
        "costs": arms_section.costs(found, config),
        "classes": arms_section.by_class(found),
        "class_changes": arms_section.class_changes(found),
        **({"worth": arms_section.worth(found)} if "worth" in found.facts else {}),
        **data_tables,
        **({"sweeps": curves_section.sweeps_table(found, swept)} if swept else {}),
        **({"usefulness": curves_section.usefulness_table(found, points)} if points else {}),
        "spread": robustness_section.spread(found),
        "leaks": certificate,
        **({"failures": failed} if failed.rows else {}),
        **({"generator_times": times} if times.rows else {}),
        "run_times": arms_section.run_times(args.benchmarks),
        **foreseen.tables,
        "versions": arms_section.versions(ROOT),
    }
    first = opening(found, data)
    by_stratum = robustness_section.strata(args.strata, found) if args.strata else None
    locked, openings = of_lockbox(args, found, shown, config, data["unit"])
    others = other_runs_section.table(args.out.parent, args.images)
    for table in (by_stratum, openings, forensics_section.study_table(args.study), others):
        tables |= {table.name: table} if table else {}
    replayed = forensics_section.read(args.forensics, args.out)
    if replayed:
        tables |= replayed["tables"]
        replayed["figure"] = _figure(replayed["figure"], "forensics", forensics_section.ALT, args.out)
    assessed = fidelity_section.synthetic_sets(
        *(arguments.of_sets(getattr(args, name), f"--{name}") for name in ("assess", "fidelity", "assessed")), config
    )
    every: list[Table] = [
        *tables.values(),
        *(table for synthetic_set in assessed for table in synthetic_set["tables"].values()),
    ]
    html_page.write_tables(args.tables, every, os.path.relpath(args.tables, args.out.parent))
    context = {
        "settings": settings,
        "run": config.get("run", ""),
        "opening": first,
        "judge": of_judge(found),
        "same_steps": len({arm["numbers"].get("steps") for arm in found.facts["arms"].values()}) == 1,
        "lockbox": locked,
        "verdict": verdict_tables.kind_of(found.difference(found.primary).verdict)
        if found.difference(found.primary)
        else "",
        "facts": key_facts(found, data, statuses, generators_trained(args.fidelity, config)),
        "registered": wording.registered(found.facts["declared"], HASH_LETTERS),
        "figures": drawn(arguments.pairs(args.figures, "--figures"), found, args.out),
        "useful": curves_section.enough(points),
        "failures": jobs_said,
        "panels": panels(arguments.pairs(args.panels, "--panels"), args.out, PANEL_ALT),
        "closest": {
            shown["synthetic_set"]: shown
            for shown in panels(arguments.pairs(args.closest, "--closest"), args.out, CLOSEST_ALT)
        },
        "pair_tables": pair_tables(args),
        "tables": tables,
        "fidelity": assessed,
        "foreseen": foreseen.sentence,
        "found": found,
        "metric": METRIC_NAMES.get(found.metric, found.metric),
        "notes": found.facts.get("notes", []),
        "not_judged": found.facts.get("not_judged", []),
        "cross_check": found.facts.get("cross_check", []),
        "data": data,
        "statuses": statuses,
        "config": html_page.pretty_json(config),
        "pinned": arms_section.about_pins(tables["versions"]),
        "theme": html_page.theme_css(),
        "sources": {
            name: os.path.relpath(getattr(args, name), args.out.parent)
            for name in ("metrics", "comparisons", "analysis", "leaks", "thresholds", "training")
            if getattr(args, name)
        },
        "replayed": replayed,
        "svg": html_page.inline_svg,
    }
    write_text(args.out, html_page.render(args.template.read_text(encoding="utf-8"), context))
    stage.log.info("%s, %.1f MB", args.out, args.out.stat().st_size / 2**20)


def of_failures(args: argparse.Namespace) -> tuple[Table, str]:
    """The jobs that failed or were cut short, as a table, and how many they were."""
    found = failures_section.jobs(args.logs, args.log) if args.logs else []
    return failures_section.table(found), failures_section.sentence(found)


def opening(found: Results, data: dict[str, Any]) -> verdict_tables.Opening:
    """The first paragraph, from the answer that the judge wrote down."""
    if "answer" not in found.facts or "sizes" not in found.facts:
        raise UserError("analysis.json holds no answer: delete it and run again")
    sizes, judged = found.facts["sizes"], len(found.judged)
    return verdict_tables.opening(
        found.facts["answer"], sizes, judged, data["unit"], subject_of(found), data["lines_tested"]
    )


def of_lockbox(
    args: argparse.Namespace, found: Results, shown: data_section.Data, config: dict[str, Any], unit: str
) -> tuple[str, Table | None]:
    """What the ledger knows of the run's lockbox."""
    with ImageSet(args.images) as source:
        box, digest = lockbox_ledger.find(source.ids, shown.groups, shown.roles), source.digest
    entries = lockbox_ledger.read_ledger(args.lockbox_ledger) if args.lockbox_ledger else []
    opened = lockbox_ledger.openings(entries, box, digest) if box else None
    subject, declared = subject_of(found), {"experiment": ""} | found.facts["declared"]
    return robustness_section.of_lockbox(box, opened, str(config.get("run", "")), declared, unit, subject)


def subject_of(found: Results) -> str:
    """What the primary arm adds: an arm without generated images must not be praised or blamed for them."""
    arm = found.facts["answer"]["arm"]
    method = arm_choices.METHODS.get(found.facts.get("arms", {}).get(arm, {}).get("method"))
    return f"The arm {arm}" if method and not method.learns_from_generated else verdict_tables.GENERATED


def of_judge(found: Results) -> str:
    """What this run could have found, and how often the judge is wrong."""
    rate = error_rate_section.measured(
        error_rate_section.read(ROOT),
        found.metric,
        found.facts["sizes"]["repeats"],
        error_rate_section.judge_digest(ROOT),
    )
    return f"{error_rate_section.detectable(found.facts['answer'])} {rate}".strip()


def generators_trained(sets: list[str], config: dict[str, Any]) -> int:
    """How many generators the synthetic sets (SET/REPEAT/FOLD=…) come from."""
    makers = {synthetic_set["name"]: synthetic_set["generator"] for synthetic_set in config.get("synthetic_sets", [])}
    places = [arguments.place(where) for where, _ in arguments.pairs(sets, "--fidelity")]
    trained = {(makers.get(synthetic_set, synthetic_set), repeat, fold) for synthetic_set, repeat, fold in places}
    return sum(name != generator_choices.SIMULATOR for name, _, _ in trained)


def key_facts(found: Results, data: dict[str, Any], statuses: dict[str, int], trained: int) -> list[tuple[str, str]]:
    """The numbers that a reader wants before believing anything."""
    sizes, clean = found.facts.get("sizes", {}), sum(n for status, n in statuses.items() if status == "clean")
    total = sum(statuses.values())
    return [
        (f"unseen {data['unit']}s", f"{sizes.get('test_groups', 0):,}"),
        ("test images", f"{sizes.get('test_images', 0):,}"),
        ("folds × repeats", f"{sizes.get('folds', 0)} × {sizes.get('repeats', 0)}"),
        ("classes judged", f"{len(found.judged)} of {len(found.classes)}"),
        ("comparisons judged", f"{found.facts.get('comparisons_in_family', 0)}"),
        ("generators trained", f"{trained:,}"),
        ("leak checks clean", f"{clean} of {total}"),
    ]


ALTS = {
    "forest": "Forest plot: the difference of every arm and of its control to the baseline, with intervals; "
    "the same numbers stand in the table of verdicts.",
    "classes": "Small multiples: the change of each judged class under each arm, with intervals; "
    "the scores stand in the table of classes.",
    "gap": "Validation and test score of each arm; the same numbers stand in the table of scores.",
    "worth": "Learning curve: score by number of real training images, and where the other arms stand on it; the same "
    "numbers stand in a table.",
    "usefulness": "Difference of every arm to the baseline by the fidelity of the synthetic set that it learned from, "
    "with intervals; the same numbers stand in a table.",
    "sweeps": "Difference of arms to the baseline, and of their controls, by the one setting in which they differ; "
    "with intervals; the same numbers stand in a table.",
    "generators": "Training loss of the generators by optimiser step.",
    "classifiers": "Training loss and validation scores of the classifiers by optimiser step.",
    "data_classes": "Images and groups of every class; the same numbers stand in the table of classes.",
    "data_cooccurrence": "Heat map of how often one class stands beside another; the counts stand in the table below.",
    "data_groups": "Number of groups by the number of their images; the same numbers stand in a table.",
    "data_intensity": "Share of the pixels by value, one line for each channel.",
    "data_samples": "Contact sheet: the first images of every class by id.",
}


def drawn(paths: list[tuple[str, Path]], found: Results, out: Path) -> dict[str, dict[str, Any]]:
    """The figures ready for the page, with links to their files."""
    shown = {}
    for name, path in paths:
        if name not in FIGURES:
            raise UserError(f"--figures {name!r} is unknown: one of {', '.join(FIGURES)}")
        shown[name] = _figure(path, name, ALTS[name], out)
    if "data_samples" in shown and len(shown["data_samples"]["svg"]) > PANEL_BYTES:
        shown["data_samples"]["svg"] = ""
    missing = [name for name in FIGURES if name not in shown]
    if missing:
        raise UserError(f"--figures lacks {missing[0]!r}")
    best = found.difference(found.primary)
    if best is not None:
        words = f" {found.primary}: {verdict_tables.movement(best.value, found.metric, f'against {best.against}')}."
        shown["forest"] = _figure(dict(paths)["forest"], "forest", ALTS["forest"] + words, out)
    return shown


def _figure(path: Path, name: str, alt: str, out: Path) -> dict[str, Any]:
    files = {kind: os.path.relpath(path.with_suffix(f".{kind}"), out.parent) for kind in ("svg", "pdf", "png")}
    return {"svg": html_page.inline_svg(path.read_text(encoding="utf-8"), name, alt), "files": files}


PANEL_ALT = "Held-out real images beside images that synthetic set {synthetic_set} generated, class by class ({title})."
CLOSEST_ALT = (
    "Pairs of an image that synthetic set {synthetic_set} generated and the training image closest to it, in pixels and in features "
    "({title}); ids and distances stand in the linked table."
)


def pair_tables(args: argparse.Namespace) -> dict[str, list[tuple[str, str]]]:
    """Per synthetic set the tables of its closest pairs, of every fold: title and path from the page."""
    out: dict[str, list[tuple[str, str]]] = {}
    for where, path in arguments.pairs(args.assess, "--assess"):
        synthetic_set, repeat, fold = arguments.place(where)
        # assess_synthetic writes one beside the other.
        table = path.with_name(path.name.replace(".assess.csv", ".closest.csv"))
        out.setdefault(synthetic_set, []).append(
            (f"repeat {repeat}, fold {fold}", os.path.relpath(table, args.out.parent))
        )
    return out


def panels(paths: list[tuple[str, Path]], out: Path, words: str) -> list[dict[str, Any]]:
    """Per synthetic set the panel of its first fold, to be shown, and links to those of the other folds.

    Panels of many classes and large images are heavy: once the page holds PANEL_BYTES of them, the rest are links."""
    synthetic_sets: dict[str, dict[str, Any]] = {}
    used = 0
    for index, (where, path) in enumerate(paths):
        synthetic_set, repeat, fold = arguments.place(where)
        title = f"repeat {repeat}, fold {fold}"
        if synthetic_set not in synthetic_sets:
            alt = words.format(synthetic_set=synthetic_set, title=title)
            name = f"{path.stem.split('_')[0]}{index}"
            synthetic_sets[synthetic_set] = {"synthetic_set": synthetic_set, "title": title, "others": []} | _figure(
                path, name, alt, out
            )
            used += len(synthetic_sets[synthetic_set]["svg"])
            if used > PANEL_BYTES and len(synthetic_sets) > 1:
                synthetic_sets[synthetic_set]["svg"] = ""
        else:
            synthetic_sets[synthetic_set]["others"].append({"title": title, "path": os.path.relpath(path, out.parent)})
    return list(synthetic_sets.values())


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("report", args, lambda: report(args))


if __name__ == "__main__":
    sys.exit(main())
