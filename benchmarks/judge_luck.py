"""The judge's intervals in worlds of luck: of training, generator, training set, fold, cell line and group size.

    OMP_NUM_THREADS=1 python -m benchmarks.judge_luck --repeats 2 3 5 10 --folds 1 2 --repetitions 500

It simulates the score of each arm on each test group, in each training. The score of a training is the mean over its
test images, so thresholds and classes are left out (`judge_calibration` has them). The intervals are those of the
judge: exponential weights of groups, the factor for unequal groups, `inference.paired_intervals`. Sizes of luck are
standard deviations of a difference in one training, in units of the standard error of a test on all groups.

A world has no effect. The primary arm is wrong where its interval beside the baseline misses the truth; the rest is
wrong where any interval of another comparison does. The truth of `these_proteins` is the mean luck of this training set
(or of these lines), that of `other_proteins` is zero. `width` is the half-width beside that of an oracle that knows the
variances, and how comparisons are correlated. `power` is how often the gain is found that the judge says it would find
in 80 %."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from benchmarks.judge_calibration import upper_limit
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.judge.analysis_choices import CLAIMS, OTHER_PROTEINS
from workflow_scripts.lib.judge.inference import Difference, Intervals, paired_intervals
from workflow_scripts.lib.judge.scoring import group_weights, small_sample
from workflow_scripts.lib.judge.training_variance import Design, freedom_of

BASELINE, PRIMARY, CONTROL = range(3)  # rows of the arms; the others follow, and are compared with both, too
FIRST = (0, 1)  # the primary arm's comparisons, which are tested before the others
TESTED = 0.25  # share of the groups that the only fold of a repeat tests; several folds test all of them


@dataclass(frozen=True)
class World:
    """Sizes of all luck; 0 switches a kind off."""

    others: int = 0  # arms beside the primary arm, its baseline and its control
    groups: int = 240
    held: float = 0.2  # share of the groups that a fold holds back for calibration and validation
    lasting: float = 0.7  # of what the arms differ by on a group, the part that is the same in every training
    training: float = 1.0  # luck of each training of each arm
    generator: float = 0.0  # luck of the generator that the primary arm and the others share in a fold
    alone: bool = False  # the generator is that of the primary arm alone
    bad: float = 0.0  # probability of a generator that is bad in a fold; its loss is three times `generator`
    training_set: float = 0.0  # luck of which groups are trained on
    line: float = 0.0  # effect of mean zero that differs by cell line; one a fold, the same in all repeats. A single
    # fold goes on with the next line in each repeat, as make_folds does.
    largest: float = 0.0  # share of the images in the largest group; others after Pareto


WORLDS = {
    "training": World(),
    "training x3": World(training=3.0),
    "quiet": World(training=0.0),
    "unequal groups": World(largest=0.1),
    "few groups": World(groups=20),
    "one generator": World(training=0.3, generator=1.5, others=15),
    "bad generator": World(training=0.3, generator=1.0, bad=0.15, others=3),
    "lucky primary": World(training=0.3, generator=1.5, alone=True, others=7),
    "training set, half": World(training=1.0, training_set=1.0),
    "training set, most": World(training=0.5, training_set=2.0),
    "cell lines": World(line=2.0, training=0.5),
    "many arms": World(training=2.0, others=14),
}


@dataclass(frozen=True)
class Simulated:
    """One repetition: scores of A arms in L trainings, their draws, and the truth of each claim."""

    values: np.ndarray  # (A, L)
    draws: np.ndarray  # (A, L, B)
    plan: Design
    truths: tuple[np.ndarray, np.ndarray]  # (A,) in the order of CLAIMS


def simulate(world: World, repeats: int, folds: int, draws: int, rng: np.random.Generator) -> Simulated:
    """Arms that do not differ but by luck."""
    n, count, arms = world.groups, folds * repeats, CONTROL + 1 + world.others
    images = np.ones(n)
    if world.largest:
        images = 1 + rng.pareto(1.5, n)
        images[0] = world.largest / (1 - world.largest) * images[1:].sum()
    tests = _tests(world, repeats, folds, rng)
    trained = ~tests & (rng.random((count, n)) > world.held)
    share = trained / trained.sum(axis=1, keepdims=True)
    unit = np.sqrt(0.5 / n)  # standard error of an arm's score on all groups, where a difference has variance 1 a group
    influence = rng.normal(0, world.training_set * unit * np.sqrt(n), (arms, n))
    fixed = bool(world.line) and repeats > 1 and folds > 1
    lines = rng.normal(0, world.line * unit, (arms, count if world.line and not fixed else folds))
    by_line = np.tile(lines, count // lines.shape[1])
    luck = rng.normal(0, world.training * unit, (arms, count)) + influence @ share.T + by_line
    if world.generator:
        size = world.generator * unit * np.sqrt(2)
        losses = 3 * size * (world.bad - (rng.random(count) < world.bad))  # mean zero
        generated = np.arange(arms) == PRIMARY if world.alone else ~np.isin(np.arange(arms), (BASELINE, CONTROL))
        luck += generated[:, None] * (losses if world.bad else rng.normal(0, size, count))
    parts = np.sqrt(0.5 * world.lasting) * rng.standard_normal((arms, 1, n))
    parts = parts + np.sqrt(0.5 * (1 - world.lasting)) * rng.standard_normal((arms, count, n)) + luck[..., None]
    weights = np.concatenate([np.ones((n, 1)), group_weights(int(rng.integers(2**31)), n, draws)], axis=1)
    sizes = tests * images
    scores = (sizes * parts) @ weights / (sizes @ weights)
    factor = small_sample(sizes.sum(axis=1) ** 2 / (sizes**2).sum(axis=1))[:, None]
    spread = factor * (scores[..., 1:] - scores[..., :1])
    weigh = (sizes / sizes.sum(axis=1, keepdims=True)).sum(axis=0)[None]
    places = [(repeat, fold) for repeat in range(repeats) for fold in range(folds)]
    plan = Design(places, share @ share.T, fixed, freedom_of(weigh))
    here = influence.mean(axis=1) + (lines.mean(axis=1) if fixed else 0.0)
    return Simulated(scores[..., 0], spread, plan, (here, np.zeros(arms)))


def _tests(world: World, repeats: int, folds: int, rng: np.random.Generator) -> np.ndarray:
    """The groups that each training tests, bool (L, n)."""
    n = world.groups
    if folds == 1:
        return np.stack([rng.permutation(n) < max(2, TESTED * n) for _ in range(repeats)])
    lines = rng.permutation(n) % folds
    order = np.stack([lines if world.line else rng.permutation(n) % folds for _ in range(repeats)])
    return (order[:, None] == np.arange(folds)[:, None]).reshape(repeats * folds, n)


def comparisons(world: World) -> list[Difference]:
    """The primary arm's comparisons, then those of all others."""
    arms = [PRIMARY, *range(CONTROL + 1, CONTROL + 1 + world.others)]
    out = [pair for arm in arms for pair in (Difference(arm, BASELINE, CONTROL), Difference(arm, CONTROL, BASELINE))]
    return [*out, Difference(CONTROL, BASELINE)]


