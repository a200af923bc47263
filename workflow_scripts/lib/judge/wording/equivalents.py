"""Real-image equivalents in words: what an arm was worth in real images (`worth` in analysis.json)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.real_image_equivalent import Ends, LearningCurve, PlacedArm


def report(curve: LearningCurve, question: Question) -> dict[str, Any]:
    """The curve and the arms upon it, with a sentence about each arm; `sentence` is that of the primary arm."""
    arms = [_placed(arm, curve, question.analysis["confidence"]) for arm in curve.arms]
    sentences = {arm["arm"]: arm["sentence"] for arm in arms}
    return {
        "metric": question.analysis["metric"],
        "level": question.analysis["level"],
        "confidence": question.analysis["confidence"],
        "images": curve.all_images,
        "rises": curve.rises,
        "points": [
            {"arm": point.arm, "images": point.images, "groups": point.groups, "curve": point.curve}
            | dict(zip(("score", "low", "high"), point.score, strict=True))
            for point in curve.points
        ],
        "arms": arms,
        "sentence": sentences.get(question.analysis["primary_arm"], ""),
    }


def _placed(arm: PlacedArm, curve: LearningCurve, confidence: float) -> dict[str, Any]:
    span = curve.span(arm)
    fewest, full, most = span
    entry: dict[str, Any] = {"arm": arm.arm, "synthetic_set": arm.synthetic_set, "score": arm.score}
    if arm.regime or full != curve.all_images:
        entry |= {"regime": arm.regime, "beside": full}
    # Images beyond the whole train part; null where the arm lies beyond the curve.
    entry |= {
        end: value - full if 0 < value < math.inf else None
        for end, value in zip(("worth", "low", "high"), arm.images, strict=True)
    }
    name = _subject(arm)
    text = sentence(name, arm.images, span, confidence, arm.regime) if curve.rises else untold(name, span)
    # Where they stand on the curve, as far as it goes.
    shown = np.clip(arm.images, fewest, most).tolist()
    return entry | {"sentence": text} | dict(zip(("images", "images_low", "images_high"), shown, strict=True))


def _subject(arm: PlacedArm) -> str:
    if arm.learns_from_generated:
        return f"mixing in the synthetic set {arm.synthetic_set} ({arm.arm})"
    return f"the arm {arm.arm}"


def sentence(subject: str, ends: Ends, curve: Ends, confidence: float, regime: str = "") -> str:
    """What an arm was worth, in words.

    `ends` are its number of images with the low and the high end, 0 or infinity beyond the curve; `curve` has the
    fewest images, those of the whole train part as its `regime` labels it, and the most."""
    (worth, low, high), (fewest, full, most) = ends, curve
    there = f"beside the {_count(full)} " + (f"labelled in the regime {regime}" if regime else "that there are")
    within = f"({100 * confidence:g} % interval: {_end(low, curve)} to {_end(high, curve)})"
    if low == math.inf and most <= full:
        text = f"{subject} was worth more real images than the {_count(full)} there are; an arm more_real would tell"
    elif low == math.inf:
        text = f"{subject} was worth {_end(low, curve)} real images {there}"
    elif low > full and math.inf in (worth, high):
        text = f"{subject} was worth at least {_end(low, curve)} real images {there} {within}"
    elif low > full:
        text = f"{subject} was worth about {_end(worth, curve)} real images {there} {within}"
    elif high == 0 and fewest >= full:
        text = f"{subject} was worth fewer real images than the {_count(full)} that it has; an arm of fewer would tell"
    elif high == 0:
        text = f"{subject} cost as much as having {_end(high, curve)} real images of the {_count(full)}"
    elif high < full:
        text = f"{subject} cost as much as having {_end(worth, curve)} real images of the {_count(full)} {within}"
    elif high == math.inf:
        text = f"what {subject} was worth in real images cannot be told {within}"
    else:
        text = f"{subject} was worth not more than {_end(high, curve)} real images {there} {within}"
    return f"{text[:1].upper()}{text[1:]}."


def untold(subject: str, curve: Ends) -> str:
    """The sentence where the curve does not rise."""
    return (
        f"What {subject} was worth in real images cannot be told: with {_count(curve[0])} to {_count(curve[2])} "
        "the score is not shown to rise."
    )


def _end(images: float, curve: Ends) -> str:
    """A number of images beside those of the whole train part."""
    fewest, full, most = curve
    if images == 0 and fewest >= full:
        return "fewer than it has"
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
