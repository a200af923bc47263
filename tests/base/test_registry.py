"""Registries: every entry has one line about it and a function, and a name that is not listed is refused by name."""

from __future__ import annotations

from types import ModuleType

import pytest

from workflow_scripts.lib.base.registry import Registry
from workflow_scripts.lib.classify import (
    arm_choices,
    backbones,
    losses,
    method_steps,
    network_choices,
    second_source,
    source_choices,
)
from workflow_scripts.lib.generate import column_plans, diffusion, generator_choices, label_plans, networks, sampling
from workflow_scripts.lib.images import corruption_choices, corruptions

ALL = [
    (generator_choices.NETWORKS, networks),
    (generator_choices.OBJECTIVES, diffusion),
    (generator_choices.SAMPLERS, sampling),
    (generator_choices.LABEL_PLANS, label_plans),
    (generator_choices.COLUMN_PLANS, column_plans),
    (source_choices.SOURCES, second_source),
    (arm_choices.METHODS, method_steps),
    (network_choices.BACKBONES, backbones),
    (network_choices.LOSSES, losses),
    (corruption_choices.CORRUPTIONS, corruptions),
]


@pytest.mark.parametrize(("registry", "module"), ALL, ids=lambda value: getattr(value, "kind", ""))
def test_every_entry_has_a_function_and_one_line_about_it(registry: Registry, module: ModuleType) -> None:
    for name, about in registry.descriptions().items():
        assert callable(registry.function(name, vars(module)))
        assert about and "\n" not in about and len(about) <= 110


def test_a_name_without_an_entry_or_without_a_function_is_refused() -> None:
    samplers = generator_choices.SAMPLERS
    with pytest.raises(ValueError, match="sampler 'leap' is not known; known: ancestral, ddim"):
        samplers.function("leap", vars(sampling))
    with pytest.raises(LookupError, match="no function 'ddim'"):
        samplers.function("ddim", {"__name__": "elsewhere"})


def test_entries_are_found_by_a_fact() -> None:
    assert generator_choices.SAMPLERS.having("second_order") == ("heun", "dpmpp_2m", "dpmpp_2m_sde")
