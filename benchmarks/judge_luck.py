"""The judge's intervals in worlds of luck: of training, generator, training set, fold, cell line and group size.

    OMP_NUM_THREADS=1 python -m benchmarks.judge_luck --repeats 2 3 5 10 --repetitions 200

It simulates how much the primary arm and its baseline differ on each test group, in each training. The score is the
mean over test images, so a difference is linear in the groups; thresholds and classes are left out
(`judge_calibration` has them). The intervals are those of the judge: exponential weights of groups, the factor for
unequal groups, `training_variance`. Sizes of luck are standard deviations of a training's score, in units of the
standard error that the groups cause.

A world has no effect. A claim is wrong where the interval lies beside the truth. The truth of `these_proteins` is the
mean luck of this training set (or of these lines), that of `other_proteins` is zero. `width` is the half-width beside
that of an oracle that knows the variances; `power` is how often a gain of the oracle's 80 % power is found."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from benchmarks.judge_calibration import upper_limit
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.judge.analysis_choices import CLAIMS, OTHER_PROTEINS
from workflow_scripts.lib.judge.scoring import group_weights, small_sample
from workflow_scripts.lib.judge.training_variance import Design, mean_variance

DETECTED = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)  # standard errors of an effect that an oracle finds in 80 %


@dataclass(frozen=True)
class World:
    """Sizes of all luck; 0 switches a kind off."""

    groups: int = 240
    folds: int = 2
    held: float = 0.2  # share of the groups that a fold holds back for calibration and validation
    lasting: float = 0.7  # of what the arms differ by on a group, the part that is the same in every training
    training: float = 1.0  # luck of each training
    bad: float = 0.0  # probability of a generator that is bad in a fold; its loss is three times `generator`
    generator: float = 0.0
    training_set: float = 0.0  # luck of which groups are trained on
    line: float = 0.0  # effect of mean zero that differs by cell line; one line a fold, the same in all repeats
    largest: float = 0.0  # share of the images in the largest group; others after Pareto


WORLDS = {
    "training": World(),
    "training x3": World(training=3.0),
    "quiet": World(training=0.0),
    "five folds": World(folds=5),
    "few groups": World(groups=20),
    "unequal groups": World(largest=0.1),
    "bad generator": World(training=0.3, generator=1.0, bad=0.15),
    "generator": World(training=0.3, generator=1.5),
    "training set, half": World(training=1.0, training_set=1.0),
    "training set, most": World(training=0.5, training_set=2.0),
    "training set, five folds": World(folds=5, training=1.0, training_set=1.0),
    "cell lines": World(line=2.0, training=0.5),
    "five cell lines": World(line=2.0, training=0.5, folds=5),
}


@dataclass(frozen=True)
class Simulated:
    """One repetition: differences of L trainings, their draws, and the truth of each claim."""

    values: np.ndarray  # (L,)
    draws: np.ndarray  # (L, B)
    plan: Design
    truths: tuple[float, float]  # in the order of CLAIMS


def simulate(world: World, repeats: int, draws: int, rng: np.random.Generator) -> Simulated:
    """Differences between two arms that do not differ but by luck."""
    n, folds, count = world.groups, world.folds, world.folds * repeats
    images = np.ones(n)
    if world.largest:
        images = 1 + rng.pareto(1.5, n)
        images[0] = world.largest / (1 - world.largest) * images[1:].sum()
    lines = rng.permutation(n) % folds
    order = np.stack([lines if world.line else rng.permutation(n) % folds for _ in range(repeats)])
    tests = (order[:, None] == np.arange(folds)[:, None]).reshape(count, n)
    trained = ~tests & (rng.random((count, n)) > world.held)
    share = trained / trained.sum(axis=1, keepdims=True)
    unit = 1 / np.sqrt(n)  # standard error of a score of n equal groups, for differences of variance 1 a group
    influence = rng.normal(0, world.training_set * unit * np.sqrt(n), n)
    luck = rng.normal(0, world.training * unit, count) + share @ influence
    if world.generator:
        loss = rng.random(count) < world.bad if world.bad else np.zeros(count, dtype=bool)
        skewed = world.generator * unit * (3 * world.bad - 3 * loss)  # mean zero
        luck += skewed if world.bad else rng.normal(0, world.generator * unit, count)
    effects = np.tile(rng.normal(0, world.line * unit, folds), repeats) if world.line else np.zeros(count)
    lasting, own = np.sqrt(world.lasting), np.sqrt(1 - world.lasting)
    parts = lasting * rng.standard_normal(n) + own * rng.standard_normal((count, n))
    parts += (luck + effects)[:, None]
    weights = np.concatenate([np.ones((n, 1)), group_weights(int(rng.integers(2**31)), n, draws)], axis=1)
    sizes = tests * images
    scores = (sizes * parts) @ weights / (sizes @ weights)
    factor = small_sample(sizes.sum(axis=1) ** 2 / (sizes**2).sum(axis=1))[:, None]
    spread = factor * (scores[:, 1:] - scores[:, :1])
    plan = Design([(r, f) for r in range(repeats) for f in range(folds)], share @ share.T, bool(world.line))
    return Simulated(scores[:, 0], spread, plan, (float(effects.mean() + influence.mean()), 0.0))


def measure(world: World, repeats: int, repetitions: int, draws: int, seed: int) -> list[dict[str, float]]:
    """Errors, widths and power of both claims."""
    errors, halves = np.zeros((2, repetitions)), np.zeros((2, repetitions))
    for number in range(repetitions):
        found = simulate(world, repeats, draws, np.random.default_rng(derive(seed, "luck", repeats, number)))
        for k, claim in enumerate(CLAIMS):
            variance = mean_variance(found.values, found.draws, found.plan, claim == OTHER_PROTEINS)
            errors[k, number] = found.values.mean() - found.truths[k]
            halves[k, number] = variance.half_width(0.05)
    out = []
    for k, claim in enumerate(CLAIMS):
        wrong, deviation = int((np.abs(errors[k]) > halves[k]).sum()), errors[k].std()
        gained = errors[k] + DETECTED * deviation > halves[k]
        row = {"wrong": wrong, "upper": upper_limit(wrong, repetitions), "power": float(gained.mean())}
        width = float(halves[k].mean() / (stats.norm.ppf(0.975) * deviation))
        out.append({"claim": claim, "share": wrong / repetitions, "width": width, **row})
    return out


def main(argv: list[str] | None = None) -> None:
    """Print the table, as Markdown."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--worlds", nargs="*", choices=list(WORLDS), default=list(WORLDS))
    out.add_argument("--repeats", nargs="+", type=int, default=[2, 3, 5, 10])
    out.add_argument("--repetitions", type=int, default=200)
    out.add_argument("--draws", type=int, default=200)
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--groups", type=int, help="in place of each world's own number")
    args = out.parse_args(argv)
    print("| world | repeats | claim | wrong % | upper % | width | power % |\n|---|---|---|---|---|---|---|")
    for name in args.worlds:
        world = replace(WORLDS[name], groups=args.groups) if args.groups else WORLDS[name]
        for repeats in args.repeats:
            for row in measure(world, repeats, args.repetitions, args.draws, derive(args.seed, name)):
                print(
                    f"| {name} | {repeats} | {row['claim']} | {100 * row['share']:.1f} | {100 * row['upper']:.1f} "
                    f"| {row['width']:.2f} | {100 * row['power']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
