"""preprocess_images: from a folder of channel files to an image set, and every way in which a file can be unusable."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workflow_scripts import preprocess_images as stage_program
from workflow_scripts.lib.dataset import ImageSet

SETTINGS = {
    "channels": ["red", "green"], "size": 8, "intensity": "fixed", "duplicates": 0, "group_by": ["gene", "antibody"],
    "class_names": ["Nucleus", "Cytosol"], "source": "test", "licence": "CC0", "credit": "us", "threads": 2,
}  # fmt: skip
IDS = ["a", "b", "c", "d"]


@pytest.fixture
def raw(tmp_path):
    """Four images of 16 × 16 in the Kaggle layout: a and b share a gene, b and c an antibody, d stands alone."""
    (tmp_path / "train").mkdir()
    rng = np.random.default_rng(0)
    for name in IDS:
        for channel in SETTINGS["channels"]:
            save(tmp_path / "train" / f"{name}_{channel}.png", rng.integers(0, 256, (16, 16), dtype=np.uint8))
    (tmp_path / "train.csv").write_text("Id,Target\na,0\nb,1\nc,0 1\nd,\n")
    (tmp_path / "groups.csv").write_text("Id,gene,antibody,plate\nd,G4,9,p2\na,G1,1,p1\nb,G1,2,p1\nc,G3,2,p1\n")
    return tmp_path


def save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


def run(raw: Path, *more: str, groups: bool = True, **settings: object) -> int:
    return stage_program.main(
        ["--images-dir", str(raw / "train"), "--table", str(raw / "train.csv"), "--out", str(raw / "out" / "images.h5")]
        + (["--groups", str(raw / "groups.csv")] if groups else [])
        + ["--settings", json.dumps(SETTINGS | settings), "--log", str(raw / "log.txt"), *more]
    )


def fails(raw: Path, capsys: pytest.CaptureFixture, *messages: str, **settings: object) -> None:
    """The stage fails with these words on standard error, without a traceback and without an output."""
    assert run(raw, **settings) == 1
    shown = capsys.readouterr().err
    sentence = next(line for line in shown.splitlines() if line.startswith("preprocess_images failed: "))
    for message in messages:
        assert message in sentence
    assert "Traceback" not in shown + (raw / "log.txt").read_text()
    assert not (raw / "out").exists() or list((raw / "out").iterdir()) == []


def test_a_folder_becomes_an_image_set(raw):
    assert run(raw) == 0
    with ImageSet(raw / "out" / "images.h5") as made:
        part = made.read(None, "inspect")
        assert list(part.ids) == IDS
        assert list(part.groups) == ["G1|0", "G1|0", "G1|0", "G4|3"]
        assert (made.channels, made.classes) == (["red", "green"], ["Nucleus", "Cytosol"])
        assert list(made.column("plate")) == ["p1", "p1", "p1", "p2"]
        told = {name: made.attrs[name] for name in ("source", "licence", "credit", "grouped_by", "intensity")}
    np.testing.assert_array_equal(part.labels, [[1, 0], [0, 1], [1, 1], [0, 0]])
    assert told == {
        "source": "test", "licence": "CC0", "credit": "us", "grouped_by": "gene, antibody", "intensity": "fixed",
    }  # fmt: skip
    # Every pixel is the mean of 2 × 2 pixels of the file, rounded, channel by channel.
    for row, name in enumerate(IDS):
        for index, channel in enumerate(SETTINGS["channels"]):
            pixels = np.asarray(Image.open(raw / "train" / f"{name}_{channel}.png"), dtype=float)
            means = pixels.reshape(8, 2, 8, 2).mean((1, 3))
            assert np.abs(part.images[row, index] - means).max() <= 0.5001


def test_area_averaging_is_exact_where_the_means_are_whole(raw):
    wanted = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3 + 20
    # Blocks of 3 × 3 around each wanted value, which cancel out; a sharp resampling would see the pattern.
    pattern = np.array([[20, -20, 5], [-5, 0, 7], [-7, 13, -13]])
    large = np.kron(wanted, np.ones((3, 3), dtype=int)) + np.tile(pattern, (8, 8))
    save(raw / "train" / "a_red.png", large.astype(np.uint8))
    save(raw / "train" / "a_green.png", wanted)
    assert run(raw) == 0
    with ImageSet(raw / "out" / "images.h5") as made:
        np.testing.assert_array_equal(made.read(np.array([0]), "inspect").images[0], [wanted, wanted])


def test_percentile_intensity_spreads_each_channel(raw):
    ramp = np.linspace(100, 131, 64).round().astype(np.uint8).reshape(8, 8)
    save(raw / "train" / "a_red.png", ramp)
    save(raw / "train" / "a_green.png", np.full((8, 8), 77, dtype=np.uint8))
    assert run(raw, intensity="percentile") == 0
    with ImageSet(raw / "out" / "images.h5") as made:
        red, green = made.read(np.array([0]), "inspect").images[0].astype(int)
    assert (red.min(), red.max()) == (0, 255)
    np.testing.assert_allclose(red, (ramp - 100.0) * 255 / 31, atol=2)
    assert (green == 0).all()


def test_more_images_than_a_block_and_class_names_from_a_table(raw, monkeypatch):
    assert run(raw) == 0
    with ImageSet(raw / "out" / "images.h5") as made:
        digest, images = made.digest, made.read(None, "inspect").images
    monkeypatch.setattr(stage_program, "BLOCK", 3)
    (raw / "classes.csv").write_text("number,name\n0,Nucleus\n1,Cytosol\n")
    assert run(raw, "--classes", str(raw / "classes.csv"), class_names=[]) == 0
    with ImageSet(raw / "out" / "images.h5") as made:
        assert made.digest == digest
        np.testing.assert_array_equal(made.read(None, "inspect").images, images)


def test_without_known_proteins_each_image_is_its_own_group(raw):
    assert run(raw, groups=False, group_by=[]) == 0
    with ImageSet(raw / "out" / "images.h5") as made:
        assert len(set(made.groups)) == len(IDS)
        assert made.attrs["grouped_by"] == ""


def test_a_turned_copy_joins_the_group_of_its_source(raw):
    for channel in SETTINGS["channels"]:
        with Image.open(raw / "train" / f"a_{channel}.png") as picture:
            picture.rotate(90).save(raw / "train" / f"d_{channel}.png")
    assert run(raw, duplicates=0.95) == 0
    with ImageSet(raw / "out" / "images.h5") as made:
        assert list(made.groups) == ["G1|0"] * 4
        told = json.loads(made.attrs["duplicates"])
    assert told["pairs"] == 1
    assert told["examples"][0][:2] == ["a", "d"]


def test_unusable_files_are_all_reported_by_name(raw, capsys):
    folder = raw / "train"
    noise = np.random.default_rng(1).integers(0, 256, (16, 16), dtype=np.uint8)
    (folder / "a_red.png").unlink()
    whole = (folder / "a_green.png").read_bytes()
    (folder / "a_green.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.stack([noise] * 3, axis=2)).save(folder / "b_red.png")
    save(folder / "b_green.png", noise.astype(np.uint16) * 200)
    save(folder / "c_red.png", noise[:, :12])
    save(folder / "c_green.png", noise[:7, :7])
    Image.fromarray(noise).save(folder / "d_red.png", format="BMP")
    (folder / "d_green.png").write_text("no picture")
    fails(
        raw, capsys, "8 files in", "a_red.png: is missing", "a_green.png: ", "b_red.png: is PNG with mode RGB",
        "b_green.png: is PNG with mode I;16", "c_red.png: is 12 × 16 pixels", "c_green.png: is 7 pixels wide",
        "d_red.png: is BMP", "d_green.png: ",
    )  # fmt: skip


def test_one_missing_channel_is_enough_to_fail_and_keeps_the_old_set(raw, capsys):
    assert run(raw) == 0
    before = (raw / "out" / "images.h5").read_bytes()
    (raw / "train" / "c_green.png").unlink()
    assert run(raw) == 1
    assert "1 files in" in capsys.readouterr().err
    assert [path.name for path in (raw / "out").iterdir()] == ["images.h5"]
    assert (raw / "out" / "images.h5").read_bytes() == before


def test_files_cut_anywhere_never_come_through_changed(tmp_path):
    path = tmp_path / "a_red.png"
    save(path, np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8))
    whole, values = path.read_bytes(), stage_program.read_channel(path, 8, "fixed")
    refused = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            found = stage_program.read_channel(path, 8, "fixed")
        except stage_program.UNUSABLE:
            refused += 1
        else:
            # Only the end marker is missing: all pixels are there.
            np.testing.assert_array_equal(found, values)
    assert refused >= len(whole) - 20


@pytest.mark.parametrize(
    ("file", "content", "settings", "message"),
    [
        ("train.csv", "Id,Target\na,0\na,1\n", {}, "'a' stands in lines 2 and 3"),
        ("train.csv", "Id,Target\na,2\n", {}, "'2' is no class number"),
        ("train.csv", "Id,Target\n../a,0\n", {}, "'../a' cannot be part of a file name"),
        ("train.csv", "Id,Label\na,0\n", {}, "no column 'Target'"),
        ("groups.csv", "Id,gene,antibody\na,G1,1\n", {}, "no row for 3 of 4 images, the first is 'b'"),
        ("groups.csv", "Id,gene\na,G1\n", {}, "no column 'antibody'"),
        ("groups.csv", "", {"groups": False}, "data.group_by names gene, antibody, but no table"),
    ],
)
def test_table_errors(raw, capsys, file, content, settings, message):
    (raw / file).write_text(content)
    fails(raw, capsys, message, **settings)
