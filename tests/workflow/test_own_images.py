"""The README's example of one's own images, run as it stands there."""

import csv
import re
from pathlib import Path

import pytest
import yaml

from tests.helpers import fields
from tests.helpers.checkout import Checkout
from tests.helpers.image_folders import noise, save
from workflow_scripts.lib.images.image_set import ImageSet

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.workflow
def test_yeast_of_two_channels_needs_six_lines_and_no_code(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(# yeast\.yaml\n.*?)```", text, re.DOTALL)[1]
    assert len(example.splitlines()) <= 6
    named = yaml.safe_load(example)
    checkout = Checkout.fresh(tmp_path / "checkout")
    (checkout.folder / "yeast.yaml").write_text(example)
    folder = checkout.folder / named["data"]["images"]
    folder.mkdir(parents=True)
    rows = ["Id,Target,gene"]
    for number in range(64):
        for channel in named["preprocess_images"]["channels"]:
            save(folder / f"p{number:02d}_{channel}.png", noise(number + ord(channel[0]), 32))
        rows.append(f"p{number:02d},{('nucleus', 'bud neck', 'nucleus|bud neck')[number % 3]},G{number // 2}")
    (checkout.folder / named["data"]["table"]).write_text("\n".join(rows))
    done = checkout.snakemake("check", "--configfile", "yeast.yaml")
    assert "ok   groups: 32 by gene" in done.stdout
    assert "shown green" in (checkout.folder / "results" / named["run"] / "check.html").read_text(encoding="utf-8")
    asked = ("--configfile", "yeast.yaml", "--config", "analysis={minimum_positive_groups: 30}")
    done = checkout.snakemake("check", *asked, check=False)
    assert done.returncode != 0 and "check_images failed: no class has 30 positive test groups" in done.stdout
    goals = [f"results/{named['run']}/{goal}" for goal in ("images.h5", "repeat0/folds.csv")]
    done = checkout.snakemake("--configfile", "yeast.yaml", "--", *goals)
    assert "2 of 2 steps (100%) done" in done.stdout
    with ImageSet(checkout.folder / goals[0]) as made:
        assert made.channels == ["dic", "gfp"]
        assert made.classes == ["bud neck", "nucleus"]
        assert len(set(made.groups)) == 32
        assert made.attrs["grouped_by"] == "gene"


@pytest.mark.workflow
def test_whole_fields_are_cut_before_anything_else_reads_them(tmp_path):
    checkout = Checkout.fresh(tmp_path / "checkout")
    fields.folder(checkout.folder / "raw", 2)
    config = {
        "run": "fields",
        "data": {
            "source": "folder",
            "images": "raw/fields",
            "table": "raw/fields.csv",
            "cells": {"nucleus_channel": "dna"},
        },
        "preprocess_images": {"channels": ["dna", "gfp"], "duplicates": 0},
        "report": {"demonstration": False, "panels": {"protein_channel": "gfp"}},
    }
    (checkout.folder / "fields.yaml").write_text(yaml.safe_dump(config))
    done = checkout.snakemake(
        "--configfile", "fields.yaml", "--", "results/fields/images.h5", "results/fields/cost.json"
    )
    assert "10 cells of 2 fields" in done.stdout and "3 of 3 steps (100%) done" in done.stdout
    with ImageSet(checkout.folder / "results" / "fields" / "images.h5") as made:
        assert len(made) == 10 and len(set(made.groups)) == 2
        assert made.attrs["grouped_by"] == "gene, cut_from"
    new = fields.folder(checkout.folder / "new", 1) / "fields"
    asked = ("--configfile", "fields.yaml", "--config", "predict={images: new/fields, name: late}", "--")
    planned = checkout.snakemake("-n", "-p", *asked, "predict").stdout
    command = re.search(r"^Shell command: .*workflow_scripts\.predict_images.*$", planned, re.MULTILINE)[0]
    cells = "results/fields/new_cells/late"
    assert (
        f"--images-dir {cells}/images --table {cells}/table.csv --left-out {cells}/left_out.csv --out" in command
        and new.is_dir()
    )
    checkout.snakemake(*asked, f"{cells}/table.csv")
    with (checkout.folder / cells / "table.csv").open() as handle:
        assert [(row["Id"], row["cut_from"]) for row in csv.DictReader(handle)] == [
            (f"f0_c00{number}", "f0") for number in range(2, 7)
        ]
