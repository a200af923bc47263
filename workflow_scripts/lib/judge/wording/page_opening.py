"""The first lines of the report page: a headline, one sentence with its numbers, and what is not excluded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow_scripts.lib.judge import inference
from workflow_scripts.lib.judge.analysis_choices import THESE_PROTEINS

GENERATED = "Generated training images"
PERFECT = "Images of a perfect generator"
METRICS = {"macro_f1": "macro-F1", "map": "mean average precision", "micro_f1": "micro-F1"}


@dataclass(frozen=True)
class Opening:
    """What the page says first."""

    headline: str  # the verdict in a few words
    sentence: str  # the answer, with everything that it rests on
    control: str  # what the control of the primary arm did
    limits: str  # which differences the data do not exclude


def opening(
    answer: dict[str, Any],
    sizes: dict[str, int],
    judged: int,
    unit: str = "protein",
    subject: str = GENERATED,
    lines: int = 0,
) -> Opening:
    """The opening for the `answer` and `sizes` of analysis.json.

    `unit` is what a group is, in the singular; `subject` is what the arm adds; `lines` is the number of cell lines that
    were tested (0: not known)."""
    arm, baseline = answer["arm"], answer["baseline"]
    metric = METRICS.get(answer["metric"], answer["metric"]) + (f" per {unit}" if answer["level"] == "protein" else "")
    groups = "".join((f"{sizes['test_groups']:,} unseen {unit}", "" if sizes["test_groups"] == 1 else "s"))
    images = f"{sizes['test_images']:,} images" + (f" of {lines} cell line{'s' * (lines != 1)}" if lines else "")
    where = f"On {groups} ({images}; {judged} class{'' if judged == 1 else 'es'} judged)"
    change = movement(answer["difference"], metric, f"against {baseline}")
    said = meaning(answer["verdict"], arm, answer["control"]) + alone(answer)
    sentence = f"{where}, {arm} {change} ({interval(answer)}): {said}{beyond_these(answer, unit)}"
    if answer.get("note"):
        sentence += f" {answer['note']}"
    if subject == PERFECT:
        sentence += f" The images that {arm} adds are new simulated cells. No generator was trained for them."
    # A loss that the control shares comes from the method, not from what it adds.
    if kind_of(answer["verdict"]) == inference.HURTS and _shared(answer["beyond_control"]):
        title = f"{arm} hurt, but not provably more than its control"
    else:
        title = headline(answer["verdict"], subject)
    # With one repeat claims are wrong far more often than intended: see the measured rate (wording/error_rate.py).
    limits = " ".join(filter(None, (not_excluded(answer, metric), probabilities(answer))))
    return Opening(title + alone(answer), sentence, of_control(answer, metric), limits)


def alone(answer: dict[str, Any]) -> str:
    """What is added to a verdict from a single repeat, which confirms nothing; empty where there are more."""
    claims = kind_of(answer["verdict"]) != inference.INCONCLUSIVE
    return " (exploratory: a single repeat)" if claims and not answer.get("training_luck", True) else ""


def beyond_these(answer: dict[str, Any], unit: str) -> str:
    """What the verdict holds for, and what is said at the other level of the claim."""
    these = answer.get("claim", THESE_PROTEINS) == THESE_PROTEINS
    own = f", with these training {unit}s" if these else f", with other training {unit}s as well"
    if not these and not answer.get("training_luck", True):
        return f". A single repeat tells nothing of other training {unit}s, for which a verdict was to hold."
    if not answer.get("training_luck", True) or answer.get("beside_low") is None:
        return f"{own}."
    other = f"With other training {unit}s as well" if these else f"With these training {unit}s alone"
    ends = f"{_signed(answer['beside_low'])} to {_signed(answer['beside_high'])}"
    said = meaning(answer["beside_verdict"], answer["arm"], answer["control"])
    return f"{own}. {other}, the interval is {ends}: {said}."


def _shared(beyond: dict[str, Any] | None) -> bool:
    """Whether a loss beyond the control is not shown."""
    return bool(beyond) and beyond.get("high") is not None and beyond["high"] >= 0


def headline(verdict: str, subject: str = GENERATED) -> str:
    """The verdict as the title of the answer."""
    kind = kind_of(verdict)
    return {
        inference.HELPS: f"{subject} helped",
        inference.NO_MORE: f"{subject} helped, but not provably more than the control",
        inference.HURTS: f"{subject} hurt",
        inference.NO_DIFFERENCE: f"{subject} made no difference that matters",
        inference.INCONCLUSIVE: "Inconclusive: the data allow a gain as well as a loss",
    }[kind]


def kind_of(verdict: str) -> str:
    """Which of the five verdicts this is, without its number; a verdict unknown here counts as inconclusive."""
    known = (inference.NO_MORE, inference.HELPS, inference.HURTS, inference.NO_DIFFERENCE)
    return next((kind for kind in known if verdict.startswith(kind)), inference.INCONCLUSIVE)


def meaning(verdict: str, arm: str, control: str | None) -> str:
    """A verdict spelled out."""
    kind = kind_of(verdict)
    if kind == inference.NO_DIFFERENCE:
        return f"no difference larger than {verdict.removeprefix(inference.NO_DIFFERENCE).strip()}"
    return {
        inference.HELPS: "it helps, and more than its control"
        if control
        else "it helps; no control was declared for it",
        inference.NO_MORE: f"a gain, but not shown to exceed that of its control {control}",
        inference.HURTS: "it hurts",
        inference.INCONCLUSIVE: "inconclusive",
    }[kind]


def movement(difference: float, metric: str, against: str) -> str:
    """`raised macro-F1 by 0.031 against real_only`, with the verb that fits."""
    size = f"{abs(difference):.3f}"
    if float(size) == 0:
        return f"left {metric} unchanged {against}"
    return f"{'raised' if difference > 0 else 'lowered'} {metric} by {size} {against}"


def interval(row: dict[str, Any]) -> str:
    """The interval of a difference, in words."""
    alone = (row.get("low_single"), row.get("high_single"))
    in_family = row.get("low") is not None and row.get("high") is not None
    low, high = (row["low"], row["high"]) if in_family else alone
    # The primary arm is tested first: its interval is that of a single comparison.
    simultaneous = in_family and (low, high) != alone
    if low is None or high is None:
        return "no interval known"
    percent = f"{100 * row.get('confidence', 0.95):g} %"
    return f"{'simultaneous ' if simultaneous else ''}{percent} interval {_signed(low)} to {_signed(high)}"


def of_control(answer: dict[str, Any], metric: str) -> str:
    """What the control did, and what the arm did beyond it."""
    control, against, beyond = answer["control"], answer["control_against_baseline"], answer["beyond_control"]
    if not control:
        return "No control was declared for this arm: a gain could come from anything that it adds."
    confidence = {"confidence": answer["confidence"]}
    parts = []
    if against:
        change = movement(against["difference"], metric, f"against {answer['baseline']}")
        parts.append(f"Its control, {control}, {change} ({interval(against | confidence)})")
    if beyond:
        gap = f"{answer['arm']} minus {control} is {_signed(beyond['difference'])} ({interval(beyond | confidence)})"
        parts.append(gap if parts else f"Beside its control, {gap}")
    return f"{'; '.join(parts)}." if parts else f"Its control, {control}, was not compared."


def not_excluded(answer: dict[str, Any], metric: str) -> str:
    """The sizes of true differences that the interval leaves open."""
    gain, loss, small = answer["gain_not_excluded"], answer["loss_not_excluded"], answer["smallest_effect"]
    if gain is None or loss is None:
        return "Nothing is excluded: there is no interval."
    least = answer.get("low") or 0.0
    most = answer.get("high") or 0.0
    if least > 0 or most < 0:
        # The interval leaves only one direction open: both its ends are worth knowing.
        kind, ends = ("gain", (least, most)) if least > 0 else ("loss", (-most, -least))
        open_ends = [f"any {kind} from {ends[0]:.3f} to {ends[1]:.3f}"]
    else:
        open_ends = [f"a gain of up to {gain:.3f}"] * (gain > 0) + [f"a loss of up to {loss:.3f}"] * (loss > 0)
    text = f"Not excluded for {metric}: {' or '.join(open_ends) or 'no difference at all'}"
    if small:
        text += f" (smallest difference of interest, declared beforehand: {small:g})"
    if not answer.get("training_luck", True):
        text += ". With a single repeat, these intervals do not contain the variance between repeats"
    return f"{text}."


def probabilities(answer: dict[str, Any]) -> str:
    """The probability that the arm is better, and that the difference is too small to matter; empty where not known."""
    better, negligible = answer.get("probability_better"), answer.get("probability_negligible")
    if better is None or negligible is None or not answer.get("training_luck", True):
        return ""
    small = answer["smallest_effect"]
    text = (
        f"Probability that {answer['arm']} is better than {answer['baseline']}, with a flat prior: {_percent(better)}"
    )
    return f"{text}; that the difference lies within ±{small:g}: {_percent(negligible)}." if small else f"{text}."


def _percent(probability: float) -> str:
    if probability < 0.01 or probability > 0.99:
        return "below 1 %" if probability < 0.5 else "above 99 %"
    return f"{100 * probability:.0f} %"


def _signed(value: float) -> str:
    text = f"{abs(value):.3f}"
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text
