"""preprocess_images on the formats of microscopes: the set is that of the same pixels in plain files, and says what
became of stacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from tests.helpers.image_folders import run, settings
from tests.images.test_optional_formats import ngff
from workflow_scripts.lib.config import data_checks
from workflow_scripts.lib.config.problems import ConfigError
from workflow_scripts.lib.images import format_choices, missing_files, new_images, preview
from workflow_scripts.lib.images.read_image import Reader
from workflow_scripts.lib.page.sections import data_section
from workflow_scripts.lib.page.sections.data_section import Data

IDS = ["a", "b", "c"]
# image, focus, channel, height, width
PIXELS = np.random.default_rng(1).integers(0, 256, (3, 4, 2, 16, 16), dtype=np.uint8)
NAMES = ["red", "green"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A table of three images, and the folder for their files."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train.csv").write_text("Id,Target\na,x\nb,y\nc,x|y\n")
    return tmp_path


def images_of(raw: Path, given: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Pixels and attributes of the set that the stage makes."""
    assert run(raw, given) == 0
    with h5py.File(raw / "out" / "images.h5") as made:
        return made["images"][:], dict(made.attrs)


def plain(raw: Path, pixels: np.ndarray) -> np.ndarray:
    """The set of the same pixels (n, C, H, W) in files of NumPy."""
    for name, image in zip(IDS, pixels, strict=True):
        np.save(raw / "train" / f"{name}.npy", image)
    found, attrs = images_of(raw, settings(data={"files": "{id}.npy"}))
    assert "stack" not in attrs
    return found


def test_stacks_stop_the_stage_or_are_projected_and_the_set_says_so(raw: Path, capsys: pytest.CaptureFixture) -> None:
    for name, image in zip(IDS, PIXELS, strict=True):
        about = {"axes": "ZCYX", "Channel": {"Name": NAMES}}
        tifffile.imwrite(raw / "train" / f"{name}.ome.tif", image, metadata=about, photometric="minisblack")
    data = {"files": "{id}.ome.tif"}
    assert run(raw, settings(data=data)) == 1
    told = capsys.readouterr().err
    assert "a.ome.tif: holds a stack (4 along Z and 2 along C)" in told and "data.stack says" in told
    for stack, wanted in (("maximum", PIXELS.max(axis=1)), ("middle", PIXELS[:, 2])):
        found, attrs = images_of(raw, settings(data=data | {"stack": stack}))
        assert attrs["stack"] == stack
        np.testing.assert_array_equal(found, plain(raw, wanted))


def test_ome_zarr_is_read_listed_and_checked_as_any_other_file(raw: Path) -> None:
    for name, image in zip(IDS, PIXELS[:, 0], strict=True):
        levels = [np.kron(image, np.ones((1, 4, 4), np.uint8)), image, image[:, ::4, ::4]]
        ngff(raw / "train" / f"{name}.ome.zarr", levels, "cyx", "0.5", names=NAMES[::-1])
    given = settings(data={"files": "{id}.ome.zarr"})
    found, _ = images_of(raw, given)
    # The channels go by their names; the middle level is the smallest that is large enough.
    np.testing.assert_array_equal(found, plain(raw, PIXELS[:, 0, ::-1]))
    reader = Reader(raw / "train", given)
    assert new_images.listed(reader, None, given["data"]).ids == IDS
    seen = preview.look(reader, IDS, [""] * 3, 1)
    assert not seen.bad and seen.sizes == {(64, 64): 3}
    other = Reader(raw / "train", settings(data={"files": "{id}.tif"}))
    told = missing_files.problem(other, IDS, [fault for name in IDS for fault in other.read(name)[1]])
    assert "The folder holds 3 .npy and 3 .zarr" in told


def test_a_missing_package_stops_the_run_before_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_choices, "find_spec", lambda name: None)
    data = {"source": "folder", "files": "{id}.tif", "table": "t.csv", "groups": None, "unlabelled": None}
    config = {"data": data, "compute": {"environment": "mixloc"}}
    data_checks.check_formats(config)
    for change, match in (
        (
            {"files": "{id}.ome.zarr"},
            r"data\.files: .*the package zarr: pip install -r requirements-formats\.txt",
        ),
        ({"files": {"red": "{id}.czi"}}, r"data\.files: .*needs the package pylibCZIrw"),
        ({"groups": "g.parquet"}, r"data\.groups = g\.parquet needs the package pyarrow"),
        ({"unlabelled": {"table": "u.parquet"}}, r"data\.unlabelled\.table = u\.parquet needs"),
    ):
        with pytest.raises(ConfigError, match=match):
            data_checks.check_formats(config | {"data": data | change})
        data_checks.check_formats({"data": data | change, "compute": {"environment": format_choices.ENVIRONMENT}})
        data_checks.check_formats(config | {"data": data | change | {"source": "simulated"}})


def test_the_report_says_what_became_of_stacks() -> None:
    labels, groups = np.ones((2, 1), np.uint8), np.array(["g", "h"])
    for stack, said in (("maximum", "were projected: the maximum over them"), (None, "")):
        attrs = {"notes": json.dumps([])} | ({"stack": stack} if stack else {})
        roles = {(0, 0): np.array([0, 3], np.uint8)}
        about, _ = data_section.describe(Data(labels, ["x"], groups, {}, attrs, roles, ["red"], 8), {}, None, None)
        assert said in about["stack"] and bool(said) == bool(about["stack"])
