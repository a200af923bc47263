"""Tables about the arms: verdicts, scores, costs, classes, leaks, run times and versions. Each is also a CSV."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Container
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.lib.base import machine
from workflow_scripts.lib.classify import arm_choices, network_choices
from workflow_scripts.lib.page import run_tables
from workflow_scripts.lib.page.html_page import Column, PageTable
from workflow_scripts.lib.page.run_tables import Results

# Shown always; of the other packages those that are not at their pinned version.
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scipy", "h5py", "pillow", "tifffile", "safetensors")
PACKAGES += ("matplotlib", "snakemake")
PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)")


def verdicts(results: Results) -> PageTable:
    """Every arm against the baseline and against its own control, with the verdict."""
    rows: list[dict[str, Any]] = []
    noted: list[tuple[str, str]] = []
    for arm in [arm for group in results.groups() for arm in group]:
        against, control = results.difference(arm), results.difference(arm, "control")
        if against is None:
            continue
        note = results.facts["arms"].get(arm, {}).get("note")
        noted += [(arm, note)] if note else []
        rows.append(
            {"arm": arm, "control": results.controls.get(arm, ""), "against_baseline": _triple(against)}
            | {"against_control": _triple(control), "verdict": against.said + " (see below)" * bool(note)}
            | {"regime": results.regimes.get(arm)}
            | {"is_primary": arm == results.primary, "is_control": arm in results.controls.values()}
        )
    name = run_tables.SHORT_NAMES.get(results.metric, results.metric)
    return PageTable(
        "verdicts",
        f"Change in {name}, with {100 * results.confidence:g} % intervals",
        [
            Column("arm", "arm", "name"),
            *_regime_column(results),
            Column("against_baseline", f"against {results.compared_with}", "difference"),
            Column("control", "its control"),
            Column("against_control", "against its control", "difference"),
            Column("verdict", "verdict"),
        ],
        rows,
        note=" ".join(f"{arm}: {note}" for arm, note in noted),
        mark=lambda row: "primary" if row["is_primary"] else "control" if row["is_control"] else "",
    )


def _regime_column(found: Results) -> list[Column]:
    """The label regime of each arm, in a run that has several."""
    return [Column("regime", "labels")] if found.regimes else []


def _triple(difference: run_tables.Difference | None) -> tuple[float, float, float] | None:
    return None if difference is None else (difference.value, difference.low, difference.high)


def scores(results: Results) -> PageTable:
    """Scores of every arm on the test and validation parts, their gap, and what the arm cost."""
    rows = []
    for arm in [results.baseline] + [arm for group in results.groups() for arm in group]:
        row: dict[str, Any] = {"arm": arm, "is_baseline": arm == results.baseline, "regime": results.regimes.get(arm)}
        for metric in ("macro_f1", "map", "micro_f1"):
            test, seen = results.score(arm, metric), results.score(arm, metric, "validation")
            row |= {f"{metric}_test": test, f"{metric}_validation": seen, f"{metric}_gap": seen - test}
        rows.append(row)
    columns = [Column("arm", "arm", "name"), *_regime_column(results)]
    for metric in ("macro_f1", "map", "micro_f1"):
        name = run_tables.SHORT_NAMES[metric]
        columns.append(Column(f"{metric}_test", f"{name}, test", "number"))
        columns.append(Column(f"{metric}_validation", "validation", "number"))
        columns.append(Column(f"{metric}_gap", "gap", "signed"))
    per = "" if results.level == "image" else " per group"
    return PageTable(
        "scores",
        f"Scores{per}, mean over repeats",
        columns,
        rows,
        note="The gap is validation minus test. Thresholds come from the calibration part, never from the test part.",
        mark=lambda row: "primary" if row["is_baseline"] else "",
    )


def costs(results: Results, config: dict[str, Any]) -> PageTable:
    """What every arm started from and what it cost, as far as it wrote that down."""
    common = config.get("train_classifier", {}).get("weights")
    given = {arm["name"]: arm.get("weights", common) for arm in config.get("arms", [])}
    # The whole path stands among the settings.
    starts = {arm: Path(weights).name if weights else "scratch" for arm, weights in given.items()}
    starts |= {arm["name"]: start for arm in config.get("arms", []) if (start := _start(arm))}
    rows = []
    for arm in [results.baseline] + [arm for group in results.groups() for arm in group]:
        facts = results.facts.get("arms", {}).get(arm, {})
        numbers = facts.get("numbers", {}) | {"trials": facts.get("trials")}
        row = {"arm": arm, "method": facts.get("method"), "start": starts.get(arm), "regime": results.regimes.get(arm)}
        rows.append(row | {k: numbers.get(k) for k in COSTS})
    known = [name for name in COSTS if any(row[name] is not None for row in rows)]
    columns = [Column("arm", "arm", "name"), *_regime_column(results), Column("method", "method")]
    columns.append(Column("start", "starts from"))
    columns += [Column(name, *COSTS[name]) for name in known]
    return PageTable("costs", "Cost of each arm in a fold, mean over folds and repeats", columns, rows)


def _start(entry: dict[str, Any]) -> str:
    """What an arm starts from whose method says so; empty where `weights` do."""
    method = arm_choices.METHODS.get(entry.get("method", ""))
    if method is None or not (method.generator or method.on_baseline):
        return ""
    if method.on_baseline:
        return "its fold's baseline"
    return "scratch" if method.generator == arm_choices.FRESH else f"generator {entry['generator']}"


COSTS = {
    "seconds": ("seconds", "seconds"),
    "images_seen": ("images seen", "count"),
    "synthetic_seen": ("of them synthetic", "count"),
    "steps": ("steps", "count"),
    "best_step": ("chosen step", "count"),
    "real_images": ("labelled real images", "count"),
    "unlabelled_images": ("unlabelled real images", "count"),
    "trials": ("settings tried before", "count"),
}


def fitted_at_once(config: dict[str, Any]) -> list[str]:
    """Arms whose backbone is fixed features (hand-made, or embeddings): they take no optimiser steps."""
    common = config.get("train_classifier", {}).get("backbone")
    backbones = {entry["name"]: entry.get("backbone", common) for entry in config.get("arms", [])}
    return [name for name, backbone in backbones.items() if backbone in network_choices.BACKBONES.having("hand_made")]


def worth(results: Results) -> PageTable:
    """The learning curve over real images, and where the other arms stand on it."""
    facts = results.facts["worth"]
    beside = {row["arm"]: row["beside"] for row in facts["arms"] if "beside" in row}
    rows = [
        {"arm": point["arm"], "images": point["images"], "score": (point["score"], point["low"], point["high"])}
        for point in facts["points"]
    ]
    rows += [
        {"arm": row["arm"], "score": (row["score"], float("nan"), float("nan"))}
        | {end: row[end] if facts["rises"] else None for end in ("worth", "low", "high")}
        for row in facts["arms"]
    ]
    # Under label regimes arms stand beside unequal numbers of images.
    apart = len({row.get("beside", facts["images"]) for row in facts["arms"]}) > 1
    rows = [row | ({"beside": beside.get(row["arm"], facts["images"])} if "worth" in row else {}) for row in rows]
    columns = [
        Column("arm", "arm", "name"),
        Column("images", "real images", "count"),
        Column("score", run_tables.SHORT_NAMES.get(results.metric, results.metric), "estimate"),
        *([Column("beside", "beside", "count")] if apart else []),
        Column("worth", "worth" if apart else f"worth, beside the {round(facts['images']):,}", "count"),
        Column("low", "low", "count"),
        Column("high", "high", "count"),
    ]
    return PageTable(
        "worth",
        "Arms of real images alone, and how many more real images the others were worth",
        columns,
        rows,
        note=f"Means over folds and repeats, single {100 * results.confidence:g} % intervals. Cells are empty "
        + ("beyond the curve." if facts["rises"] else "because the score is not shown to rise."),
    )


def by_class(results: Results) -> PageTable:
    """The score of every class under every arm, judged classes first."""
    metric = run_tables.BY_CLASS.get(results.metric, "f1")
    arms = [results.baseline] + [arm for group in results.groups() for arm in group]
    rows = []
    for kind in results.judged + results.unjudged:
        facts = results.facts.get("classes", {}).get(kind, {})
        row = {"class": kind, "judged": "yes" if kind in results.judged else "not judged"}
        row |= {"positive_groups": facts.get("positive_groups"), "positives": facts.get("positives")}
        row |= {"chance": results.score(results.baseline, "prevalence", kind=kind)}
        rows.append(row | {f"{metric}_{arm}": results.score(arm, metric, kind=kind) for arm in arms})
    name = run_tables.SHORT_NAMES.get(metric, metric)
    columns = [
        Column("class", "class", "name"),
        Column("judged", "judged"),
        Column("positive_groups", "test groups", "count"),
        Column("positives", "test images", "count"),
        Column("chance", f"fraction of {'images' if results.level == 'image' else 'groups'}", "percent"),
    ]
    columns += [Column(f"{metric}_{arm}", arm, "number", 2) for arm in arms]
    return PageTable(
        "classes",
        f"{name} on the test part, class by class",
        columns,
        rows,
        mark=lambda row: "control" if row["judged"] != "yes" else "",
    )


def class_changes(results: Results) -> PageTable:
    """What every arm changed in every judged class, and which changes stand when all are looked at."""
    metric = run_tables.BY_CLASS.get(results.metric, "f1")
    rows = []
    for arm in (arm for group in results.groups() for arm in group):
        for kind in results.judged:
            change = results.difference(arm, metric=metric, kind=kind)
            if change:
                rows.append(
                    {"arm": arm, "class": kind, "change": _triple(change), "q": change.q, "verdict": change.said}
                    | {"is_control": arm in results.controls.values()}
                )
    return PageTable(
        "class_changes",
        f"Change in {run_tables.SHORT_NAMES.get(metric, metric)} of every class against {results.compared_with}, with "
        f"{100 * results.confidence:g} % intervals",
        [
            Column("arm", "arm", "name"),
            Column("class", "class"),
            Column("change", "change", "difference"),
            Column("q", "q", "number"),
            Column("verdict", "verdict"),
        ],
        rows,
        note="Single intervals. q is the false discovery rate: the expected fraction of false ones among all changes "
        f"with this or a smaller q. The verdict counts changes with a q of at most {1 - results.confidence:.2g}.",
        mark=lambda row: "control" if row["is_control"] else "",
    )


def leaks(path: Path) -> tuple[PageTable, dict[str, int]]:
    """The leak certificate, and how many checks ended how."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    counts = table["status"].value_counts().sort_index().to_dict() if "status" in table else {}
    columns = [
        Column(name, name.replace("_", " "), "count" if name in LEAK_COUNTS else "text") for name in table.columns
    ]
    rows = table.to_dict("records")
    marked = PageTable("leaks", "Every check of the certificate", columns, rows, mark=lambda row: _leak_mark(row))
    return marked, {str(status): int(count) for status, count in counts.items()}


