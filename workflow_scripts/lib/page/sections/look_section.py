"""First screen of the report: real and generated images beside each other, and whether they look alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge.wording import likeness
from workflow_scripts.lib.judge.wording.likeness import Eye
from workflow_scripts.lib.page import arm_categories, image_legend, image_strips, pictures
from workflow_scripts.lib.page.run_files import FoldFile, RunFiles
from workflow_scripts.lib.page.sections import fidelity_section
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role

COUNT = 8  # images in a strip
# The power spectrum and correlations of channels need no network. Label agreement is no likeness: it can be high for
# blobs that hold nothing but what a class is told by.
NO_NETWORK = {"spectrum": "the power spectrum", "links": "the correlation of channels"}


def of_primary(files: RunFiles, primary: str, config: dict[str, Any]) -> dict[str, Any] | None:
    """What the template shows of the primary arm's synthetic set, else of another; None where there is no set."""
    if not files.sets:
        return None
    name = shown_set(files.sets, primary, config)
    figures, about = (
        [file for file in files.synthetic(ending) if file.synthetic_set == name]
        for ending in ("fidelity.csv", "assess.json")
    )
    facts = json.loads(about[0].path.read_text(encoding="utf-8"))
    names = [facts[key]["name"] for key in ("encoder", "independent_encoder") if key in facts]
    seen = eyes([file.path for file in figures], *names)
    shown, legend = _strips(files, figures[0], config.get("report", {}).get("panels", {}).get("colours"))
    return {
        "sentence": likeness.sentence(seen, name),
        "kind": likeness.kind(seen),
        "real_channels": list(facts.get("reference_channels") or []),
        "title": figures[0].title,
        "strips": shown,
        "legend": legend,
        "count": COUNT,
    }


def shown_set(sets: list[str], primary: str, config: dict[str, Any]) -> str:
    """The primary arm's set, if a generator was trained for it; else the first of a trained generator."""
    simulated = arm_categories.simulated_sets(config)
    trained = [name for name in sets if name not in simulated]
    wanted = next((arm.get("synthetic_set") for arm in config.get("arms", []) if arm["name"] == primary), None)
    return wanted if wanted in trained else [*trained, *sets][0]


def eyes(figures: list[Path], encoder: str, independent: str | None = None) -> list[Eye]:
    """Distances by which images are told apart, means over folds."""
    table, found = fidelity_section.averaged(figures), []
    for measure, name in (NO_NETWORK | {"frechet": f"the features of {encoder}"}).items():
        found.append(fidelity_section.eye(table, measure, name))
    if independent is not None:
        second = fidelity_section.averaged(figures, fidelity_section.INDEPENDENT)
        found.append(fidelity_section.eye(second, "frechet", f"the features of {independent}"))
    return [one for one in found if one is not None]


def _strips(
    files: RunFiles, place: FoldFile, chosen: dict[str, str] | None
) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Real test images and generated ones, class by class in the same order, as pictures; empty where they are gone.

    With their legend."""
    made = place.path.with_name(f"{place.synthetic_set}.h5")
    if not made.exists():
        return {}, None
    tables = [(place.repeat, dict(files.role_tables())[place.repeat])]
    view = place.path.parent.parent / "images.h5"  # of the fold, where it has images of its own look
    with ImageSet(view if view.exists() else files.file("images.h5")) as real, ImageSet(made) as generated:
        roles = role_table.read_all(tables, real.ids)[place.repeat, place.fold]
        held = np.flatnonzero((roles == Role.TEST) & ~real.further)
        labels, asked = real.labels(held, "inspect"), generated.labels(None, "inspect")
        rows = [held[_one_a_class(labels, real.ids[held], real.groups[held])]]
        rows.append(_one_a_class(asked, np.arange(len(asked)), np.arange(len(asked))))
        both = [source.read(own, "inspect").images for source, own in zip((real, generated), rows, strict=True)]
        channels, legend = real.channels, image_legend.of_set(real, chosen)
    if not len(both[0]) or not len(both[1]):
        return {}, None
    scale = image_strips.brightest(both[:1], len(channels))
    shown = {
        name: pictures.strip(images, channels, scale, chosen)
        for name, images in zip(("real", "generated"), both, strict=True)
    }
    return shown, legend.told()


def _one_a_class(labels: np.ndarray, order: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rows of COUNT images, not selected by hand: the first of each class, then the second, and so on."""
    classes = np.eye(labels.shape[1], dtype=np.uint8)
    chosen = [image_strips.choose(labels, target, order, groups, COUNT) for target in classes]
    turns = [int(own[turn]) for turn in range(COUNT) for own in chosen if turn < len(own)]
    return np.array(list(dict.fromkeys(turns))[:COUNT], dtype=np.int64)
