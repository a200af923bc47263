"""Search for the closest vector: by numpy on a CPU, on the GPU in chunks where there is one."""

from __future__ import annotations

import numpy as np
import torch

from workflow_scripts.lib.images import nearest_images

CHUNK = 2**28  # distances at a time on a GPU, 1 GiB


def search(where: torch.device) -> nearest_images.Closest:
    """The function for this device (see `nearest_images.Closest`)."""
    return nearest_images.closest if where.type == "cpu" else DeviceSearch(where)


class DeviceSearch:
    """Search on a device, where the known vectors stay from one call to the next."""

    def __init__(self, where: torch.device, chunk: int = CHUNK) -> None:
        self.where, self.chunk = where, chunk
        self._known: tuple[np.ndarray, torch.Tensor] | None = None

    def __call__(
        self, vectors: np.ndarray, known: np.ndarray, selves: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Known vector closest to each one, and where there is none."""
        if self._known is None or self._known[0] is not known:
            self._known = (known, torch.from_numpy(known).to(self.where))
        there = self._known[1]
        # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, and |x|^2 is the same for all y.
        norms, step = (there**2).sum(1), max(1, self.chunk // len(known))
        places, alone = [], []
        for start in range(0, len(vectors), step):
            block = torch.from_numpy(vectors[start : start + step]).to(self.where)
            apart = torch.addmm(norms, block, there.T, alpha=-2)
            if selves is not None:
                own = torch.from_numpy(selves[start : start + step]).to(self.where)
                apart[torch.arange(len(block), device=self.where), own] = torch.inf
            value, place = apart.min(dim=1)
            places.append(place.cpu().numpy())
            alone.append(~torch.isfinite(value).cpu().numpy())
        return np.concatenate(places), np.concatenate(alone)
