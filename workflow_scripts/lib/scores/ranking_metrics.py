"""Scores from arrays: F1, average precision and thresholds, under one or many sets of group weights at once.

A row is an image (or a protein), `groups` says which group it belongs to, and `weights` (G, B) holds B sets of group
weights: one column of ones gives the plain score, B columns of random weights give B draws of a bootstrap. Scores are
sorted once for all draws; what a draw costs is one weighted sum per row, or a matrix product where that is cheaper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# About how many multiply-adds of a matrix product take as long as one gathered addition (1 thread, float32).
PRODUCT_PER_SUM = 60


@dataclass(frozen=True)
class Ranking:
    """The rows of one class from the highest score down to the last positive, cut below each score that a positive has.

    Row `rows[i]` lies in segment `segments[i]`: it is decided positive at cut `segments[i]` and at all lower ones."""

    rows: np.ndarray  # int (n,)
    segments: np.ndarray  # int (n,), ascending
    positive: np.ndarray  # bool (n,)
    cuts: np.ndarray  # (m,), descending; a row is decided positive where its score >= the cut


def rank(scores: np.ndarray, labels: np.ndarray) -> Ranking:
    """Sort the scores (n,) of one class by its labels (n,); rows with equal scores are never told apart."""
    labels = np.asarray(labels, dtype=bool)
    cuts = np.unique(scores[labels])[::-1]
    order = np.argsort(-scores, kind="stable")
    # Segment of a row: the first cut that is not above its score; rows below the last positive belong to none.
    segments = np.searchsorted(-cuts, -scores[order], side="left")
    inside = int(np.searchsorted(segments, len(cuts), side="left"))
    rows = order[:inside]
    # The cut stands half way to the next lower score of any row, so that it also suits scores not seen here.
    levels = np.unique(scores)
    at = np.searchsorted(levels, cuts)
    below = levels[np.maximum(at - 1, 0)]
    middle = (cuts + below) / 2
    return Ranking(rows, segments[:inside], labels[rows], np.where((middle > below) & (at > 0), middle, cuts))


def segment_sums(groups: np.ndarray, segments: np.ndarray, count: int, weights: np.ndarray) -> np.ndarray:
    """Sum of the weights of the rows in each segment: groups, segments (n,) ascending, weights (G, B) -> (count, B)."""
    if len(groups) == 0 or count == 0:
        return np.zeros((count, weights.shape[1]), dtype=weights.dtype)
    if count * len(weights) < PRODUCT_PER_SUM * len(groups):
        tally = np.bincount(segments * len(weights) + groups, minlength=count * len(weights))
        return tally.reshape(count, len(weights)).astype(weights.dtype) @ weights
    starts = np.flatnonzero(np.diff(segments, prepend=-1))
    sums = np.add.reduceat(weights.take(groups, axis=0), starts, axis=0)
    if len(starts) == count:
        return sums
    out = np.zeros((count, weights.shape[1]), dtype=weights.dtype)
    out[segments[starts]] = sums
    return out


def cumulative(ranking: Ranking, groups: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the true positives, and of all rows decided positive, at each cut: two arrays (m, B)."""
    count, owners, hit = len(ranking.cuts), groups[ranking.rows], ranking.positive
    true = segment_sums(owners[hit], ranking.segments[hit], count, weights)
    false = segment_sums(owners[~hit], ranking.segments[~hit], count, weights)
    np.cumsum(true, axis=0, out=true)
    np.cumsum(false, axis=0, out=false)
    return true, np.add(true, false, out=false)


