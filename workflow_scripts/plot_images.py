"""plot_images: strips of real and generated images by class, unselected; and the pairs most like a copy.

For every class, and for the most common combinations of classes: a strip of real images that nothing was fitted on
(the fold's test part), and a strip of one synthetic set. Each is shown in colour, with the protein channel alone below.
No image is selected by hand: their order is drawn by the run's seed, and the first of each protein is taken until
the strip is full. --pairs shows the generated images that lie closest to a training image, as assess_synthetic found
them. Both are written as svg, pdf and png under the stems given.

Example:
    python -m workflow_scripts.plot_images --images images.h5 --folds folds.csv --fold 0 --seed 1 \\
        --synthetic as_train.h5 --closest as_train.closest.csv --out figures/images_as_train.svg \\
        --pairs figures/closest_as_train.svg \\
        --settings '{"per_class": 5, "combinations": 3, "protein_channel": "green"}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.page import figure_style, image_legend
from workflow_scripts.lib.page.image_figures import closest, collect, draw_pairs, draw_panel
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = arguments.parser(__doc__)
    p.add_argument("--images", type=Path, required=True, help="the real image set")
    p.add_argument("--folds", type=Path, required=True, help="roles of its images")
    p.add_argument("--fold", type=int, required=True, help="number of the fold")
    p.add_argument("--seed", type=int, required=True, help="seed of the run")
    p.add_argument("--synthetic", type=Path, required=True, help="the generated image set")
    p.add_argument("--closest", type=Path, required=True, help="table of the closest pairs")
    p.add_argument("--out", type=Path, required=True, help="figure to write")
    p.add_argument("--pairs", type=Path, required=True, help="figure of the closest pairs to write")
    return p.parse_args(argv)


def plot_images(args: argparse.Namespace) -> None:
    """Draw and save the figures of one fold and synthetic set."""
    settings = args.settings
    with ImageSet(args.images) as real, ImageSet(args.synthetic) as generated:
        if (real.channels, real.classes) != (generated.channels, generated.classes):
            raise UserError(
                f"{args.synthetic} has other channels or classes than {args.images}: delete it and run again"
            )
        held = role_table.rows(args.folds, args.fold, real.ids, Role.TEST)
        rng = np.random.default_rng(derive(args.seed, args.fold, "panel", args.synthetic.stem))
        rows = collect(real, held, generated, rng, settings)
        pairs = closest(args.closest, real, generated)
        channels, chosen = real.channels, settings.get("colours")
        legend = image_legend.of_set(real, chosen)
        compared = pairs[0].channels if pairs else channels  # without real reference channels
        of_pairs = image_legend.make(compared, real.size, chosen, image_legend.pixel_size(real))
    with figure_style.style():
        figure_style.save(draw_panel(rows, channels, settings, legend), args.out)
        figure_style.save(draw_pairs(pairs, of_pairs, chosen), args.pairs)
    stage.log.info("%d rows of %d + %d images: %s", len(rows), settings["per_class"], settings["per_class"], args.out)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("plot_images", args, lambda: plot_images(args))


if __name__ == "__main__":
    sys.exit(main())
