"""preprocess_images: from every kind of source to an image set, and going on after an interruption."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.helpers.image_folders import noise, run, save, settings
from workflow_scripts import preprocess_shard
from workflow_scripts.lib.base import files
from workflow_scripts.lib.images import chunks, image_set_writer, known_datasets, read_image
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import Inventory

IDS = ["a", "b", "c", "d"]
NAMES = {"class_names": ["Nucleus", "Cytosol"], "no_label": "keep"}


@pytest.fixture
def raw(tmp_path):
    """Four images of 16 × 16 in the Kaggle layout: a and b share a gene, b and c an antibody, d stands alone."""
    (tmp_path / "train").mkdir()
    for number, name in enumerate(IDS):
        for place, channel in enumerate(["red", "green"]):
            save(tmp_path / "train" / f"{name}_{channel}.png", noise(10 * number + place))
    (tmp_path / "train.csv").write_text("Id,Target\na,0\nb,1\nc,0 1\nd,\n")
    (tmp_path / "groups.csv").write_text("Id,gene,antibody,plate\nd,G4,9,p2\na,G1,1,p1\nb,G1,2,p1\nc,G3,2,p1\n")
    return tmp_path


def with_groups(raw):
    return ("--groups", str(raw / "groups.csv"))


def read(raw):
    with ImageSet(raw / "out" / "images.h5") as made:
        return made, made.read(None, "inspect"), made.attrs


def test_a_folder_becomes_an_image_set(raw):
    # What the config itself says of these goes to the report and not into the set.
    about = {"origin": "test", "licence": "CC0", "credit": "us", "release": "v1"}
    assert run(raw, settings("kaggle2018", NAMES | about), *with_groups(raw)) == 0
    with ImageSet(raw / "out" / "images.h5") as made:
        part = made.read(None, "inspect")
        assert list(part.ids) == IDS
        assert list(part.groups) == ["G1|0", "G1|0", "G1|0", "G4|3"]
        assert (made.channels, made.classes) == (["red", "green"], ["Nucleus", "Cytosol"])
        assert list(made.column("plate")) == ["p1", "p1", "p1", "p2"]
        told = {name: made.attrs[name] for name in ("source", "release", "licence", "credit", "grouped_by")}
        assert json.loads(made.attrs["white_level"]) == {"uint16": 65535, "float": 1.0}
    np.testing.assert_array_equal(part.labels, [[1, 0], [0, 1], [1, 1], [0, 0]])
    known = known_datasets.SOURCES["kaggle2018"]
    assert told == {
        "source": known.origin, "release": known.release, "licence": known.licence, "credit": known.credit,
        "grouped_by": "gene, antibody",
    }  # fmt: skip
    assert (raw / "out" / "left_out.csv").read_text() == "Id,file,kind,reason\n"
    assert sorted(path.name for path in (raw / "out").iterdir()) == ["images.h5", "left_out.csv"]
    # Every pixel is the mean of 2 × 2 pixels of the file, rounded, channel by channel.
    for row, name in enumerate(IDS):
        for index, channel in enumerate(["red", "green"]):
            pixels = np.asarray(Image.open(raw / "train" / f"{name}_{channel}.png"), dtype=float)
            means = pixels.reshape(8, 2, 8, 2).mean((1, 3))
            assert np.abs(part.images[row, index] - means).max() <= 0.5001


@pytest.mark.parametrize("side", [24, 20])
def test_area_averaging_where_blocks_are_whole_and_where_they_are_not(raw, side):
    pixels = noise(5, side)
    for channel in ("red", "green"):
        save(raw / "train" / f"a_{channel}.png", pixels)
    assert run(raw, settings(data=NAMES)) == 0
    _, part, _ = read(raw)
    # Each pixel divided so finely that both grids fit.
    fine = np.kron(pixels.astype(float), np.ones((8, 8)))
    wanted = fine.reshape(8, side, 8, side).mean((1, 3))
    assert np.abs(part.images[0] - wanted).max() <= 0.51


def test_percentile_intensity_spreads_each_channel(raw):
    ramp = np.linspace(100, 131, 64).round().astype(np.uint8).reshape(8, 8)
    save(raw / "train" / "a_red.png", ramp)
    save(raw / "train" / "a_green.png", np.full((8, 8), 77, dtype=np.uint8))
    assert run(raw, settings(data=NAMES, intensity="percentile")) == 0
    red, green = read(raw)[1].images[0].astype(int)
    assert (red.min(), red.max()) == (0, 255)
    np.testing.assert_allclose(red, (ramp - 100.0) * 255 / 31, atol=2)
    assert (green == 0).all()


def test_class_names_from_a_table_pieces_and_processes_change_nothing(raw, monkeypatch):
    assert run(raw, settings(data=NAMES)) == 0
    digest = read(raw)[0].digest
    (raw / "classes.csv").write_text("number,name\n0,Nucleus\n1,Cytosol\n")
    monkeypatch.setattr(chunks, "PIECE_BYTES", 3 * 2 * 8 * 8)
    for threads in (1, 2):
        given = settings(data={"no_label": "keep"}, threads=threads)
        assert run(raw, given, "--classes", str(raw / "classes.csv")) == 0
        assert read(raw)[0].digest == digest


def test_without_known_proteins_each_image_is_its_own_group(raw):
    assert run(raw, settings(data=NAMES)) == 0
    _, part, attrs = read(raw)
    assert len(set(part.groups)) == len(IDS)
    assert attrs["grouped_by"] == ""


def test_a_turned_copy_joins_the_group_of_its_source(raw):
    for channel in ("red", "green"):
        with Image.open(raw / "train" / f"a_{channel}.png") as picture:
            picture.rotate(90).save(raw / "train" / f"d_{channel}.png")
    assert run(raw, settings(data=NAMES, duplicates=0.95), *with_groups(raw)) == 0
    _, part, attrs = read(raw)
    assert list(part.groups) == ["G1|0"] * 4
    told = json.loads(attrs["duplicates"])
    assert told["pairs"] == 1
    assert told["examples"][0][:2] == ["a", "d"]


def test_labels_are_mapped(raw):
    (raw / "train.csv").write_text("Id,Target\na,0\nb,1\nc,0 1\nd,2\n")
    names = {"class_names": ["Nucleoplasm", "Nucleoli", "Cytosol"], "label_map": {"in": ["nucleoplasm", "Nucleoli"]}}
    assert run(raw, settings(data=names | {"unmapped": "drop", "emptied": "drop"})) == 0
    made, part, attrs = read(raw)
    assert (made.classes, list(part.ids)) == (["in"], ["a", "b", "c"])
    np.testing.assert_array_equal(part.labels, [[1], [1], [1]])
    assert "d,,no class left," in (raw / "out" / "left_out.csv").read_text()
    assert attrs["left_out"] == 1


def test_kaggle_2018_is_known_by_name(raw):
    for name in IDS:
        for channel in ("blue", "yellow"):
            save(raw / "train" / f"{name}_{channel}.png", noise(99))
    (raw / "train.csv").write_text("Id,Target\na,0 25\nb,27\nc,2\nd,23\n")
    channels = ["red", "green", "blue", "yellow"]
    assert run(raw, settings("kaggle2018", channels=channels)) == 0
    made, part, attrs = read(raw)
    assert len(made.classes) == 28
    assert [made.classes[k] for k in np.flatnonzero(part.labels[0])] == ["Nucleoplasm", "Cytosol"]
    assert "Kaggle 2018" in attrs["source"]
    assert attrs["grouped_by"] == ""
    # A joined table of antibodies makes groups.
    (raw / "groups.csv").write_text("Id,antibody\na,1\nb,1\nc,2\nd,3\n")
    assert run(raw, settings("kaggle2018", channels=channels), *with_groups(raw)) == 0
    assert list(read(raw)[1].groups) == ["1|0", "1|0", "2|2", "3|3"]


def test_a_column_that_the_config_names_must_be_there(raw, capsys):
    # Without a word images of one gene would stand on both sides of a split.
    asked = {"columns": {"gene": "Gene_name", "antibody": "antibody"}}
    assert run(raw, settings("kaggle2018", NAMES | asked), *with_groups(raw)) == 1
    said = capsys.readouterr().err
    assert "data.columns.gene = 'Gene_name': there is no such column: train.csv has Id, Target and groups" in said
    assert not (raw / "out" / "images.h5").exists()


@pytest.mark.parametrize("header", ["Id,Gene name,gene", "Id,gene,Gene name"])
def test_a_column_named_by_the_config_is_not_overwritten_by_another(raw, capsys, header):
    # a and b share the gene that the config names, c and d the other one.
    named, other = "XXYZ", "1233"
    if header.endswith("name"):
        named, other = other, named
    rows = [",".join(row) for row in zip(IDS, named, other, strict=True)]
    (raw / "groups.csv").write_text("\n".join([header, *rows]))
    given = settings("kaggle2018", NAMES | {"columns": {"gene": "Gene name"}})
    assert run(raw, given, *with_groups(raw)) == 0
    assert list(read(raw)[1].groups) == ["X|0", "X|0", "Y|2", "Z|3"]
    assert "column 'gene' of groups.csv is left out: another one is called 'gene' already" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["GeneName", "gene"])
def test_a_namesake_in_the_other_table_does_not_count(raw, capsys, named):
    (raw / "train.csv").write_text("Id,Target,gene\na,0,x\nb,1,x\nc,0 1,\nd,,y\n")
    (raw / "groups.csv").write_text("Id,GeneName\na,G1\nb,G2\nc,G2\nd,G4\n")
    given = settings("kaggle2018", NAMES | {"columns": {"gene": named}})
    assert run(raw, given, *with_groups(raw)) == 0
    wanted = {"GeneName": ["G1", "G2", "G2", "G4"], "gene": ["x", "x", "", "y"]}[named]
    with ImageSet(raw / "out" / "images.h5") as made:
        assert list(made.column("gene")) == wanted
    assert ("column 'gene' of train.csv is left out" in capsys.readouterr().err) == (named == "GeneName")


def test_a_table_of_groups_without_rows_groups_nothing_in_silence(raw, capsys):
    (raw / "groups.csv").write_text("Id,gene\n")
    assert run(raw, settings("kaggle2018", NAMES), *with_groups(raw)) == 1
    assert "Id without groups" in capsys.readouterr().err


def test_a_column_without_values_groups_nothing_in_silence(raw, capsys):
    (raw / "groups.csv").write_text("Id,gene\n" + "".join(f"{name},\n" for name in IDS))
    assert run(raw, settings("kaggle2018", NAMES | {"group_by": ["gene"]}), *with_groups(raw)) == 1
    assert "data.group_by names 'gene', a column without any value" in capsys.readouterr().err


def test_an_empty_column_does_not_hide_what_stands_in_the_ids(raw):
    for name in IDS:
        for channel in ("red", "green"):
            (raw / "train" / f"{name}_{channel}.png").rename(raw / "train" / f"G1_{name}_{channel}.png")
    (raw / "train.csv").write_text("Id,Target,gene\nG1_a,0,\nG1_b,1,G1\nG1_c,0,\nG1_d,1,G9\n")
    assert run(raw, settings("kaggle2018", NAMES | {"id_parts": "{gene}_{well}"})) == 0
    with ImageSet(raw / "out" / "images.h5") as made:
        assert list(made.column("gene")) == ["G1", "G1", "G1", "G9"]


def test_a_blank_may_separate_names(raw):
    (raw / "train.csv").write_text("Id,Target\na,nucleus\nb,nucleus  cytosol\nc,cytosol\nd,nucleus\n")
    assert run(raw, settings("folder", {"label_separator": " "})) == 0
    made, part, _ = read(raw)
    assert made.classes == ["cytosol", "nucleus"] and part.labels[1].tolist() == [1, 1]


def test_two_tables_may_have_a_column_in_common_where_they_agree(raw, capsys):
    (raw / "train.csv").write_text("Id,Target,gene\na,0,G1\nb,1,\nc,0 1,G3\nd,,G4\n")
    assert run(raw, settings("kaggle2018", NAMES), *with_groups(raw)) == 0
    with ImageSet(raw / "out" / "images.h5") as made:
        assert list(made.column("gene")) == ["G1", "G1", "G3", "G4"]
    (raw / "train.csv").write_text("Id,Target,gene\na,0,G1\nb,1,G2\nc,0 1,G3\nd,,G4\n")
    assert run(raw, settings("kaggle2018", NAMES), *with_groups(raw)) == 1
    assert "for Id 'b' they disagree ('G1', 'G2')" in capsys.readouterr().err


def test_spellings_of_a_class_are_one_class(raw):
    (raw / "train.csv").write_text("Id,Target\na,nucleus\nb,Nucleus\nc,cytosol|NUCLEUS\nd,nucleus\n")
    assert run(raw, settings("folder")) == 0
    made, part, _ = read(raw)
    assert made.classes == ["cytosol", "nucleus"]
    np.testing.assert_array_equal(part.labels, [[0, 1], [0, 1], [1, 1], [0, 1]])


def test_kaggle_2021_of_mixed_sizes_and_depths(raw):
    (raw / "train.csv").write_text("ID,Label\na,0|16\nb,18\nc,14\n")
    for channel in ("red", "green"):
        save(raw / "train" / f"b_{channel}.png", noise(1, 24))
        save(raw / "train" / f"c_{channel}.png", noise(2, 16).astype(np.uint16) * 257)
    assert run(raw, settings("kaggle2021")) == 0
    made, part, attrs = read(raw)
    assert len(made.classes) == 19
    assert [made.classes[k] for k in np.flatnonzero(part.labels[0])] == ["Nucleoplasm", "Cytosol"]
    means = noise(2, 16).reshape(8, 2, 8, 2).mean((1, 3))
    assert np.abs(part.images[2, 0] - means).max() <= 0.51
    assert "files of 1 Ids have no row" in attrs["notes"]


def test_the_public_atlas_with_its_ids_and_coloured_files(tmp_path):
    (tmp_path / "train").mkdir()
    ids = ["ENSG1_10_2_A1_1", "ENSG1_11_2_A1_2_cr5", "ENSG2_11_3_B2_1", "ENSG3_12_3_B2_1"]
    (tmp_path / "train.csv").write_text("Id,Target\n" + "".join(f"{name},{k}\n" for k, name in enumerate(ids)))
    picture = np.repeat(np.repeat(noise(0, 8), 8, 0), 8, 1)
    for name in ids:
        for channel, planes in {"red": [0], "green": [1], "blue": [2], "yellow": [0, 1]}.items():
            colour = np.zeros((64, 64, 3), np.uint8)
            colour[:, :, planes] = (picture if channel != "red" else picture.T)[:, :, None]
            Image.fromarray(colour).save(tmp_path / "train" / f"{name}_{channel}.jpg", quality=98, subsampling=0)
    assert run(tmp_path, settings("public", channels=["yellow", "red", "blue"], size=8)) == 0
    _, part, attrs = read(tmp_path)
    assert [name.split("|")[0] for name in part.groups] == ["ENSG1", "ENSG1", "ENSG1", "ENSG3"]
    assert attrs["grouped_by"] == "gene, antibody"
    with ImageSet(tmp_path / "out" / "images.h5") as made:
        assert list(made.column("well")) == ["A1", "A1", "B2", "B2"]
    assert np.abs(part.images[0].astype(int) - np.stack([noise(0, 8), noise(0, 8).T, noise(0, 8)])).max() <= 6


@pytest.mark.parametrize(
    "kind", ["npy", "npy, channels last", "tif", "ome.tif", "tif, several pages", "png", "16 bits", "float", "lzw"]
)
def test_one_file_with_all_channels(tmp_path, kind):
    (tmp_path / "train").mkdir()
    stack = np.stack([noise(seed, 8) for seed in range(3)])
    names, bits, suffix = ["dic", "gfp", "dapi"], None, kind.split(",")[0]
    path = tmp_path / "train" / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, stack if "last" not in kind else stack.transpose(1, 2, 0))
    elif kind == "ome.tif":
        # By name, whatever their order in the file.
        tifffile.imwrite(
            path, stack[[2, 0, 1]], photometric="minisblack",
            metadata={"axes": "CYX", "Channel": {"Name": ["dapi", "dic", "gfp"]}},
        )  # fmt: skip
    elif kind == "png":
        Image.fromarray(stack.transpose(1, 2, 0)).save(path)
    elif kind == "lzw":
        suffix, path = "tif", path.with_suffix(".tif")
        pages = [Image.fromarray(plane) for plane in stack]
        pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_lzw")
    else:
        suffix, path = "tif", path.with_suffix(".tif")
        values = {"16 bits": stack.astype(np.uint16) * 257, "float": stack.astype(np.float32) / 255}.get(kind, stack)
        with tifffile.TiffWriter(path) as writer:
            if "pages" in kind:
                for plane in values:
                    writer.write(plane, metadata=None, contiguous=False)
            else:
                writer.write(values, photometric="minisblack", compression="zlib")
    (tmp_path / "train.csv").write_text("Id,Target\nx,bud neck\n")
    described = {"files": "{id}." + suffix, "file_channels": names, "bits": bits}
    assert run(tmp_path, settings(data=described, channels=["gfp", "dic"])) == 0
    np.testing.assert_array_equal(read(tmp_path)[1].images[0], stack[[1, 0]])


def test_transparency_never_weighs_into_colour(tmp_path):
    (tmp_path / "train").mkdir()
    planes = np.stack([noise(seed) for seed in range(4)], axis=2)
    planes[:8, :, 3] = 0
    Image.fromarray(planes).save(tmp_path / "train" / "x.png")
    (tmp_path / "train.csv").write_text("Id,Target\nx,here\n")
    assert run(tmp_path, settings(data={"files": "{id}.png"}, channels=["a", "b", "c", "d"])) == 0
    means = planes.reshape(8, 2, 8, 2, 4).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(read(tmp_path)[1].images[0] - means).max() <= 0.51


def test_a_pixel_size_is_reached_around_the_centre(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train.csv").write_text("Id,Target,pixel_size\nx,here,0.1\ny,here,0.05\nz,here,\n")
    picture = np.repeat(np.repeat(noise(0, 10), 4, 0), 4, 1)  # 40 × 40 px
    for name, values in {"x": picture[:, 4:36], "y": np.repeat(np.repeat(picture, 2, 0), 2, 1), "z": picture}.items():
        save(tmp_path / "train" / f"{name}_gfp.png", values)
    assert run(tmp_path, settings(data={"pixel_size": 0.1}, channels=["gfp"], pixel_size=0.4)) == 0
    _, part, attrs = read(tmp_path)
    for image in part.images:
        np.testing.assert_array_equal(image[0], noise(0, 10)[1:9, 1:9])
    assert attrs["pixel_size"] == 0.4


def test_an_interrupted_run_goes_on_where_it_stopped(raw, monkeypatch):
    monkeypatch.setattr(chunks, "PIECE_BYTES", 2 * 8 * 8)
    assert run(raw, settings(data=NAMES)) == 0
    digest = read(raw)[0].digest
    reads, whole = [], read_image.Reader.look

    def dying(self, name, pixel_size=""):
        reads.append(name)
        if len(reads) == 3:
            raise KeyboardInterrupt
        return whole(self, name, pixel_size)

    (raw / "out" / "images.h5").unlink()
    monkeypatch.setattr(read_image.Reader, "look", dying)
    with pytest.raises(KeyboardInterrupt):
        run(raw, settings(data=NAMES))
    assert not (raw / "out" / "images.h5").exists()
    assert run(raw, settings(data=NAMES)) == 0
    assert reads == ["a", "b", "c", "c", "d"]
    assert read(raw)[0].digest == digest
    assert not (raw / "out" / ".images.h5.pieces").exists()


def test_a_mended_file_makes_its_piece_anew_and_no_other(raw, monkeypatch):
    monkeypatch.setattr(chunks, "PIECE_BYTES", 2 * 8 * 8)
    good = (raw / "train" / "b_red.png").read_bytes()
    (raw / "train" / "b_red.png").write_bytes(good[:60])
    assert run(raw, settings(data=NAMES)) == 1
    (raw / "train" / "b_red.png").write_bytes(good)
    # A piece that lost its end on a full disk or at a power cut.
    spoilt = raw / "out" / ".images.h5.pieces" / "000002.piece"
    spoilt.write_bytes(spoilt.read_bytes()[:-50])
    reads, whole = [], read_image.Reader.look
    monkeypatch.setattr(
        read_image.Reader, "look", lambda self, name, size="": reads.append(name) or whole(self, name, size)
    )
    assert run(raw, settings(data=NAMES)) == 0
    assert reads == ["b", "c"]
    assert not (raw / "log.bad_input.csv").exists()


def test_one_fault_is_enough_to_fail_and_keeps_the_old_set(raw, capsys):
    assert run(raw, settings(data=NAMES)) == 0
    before = (raw / "out" / "images.h5").read_bytes()
    (raw / "train" / "c_green.png").unlink()
    assert run(raw, settings(data=NAMES)) == 1
    assert "1 of 4 images cannot be used (1 × missing file)" in capsys.readouterr().err
    assert (raw / "out" / "images.h5").read_bytes() == before


def test_where_all_files_are_missing_it_says_what_the_folder_holds(raw, capsys):
    for policy in ("fail", "skip"):
        assert run(raw, settings("kaggle2018", NAMES | {"files": "{id}_{channel}.tif", "on_invalid": policy})) == 1
        said = capsys.readouterr().err
        assert "none of the 4 images has its files, such as 'a_red.tif'. The folder holds 8 .png files" in said
        assert "'a_green.png'; set data.files" in said and "on_invalid" not in said


def test_an_empty_folder_is_told(raw, capsys):
    for path in (raw / "train").iterdir():
        path.unlink()
    assert run(raw, settings("kaggle2018", NAMES)) == 1
    assert "holds no image file; files such as 'a_red.png' are looked for: set data.images" in capsys.readouterr().err


def test_what_the_tables_lack_is_told(raw, capsys):
    def fails(words, *more, **data):
        assert run(raw, settings(data=NAMES | data), *more) == 1
        shown = capsys.readouterr().err
        assert words in shown
        assert "Traceback" not in shown

    fails("data.group_by names 'gene', which is no column; there are: none", group_by=["gene"])
    fails("data.columns.labels = 'Label': there is no such column", columns={"labels": "Label"})
    fails("nothing gives their names", class_names=None)
    (raw / "groups.csv").write_text("Id,gene\na,G1\n")
    fails("3 of 4 images cannot be used (3 × Id without groups)", *with_groups(raw))


def test_a_column_name_cannot_break_the_set(raw):
    (raw / "train.csv").write_text("Id,Target,a/b,..\na,0,x,y\n")
    assert run(raw, settings(data=NAMES)) == 0
    with h5py.File(raw / "out" / "images.h5") as file:
        assert sorted(file["columns"]) == ["__", "a_b"]


def test_several_jobs_make_the_same_set_and_read_each_image_once(raw, monkeypatch):
    monkeypatch.setattr(chunks, "PIECE_BYTES", 2 * 8 * 8)
    assert run(raw, settings(data=NAMES)) == 0
    digest = read(raw)[0].digest
    (raw / "out" / "images.h5").unlink()
    common = ["--images-dir", str(raw / "train"), "--table", str(raw / "train.csv")]
    for shard in range(3):
        done = raw / "shards" / f"{shard}.json"
        flags = ["--set", str(raw / "out" / "images.h5"), "--shard", str(shard), "--shards", "3", "--out", str(done)]
        assert preprocess_shard.main([*common, *flags, "--settings", json.dumps(settings(data=NAMES))]) == 0
        assert json.loads(done.read_text())["images"] == (2 if shard == 0 else 1)
    reads, whole = [], read_image.Reader.look
    monkeypatch.setattr(
        read_image.Reader, "look", lambda self, name, size="": reads.append(name) or whole(self, name, size)
    )
    assert run(raw, settings(data=NAMES)) == 0
    assert reads == []
    assert read(raw)[0].digest == digest


def test_a_link_in_place_of_the_folder_of_pieces_is_not_followed(raw, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "000000.piece").write_bytes(b"precious")
    (raw / "out").mkdir()
    (raw / "out" / ".images.h5.pieces").symlink_to(elsewhere)
    assert run(raw, settings(data=NAMES)) == 1
    assert (elsewhere / "000000.piece").read_bytes() == b"precious" and len(list(elsewhere.iterdir())) == 1


@pytest.mark.parametrize("killed", ["append", "write", "place"])
def test_killed_while_the_set_is_finished_it_goes_on_without_reading(raw, monkeypatch, killed):
    """Everything is read and the set is written in part or as a whole, but not in place: the same set comes out. What
    SIGKILL leaves lying about is there too."""
    monkeypatch.setattr(chunks, "PIECE_BYTES", 2 * 8 * 8)
    assert run(raw, settings(data=NAMES)) == 0
    target = raw / "out" / "images.h5"
    digest, (images, last) = read(raw)[0].digest, (read(raw)[1].images, read(raw)[1].ids[-1])
    target.unlink()
    write = Inventory.write

    def half(self, file, attrs):
        write(self, file, attrs | {"more": "x" * 5000})
        raise KeyboardInterrupt

    def nothing(*_, **__):
        raise KeyboardInterrupt

    append = image_set_writer.ImageWriter.append

    def last_one_dies(self, images, labels, ids, *more):
        if last in ids:
            raise KeyboardInterrupt
        append(self, images, labels, ids, *more)

    with monkeypatch.context() as patched:
        patched.setattr(files, "_remove", lambda path: None)
        if killed == "append":
            patched.setattr(image_set_writer.ImageWriter, "append", last_one_dies)
        elif killed == "write":
            patched.setattr(Inventory, "write", half)
        else:
            patched.setattr(files, "put_in_place", nothing)
        with pytest.raises(KeyboardInterrupt):
            run(raw, settings(data=NAMES))
    assert not target.exists()
    monkeypatch.setattr(read_image.Reader, "look", lambda *_: pytest.fail("was read before"))
    assert run(raw, settings(data=NAMES)) == 0
    assert read(raw)[0].digest == digest
    np.testing.assert_array_equal(read(raw)[1].images, images)


def test_what_other_settings_left_is_cleared_away_and_never_taken(raw):
    (raw / "train" / "d_red.png").rename(raw / "d.hidden")
    assert run(raw, settings(data=NAMES)) == 1
    assert run(raw, settings(data=NAMES, intensity="percentile")) == 1
    (raw / "d.hidden").rename(raw / "train" / "d_red.png")
    assert run(raw, settings(data=NAMES)) == 0
    fixed = read(raw)[1].images
    assert run(raw, settings(data=NAMES, intensity="percentile")) == 0
    assert (read(raw)[1].images != fixed).any()


def test_a_set_may_be_left_with_no_images(raw):
    """The config says so: none of the labels is wanted."""
    wanted = {"label_map": {"Other": ["Nucleus"]}, "unmapped": "drop", "emptied": "drop"}
    (raw / "train.csv").write_text("Id,Target\na,1\nb,1\nc,1\nd,1\n")
    assert run(raw, settings(data=NAMES | wanted)) == 0
    with ImageSet(raw / "out" / "images.h5") as made:
        assert (len(made), made.classes, made.size) == (0, ["Other"], 8)


def test_a_job_without_a_share_and_a_table_without_a_usable_row(raw, capsys):
    given = settings(data=NAMES, threads=2)
    common = ["--images-dir", str(raw / "train"), "--table", str(raw / "train.csv"), "--settings", json.dumps(given)]
    flags = ["--set", str(raw / "out" / "images.h5"), "--shard", "5", "--shards", "8", "--out", str(raw / "5.json")]
    assert preprocess_shard.main([*common, *flags]) == 0
    assert json.loads((raw / "5.json").read_text())["images"] == 0
    (raw / "train.csv").write_text("Id,Target\na,7\nb,8\n")
    assert run(raw, given) == 1
    assert "2 of 2 images cannot be used" in capsys.readouterr().err


def test_images_that_cannot_be_used_leave_no_gaps(raw, monkeypatch):
    """In the middle of a piece, a whole piece, and the first of all: pixels, ids and labels stay together."""
    monkeypatch.setattr(chunks, "PIECE_BYTES", 2 * 2 * 8 * 8)
    assert run(raw, settings(data=NAMES)) == 0
    part = read(raw)[1]
    for bad in (["a"], ["b"], ["c", "d"], ["a", "c"], ["a", "b", "d"]):
        hidden = {name: (raw / "train" / f"{name}_red.png").rename(raw / f"{name}.hidden") for name in bad}
        assert run(raw, settings(data=NAMES | {"on_invalid": "skip", "invalid_limit": 0.9})) == 0
        kept = [name not in bad for name in part.ids]
        found = read(raw)[1]
        assert list(found.ids) == list(part.ids[kept])
        np.testing.assert_array_equal(found.images, part.images[kept])
        np.testing.assert_array_equal(found.labels, part.labels[kept])
        for name, path in hidden.items():
            path.rename(raw / "train" / f"{name}_red.png")


@pytest.fixture
def further(raw):
    """Four images in another folder: a turned copy of a, two of their own, and one that is labelled already."""
    (raw / "more").mkdir()
    for channel in ("red", "green"):
        with Image.open(raw / "train" / f"a_{channel}.png") as picture:
            picture.rotate(90).save(raw / "more" / f"copy_{channel}.png")
        for number, name in enumerate(("e", "f", "d")):
            save(raw / "more" / f"{name}_{channel}.png", noise(100 + 10 * number + len(channel)))
    (raw / "more.csv").write_text("Id,Target,gene\ncopy,0,G9\ne,1,G4\nf,0,G8\nd,1,G8\n")
    return raw


def test_further_images_come_last_without_labels_and_without_copies_of_labelled_ones(further):
    flags = ("--unlabelled-images", str(further / "more"), "--unlabelled-table", str(further / "more.csv"))
    assert run(further, settings(data=NAMES, duplicates=0.95), *with_groups(further), *flags) == 0
    made, part, attrs = read(further)
    assert list(part.ids) == [*IDS, "e", "f"] and made.further.tolist() == [False] * 4 + [True] * 2
    assert not part.labels[4:].any(), "the table has labels, and nobody read them"
    assert list(part.groups) == ["G1|0", "G1|0", "G1|0", "G4|3", "G4|3", "G8|5"], "e is a relative of d"
    assert (attrs["further"], attrs["further_duplicates"]) == (2, 1)
    left = (further / "out" / "left_out.csv").read_text()
    assert "copy,,near-duplicate" in left and "d,,labelled already" in left
    with ImageSet(further / "out" / "images.h5") as again:
        assert list(again.column("labelled")) == ["1"] * 4 + ["0"] * 2


def test_further_images_whose_protein_no_column_tells_are_told(further):
    assert run(further, settings(data=NAMES), *with_groups(further), "--unlabelled-images", str(further / "more")) == 0
    assert "of 3 of them no column (" in (further / "log.txt").read_text()
    with ImageSet(further / "out" / "images.h5") as made:
        assert made.kin_known().tolist() == [True] * 4 + [False] * 3


def test_the_table_of_groups_tells_the_proteins_of_further_images_too(further):
    table = further / "groups.csv"
    _, groups = with_groups(further)
    table.write_text(Path(groups).read_text().rstrip() + "\ne,G4\n")
    flags = ("--groups", str(table), "--unlabelled-images", str(further / "more"))
    assert run(further, settings(data=NAMES), *flags) == 0
    with ImageSet(further / "out" / "images.h5") as made:
        groups = dict(zip(made.ids, made.groups, strict=True))
        known = dict(zip(made.ids, made.kin_known(), strict=True))
    assert groups["e"] == groups["d"] != groups["f"]
    assert known["e"] and not known["f"], "one without a row is of no known protein"


def test_without_a_table_all_files_that_have_no_row_are_further_images(further, monkeypatch):
    flags = ("--unlabelled-images", str(further / "more"))
    assert run(further, settings(data=NAMES), *flags) == 0
    whole, part, attrs = read(further)
    assert list(part.ids) == [*IDS, "copy", "e", "f"] and attrs["further_duplicates"] == "", "not looked for"
    monkeypatch.setattr(chunks, "PIECE_BYTES", 2 * 2 * 8 * 8)
    args = [
        "--images-dir", str(further / "train"), "--table", str(further / "train.csv"), *flags,
        "--set", str(further / "out" / "images.h5"), "--out", str(further / "shard.json"),
        "--settings", json.dumps(settings(data=NAMES)), "--log", str(further / "log.txt"),
    ]  # fmt: skip
    for shard in range(2):
        assert preprocess_shard.main([*args, "--shard", str(shard), "--shards", "2"]) == 0
    assert run(further, settings(data=NAMES), *flags) == 0
    assert read(further)[0].digest == whole.digest, "the same in shards"
