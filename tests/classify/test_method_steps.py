"""The methods against values worked out by hand, and the rules for which arms may exist."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.helpers.arms_data import CHANNELS, ENTRIES, SECTION
from workflow_scripts.lib.classify import (
    arm_checks,
    arm_choices,
    arm_settings,
    losses,
    method_steps,
    network_choices,
    self_supervision,
    source_choices,
)
from workflow_scripts.lib.classify.method_steps import LabelledBatch
from workflow_scripts.lib.classify.resampling import matching_rows
from workflow_scripts.lib.judge import declaration

# What learns from real images without their labels controls every arm of generated ones.
UNLABELLED = ["pseudo_label", "fixmatch", "ssl_pretrain", "ssl_pretrain_weak"]
NO_VIEW = {"scale": [1, 1], "aspect": [1, 1], "intensity": 0.0, "erase": 0.0}


class HandStep:
    """A step with known images, λ and network: the representation is the image's mean, one logit is twice it."""

    number, steps, batch = 0, 10, 4

    def __init__(self, **settings):
        self.settings = {"steps": self.steps} | settings
        self.asked = {"real": 0, "second": 0}

    def _batch(self, values, targets, count):
        images = torch.tensor(values)[:count, None, None, None].expand(-1, 1, 2, 2)
        return LabelledBatch(images, torch.tensor(targets)[:count, None])

    def real(self, count):
        self.asked["real"] += count
        return self._batch([0.5, -1.0, 2.0, 0.0], [1.0, 0.0, 1.0, 0.0], count)

    def second(self, count):
        self.asked["second"] += count
        return self._batch([-0.5, 3.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0], count)

    def views(self, count):
        first = self.second(count)
        return first, first.images + 0.25

    def second_features(self, count):
        batch = self.second(count)
        return self.features(batch.images), batch.targets

    def project(self, features):
        return 3 * features

    def lambdas(self, count):
        return torch.tensor([0.9, 0.2, 0.5, 0.5])[:count]

    def weights(self, count):
        return torch.tensor([0.5, 1.5, 1.0, 1.0])[:count]

    def random(self, purpose):
        return np.random.default_rng(len(purpose))

    def features(self, images):
        return images.mean(dim=(2, 3))

    def features_apart(self, images):
        return 3 * self.features(images)

    def head(self, features):
        return 2 * features

    def loss(self, logits, targets):
        return losses.make("bce", torch.ones(1), 1)(logits, targets)


def bce(value, target):
    """Binary cross-entropy of the hand network."""
    probability = 1 / (1 + np.exp(-2 * value))
    return -(target * np.log(probability) + (1 - target) * np.log(1 - probability))


def run(name, **settings):
    step = HandStep(**settings)
    return float(method_steps.step_function(name)(step)), step.asked


def test_mix_loss_weighs_each_pair_by_its_own_lambda():
    found, asked = run("mix_loss")
    pairs = [0.9 * bce(0.5, 1) + 0.1 * bce(-0.5, 0), 0.2 * bce(-1.0, 0) + 0.8 * bce(3.0, 1)]
    assert found == pytest.approx(np.mean(pairs), rel=1e-5)
    # What is left when losses are averaged before they are weighed is another number.
    real, partner = np.mean([bce(0.5, 1), bce(-1.0, 0)]), np.mean([bce(-0.5, 0), bce(3.0, 1)])
    assert found != pytest.approx(0.55 * real + 0.45 * partner, rel=1e-3)
    assert asked == {"real": 2, "second": 2}


def test_mix_representation_mixes_features_and_targets():
    found, asked = run("mix_representation")
    pairs = [bce(0.9 * 0.5 - 0.1 * 0.5, 0.9), bce(0.2 * -1.0 + 0.8 * 3.0, 0.8)]
    assert found == pytest.approx(np.mean(pairs), rel=1e-5)
    assert asked == {"real": 2, "second": 2}


