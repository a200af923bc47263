"""Disk use by stage: every output has its part, and what deletes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workflow_scripts.lib.cost import disk_use

ROOT = Path(__file__).resolve().parents[2]
FOLD = "repeat0/fold1"


def part_of(folder: Path, name: str) -> disk_use.Part:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    [found] = [file.part for file in disk_use.files_of(folder) if file.path == path]
    return found


@pytest.mark.parametrize(
    ("name", "by"),
    [
        (f"{FOLD}/synthetic/painted.h5", "yes"),
        (f"{FOLD}/synthetic/painted.images.csv", "never"),
        (f"{FOLD}/generators/unet.resume.pt", "yes"),
        (f"{FOLD}/arms/pool/resume.pt", "yes"),
        (f"{FOLD}/generators/unet.safetensors", "all"),
        (f"{FOLD}/generators/unet.history.csv", "never"),
        (f"{FOLD}/arms/pool/predictions.h5", "all"),
        (f"{FOLD}/arms/job0.json", "all"),
        (f"{FOLD}/arms/.pool.host-1-2.part/classifier.safetensors", "yes"),
        ("simulated/train/a_red.png", "yes"),
        ("progress/generator_repeat0_fold0_unet.step000000012.npy", "yes"),
        ("progress.html", "never"),
        ("images.h5", "all"),
        ("images.embeddings.h5", "yes"),
        (f"{FOLD}/synthetic/painted.embeddings.h5", "yes"),
        ("declaration.json", "never"),
        ("declarations.jsonl", "never"),
        ("metrics.csv", "never"),
        ("report.html", "never"),
        ("tables/scores.csv", "never"),
        ("models/pool/weights/a.safetensors", "never"),
        ("notes.txt", "never"),
        ("my/arms.h5", "never"),
    ],
)
def test_what_deletes_a_file(tmp_path: Path, name: str, by: str) -> None:
    assert part_of(tmp_path, name).by == by


def test_every_output_of_a_rule_is_the_output_of_a_stage(tmp_path: Path) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk"))
    names = {re.sub(r"\{+[^}]*\}+", "0", name) for name in re.findall(r'"results/\{+run\}+/([^" ]+\.\w+)"', text)}
    assert len(names) > 40
    assert not [name for name in sorted(names) if part_of(tmp_path, name) is disk_use.FOREIGN]


def test_links_are_neither_counted_nor_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "images.h5").write_bytes(b"x")
    run = tmp_path / "run"
    (run / "repeat0").mkdir(parents=True)
    (run / "images.h5").symlink_to(elsewhere / "images.h5")
    (run / "repeat0" / "fold0").symlink_to(elsewhere)
    assert disk_use.files_of(run) == []
