"""Several processes share a training: the same course as with one, checkpoints for any number, and one voice."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.helpers import warm_python
from tests.helpers.arms_data import ENTRIES, SECTION, write_fold
from tests.helpers.generating import UNET, make_data, train_line
from tests.helpers.ranks import KILL
from workflow_scripts import train_classifier, train_ddpm
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import arm_run, backbones, classifier_file, classifier_training, torchvision_models
from workflow_scripts.lib.classify.network_choices import BACKBONES
from workflow_scripts.lib.compute import device, multiprocess
from workflow_scripts.lib.config import snakemake_checks
from workflow_scripts.lib.generate import generator_file
from workflow_scripts.lib.scores.prediction_file import read_predictions

ROOT = Path(__file__).resolve().parents[2]
# What another order of sums may change in a few steps; Adam divides by gradients that may be next to nothing.
CLOSE = 2e-3
# The same for arms, whose BatchNorm sees few images: rounding grows from step to step, on some processors more than on
# others. Measured without AVX-512: at most 0.8 % after twelve steps; before the first of them nothing.
COURSE_CLOSE = 2e-2
# BatchNorm, two sources in one batch, statistics apart, pairs, images mixed with their neighbours.
SHARED = ("real_only", "pool", "split_batchnorm", "mix_representation", "mixup")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As tests.helpers.ranks does it."""
    monkeypatch.setattr(device, "fast_dtype", lambda where: torch.float32)


