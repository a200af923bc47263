"""Figures of the report page: inline SVG with an alternative text, and links to their files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from workflow_scripts.lib.judge.wording import page_opening
from workflow_scripts.lib.page import html_page
from workflow_scripts.lib.page.run_files import FIGURES, FoldFile, RunFiles
from workflow_scripts.lib.page.run_tables import Results

PANEL_BYTES = 5 * 2**19  # of panels of one kind on a page, after the first; beyond this, panels are links
SAMPLES_BYTES = 4 * 2**20  # of the figure of real images; a larger one is a link
ALTS = {
    "forest": "Forest plot: the difference of every arm and of its control from the baseline, with intervals; "
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
    "map": "Score by number of labelled groups for real images alone, controls, generated images and ceilings; gain "
    "over the best control; the state of each label regime by what the generator saw. The numbers stand in a table.",
    "ranks": "Mean rank of every arm over trainings, from the best to the worst; bars join arms whose ranks differ by "
    "less than the critical difference. Scores of each fold and repeat stand in metrics.csv.",
    "generators": "Training loss of the generators by optimiser step.",
    "classifiers": "Training loss and validation scores of the classifiers by optimiser step.",
    "data_classes": "Images and groups of every class; the same numbers stand in the table of classes.",
    "data_cooccurrence": "Heat map of how often one class stands beside another; the counts stand in the table below.",
    "data_groups": "Number of groups by the number of their images; the same numbers stand in a table.",
    "data_intensity": "Fraction of the pixels by value, one line for each channel.",
    "data_histograms": "Histograms of intensities by channel, a row for each plate or the like.",
    "data_samples": "Contact sheet: the first images of every class by id.",
}
PANEL_ALT = "Held-out real images beside images of the synthetic set {synthetic_set}, class by class ({title})."
CLOSEST_ALT = (
    "Pairs of an image of the synthetic set {synthetic_set} and the training image closest to it, in pixels and in "
    "features ({title}); ids and distances stand in the linked table."
)


def embedded(files: RunFiles, results: Results, out: Path) -> dict[str, dict[str, Any]]:
    """All figures but the panels, by name, ready for the page `out`."""
    shown = {name: figure(files.figure(name), name, ALTS[name], out) for name in FIGURES}
    if len(shown["data_samples"]["svg"]) > SAMPLES_BYTES:
        shown["data_samples"]["svg"] = ""
    best = results.difference(results.primary)
    if best is not None:
        change = page_opening.movement(best.value, results.metric, f"against {best.against}")
        alt = f"{ALTS['forest']} {results.primary}: {change}."
        shown["forest"] = figure(files.figure("forest"), "forest", alt, out)
    return shown


def figure(path: Path, name: str, alt: str, out: Path) -> dict[str, Any]:
    """One figure as inline SVG, with links to its svg, pdf and png."""
    links = {kind: os.path.relpath(path.with_suffix(f".{kind}"), out.parent) for kind in ("svg", "pdf", "png")}
    return {"svg": html_page.inline_svg(path.read_text(encoding="utf-8"), name, alt), "files": links}


def panels(files: list[FoldFile], out: Path, alt: str) -> list[dict[str, Any]]:
    """Per synthetic set the panel of its first fold, to be shown, and links to those of the other folds.

    Panels of many classes and large images are heavy: once the page holds PANEL_BYTES of them, the rest are links."""
    sets: dict[str, dict[str, Any]] = {}
    used = 0
    for index, file in enumerate(files):
        if file.synthetic_set in sets:
            link = {"title": file.title, "path": os.path.relpath(file.path, out.parent)}
            sets[file.synthetic_set]["others"].append(link)
            continue
        words = alt.format(synthetic_set=file.synthetic_set, title=file.title)
        shown = figure(file.path, f"{file.path.stem.split('_')[0]}{index}", words, out)
        used += len(shown["svg"])
        if used > PANEL_BYTES and sets:
            shown["svg"] = ""
        sets[file.synthetic_set] = {"synthetic_set": file.synthetic_set, "title": file.title, "others": []} | shown
    return list(sets.values())


def pair_tables(files: RunFiles, out: Path) -> dict[str, list[tuple[str, str]]]:
    """Per synthetic set the tables of its closest pairs, of every fold: title and path from the page."""
    tables: dict[str, list[tuple[str, str]]] = {}
    for file in files.synthetic("closest.csv"):
        tables.setdefault(file.synthetic_set, []).append((file.title, os.path.relpath(file.path, out.parent)))
    return tables
