"""Arms beside their baseline and their controls: the rows of the results tables, from the scores of all arms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from workflow_scripts.lib.judge import declaration, inference, scoring
from workflow_scripts.lib.judge.scoring import ArmScores, Cell, Rule

MACRO = ("macro_f1", "map", "micro_f1")  # averages over the judged classes
BY_CLASS = ("f1", "ap")
# Draws that are computed together: keeps memory flat and the weights of a fold in cache.
BLOCK = 500
OUTSIDE, CLASSES, PRIMARY, SECONDARY = "outside", "exploratory", "primary", "secondary"


@dataclass(frozen=True)
class Summary:
    """One arm at one level: its scores, and its bootstrap draws."""

    test: ArmScores  # of equal weights, B = 1
    validation: ArmScores
    macro: dict[str, np.ndarray]  # metric -> estimates (R,)
    macro_draws: dict[str, np.ndarray]  # metric -> (R, B)
    classes: dict[str, np.ndarray]  # metric -> estimates (R, K)
    class_draws: dict[str, np.ndarray]  # metric -> (R, K, B)


def _values(scores: ArmScores, judged: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "macro_f1": scores.macro_f1(judged),
        "map": scores.map(judged),
        "micro_f1": scores.micro_f1(judged),
        "f1": scores.f1(),
        "ap": scores.ap(),
    }


def summarise(cells: list[Cell], rule: Rule, weights: np.ndarray, judged: np.ndarray) -> Summary:
    """Score one arm plainly and under every column of weights (G, B)."""
    ones = np.ones((len(weights), 1))
    test, validation = (scoring.score_arm(cells, rule, ones, part) for part in ("test", "validation"))
    plain = {name: value[..., 0] for name, value in _values(test, judged).items()}
    widening = small_sample(np.stack([cell.test.positive_groups() for cell in cells]))[..., None]
    blocks: dict[str, list[np.ndarray]] = {name: [] for name in plain}
    for start in range(0, weights.shape[1], BLOCK):
        drawn = scoring.score_arm(cells, rule, np.ascontiguousarray(weights[:, start : start + BLOCK]))
        drawn.precision = test.precision + widening * (drawn.precision - test.precision)
        for name, value in _values(drawn, judged).items():
            blocks[name].append(value.astype(np.float32))
    draws = {name: np.concatenate(parts, axis=-1) for name, parts in blocks.items()}
    return Summary(
        test,
        validation,
        {name: plain[name] for name in MACRO},
        {name: draws[name] for name in MACRO},
        {name: plain[name] for name in BY_CLASS},
        {name: draws[name] for name in BY_CLASS},
    )


def small_sample(groups: np.ndarray) -> np.ndarray:
    """Factor by which draws of average precision are too narrow where few groups are positive.

    Exponential weights give a mean over n groups the variance s^2 (n - 1) / (n (n + 1)) instead of s^2 / n. In a fold
    of a rare class n is small. F1 needs no factor: its thresholds, fitted again in each draw, already widen it."""
    n = np.maximum(groups, 2)
    return np.sqrt((n + 1) / (n - 1))


def summarise_all(
    arms: Iterable[str],
    cells: Callable[[str], list[Cell]],
    rule: Rule,
    weights: np.ndarray,
    judged: np.ndarray,
    threads: int,
) -> dict[str, Summary]:
    """`summarise` for each arm; arms are independent, so the number of threads changes nothing but the time.

    `cells` makes the tables of an arm when its turn has come: those of all arms at once would fill the memory."""
    names = list(arms)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        found = pool.map(lambda name: summarise(cells(name), rule, weights, judged), names)
        return dict(zip(names, found, strict=True))


@dataclass(frozen=True)
class Pair:
    """A paired comparison: `arm` minus `against`."""

    arm: str
    against: str
    relation: str  # baseline | control


def pairs(analysis: dict[str, Any], arms: list[dict[str, Any]]) -> list[Pair]:
    """Every arm against the baseline (the analysis's, or one of its own), and against its control where it has one."""
    common = analysis["baseline"]
    against = {arm["name"]: arm.get("baseline", common) for arm in arms if arm["name"] != common}
    out = [Pair(name, baseline, "baseline") for name, baseline in against.items()]
    return out + [Pair(arm["name"], arm["control"], "control") for arm in arms if arm.get("control")]


def compare_macro(
    summaries: dict[str, Summary],
    chosen: list[Pair],
    metric: str,
    analysis: dict[str, Any],
    seed: int,
    first: Sequence[int] = (),
) -> inference.Intervals:
    """Differences of one average between paired arms, simultaneous over the pairs given but for the `first`."""
    plain = [summaries[p.arm].macro[metric] - summaries[p.against].macro[metric] for p in chosen]
    draws = [summaries[p.arm].macro_draws[metric] - summaries[p.against].macro_draws[metric] for p in chosen]
    repeats, count = len(next(iter(summaries.values())).macro[metric]), len(chosen)
    return inference.intervals(
        np.reshape(plain, (count, repeats)),
        np.reshape(draws, (count, repeats, analysis["draws"])),
        analysis["confidence"],
        seed,
        first,
    )


def macro_rows(
    summaries: dict[str, Summary], analysis: dict[str, Any], arms: list[dict[str, Any]], level: str, seed: int
) -> list[dict[str, Any]]:
    """Rows of comparisons.csv for the averages at one level; the verdict of an arm stands in its baseline row."""
    rows = []
    for metric in MACRO:
        primary = (metric, level) == (analysis["metric"], analysis["level"])
        rows += family_rows(summaries, analysis, arms, metric, level, seed, PRIMARY if primary else SECONDARY)
        outside = [pair for pair in pairs(analysis, arms) if not _inside(pair, analysis, arms)]
        found = compare_macro(summaries, outside, metric, analysis, seed)
        p = found.p_values()
        rows += [_row(pair, metric, level, found, p, i, "", OUTSIDE) for i, pair in enumerate(outside)]
    return rows


def _inside(pair: Pair, analysis: dict[str, Any], arms: list[dict[str, Any]]) -> bool:
    return pair.arm in declaration.family(analysis, arms)


def family_rows(
    summaries: dict[str, Summary],
    analysis: dict[str, Any],
    arms: list[dict[str, Any]],
    metric: str,
    level: str,
    seed: int,
    family: str = PRIMARY,
) -> list[dict[str, Any]]:
    """The whole rule for one average: rows of all comparisons of the declared family, with what may be said of each,
    and whether that is confirmed: the primary arm's come first, and only where they show a difference the others.

    A baseline row also says how large a gain of its arm would have to be to be found with a power of 80 %."""
    inside = [pair for pair in pairs(analysis, arms) if _inside(pair, analysis, arms)]
    first = [i for i, pair in enumerate(inside) if pair.arm == analysis["primary_arm"]]
    found = compare_macro(summaries, inside, metric, analysis, seed, first)
    worth, p = inference.standing(found, first), found.p_values()
    control = {pair.arm: i for i, pair in enumerate(inside) if pair.relation == "control"}
    rows = []
    for i, pair in enumerate(inside):
        of_baseline, beyond, needed = pair.relation == "baseline", None, [i]
        if of_baseline and pair.arm in control:
            needed.append(control[pair.arm])
            beyond = (found.low[needed[1]], found.high[needed[1]])
        said = inference.verdict(found.low[i], found.high[i], analysis["smallest_effect"], beyond)
        if not of_baseline:
            said = {inference.HELPS: inference.MORE, inference.HURTS: inference.LESS}.get(said, said)
        row = _row(pair, metric, level, found, p, i, said, family)
        # Averages beside the primary one have no share in its error rate.
        row["standing"] = worth[i] if family == PRIMARY else inference.EXPLORATORY
        rows.append(row | {"detectable": found.detectable(needed) if of_baseline else None})
    return rows


def class_rows(
    summaries: dict[str, Summary],
    analysis: dict[str, Any],
    arms: list[dict[str, Any]],
    level: str,
    classes: list[str],
    judged: np.ndarray,
    seed: int,
) -> list[dict[str, Any]]:
    """Exploratory rows, judged class by judged class: single intervals, false discovery rate over classes and arms."""
    rows = []
    for metric in BY_CLASS:
        for relation in ("baseline", "control"):
            members = [
                (pair, k) for pair in pairs(analysis, arms) if pair.relation == relation for k in np.flatnonzero(judged)
            ]
            if not members:
                continue
            plain = [_of(summaries, pair, "classes", metric)[:, k] for pair, k in members]
            draws = [_of(summaries, pair, "class_draws", metric)[:, k] for pair, k in members]
            found = inference.intervals(np.array(plain), np.array(draws), analysis["confidence"], seed)
            p = found.p_values()
            q = inference.benjamini_hochberg(p)
            for i, (pair, k) in enumerate(members):
                clear = q[i] <= 1 - analysis["confidence"]
                gain, loss = (
                    (inference.HELPS, inference.HURTS) if relation == "baseline" else (inference.MORE, inference.LESS)
                )
                said = (gain if found.estimate[i] > 0 else loss) if clear else inference.INCONCLUSIVE
                row = _row(pair, metric, level, found, p, i, said, CLASSES)
                rows.append(row | {"class": classes[k], "q": q[i]})
    return rows


def _of(summaries: dict[str, Summary], pair: Pair, field: str, metric: str) -> np.ndarray:
    return getattr(summaries[pair.arm], field)[metric] - getattr(summaries[pair.against], field)[metric]


def _row(
    pair: Pair, metric: str, level: str, found: inference.Intervals, p: np.ndarray, i: int, said: str, family: str
) -> dict[str, Any]:
    simultaneous = family in (PRIMARY, SECONDARY)
    return {
        "arm": pair.arm,
        "against": pair.against,
        "relation": pair.relation,
        "metric": metric,
        "level": level,
        "class": "",
        "difference": found.estimate[i],
        "low": found.low[i] if simultaneous else None,
        "high": found.high[i] if simultaneous else None,
        "low_single": found.low_single[i],
        "high_single": found.high_single[i],
        "verdict": said,
        "family": family,
        "standing": inference.EXPLORATORY,
        "se": found.se[i],
        "p": float(p[i]),
        "q": None,
        "detectable": None,
    }


def cross_check(
    summaries: dict[str, Summary],
    analysis: dict[str, Any],
    arms: list[dict[str, Any]],
    judged: np.ndarray,
    test_to_train: float,
) -> list[dict[str, Any]]:
    """Nadeau-Bengio intervals of the primary metric from the differences within each fold."""
    fold_scores = {
        name: (s.test.fold_macro_f1(judged) if analysis["metric"] == "macro_f1" else s.test.fold_map(judged))[:, 0]
        for name, s in summaries.items()
    }
    out = []
    for pair in pairs(analysis, arms):
        values = fold_scores[pair.arm] - fold_scores[pair.against]
        mean, low, high = inference.nadeau_bengio(values, test_to_train, analysis["confidence"])
        out.append(
            {"arm": pair.arm, "against": pair.against, "relation": pair.relation}
            | {"difference": mean, "low": low, "high": high, "folds": len(values), "worst_fold": float(values.min())}
        )
    return out


def metric_rows(
    name: str,
    summary: Summary,
    level: str,
    classes: list[str],
    judged: np.ndarray,
    counts: dict[str, np.ndarray],
    analysis: dict[str, Any],
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of metrics.csv for one arm at one level; counts holds positives and positive_groups (K,) of the test part.

    Intervals (of the mean over repeats, on the test part) are single ones: comparisons.csv is for comparing arms."""
    rows: list[dict[str, Any]] = []

    def add(where: tuple[int | str, int | str, str], metric: str, value: float, k: int | None = None) -> None:
        repeat, fold, part = where
        ends = single[metric, k] if (repeat, part) == ("mean", "test") and (metric, k) in single else (None, None)
        shown = counts if k is not None and part == "test" else {}
        rows.append(
            {"arm": name, "repeat": repeat, "fold": fold, "part": part, "level": level, "metric": metric}
            | {"class": "" if k is None else classes[k], "value": float(value), "low": ends[0], "high": ends[1]}
            | {field: int(shown[field][k]) if shown else None for field in ("positives", "positive_groups")}
            | {"judged": "" if k is None else bool(judged[k])}
        )

    single = _single_intervals(summary, analysis, seed)
    values = {}
    for part, scores in (("validation", summary.validation), ("test", summary.test)):
        values[part] = {key: value[..., 0] for key, value in _values(scores, judged).items()}
        for metric, by_fold in (("macro_f1", scores.fold_macro_f1(judged)), ("map", scores.fold_map(judged))):
            for i, (repeat, fold) in enumerate(scores.places):
                add((repeat, fold, part), metric, by_fold[i, 0])
        for metric in MACRO:
            for r, repeat in enumerate(scores.repeats):
                add((repeat, _over(metric), part), metric, values[part][metric][r])
            add(("mean", _over(metric), part), metric, scoring.mean(values[part][metric], axis=0))
    for metric in MACRO:
        gap = scoring.mean(values["validation"][metric], axis=0) - scoring.mean(values["test"][metric], axis=0)
        add(("mean", _over(metric), "gap"), metric, gap)
    for metric in BY_CLASS:
        for part, of_part in values.items():
            for k in range(len(classes)):
                for r, repeat in enumerate(summary.test.repeats):
                    add((repeat, _over(metric), part), metric, of_part[metric][r, k], k)
                add(("mean", _over(metric), part), metric, scoring.mean(of_part[metric][:, k], axis=0), k)
    chance = prevalence(summary.test)
    add(("mean", "mean", "test"), "prevalence", scoring.mean(chance[judged], axis=0))
    for k in range(len(classes)):
        add(("mean", "mean", "test"), "prevalence", chance[k], k)
    return rows


def prevalence(scores: ArmScores) -> np.ndarray:
    """Share of positive rows per class (K,), mean over folds that have any: the average precision of chance."""
    actual = scores.counts[:, 2, :, 0]
    fraction = actual / scores.rows[:, None]
    return scoring.mean(np.where(actual > 0, fraction, np.nan), axis=0)


def _over(metric: str) -> str:
    # F1 pools decisions over folds; average precision is averaged over them.
    return "mean" if metric in ("map", "ap") else "pooled"


def _single_intervals(summary: Summary, analysis: dict[str, Any], seed: int) -> dict[Any, tuple[float, float]]:
    # (metric, class number or None) -> interval
    out: dict[Any, tuple[float, float]] = {}
    for metric in MACRO + BY_CLASS:
        macro = metric in MACRO
        plain = summary.macro[metric][None] if macro else summary.classes[metric].T
        draws = summary.macro_draws[metric][None] if macro else summary.class_draws[metric].transpose(1, 0, 2)
        found = inference.intervals(plain, draws, analysis["confidence"], seed)
        for k in range(len(found.se)):
            out[metric, None if macro else k] = (found.low_single[k], found.high_single[k])
    return out