def together(stage: str, line: list[str], warm: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """A stage in two processes, started as the workflow starts it; those that are to be killed by the real Python."""
    python = warm_python.python() if warm else sys.executable
    own = (warm_python.environment() if warm else {}) | {"PYTHON_EXEC": python, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [python, "-m", *snakemake_checks.launcher(2).split(), "tests.helpers.ranks", stage, *line],
        cwd=ROOT, text=True, timeout=240, capture_output=True, env=os.environ | own | environment,
    )  # fmt: skip


def arms_line(paths: dict[str, Path], folder: Path, names: tuple[str, ...], *more: str, **section: object) -> list[str]:
    """The command line of train_classifier."""
    settings = {
        "arms": [ENTRIES[name] for name in names], "train_classifier": SECTION | section, "threads": 1,
    }  # fmt: skip
    return [
        "--images", str(paths["images"]), "--folds", str(paths["folds"]), "--repeat", "0", "--fold", "0",
        "--synthetic", f"p={paths['synthetic']}", "--arms-dir", str(folder), "--manifest", str(folder / "job0.json"),
        "--seed", "1", "--settings", json.dumps(settings), "--log", str(folder / "log.txt"), *more,
    ]  # fmt: skip


def course(path: Path) -> list[list[float]]:
    """The history of a generator's training, without the seconds."""
    with path.open() as handle:
        return [[float(value) for value in row[:-1]] for row in list(csv.reader(handle))[1:]]


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """How far weights (and running statistics) are apart, relative to their size."""
    assert first.keys() == second.keys()
    one, other = (torch.cat([found[name].flatten().double() for name in first]) for found in (first, second))
    return float((one - other).norm() / one.norm())


# Two processes --------------------------------------------------------------------------------------------------------


def test_a_generator_trained_by_two_processes_has_the_course_of_one(tmp_path: Path) -> None:
    make_data(tmp_path)
    # A batch that cannot be halved, with all that is drawn for an example.
    settings = UNET | {"batch": 7, "reference_fraction": 0.5}
    assert train_ddpm.main(train_line(tmp_path, settings, "one.safetensors")) == 0
    done = together("train_ddpm", train_line(tmp_path, settings, "two.safetensors"))
    assert done.returncode == 0, done.stderr
    one, two = (course(tmp_path / f"{name}.safetensors.csv") for name in ("one", "two"))
    assert len(one) == settings["steps"]
    for mine, other in zip(one, two, strict=True):
        assert other == pytest.approx(mine, rel=CLOSE)
    first, second = (generator_file.read(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert distance(first.weights, second.weights) < CLOSE
    assert first.digest == second.digest, "the number of processes is no part of what was asked for"
    assert done.stderr.count("train_ddpm, process") == 1, "one of them speaks"


def test_arms_trained_by_two_processes_have_the_course_of_one_and_go_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_fold(tmp_path)
    # Five real images and three others: neither number can be halved.
    section = {"ratio": 0.6, "learning_rate": 0.003}
    one, two = tmp_path / "one", tmp_path / "two"
    assert train_classifier.main(arms_line(paths, one, SHARED, **section)) == 0
    with monkeypatch.context() as patch:
        advance = classifier_training.Trainer.advance

        def dies(trainer: classifier_training.Trainer, number: int) -> None:
            if number == 5:
                raise KeyboardInterrupt
            advance(trainer, number)

        patch.setattr(classifier_training.Trainer, "advance", dies)
        patch.setenv("MIXLOC_CHECKPOINT_SECONDS", "0")
        with pytest.raises(KeyboardInterrupt):
            train_classifier.main(arms_line(paths, two, SHARED, **section))
    done = together("train_classifier", arms_line(paths, two, SHARED, **section))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("going on from") == 1
    for name in SHARED:
        first, second = (classifier_file.read(folder / name / "classifier.safetensors") for folder in (one, two))
        for column in ("loss", "validation_loss"):
            assert second.history[column] == pytest.approx(first.history[column], rel=COURSE_CLOSE), (name, column)
        assert first.digest == second.digest
        assert first.numbers["images_seen"] == second.numbers["images_seen"]
        assert first.numbers["best_step"] == second.numbers["best_step"]
        assert distance(first.weights, second.weights) < COURSE_CLOSE, name
        assert read_predictions(two / name / "predictions.h5").digest == first.digest
    assert not list(two.rglob("resume.pt"))


def test_a_killed_process_ends_the_job_clearly_and_one_process_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data(tmp_path)
    line = train_line(tmp_path, UNET)
    done = together("train_ddpm", line, warm=False, MIXLOC_CHECKPOINT_SECONDS="0", **{KILL: "6"})
    assert done.returncode != 0
    assert done.stderr.count("train_ddpm failed: ") == 1
    assert "another of the 2 processes of this training has ended" in done.stderr
    assert "another of the 2 processes" in (tmp_path / "log.txt").read_text()
    assert not (tmp_path / "g.safetensors").exists()
    assert (tmp_path / "g.resume.pt").exists()
    assert train_ddpm.main(line) == 0
    assert "going on from" in capsys.readouterr().err
    assert train_ddpm.main(train_line(tmp_path, UNET, "whole.safetensors")) == 0
    for mine, other in zip(*(course(tmp_path / f"{name}.safetensors.csv") for name in ("whole", "g")), strict=True):
        assert other == pytest.approx(mine, rel=CLOSE)
    assert distance(*(generator_file.read(tmp_path / f"{name}.safetensors").weights for name in ("whole", "g"))) < CLOSE


def test_what_is_wrong_for_all_is_said_once(tmp_path: Path) -> None:
    make_data(tmp_path)
    done = together("train_ddpm", train_line(tmp_path, UNET | {"batch": 1}))
    assert done.returncode != 0
    assert done.stderr.count("failed: the generator's batch: a batch of 1") == 1
    assert "Traceback" not in done.stderr.split("torch", 1)[0]


# What each process does by itself -------------------------------------------------------------------------------------


def test_parts_make_up_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocess, "size", lambda: 3)
    for count in (0, 1, 2, 7, 9):
        sizes, together = [], []
        for number in range(3):
            monkeypatch.setattr(multiprocess, "rank", lambda number=number: number)
            own = list(range(count))[multiprocess.part(count)]
            sizes.append(len(own))
            together += own
        assert together == list(range(count))
        assert max(sizes) - min(sizes) <= 1
    monkeypatch.setattr(multiprocess, "size", lambda: 9)
    with pytest.raises(UserError, match="a batch of 8 cannot be divided among 9"):
        multiprocess.check_batch(8, "arm pool")


def test_batchnorm_of_parts_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    images = 50 + torch.randn(5, 3, 4, 4)
    slope, plain, shared = torch.randn(5, 3, 4, 4), torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    for norm in (plain, shared):
        torch.nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(1))
    whole = images.clone().requires_grad_()
    (plain(whole) * slope).sum().backward()
    monkeypatch.setattr(multiprocess, "size", lambda: 2)
    multiprocess.share_statistics(torch.nn.ModuleList([shared]))
    exchange, outputs, leaves = Exchange(2), [None, None], [None, None]
    monkeypatch.setattr(multiprocess, "_sum", exchange.sum)
    monkeypatch.setattr(multiprocess, "rank", exchange.rank)

    def process(number: int) -> None:
        exchange.numbers[threading.get_ident()] = number
        own = multiprocess.part(5)
        leaves[number] = images[own].clone().requires_grad_()
        outputs[number] = shared(leaves[number])
        (outputs[number] * slope[own]).sum().backward()

    exchange.run(process)
    assert torch.allclose(torch.cat([leaf.grad for leaf in leaves]), whole.grad, atol=1e-5)
    # Both threads had the same module here, so its weights have both processes' shares.
    assert torch.allclose(shared.weight.grad, plain.weight.grad, atol=1e-4)
    assert torch.allclose(shared.bias.grad, plain.bias.grad, atol=1e-4)
    with torch.no_grad():
        expected = torch.nn.functional.batch_norm(images, None, None, plain.weight, plain.bias, training=True)
    assert torch.allclose(torch.cat(outputs), expected, atol=1e-4)


class Exchange:
    """Two threads in place of two processes."""

    def __init__(self, count: int) -> None:
        self.numbers: dict[int, int] = {}
        self.given: list[torch.Tensor] = [torch.empty(0)] * count
        self.barrier = threading.Barrier(count, timeout=60)

    def rank(self) -> int:
        return self.numbers[threading.get_ident()]

    def sum(self, values: torch.Tensor) -> None:
        self.given[self.rank()] = values.clone()
        self.barrier.wait()
        values.copy_(sum(self.given))
        self.barrier.wait()

    def run(self, process: object) -> None:
        threads = [threading.Thread(target=process, args=(number,)) for number in range(len(self.given))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def test_what_a_network_draws_is_drawn_for_the_whole_batch() -> None:
    draws, x = backbones.Draws(), torch.zeros(5, 2, 2)
    draws.generator = torch.Generator()

    def drawn(count: int, part: slice) -> torch.Tensor:
        draws.generator.manual_seed(3)
        draws.count, draws.part = count, part
        return draws.kept(x[part], 0.5)

    whole = drawn(0, slice(None))
    assert 0 < whole.sum() < 5
    assert torch.equal(torch.cat([drawn(5, slice(0, 2)), drawn(5, slice(2, 5))]), whole)


# Those with a generator's encoder, or of two networks, are made from others.
@pytest.mark.parametrize(
    "name", sorted(name for name, facts in BACKBONES.items() if not (facts.of_generator or facts.of_pair))
)
def test_no_network_draws_in_another_way(name: str) -> None:
    with torch.device("meta"):
        network = backbones.make(name, 3, 4, 64)
    for module in network.modules():
        assert not (isinstance(module, torch.nn.Dropout) and module.p > 0), "use backbones.Draws"
        if "stochastic" in type(module).__name__.lower():
            assert isinstance(module, backbones.StochasticDepth) and module.draws is network.draws


def test_layers_are_left_out_as_torchvision_does_it() -> None:
    theirs = torchvision_models.models.swin_t(weights=None).features[-1][-1].stochastic_depth.train()
    ours, x = backbones.StochasticDepth(theirs.p, backbones.Draws()).train(), torch.randn(16, 4, 4, 8)
    assert theirs.p > 0
    torch.manual_seed(1)
    expected = theirs(x)
    torch.manual_seed(1)
    assert torch.equal(ours(x), expected)
    assert not torch.equal(expected, x)


# Arms side by side ----------------------------------------------------------------------------------------------------


def test_arms_side_by_side_are_those_of_one_after_the_other(tmp_path: Path) -> None:
    paths = write_fold(tmp_path)
    folders = [tmp_path / name for name in ("after", "beside")]
    for folder, at_once in zip(folders, ("1", "3"), strict=True):
        assert train_classifier.main(arms_line(paths, folder, SHARED, "--at-once", at_once)) == 0
    for name in SHARED:
        first, second = (classifier_file.read(folder / name / "classifier.safetensors") for folder in folders)
        assert all(torch.equal(value, second.weights[key]) for key, value in first.weights.items())
        assert first.history["loss"] == second.history["loss"]
    assert "5 of 5" in (folders[1] / "log.txt").read_text()


def test_side_by_side_they_really_are_and_a_failure_begins_no_other() -> None:
    begun, both = [], threading.Barrier(2, timeout=60)

    def work(item: int) -> None:
        begun.append(item)
        assert torch.get_num_threads() == 1, "as in the thread that began them"
        if item < 2:
            both.wait()
        if item == 1:
            raise UserError("no")
        time.sleep(0.2)

    with pytest.raises(UserError, match="no"):
        arm_run.each(work, range(20), 2, torch.device("cpu"))
    assert {0, 1} <= set(begun) and len(begun) < 6
