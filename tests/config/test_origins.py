"""lib.config.origins: generators that come from a file take their keys from it, and what does not fit is named."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

from tests.helpers.configs import SHIPPED, overlaid
from workflow_scripts.lib.config import check, document, origins, stage_views
from workflow_scripts.lib.config.problems import ConfigError
from workflow_scripts.lib.generate import generator_file
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.generator_training import Pixels
from workflow_scripts.lib.images.access_record import AccessRecord

CHANNELS, SIZE = SHIPPED["preprocess_images"]["channels"], SHIPPED["preprocess_images"]["size"]
THEIRS = next(entry for entry in SHIPPED["generators"] if entry["name"] == "unet") | {
    "widths": [16, 16, 16],
    "name": "old",
}


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A file as train_ddpm writes it, with hardly any weights."""
    path = tmp_path / "theirs.safetensors"
    write(path)
    return path


def write(path: Path, channels: list[str] = CHANNELS, size: int = SIZE, **settings: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    told = THEIRS | {"column_values": {}, "regime": {"name": "few"}} | settings
    pixels = Pixels(torch.zeros(len(channels)), torch.ones(len(channels)))
    record = AccessRecord("digest", 3)
    weights = {"a": torch.zeros(2)}
    generator_file.write(path, Generator(0, 0, told, channels, ["x"], size, pixels, record, "d1", 1.0, weights))


def checked(**entry: object) -> dict:
    """The generator of a run whose set `balanced` is drawn from it."""
    overlay = {
        "generators": [{"name": "theirs"} | entry],
        "synthetic_sets": [{"base": "balanced", "generator": "theirs"}],
        "arms": [
            {"base": "real_only"},
            {"base": "pool", "synthetic_set": "balanced"},
            {"base": "resample_real", "synthetic_set": "balanced"},
        ],
    }
    config = check.check(overlaid(SHIPPED, overlay))
    return next(made for made in config["generators"] if made["name"] == "theirs")


def test_a_file_gives_all_keys_and_is_sampled_as_it_is(origin: Path) -> None:
    found = checked(**{"from": str(origin)})
    assert found == THEIRS | {"name": "theirs", "from": str(origin), "steps": 0}
    more = checked(**{"from": str(origin), "steps": 50, "learning_rate": 0.001})
    assert (more["steps"], more["learning_rate"], more["widths"]) == (50, 0.001, [16, 16, 16])


def test_the_path_is_no_setting_of_the_stage_and_stands_for_each_fold(tmp_path: Path) -> None:
    write(tmp_path / "repeat0" / "fold0" / "g.safetensors")
    for fold in ("repeat1/fold0", "repeat2/fold0"):
        shutil.copytree(tmp_path / "repeat0" / "fold0", tmp_path / fold)
    pattern = str(tmp_path / "repeat{repeat}" / "fold{fold}" / "g.safetensors")
    found = checked(**{"from": pattern})
    assert origins.place(found, 2, 0) == str(tmp_path / "repeat2" / "fold0" / "g.safetensors")
    config = {"generators": [found], "regimes": [], "data": SHIPPED["data"], "make_folds": SHIPPED["make_folds"]}
    assert "from" not in stage_views.entry_settings(config, "generators", "theirs")
    (tmp_path / "repeat1" / "fold0" / "g.safetensors").unlink()
    with pytest.raises(check.ConfigError, match=r"generators \(theirs\)\.from = .*there is no file .*repeat1/fold0"):
        checked(**{"from": pattern})


@pytest.mark.parametrize(
    ("file", "entry", "words"),
    [
        (
            {},
            {"widths": [16, 16, 32]},
            "widths is [16, 16, 32], and [16, 16, 16] in the file that it comes from: leave the key out",
        ),
        ({}, {"base": "unet"}, "widths is"),
        (
            {"channels": CHANNELS[::-1]},
            {},
            f"of the channels {', '.join(CHANNELS[::-1])}, and preprocess_images.channels",
        ),
        ({"size": 64}, {}, "of images of 64 px, and preprocess_images.size is"),
        ({"widths": [16, 4096, 16]}, {}, "widths[1] = 4096: must be"),
        ({"beta1": "x"}, {}, 'beta1 = "x": must be'),
    ],
)
def test_what_does_not_fit_is_one_line(origin: Path, file: dict, entry: dict, words: str) -> None:
    write(origin, **file)
    with pytest.raises(check.ConfigError, match=re.escape(words)) as error:
        checked(**{"from": str(origin)} | entry)
    assert "\n" not in str(error.value)


def test_what_is_no_generator_is_one_line(origin: Path, tmp_path: Path) -> None:
    for path, content, words in (
        (origin, b"PK\x03\x04 no weights at all", "cannot be read: it is no safetensors file"),
        (tmp_path / "theirs.pt", b"", "it must end in .safetensors"),
    ):
        path.write_bytes(content)
        with pytest.raises(check.ConfigError, match=re.escape(words)):
            checked(**{"from": str(path)})


def test_no_steps_need_a_file() -> None:
    with pytest.raises(check.ConfigError, match=r"generators \(theirs\): steps is 0, and there is no file"):
        checked(base="unet", steps=0)


def test_the_schema_knows_the_key() -> None:
    validator = Draft202012Validator(json.loads(document.schema_text()))
    assert validator.is_valid({"generators": [{"name": "a", "from": "b.safetensors", "steps": 0}]})
    assert not validator.is_valid({"generators": [{"name": "a", "from_": "b.safetensors"}]})
    assert not validator.is_valid({"generators": [{"name": "a", "from": "b.pt"}]})


@pytest.mark.parametrize(
    ("key", "value"), [("label_dropout", 0.4), ("turn_images", False), ("reference_fraction", 0.7)]
)
def test_what_a_network_was_shown_is_told_by_its_file_unless_it_is_trained_on(
    origin: Path, key: str, value: object
) -> None:
    write(origin, reference_channels=[CHANNELS[0]], reference_fraction=0.5)
    with pytest.raises(ConfigError, match=f"{key} is .* in the file that is sampled as it is: leave the key out"):
        checked(**{"from": str(origin), key: value})
    assert checked(**{"from": str(origin), key: value, "steps": 100})[key] == value
