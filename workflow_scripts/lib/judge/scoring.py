"""Score every arm on all its folds, plainly and under the random group weights of the bootstrap.

Thresholds come from each fold's calibration part and are fitted again in every draw. F1 pools the test decisions of all
folds of a repeat. Average precision is taken within each fold, because the scores of different models share no scale.
Knows nothing of differences between arms."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.judge.analysis_choices import LEVELS
from workflow_scripts.lib.judge.experiment import Experiment
from workflow_scripts.lib.judge.fold_scores import FoldScores, ScoredRows
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.thresholds import Rule, choose_thresholds, count_decisions, fit_thresholds, local_groups
from workflow_scripts.lib.judge.training_variance import Design, design
from workflow_scripts.lib.scores import ranking_metrics
from workflow_scripts.lib.scores.f1 import f1_score

MACRO = ("macro_f1", "map", "micro_f1")  # averages over the judged classes
BY_CLASS = ("f1", "ap")
F1Widening = tuple[np.ndarray, np.ndarray, np.ndarray]
# Draws that are computed together: keeps memory flat and the weights of a fold in cache.
BLOCK = 500


@dataclass(frozen=True)
class ScoredRun:
    """All arms of a run, scored at both levels."""

    question: Question
    experiment: Experiment
    rule: Rule
    weights: np.ndarray  # float32 (G, B), of the bootstrap
    counts: dict[str, dict[str, np.ndarray]]  # level -> positives, positive_groups of the test part (K,)
    judged: np.ndarray  # bool (K,)
    summaries: dict[str, dict[str, Summary]]  # level -> arm

    @property
    def primary_level(self) -> dict[str, Summary]:
        """The arms at the level of the primary question."""
        return self.summaries[self.question.analysis["level"]]


def score_experiment(question: Question, experiment: Experiment, threads: int) -> ScoredRun:
    """Score every arm at both levels."""
    analysis = question.analysis
    counts, judged = count_positives(experiment, analysis["minimum_positive_groups"])
    if not judged.any():
        raise UserError(
            f"no class has {analysis['minimum_positive_groups']} positive test groups, so nothing can be judged: "
            "use more images, or lower analysis: minimum_positive_groups"
        )
    weights = group_weights(question.seed, len(experiment.groups), analysis["draws"])
    rule = Rule(analysis["threshold_rule"], analysis["minimum_calibration_groups"], analysis["refit_thresholds"])
    summaries = {}
    for level in LEVELS:
        summaries[level] = summarise_arms(experiment, level, rule, weights, judged, threads)
    return ScoredRun(question, experiment, rule, weights, counts, judged, summaries)


def count_positives(experiment: Experiment, minimum: int) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    """Per level the positives and positive groups of the test part (K,), and the judged classes, bool (K,).

    Counts are those of the repeat that has fewest, so that a class is judged in every repeat or in none."""
    counts, judged = {}, np.zeros(len(experiment.classes), dtype=bool)
    for level in LEVELS:
        repeats: dict[int, list[ScoredRows]] = {}
        for fold in experiment.fold_scores(next(iter(experiment.arms)), level):
            repeats.setdefault(fold.repeat, []).append(fold.test)
        positives, groups = [], []
        for parts in (repeats[repeat] for repeat in sorted(repeats)):
            labels, owners = (np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "groups"))
            positives.append(labels.sum(axis=0))
            groups.append([len(np.unique(owners[column])) for column in labels.T])
        counts[level] = {"positives": np.min(positives, axis=0), "positive_groups": np.min(groups, axis=0)}
        if level == "image":
            judged = judged_classes(np.array(groups), minimum)
    return counts, judged


def judged_classes(positive_groups: np.ndarray, minimum: int) -> np.ndarray:
    """Classes that can be judged, bool (K,), from positive_groups (R, K).

    They have at least `minimum` positive test groups, pooled over the folds, in each repeat."""
    return (np.asarray(positive_groups) >= minimum).all(axis=0)


def group_weights(seed: int, groups: int, draws: int) -> np.ndarray:
    """Weights of the Bayesian bootstrap, float32 (G, B): independent and exponential with mean 1."""
    rng = np.random.default_rng(derive(seed, "judge"))
    # Never zero: a group that vanishes could take a class with it.
    return np.maximum(rng.standard_exponential((groups, draws), dtype=np.float32), np.float32(1e-6))


# ---- one arm ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """One arm at one level: its scores, and their bootstrap draws."""

    test: ArmScores  # at equal weights, B = 1
    validation: ArmScores
    macro: dict[str, np.ndarray]  # metric -> estimates (R,)
    macro_draws: dict[str, np.ndarray]  # metric -> (R, B)
    classes: dict[str, np.ndarray]  # metric -> estimates (R, K)
    class_draws: dict[str, np.ndarray]  # metric -> (R, K, B)
    # The averages taken apart by training, so that the mean over the folds of a repeat is that of the repeat.
    fold_macro: dict[str, np.ndarray] | None = None  # metric -> (L,)
    fold_draws: dict[str, np.ndarray] | None = None  # metric -> (L, B)
    design: Design | None = None


def summarise_arms(
    experiment: Experiment, level: str, rule: Rule, weights: np.ndarray, judged: np.ndarray, threads: int
) -> dict[str, Summary]:
    """`summarise` for each arm. Arms are independent, so the number of threads changes nothing but the time.

    The rows of an arm are made when its turn has come: those of all arms at once would fill the memory."""
    train_groups = experiment.train_groups()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        summaries = pool.map(
            lambda name: summarise(experiment.fold_scores(name, level), rule, weights, judged, train_groups),
            experiment.arms,
        )
        out = {}
        with Progress(f"arms per {level}, {weights.shape[1]} draws", len(experiment.arms)) as bar:
            for name, summary in zip(experiment.arms, summaries, strict=True):
                out[name] = summary
                bar.update(len(out))
        return out


def summarise(
    folds: list[FoldScores], rule: Rule, weights: np.ndarray, judged: np.ndarray, train_groups: float = 0.0
) -> Summary:
    """Score one arm plainly and under every column of weights (G, B)."""
    ones = np.ones((len(weights), 1))
    test, validation = (score_arm(folds, rule, ones, part) for part in ("test", "validation"))
    plain = {name: value[..., 0] for name, value in metric_values(test, judged).items()}
    apart = len(folds) > len(test.repeats)  # where each repeat has one fold, its averages are those of the training
    by_fold = {name: value[..., 0] for name, value in fold_values(test, judged).items()} if apart else None
    widening, widening_f1 = widenings([fold.test for fold in folds], test)
    blocks: dict[str, list[np.ndarray]] = {name: [] for name in plain}
    for start in range(0, weights.shape[1], BLOCK):
        drawn = score_arm(folds, rule, np.ascontiguousarray(weights[:, start : start + BLOCK]))
        drawn.precision = test.precision + widening * (drawn.precision - test.precision)
        drawn.widening = widening_f1
        for name, value in metric_values(drawn, judged).items():
            blocks[name].append(value.astype(np.float32))
        for name, value in fold_values(drawn, judged).items() if apart else ():
            blocks.setdefault(f"fold {name}", []).append(value.astype(np.float32))
    draws = {name: np.concatenate(parts, axis=-1) for name, parts in blocks.items()}
    return Summary(
        test,
        validation,
        {name: plain[name] for name in MACRO},
        {name: draws[name] for name in MACRO},
        {name: plain[name] for name in BY_CLASS},
        {name: draws[name] for name in BY_CLASS},
        by_fold or {name: plain[name] for name in MACRO},
        {name: draws[f"fold {name}" if apart else name] for name in MACRO},
        design(folds, len(weights), judged, train_groups),
    )


def metric_values(scores: ArmScores, judged: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric by name: averages (R, B), and scores of the classes (R, K, B)."""
    return {
        "macro_f1": scores.macro_f1(judged),
        "map": scores.map(judged),
        "micro_f1": scores.micro_f1(judged),
        "f1": scores.f1(),
        "ap": scores.ap(),
    }


