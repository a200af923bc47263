"""Copy of the workflow's own files in a crate, so that the crate holds what was run."""

from __future__ import annotations

import shutil
from pathlib import Path

# Whatever a run needs, and what says how to cite it. Some of them a copy of MixLoc may lack.
PARTS = (
    "Snakefile", "config.yaml", "rules", "workflow_scripts", "schemas", "envs", "captions", "benchmarks/rates.json",
    "benchmarks/judge_calibration.json", "requirements.txt", "constraints.txt", "LICENSE", "CITATION.cff",
)  # fmt: skip


def write(root: Path, out: Path) -> None:
    """Copy the workflow in `root` to the new folder `out`."""
    out.mkdir()
    for part in PARTS:
        source, target = root / part, out / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        elif source.is_file():
            shutil.copyfile(source, target)
