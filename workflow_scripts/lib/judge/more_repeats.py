"""How precise a run with more repeats would be, from what this run has shown of its trainings.

Longer runs are drawn, and judged as the run itself is. Their trainings err as the bootstrap of this run shows, and have
luck as large as this run makes likely (`training_variance`); all arms have equal luck. Few trainings say little about
luck, so the answer is a range. It does not depend on the effect: neither does the precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.judge.analysis_choices import OTHER_PROTEINS
from workflow_scripts.lib.judge.inference import Difference, paired_intervals
from workflow_scripts.lib.judge.scoring import ScoredRun
from workflow_scripts.lib.judge.training_variance import (
    SHARE_WEIGHTS,
    SHARES,
    Design,
    MeanVariance,
    evidence,
    mean_variance,
)

TIMES = (2, 4)  # as many repeats as the run has
MOST = 400  # trainings of a longer run; the time grows with the cube of their number
DRAWN = 30  # longer runs of each number of repeats
ENDS = (0.1, 0.9)  # quantiles of the half-widths: four in five longer runs lie between them
SHARE = float(SHARES @ SHARE_WEIGHTS)  # of the training set in the luck, as the wider claim expects it


@dataclass(frozen=True)
class LongerRun:
    """The primary arm beside its baseline, in runs of so many repeats."""

    repeats: int
    half_width: float  # of the interval: median over the drawn runs
    low: float
    high: float
    detectable: float  # gain that the rule finds with the power of `inference.POWER`


@dataclass(frozen=True)
class Forecast:
    """Longer runs, and the half-width that remains however many repeats there are."""

    longer: list[LongerRun]
    least: float


@dataclass(frozen=True)
class Exchangeable:
    """Covariance of m numbers of each repeat, where all repeats are alike: within a repeat, and between two."""

    within: np.ndarray  # (m, m)
    between: np.ndarray  # (m, m)

    @classmethod
    def of(cls, covariance: np.ndarray) -> Exchangeable:
        """The mean over the repeats of a covariance (R, m, R, m)."""
        repeats = len(covariance)
        own = np.einsum("rirj->ij", covariance)
        return cls(own / repeats, (covariance.sum(axis=(0, 2)) - own) / (repeats * (repeats - 1)))

    def draw(self, repeats: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Normal numbers (m, repeats, count)."""
        m = len(self.within)
        common = _root(self.between) @ rng.standard_normal((m, count))
        apart = _root(self.within - self.between) @ rng.standard_normal((m, repeats * count))
        return common[:, None] + apart.reshape(m, repeats, count)


def _root(covariance: np.ndarray) -> np.ndarray:
    """Factor of the nearest matrix that is a covariance: that of few repeats may be none."""
    sizes, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return vectors * np.sqrt(np.maximum(sizes, 0))


@dataclass(frozen=True)
class Trainings:
    """What a run has shown of the primary arm, its baseline and, where there is one, its control."""

    values: np.ndarray  # (A, L) scores of L = repeats times folds trainings, repeat by repeat
    draws: np.ndarray  # (A, L, B) of the bootstrap
    plan: Design

    @property
    def folds(self) -> int:
        """Number of folds of a repeat."""
        return len(self.plan.places) // self.plan.repeats

    def pairs(self) -> list[Difference]:
        """The arm beside its baseline, and beside its control."""
        if len(self.values) == 2:
            return [Difference(0, 1)]
        return [Difference(0, 1, 2), Difference(0, 2, 1)]


def measure(run: ScoredRun, leaves_out: bool) -> Forecast | None:
    """The forecast for the declared comparison; None where the run tells nothing of longer ones.

    One repeat shows no luck. Where values of a column are left out in turn (`leaves_out`), later repeats test those of
    earlier ones again, unless all folds test the same in each."""
    question, metric = run.question, run.question.analysis["metric"]
    primary = question.analysis["primary_arm"]
    pairs = sorted((pair for pair in question.pairs() if pair.arm == primary), key=lambda pair: pair.relation)
    arms = [run.primary_level[name] for name in dict.fromkeys([primary, *(pair.against for pair in pairs)])]
    # That of the arms which hold back most groups, as the judge has it.
    plans = [arm.design for arm in run.primary_level.values() if arm.design]
    plan = max(plans, key=lambda one: float(np.trace(one.shared)), default=None)
    if plan is None or plan.repeats == 1 or any(np.isnan(arm.fold_macro[metric]).any() for arm in arms):
        return None
    counts = [times * plan.repeats for times in TIMES if times * len(plan.places) <= MOST]
    if not counts or (leaves_out and not plan.fixed):
        return None
    values, draws = (np.stack([getattr(arm, name)[metric] for arm in arms]) for name in ("fold_macro", "fold_draws"))
    return forecast(
        Trainings(values, draws, plan),
        question.claim == OTHER_PROTEINS,
        question.analysis["confidence"],
        question.seed,
        counts,
    )


