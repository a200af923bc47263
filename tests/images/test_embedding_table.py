"""Tables of embeddings: every form gives the same features, joined by Id; what is missing is counted and named."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import embedding_table

IDS = np.array(["a", "b", "ü", "d"], dtype=object)
FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3) / 8


def written(folder: Path, form: str) -> tuple[Path, Path | None]:
    path = folder / f"features{form}"
    table = pd.DataFrame(FEATURES, columns=["x", "y", "z"]).assign(Id=IDS)
    if form == ".npy":
        np.save(path, FEATURES.astype(np.float64))
        table[["Id"]].to_csv(folder / "ids.csv", index=False)
        return path, folder / "ids.csv"
    if form == ".h5":
        embedding_table.write(path, IDS, FEATURES, {"source": "a test"})
    elif form == ".csv":
        table.to_csv(path, index=False, sep=";")
    else:
        table.to_parquet(path, engine="pyarrow")
    return path, None


@pytest.mark.parametrize("form", [".npy", ".h5", ".csv"])
def test_every_form_gives_the_same_features_in_any_order(tmp_path: Path, form: str) -> None:
    found = embedding_table.read(*written(tmp_path, form))
    assert found.width == 3
    assert np.array_equal(found.of(np.array(["ü", "a"])), FEATURES[[2, 0]])


def test_parquet_is_read_where_pyarrow_is_there_and_refused_in_one_line_elsewhere(tmp_path: Path) -> None:
    if find_spec("pyarrow") is not None:
        assert np.array_equal(embedding_table.read(*written(tmp_path, ".parquet")).of(IDS), FEATURES)
        return
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        UserError, match=r"x\.parquet needs the package pyarrow: pip install -r requirements-formats\.txt, or save"
    ):
        embedding_table.read(tmp_path / "x.parquet")


def test_missing_images_are_counted_and_three_are_named(tmp_path: Path) -> None:
    found = embedding_table.read(*written(tmp_path, ".h5"))
    with pytest.raises(UserError) as caught:
        found.of(np.array(["a", *"pqrst"]))
    assert str(caught.value) == "features.h5 has no features of 5 of 6 images, such as p, q, r"


def test_what_is_no_table_of_embeddings_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "short.npy", FEATURES[:2])
    (tmp_path / "ids.csv").write_text("Id\na\nb\nc\n")
    (tmp_path / "words.csv").write_text("Id,x\na,many\n")
    (tmp_path / "twice.csv").write_text("Id,x\na,1\na,2\n")
    (tmp_path / "none.csv").write_text("Id,x\na,nan\n")
    with h5py.File(tmp_path / "elsewhere.h5", "w") as file:
        file["ids"] = h5py.ExternalLink("features.h5", "ids")
        file["features"] = h5py.ExternalLink("features.h5", "features")
    written(tmp_path, ".h5")
    wrong = [
        ("objects.npy", "cannot be read as embeddings"), ("short.npy", "3 Ids and features of shape (2, 3)"),
        ("words.csv", "could not convert"), ("twice.csv", "1 Ids more than once"), ("x.pt", "must end in .npy"),
        ("elsewhere.h5", "lies in another file"), ("gone.h5", "cannot be read"),
    ]  # fmt: skip
    for name, words in wrong:
        with pytest.raises(UserError) as caught:
            embedding_table.read(tmp_path / name, tmp_path / "ids.csv")
        assert words in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"no Ids: .*embeddings\.ids"):
        embedding_table.read(tmp_path / "short.npy")
    with pytest.raises(UserError, match="no finite numbers, of 1 images, such as a"):
        embedding_table.read(tmp_path / "none.csv").of(np.array(["a"]))
