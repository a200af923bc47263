"""lib.base.seeds: numbers that are stable for a purpose and unrelated between purposes."""

import numpy as np

from workflow_scripts.lib.base.seeds import derive


def test_numbers_are_stable():
    # Written down, so that results of an earlier version stay reproducible.
    assert derive(1, 0, 2, "weights") == 1_381_332_893_918_585_656
    assert derive(1, np.int64(0), np.int32(2), "weights") == 1_381_332_893_918_585_656


def test_purposes_differ_and_fit_63_bits():
    purposes = [
        (seed, repeat, fold, text) for seed in range(5) for repeat in range(5) for fold in "01" for text in "ab"
    ]
    purposes += [(0,), (0, 0), (0, "0"), (0, 0, 0), (0, 10), (0, 1, 0), (0, ""), (0, "a", "b"), (0, "ab")]
    numbers = [derive(*purpose) for purpose in purposes]
    assert len(set(numbers)) == len(purposes)
    assert all(0 <= number < 2**63 for number in numbers)
    # Evenly spread, so that neighbouring seeds do not make alike generators: half of all bits are set.
    bits = np.array([[number >> bit & 1 for bit in range(63)] for number in numbers])
    assert abs(bits.mean() - 0.5) < 0.02
    assert abs(bits.mean(0) - 0.5).max() < 0.25
