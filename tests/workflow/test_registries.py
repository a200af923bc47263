"""A new choice is one function and one line: a checkout with one further entry of every kind runs them all."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.helpers.checkout import Checkout
from workflow_scripts.lib.classify import classifier_file
from workflow_scripts.lib.generate import generator_file
from workflow_scripts.lib.images.image_set import ImageSet

pytestmark = pytest.mark.workflow

LIB = "workflow_scripts/lib"
GENERATE, CLASSIFY = f"{LIB}/generate/generator_choices.py", f"{LIB}/classify/arm_choices.py"
SECOND, NETWORKS = f"{LIB}/classify/source_choices.py", f"{LIB}/classify/network_choices.py"
# Of each kind: the list, the first words of its entries, the line, the module of functions, the function.
TOYS = {
    "network": (
        GENERATE,
        '    "network",\n    {\n',
        '"toy_network": NetworkFacts("of a test", resolutions=False, missing_labels=False),',
        f"{LIB}/generate/networks.py",
        "def toy_network(settings, channels, classes, size, dtype):\n"
        '    return minimal(settings | {"labels": "multi_hot"}, channels, classes, size, dtype)\n',
    ),
    "objective": (
        GENERATE,
        '    "objective",\n    {\n',
        '"toy_objective": ObjectiveFacts("of a test", chain=False),',
        f"{LIB}/generate/diffusion.py",
        "def toy_objective():\n    return replace(edm(), name='toy_objective', highest=20.0)\n",
    ),
    "sampler": (
        GENERATE,
        '    "sampler",\n    {\n',
        '"toy_sampler": SamplerFacts("of a test", fewest=1),',
        f"{LIB}/generate/sampling.py",
        "def toy_sampler(denoise, x, levels, noise):\n    return denoise(x, levels[0])\n",
    ),
    "label plan": (
        GENERATE,
        '    "label plan",\n    {\n',
        '"toy_plan": LabelPlanFacts("of a test"),',
        f"{LIB}/generate/label_plans.py",
        "def toy_plan(labels, rng, count):\n    return labels[rng.integers(len(labels), size=count)]\n",
    ),
    "second source": (
        SECOND,
        '    "second source",\n    {\n',
        '"toy_source": SourceFacts("of a test"),',
        f"{LIB}/classify/second_source.py",
        "def toy_source(material):\n    return synthetic(material)\n",
    ),
    "method": (
        CLASSIFY,
        '    "method",\n    {\n',
        '"toy_method": Method("of a test", "toy_step", "toy_source", None, ("ratio",)),',
        f"{LIB}/classify/method_steps.py",
        "def toy_step(step):\n    return pool(step)\n",
    ),
    "backbone": (
        NETWORKS,
        '    "backbone",\n    {\n',
        '"toy_backbone": BackboneFacts("of a test", True, 16),',
        f"{LIB}/classify/backbones.py",
        "def toy_backbone(channels, classes, size):\n    return small(channels, classes, size)\n",
    ),
    "loss": (
        NETWORKS,
        '    "loss",\n    {\n',
        '"toy_loss": LossFacts("of a test"),',
        f"{LIB}/classify/losses.py",
        "def toy_loss(positives, count):\n    return bce(positives, count)\n",
    ),
    "encoder architecture": (
        f"{LIB}/fidelity/encoder_choices.py",
        '    "encoder architecture",\n    {\n',
        '"toy_encoder": ArchitectureFacts("of a test"),',
        f"{LIB}/fidelity/encoder_networks.py",
        "def toy_encoder(weights):\n"
        "    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))\n"
        "    network.load_state_dict(weights)\n"
        "    return network, 4\n",
    ),
}
SYNTHETIC_SET = {
    "name": "toys",
    "generator": "toys",
    "labels": "toy_plan",
    "count": 30,
    "sampler": "toy_sampler",
    "evaluations": 4,
    "guidance": {"scale": 1, "interval": [0, 99]},
    "clip": True,
    "batch": 30,
}
ARM = {"name": "toys", "method": "toy_method", "synthetic_set": "toys", "ratio": 1.0}


def overlay(checkout: Checkout) -> str:
    """A preset in which every kind of choice is the new one."""
    encoder = {"2.weight": torch.randn(3, 16), "2.bias": torch.zeros(3)}
    save_file(encoder, checkout.folder / "encoder.safetensors")
    generators = yaml.safe_load((checkout.folder / "presets" / "ci.yaml").read_text(encoding="utf-8"))["generators"]
    minimal = next(entry for entry in generators if entry["network"] == "minimal")
    changes = {"name": "toys", "network": "toy_network", "objective": "toy_objective", "pixels": "standardised"}
    own = {"weights": "encoder.safetensors", "architecture": "toy_encoder", "channels": None, "size": None}
    preset = {
        "generators": [minimal | changes | {"steps": 2, "labels": "multi_hot"}],
        "synthetic_sets": [SYNTHETIC_SET],
        "train_classifier": {"steps": 4, "backbone": "toy_backbone", "loss": "toy_loss"},
        "arms": [{"name": "real_only", "method": "real_only"}, ARM],
        "analysis": {"primary_arm": "toys"},
        "assess_synthetic": {"encoder": own | {"normalise": None}, "images": 60, "draws": 10},
    }
    (checkout.folder / "toys.yaml").write_text(json.dumps(preset), encoding="utf-8")
    return "toys.yaml"


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with one further choice of every kind."""
    checkout = Checkout.fresh(tmp_path_factory.mktemp("registries"))
    for listed, before, line, module, function in TOYS.values():
        checkout.edit(listed, before, f"{before}        {line}\n")
        checkout.edit(module, None, f"\n\n{function}")
    return checkout


