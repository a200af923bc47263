"""Compare every arm with its baseline and its control: rows of comparisons.csv, from the scores of all arms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.judge import inference
from workflow_scripts.lib.judge.analysis_choices import CLAIMS, OTHER_PROTEINS, THESE_PROTEINS
from workflow_scripts.lib.judge.question import Pair, Question, arms_of
from workflow_scripts.lib.judge.scoring import BY_CLASS, MACRO, ScoredRun, Summary
from workflow_scripts.lib.judge.training_variance import Design

COLUMNS = ["arm", "against", "relation", "metric", "level", "class", "difference", "low", "high"]
COLUMNS += ["low_single", "high_single", "verdict", "family", "standing", "se", "p", "q", "repeats"]
COLUMNS += ["training_luck", "detectable", "claim", "beside_low", "beside_high", "beside_verdict"]
COLUMNS += ["probability_better", "probability_negligible"]
OUTSIDE, CLASSES, PRIMARY, SECONDARY = "outside", "exploratory", "primary", "secondary"
Row = dict[str, Any]


def compare_arms(run: ScoredRun) -> list[Row]:
    """All rows of comparisons.csv: averages first, then classes, per image and per protein."""
    rows: list[Row] = []
    for level, summaries in run.summaries.items():
        rows += macro_rows(run.question, summaries, level)
        rows += class_rows(run, summaries, level)
    repeats = run.experiment.repeats
    return [row | {"repeats": repeats, "training_luck": repeats > 1} for row in rows]


def macro_rows(question: Question, summaries: dict[str, Summary], level: str) -> list[Row]:
    """Rows of the averages at one level; the verdict of an arm stands in its baseline row."""
    rows = []
    for metric in MACRO:
        primary = (metric, level) == (question.analysis["metric"], question.analysis["level"])
        rows += family_rows(question, summaries, metric, level, PRIMARY if primary else SECONDARY)
        outside = question.outside_pairs()
        differences = compare_macro(question, summaries, outside, metric)
        p = differences.p
        rows += [_row(pair, metric, level, differences, p, i, "", OUTSIDE) for i, pair in enumerate(outside)]
    return rows


def family_rows(
    question: Question, summaries: dict[str, Summary], metric: str, level: str, family: str = PRIMARY
) -> list[Row]:
    """All comparisons of the declared family by one average: verdicts, and which of them are confirmed.

    The primary arm is tested first; the others are confirmed only where it showed a difference. A baseline row also
    has the smallest gain of its arm that would be found with a power of 80 %. Beside the level of the claim that was
    declared stands the other one."""
    analysis, pairs = question.analysis, question.family_pairs()
    first = [i for i, pair in enumerate(pairs) if pair.arm == analysis["primary_arm"]]
    plan, untold = _plan(summaries), _nothing_of_others(summaries, metric)
    if untold and question.claim == OTHER_PROTEINS and family == PRIMARY:
        raise UserError(f"analysis: claim = {OTHER_PROTEINS!r} cannot be judged: {untold}, or claim {THESE_PROTEINS}")
    differences = compare_macro(question, summaries, pairs, metric, first)
    other_claim = next(name for name in CLAIMS if name != question.claim)
    beside = compare_macro(question, summaries, pairs, metric, first, other_claim)
    verdicts, beside_verdicts = (_verdicts(question, pairs, one) for one in (differences, beside))
    standing, p = inference.standing(differences, first), differences.p
    better = differences.probability_better()
    negligible = differences.probability_negligible(analysis["smallest_effect"])
    control = {pair.arm: i for i, pair in enumerate(pairs) if pair.relation == "control"}
    rows = []
    for i, pair in enumerate(pairs):
        to_baseline = pair.relation == "baseline"
        needed = [i, *([control[pair.arm]] if to_baseline and pair.arm in control else [])]
        row = _row(pair, metric, level, differences, p, i, verdicts[i], family)
        row["claim"] = THESE_PROTEINS if untold else question.claim
        if not untold and (plan is None or plan.repeats > 1):  # a single repeat tells both levels the same
            row |= {"beside_low": beside.low[i], "beside_high": beside.high[i], "beside_verdict": beside_verdicts[i]}
        # Averages other than the primary one do not share its error rate.
        row |= {"probability_better": float(better[i]), "probability_negligible": float(negligible[i])}
        row["standing"] = standing[i] if family == PRIMARY else inference.EXPLORATORY
        rows.append(row | {"detectable": differences.detectable(needed) if to_baseline else None})
    return rows


def _plan(summaries: dict[str, Summary]) -> Design | None:
    """The design of the trainings, whatever the order of the arms: that of the arms which hold back most groups.

    An arm holds back fewer if its regime labels fewer of them. It is not trained on the others either."""
    plans = [one.design for one in summaries.values()]
    return None if None in plans else max(plans, key=lambda plan: float(np.trace(plan.shared)))


def _nothing_of_others(summaries: dict[str, Summary], metric: str) -> str:
    """Why nothing can be said of other training groups, with what to change; empty where something can.

    With one repeat both levels are the same, and nothing is confirmed."""
    plan = _plan(summaries)
    if plan is None or plan.repeats == 1:
        return ""
    if not plan.tells_others:
        return "all repeats have the same train part. Draw the roles (make_folds: roles_from)"
    if any(np.isnan(one.fold_macro[metric]).any() for one in summaries.values()):
        return "a fold tests no image of any judged class. Take fewer folds (make_folds.folds)"
    return ""


def _verdicts(question: Question, pairs: list[Pair], differences: inference.Intervals) -> list[str]:
    """The verdict of each comparison: that of an arm with a control rests on both of its comparisons."""
    control = {pair.arm: i for i, pair in enumerate(pairs) if pair.relation == "control"}
    out = []
    for i, pair in enumerate(pairs):
        to_baseline, beyond = pair.relation == "baseline", None
        if to_baseline and pair.arm in control:
            beyond = (differences.low[control[pair.arm]], differences.high[control[pair.arm]])
        smallest = question.analysis["smallest_effect"]
        verdict = inference.verdict(differences.low[i], differences.high[i], smallest, beyond)
        if not to_baseline:
            verdict = {inference.HELPS: inference.MORE, inference.HURTS: inference.LESS}.get(verdict, verdict)
        out.append(verdict)
    return out


def compare_macro(
    question: Question,
    summaries: dict[str, Summary],
    pairs: list[Pair],
    metric: str,
    first: Sequence[int] = (),
    claim: str | None = None,
) -> inference.Intervals:
    """Differences of one average between paired arms, simultaneous over all pairs but the `first`.

    They hold at the level of the `claim`, by default that of the declared one. A single repeat tells nothing of the
    luck of training: its intervals are those of the groups alone, at both levels."""
    analysis, plan = question.analysis, _plan(summaries)
    own = {name: summaries[name] for name in arms_of(pairs)}
    apart = plan is not None and plan.repeats > 1 and bool(pairs)
    if apart and not any(np.isnan(one.fold_macro[metric]).any() for one in own.values()):
        return inference.paired_intervals(
            np.stack([one.fold_macro[metric] for one in own.values()]),
            np.stack([one.fold_draws[metric] for one in own.values()]),
            _differences(pairs, list(own)),
            plan,
            (claim or question.claim) == OTHER_PROTEINS,
            analysis["confidence"],
            question.seed,
            first,
        )
    plain = [summaries[p.arm].macro[metric] - summaries[p.against].macro[metric] for p in pairs]
    draws = [summaries[p.arm].macro_draws[metric] - summaries[p.against].macro_draws[metric] for p in pairs]
    repeats, count = len(next(iter(summaries.values())).macro[metric]), len(pairs)
    return inference.intervals(
        np.reshape(plain, (count, repeats)),
        np.reshape(draws, (count, repeats, analysis["draws"])),
        analysis["confidence"],
        question.seed,
        first,
    )


def _differences(pairs: list[Pair], names: list[str]) -> list[inference.Difference]:
    """The pairs by the rows of their arms. An arm with a control is read beside both, whichever it is compared with."""
    beside: dict[str, set[str]] = {}
    for pair in pairs:
        beside.setdefault(pair.arm, set()).add(pair.against)
    out = []
    for pair in pairs:
        third = sorted(beside[pair.arm] - {pair.against})
        rows = (names.index(name) for name in (pair.arm, pair.against, *third[:1]))
        out.append(inference.Difference(*rows))
    return out


def class_rows(run: ScoredRun, summaries: dict[str, Summary], level: str) -> list[Row]:
    """Exploratory rows of the judged classes: single intervals, false discovery rate over classes and arms."""
    analysis, rows = run.question.analysis, []
    for metric in BY_CLASS:
        for relation in ("baseline", "control"):
            pairs = [pair for pair in run.question.pairs() if pair.relation == relation]
            members = [(pair, k) for pair in pairs for k in np.flatnonzero(run.judged)]
            if not members:
                continue
            plain = [_class_difference(summaries, pair, "classes", metric)[:, k] for pair, k in members]
            draws = [_class_difference(summaries, pair, "class_draws", metric)[:, k] for pair, k in members]
            differences = inference.intervals(
                np.array(plain), np.array(draws), analysis["confidence"], run.question.seed
            )
            p = differences.p
            q = inference.discovery_rates(p)
            for i, (pair, k) in enumerate(members):
                said = inference.exploratory_verdict(differences.estimate[i], q[i], analysis["confidence"], relation)
                row = _row(pair, metric, level, differences, p, i, said, CLASSES)
                rows.append(row | {"class": run.experiment.classes[k], "q": q[i]})
    return rows


def _class_difference(summaries: dict[str, Summary], pair: Pair, field: str, metric: str) -> np.ndarray:
    return getattr(summaries[pair.arm], field)[metric] - getattr(summaries[pair.against], field)[metric]


def _row(
    pair: Pair,
    metric: str,
    level: str,
    differences: inference.Intervals,
    p: np.ndarray,
    i: int,
    verdict: str,
    family: str,
) -> Row:
    """Comparison `i` as a row; a class row gets its class and q from the caller."""
    simultaneous = family in (PRIMARY, SECONDARY)
    return {
        "arm": pair.arm,
        "against": pair.against,
        "relation": pair.relation,
        "metric": metric,
        "level": level,
        "class": "",
        "difference": differences.estimate[i],
        "low": differences.low[i] if simultaneous else None,
        "high": differences.high[i] if simultaneous else None,
        "low_single": differences.low_single[i],
        "high_single": differences.high_single[i],
        "verdict": verdict,
        "family": family,
        "standing": inference.EXPLORATORY,
        "se": differences.se[i],
        "p": float(p[i]),
        "q": None,
        "detectable": None,
        "claim": "",
        "beside_low": None,
        "beside_high": None,
        "beside_verdict": "",
        "probability_better": None,
        "probability_negligible": None,
    }


def cross_check(run: ScoredRun) -> list[Row]:
    """Nadeau-Bengio intervals of the primary metric, from the differences within each fold."""
    analysis = run.question.analysis
    fold_scores = {}
    for name, summary in run.primary_level.items():
        by_fold = summary.test.fold_macro_f1 if analysis["metric"] == "macro_f1" else summary.test.fold_map
        fold_scores[name] = by_fold(run.judged)[:, 0]
    beside = {pair.arm: pair.against for pair in run.question.pairs() if pair.relation == "baseline"}
    out = []
    for pair in run.question.pairs():
        values = fold_scores[pair.arm] - fold_scores[pair.against]
        # A synthetic set may be all that an arm is fitted on. Its baseline says how many images its regime labels.
        names = [name if name in beside.values() else beside[name] for name in (pair.arm, pair.against)]
        ratio = max(map(run.experiment.test_to_train, names))
        mean, low, high = inference.nadeau_bengio(values, ratio, analysis["confidence"])
        worst = float(np.nanmin(values)) if not np.isnan(values).all() else math.nan
        out.append(
            {"arm": pair.arm, "against": pair.against, "relation": pair.relation}
            | {"difference": mean, "low": low, "high": high, "folds": len(values), "worst_fold": worst}
        )
    return out