LEAK_COUNTS = ("images", "overlap_images", "overlap_groups")


def _leak_mark(row: dict[str, Any]) -> str:
    return "" if row.get("status") in ("clean", None) else "alarm"


# Stages of other targets, on which the page does not rest.
APART = {
    "check_images",
    "clean_run",
    "compare_runs",
    "export_images",
    "make_gallery",
    "predict_images",
    "rehearse_run",
    "write_crate",
    "write_model_package",
    "write_submission",
}


def run_times(folder: Path) -> PageTable:
    """Jobs, seconds and memory of every stage, from Snakemake's benchmark files."""
    rows = []
    found = {path.relative_to(folder).parts[0] for path in folder.rglob("*.tsv")} if folder.is_dir() else set()
    for stage in sorted(name for name in found if name.removesuffix(".tsv") not in APART):
        files = sorted((folder / stage).rglob("*.tsv")) or [folder / stage]
        jobs = pd.concat([pd.read_csv(path, sep="\t") for path in files], ignore_index=True)
        seconds = pd.to_numeric(jobs.get("s"), errors="coerce")
        memory = pd.to_numeric(jobs.get("max_rss"), errors="coerce")
        rows.append(
            {"stage": stage.removesuffix(".tsv"), "jobs": len(jobs), "seconds": seconds.sum(), "longest": seconds.max()}
            | {"memory": float(memory.max()) if memory.notna().any() else None}
        )
    if rows:
        whole = {name: sum(row[name] for row in rows) for name in ("jobs", "seconds")}
        largest = {name: max((row[name] for row in rows if row[name]), default=None) for name in ("longest", "memory")}
        rows.append({"stage": "all stages", "is_total": True} | whole | largest)
    columns = [
        Column("stage", "stage", "name"),
        Column("jobs", "jobs", "count"),
        Column("seconds", "seconds, all jobs", "seconds"),
        Column("longest", "longest job", "seconds"),
        Column("memory", "peak memory (MB)", "count"),
    ]
    caption = "Run time of the stages behind this page, as if jobs ran one after the other"
    return PageTable("run_times", caption, columns, rows, mark=lambda row: "total" if row.get("is_total") else "")


