"""Real-image equivalent of an arm: its score placed on a learning curve over real images.

The points of the curve are arms of real images alone. They have a fraction of the train groups (`real_fraction`), all
of them, or reserve groups besides (`more_real`). Those of all label regimes are points of one curve, because a regime
labels a part of the train groups. An arm is told relative to the whole train part as its own regime labels it.

Between points the score is linear in the logarithm of the number of images. The curve never falls: where measured
scores do, they are averaged (isotonic regression). Beyond its last point the curve is unknown. Intervals come from the
bootstrap draws: in each draw the curve and the arm are drawn together, and the arm is placed again. The sentences about
the numbers stand in `wording.equivalents`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import arm_choices, arm_settings
from workflow_scripts.lib.judge import inference
from workflow_scripts.lib.judge.experiment import Experiment
from workflow_scripts.lib.judge.inference import Intervals
from workflow_scripts.lib.judge.scoring import ScoredRun

# Settings in which an arm may differ from the curve that it is placed on.
OWN = (
    "name",
    "method",
    "regime",
    "synthetic_set",
    "pseudo_labels_from",
    "answers_unlabelled",
    "augment",  # only `strong` changes it
    *arm_settings.METHOD_OPTIONS,
)
Ends = tuple[float, float, float]  # estimate, low and high


@dataclass(frozen=True)
class CurvePoint:
    """An arm of real images alone: a measured point of the curve."""

    arm: str
    images: float  # mean over folds and repeats
    groups: float
    curve: float  # height of the curve, which never falls
    score: Ends


@dataclass(frozen=True)
class PlacedArm:
    """Another arm, placed on the curve by its score."""

    arm: str
    synthetic_set: str
    learns_from_generated: bool
    score: float
    images: Ends  # 0 below the curve, infinity above it
    beside: float  # real images of the whole train part, as its regime labels it
    regime: str = ""  # its label regime; empty where everything is labelled


@dataclass(frozen=True)
class LearningCurve:
    """Score by number of real training images, and the arms placed upon it."""

    all_images: float  # real images of the whole train part, as the regime of the curve's question labels it
    rises: bool  # whether the curve is shown to rise: else a score stands for no number of images
    points: list[CurvePoint]
    arms: list[PlacedArm]

    def span(self, arm: PlacedArm) -> Ends:
        """Fewest images of the curve, those that an arm has beside it, and most."""
        sizes = [point.images for point in self.points]
        return min(sizes), arm.beside, max(sizes)


def measure(run: ScoredRun) -> LearningCurve | None:
    """The curve of the primary arm's settings, or else of the baseline's, with all arms that share these settings.

    None where no arm has fewer real images than the train part, or more."""
    experiment, analysis = run.experiment, run.question.analysis
    settings = {
        name: own for name in experiment.arms if (own := experiment.settings(name)).get("method") in arm_choices.METHODS
    }
    images = {name: experiment.mean_number(name, "real_images") for name in settings}
    for wanted in (analysis["primary_arm"], analysis["baseline"]):
        key = common_settings(settings[wanted]) if wanted in settings else None
        alike = [name for name in settings if common_settings(settings[name]) == key]
        points = [name for name in alike if images[name] and is_point(settings[name])]
        # Of each regime the images of its whole train part; the first arm that has them counts.
        full = {
            regime_name(settings[name]): images[name]
            for name in reversed(points)
            if settings[name].get("real_fraction") == 1
        }
        own = regime_name(settings[wanted]) if wanted in settings else ""
        if own in full and len({images[name] for name in points}) > 1:
            placed = [name for name in alike if name in points or regime_name(settings[name]) in full]
            return _placed_on_curve(run, placed, {name: images[name] for name in points}, full, own)
    return None


def regime_name(settings: dict[str, Any]) -> str:
    """Label regime of an arm, by its settings; empty where everything is labelled."""
    return (settings.get("regime") or {}).get("name", "")


def common_settings(settings: dict[str, Any]) -> str:
    """The settings that arms share which are placed on one curve, as text."""
    return json.dumps({name: value for name, value in settings.items() if name not in OWN}, sort_keys=True)


def is_point(settings: dict[str, Any]) -> bool:
    """Whether an arm is a point of a curve: it has nothing but real images, unchanged."""
    method = arm_choices.METHODS[settings["method"]]
    plain = method.step == "real_only" and method.second_source is None
    whole = plain and method.generator is None and not method.averaged
    return whole or (settings["method"] == "more_real" and "synthetic_set" not in settings)


def _placed_on_curve(
    run: ScoredRun, alike: list[str], images: dict[str, float], full: dict[str, float], own: str
) -> LearningCurve:
    """Fit the curve to the points, which have these numbers of images, and place the other arms of `alike` on it.

    `full` are the images of whole train parts by regime; `own` is the regime that the curve's question is about."""
    confidence = run.question.analysis["confidence"]
    scores = arm_scores(run, alike)
    # The estimates come first, then their draws.
    errors = placing_errors(*_by_repeat(run, alike), run.question.seed)
    drawn = np.concatenate([scores.estimate[:, None], scores.estimate[:, None] + errors], axis=1)
    row = {name: i for i, name in enumerate(alike)}
    sizes = sorted(set(images.values()))
    # Arms of as many images are one point.
    members = [[name for name in images if images[name] == size] for size in sizes]
    scored = np.stack([drawn[[row[name] for name in names]].mean(axis=0) for names in members])
    curve = rising(scored)
    points = [
        _curve_point(run.experiment, scores, name, row[name], size, heights[0])
        for size, names, heights in zip(sizes, members, curve, strict=True)
        for name in names
    ]
    synthetic_sets = {arm["name"]: arm.get("synthetic_set", "") for arm in run.question.arms}
    placed = []
    for name in (name for name in alike if name not in images):
        ends = interval(place(np.array(sizes), curve, drawn[row[name]]), confidence)
        settings = run.experiment.settings(name)
        generated, regime = arm_choices.METHODS[settings["method"]].learns_from_generated, regime_name(settings)
        about = (name, synthetic_sets.get(name, ""), generated, scores.estimate[row[name]], ends)
        placed.append(PlacedArm(*about, full[regime], regime))
    return LearningCurve(full[own], interval(scored[-1] - scored[0], confidence)[1] > 0, points, placed)


