"""Access record: which rows of the image set an artefact has read, and for what purpose.

Loaders record rows as they read them, and artefacts pass the record on: a classifier inherits that of its synthetic
set's generator. The leak certificate compares the records with the folds."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

ACCESS_PURPOSES = ("fit", "select", "threshold", "score", "inspect")


@dataclass
class Provenance:
    """Rows of one image set that were read, by purpose.

    Purposes: fit (weights, statistics), select (checkpoints, filters), threshold, score (predicted, never learned
    from), inspect (shown to a person, or split)."""

    images: str  # digest of the image set
    count: int  # its number of images
    rows: dict[str, np.ndarray] = field(default_factory=dict)  # purpose -> bool (count,)

    def record(self, purpose: str, rows: Iterable[int]) -> None:
        """Add rows that were read for a purpose."""
        if purpose not in ACCESS_PURPOSES:
            raise ValueError(f"unknown purpose {purpose!r}: one of {', '.join(ACCESS_PURPOSES)}")
        mask = self.rows.setdefault(purpose, np.zeros(self.count, dtype=bool))
        mask[np.asarray(list(rows) if not isinstance(rows, np.ndarray) else rows, dtype=np.int64)] = True

    def of(self, purpose: str) -> np.ndarray:
        """Row numbers read for a purpose."""
        return np.flatnonzero(self.rows.get(purpose, np.zeros(self.count, dtype=bool)))

    def merged(self, *others: Provenance) -> Provenance:
        """Union of this record and the records of inputs, all of the same image set."""
        out = Provenance(self.images, self.count, {name: mask.copy() for name, mask in self.rows.items()})
        for other in others:
            if (other.images, other.count) != (self.images, self.count):
                raise ValueError("artefacts made from different image sets cannot be combined")
            for purpose in other.rows:
                out.record(purpose, other.of(purpose))
        return out

    def to_json(self) -> str:
        """Record as one line of text: a compressed bit per image and purpose."""
        packed = {
            purpose: base64.b64encode(zlib.compress(np.packbits(mask).tobytes(), 9)).decode()
            for purpose, mask in sorted(self.rows.items())
        }
        return json.dumps({"images": self.images, "count": self.count, "rows": packed}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """The record that `to_json` wrote; ValueError if it cannot be one."""
        try:
            value = json.loads(text)
            images, count, packed = str(value["images"]), int(value["count"]), dict(value["rows"])
            size = (count + 7) // 8
            # The length is checked, so that a forged record cannot fill the memory.
            unpacked = {
                purpose: zlib.decompressobj().decompress(base64.b64decode(bits), size + 1)
                for purpose, bits in packed.items()
            }
        except (KeyError, TypeError, zlib.error) as error:
            raise ValueError(f"not a record of what was read: {type(error).__name__} {error}") from None
        rows = {}
        for purpose, raw in unpacked.items():
            if purpose not in ACCESS_PURPOSES:
                raise ValueError(f"unknown purpose {purpose!r}")
            if len(raw) != size:
                raise ValueError(f"the record of purpose {purpose!r} does not fit {count} images")
            rows[purpose] = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=count).astype(bool)
        return cls(images, count, rows)
