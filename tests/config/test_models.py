"""The models of the config know the keys of config.yaml and no others; their choices are those of the code."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel

from tests.helpers.configs import DEFAULT
from workflow_scripts.lib.classify import arm_choices, arm_settings, network_choices
from workflow_scripts.lib.config import models, models_simulate, schema
from workflow_scripts.lib.config.models_classify import Arm, Losses, TrainClassifier
from workflow_scripts.lib.download.http_client import Policy
from workflow_scripts.lib.generate import generator_choices, label_plans
from workflow_scripts.lib.simulate import laboratory
from workflow_scripts.lib.simulate.protein_labels import COMPARTMENTS

LISTED = {
    "Arm",
    "_Arm",
    "Generator",
    "SyntheticSet",
    "Guidance",
    "Cells",
    "Columns",
    "Checksums",
    "ReplayTraining",
    "FurtherImages",
}


def all_models(kind: type[BaseModel] = models.Section) -> list[type[BaseModel]]:
    """Every model of the config."""
    return [model for child in kind.__subclasses__() for model in [child, *all_models(child)]]


@pytest.mark.parametrize("model", all_models(), ids=lambda model: model.__name__)
def test_every_key_is_described_in_plain_words(model: type[BaseModel]) -> None:
    assert (model.__doc__ or "").endswith(".")
    for name, field in model.model_fields.items():
        text = field.description or ""
        assert text.endswith((".", ")")), name
        for sentence in re.split(r"[.;] ", text):
            # Descriptions of the study's choices are those of switches.py.
            assert len(sentence.split()) <= 25 or model.__name__ == "Replay", f"{name}: {sentence}"


def test_defaults_stand_in_the_config_alone() -> None:
    for model in all_models():
        given = {name for name, field in model.model_fields.items() if not field.is_required()}
        assert not given or model.__name__ in LISTED, f"{model.__name__}: {given}"
        assert all(model.model_fields[name].default is None for name in given)


def test_the_config_names_every_key_in_the_order_of_the_models() -> None:
    def compare(part: schema.Schema, value: Any, where: str) -> None:
        if (
            isinstance(value, dict)
            and "properties" in part
            and set(part["properties"]) != set(network_choices.PUBLISHED)
        ):
            optional = where in ("forensics.training",)
            assert list(value) == list(part["properties"]) or optional, where
            for name, inner in value.items():
                for branch in schema.branches(part["properties"][name]):
                    compare(branch, inner, f"{where}.{name}".lstrip("."))

    compare(schema.schema(), DEFAULT, "")


def test_an_arm_may_replace_what_its_method_uses() -> None:
    options = {*arm_settings.COMMON_OPTIONS, *arm_settings.METHOD_OPTIONS}
    assert set(Arm.model_fields) == {*arm_settings.NAMING, *options, "base"}
    for name in options:
        own, shared = Arm.model_fields[name], TrainClassifier.model_fields[name]
        assert own.annotation == shared.annotation and own.metadata == shared.metadata, name
        assert shared.is_required() and not own.is_required()


def test_choices_are_those_of_the_code() -> None:
    assert set(Losses.model_fields) < set(network_choices.LOSSES)
    assert set(models_simulate.Variance.model_fields) == set(laboratory.LEVELS)
    assert schema.at(["simulate_cells", "plants", "effect_class"])[0]["enum"] == ["", *COMPARTMENTS]
    assert set(Policy.__dataclass_fields__) < set(models.FetchImages.model_fields)
    for name in generator_choices.LABEL_PLANS:
        assert callable(getattr(label_plans, name))


def test_every_list_of_choices_can_be_had() -> None:
    """What a registry names the schema names too, so that neither is a second list."""
    for path, names in {
        ("arms", 0, "method"): arm_choices.METHODS,
        ("train_classifier", "backbone"): network_choices.BACKBONES,
        ("train_classifier", "loss"): network_choices.LOSSES,
        ("generators", 0, "objective"): generator_choices.OBJECTIVES,
        ("synthetic_sets", 0, "sampler"): generator_choices.SAMPLERS,
        ("synthetic_sets", 0, "labels"): generator_choices.LABEL_PLANS,
    }.items():
        assert schema.at(list(path))[0]["enum"] == list(names)
    assert tuple(schema.at(["fetch_weights", "sha256"])[0]["properties"]) == network_choices.PUBLISHED