def test_pool_and_single_sources():
    found, asked = run("pool", ratio=1 / 3)
    expected = [bce(0.5, 1), bce(-1.0, 0), bce(2.0, 1), bce(-0.5, 0)]
    assert found == pytest.approx(np.mean(expected), rel=1e-5)
    assert asked == {"real": 3, "second": 1}
    assert run("real_only")[1] == {"real": 4, "second": 0}
    assert run("synthetic_only")[1] == {"real": 0, "second": 4}


def test_methods_that_pool_with_a_difference():
    real = [bce(0.5, 1), bce(-1.0, 0)]
    found, asked = run("weighted", ratio=1.0)
    assert found == pytest.approx(np.mean([*real, 0.5 * bce(-0.5, 0), 1.5 * bce(3.0, 1)]), rel=1e-5)
    assert asked == {"real": 2, "second": 2}
    right = [1 - 1 / (1 + np.exp(-2 * -0.5)), 1 / (1 + np.exp(-2 * 3.0))]
    found, _ = run("robust", ratio=1.0, robustness=0.7)
    assert found == pytest.approx(np.mean([*real, *((1 - p**0.7) / 0.7 for p in right)]), rel=1e-5)
    found, _ = run("split_batchnorm", ratio=1.0)
    assert found == pytest.approx(np.mean([*real, bce(-1.5, 0), bce(9.0, 1)]), rel=1e-5)


def probability(value):
    """Of the class, by the hand network."""
    return 1 / (1 + np.exp(-2 * value))


def test_fixmatch_learns_from_sure_answers_alone():
    """The weak views are -0.5, with probability 0.27, and 3, with 0.998: at 0.9 the second is learned, as positive."""
    step = HandStep(ratio=1.0, confidence=0.9, strong=NO_VIEW)
    told = {}

    def head(features):
        told["logits"] = (2 * features).requires_grad_()
        return told["logits"]

    step.head = head
    found = method_steps.step_function("fixmatch")(step)
    found.backward()
    assert step.asked == {"real": 2, "second": 2}
    gradient = told["logits"].grad[:, 0].tolist()
    # Mean losses of two real images and of two strong views, -0.25 and 3.25; weak views have no gradient.
    expected = [(probability(0.5) - 1) / 2, probability(-1.0) / 2, 0, 0, 0, (probability(3.25) - 1) / 2]
    assert gradient == pytest.approx(expected, abs=1e-6)


def test_fixmatch_learns_what_is_surely_absent():
    step = HandStep(ratio=1.0, confidence=0.7, strong=NO_VIEW)
    found = float(method_steps.step_function("fixmatch")(step))
    real = [bce(0.5, 1), bce(-1.0, 0)]
    assert found == pytest.approx(np.mean(real) + np.mean([bce(-0.25, 0), bce(3.25, 1)]), rel=1e-5)


def test_self_supervision_comes_first_and_asks_no_labels():
    step = HandStep(pretrain=0.5, strong=NO_VIEW)
    found = float(method_steps.step_function("ssl_pretrain")(step))
    first, second = 3 * torch.tensor([[-0.5], [3.0]]), 3 * torch.tensor([[-0.25], [3.25]])
    assert found == pytest.approx(float(self_supervision.vicreg(first, second)), rel=1e-5)
    assert step.asked == {"real": 0, "second": 2}
    step.number = 5
    assert float(method_steps.step_function("ssl_pretrain")(step)) == pytest.approx(run("real_only")[0])


def test_distillation_is_the_cross_entropy_with_soft_answers():
    class Soft(HandStep):
        def second(self, count):
            batch = super().second(count)
            return LabelledBatch(batch.images, 0.25 + 0.5 * batch.targets)

    step = Soft()
    found = float(method_steps.step_function("distill")(step))
    expected = [bce(-0.5, 0.25), bce(3.0, 0.75), bce(1.0, 0.75), bce(1.0, 0.75)]
    assert found == pytest.approx(np.mean(expected), rel=1e-5)
    assert step.asked == {"real": 0, "second": 4}, "no true label"


