"""What an arm was worth in real images: its score placed on a learning curve over real images.

The points of a curve are arms of real images alone: those that have a fraction of the train groups (`real_fraction`), all of
them, and, beyond these, groups in reserve as well (`more_real`). Between points the score is a straight line in the
logarithm of the number of images, and never falls: where measured scores do, they are averaged (isotonic regression).
Beyond its last point nothing is known of the curve. Intervals come from the draws of the judge: in each, curve and arm
are drawn together, and the arm is placed anew."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from workflow_scripts.lib.classify import arm_choices
from workflow_scripts.lib.judge import inference
from workflow_scripts.lib.judge.comparisons import Summary
from workflow_scripts.lib.judge.experiment import Experiment

# What may differ between an arm and the curve that it stands on.
OWN = ("name", "method", "synthetic_set", *arm_choices.METHOD_OPTIONS)


def measured(
    found: Experiment,
    summaries: dict[str, Summary],
    analysis: dict[str, Any],
    arms: list[dict[str, Any]],
    seed: int,
) -> dict[str, Any] | None:
    """The curve on which the primary arm stands, or else the baseline, with all arms that share its settings; None
    where no arm has fewer real images than all, or more.

    Numbers of images are means over folds and repeats; scores are those of the primary metric."""
    settings = {
        name: own for name in found.arms if (own := settings_of(found, name)).get("method") in arm_choices.METHODS
    }
    images = {name: _mean(found, name, "real_images") for name in settings}
    for wanted in (analysis["primary_arm"], analysis["baseline"]):
        alike = [name for name in settings if wanted in settings and _key(settings[name]) == _key(settings[wanted])]
        points = [name for name in alike if images[name] and is_point(settings[name])]
        full = [name for name in points if settings[name].get("real_fraction") == 1]
        if full and len({images[name] for name in points}) > 1:
            return _placed_all(found, summaries, analysis, arms, seed, alike, points, images, images[full[0]])
    return None


def is_point(settings: dict[str, Any]) -> bool:
    """Whether an arm is a point of a curve: it has nothing but real images, as they come."""
    method = arm_choices.METHODS[settings["method"]]
    whole = method.step == "real_only" and method.second_source is None
    return whole or (settings["method"] == "more_real" and "synthetic_set" not in settings)


def _key(settings: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in settings.items() if name not in OWN}, sort_keys=True)


def _mean(found: Experiment, name: str, number: str) -> float:
    """Mean of a number over the folds of an arm; 0 where it was not written down."""
    values = [cell.numbers.get(number) for cell in found.arms[name]]
    return float(np.mean(values)) if None not in values else 0.0


def _placed_all(
    found: Experiment,
    summaries: dict[str, Summary],
    analysis: dict[str, Any],
    arms: list[dict[str, Any]],
    seed: int,
    alike: list[str],
    points: list[str],
    images: dict[str, float],
    full: float,
) -> dict[str, Any]:
    metric, confidence = analysis["metric"], analysis["confidence"]
    scores = inference.intervals(
        np.stack([summaries[name].macro[metric] for name in alike]),
        np.stack([summaries[name].macro_draws[metric] for name in alike]),
        confidence,
        seed,
    )
    # The estimates stand first, before their draws.
    drawn = np.concatenate([scores.estimate[:, None], scores.estimate[:, None] + scores.errors], axis=1)
    row = {name: i for i, name in enumerate(alike)}
    sizes = sorted({images[name] for name in points})
    # Arms of as many images are one point.
    members = [[name for name in points if images[name] == size] for size in sizes]
    scored = np.stack([drawn[[row[name] for name in names]].mean(axis=0) for names in members])
    curve = rising(scored)
    # On a curve that is not shown to rise, a score stands for no number of images.
    rises = interval(scored[-1] - scored[0], confidence)[1] > 0
    out: dict[str, Any] = {
        "metric": metric,
        "level": analysis["level"],
        "confidence": confidence,
        "images": full,
        "rises": rises,
    }
    out |= {"points": [], "arms": []}
    for size, names, values in zip(sizes, members, curve, strict=True):
        measured_at = [(name, scores.estimate[row[name]], scores.low_single[row[name]], scores.high_single[row[name]])
                       for name in names]  # fmt: skip
        out["points"] += [
            {"arm": name, "images": size, "groups": _mean(found, name, "real_groups"), "curve": values[0]}
            | dict(zip(("score", "low", "high"), ends, strict=True))
            for name, *ends in measured_at
        ]
    synthetic_sets = {arm["name"]: arm.get("synthetic_set", "") for arm in arms}
    for name in [name for name in alike if name not in points]:
        ends = interval(place(np.array(sizes), curve, drawn[row[name]]), confidence)
        entry = {"arm": name, "synthetic_set": synthetic_sets.get(name, ""), "score": scores.estimate[row[name]]}
        # Images more than the whole train part; none where the arm lies beyond the curve.
        inside = [0 < value < math.inf for value in ends]
        entry |= {
            end: value - full if known else None
            for end, value, known in zip(("worth", "low", "high"), ends, inside, strict=True)
        }
        generated = arm_choices.METHODS[settings_of(found, name)["method"]].learns_from_generated
        subject, span = _subject(entry, generated), (sizes[0], full, sizes[-1])
        entry["sentence"] = sentence(subject, ends, span, confidence) if rises else untold(subject, span)
        # Where they stand on the curve, as far as it goes.
        shown = np.clip(ends, sizes[0], sizes[-1]).tolist()
        entry |= dict(zip(("images", "images_low", "images_high"), shown, strict=True))
        out["arms"].append(entry)
    said = {entry["arm"]: entry["sentence"] for entry in out["arms"]}
    return out | {"sentence": said.get(analysis["primary_arm"], "")}


def settings_of(found: Experiment, name: str) -> dict[str, Any]:
    """What an arm was trained with, which is the same in all folds but for what it was trained on."""
    return found.arms[name][0].settings


def rising(scores: np.ndarray) -> np.ndarray:
    """The rising curves (P, B) nearest to scores (P, B) of rising numbers of images: falling stretches are averaged.

    At each point the highest, over all beginnings, of the lowest mean, over all ends, of a stretch that holds it."""
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
    """Numbers of images (B,) at which curves (P, B) over `images` (P,) have the scores (B,), in a straight line of
    their logarithm between the points; 0 below the first point and infinity above the last."""
    where = np.log(images)
    found = [np.interp(score, heights, where, -np.inf, np.inf) for score, heights in zip(scores, curve.T, strict=True)]
    return np.exp(found)


def interval(numbers: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """The estimate, which stands first among the numbers, and the ends of its interval from the draws that follow."""
    drawn = np.sort(numbers[1:])
    tail = (1 - confidence) / 2
    # No mean of two draws: one of them may be infinite.
    low, high = (
        drawn[min(len(drawn) - 1, max(0, math.ceil(fraction * len(drawn)) - 1))] for fraction in (tail, 1 - tail)
    )
    return float(numbers[0]), float(low), float(high)


def _subject(entry: dict[str, Any], generated: bool) -> str:
    if generated:
        return f"mixing in the synthetic set {entry['synthetic_set']} ({entry['arm']})"
    return f"the arm {entry['arm']}"


def sentence(
    subject: str, ends: tuple[float, float, float], curve: tuple[float, float, float], confidence: float
) -> str:
    """What an arm was worth, in words: `ends` are its number of images, the low and the high end of its interval, 0 or
    infinity where the curve does not reach; `curve` its fewest images, those of the whole train part, and its most."""
    (worth, low, high), (_, full, most) = ends, curve
    there = f"beside the {_count(full)} that there are"
    within = f"({100 * confidence:g} % interval: {_end(low, curve)} to {_end(high, curve)})"
    if low == math.inf and most <= full:
        text = f"{subject} was worth more real images than the {_count(full)} there are; an arm more_real would tell"
    elif low == math.inf:
        text = f"{subject} was worth {_end(low, curve)} real images {there}"
    elif low > full and math.inf in (worth, high):
        text = f"{subject} was worth at least {_end(low, curve)} real images {there} {within}"
    elif low > full:
        text = f"{subject} was worth about {_end(worth, curve)} real images {there} {within}"
    elif high == 0:
        text = f"{subject} cost as much as having {_end(high, curve)} real images of the {_count(full)}"
    elif high < full:
        text = f"{subject} cost as much as having {_end(worth, curve)} real images of the {_count(full)} {within}"
    elif high == math.inf:
        text = f"what {subject} was worth in real images cannot be told {within}"
    else:
        text = f"{subject} was worth not more than {_end(high, curve)} real images {there} {within}"
    return f"{text[:1].upper()}{text[1:]}."


def untold(subject: str, curve: tuple[float, float, float]) -> str:
    """What is said where the curve does not rise."""
    return (
        f"What {subject} was worth in real images cannot be told: with {_count(curve[0])} to {_count(curve[2])} "
        "the score is not shown to rise."
    )


def _end(images: float, curve: tuple[float, float, float]) -> str:
    """A number of images beside those of the whole train part."""
    fewest, full, most = curve
    if images == 0:
        return f"more than {_count(full - fewest)} fewer"
    if images == math.inf:
        return f"more than {_count(most - full)} more" if most > full else "more than there are"
    return f"{_count(abs(images - full))} {'fewer' if images < full else 'more'}"


def _count(value: float) -> str:
    """A number of images as precise as it is known: two digits."""
    if abs(value) < 10:
        return f"{value:.0f}"
    step = 10 ** (math.floor(math.log10(abs(value))) - 1)
    return f"{round(value / step) * step:,.0f}"