def widenings(tests: list[ScoredRows], plain: ArmScores) -> tuple[np.ndarray, F1Widening]:
    """Factors of `small_sample` for the draws of average precision (L, K, 1), and what widens those of F1.

    F1 pools the folds of a repeat, whose test groups are others."""
    effective = np.stack([rows.effective_groups() for rows in tests])
    pooled = np.stack([effective[plain.owner == r].sum(axis=0) for r in range(len(plain.repeats))])
    return small_sample(effective)[..., None], (plain.f1(), plain.f1_parts(), small_sample(pooled)[..., None])


def fold_values(scores: ArmScores, judged: np.ndarray) -> dict[str, np.ndarray]:
    """Every average taken apart by training (L, B)."""
    return {
        "macro_f1": mean(scores.f1_parts()[:, judged], axis=1),
        "map": scores.fold_map(judged),
        "micro_f1": scores.micro_f1_parts(judged),
    }


def small_sample(groups: np.ndarray) -> np.ndarray:
    """Factor by which draws are too narrow where few groups are positive, or few hold most of the positives.

    Exponential weights give a mean over n groups the variance s^2 (n - 1) / (n (n + 1)) instead of s^2 / n. Here n is
    the effective number of groups (`ScoredRows.effective_groups`)."""
    n = np.maximum(groups, 2)
    return np.sqrt((n + 1) / (n - 1))


