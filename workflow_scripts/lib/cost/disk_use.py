"""Disk use of a run by stage, and what of it can be deleted without losing the answer.

The answer is the report with its tables and figures, the scores behind it, and the declaration. A file that no pattern
below names is nobody's output, and is never deleted. Neither are links, nor what lies behind them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.lib.cost.workloads import BLOCK

# What deletes a file: `clean=yes` what the models make again without training, `clean=all` models and predictions too.
YES, ALL, NEVER = "yes", "all", "never"
DELETES = {"show": (), YES: (YES,), ALL: (YES, ALL)}  # word of the config -> what it deletes


@dataclass(frozen=True)
class Part:
    """Files of one stage, and what deletes them."""

    stage: str
    what: str
    pattern: str  # of the path within the run; the first that fits counts
    by: str


PARTS = (
    Part("any stage", "checkpoints and unfinished files", r"[./]resume\.pt$|(^|/)\.[^/]+\.part[^/]*(/|$)", YES),
    Part("train_ddpm, train_classifier", "course of trainings, for progress.html", r"^progress/", YES),
    Part("preprocess_images", "pieces of the image set", r"^\.images\.h5\.pieces/|^shards/", YES),
    Part("simulate_cells", "raw images", r"^simulated/train/", YES),
    Part("cut_cells", "unfinished cells", r"^\.cells\.fields/", YES),
    Part("cut_cells", "cells as files", r"^cells/images/", YES),
    Part("cut_cells", "tables and page", r"^cells/", NEVER),
    Part("cut_new_cells", "unfinished cells", r"^new_cells/\.[^/]+\.fields/", YES),
    Part("cut_new_cells", "cells as files", r"^new_cells/[^/]+/images/", YES),
    Part("cut_new_cells", "tables and page", r"^new_cells/", NEVER),
    Part("simulate_cells", "tables", r"^simulated/[^/]+$", NEVER),
    Part("fetch_images, fetch_weights", "tables", r"^fetched/", NEVER),
    Part("preprocess_images", "image set", r"^images\.h5$", ALL),
    Part("normalise_images", "intensity limits", r"^repeat\d+/fold\d+/images\.h5$", NEVER),
    Part("make_folds", "roles", r"/folds\.csv$", NEVER),
    Part("train_ddpm", "generators", r"/generators/[^/]+\.safetensors$", ALL),
    Part("train_ddpm", "training curves", r"/generators/", NEVER),
    Part("embed_images", "embeddings", r"^([^/]+|repeat\d+/fold\d+/synthetic/[^/]+)\.embeddings\.h5$", YES),
    Part("sample_ddpm, sample_fold, sample_simulator", "generated images", r"/synthetic/(\.together/)?[^/]+\.h5$", YES),
    Part("train_judge", "independent judge", r"^judge\.safetensors$", ALL),
    Part("assess_synthetic", "fidelity", r"/synthetic/", NEVER),
    Part("train_classifier", "classifiers", r"/arms/.*\.safetensors$", ALL),
    Part("train_classifier", "predictions", r"/arms/", ALL),
    Part("stress_test", "predictions", r"/stress\.h5$", ALL),
    Part("replay_study", "scores", r"/replay/", NEVER),
    Part("plot_*", "figures", r"^figures/", NEVER),
    Part("report", "page and its tables", r"^(report\.html|tables/.*)$", NEVER),
    Part("make_gallery", "page", r"^gallery/", NEVER),
    Part("export_images", "images as files", r"^export/", ALL),
    Part("predict_images", "predictions of new images", r"^predicted/", NEVER),
    Part("write_model_package", "model packages", r"^models/", NEVER),
    Part("declare_analysis", "declaration and its ledger", r"^declarations?\.jsonl?$", NEVER),
    Part("all stages", "logs and times", r"^(logs|benchmarks)/", NEVER),
    Part("other stages", "scores and tables", r"^[^/]+\.(csv|json|html)$", NEVER),
)
FOREIGN = Part("none", "files of somebody else", "", NEVER)


@dataclass(frozen=True)
class Used:
    """A file of a run: its path, its room on disk, and what it is."""

    path: Path
    bytes: int
    part: Part


def files_of(run: Path) -> list[Used]:
    """All files of a run but links."""
    out = []
    for folder, _, names in os.walk(run):  # follows no link
        for path in (Path(folder, name) for name in names):
            if path.is_symlink() or not path.is_file():
                continue
            name = path.relative_to(run).as_posix()
            part = next((part for part in PARTS if re.search(part.pattern, name)), FOREIGN)
            out.append(Used(path, -(-path.stat().st_size // BLOCK) * BLOCK, part))
    return out


def rows(files: Iterable[Used]) -> list[dict[str, Any]]:
    """A row for each part that has files, in the order of the stages: stage, what, files, bytes, by."""
    found: dict[Part, list[int]] = {}
    for file in files:
        found.setdefault(file.part, []).append(file.bytes)
    return [
        {"stage": part.stage, "what": part.what, "files": len(sizes), "bytes": sum(sizes), "by": part.by}
        for part in (*PARTS, FOREIGN)
        if (sizes := found.get(part))
    ]


def freed(files: Iterable[Used], word: str) -> list[Used]:
    """The files that `clean` with this word deletes."""
    return [file for file in files if file.part.by in DELETES[word]]


def delete(run: Path, files: Iterable[Used]) -> None:
    """Delete these files of a run, and the folders below it that are empty then: to Snakemake an empty one is whole."""
    for file in files:
        file.path.unlink(missing_ok=True)
        for folder in file.path.parents:
            if folder == run or any(folder.iterdir()):
                break
            folder.rmdir()