def forecast(seen: Trainings, others: bool, confidence: float, seed: int, counts: Sequence[int]) -> Forecast:
    """Draw and judge longer runs; with `others` they are judged for other training groups too."""
    errors, (luck, shared) = _errors(seen), _luck(seen, others)
    arms, pairs, sizes = len(seen.values), seen.pairs(), _middles(luck)
    longer = []
    for count in counts:
        rng = np.random.default_rng(derive(seed, "judge", "longer", count))
        plan = _longer_plan(seen.plan, count)
        draws = _trainings(errors.draw(count, seen.draws.shape[2], rng), arms)
        scores = _trainings(errors.draw(count, DRAWN, rng), arms)
        by_training = shared.draw(count, arms * DRAWN, rng).swapaxes(0, 1).reshape(-1, arms, DRAWN)
        scores = scores + np.sqrt(sizes / 2) * by_training.swapaxes(0, 1)
        judged = [
            paired_intervals(scores[..., i], draws, pairs, plan, others, confidence, seed, range(len(pairs)))
            for i in range(DRAWN)
        ]
        halves = [float(one.high[0] - one.low[0]) / 2 for one in judged]
        gains = [one.detectable(list(range(len(pairs)))) for one in judged]
        low, high = np.quantile(halves, ENDS)
        longer.append(LongerRun(count, float(np.median(halves)), float(low), float(high), float(np.median(gains))))
    # What all repeats share is left: the test groups, and the training set as far as repeats have it in common. So long
    # a run would know the size of its luck.
    difference = np.kron([1, -1, 0][:arms], np.full(seen.folds, 1 / seen.folds))
    known = max(0.0, float(difference @ errors.between @ difference))
    lasting = np.array([luck.middle() * float(shared.between.mean())])
    left = MeanVariance(lasting, np.ones(1), known, seen.plan.freedom)
    # The drawn runs have a scatter of their own, and no run is narrower.
    return Forecast(longer, min([left.half_width(1 - confidence), *(run.half_width for run in longer)]))


def _errors(seen: Trainings) -> Exchangeable:
    """Errors of the arms and folds of a repeat, as the bootstrap shows them."""
    arms, repeats, folds = len(seen.values), seen.plan.repeats, seen.folds
    flat = seen.draws.reshape(arms * repeats * folds, -1).astype(float)
    covariance = np.cov(flat, ddof=0).reshape(arms, repeats, folds, arms, repeats, folds)
    size = arms * folds
    return Exchangeable.of(covariance.transpose(1, 0, 2, 4, 3, 5).reshape(repeats, size, repeats, size))


def _luck(seen: Trainings, others: bool) -> tuple[MeanVariance, Exchangeable]:
    """Luck of the first difference in one training, with its probabilities, and how trainings share it."""
    first = seen.pairs()[0]
    against = [first.against, *([] if first.beside is None else [first.beside])]
    shown = evidence(seen.values[first.arm] - seen.values[against], seen.draws[first.arm] - seen.draws[against],
                     seen.plan, others)  # fmt: skip
    share = SHARE if others else 0.0
    through = (1 - share) / shown.trainings + share * shown.through  # of one training's luck, in the mean
    found = mean_variance(shown, others)
    kernel = seen.plan.kernel()
    shape = (seen.plan.repeats, seen.folds) * 2
    alike = (1 - share) * np.eye(len(kernel)) + share * kernel * (shown.through / kernel.mean())
    return MeanVariance(found.luck / through, found.weights, 0.0), Exchangeable.of(alike.reshape(shape))


def _middles(luck: MeanVariance) -> np.ndarray:
    """Sizes (DRAWN,) that are equally likely."""
    return luck.draw((np.arange(DRAWN) + 0.5) / DRAWN)


def _longer_plan(plan: Design, repeats: int) -> Design:
    """The design of a longer run: its repeats share training groups as those of this run do."""
    folds = len(plan.places) // plan.repeats
    found = Exchangeable.of(plan.shared.reshape((plan.repeats, folds) * 2))
    apart = np.kron(np.eye(repeats), found.within - found.between)
    shared = apart + np.tile(found.between, (repeats, repeats))
    return Design([(r, f) for r in range(repeats) for f in range(folds)], shared, plan.fixed, plan.freedom)


def _trainings(numbers: np.ndarray, arms: int) -> np.ndarray:
    """Numbers (arms times folds, repeats, n) as (arms, trainings, n), repeat by repeat."""
    size, repeats, count = numbers.shape
    return numbers.reshape(arms, size // arms, repeats, count).swapaxes(1, 2).reshape(arms, -1, count)
