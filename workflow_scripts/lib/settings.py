"""The config of a run: checked against the schema, references between its lists resolved, before any job starts.

Imported by the Snakefile at every start, so it must stay light: no torch, no pandas."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, relevance

from workflow_scripts.lib import arms, generators, label_maps, manifest, sources

Config = dict[str, Any]
SIMULATED_CHANNELS = ("red", "green", "blue", "yellow")


class ConfigError(Exception):
    """What is wrong with the config, in one line that names the key."""


def check(config: Config, schema: Path) -> Config:
    """The config with references resolved; the first thing wrong with it ends in a ConfigError."""
    validator = Draft202012Validator(json.loads(schema.read_text(encoding="utf-8")))
    errors = sorted(validator.iter_errors(config), key=lambda error: [str(part) for part in error.absolute_path])
    if errors:
        raise ConfigError(_say(errors[0]) + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""))
    for section in ("generators", "plans", "strategies"):
        _check_names(config[section], section)
    config = config | {"data": _with_paths(config["data"])}
    _check_data(config)
    _check_folds(config["make_folds"])
    _check_plans(config)
    config = config | {"strategies": [_check_strategy(entry, config) for entry in config["strategies"]]}
    problem = arms.analysis_problem(config["analysis"], config["strategies"], config["train_classifier"])
    if problem:
        raise ConfigError(problem)
    baseline = by_name(config, "strategies")[config["analysis"]["baseline"]]
    if waits(baseline, config):
        raise ConfigError(
            f"analysis.baseline = {baseline['name']!r} needs a trained baseline itself, by its method or its plan: "
            "take an arm that needs none, such as real_only"
        )
    return config


def by_name(config: Config, section: str) -> dict[str, Config]:
    """The entries of one of the lists, by name."""
    return {entry["name"]: entry for entry in config[section]}


def batches(config: Config) -> list[list[Config]]:
    """The arms in jobs of `compute.arms_per_job`, in the order of the list; the baseline is in the first job.

    Where arms wait for the trained baseline, it has a job of its own, so that they wait for nothing else."""
    size = config["compute"]["arms_per_job"]
    first = [entry for entry in config["strategies"] if entry["name"] == config["analysis"]["baseline"]]
    others = [entry for entry in config["strategies"] if entry not in first]
    waiting = [entry for entry in others if waits(entry, config)]
    ready = [entry for entry in others if entry not in waiting]
    queues = [first, ready, waiting] if waiting else [first + ready]
    return [queue[start : start + size] for queue in queues for start in range(0, len(queue), size)]


def waits(entry: Config, config: Config) -> bool:
    """Whether an arm can be trained only after the fold's baseline: by its method, or because its plan asks it."""
    plan = by_name(config, "plans").get(entry.get("plan", ""))
    return arms.METHODS[entry["method"]].needs_baseline or (plan is not None and generators.asks_baseline(plan))


def judge_settings(config: Config) -> Config:
    """What decides about the independent judge: cells as in the run, and the training of the plain baseline."""
    entry = arms.effective({"name": "judge", "method": "real_only"}, config["train_classifier"])
    return {
        "simulate_cells": {key: value for key, value in config["simulate_cells"].items() if key != "processes"},
        "data": {name: described_data(config)[name] for name in ("label_map", "unmapped", "emptied")},
        "channels": config["preprocess_images"]["channels"],
        "training": entry | {"channels": None, "weights": None, "frozen": False},
    }


def used_plans(config: Config) -> list[str]:
    """Plans that some arm trains with; only these are sampled."""
    used = {entry["plan"] for entry in config["strategies"] if "plan" in entry}
    return [plan["name"] for plan in config["plans"] if plan["name"] in used]


def described_data(config: Config) -> Config:
    """What preprocess_images must know of the data beyond its files: the config, and what its source is known to be."""
    return sources.described(config["data"])


