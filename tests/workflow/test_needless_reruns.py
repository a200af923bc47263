"""What an edit of the config must not make again: text for the report, and the names of environments."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path

import pytest
import yaml

from tests.helpers.checkout import Checkout
from workflow_scripts.lib.config import stage_views
from workflow_scripts.lib.images import known_datasets
from workflow_scripts.lib.page.sections import data_section

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
TEXTS = {"origin": "our microscope", "release": "2", "licence": "CC0", "credit": "Ada & <Grace>"}


def config(**data: object) -> dict:
    """The default config with some keys of its `data` section changed."""
    return copy.deepcopy(DEFAULT) | {"data": DEFAULT["data"] | data}


@pytest.mark.parametrize("source", sorted(known_datasets.SOURCES))
def test_text_for_the_report_reaches_no_image_set(source: str) -> None:
    plain, told = config(source=source), config(source=source, **TEXTS)
    assert stage_views.reading(told) == stage_views.reading(plain)
    assert stage_views.reading(config(source="folder", bits=[8])) != stage_views.reading(config(source="folder"))


def test_the_page_tells_what_the_config_says_before_what_the_set_knows(world) -> None:
    read = data_section.read(world.images, [("0", world.folds)])
    read.attrs |= {"source": "a known set", "licence": "its own", "credit": "its makers"}
    shown, _ = data_section.describe(read, config(source="kaggle2018", licence="ours"), None, None)
    assert (shown["source"], shown["licence"], shown["credit"]) == ("a known set", "ours", "its makers")
    shown, _ = data_section.describe(read, config(source="folder", **TEXTS), None, None)
    assert [shown[name] for name in ("source", "release", "licence", "credit")] == list(TEXTS.values())
    # Simulated cells are what the run makes them.
    shown, _ = data_section.describe(read, config(source="simulated", **TEXTS), None, None)
    assert shown["licence"] == "its own"


@pytest.mark.workflow
def test_editing_text_or_environment_changes_the_page_alone(tmp_path: Path) -> None:
    checkout = Checkout.fresh(tmp_path / "checkout")
    (checkout.folder / "raw").mkdir()
    (checkout.folder / "raw.csv").write_text("Id,Target\na,Golgi\n", encoding="utf-8")
    base = {"source": "folder", "images": "raw", "table": "raw.csv"}
    before = commands(checkout, {"data": base})
    after = commands(checkout, {"data": base | TEXTS, "compute": {"environment": "mixloc-cuda"}})
    assert set(before) == set(after)
    assert {rule for rule in before if before[rule] != after[rule]} == {"report"}
    threads = commands(checkout, {"data": base, "compute": {"threads": 2}})
    assert before["train_ddpm"] != threads["train_ddpm"], "it must be able to see a difference"


def commands(checkout: Checkout, overlay: dict) -> dict[str, list[str]]:
    """The commands of each rule that a run of the tiny preset with these settings would execute."""
    (checkout.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    options = ("--dry-run", "--printshellcmds", "--configfile", "presets/ci.yaml", "overlay.yaml")
    found: dict[str, list[str]] = {}
    for line in checkout.snakemake(*options).stdout.splitlines():
        if named := re.search(r"python -m workflow_scripts\.(\w+) ", line):
            found.setdefault(named[1], []).append(line)
    return {rule: sorted(lines) for rule, lines in found.items()}


@pytest.mark.workflow
def test_another_number_format_computes_the_networks_again(finished: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "train_ddpm" not in finished.snakemake("-n").stdout
    other = "bfloat16" if os.environ.get("MIXLOC_DTYPE") == "float32" else "float32"
    monkeypatch.setenv("MIXLOC_DTYPE", other)
    planned = finished.snakemake("-n").stdout
    assert all(rule in planned for rule in ("train_ddpm", "sample_ddpm", "train_classifier"))
    assert "preprocess_images" not in planned
