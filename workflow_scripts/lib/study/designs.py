"""Two-level factorial designs: states of switches in each run, and aliases of effects.

States are signs: +1 on, −1 off. A fractional design of 2^(k−p) runs varies its first k − p factors freely (the base).
Each further factor is the product of an odd number of base factors, its generator. So every word of the defining
relation has an even length (resolution IV or better). Main effects are then free of all two-factor interactions. Both
ends, all on and all off, are runs of the design."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import chain, combinations
from math import factorial

import numpy as np

Word = frozenset[str]  # a set of factors: their product


@dataclass(frozen=True)
class Design:
    """Two-level design: runs by factors."""

    factors: tuple[str, ...]
    generators: dict[str, tuple[str, ...]]  # factor -> the base factors that it is the product of
    words: tuple[Word, ...]  # the defining relation: the products of factors that are +1 in every run, shortest first
    signs: np.ndarray  # int (runs, factors), +1 or -1

    @property
    def notation(self) -> str:
        """Notation of the design, such as 2^(10-5)."""
        p = (len(self.words) + 1).bit_length() - 1
        return f"2^({len(self.factors)}-{p})" if p else f"2^{len(self.factors)}"

    @property
    def resolution(self) -> int | None:
        """Length of the shortest word; None for a full factorial design, in which nothing is aliased."""
        return len(self.words[0]) if self.words else None

    def aliases(self, effect: Word, most: int = 3) -> list[Word]:
        """Aliases of an effect: other effects, of at most so many factors, that cannot be told apart from it."""
        aliases = {effect ^ word for word in self.words}
        return _ordered(word for word in aliases if len(word) <= most)

    def interaction_sets(self) -> list[list[Word]]:
        """Sets of two-factor interactions that are aliased with each other."""
        sets: dict[tuple[int, ...], list[Word]] = defaultdict(list)
        for one, other in combinations(range(len(self.factors)), 2):
            column = tuple((self.signs[:, one] * self.signs[:, other]).tolist())
            sets[column].append(frozenset((self.factors[one], self.factors[other])))
        return [members for members in sets.values() if len(members) > 1]

    def restricted(self, factors: list[str]) -> Design:
        """Design of a response on which only some of the factors act: its distinct runs, in the same order.

        Words that contain another factor alias nothing any more."""
        kept = tuple(name for name in self.factors if name in factors)
        words = tuple(word for word in self.words if word <= set(kept))
        rows = np.unique(self.runs(kept), return_index=True)[1]
        signs = self.signs[np.sort(rows)][:, [self.factors.index(name) for name in kept]]
        own = {name: product for name, product in self.generators.items() if {name, *product} <= set(kept)}
        return Design(kept, own, words, signs)

    def runs(self, factors: tuple[str, ...]) -> np.ndarray:
        """Number for each run (runs,), equal where runs agree in these factors."""
        index = [self.factors.index(name) for name in factors]
        return (self.signs[:, index] > 0) @ (1 << np.arange(len(index), dtype=np.int64))


def _ordered(words: object) -> list[Word]:
    return sorted(words, key=lambda word: (len(word), sorted(word)))


def _relation(generators: dict[str, tuple[str, ...]]) -> tuple[Word, ...]:
    own = [frozenset((name, *product)) for name, product in generators.items()]
    out: set[Word] = {frozenset()}
    for word in own:
        # A factor taken twice is +1 and drops out.
        out |= {word ^ other for other in out}
    return tuple(_ordered(out - {frozenset()}))


def fraction(factors: list[str], runs: int) -> Design:
    """Design of at most so many runs (a power of two) for these factors, of resolution IV or better."""
    free = min(len(factors), runs.bit_length() - 1)
    base, others = factors[:free], factors[free:]
    odd = chain.from_iterable(combinations(base, count) for count in range(3, free + 1, 2))
    generators = dict(zip(others, odd, strict=False))
    if len(generators) < len(others):
        raise ValueError(f"{runs} runs hold {free + len(generators)} factors at resolution IV, not {len(factors)}")
    # The first base factor changes slowest; the first run has all on, the last all off.
    levels = {name: 1 - 2 * (np.arange(2**free) >> (free - 1 - place) & 1) for place, name in enumerate(base)}
    for name, product in generators.items():
        levels[name] = np.prod([levels[other] for other in product], axis=0)
    signs = np.stack([levels[name] for name in factors], axis=1) if factors else np.ones((1, 0))
    return Design(tuple(factors), generators, _relation(generators), signs.astype(np.int64))


def said(word: Word, factors: tuple[str, ...]) -> str:
    """Text of an effect: its factors in their order."""
    return " × ".join(sorted(word, key=factors.index))


def combinations_of(names: list[str]) -> list[dict[str, bool]]:
    """All combinations of on and off of these switches, from all off to all on.

    Combination i has those switches on whose bit is set in i (the last name is the lowest bit)."""
    count = len(names)
    return [
        {name: bool(number >> (count - 1 - place) & 1) for place, name in enumerate(names)}
        for number in range(2**count)
    ]


def main_effects(values: np.ndarray) -> np.ndarray:
    """Mean with a switch on minus mean with it off, for values (..., 2^n) of `combinations_of`: (..., n)."""
    count = values.shape[-1].bit_length() - 1
    signs = np.array([[1 if number >> (count - 1 - place) & 1 else -1 for place in range(count)]
                      for number in range(2**count)]).reshape(2**count, count)  # fmt: skip
    return values @ signs / max(1, 2 ** (count - 1))


def shapley(values: np.ndarray) -> np.ndarray:
    """Exact Shapley value of each switch in the difference between all on and all off: (..., n).

    Values (..., 2^n) are those of `combinations_of`. A switch's Shapley value is its contribution, averaged over all
    orders of switching on."""
    count = values.shape[-1].bit_length() - 1
    out = np.zeros((*values.shape[:-1], count))
    for place in range(count):
        bit = 1 << (count - 1 - place)
        for number in range(2**count):
            if not number & bit:
                before = number.bit_count()
                weight = factorial(before) * factorial(count - 1 - before) / factorial(count)
                out[..., place] += weight * (values[..., number | bit] - values[..., number])
    return out
