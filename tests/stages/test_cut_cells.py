"""cut_cells: whole fields become single cells with the labels and the group of their field."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.helpers import fields, image_folders
from workflow_scripts import cut_cells
from workflow_scripts.lib.images import known_datasets, whole_fields
from workflow_scripts.lib.images.image_set import ImageSet

ROOT = Path(__file__).resolve().parents[2]
CHANNELS = ["dna", "gfp"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return fields.folder(tmp_path)


def cut(raw: Path, cells: dict[str, Any] | None = None, threads: int = 1, *more: str, **own: Any) -> int:
    """The exit status of the stage; `own` goes to the section data."""
    data = image_folders.DEFAULT["data"] | {"source": "folder"} | own
    about = {
        "run": "yeast",
        "data": known_datasets.described(data),
        "cells": {"nucleus_channel": "dna"} | (cells or {}),
        "channels": CHANNELS,
        "size": 32,
        "pixel_size": None,
        "threads": threads,
    }
    table = () if "--like" in more else ("--table", str(raw / "fields.csv"))
    return cut_cells.main([
        "--images-dir", str(raw / "fields"), *table, "--out", str(raw / "cells"),
        "--template", str(ROOT / "workflow_scripts/lib/page/fields.html"), "--settings", json.dumps(about), *more,
    ])  # fmt: skip


def cut_new(raw: Path, new: Path, cells: dict[str, Any] | None = None, *more: str, **own: Any) -> int:
    """The exit status of the stage for new fields, whose cells go to `new / "cells"`."""
    given = ("--images-dir", str(new / "fields"), "--out", str(new / "cells"), "--like", str(raw / "cells/about.json"))
    return cut(raw, cells, 1, *given, *more, **own)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def content(raw: Path) -> dict[str, bytes]:
    """All files that the stage has written."""
    return {path.name: path.read_bytes() for path in (raw / "cells").rglob("*") if path.is_file()}


def test_cells_have_the_pixels_and_the_row_of_their_field(raw, capsys):
    assert cut(raw) == 0
    said = capsys.readouterr().err
    assert "15 cells of 3 fields" in said and "left out: 3 × touches the border" in said
    table = rows(raw / "cells" / "table.csv")
    assert len(table) == 15 and list(table[0]) == ["Id", "Target", "gene", "plate", "cut_from"]
    assert {(row["cut_from"], row["Target"], row["gene"]) for row in table} == {
        ("f0", "nucleus", "G0"), ("f1", "bud", "G1"), ("f2", "nucleus", "G2"),
    }  # fmt: skip
    places = [row for row in rows(raw / "cells" / "nuclei.csv") if row["verdict"] == "kept"]
    assert [row["cell"] for row in places] == [row["Id"] for row in table]
    with tifffile.TiffFile(raw / "cells" / "images" / f"{table[0]['Id']}.ome.tif") as file:
        pixels = file.asarray()
    side, (row, column) = pixels.shape[1], (float(places[0][name]) for name in ("row", "column"))
    assert pixels.dtype == np.uint16 and 50 <= side <= 70
    top, left = round(row - (side - 1) / 2), round(column - (side - 1) / 2)
    for plane, channel in zip(pixels, CHANNELS, strict=True):
        whole = np.asarray(Image.open(raw / "fields" / f"f0_{channel}.png"))
        assert (plane == whole[top : top + side, left : left + side]).all()
    page = (raw / "cells" / "index.html").read_text()
    assert page.count("data:image/jpeg") == 3 and page.count("data:image/png") == 3 and "15 cells" in page
    assert not (raw / ".cells.fields").exists()


@pytest.mark.parametrize(
    ("data", "groups"), [({}, 3), ({"group_by": []}, 3), ({"group_by": ["plate"]}, 2), ({"group_by": ["gene"]}, 3)]
)
def test_preprocessing_reads_them_and_never_parts_a_field(raw, data, groups):
    cut(raw, {"size": 40})
    about = known_datasets.described_cells(
        image_folders.DEFAULT["data"] | {"source": "folder", "cells": {"nucleus_channel": "dna"}} | data
    )
    shutil.move(raw / "cells" / "images", raw / "train")
    shutil.move(raw / "cells" / "table.csv", raw / "train.csv")
    given = image_folders.settings(channels=CHANNELS, size=32) | {"data": about}
    assert image_folders.run(raw, given) == 0
    with ImageSet(raw / "out" / "images.h5") as made:
        assert len(made) == 15 and made.channels == CHANNELS and made.classes == ["bud", "nucleus"]
        assert len(set(made.groups)) == groups


def test_a_table_of_groups_gets_a_row_for_each_cell(raw):
    (raw / "groups.csv").write_text("Id,well\nf0,P1\nf1,P1\nf2,P2\n")
    assert cut(raw, None, 1, "--groups", str(raw / "groups.csv")) == 0
    table, groups = rows(raw / "cells" / "table.csv"), rows(raw / "cells" / "groups.csv")
    assert [row["Id"] for row in table] == [row["Id"] for row in groups]
    assert [row["well"] for row in groups] == ["P1"] * 10 + ["P2"] * 5


def test_an_interrupted_run_goes_on_and_another_number_of_processes_cuts_the_same(raw, monkeypatch):
    make, asked = whole_fields.make, []

    def breaks(task: whole_fields.Task) -> whole_fields.Cells:
        asked.append(task.id)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return make(task)

    with monkeypatch.context() as patch:
        patch.setattr(whole_fields, "make", breaks)
        with pytest.raises(KeyboardInterrupt):
            cut(raw)
    assert not (raw / "cells").exists() and len(list((raw / ".cells.fields" / "records").iterdir())) == 2
    found, read = whole_fields._found, []
    with monkeypatch.context() as patch:
        patch.setattr(whole_fields, "_found", lambda task, channels: (read.append(task.id), found(task, channels))[1])
        assert cut(raw) == 0 and read == ["f2"]
    resumed = content(raw)
    assert cut(raw, None, 2) == 0 and content(raw) == resumed


def test_cells_that_another_way_of_cutting_has_written_over_are_cut_again(raw, monkeypatch):
    assert cut(raw) == 0
    whole, make, write = content(raw), whole_fields.make, whole_fields._write

    def stopped(*given: Any) -> None:
        """Writes one cell or field, and is killed."""
        (write if len(given) == 3 else make)(*given)
        raise KeyboardInterrupt

    for name, cells in (("make", None), ("_write", {"smallest": 2})):
        with monkeypatch.context() as patch:
            patch.setattr(whole_fields, name, stopped)
            patch.setattr(whole_fields, "square", lambda *given: np.zeros((2, 40, 40), np.uint8)) if cells else None
            with pytest.raises(KeyboardInterrupt):
                cut(raw, cells)
    assert cut(raw) == 0 and content(raw) == whole


def test_masks_of_the_user_take_the_place_of_what_is_found(raw):
    for number in range(3):
        mask = fields.labels()
        mask[mask == 2 + number] = 0
        Image.fromarray(mask.astype(np.uint16)).save(raw / "fields" / f"f{number}_mask.png")
    assert cut(raw, {"nucleus_channel": None, "masks": "{id}_mask.png", "size": 41}) == 0
    table = rows(raw / "cells" / "table.csv")
    assert [row["Id"] for row in table if row["cut_from"] == "f1"] == ["f1_c001", "f1_c002", "f1_c004", "f1_c005"]


def test_masks_in_black_and_white_are_refused(raw, capsys):
    for number in range(3):
        mask = np.where(fields.labels() > 0, 255, 0).astype(np.uint8)
        Image.fromarray(mask).save(raw / "fields" / f"f{number}_mask.png")
    assert cut(raw, {"nucleus_channel": None, "masks": "{id}_mask.png", "size": 41}) == 1
    said = capsys.readouterr().err
    assert "3 of 3 images cannot be used (3 × mask)" in said and "one value for several nuclei" in said
    assert cut(raw, {"nucleus_channel": None, "masks": "{id}_mask.png"}) == 1
    assert "mask of field 'f0': has one value for several nuclei" in capsys.readouterr().err


def test_a_field_without_nuclei_stops_the_run_or_is_left_out(raw, capsys):
    for channel in CHANNELS:
        Image.fromarray(np.full((200, 300), 500, np.uint16)).save(raw / "fields" / f"f1_{channel}.png")
    assert cut(raw) == 1
    said = capsys.readouterr().err
    assert "1 of 3 images cannot be used (1 × no nuclei). Mend them, or leave them out by data.on_invalid: skip" in said
    assert "shows no nucleus: look at its channel 'dna', or set data.cells.diameter" in said
    assert cut(raw, on_invalid="skip", invalid_limit=0.5) == 0
    assert [row["Id"] for row in rows(raw / "cells" / "left_out.csv")] == ["f1"]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"nucleus_channel": "gfp", "diameter": 300}, "3 of 3 images cannot be used (3 × no nuclei)"),
        ({"size": 250}, "no cell is left of 3 fields"),
        ({"size": 20}, "cells of 20 px a side are smaller than preprocess_images.size = 32: set data.cells.size"),
        ({"unit": "um"}, "the size of a pixel is not known: set data.pixel_size"),
        ({"masks": "{id}_mask.png"}, "the masks of 3 fields such as 'f0' show no nucleus: set data.cells.masks"),
    ],
)
def test_what_cannot_be_cut_is_told_in_a_line(raw, capsys, cells, message):
    assert cut(raw, cells) == 1
    assert f"cut_cells failed: {message}" in capsys.readouterr().err
    assert not (raw / "cells").exists()


def test_where_nothing_looks_like_a_nucleus_it_says_which_setting_to_change(raw, capsys):
    for path in (raw / "fields").iterdir():
        Image.fromarray(np.full((200, 300), 500, np.uint16)).save(path)
    assert cut(raw) == 1
    assert "no nuclei found in the channel 'dna' of 3 fields such as 'f0': set data.cells.nucleus_channel" in (
        capsys.readouterr().err
    )


def test_where_all_files_are_missing_it_says_what_the_folder_holds(raw, capsys):
    assert cut(raw, files="{id}.tif") == 1
    assert "none of the 3 images has its files, such as 'f0.tif'. The folder holds 6 .png files" in (
        capsys.readouterr().err
    )


def test_lengths_in_micrometres_are_those_in_pixels(raw):
    assert cut(raw, {"size": 45, "diameter": 24, "smallest": 300}) == 0
    first = content(raw)
    assert cut(raw, {"unit": "um", "size": 9, "diameter": 4.8, "smallest": 12}, pixel_size=0.2) == 0
    assert content(raw) == first


def test_new_fields_need_no_table_and_are_cut_as_those_of_the_run(raw, tmp_path, capsys):
    assert cut(raw) == 0
    side = _side(raw / "cells")
    new = tmp_path / "new"
    (new / "fields").mkdir(parents=True)
    places = ((70, 70), (70, 200))
    for name in CHANNELS:  # nuclei of twice the area: cells of the run show as much around them
        field = fields.lit(fields.labels(radius=17, places=places), 9)
        Image.fromarray(field).save(new / "fields" / f"n0_{name}.png")
    assert cut_new(raw, new) == 0
    capsys.readouterr()
    assert _side(new / "cells") == side
    assert rows(new / "cells" / "table.csv") == [
        {"Id": f"n0_c00{number}", "cut_from": "n0"} for number in (1, 2)
    ]  # fmt: skip
    assert (new / "cells" / "about.json").read_bytes() == (raw / "cells" / "about.json").read_bytes()
    table = new / "fields.csv"
    table.write_text("Id,gene\nn0,X\n")
    assert cut_new(raw, new, None, "--table", str(table)) == 0
    assert [list(row.values()) for row in rows(new / "cells" / "table.csv")] == [
        [f"n0_c00{number}", "X", "n0"] for number in (1, 2)
    ]  # fmt: skip
    capsys.readouterr()
    assert cut_new(raw, new, pixel_size=0.2) == 1
    assert "measured in px, these in µm" in capsys.readouterr().err


def test_masks_beside_new_fields_are_no_fields(raw, tmp_path):
    for folder in (raw, tmp_path / "new"):
        if folder != raw:
            fields.folder(folder, 1)
        for number in range(3 if folder == raw else 1):
            mask = fields.labels().astype(np.uint16)
            Image.fromarray(mask).save(folder / "fields" / f"f{number}_mask_dna.png")
            Image.fromarray(mask).save(folder / "fields" / f"f{number}_mask_gfp.png")
    masks = {"masks": "{id}_mask_dna.png"}
    assert cut(raw, masks) == 0
    assert cut_new(raw, tmp_path / "new", masks) == 0
    assert {row["cut_from"] for row in rows(tmp_path / "new" / "cells" / "table.csv")} == {"f0"}


def test_a_table_is_needed_for_fields_with_labels(raw, capsys):
    with pytest.raises(SystemExit):
        cut_cells.main(["--images-dir", str(raw), "--out", str(raw / "x"), "--template", "t", "--settings", "{}"])
    assert "--table is needed" in capsys.readouterr().err


def _side(folder: Path) -> int:
    with tifffile.TiffFile(next((folder / "images").iterdir())) as file:
        return file.asarray().shape[-1]
