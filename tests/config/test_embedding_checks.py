"""Embeddings in the config: what is missing, what excludes each other, and who cannot take them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from tests.helpers.checkout import ROOT
from workflow_scripts.lib.config import check, stage_views, views
from workflow_scripts.lib.config.problems import ConfigError

DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
HEAD = {"name": "head", "method": "real_only", "backbone": "embedding_linear"}
POOL = {"name": "pooled", "method": "pool", "synthetic_set": "painted", "backbone": "embedding_mlp", "baseline": "head"}
NETWORK = {"architecture": "resnet18", "channels": None, "size": 64, "normalise": {"mean": [0], "std": [1]}}


def config(*arms: dict, **embeddings: object) -> dict:
    out = copy.deepcopy(DEFAULT)
    out["arms"] += [dict(entry) for entry in arms]
    out["embeddings"] |= embeddings
    return out


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("f.npy", "ids.csv", "f.h5", "f.txt", "w.safetensors"):
        (tmp_path / name).touch()
    return tmp_path


def test_arms_get_the_embeddings_that_they_learn_from(files: Path) -> None:
    network = NETWORK | {"weights": str(files / "w.safetensors")}
    found = check.check(config(HEAD, POOL, encoder=network))
    sets = [views.embedded_sets(found, arms) for arms in views.job_lists(found)]
    assert sets[0] == [] and ["", "painted"] in sets
    assert views.embedding_files(found) == [str(files / "w.safetensors")]
    assert stage_views.embedding_settings(found) == {"table": None, "ids": None, "encoder": network}
    assert stage_views.certificate_settings(found)["encoders"] == [network], "its pre-training is unknown"
    assert "embeddings" in stage_views.experiment(found) and "embeddings" not in stage_views.experiment(DEFAULT)


def test_a_table_serves_arms_of_real_images(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", str(files))
    found = check.check(config(HEAD, table="${MINE}/f.npy", ids="${MINE}/ids.csv"))
    assert views.embedding_files(found) == [str(files / "f.npy"), str(files / "ids.csv")]
    with pytest.raises(ConfigError, match=r"predict\.arm = 'head' takes embeddings"):
        views.jobs_with(found, "head", "predict.arm")
    with pytest.raises(ConfigError, match=r"pooled\): embeddings\.table holds no synthetic images.*'painted'"):
        check.check(config(HEAD, POOL, table="${MINE}/f.h5"))


def test_what_cannot_be_embedded_is_refused(files: Path) -> None:
    table = {"table": str(files / "f.h5")}
    wrong = [
        (config(HEAD), r"head\): its backbone takes embeddings: give embeddings\.table"),
        (config(HEAD, **table, encoder=NETWORK | {"weights": str(files / "w.safetensors")}), "exclude each other"),
        (config(HEAD, table=str(files / "gone.h5")), "there is no such file"),
        (config(HEAD, table=str(files / "f.txt")), "must end in .npy"),
        (config(HEAD, table=str(files / "f.npy")), r"embeddings\.ids is missing"),
        (config(HEAD, **table) | {"analysis": DEFAULT["analysis"] | {"baseline": "head"}}, "that sees pixels"),
        (config(HEAD, **table) | {"stress_test": DEFAULT["stress_test"] | {"corruptions": "all"}}, "corrupted images"),
    ]  # fmt: skip
    network = NETWORK | {"weights": str(files / "w.safetensors"), "normalise": None}
    wrong.append((config(HEAD, encoder=network), r"embeddings\.encoder\.normalise must be given"))
    for given, words in wrong:
        with pytest.raises(ConfigError, match=words) as caught:
            check.check(given)
        assert "\n" not in str(caught.value)
