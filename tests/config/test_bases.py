"""lib.config.bases: an entry takes the keys of its base, of the same list or of config.yaml."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.helpers.configs import SHIPPED, overlaid
from workflow_scripts.lib.config import bases, check, document

DEFAULTS = {section: {entry["name"]: entry for entry in SHIPPED[section]} for section in bases.LISTS}
SMALL = {
    "generators": [{"base": "unet", "steps": 200}, {"name": "slow", "base": "unet", "steps": 400}],
    "synthetic_sets": [{"name": "few", "base": "balanced", "count": 50, "guidance": {"scale": 1.5}}],
    "arms": [
        {"base": "real_only"},
        {"base": "pool", "synthetic_set": "few"},
        {"base": "resample_real", "synthetic_set": "few"},
    ],
}


def checked(overlay: dict) -> dict:
    return check.check(overlaid(SHIPPED, overlay))


def test_a_small_run_needs_two_keys_an_entry() -> None:
    config = checked(SMALL)
    first, second = config["generators"]
    assert first == DEFAULTS["generators"]["unet"] | {"steps": 200}
    assert second == first | {"name": "slow", "steps": 400}, "its base is the entry of its own list"
    [few] = config["synthetic_sets"]
    guidance = DEFAULTS["synthetic_sets"]["balanced"]["guidance"] | {"scale": 1.5}
    assert few == DEFAULTS["synthetic_sets"]["balanced"] | {"name": "few", "count": 50, "guidance": guidance}
    assert [entry["name"] for entry in config["arms"]] == ["real_only", "pool", "resample_real"]


def test_written_out_it_is_the_same_run() -> None:
    written = {section: checked(SMALL)[section] for section in bases.LISTS}
    assert json.dumps(checked(json.loads(json.dumps(written)))) == json.dumps(checked(SMALL))


@pytest.mark.parametrize(
    ("overlay", "told"),
    [
        ({"generators": [{"base": "Unett"}]}, "generators: base = \"Unett\" is no entry (did you mean unet?)"),
        ({"generators": [{"base": ["unet"]}]}, "generators: base = [\"unet\"] is no entry"),
        ({"arms": [{"name": "a", "base": "b"}, {"name": "b", "base": "a"}]}, "arms: base = \"b\" leads back"),
        ({"arms": [{"name": "a", "base": "a"}]}, "arms: base = \"a\" is no entry"),
        ({"generators": [{"base": "unet", "step": 1}]}, "generators[0].step is not a known key (did you mean steps?)"),
        ({"generators": [{"name": "unet", "steps": 200}]}, "base: NAME takes all other keys from an entry of config"),
        ({"generators": [{"name": "mine", "base": "unet"}]}, "which has it: add {base: protein} to generators"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(overlay: dict, told: str) -> None:
    with pytest.raises(check.ConfigError) as caught:
        checked(overlay)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_editors_ask_for_the_other_keys_where_there_is_no_base() -> None:
    validator = Draft202012Validator(json.loads(document.schema_text()))
    small = SMALL | {"synthetic_sets": [{"name": "few", "base": "balanced", "count": 50}]}
    assert not list(validator.iter_errors(small)) and not list(validator.iter_errors(SHIPPED))
    errors = list(validator.iter_errors({"generators": [{"name": "unet", "steps": 200}]}))
    assert any("'network' is a required property" in error.message for error in errors)


def test_the_example_of_the_documentation_is_sound() -> None:
    text = (bases.DEFAULTS.parent / "docs" / "running.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```yaml\n(# small\.yaml\n.*?)```", text, re.DOTALL)
    config = checked(yaml.safe_load(example))
    assert [entry["steps"] for entry in config["generators"]] == [200]