def measure(
    world: World,
    repeats: int,
    folds: int,
    repetitions: int,
    draws: int,
    seed: int,
    claims: Sequence[str] = tuple(CLAIMS),
) -> list[dict[str, object]]:
    """Errors, widths and power, of the primary arm and of the rest, for each claim."""
    pairs, found = comparisons(world), []
    if not world.others:
        pairs = pairs[:2]
    for number in range(repetitions):
        one = simulate(world, repeats, folds, draws, np.random.default_rng(derive(seed, "luck", repeats, number)))
        for claim in claims:
            truth = one.truths[list(CLAIMS).index(claim)]
            judged = paired_intervals(
                one.values, one.draws, pairs, one.plan, claim == OTHER_PROTEINS, 0.95, number, FIRST
            )
            errors = judged.estimate - [truth[pair.arm] - truth[pair.against] for pair in pairs]
            found.append((claim, errors, judged))
    out = []
    for claim in claims:
        mine = [(errors, judged) for name, errors, judged in found if name == claim]
        out.append({"claim": claim, "of": "primary"} | _summary(mine, np.arange(1)))
        if world.others:
            out.append({"claim": claim, "of": "rest"} | _summary(mine, np.arange(len(FIRST), len(pairs))))
    return out


def _summary(found: list[tuple[np.ndarray, Intervals]], members: np.ndarray) -> dict[str, float]:
    errors = np.array([errors[members] for errors, _ in found])
    halves = np.array([(judged.high - judged.low)[members] / 2 for _, judged in found])
    gains = np.array([judged.detectable([int(members[0])]) for _, judged in found])
    wrong, spread = int((np.abs(errors) > halves).any(axis=1).sum()), errors.std(axis=0)
    oracle = spread * np.quantile((np.abs(errors) / spread).max(axis=1), 0.95)
    if len(members) == 1:
        oracle = spread * stats.norm.ppf(0.975)
    return {
        "share": wrong / len(found),
        "upper": upper_limit(wrong, len(found)),
        "width": float((halves / oracle).mean()),
        "power": float((errors[:, 0] + gains > halves[:, 0]).mean()),
    }


def main(argv: list[str] | None = None) -> None:
    """Print the table, as Markdown."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--worlds", nargs="*", choices=list(WORLDS), default=list(WORLDS))
    out.add_argument("--repeats", nargs="+", type=int, default=[2, 3, 5, 10])
    out.add_argument("--folds", nargs="+", type=int, default=[1, 2])
    out.add_argument("--repetitions", type=int, default=200)
    out.add_argument("--draws", type=int, default=200)
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--claims", nargs="+", choices=list(CLAIMS), default=list(CLAIMS))
    out.add_argument("--groups", type=int, help="in place of each world's own number")
    args = out.parse_args(argv)
    print("| world | repeats | folds | claim | of | wrong % | upper % | width | power % |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in args.worlds:
        world = replace(WORLDS[name], groups=args.groups) if args.groups else WORLDS[name]
        for folds in args.folds:
            for repeats in args.repeats:
                seed = derive(args.seed, name, folds)
                for row in measure(world, repeats, folds, args.repetitions, args.draws, seed, args.claims):
                    print(
                        f"| {name} | {repeats} | {folds} | {row['claim']} | {row['of']} | {100 * row['share']:.1f} "
                        f"| {100 * row['upper']:.1f} | {row['width']:.2f} | {100 * row['power']:.0f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
