"""What goes wrong in the training and sampling of generators: bad gradients, too little memory, odd data."""

import logging

import h5py
import numpy as np
import pytest
import torch

from tests.helpers.generating import MINIMAL, SYNTHETIC_SET, UNET, make_data, sample_line, train_line
from workflow_scripts import sample_ddpm, train_ddpm
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.generate import diffusion, generator_training, out_of_memory, synthetic_set
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.generate.generator_training import Pixels
from workflow_scripts.lib.generate.networks import UNet
from workflow_scripts.lib.generate.training_examples import Examples
from workflow_scripts.lib.images.image_set import ImageSet

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)

CPU = torch.device("cpu")


def train(folder, images, labels, settings, progress=lambda step, loss: None, name="x"):
    pixels = Pixels.fitted(settings["pixels"], images)
    resume = Resume(folder / f"{name}.resume.pt", "task")
    return generator_training.train(images, labels, settings, pixels, 3, CPU, torch.float32, resume, progress)


def poison(monkeypatch, steps):
    """Infinite noise in some steps: neither the loss nor the gradient is a number there."""
    real = Examples.take

    def take(self, objective, step):
        batch = real(self, objective, step)
        if step in steps:
            batch.noise.fill_(torch.inf)
        return batch

    monkeypatch.setattr(Examples, "take", take)


# Bad gradients --------------------------------------------------------------------------------------------------------


def test_a_step_whose_gradient_is_no_number_is_skipped_and_counted(tmp_path, monkeypatch, caplog):
    images, labels = make_data(tmp_path)
    poison(monkeypatch, {3, 4, 11})
    monkeypatch.setattr(logging.getLogger("mixloc"), "propagate", True)
    with caplog.at_level(logging.WARNING, "mixloc"):
        done = train(tmp_path, images, labels, UNET | {"gradient_limit": 0.0})
    assert all(bool(value.isfinite().all()) for value in done.weights.values())
    assert "3 of 12 steps were skipped" in caplog.text
    # The history tells of the steps that were taken; the last one was not.
    assert all(np.isfinite(row[2]) for row in done.history if row[0] not in (4, 5, 12))


def test_the_head_of_learned_uncertainty_follows_the_loss(tmp_path):
    rng = np.random.default_rng(0)
    # Flat images: the network soon predicts them well, so that the loss falls below its first value, one.
    images = np.broadcast_to(rng.integers(0, 255, (16, 2, 1, 1)), (16, 2, 16, 16)).astype(np.uint8)
    options = {"weighting": "uncertainty", "attention": True, "patch": 2, "steps": 60, "learning_rate": 0.05}
    trained = train(tmp_path, images, np.eye(2, dtype=np.uint8)[np.arange(16) % 2], UNET | options)
    network = UNet(2, 2, 16, UNET["widths"], UNET["blocks"], patch=2, attention=True, learned_weighting=True)
    network.load_state_dict(trained.weights)
    with torch.no_grad():
        levels = network.log_variance(torch.linspace(-1.5, 0.5, 8))
    assert float(levels.mean()) < -0.05, "u falls from 0 towards the logarithm of the loss"
    assert all(np.isfinite(row[2]) for row in trained.history)


def test_a_skipped_step_changes_nothing(tmp_path, monkeypatch):
    images, labels = make_data(tmp_path)
    plain = UNET | {"steps": 3, "ema_width": 0, "decay": False, "warmup": 0}
    before = train(tmp_path, images, labels, plain)
    poison(monkeypatch, {3, 4})
    after = train(tmp_path, images, labels, plain | {"steps": 5})
    for name, value in before.weights.items():
        # Filters are brought back to their norm once more, which rounds.
        assert torch.allclose(value, after.weights[name], atol=1e-6), name


def test_killed_and_resumed_equals_undisturbed_also_with_skipped_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXLOC_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr(generator_training, "CHECK_EVERY", 1)
    images, labels = make_data(tmp_path)
    poison(monkeypatch, {2, 3, 4, 8})
    settings = UNET | {"reference_fraction": 0.5}

    def dies(at):
        def progress(step, loss):
            if step == at:
                raise KeyboardInterrupt

        return progress

    whole = train(tmp_path, images, labels, settings, name="whole")
    for stop in (4, 5, 10):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, images, labels, settings, dies(stop), name="killed")
    seen = []
    resumed = train(tmp_path, images, labels, settings, lambda step, loss: seen.append(step), name="killed")
    assert seen and 1 not in seen, "it went on, and did not start again"
    assert all(torch.equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)
    np.testing.assert_array_equal([row[:4] for row in whole.history], [row[:4] for row in resumed.history])


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_several_bad_steps_in_a_row_end_in_one_line(tmp_path, monkeypatch, what):
    images, labels = make_data(tmp_path)
    if what == "loss":
        poison(monkeypatch, set(range(2, 99)))
    else:
        real = generator_training.losses

        def losses(objective, network, pixels, batch, weighting):
            # The square root of zero is zero, and its slope infinite.
            return real(objective, network, pixels, batch, weighting) + (network.head_gain * 0).sqrt()

        monkeypatch.setattr(generator_training, "losses", losses)
    with pytest.raises(UserError, match=rf"{what} is no longer a number.*learning_rate") as caught:
        train(tmp_path, images, labels, UNET | {"steps": 60})
    assert f"up to step {generator_training.CHECK_EVERY}" in str(caught.value), "noticed at the first look"


