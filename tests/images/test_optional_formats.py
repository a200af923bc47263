"""Formats of optional packages: OME-Zarr, CZI and ND2, through the reader of a folder; hostile files are refused.

The package nd2 cannot write. So its tests hold against a module with the part of its interface that is used."""

from __future__ import annotations

import gzip
import json
import sys
import types
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.helpers.image_folders import settings
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import decode, format_choices, planes, zarr_folders
from workflow_scripts.lib.images.format_choices import FORMATS
from workflow_scripts.lib.images.planes import Unusable, Wanted
from workflow_scripts.lib.images.read_image import Reader

PIXELS = np.random.default_rng(1).integers(0, 60_000, (3, 2, 32, 32), dtype=np.uint16)  # focus, channel, height, width
ZSTD = (0xFD2FB528).to_bytes(4, "little")


def read(path: Path, stack: str = "refuse", least: int = 0) -> np.ndarray:
    """The planes of a file as an array."""
    found = decode.decode(path, Wanted(2, stack, least))
    return np.stack([planes.to_array(image) for image in found.images])


def refused(path: Path, match: str, stack: str = "refuse") -> None:
    """The file is refused, with a reason like this."""
    with pytest.raises(Unusable, match=match) as caught:
        read(path, stack)
    assert str(caught.value).isprintable()


def test_every_format_has_a_function_and_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(callable(FORMATS.function(name, vars(decode))) for name in FORMATS)
    monkeypatch.setattr(format_choices, "find_spec", lambda name: None)
    for suffix, package in ((".zarr", "zarr"), (".czi", "pylibCZIrw"), (".ND2", "nd2")):
        with pytest.raises(UserError) as caught:
            Reader(Path(), settings(data={"files": f"{{id}}{suffix}"}))
        assert str(caught.value) == (
            f"data.files: '{{id}}{suffix}' needs the package {package}: pip install -r requirements-formats.txt"
        )
    Reader(Path(), settings(data={"files": "{id}.tif"}))


# OME-Zarr


def ngff(path: Path, levels: list[np.ndarray], axes: str, version: str = "0.4", **more: Any) -> None:
    """An OME-Zarr image; `more` goes to the arrays, but for `names` of channels."""
    zarr = pytest.importorskip("zarr")
    names = more.pop("names", [])
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    for number, level in enumerate(levels):
        chunks = tuple(16 if axis in "yx" else 1 for axis in axes)
        group.create_array(str(number), data=level, **{"chunks": chunks} | more)
    scales = [{"path": str(number), "coordinateTransformations": []} for number in range(len(levels))]
    about = {"multiscales": [{"axes": [{"name": axis} for axis in axes], "datasets": scales}]}
    about["omero"] = {"channels": [{"label": name} for name in names]}
    group.attrs.update(about if version == "0.4" else {"ome": about | {"version": version}})


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_gives_the_smallest_level_that_is_large_enough(tmp_path: Path, version: str) -> None:
    path, whole = tmp_path / "a.ome.zarr", PIXELS[None, None, 0].transpose(0, 2, 1, 3, 4)
    ngff(path, [whole, whole[..., ::2, ::2], whole[..., ::4, ::4]], "tczyx", version, names=["dapi", "gfp"])
    assert decode.size(path) == (32, 32)
    assert decode.decode(path, Wanted(2)).names == ["dapi", "gfp"]
    for least, step in ((0, 1), (9, 2), (16, 2), (8, 4), (100, 1)):
        np.testing.assert_array_equal(read(path, least=least), PIXELS[0, :, ::step, ::step])


