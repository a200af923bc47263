"""write_model_package: the classifiers of an arm as a folder that works without MixLoc.

Holds the weights (safetensors), the code that builds the network, model.json (channels, sizes, normalisation, classes,
thresholds), and README.md, a model card with data, scores, leak certificate and licence.

Example:
    python -m workflow_scripts.write_model_package --images images.h5 --arms repeat0/fold0/arms/job0.json \\
        --thresholds thresholds.csv --metrics metrics.csv --leaks leaks.csv --licence LICENSE --out models/pool \\
        --settings '{"run": "demo", "arm": {"name": "pool", ...}, "preprocess_images": {...}, "told": {},
                     "confidence": 0.95}'
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.classify import ensemble, model_package
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge.wording import model_card

READING = ("channels", "size", "pixel_size", "intensity", "white_level")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set of the run")
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of arms (JSON) of all folds")
    out.add_argument("--thresholds", type=Path, required=True, help="thresholds of all arms and folds (CSV)")
    out.add_argument("--metrics", type=Path, required=True, help="scores of all arms (CSV)")
    out.add_argument("--leaks", type=Path, required=True, help="the leak certificate (CSV)")
    out.add_argument("--licence", type=Path, required=True, help="MixLoc's own licence, for the code in the package")
    out.add_argument("--out", type=Path, required=True, help="folder to write")
    return out.parse_args(argv)


def write_model_package(args: argparse.Namespace) -> None:
    """Write the folder `args.out`."""
    settings = args.settings
    arm = settings["arm"]["name"]
    members = ensemble.members_of(args.arms, arm, "model_package.arm")
    cuts = {
        level: ensemble.mean_thresholds(args.thresholds, arm, members[0].classes, level).tolist()
        for level in (ensemble.IMAGE, ensemble.PROTEIN)
    }
    with ImageSet(args.images) as source:
        data = model_card.facts(source.attrs, settings["told"], len(source), len(set(source.groups)))
    with files.atomic(args.out) as part:
        part.mkdir()
        about = model_package.write(part, members) | {
            "run": settings["run"],
            "thresholds": cuts,
            "preprocessing": {name: settings["preprocess_images"][name] for name in READING},
            "trained": settings["arm"],
            "data": data,
            "scores": model_card.scores(args.metrics, arm),
            "confidence": settings["confidence"],
            "leak_certificate": model_card.certificate(args.leaks, arm),
        }
        files.write_json(part / "model.json", about)
        files.write_text(part / "README.md", model_card.card(about, settings["run"], data["licence"]))
        shutil.copyfile(args.licence, part / "LICENSE")
    if about["torchscript_problem"]:
        stage.log.info("no TorchScript: it %s", about["torchscript_problem"])
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    stage.log.info("%s: %d classifiers, %.1f MB", args.out, len(members), size / 1e6)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("write_model_package", args, lambda: write_model_package(args))


if __name__ == "__main__":
    sys.exit(main())