def arm_scores(run: ScoredRun, names: list[str]) -> Intervals:
    """Scores of some arms by the primary metric, with their draws."""
    return inference.intervals(*_by_repeat(run, names), run.question.analysis["confidence"], run.question.seed)


def _by_repeat(run: ScoredRun, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Scores (A, R) of some arms by the primary metric, and their draws (A, R, B)."""
    metric, summaries = run.question.analysis["metric"], run.primary_level
    return (
        np.stack([summaries[name].macro[metric] for name in names]),
        np.stack([summaries[name].macro_draws[metric] for name in names]),
    )


def placing_errors(scores: np.ndarray, draws: np.ndarray, seed: int) -> np.ndarray:
    """Errors (A, B) of arms beside each other, from scores (A, R) and draws (A, R, B).

    What a repeat does to all arms alike moves arm and curve together. The luck of each arm is its own: the interaction
    of arms and repeats beyond the bootstrap, pooled over arms."""
    groups = draws.mean(axis=1, dtype=float)
    groups -= groups.mean(axis=1, keepdims=True)
    count, repeats = scores.shape
    freedom = (count - 1) * (repeats - 1)
    if not freedom:
        return groups
    own = draws - draws.mean(axis=2, keepdims=True)
    luck = max(0.0, float(_interaction(scores) - _interaction(own).mean())) / freedom / repeats
    rng = np.random.default_rng(derive(seed, "judge", "placing"))
    size = np.sqrt(luck * freedom / rng.chisquare(freedom, groups.shape[1]))
    return groups + size * rng.standard_normal(groups.shape)


def _interaction(scores: np.ndarray) -> np.ndarray:
    """Sum of squares of scores (A, R, ...) beyond the means of arms and of repeats."""
    rest = scores - scores.mean(axis=0, keepdims=True)
    return ((rest - rest.mean(axis=1, keepdims=True)) ** 2).sum(axis=(0, 1))


def _curve_point(
    experiment: Experiment, scores: Intervals, name: str, i: int, images: float, height: float
) -> CurvePoint:
    score = (scores.estimate[i], scores.low_single[i], scores.high_single[i])
    return CurvePoint(name, images, experiment.mean_number(name, "real_groups"), height, score)


def rising(scores: np.ndarray) -> np.ndarray:
    """Isotonic regression: the rising curves (P, B) nearest to scores (P, B) of rising numbers of images.

    Min-max formula: at each point the highest, over all beginnings, of the lowest mean, over all ends, of a stretch
    that holds the point."""
    count = len(scores)
    sums = np.concatenate([np.zeros((1, *scores.shape[1:])), np.cumsum(scores, axis=0)])
    out = np.empty_like(scores, dtype=float)
    for at in range(count):
        lowest = [
            np.min([(sums[end + 1] - sums[begin]) / (end + 1 - begin) for end in range(at, count)], axis=0)
            for begin in range(at + 1)
        ]
        out[at] = np.max(lowest, axis=0)
    return out


def place(images: np.ndarray, curve: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Numbers of images (B,) at which curves (P, B) over `images` (P,) have the scores (B,).

    Linear in the logarithm of the number between the points; 0 below the first point and infinity above the last."""
    where = np.log(images)
    at = [np.interp(score, heights, where, -np.inf, np.inf) for score, heights in zip(scores, curve.T, strict=True)]
    return np.exp(at)


def interval(numbers: np.ndarray, confidence: float) -> Ends:
    """The estimate, which is the first of the numbers, and the interval of the draws that follow it."""
    drawn = np.sort(numbers[1:])
    tail = (1 - confidence) / 2
    # No mean of two draws: one of them may be infinite.
    low, high = (
        drawn[min(len(drawn) - 1, max(0, math.ceil(fraction * len(drawn)) - 1))] for fraction in (tail, 1 - tail)
    )
    return float(numbers[0]), float(low), float(high)