def test_features_are_pooled_as_images_are():
    found, asked = run("feature_fill", ratio=1 / 3)
    assert found == pytest.approx(run("pool", ratio=1 / 3)[0], rel=1e-5)
    assert asked == {"real": 3, "second": 1}


def test_second_views_are_weaker_by_a_fraction():
    strong = {"scale": [0.4, 1.0], "aspect": [0.25, 4.0], "intensity": 0.4, "erase": 0.5}
    settings = {"strong": strong}
    assert arm_settings.second_view(settings) == strong, "as it is said"
    half = arm_settings.second_view(settings | {"weaker": 0.5})
    assert half["scale"] == pytest.approx([0.7, 1.0]) and half["aspect"] == [0.5, 2.0]
    assert (half["intensity"], half["erase"]) == (0.2, 0.25)
    assert "weaker" not in arm_settings.effective(ENTRIES["ssl_pretrain"], SECTION)
    mixed = HandStep(pretrain=0.5, strong=NO_VIEW)
    alone = HandStep(pretrain=0.5, strong=NO_VIEW)
    assert method_steps.step_function("ssl_pretrain_mixed")(mixed) == method_steps.step_function("ssl_pretrain")(alone)


def test_mixup_mixes_each_image_with_the_one_before():
    found, asked = run("mixup")
    images, targets, weights = [0.5, -1.0, 2.0, 0.0], [1, 0, 1, 0], [0.9, 0.2, 0.5, 0.5]
    mixed = [(w * images[i] + (1 - w) * images[i - 1], w * targets[i] + (1 - w) * targets[i - 1])
             for i, w in enumerate(weights)]  # fmt: skip
    assert found == pytest.approx(np.mean([bce(*pair) for pair in mixed]), rel=1e-5)
    assert asked == {"real": 4, "second": 0}


def test_boxes_cover_the_area_that_is_asked_for():
    areas = torch.tensor([0.0, 0.25, 1.0, 0.1])
    boxes = method_steps._boxes(torch.zeros(4, 3, 20, 20), areas, np.random.default_rng(1))
    assert boxes.shape == (4, 1, 20, 20)
    assert boxes.float().mean(dim=(1, 2, 3)).tolist() == pytest.approx([0, 0.25, 1, 0.09], abs=1e-6)
    inside = boxes[1, 0].nonzero()
    assert (inside.max(dim=0).values - inside.min(dim=0).values == 9).all(), "one square"
    places = {tuple(method_steps._boxes(torch.zeros(1, 1, 20, 20), areas[1:2], np.random.default_rng(seed))
                    .nonzero()[0].tolist()) for seed in range(20)}  # fmt: skip
    assert len(places) > 10


def test_cutmix_weighs_targets_by_the_area_that_is_left():
    found, _ = run("cutmix")
    # Images of 2×2 pixels: 0.9 and 0.5 of an image are left as a whole one and three quarters, 0.2 as nothing.
    sides = [round(np.sqrt(1 - w) * 2) for w in (0.9, 0.2, 0.5, 0.5)]
    left = [1 - side**2 / 4 for side in sides]
    images, targets = [0.5, -1.0, 2.0, 0.0], [1, 0, 1, 0]
    mixed = [(w * images[i] + (1 - w) * images[i - 1], w * targets[i] + (1 - w) * targets[i - 1])
             for i, w in enumerate(left)]  # fmt: skip
    assert found == pytest.approx(np.mean([bce(*pair) for pair in mixed]), rel=1e-5)


class ElsewhereStep(HandStep):
    """Everything lies on another device, which holds no values: whatever assumes the processor's memory fails."""

    def _batch(self, values, targets, count):
        return LabelledBatch(torch.empty(count, 3, 8, 8, device="meta"), torch.empty(count, 5, device="meta"))

    def lambdas(self, count):
        return torch.empty(count, device="meta")

    weights = lambdas

    def views(self, count):
        return self.second(count), torch.empty(count, 3, 8, 8, device="meta")

    def second_features(self, count):
        return torch.empty(count, 3, device="meta"), torch.empty(count, 5, device="meta")

    def project(self, features):
        return features @ torch.empty(3, 4, device="meta", requires_grad=True)

    def head(self, features):
        return features @ torch.empty(3, 5, device="meta", requires_grad=True)

    def loss(self, logits, targets):
        name, positives = self.settings["loss"], torch.empty(5, device="meta")
        return losses.make(name, positives, 9, **SECTION["losses"].get(name, {}))(logits, targets)