def test_stacks_of_ome_zarr_and_a_folder_of_several_images(tmp_path: Path) -> None:
    ngff(tmp_path / "a.zarr", [PIXELS], "zcyx")
    refused(tmp_path / "a.zarr", r"holds a stack \(3 along Z and 2 along C\)")
    np.testing.assert_array_equal(read(tmp_path / "a.zarr", "maximum"), PIXELS.max(axis=0))
    for names, several in (("0", False), ("01", True)):
        for name in names:
            ngff(tmp_path / "b.zarr" / name, [PIXELS[0]], "cyx")
        (tmp_path / "b.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
        (tmp_path / "b.zarr" / ".zattrs").write_text('{"bioformats2raw.layout": 3}')
        if several:
            refused(tmp_path / "b.zarr", "holds several images")
        else:
            np.testing.assert_array_equal(read(tmp_path / "b.zarr"), PIXELS[0])


def test_what_is_no_image_of_ome_zarr_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    (tmp_path / "file.zarr").write_bytes(b"a")
    refused(tmp_path / "file.zarr", "is no folder")
    (tmp_path / "empty.zarr").mkdir()
    refused(tmp_path / "empty.zarr", "damaged or incomplete")
    ngff(tmp_path / "a.zarr", [PIXELS[0]], "cyx")
    attributes = tmp_path / "a.zarr" / ".zattrs"
    about = json.loads(attributes.read_text())
    for change, match in (
        ({"path": "../b.zarr/0"}, "damaged or incomplete"),
        ({"path": "none"}, "damaged or incomplete"),
    ):
        about["multiscales"][0]["datasets"] = [change]
        attributes.write_text(json.dumps(about))
        refused(tmp_path / "a.zarr", match)
    attributes.write_text('{"plate": {}}')
    refused(tmp_path / "a.zarr", "is a plate")
    attributes.write_text("[" * 100_000)
    refused(tmp_path / "a.zarr", "damaged or incomplete")


def chunk(path: Path) -> Path:
    """The first chunk of a new image of one chunk for each channel."""
    numcodecs = pytest.importorskip("numcodecs")
    ngff(path, [PIXELS[0]], "cyx", chunks=(1, 32, 32), compressors=numcodecs.Zlib())
    return path / "0" / "0.0.0"


def test_hostile_chunks_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    first = chunk(tmp_path / "bomb.zarr")
    first.write_bytes(zlib.compress(bytes(2**25)))
    refused(tmp_path / "bomb.zarr", "unpacks to more than its metadata says")
    first = chunk(tmp_path / "link.zarr")
    (tmp_path / "outside").write_bytes(first.read_bytes())
    first.unlink()
    first.symlink_to(tmp_path / "outside")
    refused(tmp_path / "link.zarr", "leads out of its folder")
    about = json.loads((chunk(tmp_path / "large.zarr").parent / ".zarray").read_text())
    for change, match in (
        ({"chunks": [1, 32, 2**25]}, "has chunks of"),
        ({"shape": [2, 2**20, 2**20]}, "unpacks to more than"),
        ({"shape": [2, 4096, 4096], "chunks": [1, 1, 1]}, "chunks in a plane"),
        ({"filters": [{"id": "pickle"}]}, "cannot be read|damaged"),
        ({"compressor": {"id": "bz2", "level": 1}}, r"cannot be read \(bz2\)"),
        ({"dtype": "|O"}, "wrong bit depth|holds values|damaged"),
    ):
        (tmp_path / "large.zarr" / "0" / ".zarray").write_text(json.dumps(about | change))
        refused(tmp_path / "large.zarr", match)


@pytest.mark.parametrize("form", ["blosc", "zstd", "gzip", "none"])
def test_cut_chunks_of_every_compression_are_refused(tmp_path: Path, form: str) -> None:
    numcodecs = pytest.importorskip("numcodecs")
    codec = {"blosc": numcodecs.Blosc(), "zstd": numcodecs.Zstd(), "gzip": numcodecs.GZip(), "none": None}[form]
    ngff(tmp_path / "a.zarr", [PIXELS[0]], "cyx", chunks=(1, 32, 32), compressors=codec)
    np.testing.assert_array_equal(read(tmp_path / "a.zarr"), PIXELS[0])
    place = tmp_path / "a.zarr" / "0" / "0.0.0"
    whole = place.read_bytes()
    for length in (0, 3, 20, len(whole) // 2, len(whole) - 1):
        place.write_bytes(whole[:length])
        refused(tmp_path / "a.zarr", "damaged or incomplete|is incomplete")


def frame(blocks: list[tuple[int, int]], claim: int | None = None) -> bytes:
    """A Zstandard frame by its headers alone, from the form and the size of each block."""
    head = ZSTD + (bytes([0xE0]) + claim.to_bytes(8, "little") if claim is not None else bytes([0x00, 0x58]))
    out = [head]
    for number, (form, size) in enumerate(blocks, 1):
        last = int(number == len(blocks))
        out.append((size << 3 | form << 1 | last).to_bytes(3, "little") + bytes(1 if form == 1 else size))
    return b"".join(out)


def test_sizes_of_chunks_are_told_without_unpacking_them() -> None:
    most = 1000
    size = zarr_folders.unpacked_size
    assert size("", bytes(7), most) == 7
    assert size("blosc", bytes(4) + (77).to_bytes(4, "little") + bytes(8), most) == 77
    with pytest.raises(Unusable, match="was cut off"):
        size("blosc", bytes(12) + (99).to_bytes(4, "little"), most)
    assert size("lz4", (88).to_bytes(4, "little"), most) == 88
    assert size("zlib", zlib.compress(bytes(500)) + b"sum.", most) == 500
    assert size("zlib", gzip.compress(bytes(300)) + gzip.compress(bytes(400)), most) == 700
    assert size("zlib", zlib.compress(bytes(2**22)), most) > most
    assert size("zstd", frame([(1, 100)], claim=100), most) == 100
    assert size("zstd", frame([(0, 4)], claim=2**40), most) == 2**40
    assert size("zstd", frame([(2, 4)], claim=10) + frame([(2, 4)], claim=20), most) == 30
    assert size("zstd", frame([(2, 4)] * 3), most) == 0, "without a claim, blocks may hold little"
    assert size("zstd", frame([(2, 0)] * 8193), most) > zarr_folders.UNTOLD


def test_an_edited_chunk_is_noticed_and_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    for name in ("in/a.zarr/0", "out/b.zarr"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "in" / "a.zarr" / "0" / "c").write_bytes(b"abc")
    (tmp_path / "in" / "b.zarr").symlink_to(tmp_path / "out" / "b.zarr")
    pytest.importorskip("zarr")
    reader = Reader(tmp_path / "in", settings(data={"files": "{id}.zarr"}))
    before = reader.stamps("a")
    assert before == reader.stamps("a")
    (tmp_path / "in" / "a.zarr" / "0" / "c").write_bytes(b"abcd")
    assert reader.stamps("a") != before
    [fault] = reader.read("b")[1]
    assert fault.kind == "link out of the folder"


# CZI


def write_czi(path: Path, values: np.ndarray, scenes: int = 1) -> None:
    """A CZI file of planes (Z, C, H, W) or (Z, C, H, W, 3), by Zeiss' own writer."""
    czi = pytest.importorskip("pylibCZIrw.czi")
    with czi.create_czi(str(path)) as file:
        for scene in range(scenes):
            for focus, channel in np.ndindex(values.shape[:2]):
                plane = np.atleast_3d(values[focus, channel])
                place = {"C": channel, "Z": focus, "T": 0}
                file.write(plane, plane=place, scene=scene, location=(scene * 100, 0))
        file.write_metadata("a", channel_names={0: "dapi", 1: "gfp"})


@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
def test_czi_gives_channels_by_name_as_they_were_written(tmp_path: Path, depth: str) -> None:
    values = (PIXELS[:1] // 256).astype(depth)
    write_czi(tmp_path / "a.czi", values)
    assert decode.size(tmp_path / "a.czi") == (32, 32)
    assert decode.decode(tmp_path / "a.czi", Wanted(2)).names == ["dapi", "gfp"]
    np.testing.assert_array_equal(read(tmp_path / "a.czi"), values[0])


def test_stacks_scenes_colours_and_damage_of_czi(tmp_path: Path) -> None:
    write_czi(tmp_path / "z.czi", PIXELS)
    refused(tmp_path / "z.czi", r"3 along Z and 2 along C")
    np.testing.assert_array_equal(read(tmp_path / "z.czi", "maximum"), PIXELS.max(axis=0))
    np.testing.assert_array_equal(read(tmp_path / "z.czi", "middle"), PIXELS[1])
    write_czi(tmp_path / "scenes.czi", PIXELS[:1], scenes=2)
    refused(tmp_path / "scenes.czi", r"several images \(2 scenes\)")
    colours = np.random.default_rng(2).integers(0, 256, (1, 1, 8, 8, 3), dtype=np.uint8)
    write_czi(tmp_path / "colours.czi", colours)  # blue, green, red
    np.testing.assert_array_equal(read(tmp_path / "colours.czi"), colours[0, 0].transpose(2, 0, 1)[::-1])
    whole = (tmp_path / "z.czi").read_bytes()
    for length in (0, 100, 600, len(whole) // 2):
        (tmp_path / "cut.czi").write_bytes(whole[:length])
        refused(tmp_path / "cut.czi", "damaged or incomplete", "maximum")


# ND2


class FakeND2:
    """The part of nd2.ND2File that is used, on an array with these axes."""

    values, axes, components = PIXELS, "ZCYX", 1
    names: ClassVar[list[str]] = ["dapi", "gfp"]

    def __init__(self, path: str) -> None:
        if not Path(path).read_bytes().startswith(b"nd2"):
            raise OSError("not recognized as ND2")

    def __enter__(self) -> FakeND2:
        return self

    def __exit__(self, *told: object) -> None:
        pass

    @property
    def sizes(self) -> dict[str, int]:
        pairs = zip(self.axes, self.values.shape, strict=True)
        return {axis: length for axis, length in pairs if length > 1}

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    @property
    def components_per_channel(self) -> int:
        return self.components

    @property
    def metadata(self) -> Any:
        channels = [types.SimpleNamespace(channel=types.SimpleNamespace(name=name)) for name in self.names]
        return types.SimpleNamespace(channels=channels)

    def read_frame(self, number: int) -> np.ndarray:
        lead = self.axes.index("C")
        return self.values.reshape(-1, *self.values.shape[lead:])[number].squeeze()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A file that the module in place of nd2 reads."""
    monkeypatch.setitem(sys.modules, "nd2", types.SimpleNamespace(ND2File=FakeND2))
    (tmp_path / "a.nd2").write_bytes(b"nd2")
    yield tmp_path / "a.nd2"


def test_nd2_gives_channels_by_name_and_projects_stacks(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(fake, "3 along Z and 2 along C")
    np.testing.assert_array_equal(read(fake, "maximum"), PIXELS.max(axis=0))
    np.testing.assert_array_equal(read(fake, "middle"), PIXELS[1])
    assert decode.decode(fake, Wanted(2, "middle")).names == ["dapi", "gfp"] and decode.size(fake) == (32, 32)
    monkeypatch.setattr(FakeND2, "values", PIXELS[None, :, :1])
    monkeypatch.setattr(FakeND2, "axes", "TZCYX")
    np.testing.assert_array_equal(read(fake, "maximum"), PIXELS[:, :1].max(axis=0))
    monkeypatch.setattr(FakeND2, "axes", "ZPCYX")
    monkeypatch.setattr(FakeND2, "values", PIXELS[None])
    refused(fake, r"several images \(3 along P\)")
    fake.write_bytes(b"other")
    refused(fake, "damaged or incomplete: not recognized as ND2")


def test_colours_of_nd2(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colours = np.random.default_rng(2).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    for name, value in (("values", colours), ("axes", "CYXS"), ("components", 3), ("names", ["colours"])):
        monkeypatch.setattr(FakeND2, name, value)
    np.testing.assert_array_equal(read(fake), colours[0].transpose(2, 0, 1))
    monkeypatch.setattr(FakeND2, "components", 2)
    refused(fake, "has 2 values for each channel of a pixel")
