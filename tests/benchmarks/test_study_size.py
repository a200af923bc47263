"""The workflow at the size of the reference study: its label table, and the whole program at toy size."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import study_labels, study_size
from tests.helpers import warm_python
from workflow_scripts.lib.images.label_maps import KAGGLE_2018


def test_labels_have_the_counts_and_the_co_occurrence_of_the_table():
    labels, protein = study_labels.drawn(60_000, 1, seed=1)
    expected = study_labels.COUNTS / study_labels.OF
    assert labels.shape[1] == len(KAGGLE_2018) == len(expected) and labels.any(0).all()
    # The mean number of labels was rounded on its own; rare classes vary by chance.
    common = expected > 0.02
    assert labels.mean(0)[common] == pytest.approx(expected[common], rel=0.12)
    golgi, centrosome, plasma, junctions, cytosol = (labels[:, number] for number in (7, 19, 21, 22, 25))
    # Golgi and plasma membrane avoid each other; a class without a compartment meets the others as chance has it.
    assert (golgi & plasma).mean() < 0.6 * golgi.mean() * plasma.mean()
    assert (centrosome & cytosol).mean() == pytest.approx(centrosome.mean() * cytosol.mean(), rel=0.35)
    assert (plasma & junctions).any()
    assert len(np.unique(protein)) == 60_000


def test_images_of_a_protein_share_their_labels(tmp_path):
    study_labels.write(tmp_path / "labels.csv", 300, 5, seed=2)
    with (tmp_path / "labels.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["Id"] for row in rows] == [f"i{number}" for number in range(300)]
    assert len({row["gene"] for row in rows}) == 60 == len({(row["gene"], row["Target"]) for row in rows})
    assert {number for row in rows for number in map(int, row["Target"].split())} == set(range(28))
    # A table from outside gives its rows; without proteins each image is a group.
    (tmp_path / "given.csv").write_text("Id,Target\na,3 0\nb,25\nc,1\n", encoding="utf-8")
    study_labels.copy(tmp_path / "copied.csv", 2, tmp_path / "given.csv")
    assert (tmp_path / "copied.csv").read_text(encoding="utf-8").split() == [
        "Id,Target,gene", "i0,3", "0,image0", "i1,25,image1",
    ]  # fmt: skip


@pytest.mark.workflow
def test_every_stage_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name, value in warm_python.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "executable", warm_python.python())
    words = (
        "--images 130 --images-a-protein 1 --generated 28 --size 32 --folds 1 --steps 2 --plan-repeats 2 --plan-folds 2"
    )
    out = tmp_path / "table.csv"
    cores = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
    status = study_size.main([*words.split(), "--cores", cores, "--folder", str(tmp_path / "here"), "--out", str(out)])
    said = capsys.readouterr()
    assert status == 0, said.err
    with out.open(encoding="utf-8") as handle:
        rows = {row["stage"]: row for row in csv.DictReader(handle)}
    jobs = {"preprocess_images": 1, "train_ddpm": 1, "sample_ddpm": 1, "train_classifier": 2, "report": 1}
    assert {stage: int(rows[stage]["jobs"]) for stage in jobs} == jobs
    assert all(int(row["memory"]) > 20 and float(row["longest"]) > 0 for row in rows.values() if row["jobs"] != "0")
    page = tmp_path / "here" / "results" / "study_size" / "report.html"
    assert int(rows["report"]["disk"]) >= page.stat().st_size
    assert int(rows["sample_ddpm"]["disk"]) >= 28 * 4 * 32 * 32 // 2
    assert "aim: under 10 MB: holds" in said.out and "planned:" in said.out and "wall-clock" in said.out