MADE = {
    "train_ddpm": "generator",
    "sample_ddpm": "synthetic set",
    "sample_fold": "all sets of a fold",
    "sample_simulator": "cells of the simulator",
}


def generator_times(folder: Path, names: Container[str]) -> PageTable:
    """What a generator and a synthetic set cost in one fold, from Snakemake's benchmark files.

    Files of other `names` are of earlier settings."""
    taken: dict[tuple[str, str], list[float]] = {}
    for stage, made in MADE.items():
        for path in sorted((folder / stage).glob("*.tsv")):
            # repeat0_fold1_unet.tsv; names of generators and synthetic sets may hold underscores, too.
            name = path.stem.split("_", 2)[-1]
            if name not in names:
                continue
            seconds = pd.to_numeric(pd.read_csv(path, sep="\t").get("s"), errors="coerce")
            taken.setdefault((made, name), []).append(float(seconds.sum()))
    rows = [
        {"what": what, "name": name, "jobs": len(seconds), "mean": sum(seconds) / len(seconds), "longest": max(seconds)}
        for (what, name), seconds in taken.items()
    ]
    columns = [
        Column("name", "name", "name"),
        Column("what", "what"),
        Column("jobs", "folds", "count"),
        Column("mean", "seconds a fold", "seconds"),
        Column("longest", "longest", "seconds"),
    ]
    return PageTable("generator_times", "Cost of generators and of the sets that they made", columns, rows)