@pytest.mark.parametrize(
    ("name", "loss"), [*((name, "bce") for name in ENTRIES), *(("pool", loss) for loss in network_choices.LOSSES)]
)
def test_no_method_and_no_loss_needs_the_memory_of_the_processor(name, loss):
    step = ElsewhereStep(**arm_settings.effective(ENTRIES[name] | {"loss": loss}, SECTION))
    for number in (0, 9):
        step.number = number
        found = method_steps.step_function(name)(step)
        assert found.shape == ()
        assert found.device.type == "meta"
        found.backward()


def test_one_class_at_a_time_leaves_the_others_alone():
    class Several(HandStep):
        def head(self, features):
            self.logits = (features * torch.tensor([[1.0, 2.0, 3.0]])).requires_grad_()
            return self.logits

        def real(self, count):
            batch = super().real(count)
            return LabelledBatch(batch.images, batch.targets.expand(-1, 3))

    for number in range(4):
        step = Several()
        step.number = number
        method_steps.step_function("one_class")(step).backward()
        moved = (step.logits.grad != 0).any(dim=0).tolist()
        assert moved == [column == number % 3 for column in range(3)]


def test_controls_do_the_same_with_other_images():
    for method in arm_choices.METHODS.values():
        if method.control:
            control = arm_choices.METHODS[method.control]
            assert control.step == method.step
            if method.scores:
                assert method.control == "two_baselines"
                continue
            assert set(control.options) <= set(method.options)
            if method.generator:
                assert (method.generator, control.generator) == (arm_choices.TRAINED, arm_choices.FRESH)
                continue
            assert method.second_source not in (*source_choices.PHOTOGRAPHS, *source_choices.NOTHING_NEW)
            assert control.second_source in (*source_choices.PHOTOGRAPHS, *source_choices.FEATURES)
            assert control.control is None


def test_whoever_adds_synthetic_images_has_a_control():
    made = {name for name, method in arm_choices.METHODS.items() if method.second_source == source_choices.SYNTHETIC}
    assert {name for name in made if not arm_choices.METHODS[name].control} == {"synthetic_only"}
    assert set(declaration.controls("pool")) == {
        "resample_real", "blend_real", "nearest_real", "shuffled_labels", "phase_real", "noise", "reweight",
        *UNLABELLED,
    }  # fmt: skip
    assert declaration.controls("mix_loss") == ["mix_loss_real", *UNLABELLED]
    # What a method is controlled by has the labels of its synthetic set, so that these alone cannot pass for a gain.
    for name, method in arm_choices.METHODS.items():
        if method.control and not method.generator:
            assert arm_choices.METHODS[method.control].second_source in (
                source_choices.RESAMPLED,
                "relabelled_real",
                "weighed_real",
                "distilled_real",
                "smote_features",
                "seen",
            ), name
    assert declaration.controls("relabel") == ["relabel_real", *UNLABELLED]
    assert declaration.controls("resample_real") == []
    # All that fill the same classes in the same features control the diffusion model.
    filled = ["feature_smote", "feature_mixup", "balanced_head"]
    assert declaration.controls("feature_fill") == [*filled, *UNLABELLED]
    assert declaration.controls("generator_features") == ["generator_random", "generator_autoencoder"]
    for name in ("generator_classifier", "generator_average"):
        assert declaration.controls(name) == ["two_baselines"]


def arm(method, **more):
    return ENTRIES[method] | more