def score_arm(
    folds: list[FoldScores], rule: Rule, weights: np.ndarray, part: str = "test", f1: bool = True, ap: bool = True
) -> ArmScores:
    """Score one arm on a part of all its folds: weights (G, B) for the run's groups, shared by folds and arms.

    With `rule.refit` the calibration groups carry the same weights and thresholds follow them. Without, thresholds
    are those of equal weights."""
    counts, precision = [], []
    for fold in folds:
        rows: ScoredRows = getattr(fold, part)
        if f1:
            counts.append(np.stack(count_decisions(rows, fold_thresholds(fold, rule, weights), rule, weights)))
        if ap:
            precision.append(class_precision(rows, weights))
    places = [(fold.repeat, fold.fold) for fold in folds]
    shape = (len(folds), 0, weights.shape[1])
    return ArmScores(
        sorted({repeat for repeat, _ in places}),
        places,
        np.stack(counts) if f1 else np.zeros((len(folds), 3, *shape[1:])),
        np.stack(precision) if ap else np.zeros(shape),
        np.array([len(getattr(fold, part).groups) for fold in folds]),
    )


def fold_thresholds(fold: FoldScores, rule: Rule, weights: np.ndarray) -> list[ranking_metrics.Choice]:
    """The threshold of each class in each draw: of the drawn calibration part, or with `rule.refit` off of the plain
    one."""
    if rule.refit:
        return choose_thresholds(fold.calibration, rule, weights)
    values = fit_thresholds(fold.calibration, rule).values
    return [ranking_metrics.Choice.fixed(value, weights.shape[1]) for value in values]


def class_precision(rows: ScoredRows, weights: np.ndarray) -> np.ndarray:
    """Average precision of each class in each draw (K, B)."""
    groups, local = local_groups(rows, weights)
    columns = zip(rows.scores.T, rows.labels.T, strict=True)
    return np.stack([ranking_metrics.average_precision(*column, groups, local) for column in columns])


