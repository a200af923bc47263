"""What tests of generators share: small settings, an image set with its folds, command lines, and a baseline."""

import json

import numpy as np

from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.scores.prediction_file import Predictions, Scored, write_predictions
from workflow_scripts.lib.split import role_table

UNET = {
    "name": "unet",
    "network": "unet",
    "widths": [16, 16],
    "blocks": [1, 1],
    "objective": "edm",
    "pixels": "standardised",
    "labels": "multi_hot",
    "label_sampling": "as_train",
    "label_dropout": 0.2,
    "turn_images": True,
    "steps": 12,
    "batch": 8,
    "learning_rate": 0.02,
    "warmup": 0.1,
    "decay": True,
    "beta1": 0.9,
    "beta2": 0.99,
    "gradient_limit": 1.0,
    "ema_width": 0.1,
}
MINIMAL = UNET | {
    "name": "minimal",
    "network": "minimal",
    "objective": "epsilon_linear",
    "pixels": "unit",
    "labels": "single",
    "label_dropout": 0,
    "decay": False,
    "ema_width": 0,
}
SYNTHETIC_SET = {
    "name": "synthetic_set",
    "generator": "unet",
    "labels": "as_train",
    "count": 10,
    "sampler": "dpmpp_2m",
    "evaluations": 4,
    "guidance": {"scale": 2.0, "interval": [0.1, 10.0]},
    "clip": True,
    "batch": 4,
}
CLASSES = ["a", "b", "c"]


def role_of(row):
    """Three of four images are for training; every eighth one is for validation and for the test."""
    return "train" if row % 4 else "test" if row % 8 else "validation"


def make_data(folder, n=40, channels=4, size=16):
    """An image set whose class a is bright, and its folds."""
    rng = np.random.default_rng(0)
    labels = (rng.random((n, 3)) < 0.4).astype(np.uint8)
    labels[np.arange(n), rng.integers(3, size=n)] = 1
    images = rng.integers(0, 60, (n, channels, size, size)).astype(np.uint8)
    images[labels[:, 0] == 1] += 100
    ids = np.array([f"im{i}" for i in range(n)])
    names = [f"ch{c}" for c in range(channels)]
    with write_images(folder / "images.h5", names, CLASSES, size) as writer:
        writer.append(images, labels, ids, ids)
    roles = np.array([[role_of(i)] for i in range(n)], dtype=object)
    role_table.write(folder / "folds.csv", ids, ids, roles)
    return images, labels


def train_line(folder, settings, out="g.safetensors", seed=5):
    """The command line of train_ddpm."""
    return [
        *("--images", str(folder / "images.h5"), "--folds", str(folder / "folds.csv"), "--repeat", "0", "--fold", "0"),
        *("--seed", str(seed), "--out", str(folder / out), "--history", str(folder / f"{out}.csv")),
        *("--settings", json.dumps({"threads": 1} | settings), "--log", str(folder / "log.txt")),
    ]


def sample_line(folder, settings, generator="g.safetensors", out="s.h5", seed=6, baseline=None):
    """The command line of sample_ddpm."""
    return [
        *("--generator", str(folder / generator), "--images", str(folder / "images.h5")),
        *("--folds", str(folder / "folds.csv"), "--repeat", "0", "--fold", "0", "--seed", str(seed)),
        *("--out", str(folder / out)),
        *("--settings", json.dumps({"threads": 1} | settings), "--log", str(folder / "log.txt")),
        *(["--baseline", str(baseline)] if baseline else []),
    ]


def make_baseline(folder, logits, **changed):
    """A list of arms with a baseline that says `logits` (n, K) of the validation images, and of test images too."""
    with ImageSet(folder / "images.h5") as source:
        rows = {part: role_table.rows(folder / "folds.csv", 0, source.ids, part) for part in ("validation", "test")}
        record = AccessRecord(source.digest, len(source))
        for purpose, part in (("fit", "train"), ("select", "validation"), ("score", "test")):
            record.record(purpose, role_table.rows(folder / "folds.csv", 0, source.ids, part))
        labels, ids, digest = source.labels(None, "inspect"), source.ids, source.digest
    scored = {}
    for part, chosen in rows.items():
        said = logits if part == "validation" else np.full((len(chosen), 3), 9.0)
        scored[part] = Scored(ids[chosen], ids[chosen], labels[chosen], said)
    about = {"images": digest, "access_record": record.to_json(), "digest": "d"} | changed
    write_predictions(
        folder / "arms" / "real_only" / "predictions.h5", Predictions(CLASSES, "real_only", 0, 0, scored, **about)
    )
    manifest = folder / "arms" / "job0.json"
    manifest.write_text(json.dumps({"arms": [{"arm": "real_only", "predictions": "real_only/predictions.h5"}]}))
    return manifest
