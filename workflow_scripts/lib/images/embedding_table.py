"""Embeddings: one feature vector an image, by Id. Readers of users' tables, and the file that stages read.

A user's table is one of these; nothing in it is unpickled:

    .npy       numbers (n, D), and the Ids of its rows in a CSV table with the column Id
    .h5        arrays `ids` (n,) and `features` (n, D)
    .csv       a column Id; all other columns are numbers
    .parquet   the same; needs pyarrow (requirements-formats.txt)"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.images import parquet_tables, user_tables
from workflow_scripts.lib.images.embedding_forms import ENDINGS
from workflow_scripts.lib.images.image_set_layout import TEXT, array

SHOWN = 3  # missing Ids in a message


class Embeddings:
    """Feature vectors of images, by Id."""

    def __init__(self, ids: np.ndarray, features: np.ndarray, where: str) -> None:
        if features.ndim != 2 or not features.shape[1] or len(ids) != len(features):
            raise UserError(
                f"{where} has {len(ids)} Ids and features of shape {features.shape}: one row an Id is needed"
            )
        self.features, self.where = np.ascontiguousarray(features, dtype=np.float32), where
        self._rows = {str(name): row for row, name in enumerate(ids)}
        if len(self._rows) < len(ids):
            raise UserError(f"{where} has {len(ids) - len(self._rows)} Ids more than once")

    @property
    def width(self) -> int:
        """Number of features."""
        return self.features.shape[1]

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Features float32 (n, D) of these images; UserError where some are missing or not finite."""
        missing = [name for name in ids if name not in self._rows]
        if missing:
            raise UserError(
                f"{self.where} has no features of {len(missing)} of {len(ids)} images, such as "
                f"{', '.join(map(str, missing[:SHOWN]))}"
            )
        found = self.features[[self._rows[name] for name in ids]]
        wrong = ~np.isfinite(found).all(axis=1)
        if wrong.any():
            raise UserError(
                f"{self.where} has features that are no finite numbers, of {wrong.sum()} images, such as "
                f"{', '.join(map(str, np.asarray(ids)[wrong][:SHOWN]))}"
            )
        return found


def write(path: Path, ids: np.ndarray, features: np.ndarray, about: dict[str, Any]) -> None:
    """Write the features of an image set."""
    with atomic(path) as part, h5py.File(part, "w") as file:
        file.create_dataset("ids", data=np.asarray(ids, dtype=object), dtype=TEXT)
        file.create_dataset("features", data=features.astype(np.float32))
        file.attrs["about"] = json.dumps(about, sort_keys=True)


def read(path: Path, ids: Path | None = None) -> Embeddings:
    """Read embeddings of any of the known forms; `ids` is the table of Ids of a .npy file."""
    reader = {".npy": _numpy, ".h5": _hdf5, ".csv": _csv, ".parquet": _parquet}.get(path.suffix)
    if reader is None:
        raise UserError(f"{path} is no table of embeddings: its name must end in {', '.join(ENDINGS)}")
    try:
        names, features = reader(path, ids)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise_if_passing(error)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as embeddings: {reason}") from None
    return Embeddings(names, features, path.name)


def _numpy(path: Path, ids: Path | None) -> tuple[np.ndarray, np.ndarray]:
    if ids is None:
        raise UserError(f"{path} has no Ids: name a CSV table with the column Id in embeddings.ids")
    features = np.load(path, allow_pickle=False)
    if not isinstance(features, np.ndarray) or features.dtype.kind not in "fiu":
        raise ValueError("it holds no array of numbers")
    return np.array(user_tables.read_table(ids).need("Id"), dtype=object), features


def _hdf5(path: Path, ids: Path | None) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(path, "r") as file:
        names, kind = array(file, "ids", 1).asstr()[:], file["features"].dtype
        if kind.kind not in "fiu":
            raise ValueError("features are no numbers")
        return names, array(file, "features", 2, kind)[:]


def _csv(path: Path, ids: Path | None) -> tuple[np.ndarray, np.ndarray]:
    table = user_tables.read_table(path)
    names = table.need("Id")
    columns = [values for name, values in table.columns.items() if name != table.find("Id")]
    return np.array(names, dtype=object), np.array(columns, dtype=np.float32).T.reshape(len(names), -1)


def _parquet(path: Path, ids: Path | None) -> tuple[np.ndarray, np.ndarray]:
    return parquet_tables.numbers(path)
