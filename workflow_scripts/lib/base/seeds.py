"""Random seeds: every seed of a run derives from the run's seed and a purpose."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """A stable 63-bit seed for one purpose, such as `derive(seed, repeat, fold, "weights")`.

    Different purposes give unrelated numbers; the same purpose gives the same number on every machine."""
    # The type is part of the text, so that 1 and "1" are different purposes. NumPy integers count as integers.
    text = "\x1f".join(f"{'str' if isinstance(part, str) else 'int'}:{part}" for part in (int(seed), *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