def reading(config: Config) -> Config:
    """The settings by which images are read; not by how many jobs, as the set is the same for any number."""
    section = {name: value for name, value in config["preprocess_images"].items() if name != "shards"}
    return section | {"data": described_data(config)}


def _say(error: ValidationError) -> str:
    # Of alternatives (anyOf), the one that came closest tells what is wrong.
    while error.context:
        error = max(error.context, key=relevance)
    where = _path(list(error.absolute_path))
    kind, limit, value = error.validator, error.validator_value, error.instance
    if kind == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = next(name for name in value if name not in known)
        return f"{_path([*error.absolute_path, unknown])} is not a known key; known here: {', '.join(sorted(known))}"
    if kind == "required":
        absent = next(name for name in limit if name not in value)
        return f"{_path([*error.absolute_path, absent])} is missing"
    rules = {
        "type": lambda: f"must be of type {' or '.join(limit) if isinstance(limit, list) else limit}",
        "enum": lambda: f"must be one of {', '.join(map(str, limit))}",
        "minimum": lambda: f"must be at least {limit}",
        "maximum": lambda: f"must be at most {limit}",
        "exclusiveMinimum": lambda: f"must be more than {limit}",
        "exclusiveMaximum": lambda: f"must be less than {limit}",
        "minItems": lambda: f"needs at least {limit} entries",
        "maxItems": lambda: f"may have at most {limit} entries",
        "multipleOf": lambda: f"must be a multiple of {limit}",
        "uniqueItems": lambda: "must not name anything twice",
        "pattern": lambda: error.schema.get("description", f"must match {limit}"),
    }
    rule = rules.get(kind, lambda: error.message)()
    return f"{where} = {_short(value)}: {rule}"


