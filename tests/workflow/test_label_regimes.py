"""Label regimes through the command line: what is labelled, who reads what, and a leak that is planted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from tests.helpers.checkout import ROOT, Checkout, weights
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import Regime
from workflow_scripts.lib.split.roles import Role

pytestmark = pytest.mark.workflow

FEW = {"name": "few", "labelled": 0.45, "unlabelled": "seen", "selection": "same"}
PRESET = yaml.safe_load((ROOT / "presets" / "ci.yaml").read_text(encoding="utf-8"))
UNET, SET = PRESET["generators"][0], PRESET["synthetic_sets"][0]
PSEUDO = UNET | {"name": "pseudo", "regime": "few", "sees": "pseudo_labelled", "steps": 10}
LINES = SET | {"name": "lines", "generator": "lines", "columns": "uniform"}
OVERLAY = {
    "regimes": [{"name": "all", "labelled": 1, "unlabelled": "unused", "selection": "same"}, FEW],
    "generators": [
        UNET,
        UNET | {"name": "lines", "condition_on": ["cell_line"], "steps": 20},
        PSEUDO,
        PSEUDO | {"name": "second", "steps": 20, "pseudo_labels_from": "pool_pseudo"},
    ],
    "synthetic_sets": [SET, LINES, *(SET | {"name": name, "generator": name} for name in ("pseudo", "second"))],
    "arms": [
        {"name": "real_only", "method": "real_only"},
        {"name": "real_few", "method": "real_only", "regime": "few"},
        {"name": "pool_lines", "method": "pool", "synthetic_set": "lines", "control": "lines_real"},
        {"name": "lines_real", "method": "reweight", "column": "cell_line"},
        {"name": "pool_few", "method": "pool", "regime": "few", "synthetic_set": "as_train", "control": "pseudo_few"},
        {"name": "pool_pseudo", "method": "pool", "regime": "few", "synthetic_set": "pseudo"},
        {"name": "pseudo_few", "method": "pseudo_label", "regime": "few", "synthetic_set": "as_train"},
        {"name": "distill_few", "method": "distill", "regime": "few", "synthetic_set": "pseudo"},
        {"name": "fill_few", "method": "feature_fill", "regime": "few", "control": "smote_few"},
        {"name": "smote_few", "method": "feature_smote", "regime": "few"},
        {"name": "ssl_mixed", "method": "ssl_pretrain_mixed", "regime": "few", "synthetic_set": "pseudo"},
        {"name": "encoder_few", "method": "generator_features", "regime": "few", "generator": "pseudo"},
        {
            "name": "asked_few",
            "method": "generator_average",
            "regime": "few",
            "generator": "pseudo",
            "control": "twice_few",
        },
        {"name": "twice_few", "method": "two_baselines", "regime": "few"},
        {"name": "pool_second", "method": "pool", "regime": "few", "synthetic_set": "second", "control": "taught_few"},
        {"name": "taught_few", "method": "pseudo_label", "regime": "few", "pseudo_labels_from": "pool_pseudo"},
    ],
    "analysis": {"primary_arm": "pool_few"},
}


@pytest.fixture(scope="module")
def run(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, tuple[str, ...]]:
    """The finished run with regimes added, as far as the certificate, and the options that add them."""
    folder = tmp_path_factory.mktemp("regimes")
    (folder / "regimes.yaml").write_text(yaml.safe_dump(OVERLAY), encoding="utf-8")
    options = ("--configfile", "presets/ci.yaml", str(folder / "regimes.yaml"))
    made = finished.clone(folder / "checkout")
    made.snakemake("results/ci/leaks.csv", *options)
    return made, options


def labelled(run: Path, arm: str, fold: int) -> set[int]:
    """Rows that a classifier itself was fitted on with their labels."""
    with h5py.File(run / f"repeat0/fold{fold}/arms/{arm}/predictions.h5") as file:
        record = AccessRecord.from_json(file.attrs["access_record"])
    accesses = [access for access in record.accesses() if access.purpose == "fit" and access.labels]
    return {int(row) for access in accesses if access.regime is None for row in access.rows}


def test_arms_have_the_labels_of_their_regime_and_regimes_are_nested(run: tuple[Checkout, tuple[str, ...]]) -> None:
    folder = run[0].run
    with ImageSet(folder / "images.h5") as source:
        ids, groups = source.ids, source.groups
    for fold in (0, 1):
        roles = role_table.read(folder / "repeat0/folds.csv", fold, ids, Regime(**FEW))
        train = np.flatnonzero(roles == Role.TRAIN)
        whole = role_table.rows(folder / "repeat0/folds.csv", fold, ids, Role.TRAIN)
        assert len(set(groups[train])) == int(FEW["labelled"] * len(set(groups[whole])) + 1e-9)
        assert labelled(folder, "real_only", fold) == set(whole) > set(train)
        for arm in (entry["name"] for entry in OVERLAY["arms"] if "regime" in entry):
            assert labelled(folder, arm, fold) == set(train), arm


def test_what_has_all_labels_is_as_it_was_without_regimes(
    run: tuple[Checkout, tuple[str, ...]], finished: Checkout
) -> None:
    for fold in (0, 1):
        own = json.loads((run[0].run / f"repeat0/fold{fold}/arms/job0.json").read_text(encoding="utf-8"))["arms"]
        assert [(entry["arm"], entry["reused"]) for entry in own] == [("real_only", True)], "kept as it is"
        path = f"repeat0/fold{fold}/generators/unet.safetensors"
        assert weights(run[0].run / path) == weights(finished.run / path)


def test_the_certificate_passes_and_looks_at_labels(run: tuple[Checkout, tuple[str, ...]]) -> None:
    with (run[0].run / "leaks.csv").open() as handle:
        checks = list(csv.DictReader(handle))
    assert {check["status"] for check in checks} == {"clean"}
    seen = {(check["artefact"], check["purpose"]): int(check["images"]) for check in checks if check["fold"] == "0"}
    for artefact in (
        "generator pseudo",
        "arm pseudo_few",
        "arm pool_pseudo",
        "arm distill_few",
        "arm encoder_few",
        "arm asked_few",
    ):
        assert seen[artefact, "fit, images alone"] > seen[artefact, "fit, labels"] > 0, artefact
    assert seen["arm pool_few", "fit, labels, through all"] > seen["arm pool_few", "fit, labels"]
    assert seen["thresholds of few", "threshold"] < seen["thresholds", "threshold"]


def test_a_planted_label_of_an_unlabelled_image_is_named(run: tuple[Checkout, tuple[str, ...]], tmp_path: Path) -> None:
    made, options = run[0].clone(tmp_path / "leaky"), run[1]
    with ImageSet(made.run / "images.h5") as source:
        hidden = role_table.rows(made.run / "repeat0/folds.csv", 1, source.ids, Role.UNLABELLED, Regime(**FEW))
    with h5py.File(made.run / "repeat0/fold1/arms/pseudo_few/predictions.h5", "a") as file:
        record = AccessRecord.from_json(file.attrs["access_record"])
        record.record("fit", hidden[:1])
        file.attrs["access_record"] = record.to_json()
    done = made.snakemake("results/ci/leaks.csv", *options, "--forcerun", "certify_leaks", check=False)
    assert done.returncode == 1
    assert "LEAK: arm pseudo_few (repeat 0, fold 1), purpose 'fit, labels': 1 images of 1 groups" in done.stdout
