"""make_folds: which role every group plays in every fold of one repeat, folds.csv.

A group (images that share a protein or an antibody) is never split. Roles: test, calibration (thresholds),
validation (model selection), train, and, if their shares are above 0, reserve and lockbox. Each role gets its share
of every class.

Example:
    python -m workflow_scripts.make_folds --images images.h5 --out folds.csv --repeat 0 --seed 1 \\
        --settings '{"folds": 2, "shares": {"test": 0.25, ...}}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib import fold_table, folds, stage
from workflow_scripts.lib.dataset import ImageSet


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = stage.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    out.add_argument("--out", type=Path, required=True, help="the table of roles to write")
    out.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    return out.parse_args(argv)


def make_folds(images: Path, out: Path, repeat: int, seed: int, settings: dict[str, Any]) -> None:
    """Write the roles of all images in all folds of a repeat."""
    with ImageSet(images) as source:
        ids, groups, classes = source.ids, source.groups, source.classes
        labels = source.labels(None, "inspect")
    names, member = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), len(classes)), dtype=np.int64)
    np.add.at(counts, member, labels)
    parts = 1 + sum(share > 0 for share in settings["shares"].values())
    if len(names) < parts + settings["folds"] - 1:
        raise stage.UserError(
            f"{images} has {len(names)} groups, too few for {settings['folds']} folds of {parts} parts"
        )
    assigned = folds.roles(counts, settings["folds"], settings["shares"], seed, repeat)
    for fold in range(settings["folds"]):
        for kind, role in folds.missing(counts, assigned[:, fold], classes):
            stage.log.warning("fold %d: class %r has no image in %s", fold, kind, role)
        sizes = {role: int((assigned[member, fold] == role).sum()) for role in folds.ROLES}
        stage.log.info("fold %d: %s", fold, ", ".join(f"{role} {n}" for role, n in sizes.items() if n))
    fold_table.write(out, ids, groups, assigned[member])


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "make_folds", args, lambda: make_folds(args.images, args.out, args.repeat, args.seed, args.settings)
    )


if __name__ == "__main__":
    sys.exit(main())
