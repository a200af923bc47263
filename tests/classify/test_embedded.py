"""Arms on embeddings: heads learn what the features hold, synthetic sets are mixed in, pixels are never looked at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.arms_data import SECTION, write_fold
from workflow_scripts import embed_images, train_classifier
from workflow_scripts.lib.classify import arm_checks, classifier_file, classifier_training
from workflow_scripts.lib.images import embedding_table
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.scores import ranking_metrics
from workflow_scripts.lib.scores.prediction_file import read_predictions

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 6
HEADS = [
    {"name": "linear", "method": "real_only", "backbone": "embedding_linear"},
    {"name": "mlp", "method": "real_only", "backbone": "embedding_mlp"},
    {"name": "pool", "method": "pool", "synthetic_set": "p", "backbone": "embedding_linear"},
    {"name": "resampled", "method": "resample_real", "synthetic_set": "p", "backbone": "embedding_linear"},
    {"name": "mixed", "method": "mix_representation", "synthetic_set": "p", "backbone": "embedding_mlp"},
]


def embed(path: Path, out: Path, seed: int) -> None:
    """Features that hold the labels, on scales of their own, and one that says nothing."""
    with ImageSet(path) as source:
        labels, ids = source.labels(None, "inspect"), source.ids
    rng = np.random.default_rng(seed)
    hidden = np.concatenate([labels, np.zeros((len(ids), WIDTH - 3))], axis=1)
    features = (hidden + 0.3 * rng.standard_normal(hidden.shape)) * [0.01, 1, 500, 1, 1, 0]
    order = rng.permutation(len(ids))
    embedding_table.write(out, ids[order], features[order], {})


def run(paths: dict[str, Path], folder: Path, arms: list[dict]) -> int:
    settings = {"arms": arms, "train_classifier": SECTION | {"steps": 40, "learning_rate": 0.1}, "threads": 1}
    words = ["--images", paths["images"], "--folds", paths["folds"], "--repeat", "0", "--fold", "0"]
    words += ["--synthetic", f"p={paths['synthetic']}", "--arms-dir", folder, "--manifest", folder / "job0.json"]
    words += ["--embeddings", f"={paths['real']}", f"p={paths['made']}", "--seed", "1"]
    return train_classifier.main([*map(str, words), "--settings", json.dumps(settings), "--log", str(folder / "log")])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path]:
    folder = tmp_path_factory.mktemp("embedded")
    torch.set_num_threads(1)
    paths = write_fold(folder) | {"real": folder / "real.h5", "made": folder / "made.h5"}
    embed(paths["images"], paths["real"], 3)
    embed(paths["synthetic"], paths["made"], 4)
    assert run(paths, folder / "arms", HEADS) == 0
    return paths, folder / "arms"


def test_every_head_learns_what_the_features_hold(trained: tuple[dict[str, Path], Path]) -> None:
    for entry in HEADS:
        part = read_predictions(trained[1] / entry["name"] / "predictions.h5").parts["test"]
        truth = part.labels.astype(bool)
        each = [
            ranking_metrics.average_precision(part.logits[:, k], truth[:, k], *ranking_metrics.unweighted(len(truth)))[
                0
            ]
            for k in range(3)
        ]
        assert np.mean(each) > 0.9, entry["name"]


def test_synthetic_images_count_where_their_embeddings_are_learned(trained: tuple[dict[str, Path], Path]) -> None:
    read = {
        entry["name"]: classifier_file.read(trained[1] / entry["name"] / "classifier.safetensors") for entry in HEADS
    }
    assert read["pool"].numbers["synthetic_seen"] > 0 == read["resampled"].numbers["synthetic_seen"]
    assert not torch.equal(read["pool"].weights["head.weight"], read["resampled"].weights["head.weight"])
    assert read["linear"].numbers["steps"] == 10, "strengths of the penalty"
    assert (len(read["mlp"].channels), read["mlp"].size) == (WIDTH, 1)
    # Standardised by the train part, each feature by itself.
    assert read["mlp"].std[2] / read["mlp"].std[0] > 1e4


def test_the_same_again_is_kept_and_other_features_train_again(trained: tuple[dict[str, Path], Path]) -> None:
    paths, folder = trained
    assert run(paths, folder, HEADS[:1]) == 0
    assert json.loads((folder / "job0.json").read_text())["arms"][0]["reused"]
    embed(paths["images"], paths["real"], 5)
    try:
        assert run(paths, folder, HEADS[:1]) == 0
        assert not json.loads((folder / "job0.json").read_text())["arms"][0]["reused"]
    finally:
        embed(paths["images"], paths["real"], 3)


def test_an_arm_without_embeddings_of_its_set_says_so(
    trained: tuple[dict[str, Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = trained[0] | {"made": trained[0]["real"]}
    assert run(paths, tmp_path, [HEADS[2]]) == 1
    assert "real.h5 has no features of 30 of 30 images, such as syn-0, syn-1, syn-2" in capsys.readouterr().err


def test_what_works_on_pixels_is_refused() -> None:
    def problem(**entry: object) -> str | None:
        return arm_checks.problem({"name": "x", "backbone": "embedding_mlp", **entry}, SECTION, ["red", "green"], 16)

    assert problem(method="mix_loss", synthetic_set="p") is None
    fitted = arm_checks.problem(
        {"name": "x", "method": "mix_loss", "synthetic_set": "p", "backbone": "embedding_linear"}, SECTION, [], 16
    )
    assert "its features are fitted, not trained" in fitted
    for method in ("cutmix", "strong_augment", "blend_real", "noise", "two_baselines"):
        assert "do not go together: it works on pixels" in problem(method=method)
    assert "embeddings have none" in problem(method="real_only", channels=["red"])


def test_a_feature_that_never_changes_is_left_as_it_is() -> None:
    mean, std = classifier_training.statistics(np.full((5, 2, 1, 1), 0.5, dtype=np.float32))
    assert (255 * mean).tolist() == pytest.approx([0.5, 0.5]) and (255 * std).tolist() == pytest.approx([1, 1])


def test_the_stage_joins_a_table_by_id(trained: tuple[dict[str, Path], Path], tmp_path: Path, capsys) -> None:
    paths = trained[0]
    with ImageSet(paths["images"]) as source:
        ids = source.ids
    features = np.arange(2 * len(ids), dtype=np.float32).reshape(-1, 2)
    np.save(tmp_path / "f.npy", features[::-1])
    (tmp_path / "ids.csv").write_text("Id\n" + "\n".join(ids[::-1]) + "\n")
    settings = {"table": str(tmp_path / "f.npy"), "ids": str(tmp_path / "ids.csv"), "encoder": None, "threads": 1}

    def embedded(of: Path) -> int:
        words = ["--of", str(of), "--out", str(tmp_path / "out.h5"), "--log", str(tmp_path / "log")]
        return embed_images.main([*words, "--settings", json.dumps(settings)])

    assert embedded(paths["images"]) == 0
    assert np.array_equal(embedding_table.read(tmp_path / "out.h5").of(ids), features)
    assert embedded(paths["synthetic"]) == 1
    assert "f.npy has no features of 30 of 30 images" in capsys.readouterr().err


def test_the_stage_computes_features_of_synthetic_images(
    trained: tuple[dict[str, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pooled(weights: dict[str, torch.Tensor]) -> tuple[torch.nn.Module, int]:
        return torch.nn.AdaptiveAvgPool2d(1), 1

    monkeypatch.setattr(embed_images.encoders.encoder_networks, "pooled", pooled, raising=False)
    facts = embed_images.encoders.encoder_choices.ArchitectureFacts("of a test")
    monkeypatch.setitem(embed_images.encoders.ARCHITECTURES, "pooled", facts)
    monkeypatch.setattr(embed_images, "BLOCK", 8)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "p.safetensors")
    network = {"architecture": "pooled", "weights": str(tmp_path / "p.safetensors"), "channels": None, "size": None}
    network["normalise"] = {"mean": [0], "std": [1]}
    settings = {"table": None, "ids": None, "encoder": network, "threads": 1}
    words = ["--of", str(trained[0]["synthetic"]), "--out", str(tmp_path / "out.h5"), "--log", str(tmp_path / "log")]
    assert embed_images.main([*words, "--settings", json.dumps(settings)]) == 0
    with ImageSet(trained[0]["synthetic"]) as source:
        images, ids = source.read(None, "inspect").images, source.ids
    found = embedding_table.read(tmp_path / "out.h5").of(ids)
    assert found == pytest.approx(images.mean(axis=(2, 3)) / 255, abs=0.01), "one channel after the other"
