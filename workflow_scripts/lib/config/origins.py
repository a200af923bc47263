"""Generators that come from a file of another run: `from: path` takes all keys that the entry does not give from there.

Everything is filled in before the config is checked, so that a file can say nothing that a config could not. `{repeat}`
and `{fold}` in the path stand for the numbers of each fold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from workflow_scripts.lib.config.models_generate import Generator
from workflow_scripts.lib.config.problems import Config, ConfigError, short
from workflow_scripts.lib.generate import generator_header
from workflow_scripts.lib.generate.generator_header import Header

FROM = "from"
# Keys of an entry's own: what it is called, what it sees here, and for how long it is trained on.
OWN = {FROM, "name", "base", "regime", "sees", "pseudo_labels_from", "steps"}


def fill_in(config: Config) -> Config:
    """The config with generators complete that come from a file; an entry without `steps` is only sampled."""
    entries = config.get("generators") if isinstance(config, dict) else None
    if not isinstance(entries, list):
        return config
    return config | {"generators": [_complete(entry) for entry in entries]}


def _complete(entry: Any) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get(FROM), str):
        return entry
    known = {name: value for name, value in header(entry).settings.items() if name in Generator.model_fields}
    taken = {name: value for name, value in known.items() if name not in OWN}
    return taken | {"steps": 0} | entry


def place(entry: Config, repeat: int | str = 0, fold: int | str = 0) -> str:
    """Path of the file that a generator of a fold comes from, with the environment's variables filled in."""
    path = os.path.expandvars(entry[FROM])
    return path.replace("{repeat}", str(repeat)).replace("{fold}", str(fold))


def header(entry: Config, repeat: int | str = 0, fold: int | str = 0) -> Header:
    """What the file says about itself; a ConfigError where it is not there, or no generator."""
    path = place(entry, repeat, fold)
    try:
        if not path.endswith(".safetensors"):
            raise ValueError("it must end in .safetensors, as other formats are not read")
        return generator_header.read(Path(path))
    except FileNotFoundError:
        reason = f"there is no file {path}"
    except (OSError, ValueError) as error:
        reason = f"{path} cannot be read: {error.strerror if isinstance(error, OSError) else error}"
    raise ConfigError(f"generators ({entry.get('name')}).from = {short(entry[FROM])}: {reason}") from None


def problem(entry: Config, images: Config, repeats: int, folds: int) -> str | None:
    """Why a generator cannot come from its files, in one line; None where it can, or comes from none."""
    if not entry.get(FROM):
        return None if entry["steps"] else "steps is 0, and there is no file that it comes from: give steps, or from"
    for repeat in range(repeats):
        for fold in range(folds):
            found = header(entry, repeat, fold)
            if text := generator_header.problem(found, entry, images["size"], images["channels"]):
                return text
            if place(entry, repeat, fold) == place(entry, "", ""):
                return None  # one file for all folds
    return None
