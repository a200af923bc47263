"""The judge's two stages on worlds of known truth: write predictions, declare an analysis, judge."""

from __future__ import annotations

import json

from tests.helpers.worlds import ANALYSIS, ARMS, World
from workflow_scripts import aggregate_metrics, declare_analysis
from workflow_scripts.lib.scores.prediction_file import write_predictions

OUTPUTS = ("metrics", "comparisons", "thresholds", "analysis")


def write_world(folder, repeats=1, skills=(1.0, 3.5, 1.0), **more):
    world = World(3, **more)
    for repeat in range(repeats):
        for entry, skill in zip(ARMS, skills, strict=True):
            for arm in world.arm(entry["name"], skill, repeat=repeat):
                arm.numbers = {"seconds": 2.0, "images_seen": 100}
                write_predictions(folder / f"{arm.arm}-{repeat}-{arm.fold}.h5", arm)
    return world


def run(folder, paths=None, seed=1, out="out", declared=None, threads=1, **changes):
    """Judge the arms in `folder`, under an analysis declared now or in the folder `declared`."""
    settings = ANALYSIS | {"draws": 100, "arms": ARMS} | changes
    paths = paths or sorted(folder.glob("*.h5"))
    flags = [text for name in OUTPUTS for text in (f"--{name}", str(folder / out / name))]
    if declared is None:
        declared = folder / f"{out}-declared"
        declare(declared, settings)
    argv = ["--arms", *map(str, paths), "--declaration", str(declared / "declaration.json"), *flags]
    argv += ["--seed", str(seed), "--threads", str(threads)]
    return aggregate_metrics.main([*argv, "--settings", json.dumps(settings)])


def declare(folder, settings, **experiment):
    settings = settings | {"experiment": experiment}
    words = ["--run-folder", str(folder), "--ledger", str(folder / "declarations.jsonl")]
    words += ["--out", str(folder / "declaration.json"), "--settings", json.dumps(settings)]
    assert declare_analysis.main(words) == 0
    return json.loads((folder / "declaration.json").read_text())
