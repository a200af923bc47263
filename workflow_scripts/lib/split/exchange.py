"""Local search that improves a split: groups are moved or exchanged between parts.

First every part gets enough groups of every class and not too many. Then exchanges bring the parts nearer to their
fractions."""

from __future__ import annotations

import numpy as np

STEPS = 400  # moves of `repair` at most
REST = 5  # moves during which a group that was moved stays where it is
EXCHANGES = 60  # tried between each pair of parts, but no fewer than 400 in all
IN_VAIN = 6  # exchanges of each pair without a gain after which it is enough, but no fewer than 40 in all
SIZE_WEIGHT = 0.5  # weight of an image that a part has too many or too few, where one of a class weighs 1
CANDIDATES = 96  # groups of either part among which the best exchange is looked for


def repair(
    positive: np.ndarray, sizes: np.ndarray, parts: np.ndarray, least: np.ndarray, most: np.ndarray, seed: int
) -> np.ndarray:
    """Parts (G,) changed so that each has between `least` and `most` (P, K) groups of every class, as far as possible.

    positive bool (G, K): which classes a group has. Each step mends one class in one part, by the move that leaves the
    least to mend. A moved group then rests for some steps, or classes would undo each other's moves (tabu search)."""
    rng, parts = np.random.default_rng(seed), parts.copy()
    have = np.stack([positive[parts == part].sum(0) for part in range(len(least))]).astype(np.int64)
    resting = np.zeros(len(parts), dtype=np.int64)
    best, fewest = parts.copy(), _wrong(have, least, most).sum()
    for step in range(STEPS):
        wrong = np.argwhere(_wrong(have, least, most))
        if not len(wrong):
            break
        part, kind = wrong[rng.integers(len(wrong))]
        move = _best_move(positive, sizes, parts, have, least, most, (part, kind), resting > step)
        if move is None:
            continue
        group, target = move
        have[parts[group]] -= positive[group]
        have[target] += positive[group]
        parts[group] = target
        resting[group] = step + rng.integers(REST, 2 * REST)
        left = _wrong(have, least, most).sum()
        if left < fewest:
            best, fewest = parts.copy(), left
    return best


def _wrong(have: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Number of groups of a class (..., K) that a part has too few or too many."""
    return np.maximum(least - have, 0) + np.maximum(have - most, 0)


def _best_move(
    positive: np.ndarray,
    sizes: np.ndarray,
    parts: np.ndarray,
    have: np.ndarray,
    least: np.ndarray,
    most: np.ndarray,
    place: tuple[int, int],
    resting: np.ndarray,
) -> tuple[int, int] | None:
    """Best move: its group and its target part, into a part with too few of a class, or out of one with too many."""
    part, kind = place
    few = have[part, kind] < least[part, kind]
    best: tuple[float, float, int, int] | None = None
    for other in range(len(have)):
        source, target = (other, part) if few else (part, other)
        members = np.flatnonzero(positive[:, kind] & (parts == source) & ~resting)
        if other == part or not len(members):
            continue
        own = positive[members].astype(np.int64)
        cost = _wrong(have[source] - own, least[source], most[source]).sum(1)
        cost = cost + _wrong(have[target] + own, least[target], most[target]).sum(1)
        cost = cost - _wrong(have[[source, target]], least[[source, target]], most[[source, target]]).sum()
        # Of equally good moves, that of the smallest group changes the fractions least.
        first = np.lexsort((members, sizes[members], cost))[0]
        move = (float(cost[first]), float(sizes[members[first]]), int(members[first]), int(target))
        best = move if best is None else min(best, move)
    return None if best is None else best[2:]


def refine(
    counts: np.ndarray,
    sizes: np.ndarray,
    parts: np.ndarray,
    fraction: np.ndarray,
    least: np.ndarray,
    most: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Parts (G,) changed by exchanges that bring each part nearer to its fraction of every class.

    counts (G, K) and sizes (G,) are images. Two parts at a time exchange a group each, or one gives and takes none: the
    best exchange among some groups of either. The cost is a sum over parts, relative to the part's fraction: images of
    each class too many or too few for a part of its size, and with a small weight images in all. No exchange leaves a
    part with fewer than `least` or more than `most` (P, K) groups of a class."""
    rng, parts, total = np.random.default_rng(seed), parts.copy(), counts.sum(0)
    # One image too many weighs more in a rare class.
    weight = np.append(1 + 10 / np.sqrt(np.maximum(total, 1)), SIZE_WEIGHT).astype(np.float32)
    # Images of a group beyond those of an average group of its size; they sum to zero in a balanced part.
    beyond = np.column_stack([counts - np.outer(sizes, total / sizes.sum()), sizes]).astype(np.float32)
    off = np.stack([beyond[parts == part].sum(0, dtype=np.float64) for part in range(len(fraction))])
    off[:, -1] -= fraction * sizes.sum()
    have = np.stack([(counts[parts == part] > 0).sum(0) for part in range(len(fraction))])
    pairs = [(one, other) for one in range(len(fraction)) for other in range(one)]
    since = 0
    for turn in range(max(400, EXCHANGES * len(pairs)) if pairs else 0):
        one, other = pairs[turn % len(pairs)]
        rows = [_some(np.flatnonzero(parts == part), rng) for part in (one, other)]
        # The last candidate of each side is nothing.
        gives, takes = (np.vstack([beyond[own], np.zeros_like(beyond[:1])]) for own in rows)
        has, gets = (np.vstack([counts[own] > 0, np.zeros_like(counts[:1], dtype=bool)]) for own in rows)
        change = takes[None] - gives[:, None]
        gain = np.float32(1 / fraction[one]) * _nearer(off[one], change, weight)
        gain += np.float32(1 / fraction[other]) * _nearer(off[other], -change, weight)
        exchange = _first_allowed(gain, has, gets, have[[one, other]], least[[one, other]], most[[one, other]])
        since = 0 if exchange else since + 1
        if since > max(40, IN_VAIN * len(pairs)):
            break
        if not exchange:
            continue
        given, taken = exchange
        for part, sign in ((one, 1), (other, -1)):
            off[part] += sign * (takes[taken] - gives[given])
            have[part] += sign * (gets[taken].astype(np.int64) - has[given])
        parts[rows[0][given : given + 1]] = other
        parts[rows[1][taken : taken + 1]] = one
    return parts


def _some(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= CANDIDATES else rng.choice(rows, CANDIDATES, replace=False)


def _nearer(off: np.ndarray, change: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Gain of each change (A, B, K) for a part that deviates by `off` (K,) from its fraction."""
    off = off.astype(np.float32)
    return np.abs(off) @ weight - np.abs(off + change) @ weight


def _first_allowed(
    gain: np.ndarray, has: np.ndarray, gets: np.ndarray, have: np.ndarray, least: np.ndarray, most: np.ndarray
) -> tuple[int, int] | None:
    """The exchange of highest gain that leaves both parts within their bounds; None where none gains."""
    for place in np.argsort(gain, axis=None)[::-1][:20]:
        given, taken = divmod(int(place), gain.shape[1])
        if gain[given, taken] < 1e-3:
            return None
        step = gets[taken].astype(np.int64) - has[given]
        after = have + np.stack([step, -step])
        # A bound that was broken before may stay broken, but not more so.
        if ((after >= least) | (after >= have)).all() and ((after <= most) | (after <= have)).all():
            return given, taken
    return None