def test_bad_steps_are_counted_on_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXLOC_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr(generator_training, "CHECK_EVERY", 1)
    images, labels = make_data(tmp_path)
    poison(monkeypatch, set(range(2, 99)))

    for stop in (6, 9):

        def dies(step, loss, stop=stop):
            if step == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, images, labels, UNET | {"steps": 40}, dies)
    seen = []
    with pytest.raises(UserError, match="8 steps in a row up to step 10"):
        train(tmp_path, images, labels, UNET | {"steps": 40}, lambda step, loss: seen.append(step))
    assert 1 not in seen, "it went on, and did not start again"


# Too little memory ----------------------------------------------------------------------------------------------------


def small_memory(monkeypatch, most):
    """A network that cannot take more than so many images at once; returns the sizes it was asked for."""
    real, asked = UNet.forward, []

    def forward(self, x, log_sigma, condition):
        asked.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, x, log_sigma, condition)

    monkeypatch.setattr(UNet, "forward", forward)
    return asked


@pytest.mark.parametrize("settings", [UNET, UNET | {"reference_fraction": 0.6, "batch": 7}])
def test_training_goes_on_with_parts_of_a_batch_and_the_same_gradient(tmp_path, monkeypatch, caplog, settings):
    images, labels = make_data(tmp_path)
    # Adam divides by the size of the gradient, which blows up rounding while it is tiny; a few steps are enough.
    settings = settings | {"steps": 4}
    whole = train(tmp_path, images, labels, settings)
    asked = small_memory(monkeypatch, 2)
    monkeypatch.setattr(logging.getLogger("mixloc"), "propagate", True)
    with caplog.at_level(logging.WARNING, "mixloc"):
        parts = train(tmp_path, images, labels, settings)
    assert "going on with 4 images at a time" in caplog.text and "going on with 2 images at a time" in caplog.text
    # Found out once, then kept.
    assert [size for size in asked if size > 2] == [settings["batch"], 4]
    assert [row[2] for row in parts.history] == pytest.approx([row[2] for row in whole.history], rel=1e-3)
    for name, value in whole.weights.items():
        assert torch.allclose(value, parts.weights[name], atol=5e-3), name