def test_one_function_and_one_line_add_a_choice_of_every_kind(extended: Checkout) -> None:
    fold = "results/ci/repeat0/fold0"
    targets = (f"{fold}/arms/job0.json", f"{fold}/synthetic/toys.assess.json")
    extended.snakemake("--configfile", "presets/ci.yaml", overlay(extended), "--", *targets)
    folder = extended.folder / fold
    generator = generator_file.read(folder / "generators" / "toys.safetensors")
    assert (generator.settings["network"], generator.settings["objective"]) == ("toy_network", "toy_objective")
    with ImageSet(folder / "synthetic" / "toys.h5") as made:
        synthetic_set = json.loads(made.attrs["synthetic_set"])
        assert len(made) == 30 and (synthetic_set["labels"], synthetic_set["sampler"]) == ("toy_plan", "toy_sampler")
    settings = classifier_file.read(folder / "arms" / "toys" / "classifier.safetensors").settings
    assert [settings[key] for key in ("method", "backbone", "loss")] == ["toy_method", "toy_backbone", "toy_loss"]
    about = json.loads((extended.folder / targets[1]).read_text(encoding="utf-8"))
    assert about["encoder"]["name"].startswith("toy_encoder")


WRONG = {
    "sampler": {"synthetic_sets": [SYNTHETIC_SET | {"sampler": "none"}]},
    "label plan": {"synthetic_sets": [SYNTHETIC_SET | {"labels": "none"}]},
    "loss": {"train_classifier": {"loss": "none"}},
    "backbone": {"train_classifier": {"backbone": "none"}},
    "method": {"arms": [ARM | {"method": "none"}]},
}
SAY = """
import json, sys, yaml
from snakemake.utils import update_config
from workflow_scripts.lib.config import check
for wrong in json.loads(sys.argv[1]):
    config = yaml.safe_load(open("config.yaml"))
    update_config(config, wrong)
    try:
        check.check(config)
    except check.ConfigError as error:
        print(error)
"""


def test_messages_list_the_new_choice(extended: Checkout) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAY, json.dumps(list(WRONG.values()))],
        cwd=extended.folder,
        env=extended.environment() | {"PYTHONPATH": str(extended.folder)},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(WRONG), done.stderr
    for kind, line in zip(WRONG, lines, strict=True):
        assert TOYS[kind][2].split('"')[1] in line
