"""What the judge's draws cost: F1 with thresholds fitted again or fixed, and mAP, beside scikit-learn in a loop.

    OMP_NUM_THREADS=1 python -m benchmarks.judging --draws 2000 --images 30000 --classes 28 --arms 12 --threads 2

CPU seconds stand beside the wall clock: a busy machine shows in the clock alone.
Five folds, three images a group, an eighth of the groups for calibration, prevalence from 40 % down to 0.2 %."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from workflow_scripts.lib.judge import scoring
from workflow_scripts.lib.judge.fold_scores import FoldScores, ScoredRows
from workflow_scripts.lib.judge.thresholds import Rule

FOLDS = 5


def make_cells(seed: int, images: int, classes: int) -> list[FoldScores]:
    """One arm: the labels are those of seed 0, the scores its own."""
    world, own = np.random.default_rng(0), np.random.default_rng(seed)
    groups = world.integers(0, images // 3, images)
    of_group = world.random((images // 3, classes)) < np.geomspace(0.4, 0.002, classes)
    labels = of_group[groups]
    logits = 3 * labels - 4 + own.normal(0, 1.3, labels.shape) + own.normal(0, 0.7, of_group.shape)[groups]
    scores = 1 / (1 + np.exp(-logits))
    fold, eighth = groups % FOLDS, groups // FOLDS % 8

    def table(rows: np.ndarray) -> ScoredRows:
        return ScoredRows(scores[rows], labels[rows], groups[rows])

    return [
        FoldScores(0, f, table((fold != f) & (eighth == 0)), table(fold == f), table((fold != f) & (eighth == 1)))
        for f in range(FOLDS)
    ]


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def draw_all(arms: list[list[FoldScores]], rule: Rule, weights: np.ndarray, threads: int, f1: bool) -> None:
    """All draws of all arms, block by block as the stage does it."""

    def one(cells: list[FoldScores]) -> None:
        for start in range(0, weights.shape[1], scoring.BLOCK):
            block = np.ascontiguousarray(weights[:, start : start + scoring.BLOCK])
            scoring.score_arm(cells, rule, block, f1=f1, ap=not f1)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, arms))


def reference(cells: list[FoldScores], weights: np.ndarray) -> tuple[float, float]:
    """Seconds that scikit-learn takes for one draw of one arm: F1 at fixed decisions, and mAP."""
    from sklearn.metrics import average_precision_score, f1_score

    tests = [cell.test for cell in cells]
    truth = np.concatenate([table.labels for table in tests])
    decided = np.concatenate([table.scores for table in tests]) >= 0.5
    rows = weights[np.concatenate([table.groups for table in tests]), 0]
    f1 = seconds(lambda: f1_score(truth, decided, average="macro", sample_weight=rows))
    return f1, seconds(
        lambda: [
            average_precision_score(t.labels, t.scores, average="macro", sample_weight=weights[t.groups, 0])
            for t in tests
        ]
    )


def main() -> None:
    """Print the table."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("draws", 2000), ("images", 30000), ("classes", 28), ("arms", 12), ("threads", 1)):
        out.add_argument(f"--{name}", type=int, default=value)
    args = out.parse_args()
    arms = [make_cells(seed, args.images, args.classes) for seed in range(args.arms)]
    shape = (args.images // 3, args.draws)
    weights = np.random.default_rng(1).standard_exponential(shape, dtype=np.float32) + np.float32(1e-6)
    f1, ap = reference(arms[0], weights)
    print(f"{args.draws} draws, {args.images} images, {args.classes} classes, {args.arms} arms, {args.threads} threads")
    for name, refit, is_f1, one in (
        ("F1, thresholds fixed", False, True, f1),
        ("F1, thresholds fitted again in each draw", True, True, f1),
        ("mAP", False, False, ap),
    ):
        rule = Rule("calibrated", 10, refit)
        busy = time.process_time()
        took = seconds(lambda rule=rule, is_f1=is_f1: draw_all(arms, rule, weights, args.threads, is_f1))
        busy = time.process_time() - busy
        loop = one * args.draws * args.arms
        print(
            f"  {name:40} {took:7.1f} s ({busy:6.1f} s CPU)  scikit-learn loop {loop:7.0f} s  ratio {loop / took:6.0f}"
        )


if __name__ == "__main__":
    main()
