"""Content of the report page: everything that its template fills in, read from the files of a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
    law_section,
    look_section,
    map_section,
    other_runs_section,
    regimes_section,
    robustness_section,
    stress_section,
    summary_section,
)

HASH_LETTERS = 8  # of a hash on the first screen; whole ones stand further down
LINKED = ("metrics.csv", "comparisons.csv", "analysis.json", "leaks.csv", "thresholds.csv", "training.csv")


@dataclass
class PageSources:
    """What a page is made from: a run's files and settings, and the files of other runs that it quotes."""

    files: RunFiles
    settings: dict[str, Any]  # of the report
    config: dict[str, Any]  # of the whole run
    root: Path  # of MixLoc's code
    out: Path  # the page
    lockbox_ledger: Path | None = None
    study: Path | None = None  # the reference study's table
    forensics: Path | None = None  # forensics.json of a replay
    log: Path | None = None  # the report's own log, which is no log of the run

    @cached_property
    def results(self) -> run_tables.Results:
        """The judged scores and differences."""
        names = ("metrics.csv", "comparisons.csv", "analysis.json")
        return run_tables.read(*(self.files.file(name) for name in names))

    @cached_property
    def points(self) -> list[curves_section.Point]:
        """Usefulness of each synthetic set beside its fidelity."""
        fidelity = [(file.synthetic_set, file.path) for file in self.files.synthetic("fidelity.csv")]
        return curves_section.usefulness(self.results, self.config, fidelity)


def gather(sources: PageSources) -> tuple[dict[str, Any], list[PageTable]]:
    """The values of the template by name, and all tables of the page."""
    files, config, results = sources.files, sources.config, sources.results
    images = data_section.read(files.file("images.h5"), files.role_tables())
    data, data_tables = data_section.describe(
        images, config, files.file("intensity.csv"), files.optional("left_out.csv")
    )
    opening = summary_section.opening(results, data, config)
    certificate, statuses = arms_section.leaks(files.file("leaks.csv"))
    foreseen = cost_section.read(files.optional("cost.json"), files.folder / "benchmarks")
    locked, openings = summary_section.lockbox(
        sources.lockbox_ledger, files.file("images.h5"), results, images, config, data["unit"]
    )
    failures = failures_section.jobs(files.folder / "logs", sources.log) if files.optional("logs") else []
    tables = {
        **arm_tables(results, config, sources.points, data_tables),
        "leaks": certificate,
        **named(failures_section.table(failures)),
        **named(regimes_section.table(files.file("images.h5"), files.role_tables(), config)),
        **named(map_section.table(results, data["unit"])),
        **run_time_tables(files, foreseen, config),
        "versions": arms_section.versions(sources.root),
        **named(robustness_section.longer_runs(results, data["unit"])),
        **named(robustness_section.strata(files.file("strata.csv"), results)),
        **named(openings),
        **named(forensics_section.study_table(sources.study)),
        **named(other_runs_section.table(sources.out.parent, files.file("images.h5"))),
    }
    replayed = forensics_section.read(sources.forensics, sources.out)
    if replayed:
        tables |= replayed["tables"]
        replayed["figure"] = page_figures.figure(replayed["figure"], "forensics", forensics_section.ALT, sources.out)
    stressed = stress_section.read(files, results, config, sources.out)
    if stressed:
        tables |= stressed["tables"]
        stressed["figure"] = page_figures.figure(stressed["figure"], "stress", stress_section.ALT, sources.out)
    law = law_section.read(results, config, fidelity_section.divergences(of_each_set(files)[1]), data["unit"])
    if law:
        tables |= law["tables"]
    assessed = fidelity_section.synthetic_sets(*of_each_set(files), config)
    trained = len(summary_section.generators(config, files.sets)) * files.repeats * files.folds
    context = {
        "settings": sources.settings | {"title": sources.settings["title"].replace("{groups}", f"{data['unit']}s")},
        "run": config.get("run", ""),
        **judged(sources),
        "opening": opening,
        "look": look_section.of_primary(files, results.primary, config),
        "lockbox": locked,
        "facts": summary_section.key_numbers(results, data, statuses, trained),
        **figures(sources),
        "pays": map_section.sentences(results, data["unit"]),
        "law": law,
        "failures": failures_section.sentence(failures),
        "tables": tables,
        "fidelity": assessed,
        "foreseen": foreseen.sentence,
        "data": data,
        "statuses": statuses,
        "config": html_page.pretty_json(config),
        "pinned": arms_section.about_pins(tables["versions"]),
        "sources": links(files, sources.out),
        "replayed": replayed,
        "stressed": stressed,
        "svg": html_page.inline_svg,
    }
    return context, [*tables.values(), *(table for one in assessed for table in one["tables"].values())]


def judged(sources: PageSources) -> dict[str, Any]:
    """What the judge found, and how often it is wrong."""
    results = sources.results
    fitted = arms_section.fitted_at_once(sources.config)
    by_steps = {name: arm for name, arm in results.facts["arms"].items() if name not in fitted}
    return {
        "results": results,
        "judge": summary_section.judge_sentence(results, sources.root),
        "same_steps": len({arm["numbers"].get("steps") for arm in by_steps.values()}) == 1,
        "fitted": [name for name in results.facts["arms"] if name not in by_steps],
        "verdict": summary_section.verdict_kind(results),
        "registered": analysis_report.registered(results.facts["declared"], HASH_LETTERS),
        "useful": curves_section.enough(sources.points),
        "metric": METRIC_NAMES.get(results.metric, results.metric),
        "notes": results.facts.get("notes", []),
        "not_judged": results.facts.get("not_judged", []),
        "cross_check": results.facts.get("cross_check", []),
    }


def figures(sources: PageSources) -> dict[str, Any]:
    """Figures of the run, panels of its images, and the tables that belong to the panels."""
    files, out = sources.files, sources.out
    gallery = files.optional("gallery/index.html")
    closest = page_figures.panels(files.panels("closest"), out, page_figures.CLOSEST_ALT)
    return {
        "figures": page_figures.embedded(files, sources.results, out),
        "panels": page_figures.panels(files.panels("images"), out, page_figures.PANEL_ALT),
        "gallery": gallery and os.path.relpath(gallery, out.parent),
        "closest": {shown["synthetic_set"]: shown for shown in closest},
        "pair_tables": page_figures.pair_tables(files, out),
    }


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


def run_time_tables(files: RunFiles, foreseen: cost_section.Foreseen, config: dict[str, Any]) -> dict[str, PageTable]:
    """The tables of what the run took, beside what was foreseen."""
    # A job of `sample_fold` is called `sets`.
    made = {"sets", *files.sets, *summary_section.generators(config, files.sets)}
    return {
        **named(arms_section.generator_times(files.folder / "benchmarks", made)),
        "run_times": arms_section.run_times(files.folder / "benchmarks"),
        **foreseen.tables,
        "disk_stages": cost_section.disk_by_stage(files.folder),
    }


def links(files: RunFiles, out: Path) -> dict[str, str]:
    """Paths from the page to the tables that it links to and that there are."""
    return {Path(name).stem: os.path.relpath(path, out.parent) for name in LINKED if (path := files.optional(name))}
