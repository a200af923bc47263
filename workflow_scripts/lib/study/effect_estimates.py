"""Effects of switches on scores, with intervals, from a designed set of trainings.

A response is an array (places, runs, 2^a). A place is one fold of one repeat, a run one row of the design. The last
axis holds all combinations of the switches that act after training (`designs.combinations_of`). An effect is the mean
with a switch on minus the mean with it off. Every estimate is a mean over places of one number a place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.study import designs
from workflow_scripts.lib.study.designs import Design

OUTCOMES = ("validation", "test", "gap")  # the gap is validation minus test
# Fewest places from which their spread is a useful estimate.
FEWEST_PLACES = 3
# State of the other kind of switches while an effect is computed: averaged over, all off, all on.
STATES = ("mean", "mixloc", "study")


@dataclass(frozen=True)
class Estimate:
    """Mean with its interval; NaN where there is none."""

    value: float
    low: float
    high: float
    interval: str  # what the interval rests on: places, residual, none


@dataclass(frozen=True)
class Effect:
    """Row of forensics.csv."""

    switch: str
    acts: str  # training (before or in it), after, both, all
    model: str
    outcome: str
    metric: str
    kind: str  # main, interaction, shapley, total, ends
    at: str  # where the switches of the other kind stand: STATES
    effect: float
    low: float
    high: float
    interval: str
    n: int  # trainings that it rests on
    aliases: str  # what cannot be told apart from it, interactions of up to three switches; none


def estimates(response: np.ndarray, signs: np.ndarray, confidence: float) -> list[Estimate]:
    """Mean of a response (P, R) and half the effect of each column of ±1 signs (R, k): 1 + k estimates.

    Two intervals are computed, and the wider one is returned. Student's interval over the P places (where there are
    enough) covers differences between folds and repeats. The interval from the residuals of a model with places and
    main effects covers variance between trainings, and interactions that the model leaves out."""
    places, runs = response.shape
    columns = np.concatenate([np.ones((runs, 1)), signs], axis=1)
    by_place = response @ columns / runs  # (P, 1 + k), the columns being orthogonal
    values = by_place.mean(axis=0)
    fitted = by_place[:, :1] + (columns[:, 1:] @ values[1:])[None, :]
    freedom = places * (runs - 1) - signs.shape[1]
    spread = ((response - fitted) ** 2).sum() / freedom if freedom > 0 else np.nan
    level = (1 + confidence) / 2
    residual = special.stdtrit(freedom, level) * np.sqrt(spread / (places * runs)) if freedom > 0 else np.nan
    out = []
    for value, own in zip(values, by_place.T, strict=True):
        between = np.nan
        if places >= FEWEST_PLACES:
            between = special.stdtrit(places - 1, level) * own.std(ddof=1) / np.sqrt(places)
        widths = {"places": between, "residual": residual}
        known = {name: width for name, width in widths.items() if not np.isnan(width)}
        name = max(known, key=known.__getitem__) if known else "none"
        width = known.get(name, np.nan)
        out.append(Estimate(float(value), float(value - width), float(value + width), name))
    return out


def doubled(estimate: Estimate) -> Estimate:
    """Effect from half an effect."""
    return Estimate(2 * estimate.value, 2 * estimate.low, 2 * estimate.high, estimate.interval)


@dataclass(frozen=True)
class Response:
    """Scores of one model by one metric."""

    model: str
    metric: str
    design: Design  # of the switches that act on the model's training, its distinct runs
    after: tuple[str, ...]
    outcomes: dict[str, np.ndarray]  # outcome -> (P, R, 2^a)

    @property
    def size(self) -> int:
        """Number of trainings."""
        places, runs, _ = self.outcomes["test"].shape
        return places * runs

    def aliases(self, name: str) -> str:
        """Aliases of a training switch."""
        words = self.design.aliases(frozenset([name]))
        return "; ".join(designs.said(word, self.design.factors) for word in words) or "none"


def response(
    table: pd.DataFrame, design: Design, model: str, metric: str, training: list[str], after: list[str]
) -> Response:
    """Scores of a model as arrays, from rows of replay_study; UserError where some are missing."""
    own = design.restricted(training)
    runs = _first_rows(design, own)
    lines = table[(table["model"] == model) & (table["metric"] == metric) & table["row"].isin(runs)]
    places = sorted(set(zip(lines["repeat"], lines["fold"], strict=True)))
    bits = 1 << np.arange(len(after) - 1, -1, -1, dtype=np.int64)
    state = lines[after].to_numpy(dtype=np.int64) @ bits if after else np.zeros(len(lines), dtype=np.int64)
    at = {place: number for number, place in enumerate(places)}
    where = (
        [at[place] for place in zip(lines["repeat"], lines["fold"], strict=True)],
        [runs.index(row) for row in lines["row"]],
        state,
    )
    outcomes = {}
    for part in ("validation", "test"):
        values = np.full((len(places), len(runs), 2 ** len(after)), np.nan)
        chosen = (lines["part"] == part).to_numpy()
        values[tuple(np.asarray(index)[chosen] for index in where)] = lines["value"].to_numpy()[chosen]
        if not len(places) or np.isnan(values).any():
            raise UserError(
                f"the scores of model {model} on {part} are not complete: {int(np.isnan(values).sum())} are missing of "
                f"{values.size}; give the tables of all shares, repeats and folds"
            )
        outcomes[part] = values
    outcomes["gap"] = outcomes["validation"] - outcomes["test"]
    return Response(model, metric, own, tuple(after), outcomes)


def _first_rows(design: Design, own: Design) -> list[int]:
    """First row of the whole design for each distinct run of a restricted design."""
    first = np.unique(design.runs(own.factors), return_index=True)[1]
    return [int(row) for row in np.sort(first)]


def effects(scored: Response, confidence: float) -> Iterator[Effect]:
    """All effects on a response: main effects, interactions of both kinds of switches, Shapley values, totals."""
    for outcome, values in scored.outcomes.items():
        yield from _of_training(scored, outcome, values, confidence)
        if scored.after:
            yield from _of_after(scored, outcome, values, confidence)
        yield from _ends(scored, outcome, values, confidence)


def _line(
    scored: Response, outcome: str, switch: str, acts: str, kind: str, at: str, own: Estimate, aliases: str
) -> Effect:
    return Effect(
        switch, acts, scored.model, outcome, scored.metric, kind, at, own.value, own.low, own.high, own.interval,
        scored.size, aliases,
    )  # fmt: skip


def _of_training(scored: Response, outcome: str, values: np.ndarray, confidence: float) -> Iterator[Effect]:
    taken = {"mean": values.mean(axis=-1), "mixloc": values[..., 0], "study": values[..., -1]}
    for at in STATES if scored.after else STATES[:1]:
        for name, own in zip(
            scored.design.factors, estimates(taken[at], scored.design.signs, confidence)[1:], strict=True
        ):
            yield _line(scored, outcome, name, "training", "main", at, doubled(own), scored.aliases(name))


def _of_after(scored: Response, outcome: str, values: np.ndarray, confidence: float) -> Iterator[Effect]:
    main, fractions = designs.main_effects(values), designs.shapley(values)
    for place, name in enumerate(scored.after):
        mean, *slopes = estimates(main[..., place], scored.design.signs, confidence)
        yield _line(scored, outcome, name, "after", "main", "mean", mean, "none")
        for other, own in zip(scored.design.factors, slopes, strict=True):
            aliases = scored.aliases(other)
            aliases = aliases if aliases == "none" else "; ".join(f"{word} × {name}" for word in aliases.split("; "))
            yield _line(scored, outcome, f"{other} × {name}", "both", "interaction", "mean", doubled(own), aliases)
        fraction = estimates(fractions[..., place], scored.design.signs, confidence)[0]
        yield _line(scored, outcome, name, "after", "shapley", "mean", fraction, "none")
    total = estimates(values[..., -1] - values[..., 0], scored.design.signs, confidence)[0]
    yield _line(scored, outcome, "all after training", "after", "total", "mean", total, "none")


def _ends(scored: Response, outcome: str, values: np.ndarray, confidence: float) -> Iterator[Effect]:
    """Effect of all switches together: the study's way minus MixLoc's, two runs of the design."""
    on, off = (int(np.flatnonzero((scored.design.signs == sign).all(axis=1))[0]) for sign in (1, -1))
    difference = values[:, on, -1:] - values[:, off, :1]
    own = estimates(difference, np.zeros((1, 0)), confidence)[0]
    yield Effect(
        "all", "all", scored.model, outcome, scored.metric, "ends", "study", own.value, own.low, own.high, own.interval,
        2 * len(values), "none",
    )  # fmt: skip


def table_of(estimated: list[Effect]) -> pd.DataFrame:
    """Table of effects."""
    return pd.DataFrame([asdict(line) for line in estimated])


def sentence(lines: pd.DataFrame, model: str, metric: str) -> str:
    """Summary of the main effects on validation, test and gap of a model, in plain words."""
    own = lines[(lines["model"] == model) & (lines["metric"] == metric)]
    main = own[(own["kind"] == "main") & (own["at"] == "mean")]
    parts = []
    for outcome in OUTCOMES:
        some = main[main["outcome"] == outcome]
        sure = some[(some["low"] > 0) | (some["high"] < 0)]
        sure = sure.reindex(sure["effect"].abs().sort_values(ascending=False).index)
        named = [f"{row.switch} ({_signed(row.effect)})" for row in sure.itertuples()]
        parts.append(f"{outcome}: {', '.join(named) if named else f'none of {len(some)}'}")
    ends = own[own["kind"] == "ends"].set_index("outcome")["effect"]
    whole = ", ".join(f"{outcome} {_signed(ends[outcome])}" for outcome in OUTCOMES)
    return (
        f"Choices that moved {model}, their interval not holding zero: {'; '.join(parts)}. "
        f"All as the study against all as MixLoc: {whole}."
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def named(design: Design) -> dict[str, Any]:
    """Description of a design for readers: notation, resolution, generators, aliases."""
    return {
        "notation": design.notation,
        "runs": len(design.signs),
        "resolution": design.resolution,
        "generators": {name: " × ".join(product) for name, product in design.generators.items()},
        "defining_relation": [designs.said(word, design.factors) for word in design.words],
        "aliased_interactions": [
            [designs.said(word, design.factors) for word in words] for words in design.interaction_sets()
        ],
    }
