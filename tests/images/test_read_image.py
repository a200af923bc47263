"""lib.images.read_image: windows and intensities of images by hand, and the faults of single images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.helpers.image_folders import noise, save, settings
from workflow_scripts.lib.images import read_image, scaling
from workflow_scripts.lib.images.read_image import Reader


def reader(folder: Path, data: dict | None = None, **own: object) -> Reader:
    return Reader(folder, settings(data=data, **{"channels": ["gfp"], "size": 4, **own}))


def kinds(made: Reader, name: str, pixel_size: str = "") -> list[str]:
    """The kinds of fault of an image that cannot be used."""
    pixels, faults = made.read(name, pixel_size)
    assert pixels is None
    return [fault.kind for fault in faults]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{id}_{channel}.png", {"x_red.png": ["red"], "x_green.png": ["green"]}),
        ({"red": "{id}_ch0.tif", "green": "g/{id}.tif"}, {"x_ch0.tif": ["red"], "g/x.tif": ["green"]}),
        ("{id}.npy", {"x.npy": ["red", "green"]}),
    ],
)
def test_files_of_an_image_follow_the_pattern(tmp_path: Path, pattern: object, expected: dict) -> None:
    made = reader(tmp_path, data={"files": pattern}, channels=["red", "green"])
    assert made.files("x") == expected


def test_blocks_and_windows_give_means_of_the_pixels(tmp_path: Path) -> None:
    for side in (8, 12, 10):
        save(tmp_path / f"s{side}_gfp.png", noise(side, side))
    made = reader(tmp_path)
    for side in (8, 12):
        (pixels,), _ = made.read(f"s{side}")
        means = noise(side, side).reshape(4, side // 4, 4, side // 4).mean((1, 3))
        assert np.abs(pixels - means).max() <= 0.5
    (pixels,), _ = made.read("s10")
    assert np.abs(pixels - scaling.area_means(noise(10, 10).astype(float), 4, (0, 0, 10, 10))).max() <= 0.5


def test_a_pixel_size_cuts_the_centre_out(tmp_path: Path) -> None:
    save(tmp_path / "x_gfp.png", noise(3, 12))
    made = reader(tmp_path, data={"pixel_size": 0.1}, pixel_size=0.2)
    # Four pixels of 0.2 µm are eight of 0.1 µm: rows and columns 2 to 9.
    (pixels,), faults = made.read("x")
    assert np.abs(pixels - noise(3, 12)[2:10, 2:10].reshape(4, 2, 4, 2).mean((1, 3))).max() <= 0.5 and faults == []
    (own,), _ = made.read("x", "0.2")
    np.testing.assert_array_equal(own, noise(3, 12)[4:8, 4:8], "the size of the image itself comes first")
    assert kinds(made, "x", "0.3") == ["too coarse"]
    assert kinds(made, "x", "0.05") == ["too small"], "0.6 µm are shown, 0.8 µm are needed"
    assert kinds(reader(tmp_path, pixel_size=0.2), "x") == ["unknown pixel size"]


def test_white_is_the_level_of_the_depth(tmp_path: Path) -> None:
    values = np.array([[0, 4095], [8190, 65535]], dtype=np.uint16)
    np.save(tmp_path / "deep.npy", values)
    np.save(tmp_path / "float.npy", np.array([[0, 0.25], [0.5, 1]], dtype=np.float32))
    data, levels = {"files": "{id}.npy", "bits": [16, 32]}, {"uint16": 8190, "float": 1.0}
    made = reader(tmp_path, data=data, size=2, white_level=levels)
    np.save(tmp_path / "bright.npy", np.array([[0, 0.25], [0.5, 2]], dtype=np.float32))
    assert kinds(made, "bright") == ["brighter than white"]
    np.testing.assert_array_equal(made.read("float")[0][0], [[0, 64], [128, 255]])
    np.testing.assert_array_equal(made.read("deep")[0][0], [[0, 128], [255, 255]])


def test_the_depth_of_a_set_is_that_of_most_images(tmp_path: Path) -> None:
    for name, dtype in (("a", np.uint8), ("b", np.uint16), ("c", np.uint16)):
        np.save(tmp_path / f"{name}.npy", noise(1, 4).astype(dtype))
    made = reader(tmp_path, data={"files": "{id}.npy"})
    made.learn_depth(["a", "b", "c", "missing"])
    assert made.bits == {16}
    assert kinds(made, "a") == ["wrong bit depth"]
    told = reader(tmp_path, data={"files": "{id}.npy", "bits": [8]})
    told.learn_depth(["a", "b", "c"])
    assert told.bits == {8}, "what the config says is not learnt"


def test_all_faults_of_an_image_are_told_at_once(tmp_path: Path) -> None:
    made = reader(tmp_path, channels=["red", "green", "blue"])
    save(tmp_path / "x_blue.png", noise(1, 4))
    (tmp_path / "x_green.png").write_text("no picture")
    pixels, faults = made.read("x")
    assert pixels is None
    assert [(fault.file, fault.kind) for fault in faults] == [
        ("x_red.png", "missing file"),
        ("x_green.png", "not an image"),
    ]
    assert kinds(made, "y") == ["Id without files"]


def test_files_that_no_table_names_are_found(tmp_path: Path) -> None:
    for name in ("a_red.png", "b_red.png", "b_green.png", "notes.txt", "c_blue.png"):
        (tmp_path / name).write_bytes(b"")
    made = reader(tmp_path, channels=["red", "green"])
    assert sorted(read_image.files_without_row(made, {"a"})) == ["b"]


def test_stamps_follow_the_files(tmp_path: Path) -> None:
    made = reader(tmp_path)
    assert made.stamps("x") == [[]]
    save(tmp_path / "x_gfp.png", noise(1))
    ((size, _),) = first = made.stamps("x")
    assert size == (tmp_path / "x_gfp.png").stat().st_size
    save(tmp_path / "x_gfp.png", noise(2, 20))
    assert made.stamps("x") != first


def test_the_colours_of_one_file_are_the_channels_that_planes_names(tmp_path: Path) -> None:
    stains = [noise(number, 4) for number in (1, 2, 3)]
    save(tmp_path / "a.png", np.stack(stains, axis=-1))
    planes = {"nucleus": "blue", "protein": "green", "er": "red"}
    for files in ("{id}.png", dict.fromkeys(planes, "{id}.png")):
        made = reader(tmp_path, data={"files": files, "planes": planes}, channels=list(planes))
        pixels, faults = made.read("a")
        assert faults == []
        np.testing.assert_array_equal(pixels, stains[::-1])
    save(tmp_path / "grey.png", np.stack([noise(1, 4), noise(2, 4)], axis=-1))
    made = reader(tmp_path, data={"files": "{id}.png", "planes": {"gfp": "blue"}})
    assert kinds(made, "grey") == ["colour file"], "two planes are no colours"


@pytest.mark.parametrize(
    ("named", "channels", "order"),
    [
        (["DAPI", "GFP"], ["gfp", "dapi"], [1, 0]),  # in other letters
        (["DAPI", "Alexa Fluor 488"], ["Alexa_Fluor_488", "DAPI"], [1, 0]),  # as a config can spell them
        (["one", "two"], ["gfp", "dapi"], [0, 1]),  # names that have nothing to do with ours
        (["DAPI", "dapi"], ["DAPI", "gfp"], None),  # nobody knows which is meant
        (["DAPI", "GFP", "Cy5"], ["dna", "er"], None),  # one more than is wanted
    ],
)
def test_names_within_a_file_count_however_they_are_spelled(
    tmp_path: Path, named: list[str], channels: list[str], order: list[int] | None
) -> None:
    stack = np.stack([noise(number, 4) for number in range(len(named))])
    about = {"axes": "CYX", "Channel": {"Name": named}}
    tifffile.imwrite(tmp_path / "x.ome.tif", stack, ome=True, metadata=about, photometric="minisblack")
    pixels, faults = reader(tmp_path, data={"files": "{id}.ome.tif"}, channels=channels).read("x")
    if order is None:
        assert pixels is None and faults[0].kind in ("missing channel", "wrong number of channels")
    else:
        np.testing.assert_array_equal(pixels, stack[order])


def test_files_in_a_folder_for_each_channel_are_found(tmp_path: Path) -> None:
    for name in ("red/a.png", "red/b.png", "green/b.png", "blue/c.png", "red/deep/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    made = reader(tmp_path, data={"files": "{channel}/{id}.png"}, channels=["red", "green"])
    assert sorted(read_image.files_without_row(made, {"a"})) == ["b"]
