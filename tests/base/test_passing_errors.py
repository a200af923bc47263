"""Errors of memory and of a shared folder: told as such, and never as damage of the file that was being read."""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from workflow_scripts.lib.base import errors, files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.compute import checkpoint
from workflow_scripts.lib.images import decode, tiff_files
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.split import role_table

HDF5 = "Unable to open file (filename = 'x.h5', errno = {number}, error message = 'lost')"


def failing(error: Exception) -> Callable[..., None]:
    def fails(*words: object, **named: object) -> None:
        raise error

    return fails


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_lost_folder_is_no_damage_of_an_image_set(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(h5py, "File", failing(OSError(HDF5.format(number=number))))
    with pytest.raises(OSError, match="errno") as caught:
        ImageSet(Path("x.h5"))
    assert errors.file_system_failed(caught.value)
    monkeypatch.setattr(h5py, "File", failing(OSError("Unable to open file (file signature not found)")))
    with pytest.raises(UserError, match="not an HDF5 image set"):
        ImageSet(Path("x.h5"))


@pytest.mark.parametrize("kind", ["png", "npy", "tif"])
def test_a_lost_folder_is_no_damage_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "npy":
        np.save(path, np.zeros((4, 4), dtype=np.uint8))
    else:
        Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(path)
    lost = failing(OSError(errno.ESTALE, "Stale file handle", str(path)))
    for module, name in ((decode.Image, "open"), (decode.np, "load"), (tiff_files.tifffile, "TiffFile")):
        monkeypatch.setattr(module, name, lost)
    monkeypatch.setattr("builtins.open", lost)
    monkeypatch.setattr(Path, "open", lost)
    with pytest.raises(OSError, match="Stale file handle"):
        decode.decode(path, 1)


def test_a_lost_folder_throws_no_checkpoint_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = checkpoint.Resume(tmp_path / "a.resume.pt", "digest")
    kept.save({"step": 3})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "load", failing(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(OSError, match="Input/output error"):
            kept.load()
    assert kept.load() == {"step": 3}


def test_a_lost_folder_is_no_damage_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role_table.pd, "read_csv", failing(OSError(errno.ESTALE, "Stale file handle")))
    with pytest.raises(OSError, match="Stale file handle"):
        role_table.read(Path("folds.csv"), 0, np.array(["a"]))


def test_a_file_that_cannot_be_opened_is_not_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    said = FileNotFoundError(f"No such file or directory: {path}")  # as safetensors has it, whatever the cause
    errors.raise_if_passing(said)
    path.touch()
    with pytest.raises(OSError, match="cannot be opened") as caught:
        errors.raise_if_passing(said)
    assert errors.file_system_failed(caught.value)


def test_a_file_that_is_not_flushed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "fsync", failing(OSError(errno.ESTALE, "Stale file handle")))
    with pytest.raises(OSError, match=r"Stale file handle: '.*table\.csv'"):
        files.write_text(tmp_path / "table.csv", "a")
    assert not list(tmp_path.iterdir())


def too_much() -> None:
    torch.empty(1 << 50)


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (too_much, "can't allocate memory"),
        (lambda: np.empty(1 << 55), "Unable to allocate"),
        (failing(MemoryError()), "an allocation failed"),
        (failing(OSError(errno.ENOMEM, "Cannot allocate memory")), "Cannot allocate memory"),
        (failing(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")), "CUDA out of memory"),
        (failing(BrokenProcessPool("terminated abruptly")), "a worker process was killed"),
    ],
)
def test_exhausted_memory_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], work, said: str) -> None:
    assert stage.run("train_ddpm", argparse.Namespace(log=tmp_path / "log"), work) == 1
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("train_ddpm failed: out of memory: ")
    ]
    assert len(lines) == 1 and said in lines[0]
    assert "This process took" in lines[0] and "generators[].batch" in lines[0] and "rehearse" in lines[0]
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_another_error_is_not_taken_for_memory() -> None:
    others = [ValueError("out of memory"), OSError(errno.ENOENT, "No such file"), RuntimeError("shapes differ")]
    assert not any(map(errors.out_of_memory, others))


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "Input/output error")])
def test_a_line_that_cannot_be_logged_hides_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    monkeypatch.setattr(stage._LogFile, "format", failing(error))
    assert stage.run("train", argparse.Namespace(log=tmp_path / "log"), failing(UserError("wrong"))) == 1
    told = capsys.readouterr().err
    assert "train failed: wrong" in told and "Logging error" not in told and "Traceback" not in told


def test_a_log_that_cannot_be_opened_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = OSError(errno.ESTALE, os.strerror(errno.ESTALE), "results/log")
    monkeypatch.setattr(stage, "_LogFile", failing(lost))
    assert stage.run("train", argparse.Namespace(log=tmp_path / "log"), failing(AssertionError("it ran"))) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("train failed: the file system failed: [Errno 116] Stale file handle")
