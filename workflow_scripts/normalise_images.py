"""normalise_images: the images of a fold with intensities normalised by its train part, a view of the image set.

Of each channel, percentiles over the images of the train part become black and white (`lib.images.intensity_limits`).
With a `column`, such as the plate, each of its values has limits of its own. A value without an image in the train part
has those of the whole train part. Only images are read, no labels, and none that any label regime hides from training.
The view holds no pixels; stages read it as they read an image set.

Example:
    python -m workflow_scripts.normalise_images --images images.h5 --folds folds.csv --repeat 0 --fold 0 \\
        --out fold0/images.h5 --settings '{"column": "plate", "regimes": []}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import intensity_limits
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.intensity_limits import Limits
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import WHOLE, Regime
from workflow_scripts.lib.split.roles import Role

NAMED = 5  # values in a line of the log
FEW = 10  # train images of a value, below which its limits are rough


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    out.add_argument("--folds", type=Path, required=True, help="the table of roles of this repeat")
    out.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    out.add_argument("--fold", type=int, required=True, help="number of the fold")
    out.add_argument("--out", type=Path, required=True, help="the fold's view of the set to write")
    return out.parse_args(argv)


def normalise_images(args: argparse.Namespace) -> None:
    """Fit the limits on the train part and write the view `args.out`."""
    column = args.settings["column"]
    with ImageSet(args.images) as source:
        values, place = _values(source, column)
        train = _train_rows(args, source)
        fitted = _fitted(source, train, values, place)
        counts = np.bincount(place[train], minlength=len(values))
        borrowed = [value for value, count in zip(values, counts, strict=True) if not count or not value]
        attrs = {
            "repeat": args.repeat,
            "fold": args.fold,
            "intensity_column": column or "",
            "values": values.tolist(),
            "train_images": counts.tolist(),
            "borrowed": borrowed,
        }
        record = source.access_record()
        intensity_limits.write(args.out, args.images, Limits(fitted, place), record, attrs)
    stage.log.info("limits of %d values of %s from %d train images", len(values), column or "no column", len(train))
    few = sum(0 < count < FEW for count in counts.tolist())
    if column and few:
        stage.log.warning(
            "%d values of %s have fewer than %d train images, so their limits are rough", few, column, FEW
        )
    if column and borrowed:
        shown = ", ".join(value or "(unknown)" for value in borrowed[:NAMED]) + " …" * (len(borrowed) > NAMED)
        stage.log.info("values without a train image, which take the limits of all: %s", shown)


def _fitted(source: ImageSet, train: np.ndarray, values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Limits (V, C, 2) of each value over its train images."""
    # An image of unknown value is of no plate in particular.
    own = np.where(values[place[train]] == "", -1, place[train])
    if not (own >= 0).any():
        raise UserError("preprocess_images.intensity_column: no train image has a value of it: name another column")
    return intensity_limits.fitted(
        len(values), own, train, lambda rows: (source.raw(rows, "fit"), source.present[rows])
    )


def _values(source: ImageSet, column: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Values of the column, and which of them each image has; one for all without a column."""
    if column is None:
        return np.array(["all"], dtype=object), np.zeros(len(source), dtype=np.int64)
    if column not in source.columns():
        known = ", ".join(source.columns()) or "none"
        raise UserError(f"preprocess_images.intensity_column = {column!r}: there is no such column; there are: {known}")
    values, place = np.unique(source.column(column).astype(str), return_inverse=True)
    return values.astype(object), place.ravel()


def _train_rows(args: argparse.Namespace, source: ImageSet) -> np.ndarray:
    """Rows of the train part; where there are label regimes, of what is labelled in all of them."""
    regimes = [WHOLE, *(Regime(**entry) for entry in args.settings["regimes"])]
    parts = [role_table.read(args.folds, args.fold, source.ids, regime) == Role.TRAIN for regime in regimes]
    rows = np.flatnonzero(np.all(parts, axis=0))
    if not len(rows):
        raise UserError(f"{args.folds}: fold {args.fold} has no image with role train")
    return rows


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("normalise_images", args, lambda: normalise_images(args))


if __name__ == "__main__":
    sys.exit(main())
