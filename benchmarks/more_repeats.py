"""The forecast of runs with more repeats, beside such runs, in the worlds of `judge_luck`.

    OMP_NUM_THREADS=1 python -m benchmarks.more_repeats --repetitions 30

In each repetition a run of R repeats is drawn, and its forecast for 2 R and 4 R repeats. Beside it such runs are
drawn anew, with other groups and trainings. `ratio` is the forecast half-width, divided by the median of those that
came out: its median, and what four in five forecasts lie between. `gain` is the same for the detectable gain, its
median alone."""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks import judge_luck
from benchmarks.judge_luck import BASELINE, CONTROL, PRIMARY, WORLDS
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.judge import more_repeats
from workflow_scripts.lib.judge.analysis_choices import CLAIMS, OTHER_PROTEINS, THESE_PROTEINS
from workflow_scripts.lib.judge.inference import paired_intervals
from workflow_scripts.lib.judge.more_repeats import Trainings

DESIGNS = ((2, 1), (3, 1), (5, 1), (2, 2), (3, 2), (5, 2))  # repeats, folds


def drawn(name: str, repeats: int, folds: int, draws: int, seed: int) -> Trainings:
    """The primary arm, its baseline and its control in a run of a world without effects."""
    one = judge_luck.simulate(WORLDS[name], repeats, folds, draws, np.random.default_rng(seed))
    rows = [PRIMARY, BASELINE, CONTROL]
    return Trainings(one.values[rows], one.draws[rows], one.plan)


def judged(seen: Trainings, others: bool) -> tuple[float, float]:
    """Half-width and detectable gain of a run."""
    pairs = seen.pairs()
    found = paired_intervals(seen.values, seen.draws, pairs, seen.plan, others, 0.95, 1, range(len(pairs)))
    return float(found.high[0] - found.low[0]) / 2, found.detectable(list(range(len(pairs))))


def measure(name: str, repeats: int, folds: int, claim: str, repetitions: int, draws: int, seed: int) -> list[str]:
    """A row of the table for each number of repeats that is forecast."""
    others, counts = claim == OTHER_PROTEINS, [times * repeats for times in more_repeats.TIMES]
    told: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    facts: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for number in range(repetitions):
        seen = drawn(name, repeats, folds, draws, derive(seed, name, folds, repeats, number))
        for run in more_repeats.forecast(seen, others, 0.95, number, counts).longer:
            told[run.repeats].append((run.half_width, run.detectable))
        for count in counts:
            longer = drawn(name, count, folds, draws, derive(seed, name, folds, count, "longer", number))
            facts[count].append(judged(longer, others))
    rows = []
    for count in counts:
        ratio = np.array(told[count]) / np.median(facts[count], axis=0)
        middle, low, high = np.quantile(ratio[:, 0], (0.5, 0.1, 0.9))
        rows.append(
            f"| {name} | {claim} | {folds} | {repeats} | {count} | {middle:.2f} ({low:.2f} to {high:.2f}) "
            f"| {np.median(ratio[:, 1]):.2f} |"
        )
    return rows


def main(argv: list[str] | None = None) -> None:
    """Print the table, as Markdown."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--worlds", nargs="*", choices=list(WORLDS), default=["training", "few groups", "unequal groups"])
    out.add_argument("--claims", nargs="+", choices=list(CLAIMS), default=[THESE_PROTEINS])
    out.add_argument("--repetitions", type=int, default=30)
    out.add_argument("--draws", type=int, default=400)
    out.add_argument("--seed", type=int, default=1)
    args = out.parse_args(argv)
    print("| world | claim | folds | repeats | forecast for | ratio | gain |")
    print("|---|---|---|---|---|---|---|")
    for name in args.worlds:
        for claim in args.claims:
            for repeats, folds in DESIGNS:
                for row in measure(name, repeats, folds, claim, args.repetitions, args.draws, args.seed):
                    print(row, flush=True)


if __name__ == "__main__":
    main()
