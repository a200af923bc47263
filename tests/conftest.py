"""Small things that tests build upon: a tiny image set, its folds, and artefacts that say what they were made from."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Workers of pytest-xdist fill the cores already. Set before torch is imported; programs that tests start inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests start hundreds of programs that import the same modules: their byte code is kept.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.helpers import fetch_run, snakemake_mark
from tests.helpers.misbehaving_server import Server
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.scores.prediction_file import Predictions, Scored, write_predictions
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With pytest-xdist: what tests of a module share is made in one worker, and what takes long begins first."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        shared = getattr(item, "_fixtureinfo", None)
        if shared and any(made[-1].scope == "module" for made in shared.name2fixturedefs.values()):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))

    def needs_run(item: pytest.Item) -> bool:
        shared = getattr(item, "_fixtureinfo", None)
        return bool(shared) and any(made[-1].argname == "finished" and made[-1].scope == "session"
                                    for made in shared.name2fixturedefs.values())  # fmt: skip

    # The first test that needs the finished run makes it, while another worker does what does not need it.
    first = next(filter(needs_run, items), None)

    def turn(item: pytest.Item) -> int:
        if item is first:
            return 0
        if item.get_closest_marker("workflow"):
            return 2 if needs_run(item) else 1
        return 3 if item.get_closest_marker("xdist_group") else 4

    items.sort(key=turn)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Only tests that are marked may start Snakemake."""
    with snakemake_mark.of(item.get_closest_marker("workflow") is not None):
        return (yield)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute with a single thread, as the stages do in tests; other tests keep their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server that misbehaves, for tests of downloads."""
    with fetch_run.alone(monkeypatch, tmp_path / "home") as made:
        yield made


@pytest.fixture
def run(tmp_path: Path, server: Server) -> fetch_run.Run:
    """The stage fetch_images in a folder of its own, with that server."""
    return fetch_run.Run(tmp_path, server)


CHANNELS = ["red", "green"]
CLASSES = ["Nucleus", "Cytosol", "Golgi"]


@dataclass
class World:
    """48 images of 24 groups in two folds; image i belongs to group i % 24, so no group lies in one piece."""

    folder: Path
    images: Path
    folds: Path
    ids: np.ndarray  # str (48,)
    groups: np.ndarray  # str (48,)
    roles: np.ndarray  # str (48, 2)
    digest: str

    def rows(self, role: str, fold: int = 0) -> np.ndarray:
        """Row numbers of a role."""
        return np.flatnonzero(self.roles[:, fold] == role)

    def record(self, **rows: np.ndarray) -> AccessRecord:
        """A record of rows by purpose; by default of what a fold-0 classifier may read."""
        record = AccessRecord(self.digest, len(self.ids))
        for purpose, chosen in (rows or {"fit": self.rows("train"), "select": self.rows("validation")}).items():
            record.record(purpose, chosen)
        return record

    def generator(self, record: AccessRecord | None = None, **about: str) -> Path:
        """A file like that of a trained generator."""
        path = self.folder / "generators" / "unet.safetensors"
        path.parent.mkdir(exist_ok=True)
        about = {"repeat": "0", "fold": "0", "access_record": (record or self.record()).to_json()} | about
        save_file({"network.weight": np.zeros(2, dtype=np.float32)}, path, about)
        return path

    def synthetic(self, record: AccessRecord | None = None) -> Path:
        """A synthetic set of four black images."""
        path = self.folder / "synthetic" / "as_train.h5"
        attrs = {"repeat": 0, "fold": 0, "access_record": (record or self.record()).to_json()}
        with write_images(path, CHANNELS, CLASSES, 8, attrs) as writer:
            ids = [f"syn-{number}" for number in range(4)]
            writer.append(np.zeros((4, 2, 8, 8)), np.ones((4, 3)), ids, ["synthetic"] * 4)
        return path

    def arm(
        self, record: AccessRecord | None = None, scored: np.ndarray | None = None, name: str = "real_only"
    ) -> Path:
        """A manifest of one arm that was scored on some rows, by default on the test part; its predictions beside."""
        folder = self.folder / "arms"
        rows = self.rows(Role.TEST) if scored is None else scored
        blank = np.zeros((len(rows), len(CLASSES)))
        part = Scored(self.ids[rows], self.groups[rows], blank, blank)
        text = (record or self.record()).to_json()
        write_predictions(
            folder / name / "predictions.h5",
            Predictions(CLASSES, name, 0, 0, {"test": part}, images=self.digest, access_record=text),
        )
        manifest = folder / "job0.json"
        manifest.write_text(json.dumps({"arms": [{"arm": name, "predictions": f"{name}/predictions.h5"}]}))
        return manifest

    def thresholds(self, rows: np.ndarray | None = None, digest: str = "") -> Path:
        """An analysis.json that says on which images thresholds were fitted."""
        path = self.folder / "analysis.json"
        ids = list(self.ids[self.rows(Role.CALIBRATION) if rows is None else rows])
        entry = {"repeat": 0, "fold": 0, "images": digest or self.digest, "ids": ids}
        path.write_text(json.dumps({"thresholds_fitted_on": [entry]}))
        return path


@pytest.fixture
def write_set():
    """A function that writes a random image set: write_set(path, ids, groups, **attrs) -> (images, labels)."""

    def write(path: Path, ids: list[str], groups: list[str], **attrs: str) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(3)
        images = rng.integers(0, 256, (len(ids), len(CHANNELS), 8, 8), dtype=np.uint8)
        labels = rng.integers(0, 2, (len(ids), len(CLASSES)), dtype=np.uint8)
        with write_images(path, CHANNELS, CLASSES, 8, attrs) as writer:
            # In blocks of uneven size, as a stream would bring them.
            for start in range(0, len(ids), 19):
                part = slice(start, start + 19)
                writer.append(images[part], labels[part], ids[part], groups[part])
        return images, labels

    return write


@pytest.fixture
def world(tmp_path, write_set) -> World:
    """The tiny image set with its folds; every group has one role."""
    numbers = np.arange(48)
    ids = np.array([f"cell-{number:02d}" for number in numbers], dtype=object)
    groups = np.array([f"gene-{number % 24:02d}" for number in numbers], dtype=object)
    write_set(tmp_path / "images.h5", list(ids), list(groups), grouped_by="gene")
    cycle = np.array([Role.TEST, Role.TRAIN, Role.CALIBRATION, Role.VALIDATION], dtype=object)
    roles = np.stack([cycle[(numbers % 24) % 4], cycle[(numbers % 24 + 1) % 4]], axis=1)
    role_table.write(tmp_path / "folds.csv", ids, groups, roles)
    with ImageSet(tmp_path / "images.h5") as source:
        digest = source.digest
    return World(tmp_path, tmp_path / "images.h5", tmp_path / "folds.csv", ids, groups, roles, digest)