@dataclass
class ArmScores:
    """Scores of one arm in each draw; R repeats, K classes, B draws, L folds in all."""

    repeats: list[int]  # (R,)
    places: list[tuple[int, int]]  # (repeat, fold) of each of the L folds
    counts: np.ndarray  # (L, 3, K, B): weight of true, decided and actual positives
    precision: np.ndarray  # average precision (L, K, B); NaN where the fold has no positive
    rows: np.ndarray  # int (L,), rows scored in each fold
    # Of draws: plain F1 (R, K, 1), its parts (L, K, 1), and the factor (R, K, 1) that moves draws away from them.
    widening: F1Widening | None = None

    @property
    def owner(self) -> np.ndarray:
        """Number of the repeat of each fold (L,)."""
        return np.array([self.repeats.index(repeat) for repeat, _ in self.places])

    def macro_f1(self, judged: np.ndarray) -> np.ndarray:
        """Mean F1 of the judged classes, bool (K,), per repeat and draw (R, B)."""
        return mean(self.f1()[:, judged], axis=1)

    def f1(self) -> np.ndarray:
        """F1 of pooled decisions (R, K, B)."""
        pooled = self.pooled()
        found = f1_score(pooled[:, 0], pooled[:, 1], pooled[:, 2])
        if self.widening is None:
            return found
        plain, _, factor = self.widening
        return plain + factor * (found - plain)

    def f1_parts(self) -> np.ndarray:
        """F1 taken apart by fold (L, K, B): the mean over the folds of a repeat is its F1 of pooled decisions."""
        found = _parts(self.counts, self.pooled(), self.owner)
        if self.widening is None:
            return found
        _, plain, factor = self.widening
        return plain + factor[self.owner] * (found - plain)

    def micro_f1_parts(self, judged: np.ndarray) -> np.ndarray:
        """The same for `micro_f1` (L, B)."""
        return _parts(self.counts[:, :, judged].sum(axis=2), self.pooled()[:, :, judged].sum(axis=2), self.owner)

    def micro_f1(self, judged: np.ndarray) -> np.ndarray:
        """F1 of all decisions on judged classes together (R, B)."""
        pooled = self.pooled()[:, :, judged].sum(axis=2)
        return f1_score(pooled[:, 0], pooled[:, 1], pooled[:, 2])

    def pooled(self) -> np.ndarray:
        """Counts (R, 3, K, B) of each repeat, its folds pooled."""
        return np.stack([self.counts[self.owner == r].sum(axis=0) for r in range(len(self.repeats))])

    def map(self, judged: np.ndarray) -> np.ndarray:
        """Mean over folds of `fold_map` (R, B)."""
        return self._over_folds(self.fold_map(judged))

    def ap(self) -> np.ndarray:
        """Average precision per class, mean over the folds that have positives (R, K, B)."""
        return self._over_folds(self.precision)

    def fold_macro_f1(self, judged: np.ndarray) -> np.ndarray:
        """Macro-F1 within each fold (L, B); a class that a fold has not is left out there, for all arms alike."""
        by_class = f1_score(self.counts[:, 0], self.counts[:, 1], self.counts[:, 2])
        by_class = np.where(self.counts[:, 2] > 0, by_class, np.nan)
        return mean(by_class[:, judged], axis=1)

    def fold_map(self, judged: np.ndarray) -> np.ndarray:
        """Mean average precision of the judged classes within each fold (L, B)."""
        return mean(self.precision[:, judged], axis=1)

    def prevalence(self) -> np.ndarray:
        """Fraction of positive rows per class (K,), mean over folds that have any: the average precision of chance."""
        actual = self.counts[:, 2, :, 0]
        return mean(np.where(actual > 0, actual / self.rows[:, None], np.nan), axis=0)

    def _over_folds(self, values: np.ndarray) -> np.ndarray:
        return np.stack([mean(values[self.owner == r], axis=0) for r in range(len(self.repeats))])


def _parts(counts: np.ndarray, pooled: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """F1 of pooled decisions (R, 3, ...) by the part that each fold (L, 3, ...) has in it.

    F1 is 2 sum(true) / sum(decided + actual). A fold's part is F1 + n (2 true - F1 (decided + actual)) / sum(decided +
    actual), with n folds in a repeat: a ratio's residual, as survey statistics has it."""
    f1 = f1_score(pooled[:, 0], pooled[:, 1], pooled[:, 2])[owner]
    base = (pooled[:, 1] + pooled[:, 2])[owner]
    residual = 2 * counts[:, 0] - f1 * (counts[:, 1] + counts[:, 2])
    folds = np.bincount(owner)[owner].reshape(-1, *[1] * (f1.ndim - 1))
    return f1 + folds * np.divide(residual, base, out=np.zeros_like(residual), where=base > 0)


def mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over the values that are no NaN; NaN where none is left, without a warning."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0).sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
