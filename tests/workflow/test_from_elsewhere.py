"""Generators of a finished run in another one: planned by Snakemake, taken over by the stage, refused for a leak."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.helpers.checkout import Checkout, weights
from workflow_scripts import train_ddpm
from workflow_scripts.lib.generate import generator_file

pytestmark = pytest.mark.workflow


def planned(checkout: Checkout, path: str) -> dict[str, list[str]]:
    """The command line of train_ddpm for each output, in a run whose generators come from a finished one."""
    preset = yaml.safe_load((checkout.folder / "presets" / "ci.yaml").read_text(encoding="utf-8"))
    entries = [{"name": entry["name"], "from": path.format(entry["name"])} for entry in preset["generators"]]
    overlay = checkout.folder / "elsewhere.yaml"
    overlay.write_text(yaml.safe_dump({"run": "second", "generators": entries}), encoding="utf-8")
    done = checkout.snakemake("--dry-run", "--printshellcmds", "--configfile", "presets/ci.yaml", overlay.name)
    lines = [shlex.split(line) for line in re.findall(r"-m workflow_scripts\.train_ddpm (.*)", done.stdout)]
    return {line[line.index("--out") + 1]: line for line in lines}


def started(checkout: Checkout, line: list[str], out: Path) -> int:
    """The stage on the images and folds of the finished run, which are those that the second one would make."""
    given = [word.replace("results/second/", "results/ci/") for word in line]
    for flag in ("--out", "--history", "--log"):
        given[given.index(flag) + 1] = str(out.with_suffix({"--out": ".safetensors"}.get(flag, f".{flag[2:]}")))
    before = Path.cwd()
    os.chdir(checkout.folder)
    try:
        return train_ddpm.main(given)
    finally:
        os.chdir(before)


def test_generators_of_a_finished_run_serve_another_one_fold_by_fold(finished: Checkout, tmp_path: Path, capfd) -> None:
    lines = planned(finished, "results/ci/repeat{{repeat}}/fold{{fold}}/generators/{}.safetensors")
    assert len(lines) == 4
    line = lines["results/second/repeat0/fold1/generators/unet.safetensors"]
    origin = line[line.index("--origin") + 1]
    assert origin == "results/ci/repeat0/fold1/generators/unet.safetensors"
    assert "results/ci" not in line[line.index("--settings") + 1]
    assert started(finished, line, tmp_path / "unet") == 0
    theirs, ours = (generator_file.read(path) for path in (finished.folder / origin, tmp_path / "unet.safetensors"))
    assert weights(tmp_path / "unet.safetensors") == weights(finished.folder / origin)
    assert ours.access_record.to_json() == theirs.access_record.to_json() and ours.settings["steps"] == 0
    # That of another fold has seen proteins that are tested here.
    line[line.index("--origin") + 1] = origin.replace("fold1", "fold0")
    assert started(finished, line, tmp_path / "other") == 1
    told = capfd.readouterr().err
    assert re.search(r"generator unet comes from a file that was trained on \d+ groups .* in fold 1 here: SIM", told)
    assert not (tmp_path / "other.safetensors").exists()
