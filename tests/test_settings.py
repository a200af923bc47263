"""The config: the default and all presets are sound, and whatever is wrong is told in one line that names it."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import yaml

from workflow_scripts.lib import settings

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "schemas" / "config.schema.json"
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


def overlaid(base: object, overlay: object) -> object:
    """As Snakemake lays one config over another: mappings merge, everything else is replaced."""
    if isinstance(base, dict) and isinstance(overlay, dict):
        return base | {key: overlaid(base.get(key), value) for key, value in overlay.items()}
    return copy.deepcopy(overlay)


def checked(overlay: dict) -> dict:
    return settings.check(overlaid(DEFAULT, overlay), SCHEMA)


def strategy(name: str, **changes: object) -> dict:
    """The default strategies with one entry changed; a value of None takes the key out."""
    entries = copy.deepcopy(DEFAULT["strategies"])
    entry = next(entry for entry in entries if entry["name"] == name)
    for key, value in changes.items():
        entry.pop(key, None)
        if value is not None:
            entry[key] = value
    return {"strategies": entries}


def plan(**changes: object) -> dict:
    return {"plans": [DEFAULT["plans"][0] | changes, *DEFAULT["plans"][1:]]}


def generator(**changes: object) -> dict:
    return {"generators": [DEFAULT["generators"][0] | changes, *DEFAULT["generators"][1:]]}


def test_default_is_sound() -> None:
    assert checked({})["run"] == "demo"


@pytest.mark.parametrize("preset", sorted(path.name for path in (ROOT / "presets").glob("*.yaml")))
def test_presets_are_sound(preset: str, tmp_path: Path) -> None:
    overlay = yaml.safe_load((ROOT / "presets" / preset).read_text(encoding="utf-8"))
    # A preset for images of one's own leaves their place open.
    for key in ("images", "table", "groups"):
        if overlay.get("data", {}).get("source") == "folder":
            (tmp_path / key).touch()
            overlay["data"][key] = str(tmp_path / key)
    checked(overlay)


@pytest.mark.parametrize(
    ("overlay", "named"),
    [
        ({"seeds": 1}, ["seeds", "not a known key"]),
        ({"seed": "one"}, ["seed", "one", "integer"]),
        ({"seed": -1}, ["seed", "at least 0"]),
        ({"run": "../up"}, ["run", "letters"]),
        ({"run": "a$(touch x)"}, ["run"]),
        ({"make_folds": {"shares": {"test": 0.6}}}, ["make_folds.shares.test", "2 folds"]),
        ({"make_folds": {"shares": {"test": 0.5, "calibration": 0.3, "validation": 0.3}}}, ["make_folds.shares"]),
        ({"preprocess_images": {"size": 33}}, ["preprocess_images.size", "multiple of 8"]),
        ({"data": {"source": "web"}}, ["data.source", "simulated"]),
        ({"data": {"source": "folder"}}, ["data.images"]),
        ({"data": {"source": "folder", "images": "/nowhere", "table": "/nowhere"}}, ["data.images", "/nowhere"]),
        (plan(generator="nobody"), ["plans", "nobody", "unet"]),
        (plan(sampler="guess"), ["plans[0].sampler", "guess"]),
        (plan(guidance={"scale": 1.5, "interval": [3, 2]}), ["balanced", "interval"]),
        (plan(evaluations=2), ["plans[0].evaluations", "at least"]),
        (generator(name="minimal"), ["minimal", "twice"]),
        (generator(label_dropout=0), ["guidance", "label_dropout"]),
        (generator(widths=[32]), ["unet", "widths"]),
        (strategy("pool", plan="elsewhere"), ["pool", "elsewhere"]),
        (strategy("pool", plan=None), ["pool", "plan is missing"]),
        (strategy("real_only", plan="balanced"), ["real_only", "plan"]),
        (strategy("pool", method="stir"), ["pool", "stir"]),
        (strategy("pool", control="nobody"), ["pool", "control", "nobody"]),
        (strategy("pool", control="pool"), ["pool", "control"]),
        (strategy("pool", alpha=0.3), ["pool", "alpha"]),
        (strategy("pool", ratio=1e-4), ["strategies[2].ratio", "at least"]),
        (strategy("pool", backbone="vgg"), ["backbone", "vgg"]),
        ({"strategies": []}, ["strategies"]),
        ({"analysis": {"primary_arm": "nobody"}}, ["analysis", "primary_arm", "nobody"]),
        ({"analysis": {"family": ["pool"], "primary_arm": "mix_loss"}}, ["analysis", "family"]),
        ({"violations": ["something"]}, ["violations[0]"]),
    ],
)
def test_what_is_wrong_is_named_in_one_line(overlay: dict, named: list[str]) -> None:
    with pytest.raises(settings.ConfigError) as caught:
        checked(overlay)
    text = str(caught.value)
    assert "\n" not in text
    for word in named:
        assert word in text, text


def test_control_characters_in_values_stay_on_one_line() -> None:
    with pytest.raises(settings.ConfigError) as caught:
        checked({"run": "a\nb\x1b[31m"})
    assert str(caught.value).isprintable()


def test_random_damage_never_escapes_as_another_error() -> None:
    rng = random.Random(7)
    junk = [None, -1, 0, 1e400, "", "x" * 300, [], {}, True, [None], {"a": {"b": []}}, "$(id)", 3.5]

    def damage(value: object) -> object:
        if isinstance(value, dict) and value and rng.random() < 0.9:
            key = rng.choice(list(value))
            if rng.random() < 0.1:
                return {name: item for name, item in value.items() if name != key}
            return value | {key: damage(value[key])}
        if isinstance(value, list) and value and rng.random() < 0.8:
            place = rng.randrange(len(value))
            return [*value[:place], damage(value[place]), *value[place + 1 :]]
        return rng.choice(junk)

    refused = 0
    for _ in range(400):
        try:
            settings.check(damage(DEFAULT), SCHEMA)
        except settings.ConfigError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 300