def test_controls_are_compared_by_what_acts():
    known = {"resample_real": arm("resample_real", ratio=1.0), "other": arm("resample_real", name="other", ratio=2.0)}

    def problem(entry, control):
        return declaration.control_problem(entry | {"control": control}, known, SECTION, "real_only")

    assert "another baseline: 'real_only' instead of 'long'" in problem(arm("pool", baseline="long"), "resample_real")
    # SECTION says ratio 1: said or not, it is the same.
    assert problem(arm("pool"), "resample_real") is None
    assert problem(arm("pool", ratio=1.0), "resample_real") is None
    assert problem(arm("pool", ratio=2.0), "other") is None
    assert "another ratio: 2.0 instead of 1.0" in problem(arm("pool"), "other")
    assert "another loss" in problem(arm("pool", loss="focal"), "resample_real")
    assert "another sampling" in problem(arm("pool", sampling="balanced"), "resample_real")
    assert "another synthetic_set" in problem(arm("pool", synthetic_set="q"), "resample_real")
    # keep acts in the arm alone, where the control has nothing to choose from.
    assert problem(arm("filtered", keep=0.2), "resample_real") is None
    assert "controlled by 'relabel_real'" in problem(arm("relabel"), "resample_real")


def test_registries_agree():
    assert all(method_steps.step_function(name) for name in arm_choices.METHODS)


@pytest.mark.parametrize(
    ("entry", "change", "words"),
    [
        ({"method": "mix_loss", "ratio": 1.0}, {}, "ratio is given"),
        ({"method": "real_only", "colour": 1}, {}, "colour is given"),
        ({"method": "pool", "ratio": 0.01}, {}, "ratio = 0.01"),
        ({"method": "mix_loss"}, {"batch": 7}, "must be even"),
        ({"method": "real_only", "backbone": "vgg"}, {}, "'vgg' is not known"),
        ({"method": "real_only", "loss": "hinge"}, {}, "'hinge' is not known"),
        ({"method": "real_only", "backbone": "resnet18"}, {}, "32 px"),
        ({"method": "real_only", "channels": ["red", "gold"]}, {}, "'gold'"),
        ({"method": "real_only"}, {"checkpoints": 99}, "more than its 12 steps"),
        ({"method": "real_only", "backbone": "vit_b_16"}, {}, "32 px"),
        ({"method": "balanced_real", "sampling": "each_once"}, {}, "contradicts the method 'balanced_real'"),
        ({"method": "distill", "sampling": "balanced"}, {}, "draws no real images: say it in its synthetic set"),
        ({"method": "real_only", "weights": "x.pth"}, {}, "nobody has published any"),
        ({"method": "real_only", "frozen": True}, {}, "needs weights"),
        ({"method": "mix_representation_real", "loss": "arcface"}, {}, "its margin has no meaning"),
        ({"method": "blend_real", "blend": "weighted", "loss": "arcface"}, {}, "its margin has no meaning"),
        ({"method": "pretrain_finetune", "pretrain": 0.01}, {}, "leaves one of its two parts"),
        ({"method": "generator_features", "backbone": "small"}, {}, "has the trunk of a generator"),
        ({"method": "generator_random"}, {"channels": ["red"]}, "a generator has all channels"),
        ({"method": "real_only", "backbone": "generator"}, {}, "is that of some methods alone"),
        ({"method": "feature_fill", "frozen": True}, {}, "has the trunk of the fold's baseline"),
        ({"method": "split_batchnorm", "ratio": 0.15}, {}, "fewer than 2 real images or others"),
    ],
)
def test_impossible_arms_are_named(entry, change, words):
    problem = arm_checks.problem({"name": "a"} | entry, SECTION | change, CHANNELS, size=16)
    assert problem is not None
    assert words in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("entry", "size", "words"),
    [
        ({"method": "split_batchnorm", "backbone": "swin_t"}, 32, "it has no BatchNorm"),
        ({"method": "pool", "backbone": "swin_t"}, 32, None),
        ({"method": "pool", "backbone": "swin_t"}, 34, "multiple of 4 px"),
        ({"method": "pool", "backbone": "vit_b_16"}, 40, "multiple of 16 px, not 40"),
        ({"method": "pool", "backbone": "vit_b_16"}, 48, None),
        ({"method": "pool", "loss": "arcface"}, 16, None),
        ({"method": "real_only", "backbone": "resnet18", "weights": "nowhere.pth"}, 32, "there is no such file"),
        ({"method": "real_only", "backbone": "resnet18", "weights": __file__, "frozen": True}, 32, None),
        ({"method": "split_batchnorm", "backbone": "resnet18", "weights": __file__, "frozen": True}, 32, "frozen"),
        ({"method": "ssl_pretrain", "backbone": "resnet18", "weights": __file__, "frozen": True}, 32, "train the back"),
    ],
)
def test_which_networks_go_with_what(entry, size, words):
    problem = arm_checks.problem({"name": "a"} | entry, SECTION, CHANNELS, size)
    assert problem is None if words is None else words in problem


