"""A full disk in stages that train and sample: a clear error, nothing half-written, and the work goes on from there."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.arms_data import ENTRIES, SECTION, write_fold
from tests.helpers.generating import MINIMAL, SYNTHETIC_SET, UNET, make_data, sample_line, train_line
from workflow_scripts import sample_ddpm, train_classifier, train_ddpm
from workflow_scripts.lib.base import files
from workflow_scripts.lib.compute import checkpoint
from workflow_scripts.lib.images.image_set import ImageSet

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
ROOM = 4096  # bytes that a file may grow to: less than any output


def with_little_room(stage: str, words: list[str]) -> str:
    """Run a stage as a program whose files may not grow; what it said."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))  # noqa: E731
    command = [sys.executable, "-m", f"workflow_scripts.{stage}", *words]
    # Python would cut off the byte code of a module that was just edited, and every later start would fail.
    own = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1, (done.returncode, done.stderr[-2000:])
    assert f"{stage} failed: no room to write" in done.stderr
    assert "Make room and run again" in done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def filling(monkeypatch: pytest.MonkeyPatch):
    """A function: from the so many-th checkpoint on the disk is full, until it is called with None."""
    saved = torch.save
    monkeypatch.setenv("MIXLOC_CHECKPOINT_SECONDS", "0")

    def fill(after: int | None) -> None:
        count = 0

        def save(value: object, path: Path) -> None:
            nonlocal count
            count += 1
            if after is not None and count > after:
                Path(path).write_bytes(b"half of it")
                raise OSError(errno.ENOSPC, "No space left on device")
            saved(value, path)

        monkeypatch.setattr(checkpoint.torch, "save", save)

    return fill


def whole(folder: Path) -> list[str]:
    """Names of the files below a folder that are no logs; nothing half-written is among them."""
    names = sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "log.txt")
    assert not [name for name in names if ".part" in name], names
    return names


def test_training_of_a_generator_goes_on_from_its_last_checkpoint(tmp_path, filling, capsys):
    make_data(tmp_path)
    assert train_ddpm.main(train_line(tmp_path, UNET, out="undisturbed.safetensors")) == 0
    filling(3)
    assert train_ddpm.main(train_line(tmp_path, UNET)) == 1
    assert "train_ddpm failed: no room to write" in capsys.readouterr().err
    assert "g.resume.pt" in whole(tmp_path) and "g.safetensors" not in whole(tmp_path)
    filling(None)
    assert train_ddpm.main(train_line(tmp_path, UNET)) == 0
    assert "going on from" in capsys.readouterr().err
    first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("undisturbed", "g"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "g.resume.pt" not in whole(tmp_path)


def test_sampling_goes_on_from_its_last_batch(tmp_path, filling, capsys):
    make_data(tmp_path)
    assert train_ddpm.main(train_line(tmp_path, UNET)) == 0
    assert sample_ddpm.main(sample_line(tmp_path, SYNTHETIC_SET, out="undisturbed.h5")) == 0
    filling(1)
    assert sample_ddpm.main(sample_line(tmp_path, SYNTHETIC_SET)) == 1
    assert "sample_ddpm failed: no room to write" in capsys.readouterr().err
    assert "s.resume.pt" in whole(tmp_path) and "s.h5" not in whole(tmp_path)
    filling(None)
    assert sample_ddpm.main(sample_line(tmp_path, SYNTHETIC_SET)) == 0
    assert "going on from" in capsys.readouterr().err
    with ImageSet(tmp_path / "undisturbed.h5") as first, ImageSet(tmp_path / "s.h5") as second:
        assert (first.read(None, "inspect").images == second.read(None, "inspect").images).all()


def arms_line(paths: dict[str, Path], folder: Path) -> list[str]:
    """The command line of a job with one arm."""
    settings = {"arms": [ENTRIES["real_only"]], "train_classifier": SECTION, "threads": 1}
    return [
        "--images", str(paths["images"]), "--folds", str(paths["folds"]), "--repeat", "0", "--fold", "0",
        "--synthetic", f"p={paths['synthetic']}", "--arms-dir", str(folder), "--manifest", str(folder / "job0.json"),
        "--seed", "1", "--settings", json.dumps(settings), "--log", str(folder / "log.txt"),
    ]  # fmt: skip


def test_training_of_an_arm_goes_on_from_its_last_checkpoint(tmp_path, filling, capsys):
    paths = write_fold(tmp_path)
    assert train_classifier.main(arms_line(paths, tmp_path / "undisturbed")) == 0
    filling(2)
    assert train_classifier.main(arms_line(paths, tmp_path / "arms")) == 1
    assert "train_classifier failed: no room to write" in capsys.readouterr().err
    assert whole(tmp_path / "arms") == ["resume.pt"]
    filling(None)
    assert train_classifier.main(arms_line(paths, tmp_path / "arms")) == 0
    assert "going on from" in capsys.readouterr().err
    first, second = (load_file(tmp_path / at / "real_only/classifier.safetensors") for at in ("undisturbed", "arms"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_output_for_which_there_is_no_room_is_absent_and_made_by_the_next_run(tmp_path):
    generating, arms = tmp_path / "generating", tmp_path / "arms"
    generating.mkdir()
    make_data(generating)
    line = train_line(generating, MINIMAL)
    with_little_room("train_ddpm", line)
    assert "g.safetensors" not in whole(generating)
    assert train_ddpm.main(line) == 0
    synthetic_set = SYNTHETIC_SET | {
        "labels": "single",
        "per_class": 4,
        "sampler": "ancestral",
        "evaluations": 50,
        "clip": False,
    }
    synthetic_set = {key: value for key, value in synthetic_set.items() if key != "count"} | {
        "guidance": {"scale": 1, "interval": [0, 9]}
    }
    line = sample_line(generating, synthetic_set)
    with_little_room("sample_ddpm", line)
    assert "s.h5" not in whole(generating)
    assert sample_ddpm.main(line) == 0 and "s.h5" in whole(generating)

    paths = write_fold(tmp_path)
    line = arms_line(paths, arms)
    assert train_classifier.main(line) == 0
    (arms / "real_only/predictions.h5").unlink()
    trained = files.file_digest(arms / "real_only/classifier.safetensors")
    with_little_room("train_classifier", line)
    assert "predictions.h5" not in whole(arms)
    assert train_classifier.main(line) == 0 and "predictions.h5" in whole(arms)
    assert files.file_digest(arms / "real_only/classifier.safetensors") == trained, "it was not trained again"
