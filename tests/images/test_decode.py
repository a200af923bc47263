"""lib.images.decode: planes of each format by hand, and files that are refused rather than read wrongly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.helpers.image_folders import noise, save
from workflow_scripts.lib.images import decode, planes
from workflow_scripts.lib.images.planes import Wanted

DEEP = np.array([[0, 1, 300], [65535, 257, 4095]], dtype=np.uint16)


def arrays(path: Path, expected: int = 1) -> list[np.ndarray]:
    """The planes of a file as arrays."""
    return [planes.to_array(image) for image in decode.decode(path, Wanted(expected)).images]


GREY = {"8": np.uint8(DEEP // 257), "16": DEEP, "float": np.float32(DEEP / 4096)}
STORED = [
    (suffix, depth) for suffix in (".png", ".tif", ".npy") for depth in GREY if (suffix, depth) != (".png", "float")
]


@pytest.mark.parametrize(("suffix", "depth"), STORED)
def test_grey_values_come_as_they_are_stored(tmp_path: Path, suffix: str, depth: str) -> None:
    values = GREY[depth]
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, values)
    elif suffix == ".tif":
        tifffile.imwrite(path, values)
    else:
        save(path, values)
    found = decode.decode(path, Wanted(1))
    assert found.bits == {"uint8": 8, "uint16": 16, "float32": 32}[values.dtype.name]
    (plane,) = found.images
    assert plane.size == (3, 2), "width and height"
    np.testing.assert_array_equal(planes.to_array(plane), values)


def test_colours_and_transparency_are_planes_of_their_own(tmp_path: Path) -> None:
    colours = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) * 10
    for mode, count in (("RGB", 3), ("RGBA", 4)):
        save(tmp_path / f"{mode}.png", colours[:, :, :count])
        found = arrays(tmp_path / f"{mode}.png", count)
        assert len(found) == count
        for place, plane in enumerate(found):
            np.testing.assert_array_equal(plane, colours[:, :, place])


@pytest.mark.parametrize(
    ("shape", "expected", "count"),
    [
        ((2, 3), 1, 1),
        ((4, 5, 6), 4, 4),  # as many planes as expected, in front
        ((5, 6, 4), 4, 4),  # or behind
        ((4, 6, 4), 4, 4),
        ((9, 8, 2), 3, 2),  # another number than expected: the short axis
        ((2, 8, 9), 3, 2),
    ],
)
def test_the_axis_of_the_channels_is_found(tmp_path: Path, shape: tuple[int, ...], expected: int, count: int) -> None:
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.save(tmp_path / "a.npy", values)
    found = arrays(tmp_path / "a.npy", expected)
    assert len(found) == count
    last = values[-1] if len(shape) == 3 and shape[0] == count else values[..., -1] if len(shape) == 3 else values
    np.testing.assert_array_equal(found[-1], last)


def test_an_ome_tiff_names_its_channels(tmp_path: Path) -> None:
    values = np.stack([noise(0), noise(1)])
    about = {"axes": "CYX", "Channel": {"Name": ["gfp", "dic"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", values, metadata=about, photometric="minisblack")
    found = decode.decode(tmp_path / "a.ome.tif", Wanted(2))
    assert found.names == ["gfp", "dic"]
    np.testing.assert_array_equal(planes.to_array(found.images[1]), values[1])
    tifffile.imwrite(tmp_path / "plain.tif", values, photometric="minisblack")
    assert decode.decode(tmp_path / "plain.tif", Wanted(2)).names is None


def test_a_compression_that_pillow_knows_is_read(tmp_path: Path) -> None:
    Image.fromarray(noise(0)).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(arrays(tmp_path / "a.tif")[0], noise(0))


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("stack.tif", np.zeros((2, 8, 8), np.uint8), "wrong shape"),
        ("nan.npy", np.array([[0.0, np.nan]]), "NaN or infinity"),
        ("signed.npy", np.zeros((4, 4), np.int16), "wrong bit depth"),
        ("line.npy", np.zeros(4, np.uint8), "wrong shape"),
        ("empty.npy", np.zeros((0, 4), np.uint8), "damaged file"),
        ("a.gif", None, "unknown format"),
        ("missing.png", None, "cannot be read"),
        ("text.png", b"no picture", "not an image"),
    ],
)
def test_what_is_no_image_is_refused_by_kind(tmp_path: Path, name: str, values: np.ndarray, kind: str) -> None:
    if isinstance(values, bytes):
        (tmp_path / name).write_bytes(values)
    elif name.endswith(".npy"):
        np.save(tmp_path / name, values)
    elif name.endswith(".tif"):
        tifffile.imwrite(tmp_path / name, values, photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(planes.Unusable) as caught:
        decode.decode(tmp_path / name, Wanted(1))
    assert caught.value.kind == kind


def test_a_tiff_of_very_many_pages_is_refused_before_they_are_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((65, 4, 4), np.uint8), photometric="minisblack", metadata=None)
    with pytest.raises(planes.Unusable, match="more than 64 pages"):
        decode.decode(tmp_path / "a.tif", Wanted(1))


@pytest.mark.parametrize("stack", ["refuse", "maximum", "middle"])
def test_a_file_written_page_by_page_is_several_images(tmp_path: Path, stack: str) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in range(7):
            writer.write(np.full((8, 8), page, np.uint8), photometric="minisblack")
    with pytest.raises(planes.Unusable, match=r"holds several images \(7\)"):
        decode.decode(tmp_path / "a.tif", Wanted(1, stack))


def test_a_blend_is_the_mean_without_rounding() -> None:
    red, green = (Image.fromarray(np.full((2, 2), value, np.uint8)) for value in (10, 13))
    np.testing.assert_array_equal(planes.to_array(planes.blend([red, green])), np.full((2, 2), 11.5))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".jpg"])
def test_files_cut_anywhere_never_come_through_changed(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, noise(0), rowsperstrip=4)
    elif suffix == ".npy":
        np.save(path, noise(0))
    else:
        save(path, noise(0))
    whole, values = path.read_bytes(), np.asarray(decode.decode(path, Wanted(1)).images[0])
    refused = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            found = decode.decode(path, Wanted(1))
        except planes.Unusable:
            refused += 1
        else:
            # Only what follows the pixels is missing.
            np.testing.assert_array_equal(np.asarray(found.images[0]), values)
    assert refused >= len(whole) - 20 - (len(whole) - 256 if suffix == ".tif" else 0)


def test_bombs_of_every_format(tmp_path):
    # All of it a hole, on disk.
    np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=(20_000, 20_000))
    tifffile.imwrite(
        tmp_path / "a.tif",
        iter([bytes(100)] * 300),
        shape=(30_000, 30_000),
        dtype=np.uint8,
        tile=(2048, 2048),
        compression="zlib",
    )
    for name in ("a.npy", "a.tif"):
        with pytest.raises(planes.Unusable) as caught:
            decode.decode(tmp_path / name, Wanted(1))
        assert caught.value.kind == "decompression bomb"
