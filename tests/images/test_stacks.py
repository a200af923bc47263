"""lib.images.stacks and tiff_files: channels in any axis, stacks refused or projected, and what is no single image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from workflow_scripts.lib.images import decode, planes, stacks
from workflow_scripts.lib.images.planes import Unusable, Wanted

# time, focus, channel, height, width
WHOLE = np.random.default_rng(1).integers(0, 60_000, (3, 5, 2, 20, 16), dtype=np.uint16)
NAMES = {"Channel": {"Name": ["dapi", "gfp"]}}


def read(path: Path, stack: str = "refuse", expected: int = 2) -> np.ndarray:
    """The planes of a file as an array."""
    found = decode.decode(path, Wanted(expected, stack))
    return np.stack([planes.to_array(image) for image in found.images])


def moved(axes: str) -> np.ndarray:
    """The array with these axes, in this order; the first place on those that are not named."""
    kept = WHOLE[tuple(slice(None) if axis in axes else 0 for axis in "TZCYX")]
    order = [axis for axis in "TZCYX" if axis in axes]
    return np.ascontiguousarray(kept.transpose([order.index(axis) for axis in axes]))


@pytest.mark.parametrize("axes", ["CYX", "TZCYX", "CZYX", "ZCYX", "CTYX"])
def test_axes_of_an_ome_tiff_come_from_its_header(tmp_path: Path, axes: str) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, moved(axes), metadata={"axes": axes} | NAMES, photometric="minisblack")
    depth = tuple(place for place, axis in enumerate("TZ") if axis in axes)
    kept = moved("".join(axis for axis in "TZCYX" if axis in axes))
    wanted = kept.max(axis=tuple(range(len(depth)))) if depth else kept
    np.testing.assert_array_equal(read(path, "maximum"), wanted)
    assert decode.decode(path, Wanted(2, "maximum")).names == ["dapi", "gfp"]
    middle = kept[tuple(length // 2 for length in kept.shape[: len(depth)])]
    np.testing.assert_array_equal(read(path, "middle"), middle)
    if depth:
        with pytest.raises(Unusable, match=r"holds a stack \(.*along .* is expected; data\.stack says"):
            read(path)


def test_hyperstacks_of_imagej_and_planes_that_are_channels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", WHOLE, imagej=True, metadata={"axes": "TZCYX"})
    np.testing.assert_array_equal(read(tmp_path / "a.tif", "maximum"), WHOLE.max(axis=(0, 1)))
    tifffile.imwrite(tmp_path / "z.tif", WHOLE[0, 0], imagej=True, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read(tmp_path / "z.tif", "channels"), WHOLE[0, 0])
    with pytest.raises(Unusable, match=r"2 along Z"):
        read(tmp_path / "z.tif")
    with pytest.raises(Unusable, match=r"2 along C"):
        read(tmp_path / "a.tif", "channels")


def test_channels_in_pages_in_the_last_axis_and_compressed(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "apart.tif") as file:
        for plane in WHOLE[0, 0]:
            file.write(plane, contiguous=False)
    np.testing.assert_array_equal(read(tmp_path / "apart.tif"), WHOLE[0, 0])
    large = np.tile(WHOLE[0, 0], (1, 5, 5))  # more rows than pages are allowed otherwise
    tifffile.imwrite(tmp_path / "last.tif", np.ascontiguousarray(np.moveaxis(large, 0, -1)))
    np.testing.assert_array_equal(read(tmp_path / "last.tif"), large)
    first, second = (Image.fromarray(plane) for plane in WHOLE[0, 0])
    first.save(tmp_path / "lzw.tif", save_all=True, append_images=[second], compression="tiff_lzw")
    np.testing.assert_array_equal(read(tmp_path / "lzw.tif"), WHOLE[0, 0])


def test_several_images_in_a_file_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for _ in range(2):
            file.write(WHOLE[0, 0], metadata={"axes": "CYX"}, photometric="minisblack")
    with pytest.raises(Unusable, match=r"holds several images \(2\); one is expected"):
        read(tmp_path / "a.ome.tif")
    with pytest.raises(Unusable, match=r"several images \(3 along P\)"):
        stacks.read(stacks.of_array(np.zeros((3, 8, 8), np.uint8), "PYX"), Wanted(1, "maximum"))


def test_axes_in_any_order_of_height_and_width() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    [image] = stacks.read(stacks.of_array(values.T, "XY"), Wanted(1)).images
    np.testing.assert_array_equal(planes.to_array(image), values)
    with pytest.raises(Unusable, match="has the axes CY"):
        stacks.of_array(values, "CY")


def test_a_stack_of_more_pixels_than_are_allowed_is_refused_before_it_is_read() -> None:
    stack = stacks.Stack("ZYX", (planes.MOST_PIXELS, 8, 8), "uint8", lambda place: pytest.fail("was read"))
    with pytest.raises(Unusable, match="unpacks to more than") as caught:
        stacks.read(stack, Wanted(1, "maximum"))
    assert caught.value.kind == "decompression bomb"
    many = stacks.Stack("CYX", (65, 8, 8), "uint8", lambda place: pytest.fail("was read"))
    with pytest.raises(Unusable, match="holds 65 planes"):
        stacks.read(many, Wanted(1))
