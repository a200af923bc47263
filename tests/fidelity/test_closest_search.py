"""The search for the closest vector finds the same on a device, in chunks, as numpy does."""

from __future__ import annotations

import numpy as np
import torch

from workflow_scripts.lib.fidelity import closest_search
from workflow_scripts.lib.images import nearest_images


def test_a_device_finds_what_numpy_finds_in_chunks_of_any_size() -> None:
    rng = np.random.default_rng(1)
    known = rng.standard_normal((30, 6)).astype(np.float32)
    vectors, selves = known[4:20] + np.float32(0.01), np.arange(4, 20)
    search = closest_search.DeviceSearch(torch.device("cpu"), chunk=70)
    for own in (None, selves):
        place, alone = search(vectors, known, own)
        expected, _ = nearest_images.closest(vectors, known, own)
        assert np.array_equal(place, expected) and not alone.any()
    assert np.array_equal(search(vectors, known, None)[0], selves)
    assert (search(vectors, known, selves)[0] != selves).all()


def test_the_only_training_image_has_no_neighbour() -> None:
    known, alone = np.ones((1, 3), dtype=np.float32), np.zeros(1, dtype=np.int64)
    for search in (closest_search.DeviceSearch(torch.device("cpu")), nearest_images.closest):
        assert search(known, known, alone)[1].all()
        assert not search(known, known, None)[1].any()