def test_the_gradient_of_parts_is_that_of_the_whole(tmp_path):
    images, labels = make_data(tmp_path)
    settings = UNET | {"reference_fraction": 0.5, "batch": 7}
    objective = diffusion.make_objective("edm")
    pixels = Pixels.fitted("standardised", images)
    batch = Examples(images, labels, settings, 1).take(objective, 0)
    torch.manual_seed(0)
    network = UNet(4, 3, 16, [16, 16], [1, 1], references=True)
    torch.nn.init.constant_(network.head_gain, 1.0)

    def gradient(most):
        network.zero_grad()
        for part in batch.parts(most):
            loss = generator_training.losses(objective, network, pixels, part).mean()
            (loss * (len(part.images) / 7)).backward()
        return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])

    whole = gradient(7)
    for most in (4, 2, 1):
        assert torch.allclose(gradient(most), whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


def test_a_machine_that_cannot_hold_one_image_is_told_so(tmp_path, monkeypatch):
    images, labels = make_data(tmp_path)
    small_memory(monkeypatch, 0)
    with pytest.raises(UserError, match="memory does not suffice for training"):
        train(tmp_path, images, labels, UNET)


def test_sampling_in_parts_makes_the_same_images(tmp_path, monkeypatch):
    make_data(tmp_path)
    assert train_ddpm.main(train_line(tmp_path, UNET)) == 0
    plan = SYNTHETIC_SET | {"guidance": {"scale": 2.0, "interval": [0.0, 1000.0]}}
    assert sample_ddpm.main(sample_line(tmp_path, plan, out="whole.h5")) == 0
    asked = small_memory(monkeypatch, 3)
    assert sample_ddpm.main(sample_line(tmp_path, plan, out="parts.h5")) == 0
    # Guidance asks for both halves at once: 8, then 4, then 2 at a time from then on, also in later batches.
    assert [size for size in asked if size > 3] == [8, 4] and max(asked[2:]) <= 2
    assert "going on with 2 images" in (tmp_path / "log.txt").read_text()
    with ImageSet(tmp_path / "whole.h5") as whole, ImageSet(tmp_path / "parts.h5") as parts:
        a, b = (source.read(None, "inspect").images.astype(int) for source in (whole, parts))
    assert np.abs(a - b).max() <= 1 and (a != b).mean() < 0.01


def test_a_captured_network_is_one_graph_for_each_shape():
    torch.manual_seed(0)
    network = UNet(2, 3, 16, [16, 16], [1, 1], references=True).requires_grad_(False)
    torch.nn.init.constant_(network.head_gain, 1.0)
    captured = synthetic_set.CapturedNetwork(network, CPU)
    labels = torch.eye(3)
    said = Condition(labels, torch.zeros(3, dtype=torch.bool))
    shown = torch.tensor([True, False]).expand(3, 2)
    x, levels = torch.randn(3, 2, 16, 16), torch.linspace(-1, 1, 3)
    for condition in (said, said.nothing(), Condition(labels, said.dropped, x * shown[:, :, None, None], shown)):
        assert torch.equal(captured(x, levels, condition), network(x, levels, condition))
    captured(x[:2], levels[:2], said.part(slice(0, 2)))
    assert len(captured._graphs) == 3


def test_what_fails_for_another_reason_is_not_tried_again():
    tried = []

    def work(most):
        tried.append(most)
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        out_of_memory.halving(work, 8, "nothing")
    assert tried == [8]


# Odd data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["as_train", "balanced"])
def test_an_empty_class_and_a_batch_larger_than_the_set(tmp_path, sampling):
    images, labels = make_data(tmp_path)
    labels[:, 1] = 0
    labels[:, 0] |= labels.sum(axis=1) == 0
    done = train(tmp_path, images[:3], labels[:3], UNET | {"steps": 2, "label_sampling": sampling})
    assert all(np.isfinite(row[2]) for row in done.history)


@pytest.mark.parametrize(
    ("channels", "size", "given"), [(1, 16, 0), (8, 16, 0.5), (2, 20, 1), (3, 64, 0.5), (4, 128, 0), (2, 256, 0.5)]
)
def test_any_number_of_channels_and_16_to_256_px(tmp_path, channels, size, given):
    make_data(tmp_path, n=8, channels=channels, size=size)
    settings = UNET | {"steps": 1, "batch": 2, "reference_fraction": given}
    assert train_ddpm.main(train_line(tmp_path, settings)) == 0
    plan = SYNTHETIC_SET | {"count": 2, "reference_channels": ["ch1"] if given else []}
    assert sample_ddpm.main(sample_line(tmp_path, plan)) == 0
    with ImageSet(tmp_path / "s.h5") as made:
        assert made.size == size and len(made.channels) == channels and len(made) == 2


@pytest.mark.parametrize("network", [UNET, MINIMAL])
def test_images_that_are_not_square_are_refused_clearly(tmp_path, capsys, network):
    make_data(tmp_path)
    with h5py.File(tmp_path / "images.h5", "r+") as file:
        del file["images"]
        file["images"] = np.zeros((40, 4, 20, 16), dtype=np.uint8)
    assert train_ddpm.main(train_line(tmp_path, network)) == 1
    error = capsys.readouterr().err
    assert "16 x 20 px" in error and "square" in error and "Traceback" not in error


@pytest.mark.parametrize(("size", "words"), [(12, "16 to 256"), (17, "multiples of 2")])
def test_sizes_that_do_not_suit_the_network_are_refused(tmp_path, capsys, size, words):
    make_data(tmp_path, size=size)
    assert train_ddpm.main(train_line(tmp_path, UNET)) == 1
    assert words in capsys.readouterr().err


# Compiled -------------------------------------------------------------------------------------------------------------


def test_what_a_compiler_traces_has_the_same_gradient(tmp_path):
    """Traced as on a GPU, without the code generator, which needs a C++ compiler."""
    images, labels = make_data(tmp_path)
    settings = UNET | {"reference_fraction": 0.5}
    pixels = Pixels.fitted("standardised", images)
    training = generator_training.Training(images, labels, settings, pixels, 3, CPU, torch.float32)
    for _ in range(2):
        training.advance()
    batch = list(vars(training.examples.take(training.objective, 2)).values())
    training.flat.form()
    traced = torch.compile(training._loss_of, dynamic=False, backend="aot_eager")
    for function in (training._loss_of, traced):
        gradients = torch.autograd.grad(function(*batch).mean(), training.flat.leaves)
        training.flat.collect(gradients, first=function is not traced)
        if function is not traced:
            expected = training.flat.gradient.clone()
    assert torch.allclose(training.flat.gradient, 2 * expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


# Several at once ------------------------------------------------------------------------------------------------------


def test_trainings_of_one_process_end_as_each_alone(tmp_path):
    images, labels = make_data(tmp_path)
    several = [UNET | {"steps": 5}, UNET | {"steps": 7, "label_sampling": "balanced"}, MINIMAL | {"steps": 4}]
    alone = [train(tmp_path, images, labels, settings, name=f"a{n}") for n, settings in enumerate(several)]

    def ready(settings):
        pixels = Pixels.fitted(settings["pixels"], images)
        return generator_training.Training(images, labels, settings, pixels, 3, CPU, torch.float32)

    resumes = [Resume(tmp_path / f"b{n}", "task") for n in range(3)]
    steps = []
    together = generator_training.train_together(
        [ready(settings) for settings in several], resumes, lambda step, loss: steps.append(step)
    )
    assert steps == [1, 5], "of the first"
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
        assert [row[:4] for row in one.history] == [row[:4] for row in other.history]


# What is given --------------------------------------------------------------------------------------------------------


def test_a_network_learns_to_use_what_is_given(tmp_path):
    # The second channel is a copy of the first: given that, there is nothing left to guess.
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (64, 1, 1, 1))
    images = np.broadcast_to(levels, (64, 2, 16, 16)).astype(np.uint8).copy()
    labels = np.ones((64, 1), dtype=np.uint8)
    settings = UNET | {
        "reference_fraction": 0.8,
        "steps": 150,
        "batch": 16,
        "label_dropout": 0.0,
        "learning_rate": 0.05,
    }
    done = train(tmp_path, images, labels, settings)
    network = UNet(2, 1, 16, [16, 16], [1, 1], references=True).eval()
    network.load_state_dict(done.weights)
    pixels = Pixels.fitted("standardised", images)
    x0 = pixels.to_network(torch.from_numpy(images))
    shown = torch.tensor([True, False]).expand(64, 2)
    told = Condition(torch.ones(64, 1), torch.zeros(64, dtype=torch.bool), x0 * shown[:, :, None, None], shown)
    untold = Condition(told.labels, told.dropped)
    objective = diffusion.make_objective("edm")
    noisy = x0 + 20 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        errors = [
            float((diffusion.denoised(objective, network, noisy, 20.0, c) - x0)[:, 1].square().mean())
            for c in (told, untold)
        ]
    assert errors[0] < 0.3 * errors[1]


# Labels that are not known --------------------------------------------------------------------------------------------


def test_labels_that_are_not_known_cannot_change_a_training(tmp_path):
    images, labels = make_data(tmp_path)
    known = np.arange(40) % 2 == 0
    other = np.where(known[:, None], labels, 1 - labels)
    pixels = Pixels.fitted("standardised", images)

    def weights(given, name):
        resume = Resume(tmp_path / name, "task")
        arguments = (images, given, UNET, pixels, 3, CPU, torch.float32, resume)
        return generator_training.train(*arguments, known=known).weights

    one, two = weights(labels, "a"), weights(other, "b")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_network_without_a_word_for_missing_labels_refuses_them(tmp_path):
    images, labels = make_data(tmp_path)
    resume, pixels = Resume(tmp_path / "x", "task"), Pixels.fitted("unit", images)
    with pytest.raises(UserError, match="missing label"):
        arguments = (images, labels, MINIMAL, pixels, 3, CPU, torch.float32, resume)
        generator_training.train(*arguments, known=np.arange(40) > 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_bad_steps_are_skipped_and_little_memory_is_enough(tmp_path, monkeypatch, caplog):
    make_data(tmp_path, n=40, size=128)
    poison(monkeypatch, {3, 4})
    monkeypatch.setattr(logging.getLogger("mixloc"), "propagate", True)
    settings = UNET | {"widths": [128, 128], "batch": 256, "steps": 6, "reference_fraction": 0.5}
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.5e9 / torch.cuda.get_device_properties(0).total_memory)
    try:
        with caplog.at_level(logging.WARNING, "mixloc"):
            assert train_ddpm.main(train_line(tmp_path, settings)) == 0
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "images at a time" in caplog.text and "2 of 6 steps were skipped" in caplog.text
    assert sample_ddpm.main(sample_line(tmp_path, SYNTHETIC_SET | {"reference_channels": ["ch1"]})) == 0