def test_only_what_acts_in_an_arm_is_part_of_it():
    pool = arm_settings.effective(
        {"name": "p", "method": "pool", "synthetic_set": "x", "control": "c", "ratio": 2.0}, SECTION
    )
    assert pool["ratio"] == 2.0
    assert "alpha" not in pool
    assert "control" not in pool
    assert arm_settings.effective({"name": "p", "method": "mix_loss"}, SECTION)["alpha"] == SECTION["alpha"]
    assert pool["losses"] == {}
    arcface = arm_settings.effective({"name": "p", "method": "real_only", "loss": "arcface"}, SECTION)
    assert arcface["losses"] == {"arcface": SECTION["losses"]["arcface"]}
    assert (network_choices.cosine_scale(arcface), network_choices.cosine_scale(pool)) == (30.0, None)
    strong = arm_settings.effective({"name": "p", "method": "strong_augment"}, SECTION)
    assert strong["augment"] == SECTION["augment"] | {"scale": [0.4, 1.0], "aspect": [0.7, 1.4], "intensity": 0.4}
    assert "strong" not in pool
    views = arm_settings.effective({"name": "p", "method": "fixmatch"}, SECTION)
    assert views["augment"] == SECTION["augment"], "the weak views are as in other arms"


def test_description_of_arms_needs_no_torch():
    text = "import sys; from workflow_scripts.lib.classify import arm_settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0


def test_resampling_keeps_label_combinations_and_variety():
    available = np.array([[1, 0, 0]] * 6 + [[1, 1, 0]] * 2 + [[0, 0, 1]] * 3)
    wanted = np.array([[1, 0, 0]] * 4 + [[1, 1, 0]] * 5 + [[0, 1, 0]] * 2 + [[0, 1, 1]] * 3)
    rows = matching_rows(available, wanted, np.random.default_rng(1))
    assert np.array_equal(available[rows[:9]], wanted[:9])
    assert len(set(rows[:4])) == 4, "no image twice while others are left"
    assert sorted(np.bincount(rows[4:9])[6:8]) == [2, 3], "as equally often as possible"
    # Unknown combinations: {1} overlaps {0, 1} by 1/2; {1, 2} overlaps {2} by 1/2 and {0, 1} by 1/3.
    assert set(rows[9:11]) <= {6, 7}
    assert set(rows[11:]) == {8, 9, 10}


def test_resampling_of_images_without_labels():
    available = np.array([[0, 0], [1, 0], [0, 0]])
    rows = matching_rows(available, np.zeros((4, 2)), np.random.default_rng(1))
    assert set(rows) == {0, 2}


def test_a_channel_that_is_missing_shows_no_erased_square() -> None:
    images = torch.randn(20, 2, 16, 16)
    images[:, 1] = -0.7
    own = SECTION | {"method": "strong_augment", "strong": SECTION["strong"] | {"erase": 1.0}, "weaker": 1}
    step = SimpleNamespace(random=lambda name: np.random.default_rng(1), settings=own)
    erased = method_steps._erased(step, images)
    assert (erased[:, 1] == -0.7).all() and (erased[:, 0] == 0).any(dim=(1, 2)).all()