def average_precision(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision of one class in each draw: sum of precision times gain in recall; NaN without positives.

    Costs one addition per row, draw and class: nothing below the last positive counts, but everything above does."""
    ranking = rank(scores, labels)
    if len(ranking.cuts) == 0:
        return np.full(weights.shape[1], np.nan)
    true, decided = cumulative(ranking, groups, weights)
    gain = np.diff(true, axis=0, prepend=0)
    total = true[-1].copy()
    np.divide(true, decided, out=true)
    return np.einsum("mb,mb->b", true, gain) / total


@dataclass(frozen=True)
class Choice:
    """The threshold of one class in each draw: `cuts[chosen[b]]`."""

    cuts: np.ndarray  # (m,), descending
    chosen: np.ndarray  # int (B,)

    @property
    def values(self) -> np.ndarray:
        """The threshold in each draw (B,)."""
        return self.cuts[self.chosen]

    @classmethod
    def fixed(cls, value: float, draws: int) -> Choice:
        """The same threshold in every draw."""
        return cls(np.array([value]), np.zeros(draws, dtype=int))


def best_threshold(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> Choice:
    """The cut of highest weighted F1 of one class in each draw; of equal ones the highest cut. Needs a positive.

    Walks down the ranking only as far as any draw can still gain. Below a point with false positives FP, the positives'
    weight being P, F1 is at most 2P / (2P + FP); where that lies under the best so far in every draw, the rest
    (most rows of a rare class) is never summed. The result is the same as from the whole ranking."""
    ranking = rank(scores, labels)
    count, hit = len(ranking.cuts), ranking.positive
    if count == 0:
        raise ValueError("no threshold can be chosen without a positive")
    actual = segment_sums(groups[labels.astype(bool)], np.zeros(int(labels.sum()), dtype=int), 1, weights)[0]
    draws = np.arange(weights.shape[1])
    best, chosen = np.full(len(draws), -1.0, dtype=weights.dtype), np.zeros(len(draws), dtype=int)
    true_before = np.zeros(len(draws), dtype=weights.dtype)
    false_before = np.zeros_like(true_before)
    first, depth = 0, 3 * int(hit.sum())
    while first < count:
        # This stretch ends with the segment that holds row `depth`.
        last = count if depth >= len(ranking.rows) else max(first + 1, int(ranking.segments[depth]) + 1)
        start, stop = np.searchsorted(ranking.segments, (first, last))
        rows, segments = ranking.rows[start:stop], ranking.segments[start:stop] - first
        part = Ranking(rows, segments, hit[start:stop], ranking.cuts[first:last])
        true, decided = cumulative(part, groups, weights)
        true += true_before
        decided += true_before + false_before
        score = 2 * true / (decided + actual)
        at = score.argmax(axis=0)
        value = score[at, draws]
        better = value > best
        best[better], chosen[better] = value[better], at[better] + first
        true_before, false_before = true[-1], decided[-1] - true[-1]
        if np.all(2 * actual < best * (2 * actual + false_before) * (1 - 1e-6)):
            break
        first, depth = last, 2 * depth
    return Choice(ranking.cuts, chosen)


def decided_counts(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, choices: list[Choice], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight of true positives, decided positives and actual positives per class and draw: three arrays (K, B).

    Rows above every threshold that occurs are the same in all draws: their counts by group go through one matrix
    product. Only rows between the lowest and the highest threshold are summed draw by draw."""
    classes, size = labels.shape[1], len(weights)
    top = np.zeros((3 * classes, size), dtype=weights.dtype)
    middle = np.zeros((2, classes, weights.shape[1]), dtype=weights.dtype)
    truth = labels.astype(bool)
    for k, choice in enumerate(choices):
        used, place = np.unique(choice.chosen, return_inverse=True)
        cuts, score = choice.cuts[used], scores[:, k]
        above = score >= cuts[0]
        top[k] = np.bincount(groups[above & truth[:, k]], minlength=size)
        top[classes + k] = np.bincount(groups[above], minlength=size)
        top[2 * classes + k] = np.bincount(groups[truth[:, k]], minlength=size)
        between = np.flatnonzero(~above & (score >= cuts[-1]))
        if len(between):
            segment = np.searchsorted(-cuts, -score[between], side="left")
            order = np.argsort(segment, kind="stable")
            rows, segment = between[order], segment[order]
            part = Ranking(rows, segment, truth[rows, k], cuts)
            true, decided = cumulative(part, groups, weights)
            draws = np.arange(weights.shape[1])
            middle[0, k], middle[1, k] = true[place, draws], decided[place, draws]
    sums = (top @ weights).reshape(3, classes, -1)
    return sums[0] + middle[0], sums[1] + middle[1], sums[2]


def decision_counts(
    decisions: np.ndarray, labels: np.ndarray, groups: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `decided_counts`, for decisions bool (n, K) that are the same in every draw."""
    truth, size = labels.astype(bool), len(weights)
    columns = np.concatenate([decisions & truth, decisions, truth], axis=1)
    top = np.stack([np.bincount(groups[column], minlength=size) for column in columns.T])
    sums = (top.astype(weights.dtype) @ weights).reshape(3, labels.shape[1], -1)
    return sums[0], sums[1], sums[2]


def unweighted(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups and weights of a plain score: every row a group of its own, one column of ones."""
    return np.arange(rows), np.ones((rows, 1))