def _path(parts: list[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return _one_line(text.removeprefix(".")) or "the config"


def _short(value: Any) -> str:
    text = _one_line(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else text[:77] + "..."


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _check_names(entries: list[Config], section: str) -> None:
    seen: set[str] = set()
    for entry in entries:
        # Case-blind, because some file systems are.
        if entry["name"].lower() in seen:
            raise ConfigError(f"{section}: the name {entry['name']!r} is given twice")
        seen.add(entry["name"].lower())


def _with_paths(data: Config) -> Config:
    """Paths with the environment's variables filled in, so that a preset need not know where data lies."""
    out = dict(data)
    for key in ("images", "table", "groups", "classes"):
        if data[key]:
            out[key] = os.path.expandvars(data[key])
            unset = re.search(r"\$\{?(\w+)", out[key])
            if unset and data["source"] != "simulated":
                raise ConfigError(
                    f"data.{key} = {_short(data[key])}: the environment variable {unset[1]} is not set; "
                    "export it, or give the path by --config"
                )
    return out


def _check_data(config: Config) -> None:
    data = config["data"]
    if isinstance(data["label_map"], str) and data["label_map"] not in label_maps.BUILT_IN:
        raise ConfigError(
            f"data.label_map = {_short(data['label_map'])} is not known; built in: {', '.join(label_maps.BUILT_IN)}"
        )
    if isinstance(data["class_names"], str) and data["class_names"] not in label_maps.NUMBERINGS:
        raise ConfigError(
            f"data.class_names = {_short(data['class_names'])} is not known; known: {', '.join(label_maps.NUMBERINGS)}"
        )
    if data["source"] == "simulated":
        _check_simulated(config["simulate_cells"], config["preprocess_images"])
        return
    needed = {"folder": ("images", "table"), "public": ("table",)}.get(data["source"], ())
    for key in (*needed, *(("table",) if data["images"] else ())):
        if not data[key]:
            raise ConfigError(f"data.{key} is missing: data.source {data['source']!r} needs the path")
    for key in ("images", "table", "groups", "classes"):
        if data[key] and not Path(data[key]).exists():
            raise ConfigError(f"data.{key} = {_short(data[key])}: there is no such file or folder")
    described = sources.described(data)
    if described["labels"] == "numbers" and not data["classes"] and not described["class_names"]:
        raise ConfigError("data.class_names is empty and data.classes names no table: the classes need names")
    channels = config["preprocess_images"]["channels"]
    listed = described["files"] if isinstance(described["files"], dict) else data["file_channels"]
    absent = [channel for channel in channels if listed is not None and channel not in listed]
    if absent:
        key = "files" if isinstance(described["files"], dict) else "file_channels"
        raise ConfigError(f"data.{key} has no channel {absent[0]!r}, which preprocess_images.channels names")
    if data["source"] == "public" and not data["images"]:
        fetched = config["fetch_images"]
        problem = manifest.template_problem(fetched["url"]) or manifest.colours_problem(fetched["colours"], channels)
        if problem:
            raise ConfigError(problem)


def _check_simulated(cells: Config, images: Config) -> None:
    # The judge of generated cells is trained on cells as they are simulated, which must be as the run sees them.
    if images["size"] != cells["size"]:
        raise ConfigError(
            f"preprocess_images.size = {images['size']} must equal simulate_cells.size = {cells['size']}: "
            "simulated cells are drawn at the size asked for"
        )
    if images["intensity"] != "fixed":
        raise ConfigError("preprocess_images.intensity must be fixed where cells are simulated")
    for name in images["channels"]:
        if name not in SIMULATED_CHANNELS:
            raise ConfigError(
                f"preprocess_images.channels names {name!r}; simulated cells have {', '.join(SIMULATED_CHANNELS)}"
            )


def _check_folds(section: Config) -> None:
    shares = section["shares"]
    tested = section["folds"] * shares["test"] + shares["lockbox"]
    # Where a value of a column is left out, the images that have it are the test part, however many they are.
    if tested > 1 + 1e-9 and not section["leave_out"]:
        raise ConfigError(
            f"make_folds.shares.test = {shares['test']}: {section['folds']} folds with test parts that do not overlap "
            f"and the lockbox need {tested:g} of the images"
        )
    if sum(shares.values()) >= 1 - 1e-9:
        raise ConfigError(f"make_folds.shares add up to {sum(shares.values()):g}: nothing is left to train on")


def _check_plans(config: Config) -> None:
    known, images = by_name(config, "generators"), config["preprocess_images"]
    for name, generator in known.items():
        problem = generators.generator_problem(generator, images["size"], len(images["channels"]))
        if problem:
            raise ConfigError(f"generators ({name}): {problem}")
    for plan in config["plans"]:
        if plan["generator"] not in known:
            raise ConfigError(
                f"plans ({plan['name']}).generator = {plan['generator']!r} is not defined; "
                f"known: {', '.join(known) or 'none'}"
            )
        problem = generators.plan_problem(plan, known[plan["generator"]], images["channels"])
        if problem:
            raise ConfigError(f"plans ({plan['name']}): {problem}")


def _check_strategy(entry: Config, config: Config) -> Config:
    where = f"strategies ({entry['name']})"
    method = arms.METHODS.get(entry["method"])
    if method is None:
        raise ConfigError(f"{where}.method = {entry['method']!r} is not known; known: {', '.join(arms.METHODS)}")
    plans = by_name(config, "plans")
    if method.needs_plan and "plan" not in entry:
        raise ConfigError(f"{where}.plan is missing: the method {entry['method']!r} needs one of {', '.join(plans)}")
    if "plan" in entry and not method.needs_plan:
        raise ConfigError(f"{where}.plan is given, but the method {entry['method']!r} uses no synthetic images")
    if "plan" in entry and entry["plan"] not in plans:
        raise ConfigError(f"{where}.plan = {entry['plan']!r} is not defined; known: {', '.join(plans) or 'none'}")
    images = config["preprocess_images"]
    problem = arms.problem(entry, config["train_classifier"], images["channels"], images["size"])
    if problem:
        raise ConfigError(f"{where}: {problem}")
    return entry
