"""The replay's switches: the registry is complete, and each switch changes what it says it changes."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from tests.helpers.arms_data import SECTION, cells
from tests.helpers.configs import DEFAULT
from workflow_scripts import tabulate_study
from workflow_scripts.lib.classify import arm_settings, backbones, classifier_file, classifier_training, network_choices
from workflow_scripts.lib.classify.classifier_training import Images
from workflow_scripts.lib.classify.validation_scores import probabilities
from workflow_scripts.lib.compute import device, schedule
from workflow_scripts.lib.config import check
from workflow_scripts.lib.scores.prediction_file import Predictions, Scored, write_predictions
from workflow_scripts.lib.study import emulation, switches
from workflow_scripts.lib.study.emulation import Asked, Course, StudyTrainer

ROOT = Path(__file__).resolve().parents[2]
PAPER = yaml.safe_load((ROOT / "presets" / "paper.yaml").read_text(encoding="utf-8"))
CPU = torch.device("cpu")
OFF = dict.fromkeys(switches.SWITCHES, False)
PLATEAU = {"factor": 0.1, "patience": 0}


@pytest.fixture(autouse=True)
def exact(monkeypatch, one_thread):
    """Float32 everywhere: these tests compare numbers."""
    monkeypatch.setattr(device, "fast_dtype", lambda where: torch.float32)


def model(method: str = "mix_loss", **changes: object) -> dict:
    return arm_settings.effective({"name": method, "method": method} | changes, SECTION)


def trainer(settings: dict, **levels: bool) -> StudyTrainer:
    real, made = cells(40, 1), cells(24, 2)
    partners = Images(*made, synthetic=True) if "mix" in settings["method"] else None
    return StudyTrainer(settings, OFF | levels, PLATEAU, Images(*real), partners, 7, CPU)


# The registry ---------------------------------------------------------------------------------------------------------


def test_the_registry_is_complete_and_speaks():
    wanted = {
        "test_in_training_mode", "test_batch_of_one", "premultiplied_alpha", "shared_batchnorm", "image_split",
        "last_epoch", "thresholds_on_reported", "scheduler_minimises", "warmup_late", "lambda_averaged", "single_label",
        "uniform_prior", "no_time", "shown_larger", "normalisation_mismatch", "arcface_test_dropout_and_scale",
    }  # fmt: skip
    assert set(switches.SWITCHES) == wanted
    assert list(DEFAULT["replay"]) == list(switches.SWITCHES)
    assert not any(DEFAULT["replay"].values()), "off unless asked for"
    assert all(PAPER["replay"][name] for name in switches.SWITCHES), "the study's preset has all of them on"
    for name, switch in switches.SWITCHES.items():
        assert switch.about.endswith(".") and "off:" in switch.about, name
        assert switch.acts in (switches.DATA, switches.GENERATOR, switches.TRAINING, switches.AFTER)
    assert {name for name, switch in switches.SWITCHES.items() if switch.violation} == {
        "image_split",
        "thresholds_on_reported",
    }


def test_switches_act_where_they_can():
    plain, vit = model("real_only"), model("real_only", backbone="vit_b_16")
    face, mixed = model("real_only", loss="arcface"), model("mix_representation")
    before = switches.of_model(switches.SWITCHES, plain, after=False)
    assert before == ["image_split", "premultiplied_alpha", "scheduler_minimises", "warmup_late"]
    assert "lambda_averaged" in switches.of_model(switches.SWITCHES, model(), after=False)
    assert "lambda_averaged" not in switches.of_model(switches.SWITCHES, mixed, after=False)
    assert {"no_time", "uniform_prior", "shared_batchnorm"} <= set(
        switches.of_model(switches.SWITCHES, mixed, after=False)
    )
    after = ["test_in_training_mode", "test_batch_of_one", "last_epoch", "thresholds_on_reported"]
    assert switches.of_model(switches.SWITCHES, plain, after=True) == after
    assert switches.of_model(switches.SWITCHES, vit, after=True) == [*after[2:], "normalisation_mismatch"]
    assert switches.of_model(switches.SWITCHES, face, after=True) == [*after, "arcface_test_dropout_and_scale"]


def overlaid(**forensics: object) -> dict:
    config = copy.deepcopy(DEFAULT)
    for key, value in PAPER.items():
        config[key] = config[key] | value if isinstance(value, dict) else copy.deepcopy(value)
    config["make_folds"]["fractions"] = DEFAULT["make_folds"]["fractions"] | config["make_folds"]["fractions"]
    config["forensics"] |= forensics
    return config


def test_the_paper_preset_declares_what_it_breaks():
    assert switches.problem(overlaid()) is None
    names = ("mix_loss", "mix_representation", "real_only")
    wanted = {f"replay {name} image_split:fit" for name in names}
    wanted |= {f"replay {name} thresholds_on_reported:threshold" for name in names}
    assert set(switches.violations(overlaid())) == wanted
    clean = overlaid(switches=["no_time", "last_epoch"])
    clean["replay"] = dict(OFF)
    assert switches.violations(clean) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": 24}, "power of two"),
        ({"runs": 16}, "holds fewer than 10 switches at resolution IV: take 32"),
        ({"shown_from": 32}, "must be smaller than"),
        ({"shown_from": 18}, "shown_from"),
        ({"synthetic_sets": {"study": "replay_mixloc", "mixloc": "replay_mixloc"}}, "network unet; it takes minimal"),
        ({"models": [{"name": "a", "method": "filtered"}]}, "the replay takes"),
        ({"models": [{"name": "a", "method": "real_only", "backbone": "swin_x"}]}, "swin_x"),
        ({"models": [{"name": "a", "method": "real_only"}] * 2}, "given twice"),
        ({"switches": ["last_epoch", "normalisation_mismatch"]}, "normalisation_mismatch, which acts on none"),
        ({"models": []}, "replay.no_time does nothing"),
    ],
)
def test_what_cannot_be_replayed_is_refused(change, message):
    assert message in str(switches.problem(overlaid(**change)))


def test_generators_of_another_run_are_not_replayed():
    config = overlaid()
    for entry in config["generators"]:
        entry["from"] = "theirs.safetensors"
    assert "samples from a generator of another run" in switches.problem(config)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"reference_channels": ["red"]}, "reference_channels"),
        ({"start_noise": 0.5}, "start_noise"),
        ({"guidance": {"scale": 2, "interval": [0, 9], "against": "confused"}}, "guidance.against"),
    ],
)
def test_plans_that_ask_for_more_than_labels_are_refused(change, word):
    config = overlaid()
    used = config["forensics"]["synthetic_sets"]["mixloc"]
    config["synthetic_sets"] = [
        synthetic_set | change if synthetic_set["name"] == used else synthetic_set
        for synthetic_set in config["synthetic_sets"]
    ]
    assert f"{used!r} asks for {word}" in str(switches.problem(config))


def test_other_channels_and_no_calibration_part_are_refused():
    config = overlaid()
    config["preprocess_images"] = config["preprocess_images"] | {"channels": ["red", "green", "blue"]}
    assert "fourth channel" in str(switches.problem(config))
    config = overlaid()
    config["make_folds"]["fractions"] = config["make_folds"]["fractions"] | {"calibration": 0}
    assert "calibration" in str(switches.problem(config))
    with pytest.raises(check.ConfigError, match=r"replay.*no_time"):
        broken = copy.deepcopy(DEFAULT)
        broken["replay"]["no_time"] = "yes"
        check.check(broken)


# Pixels, labels, splits -----------------------------------------------------------------------------------------------


def test_premultiplied_is_what_pillow_does_to_rgba():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 4, 16, 16), dtype=np.uint8)
    images[:, 3, :, :8] = 0
    for size in (32, 8):
        expected = [
            np.asarray(
                Image.fromarray(image.transpose(1, 2, 0).copy(), "RGBA").resize((size, size), Image.Resampling.BICUBIC)
            ).transpose(2, 0, 1)
            for image in images
        ]
        assert np.array_equal(emulation.resized(images, size, True), np.stack(expected))
    larger, apart = emulation.resized(images, 32, True), emulation.resized(images, 32, False)
    assert not larger[:, :3, :, :12].any(), "where the fourth channel is 0 the others vanish"
    assert apart[:, :3, :, :12].mean() > 50
    plane = Image.fromarray(images[1, 2]).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(apart[1, 2], np.asarray(plane))


def test_at_an_unchanged_size_the_multiplication_alone_is_left():
    images = np.full((1, 4, 8, 8), 77, dtype=np.uint8)
    images[0, 3] = np.arange(64).reshape(8, 8) * 4
    done = emulation.resized(images, 8, True)
    assert not done[0, :3, 0, 0].any() and (done[0, 3] == images[0, 3]).all()
    # Bright alpha keeps the value, dark alpha keeps a coarse one.
    assert abs(int(done[0, 0, 7, 7]) - 77) <= 1 < abs(int(done[0, 0, 0, 1]) - 77)
    assert emulation.resized(images, 8, False) is images


def test_synthetic_labels_follow_the_prior_and_the_condition():
    rng = np.random.default_rng(1)
    labels = np.array([[1, 1, 0, 0]] * 30 + [[1, 0, 1, 0]] * 10 + [[0, 0, 0, 0]], dtype=np.uint8)
    uniform = emulation.wanted_labels(labels, 90, True, True, rng)
    assert (uniform.sum(axis=1) == 1).all() and list(uniform.sum(axis=0)) == [30, 30, 30, 0]
    pairs = emulation.wanted_labels(labels, 80, False, True, rng)
    assert (pairs.sum(axis=1) == 1).all() and list(pairs.sum(axis=0)) == [40, 30, 10, 0]
    sets = emulation.wanted_labels(labels, 40, False, False, rng)
    assert list(sets.sum(axis=0)) == [40, 30, 10, 0] and (sets.sum(axis=1) == 2).all()


def test_a_split_by_image_tears_groups():
    rows, groups = np.arange(200), np.arange(200) // 4
    train, validation = emulation.split_by_image(rows, 20, 3)
    assert len(validation) == 20 and sorted([*train, *validation]) == list(rows)
    assert len(np.intersect1d(groups[train], groups[validation])) > 10


# Training -------------------------------------------------------------------------------------------------------------


def test_lambda_averaged_leaves_only_the_mean_to_act():
    own, mean = trainer(model()), trainer(model(), lambda_averaged=True)
    before, after = own.step.lambdas(4), mean.step.lambdas(4)
    assert before.std() > 0.1
    assert torch.allclose(after, before.mean().expand(4))
    # The loss is then that of batch means, λ̄·ℓ̄(real) + (1 − λ̄)·ℓ̄(synthetic).
    step = mean.step
    both = step.real(4) + step.second(4)
    losses = step.loss(step.head(step.features(both.images)), both.targets)
    expected = after[0] * losses[:4].mean() + (1 - after[0]) * losses[4:].mean()
    found = classifier_training.method_steps.step_function("mix_loss")(step)
    assert torch.allclose(found, expected, rtol=1e-5)


def test_apart_real_images_do_not_feel_the_synthetic_ones():
    real, dark, bright = torch.randn(4, 2, 16, 16), torch.zeros(4, 2, 16, 16), torch.full((4, 2, 16, 16), 9.0)
    together, apart = (trainer(model(), shared_batchnorm=level).step for level in (True, False))
    features = [[step.features(torch.cat([real, other]))[:4] for other in (dark, bright)] for step in (together, apart)]
    assert not torch.allclose(*features[0], atol=1e-3)
    assert torch.allclose(*features[1], atol=1e-5)
    # The network keeps the statistics of real images alone.
    means = []
    for other in (dark, bright):
        own = trainer(model(), shared_batchnorm=False)
        own.step.features(torch.cat([real, other]))
        means.append(own.network.trunk.layers[1].running_mean.clone())
    assert torch.equal(*means)


def test_the_schedule_follows_the_switches():
    plain, late = trainer(model()), trainer(model(), warmup_late=True)
    steps = range(SECTION["steps"])
    assert [plain.rate(number) for number in steps] == [
        schedule.cosine_after_warmup(plain.settings, number) for number in steps
    ]
    assert late.epoch == 10, "40 images, four real ones a step"
    assert all(late.rate(number) == SECTION["learning_rate"] for number in range(10))
    assert late.rate(10) < SECTION["learning_rate"]
    wrong = trainer(model(), scheduler_minimises=True)
    rates = []
    for score in (0.2, 0.3, 0.1, 0.4):
        wrong.wait(score)
        rates.append(wrong.rate(9))
    # It is content while the score falls, and cuts the rate when it rises.
    assert np.allclose(np.array(rates) / SECTION["learning_rate"], [1, 0.1, 0.1, 0.01])


def test_last_and_best_weights_are_both_kept():
    real, made = cells(40, 1), cells(24, 2)
    own = model("real_only", steps=12, checkpoints=3)
    done, course = emulation.trained(own, OFF, PLATEAU, Images(*real), None, Images(*made), 7)
    last, best = (course.weights[name] for name in (True, False))
    assert all(torch.equal(value, done.network.state_dict()[name]) for name, value in last.items())
    assert all(torch.equal(value, done.best[name]) for name, value in best.items())
    # Without any switch the training is that of an arm.
    arm = classifier_training.Trainer(own, Images(*real), None, 7, CPU)
    for number in range(own["steps"]):
        arm.advance(number)
    assert all(torch.equal(value, arm.network.state_dict()[name]) for name, value in last.items())


# Test -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def network() -> backbones.Backbone:
    torch.manual_seed(1)
    out = backbones.build("small", 2, 3, 16, 5)
    with torch.no_grad():
        for norm in (module for module in out.modules() if isinstance(module, torch.nn.BatchNorm2d)):
            norm.running_mean.normal_(), norm.weight.uniform_(0.5, 1.5), norm.bias.normal_()
    return out.eval()


SCALING = (torch.tensor([0.2, 0.3]), torch.tensor([0.1, 0.2]))


def said(network, pixels, settings=None, **levels) -> np.ndarray:
    return emulation.tested(network, pixels, *SCALING, OFF | levels, settings or model("real_only"), 3)


def test_training_mode_with_a_batch_of_one_is_a_loop_over_images(network):
    pixels = cells(9, 4)[0]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = said(network, pixels, test_in_training_mode=True, test_batch_of_one=True)
    network.train()
    with torch.no_grad():
        ready = classifier_file.standardise(torch.as_tensor(pixels).float() / 255, *SCALING)
        naive = torch.cat([network(image[None]) for image in ready]).numpy()
    assert np.allclose(found, naive, atol=1e-4)
    network.load_state_dict(before)
    network.eval()
    said(network, pixels, test_in_training_mode=True, test_batch_of_one=True)
    said(network, pixels, test_in_training_mode=True)
    after = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    assert all(torch.equal(value, before[name]) for name, value in after.items()), "no trace is left"
    assert not network.training


def test_training_mode_normalises_by_the_batch_and_evaluation_mode_does_not(network):
    pixels = cells(8, 4)[0]
    plain = said(network, pixels)
    assert np.array_equal(plain, classifier_file.predict(network, pixels, *SCALING))
    assert np.array_equal(plain, said(network, pixels, test_batch_of_one=True)), "one at a time changes nothing there"
    batch = said(network, pixels, test_in_training_mode=True)
    network.train()
    with torch.no_grad():
        naive = network(classifier_file.standardise(torch.as_tensor(pixels).float() / 255, *SCALING)).numpy()
    assert np.allclose(batch, naive, atol=1e-4) and not np.allclose(batch, plain, atol=0.1)


def test_another_normalisation_and_arcface_without_scale(network):
    pixels = cells(8, 4)[0]
    half = torch.full((2,), 0.5)
    assert np.array_equal(
        said(network, pixels, normalisation_mismatch=True), classifier_file.predict(network, pixels, half, half)
    )
    face = model("real_only", loss="arcface")
    assert emulation.dropout_of(face) > 0 == emulation.dropout_of(model("real_only"))
    cosine = backbones.build("small", 2, 3, 16, 5, network_choices.cosine_scale(face)).eval()
    plain, wrong = said(cosine, pixels, face), said(cosine, pixels, face, arcface_test_dropout_and_scale=True)
    assert np.abs(wrong).max() <= 1 < np.abs(plain).max()
    # Beyond the scale it is dropout that changes the answers.
    assert not np.allclose(wrong * 30, plain, atol=0.5)


def test_thresholds_come_from_the_part_that_the_switch_names(network, monkeypatch):
    images, labels = cells(60, 4)
    parts = {name: Asked(images, labels, np.arange(60)) for name in ("validation", "calibration", "test")}
    parts["validation"] = Asked(255 - images, labels, np.arange(60))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    other = {name: value + 0.3 * torch.randn_like(value) if value.is_floating_point() else value
             for name, value in state.items()}  # fmt: skip
    course = Course({False: state, True: other}, SCALING)
    asked = []
    fit = emulation.fit_thresholds
    monkeypatch.setattr(
        emulation, "fit_thresholds", lambda table, rule: (asked.append(table.scores.copy()), fit(table, rule))[1]
    )
    levels = [OFF, OFF | {"thresholds_on_reported": True}, OFF | {"last_epoch": True}]
    plain, reported, last = emulation.scored(
        network, course, parts, levels, model("real_only"), 5, np.ones(3, dtype=bool), 1
    )
    network.load_state_dict(state)
    tuned = [classifier_file.predict(network, parts[name].pixels, *SCALING) for name in ("calibration", "validation")]
    assert all(
        np.allclose(scores, probabilities(logits), atol=1e-5) for scores, logits in zip(asked[:2], tuned, strict=True)
    )
    assert len(asked) == 3, "once for each part and set of weights"
    assert reported["validation"]["macro_f1"] > plain["validation"]["macro_f1"], "tuned on what it reports"
    # Thresholds act on nothing but the decisions that use them.
    for part in ("validation", "test"):
        assert all(plain[part][name] == reported[part][name] for name in ("macro_f1_half", "map"))
    assert last["test"]["map"] != plain["test"]["map"]


# The study's table ----------------------------------------------------------------------------------------------------


def test_the_study_table_decides_as_the_study_did(tmp_path):
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]], dtype=np.uint8)
    # Nothing reaches 0.5: the most probable class misses one b; tuned thresholds find all of them, and one too many.
    logits = np.array([[-1.0, -3.0, -5.0], [-4.0, -3.0, -5.0], [-1.0, -3.0, -5.0], [-4.0, -3.0, -5.0]])
    part = Scored([f"i{row}" for row in range(4)], ["g"] * 4, labels, logits)
    listed = []
    for name, backbone in (("resnet18", "resnet18"), ("vit", "vit_b_16"), ("other", "swin_t")):
        own = {"method": "real_only", "backbone": backbone, "loss": "bce"}
        history = {"validation_macro_f1": np.array([0.2, 0.5, 0.4])}
        parts = {"validation": part, "calibration": part, "test": part}
        path = tmp_path / name / "predictions.h5"
        write_predictions(path, Predictions(list("abc"), name, 0, 0, parts, history, own))
        listed.append({"arm": name, "predictions": str(path.relative_to(tmp_path))})
    (tmp_path / "job0.json").write_text(json.dumps({"arms": listed}))
    line = ["--arms", str(tmp_path / "job0.json"), "--out", str(tmp_path / "study.csv"), "--settings", "{}"]
    assert tabulate_study.main(line) == 0
    table = pd.read_csv(tmp_path / "study.csv").set_index("arm")
    assert table.loc["resnet18", "test"] == pytest.approx((1 + 4 / 5) / 2, abs=1e-4)
    assert table.loc["vit", "test"] == pytest.approx((1 + 6 / 7) / 2, abs=1e-4)
    assert table.loc["vit", "decision"] == "tuned on validation"
    assert table.loc["other", "decision"].startswith("0.5")
    assert (table["validation_last"] == 0.4).all() and (table["validation_best"] == 0.5).all()
    told = list(table["published_test"])
    assert told[0].startswith("0.457, of the best CNN") and told[1].startswith("0.018 to 0.18, of Swin and ViT")
    assert told[2] == "not published", "of mixing no test score is known"
    assert list(table["published_validation_last"]) == ["0.64", "0.421", "not published"]
