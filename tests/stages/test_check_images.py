"""check_images: what stands in the tables and files is understood, doubted or refused, on a page and in lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.helpers.image_folders import DEFAULT, noise, save, settings
from workflow_scripts import check_images

ROOT = Path(__file__).resolve().parents[2]
COST = {"problem": None, "wall_clock": [60, 90, 120], "unknown": [], "cores": 2, "disk": {"total": 2e8}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty groups of two images in two channels; two classes, each on a plate of its own."""
    images = tmp_path / "images"
    images.mkdir()
    rows = ["Id;Target;well;plate"]
    for number in range(80):
        group = number // 2
        for channel in ("dic", "gfp"):
            save(images / f"p{number}_{channel}.png", noise(2 * number + (channel == "gfp")))
        rows.append(f"p{number};{('nucleus', 'bud <b>neck</b>')[group % 2]};W{group};{group % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    (tmp_path / "cost.json").write_text(json.dumps(COST))
    return tmp_path


def check(
    folder: Path,
    folds: dict[str, Any] | None = None,
    known: list[str] | None = None,
    reading: dict[str, Any] | None = None,
    **data: Any,
) -> tuple[int, str]:
    """The exit status and the page; `known`: classes that a generator from elsewhere knows."""
    own = {"channels": ["dic", "gfp"], "duplicates": 0.95} | (reading or {})
    reading = settings(data={"group_by": ["well"]} | data, **own)
    about = {
        "run": "yeast",
        "seed": 1,
        "preprocess_images": reading,
        "make_folds": {name: value for name, value in DEFAULT["make_folds"].items() if name != "repeats"}
        | (folds or {}),
        "repeats": 2,
        "minimum_positive_groups": 5,
        "generators": ["unet"],
        "known_classes": {"theirs": known} if known else {},
        "colours": {"dic": "#804000"},
        "intensity_column": "plate",
    }
    status = check_images.main([
        "--images-dir", str(folder / "images"), "--table", str(folder / "labels.csv"),
        "--cost", str(folder / "cost.json"), "--template", str(ROOT / "workflow_scripts/lib/page/check.html"),
        "--page", str(folder / "check.html"), "--out", str(folder / "check.json"), "--settings", json.dumps(about),
    ])  # fmt: skip
    page = folder / "check.html"
    return status, page.read_text(encoding="utf-8") if page.exists() else ""


def test_the_page_says_what_was_understood_and_what_is_doubtful(folder, capsys):
    status, page = check(folder)
    said = capsys.readouterr().err
    assert status == 0 and "This run can start" in page
    assert "ok   images: 80 of 80 can be used; files of 16 × 16 pixels; 80 were read" in said
    assert "ok   groups: 40 by well; the largest has 2 images" in said
    assert "ok   classes: 2 of 2 can be judged" in said
    assert "?    columns: goes with the labels: plate (Cramér's V 1.00)" in said
    assert "?    generators:" in said and "train images for unet: with fewer than 1,000" in said
    assert "ok   cost: 1 min 30 s (1 min 00 s to 2 min 00 s) on 2 cores, 0.2 GB of disk" in said
    assert "groups: images that share a value stay together" in page
    assert "gfp, shown green" in page and "dic, shown #804000" in page, "by name; by the config"
    assert '<em style="color:#00ff00">gfp</em>' in page and " px · " in page, "legend and scale bar"
    assert page.count("data:image/png;base64,") == 4, "two channels, two classes"
    assert "bud &lt;b&gt;neck&lt;/b&gt;" in page and "<b>neck" not in page
    assert {entry["level"] for entry in json.loads((folder / "check.json").read_text())["findings"]} == {
        "good", "doubt",
    }  # fmt: skip


def test_copies_of_another_wells_image_are_shown_and_join_their_groups(folder, capsys):
    for channel in ("dic", "gfp"):
        turned = np.rot90(noise(2 * 10 + (channel == "gfp")))
        save(folder / "images" / f"p31_{channel}.png", turned)
    status, page = check(folder)
    assert status == 0
    assert "near-duplicates: 1 pair among the 80 images" in capsys.readouterr().err
    assert "40 groups become 39, the largest of 4 images" in page and "p10 and p31: 1.000" in page
    assert "Groups that near-duplicates join" in page


def test_a_run_that_could_not_be_judged_fails_in_one_line_and_leaves_the_page(folder, capsys):
    fractions = DEFAULT["make_folds"]["fractions"] | {"test": 0.1}
    status, page = check(folder, {"fractions": fractions})
    said = capsys.readouterr().err
    assert status == 1 and "check_images failed: no class has 5 positive test groups" in said
    assert "could not be judged" in page and "One of these would do: make_folds." in page
    assert not (folder / "check.json").exists()


def test_images_that_cannot_be_used_stop_it_unless_they_are_left_out(folder, capsys):
    (folder / "images" / "p3_gfp.png").unlink()
    status, page = check(folder)
    assert status == 1 and "1 of 80 images cannot be used (1 × missing file)" in capsys.readouterr().err
    assert "p3_gfp.png" in page
    assert check(folder, on_invalid="skip")[0] == 0


def test_where_all_files_are_missing_it_says_what_the_folder_holds(folder, capsys):
    status, page = check(folder, files="{id}_{channel}.tif")
    told = "none of the 80 images has its files, such as 'p0_dic.tif'. The folder holds 160 .png files, such as"
    assert status == 1 and f"check_images failed: {told} 'p0_dic.png'; set data.files" in capsys.readouterr().err
    assert "The folder holds 160 .png files" in page


def test_a_column_that_is_not_there_is_named_with_those_that_are(folder, capsys):
    status, _ = check(folder, {"stratify_by": "cell_line"})
    assert status == 1 and "make_folds.stratify_by = 'cell_line' is no column; there are: plate, well" in (
        capsys.readouterr().err
    )


def test_without_groups_it_says_so(folder, capsys):
    check(folder, group_by=None)
    assert "no column says which images belong together" in capsys.readouterr().err


def test_classes_that_a_generator_from_elsewhere_does_not_know_are_named(folder, capsys):
    assert check(folder, known=["nucleus", "bud <b>neck</b>", "cytosol"])[0] == 0
    status, _ = check(folder, known=["nucleus", "cytosol"])
    assert status == 1
    assert "theirs comes from a file that does not know the class 'bud <b>neck</b>'" in capsys.readouterr().err


def test_missing_channels_are_counted_by_class_and_compared_with_the_labels(folder, capsys):
    for number in range(0, 80, 4):  # every second group, all of the class nucleus
        (folder / "images" / f"p{number}_gfp.png").unlink()
        (folder / "images" / f"p{number + 1}_gfp.png").unlink()
    assert check(folder)[0] == 1
    assert "40 of 80 images cannot be used (40 × missing file)" in capsys.readouterr().err
    status, page = check(folder, missing_channel="zero")
    assert status == 0
    assert "40 of 80 images lack a channel (gfp in 40); these are filled with zeros" in page
    assert "missing_channels (Cramér&#39;s V" in page and "Images that lack a channel, by class" in page
    status, page = check(folder, missing_channel="drop_image")
    assert status == 0 and "40 images lack one and are left out" in page


def test_intensities_by_plate_stand_on_the_page(folder):
    status, page = check(folder)
    assert status == 0
    assert "Pixels by intensity, before (left, logarithmic, on the scale of 16 bits) and after" in page
    assert page.count("<svg") == 1 and "gfp, before" in page and "gfp, after" in page


def test_intensities_are_normalised_by_the_train_part_as_in_a_run(folder):
    status, page = check(folder, reading={"intensity": "train_part"})
    assert status == 0 and "gfp, before" in page and "gfp, after" in page


def test_floats_above_one_are_read_as_the_run_reads_them(folder):
    for number in range(80):
        for channel in ("dic", "gfp"):
            values = noise(2 * number + (channel == "gfp")).astype(np.float32) * 16
            tifffile.imwrite(folder / "images" / f"p{number}_{channel}.tif", values)
    status, page = check(folder, files="{id}_{channel}.tif", reading={"intensity": "percentile"})
    assert status == 0 and "gfp, before" in page
