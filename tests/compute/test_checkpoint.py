"""lib.compute.checkpoint: a checkpoint serves exactly the task that wrote it, and nothing in it is ever run."""

import logging
import os
import pickle

import pytest
import torch

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.compute.checkpoint import Resume


@pytest.fixture
def told(monkeypatch):
    """The messages of the log."""
    lines: list[str] = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging.getLogger("mixloc"), level, lambda form, *words: lines.append(form % words))
    return lines


def test_the_same_task_goes_on(tmp_path, told):
    resume = Resume(tmp_path / "unet.resume.pt", "task")
    assert resume.load() is None
    assert told == []
    for step in (1, 2):
        resume.save({"step": step, "weights": {"w": torch.full((3,), float(step), dtype=torch.bfloat16)}})
    state = Resume(resume.path, "task").load()
    assert state["step"] == 2
    assert torch.equal(state["weights"]["w"], torch.full((3,), 2.0, dtype=torch.bfloat16))
    assert told == [f"going on from {resume.path}"]
    resume.clear()
    resume.clear()
    assert list(tmp_path.iterdir()) == []


def test_another_task_starts_afresh_and_says_so(tmp_path, told):
    Resume(tmp_path / "unet.resume.pt", "task").save({"step": 1})
    assert Resume(tmp_path / "unet.resume.pt", "other").load() is None
    assert told == [f"{tmp_path / 'unet.resume.pt'} belongs to other settings, data or code: starting afresh"]


class Malicious:
    """Makes a folder when it is unpickled by a loader that trusts it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path, told, how):
    path, trap = tmp_path / "unet.resume.pt", tmp_path / "trap"
    content = {"digest": "task", "state": Malicious(str(trap))}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    assert Resume(path, "task").load() is None
    assert not trap.exists()
    assert "cannot be read" in told[0]
    # The trap itself works, so the test can fail.
    if how == "torch":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert trap.exists()


def test_damaged_files_start_afresh(tmp_path, told):
    path = tmp_path / "unet.resume.pt"
    Resume(path, "task").save({"weights": torch.arange(1000)})
    whole = path.read_bytes()
    damaged = [whole[: len(whole) * fraction // 10] for fraction in range(10)] + [b"text", whole[:-1]]
    for content in damaged:
        path.write_bytes(content)
        assert Resume(path, "task").load() is None
    torch.save([1, 2], path)
    assert Resume(path, "task").load() is None
    assert all("cannot be read" in line for line in told)
    assert len(told) == len(damaged) + 1


def test_a_failed_save_keeps_the_last_checkpoint(tmp_path):
    resume = Resume(tmp_path / "unet.resume.pt", "task")
    resume.save({"step": 1})
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        resume.save({"step": lambda: 2})
    assert resume.load() == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["unet.resume.pt"]


def test_a_checkpoint_is_due_after_the_time_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXLOC_CHECKPOINT_SECONDS", "0")
    assert Resume(tmp_path / "unet.resume.pt", "task").due()
    monkeypatch.setenv("MIXLOC_CHECKPOINT_SECONDS", "3600")
    assert not Resume(tmp_path / "unet.resume.pt", "task").due()
    monkeypatch.setenv("MIXLOC_CHECKPOINT_SECONDS", "often")
    with pytest.raises(UserError, match="MIXLOC_CHECKPOINT_SECONDS"):
        Resume(tmp_path / "unet.resume.pt", "task")
