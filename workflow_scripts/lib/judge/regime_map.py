"""Map of when generated images pay: label regimes by what the generator saw, each beside its best control.

In each regime a generated arm is compared with the regime's baseline and with its best control: the arm that does most
with the real images which the regime shows. That control is the one of the highest *validation* score, so no test score
chooses it. Where several arms share a cell of the map, the primary arm speaks for it, or else again the one of the
highest validation score. Intervals are simultaneous over the map, those of the primary arm single. The sentences stand
in `wording.map_sentences`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from workflow_scripts.lib.classify import arm_choices, source_choices
from workflow_scripts.lib.judge import comparisons, inference, scoring
from workflow_scripts.lib.judge.inference import Intervals
from workflow_scripts.lib.judge.question import Pair
from workflow_scripts.lib.judge.real_image_equivalent import Ends, arm_scores, common_settings, interval, regime_name
from workflow_scripts.lib.judge.scoring import ScoredRun

# What a generator saw, beside the labelled images: nothing; the others, without labels; the same with the baseline's
# answers; the others, with their labels. The simulator is no generator but a ceiling.
LABELLED, UNLABELLED, PSEUDO_LABELLED, EVERYTHING = "labelled", "unlabelled", "pseudo_labelled", "everything"
SAW = (LABELLED, UNLABELLED, PSEUDO_LABELLED, EVERYTHING)
SIMULATOR = "simulator"

# States of a cell.
HELPS, NO_MORE, HURTS = inference.HELPS, inference.NO_MORE, inference.HURTS
UNCONTROLLED, UNDECIDED = "helps, without a control", "undecided"

# Parts that an arm plays in the figure of scores.
BASELINE, CONTROL, GENERATED, CEILING = "baseline", "control", "generated", "ceiling"


@dataclass(frozen=True)
class RegimeArms:
    """The arms of one label regime, by their part in the map."""

    name: str  # empty where everything is labelled
    groups: float  # labelled train groups, mean over folds and repeats
    baseline: str
    controls: list[str] = field(default_factory=list)
    ceilings: list[str] = field(default_factory=list)
    generated: dict[str, list[str]] = field(default_factory=dict)  # by what their generator saw


@dataclass(frozen=True)
class Cell:
    """A generated arm in a regime, beside the baseline and the best control."""

    saw: str
    regime: str
    groups: float
    arm: str
    control: str  # empty where the regime has none
    gain: Ends  # over the baseline
    beyond: Ends | None  # over the best control
    state: str


@dataclass(frozen=True)
class SeriesPoint:
    """The score of an arm in the figure."""

    part: str
    series: str  # method, or what the generator saw
    regime: str
    groups: float
    arm: str
    score: Ends


@dataclass(frozen=True)
class Limit:
    """Number of labelled groups below which generated images help, for one kind of generator.

    0: not with the fewest either; infinite: with as many as there are, too."""

    saw: str
    groups: Ends
    helps_at: list[float]  # numbers of labelled groups whose cell helps


@dataclass(frozen=True)
class RegimeMap:
    """All that the page shows of the map; regimes from the fewest labelled groups to the most."""

    regimes: list[RegimeArms]
    cells: list[Cell]
    points: list[SeriesPoint]
    limits: list[Limit]


def measure(run: ScoredRun, sources: Mapping[str, Mapping[str, Any]]) -> RegimeMap | None:
    """The map of the arms with the primary arm's settings, or else the baseline's.

    `sources` tells of each synthetic set what its generator `sees`, the fraction that is `labelled` in its regime, and
    whether that regime shows `further` images, which no regime labels.
    None where fewer than two regimes have a baseline, or no arm learns from generated images."""
    analysis, experiment = run.question.analysis, run.experiment
    settings = {
        name: own
        for name in run.question.names
        if (own := experiment.settings(name)).get("method") in arm_choices.METHODS
    }
    groups = {name: experiment.mean_number(name, "real_groups") for name in settings}
    for wanted in (analysis["primary_arm"], analysis["baseline"]):
        if wanted not in settings:
            continue
        key = common_settings(settings[wanted])
        alike = {name: own for name, own in settings.items() if common_settings(own) == key}
        regimes = arrange(alike, groups, sources, analysis["baseline"])
        if len(regimes) > 1 and any(regime.generated for regime in regimes):
            return _measured(run, regimes)
    return None


def arrange(
    settings: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, float],
    sources: Mapping[str, Mapping[str, Any]],
    baseline: str,
) -> list[RegimeArms]:
    """The arms (name -> settings) by regime and part, from the fewest labelled groups on; only regimes with a baseline.

    In the regime in which everything is labelled all kinds of generators saw the same: its arms stand for all. But for
    those that saw further images elsewhere, which are none of its own."""
    members: dict[str, list[str]] = {}
    for name, own in settings.items():
        members.setdefault(regime_name(dict(own)), []).append(name)
    found = []
    for regime, names in members.items():
        plain = [name for name in names if _is_baseline(settings[name]) and groups[name]]
        if not plain:
            continue
        arms = RegimeArms(regime, groups[plain[0]], baseline if baseline in plain else plain[0])
        for name in names:
            _place(arms, name, settings[name], sources.get(settings[name].get("synthetic_set", ""), {}))
        found.append(arms)
    further = any(source.get("further") for source in sources.values())
    kinds = [saw for saw in SAW if any(saw in arms.generated for arms in found if arms.name)]
    kinds = [saw for saw in kinds if not (further and saw in (UNLABELLED, PSEUDO_LABELLED))]
    whole = [
        replace(arms, generated=dict.fromkeys(kinds, arms.generated[LABELLED]))
        if not arms.name and kinds and LABELLED in arms.generated
        else arms
        for arms in found
    ]
    return sorted(whole, key=lambda arms: arms.groups)


def _is_baseline(settings: Mapping[str, Any]) -> bool:
    return settings["method"] == "real_only" and settings.get("real_fraction", 1) == 1


def _place(arms: RegimeArms, name: str, settings: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Add an arm to the part that it plays in its regime, if it plays any."""
    method = arm_choices.METHODS[settings["method"]]
    if method.learns_from_generated:
        if source.get("sees") == SIMULATOR:
            arms.ceilings.append(name)
        elif saw := what_was_seen(source, (settings.get("regime") or {}).get("labelled", 1.0)):
            arms.generated.setdefault(saw, []).append(name)
    elif method.second_source in source_choices.RESERVES:
        arms.ceilings.append(name)
    elif _is_control(method):
        arms.controls.append(name)


