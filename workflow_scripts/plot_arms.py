"""plot_arms: figures of the arms, from the tables that aggregate_metrics made.

forest: every arm and its control against the baseline, with intervals, the zero line and the smallest effect of
interest. classes: the change of each judged class under each arm. gap: validation beside test scores. worth: a learning
curve over real images, and the arms upon it. usefulness: what arms gained by how good their synthetic set is by itself.
sweeps: what arms gained by the fraction of synthetic images, and by the strength of the guidance, where they differ in
nothing else. map: scores and gains by number of labelled groups, and by what generators saw. ranks: mean ranks over
trainings, with the critical difference. Each is written as svg, pdf and png under the stem of its path.

Example:
    python -m workflow_scripts.plot_arms --metrics metrics.csv --comparisons comparisons.csv --analysis analysis.json \\
        --fidelity balanced/0/0=repeat0/fold0/synthetic/balanced.fidelity.csv \\
        --forest figures/arms_forest.svg --classes figures/arms_classes.svg --gap figures/arms_gap.svg \\
        --worth figures/arms_worth.svg --usefulness figures/arms_usefulness.svg --sweeps figures/arms_sweeps.svg \\
        --map figures/arms_map.svg --ranks figures/arms_ranks.svg \\
        --settings '{"arms": [...], "synthetic sets": [...], "train_classifier": {"ratio": 0.5}}'
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.page import curve_figures, figure_style, map_figures, rank_figures, run_tables
from workflow_scripts.lib.page.arm_figures import draw_classes, draw_forest, draw_gap
from workflow_scripts.lib.page.sections import curves_section


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = arguments.parser(__doc__)
    p.add_argument("--metrics", type=Path, required=True, help="scores of all arms")
    p.add_argument("--comparisons", type=Path, required=True, help="arms beside their baseline and controls")
    p.add_argument("--analysis", type=Path, required=True, help="what was declared, and which classes are judged")
    p.add_argument("--forest", type=Path, required=True, help="figure to write: arms with intervals")
    p.add_argument("--classes", type=Path, required=True, help="figure to write: change of each class")
    p.add_argument("--gap", type=Path, required=True, help="figure to write: validation beside test")
    p.add_argument("--worth", type=Path, required=True, help="figure to write: a learning curve over real images")
    p.add_argument(
        "--fidelity", nargs="*", default=[], metavar="SET/REPEAT/FOLD=CSV", help="how good the synthetic sets are"
    )
    p.add_argument("--usefulness", type=Path, required=True, help="figure to write: gain by fidelity")
    p.add_argument("--sweeps", type=Path, required=True, help="figure to write: gain by ratio and by guidance")
    p.add_argument("--map", type=Path, required=True, help="figure to write: gain by labelled groups")
    p.add_argument("--ranks", type=Path, required=True, help="figure to write: mean ranks over trainings")
    return p.parse_args(argv)


def plot_arms(args: argparse.Namespace) -> None:
    """Draw and save the figures."""
    results, config = run_tables.read(args.metrics, args.comparisons, args.analysis), args.settings
    points = curves_section.usefulness(results, config, arguments.of_sets(args.fidelity, "--fidelity"))
    drawn: list[tuple[Path, Callable[[], Figure]]] = [
        (args.forest, lambda: draw_forest(results, config)),
        (args.classes, lambda: draw_classes(results)),
        (args.gap, lambda: draw_gap(results)),
        (args.worth, lambda: curve_figures.draw_worth(results)),
        (args.usefulness, lambda: curve_figures.draw_usefulness(results, points)),
        (args.sweeps, lambda: curve_figures.draw_sweeps(results, curves_section.sweeps(results, config))),
        (args.map, lambda: map_figures.draw_map(results)),
        (args.ranks, lambda: rank_figures.draw_ranks(results)),
    ]
    with figure_style.style():
        for path, draw in drawn:
            figure_style.save(draw(), path)
            stage.log.info("%s", path)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("plot_arms", args, lambda: plot_arms(args))


if __name__ == "__main__":
    sys.exit(main())
