"""Access record: which rows of the image set an artefact has read, and for what purpose.

Loaders record rows as they read them, and artefacts pass the record on: a classifier inherits that of its synthetic
set's generator. An image whose label was read is told apart from one of which the image alone was read. What was
inherited from an artefact of another label regime carries the name of that regime. The leak certificate compares the
records with the folds.

What was read before by a network that came from elsewhere may be unknown. Then the record names that network."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

ACCESS_PURPOSES = ("fit", "select", "threshold", "score", "inspect")
IMAGES = ":images"  # ends the name of a purpose for which images were read without their labels
REGIME = "@"  # precedes the label regime of the artefact that a part of the record was inherited from


@dataclass(frozen=True)
class Access:
    """Rows that were read in one way."""

    purpose: str
    labels: bool  # whether their labels were read too
    regime: str | None  # of the artefact that read them, where it is another one than that of the record's owner
    rows: np.ndarray  # int (n,)


@dataclass
class AccessRecord:
    """Rows of one image set that were read, by purpose.

    Purposes: fit (weights, statistics), select (checkpoints, filters), threshold, score (predicted, never learned
    from), inspect (shown to a person, or split)."""

    images: str  # digest of the image set
    count: int  # its number of images
    rows: dict[str, np.ndarray] = field(default_factory=dict)  # purpose, or a name that begins with it -> bool (count,)
    unknown: frozenset[str] = frozenset()  # networks from elsewhere of which nobody knows whether they read images here

    def record(self, purpose: str, rows: Iterable[int], labels: bool = True) -> None:
        """Add rows that were read for a purpose, with their labels or without."""
        if purpose not in ACCESS_PURPOSES:
            raise ValueError(f"unknown purpose {purpose!r}: one of {', '.join(ACCESS_PURPOSES)}")
        mask = self.rows.setdefault(purpose if labels else purpose + IMAGES, np.zeros(self.count, dtype=bool))
        mask[np.asarray(list(rows) if not isinstance(rows, np.ndarray) else rows, dtype=np.int64)] = True

    def of(self, purpose: str) -> np.ndarray:
        """Row numbers read for a purpose, in whatever way."""
        masks = [mask for name, mask in self.rows.items() if _parsed(name)[0] == purpose]
        return np.flatnonzero(np.any(masks, axis=0)) if masks else np.empty(0, dtype=np.int64)

    def labelled(self, purpose: str) -> int:
        """Number of rows read for a purpose with their labels."""
        masks = [mask for name, mask in self.rows.items() if _parsed(name)[:2] == (purpose, True)]
        return int(np.any(masks, axis=0).sum()) if masks else 0

    def accesses(self) -> Iterator[Access]:
        """What was read, one entry for each way of reading."""
        for name, mask in sorted(self.rows.items()):
            yield Access(*_parsed(name), np.flatnonzero(mask))

    def only(self, *purposes: str) -> AccessRecord:
        """What was read for some purposes."""
        kept = {name: mask.copy() for name, mask in self.rows.items() if _parsed(name)[0] in purposes}
        return AccessRecord(self.images, self.count, kept, self.unknown)

    def inherited_from(self, regime: str) -> AccessRecord:
        """The record as one of another regime inherits it: what was read says under which regime."""
        named = {name if REGIME in name else name + REGIME + regime: mask for name, mask in self.rows.items()}
        return AccessRecord(self.images, self.count, named, self.unknown)

    def merged(self, *others: AccessRecord) -> AccessRecord:
        """Union of this record and the records of inputs, all of the same image set."""
        unknown = self.unknown.union(*(other.unknown for other in others))
        out = AccessRecord(self.images, self.count, {name: mask.copy() for name, mask in self.rows.items()}, unknown)
        for other in others:
            if (other.images, other.count) != (self.images, self.count):
                raise ValueError("artefacts made from different image sets cannot be combined")
            for name, mask in other.rows.items():
                out.rows[name] = out.rows[name] | mask if name in out.rows else mask.copy()
        return out

    def to_json(self) -> str:
        """Record as one line of text: a compressed bit per image and purpose."""
        packed = {
            purpose: base64.b64encode(zlib.compress(np.packbits(mask).tobytes(), 9)).decode()
            for purpose, mask in sorted(self.rows.items())
        }
        unknown = {"unknown": sorted(self.unknown)} if self.unknown else {}
        return json.dumps({"images": self.images, "count": self.count, "rows": packed} | unknown, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> AccessRecord:
        """The record that `to_json` wrote; ValueError if it cannot be one."""
        try:
            value = json.loads(text)
            images, count, packed = str(value["images"]), int(value["count"]), dict(value["rows"])
            unknown = frozenset(str(name) for name in value.get("unknown", []))
            size = (count + 7) // 8
            # The length is checked, so that a forged record cannot fill the memory.
            unpacked = {
                purpose: zlib.decompressobj().decompress(base64.b64decode(bits), size + 1)
                for purpose, bits in packed.items()
            }
        except (KeyError, TypeError, zlib.error) as error:
            raise ValueError(f"not a record of what was read: {type(error).__name__} {error}") from None
        rows = {}
        for name, raw in unpacked.items():
            if _parsed(name)[0] not in ACCESS_PURPOSES:
                raise ValueError(f"unknown purpose {name!r}")
            if len(raw) != size:
                raise ValueError(f"the record of purpose {name!r} does not fit {count} images")
            rows[name] = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=count).astype(bool)
        return cls(images, count, rows, unknown)


def _parsed(name: str) -> tuple[str, bool, str | None]:
    """Purpose, whether labels were read, and regime, from the name of an entry such as fit, fit:images, fit@few."""
    way, mark, regime = name.partition(REGIME)
    return way.removesuffix(IMAGES), not way.endswith(IMAGES), regime if mark else None
