"""make_folds: which role every image plays in every fold of one repeat, folds.csv.

A group (images that share a protein or an antibody) is never split. Roles: test, calibration (thresholds),
validation (model selection), train, and, if their shares are above 0, reserve and lockbox. Each role gets its fraction
of every class and, with `stratify_by`, of every value of a column such as cell_line. With `leave_out` each fold tests
one value of a column instead; images of the tested groups that have another value are `unused` in that fold, because
they are relatives of test images. With `roles_from` a column says what is tested, and perhaps what is validation,
calibration or unused; the other images share the parts that it does not name, but for relatives of those that it
names, which are unused. `reserve_same` is the one role that shares groups with another: images of train groups that
only the arms `more_real_same` may use. Further images that came without labels are `unlabelled`, or `unused` in folds
where a relative is not in the train part. With `regimes`, groups are also ranked by the order in which they get labels.

Where no class has --minimum-positive-groups positive test groups, nothing could be judged: the stage then fails, before
anything trains, and says what would have to change.

Example:
    python -m workflow_scripts.make_folds --images images.h5 --out folds.csv --repeat 0 --seed 1 \\
        --settings '{"folds": 2, "fractions": {"test": 0.25, ...}, "stratify_by": null, "leave_out": null,
        "roles_from": null}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import grouping
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.split import fold_design, judgeable, role_table
from workflow_scripts.lib.split.fold_design import FoldDesign


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    out.add_argument("--out", type=Path, required=True, help="the table of roles to write")
    out.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    words = "positive test groups from which on a class is judged; 0: whether a class can be judged is not looked at"
    out.add_argument("--minimum-positive-groups", type=int, default=0, metavar="GROUPS", help=words)
    return out.parse_args(argv)


def make_folds(args: argparse.Namespace) -> None:
    """Write the roles of all images in all folds of a repeat."""
    settings = args.settings
    with ImageSet(args.images) as source:
        ids, groups, classes = source.ids, source.groups, list(source.classes)
        own = ~source.further
        labels = source.labels(np.flatnonzero(own), "inspect")
        columns = {option: _column(source, settings[option], option) for option in fold_design.COLUMNS}
    left_out = columns["leave_out"]
    further = None if left_out is None else left_out[~own]
    columns = {option: None if values is None else values[own] for option, values in columns.items()}
    design = FoldDesign(
        args.images, groups[own], classes, labels, columns, settings, args.repeat, args.seed, groups[~own], further
    )
    assigned = design.assign()
    _check_judgeable(design, classes, labels, assigned, args.minimum_positive_groups)
    role_table.write(args.out, ids, groups, assigned, design.label_ranks(assigned))
    stage.log.info("%d images of %d groups", len(ids), len(design.names))


def _check_judgeable(
    design: FoldDesign, classes: list[str], labels: np.ndarray, assigned: np.ndarray, minimum: int
) -> None:
    """Name the classes that cannot be judged; stop where none can."""
    tested = judgeable.positive_test_groups(labels, design.member, assigned)
    judgeable.refuse(design, len(classes), tested, minimum)
    few = judgeable.lacking(classes, tested, minimum)
    if few:
        stage.log.warning("cannot be judged, with fewer than %d positive test groups: %s", minimum, few)


def _column(source: ImageSet, name: str | None, option: str) -> np.ndarray | None:
    if not name:
        return None
    if name not in source.columns():
        known = ", ".join(source.columns()) or "none"
        raise UserError(f"make_folds.{option} = {name!r}: {source.path} has no such column; it has: {known}")
    values = source.column(name)
    if not (values != "").any():
        raise UserError(f"make_folds.{option} = {name!r}: the column is empty in {source.path}")
    return grouping.one_spelling(values)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("make_folds", args, lambda: make_folds(args))


if __name__ == "__main__":
    sys.exit(main())
