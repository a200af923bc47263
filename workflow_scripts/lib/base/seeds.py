"""Random numbers: every seed of a run derives from one number and the purpose it serves."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """A stable 63-bit seed for one purpose, such as `derive(seed, repeat, fold, "weights")`.

    Different purposes give unrelated numbers; the same purpose gives the same number on every machine."""
    # The kind stands in the text, so that 1 and "1" are different purposes; NumPy's integers count as integers.
    text = "\x1f".join(f"{'str' if isinstance(part, str) else 'int'}:{part}" for part in (int(seed), *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