def versions(root: Path) -> PageTable:
    """Versions of MixLoc, Python and the packages that numbers depend on beside the pinned ones, and the machine that
    wrote the page."""
    rows = [{"what": "MixLoc", "version": _own_version(root)}, {"what": "Python", "version": platform.python_version()}]
    pins = _pins(root)
    for name in [*PACKAGES, *sorted(set(pins) - set(PACKAGES))]:
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        # The build (+cpu, +cu130) is the machine's affair.
        other = name in pins and installed.partition("+")[0] != pins[name]
        if other or name in PACKAGES:
            rows.append({"what": name, "version": installed, "pinned": pins.get(name, ""), "is_other": other})
    rows.append({"what": "operating system", "version": f"{platform.system()} {platform.release()}"})
    rows.append({"what": "processor", "version": f"{machine.processor()}, {os.cpu_count()} threads"})
    rows += [{"what": "GPU", "version": name} for name in machine.gpus()]
    columns = [Column("what", "what", "name"), Column("version", "version"), Column("pinned", "pinned version")]
    caption = "Versions, and the machine that wrote this page"
    return PageTable("versions", caption, columns, rows, mark=lambda row: "alarm" if row.get("is_other") else "")


def _pins(root: Path) -> dict[str, str]:
    """Name and version of every package of constraints.txt; none where the file is not there."""
    try:
        lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {pin[1]: pin[2] for pin in map(PIN.match, lines) if pin}


def about_pins(table: PageTable) -> tuple[bool, str]:
    """Whether all versions of that table are those pinned, and that in a sentence."""
    others = [row for row in table.rows if row.get("is_other")]
    if others:
        told = ", ".join(f"{row['what']} {row['version']} ({row['pinned']})" for row in others)
        return False, f"Not the pinned versions, which stand in brackets: {told}. Figures may differ for that reason."
    if not any(row.get("pinned") for row in table.rows):
        return False, "There is no constraints.txt here, so it is unknown whether these are the pinned versions."
    return True, "All packages have the versions pinned in constraints.txt."


def _own_version(root: Path) -> str:
    try:
        return machine.after((root / "pyproject.toml").read_text(encoding="utf-8"), "version =").strip('" ')
    except OSError:
        return "unknown"