def _is_control(method: arm_choices.Method) -> bool:
    """Whether a method learns from what its regime shows, beyond the real images as they are."""
    source = method.second_source
    if source is None:
        return method.step != "real_only"  # the same images, augmented or mixed
    new = source not in source_choices.NOTHING_NEW
    return source in source_choices.PHOTOGRAPHS and (new or source == source_choices.RESAMPLED)


def what_was_seen(source: Mapping[str, Any], labelled: float) -> str | None:
    """One of SAW for a generator beside an arm with this labelled fraction; None where the map has no place for it."""
    if not source:
        return None
    if source["labelled"] == labelled:
        return str(source["sees"])
    return EVERYTHING if source["labelled"] >= 1 else None


def _measured(run: ScoredRun, regimes: list[RegimeArms]) -> RegimeMap:
    question, metric, summaries = run.question, run.question.analysis["metric"], run.primary_level
    validation = {name: validation_score(run, name) for name in summaries}
    primary = question.analysis["primary_arm"]
    planned: list[tuple[str, RegimeArms, str, str]] = []  # what was seen, regime, arm, best control
    for saw in SAW:
        for regime in regimes:
            if saw in regime.generated:
                arm = best(regime.generated[saw], validation, primary)
                planned.append((saw, regime, arm, best(regime.controls, validation)))
    pairs = list(dict.fromkeys(
        pair
        for _, regime, arm, control in planned
        for pair in (Pair(arm, regime.baseline, "baseline"), *([Pair(arm, control, "control")] if control else []))
    ))  # fmt: skip
    first = [i for i, pair in enumerate(pairs) if pair.arm == primary]
    differences = comparisons.compare_macro(question, summaries, pairs, metric, first)
    cells, nets = [], []
    for saw, regime, arm, control in planned:
        rows = [pairs.index(Pair(arm, regime.baseline, "baseline"))]
        rows += [pairs.index(Pair(arm, control, "control"))] if control else []
        ends = [_ends(differences, row) for row in rows]
        beyond = ends[1] if control else None
        cells.append(Cell(saw, regime.name, regime.groups, arm, control, ends[0], beyond, state(ends[0], beyond)))
        nets.append(net_gain(differences, rows))
    return RegimeMap(
        regimes,
        cells,
        _points(run, regimes, cells, validation),
        limits(cells, np.stack(nets), question.analysis["confidence"]),
    )


def validation_score(run: ScoredRun, name: str) -> float:
    """Score of an arm on the validation part by the primary metric, mean over repeats."""
    scores = run.primary_level[name].validation
    return float(np.nanmean(scoring.metric_values(scores, run.judged)[run.question.analysis["metric"]]))


def best(names: list[str], scores: Mapping[str, float], declared: str = "") -> str:
    """The declared arm if it is among these, or else the one of the highest score; empty where there are none."""
    if declared in names:
        return declared
    return max(names, key=lambda name: -math.inf if math.isnan(scores[name]) else scores[name]) if names else ""


def _ends(differences: Intervals, row: int) -> Ends:
    return float(differences.estimate[row]), float(differences.low[row]), float(differences.high[row])


def state(gain: Ends, beyond: Ends | None) -> str:
    """State of a cell from its gain over the baseline, and that over the best control if there is one."""
    _, low, high = gain
    if high < 0:
        return HURTS
    if not low > 0:
        return UNDECIDED
    if beyond is None:
        return UNCONTROLLED
    return HELPS if beyond[1] > 0 else NO_MORE


def net_gain(differences: Intervals, rows: list[int]) -> np.ndarray:
    """The smaller of the gains over baseline and control (1 + B,): the estimate, then its draws."""
    estimate = differences.estimate[rows]
    drawn = np.concatenate([estimate[:, None], estimate[:, None] + differences.errors[rows]], axis=1)
    return drawn.min(axis=0)


def mirrored(net: np.ndarray) -> np.ndarray:
    """The smallest of noisy gains (1 + B,) with its draws mirrored at the estimate.

    The smallest of noisy gains is too small, and that of its draws is so once more."""
    return np.append(net[0], 2 * net[0] - net[1:])


def limits(cells: list[Cell], nets: np.ndarray, confidence: float) -> list[Limit]:
    """For each kind of generator at two numbers of labelled groups or more, the number below which its images help.

    `nets` (cells, 1 + B) are the net gains of the cells: estimate first, then draws."""
    out = []
    for saw in SAW:
        rows = np.array([i for i, cell in enumerate(cells) if cell.saw == saw], dtype=int)
        at = np.array([cells[i].groups for i in rows])
        tried = np.unique(at)
        if len(tried) > 1:
            # Of several cells with one number the one that gains least.
            least = np.stack([mirrored(nets[rows[at == number]].min(axis=0)) for number in tried])
            numbers = crossing(tried, least)
            states = [{cells[i].state for i in rows[at == number]} for number in tried]
            helping = [number for number, own in zip(tried.tolist(), states, strict=True) if own == {HELPS}]
            out.append(Limit(saw, interval(numbers, confidence), helping))
    return out


def crossing(groups: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Number of labelled groups (B,) at which gains (P, B) over rising numbers (P,) first fall to zero.

    Linear in the logarithm of the number between the points. 0 where the first gain is none, infinity where all are."""
    at, done = np.where(gains[0] > 0, np.inf, 0.0), gains[0] <= 0
    for before, (number, next_number) in enumerate(pairwise(groups)):
        high, low = gains[before], gains[before + 1]
        falls = ~done & (low <= 0)
        at[falls] = number * (next_number / number) ** (high[falls] / (high[falls] - low[falls]))
        done |= falls
    return at


def _points(
    run: ScoredRun, regimes: list[RegimeArms], cells: list[Cell], validation: Mapping[str, float]
) -> list[SeriesPoint]:
    """Scores for the figure; of several controls of one method in a regime the one of the highest validation score."""
    wanted: list[tuple[str, str, RegimeArms, str]] = []
    for regime in regimes:
        wanted.append((BASELINE, "real_only", regime, regime.baseline))
        for part, names in ((CONTROL, regime.controls), (CEILING, regime.ceilings)):
            series: dict[str, list[str]] = {}
            for name in names:
                method = run.experiment.settings(name)["method"]
                known = arm_choices.METHODS[method].learns_from_generated
                series.setdefault(SIMULATOR if known else method, []).append(name)
            wanted += [(part, method, regime, best(members, validation)) for method, members in series.items()]
        wanted += [(GENERATED, cell.saw, regime, cell.arm) for cell in cells if cell.regime == regime.name]
    names = list(dict.fromkeys(name for *_, name in wanted))
    scores = arm_scores(run, names)
    out = []
    for part, series_name, regime, name in wanted:
        i = names.index(name)
        ends = (float(scores.estimate[i]), float(scores.low_single[i]), float(scores.high_single[i]))
        out.append(SeriesPoint(part, series_name, regime.name, regime.groups, name, ends))
    return out
