"""The config of a run: checked against the schema, references between its lists resolved, before any job starts.

Imported by the Snakefile at every start, so it must stay light: no torch, no pandas."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError, relevance

from workflow_scripts.lib.classify import arm_choices
from workflow_scripts.lib.download import manifest
from workflow_scripts.lib.download.urls import Refused, check_url
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.images import known_datasets, label_maps
from workflow_scripts.lib.judge import declaration
from workflow_scripts.lib.study import switches

Config = dict[str, Any]
SIMULATED_CHANNELS = ("red", "green", "blue", "yellow")
# Far above any sound config; below what a recursion takes and a whole number of 64 bits holds.
DEEPEST, MOST_VALUES, LARGEST = 32, 1_000_000, 2**63


class ConfigError(Exception):
    """What is wrong with the config, in one line that names the key."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


def check(config: Config, schema: Path) -> Config:
    """The config with references resolved; the first thing wrong with it ends in a ConfigError."""
    _check_form(config)
    found = _validator(schema).iter_errors(config)
    errors = sorted(found, key=lambda error: [str(part) for part in error.absolute_path])
    if errors:
        raise ConfigError(_say(errors[0]) + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""))
    for section in ("generators", "synthetic_sets", "arms"):
        _check_names(config[section], section)
    config = config | {"data": _with_paths(config["data"])}
    _check_data(config)
    _check_folds(config["make_folds"])
    _check_sets(config)
    _check_encoder(config["assess_synthetic"]["encoder"])
    _check_compute(config)
    _check_published(config["fetch_weights"])
    config = config | {"arms": [_check_arm(entry, config) for entry in config["arms"]]}
    _check_paths(config)
    problem = declaration.analysis_problem(config["analysis"], config["arms"], config["train_classifier"])
    if problem:
        raise ConfigError(problem)
    problem = switches.problem(config)
    if problem:
        raise ConfigError(problem)
    baseline = by_name(config, "arms")[config["analysis"]["baseline"]]
    if waits(baseline, config):
        raise ConfigError(
            f"analysis.baseline = {baseline['name']!r} needs a trained baseline itself, by its method or its synthetic set: "
            "take an arm that needs none, such as real_only"
        )
    return config


def by_name(config: Config, section: str) -> dict[str, Config]:
    """The entries of one of the lists, by name."""
    return {entry["name"]: entry for entry in config[section]}


def job_lists(config: Config) -> list[list[Config]]:
    """The arms in jobs of `compute.arms_per_job`, in the order of the list; the baseline is in the first job.

    Where arms wait for the trained baseline, it has a job of its own, so that they wait for nothing else."""
    size = config["compute"]["arms_per_job"]
    first = [entry for entry in config["arms"] if entry["name"] == config["analysis"]["baseline"]]
    others = [entry for entry in config["arms"] if entry not in first]
    waiting = [entry for entry in others if waits(entry, config)]
    ready = [entry for entry in others if entry not in waiting]
    queues = [first, ready, waiting] if waiting else [first + ready]
    return [queue[start : start + size] for queue in queues for start in range(0, len(queue), size)]


def waits(entry: Config, config: Config) -> bool:
    """Whether an arm can be trained only after the fold's baseline: by its method, or because its synthetic set asks it."""
    synthetic_set = by_name(config, "synthetic_sets").get(entry.get("synthetic_set", ""))
    return arm_choices.METHODS[entry["method"]].needs_baseline or (
        synthetic_set is not None and generator_choices.asks_baseline(synthetic_set)
    )


def judge_settings(config: Config) -> Config:
    """What decides about the independent judge: cells as in the run, and the training of the plain baseline."""
    entry = arm_choices.effective({"name": "judge", "method": "real_only"}, config["train_classifier"])
    return {
        "simulate_cells": {key: value for key, value in config["simulate_cells"].items() if key != "processes"},
        "data": {name: described_data(config)[name] for name in ("label_map", "unmapped", "emptied")},
        "channels": config["preprocess_images"]["channels"],
        "training": entry | {"channels": None, "weights": None, "frozen": False},
    }


def used_sets(config: Config) -> list[str]:
    """Synthetic sets that some arm trains with; only these are sampled."""
    used = {entry["synthetic_set"] for entry in config["arms"] if "synthetic_set" in entry}
    return [synthetic_set["name"] for synthetic_set in config["synthetic_sets"] if synthetic_set["name"] in used]


def experiment(config: Config) -> Config:
    """All that decides what the arms are and on which images they are trained and tested; not how they are judged."""
    synthetic_sets = [
        synthetic_set for synthetic_set in config["synthetic_sets"] if synthetic_set["name"] in used_sets(config)
    ]
    names = {synthetic_set["generator"] for synthetic_set in synthetic_sets}
    sections = {name: config[name] for name in ("make_folds", "train_classifier", "arms", "seed")}
    return sections | {
        "images": reading(config),
        "threads": config["compute"]["threads"],
        "simulate_cells": {name: value for name, value in config["simulate_cells"].items() if name != "processes"},
        "synthetic_sets": synthetic_sets,
        "generators": [entry for entry in config["generators"] if entry["name"] in names],
    }


def described_data(config: Config) -> Config:
    """What preprocess_images must know of the data beyond its files: the config, and what its source is known to be."""
    return known_datasets.described(config["data"])


def reading(config: Config) -> Config:
    """The settings by which images are read; not by how many jobs, as the set is the same for any number."""
    section = {name: value for name, value in config["preprocess_images"].items() if name != "shards"}
    return section | {"data": described_data(config)}


def _pattern(validator: Any, pattern: str, value: Any, schema: Config) -> Iterator[ValidationError]:
    # A line break at the end is no end, and one in the middle hides nothing: Python alone takes $ and . otherwise.
    whole = pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern
    if isinstance(value, str) and not re.search(whole, value, re.DOTALL):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _is_integer(checker: Any, value: Any) -> bool:
    # JSON takes 2.0 for a whole number, range() does not.
    return isinstance(value, int) and not isinstance(value, bool)


@lru_cache
def _validator(schema: Path) -> Any:
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
    kind = validators.extend(Draft202012Validator, {"pattern": _pattern}, type_checker=types)
    return kind(json.loads(schema.read_text(encoding="utf-8")))


def _check_form(config: Config) -> None:
    """What holds for every value whatever its key: YAML can say more than a schema, JSON and a command line can."""
    waiting: list[tuple[list[str | int], Any]] = [([], config)]
    for count in range(1, MOST_VALUES + 1):
        if not waiting:
            return
        parts, value = waiting.pop()
        problem = _form_problem(parts, value)
        if problem:
            raise ConfigError(f"{_path(parts)} {problem}")
        if isinstance(value, dict):
            waiting += [([*parts, key], value[key]) for key in reversed(value)]
        elif isinstance(value, list):
            waiting += [([*parts, place], value[place]) for place in reversed(range(len(value)))]
        if len(waiting) + count > MOST_VALUES:
            break
    raise ConfigError(f"the config holds more than {MOST_VALUES} values")


def _form_problem(parts: list[str | int], value: Any) -> str | None:
    if len(parts) > DEEPEST:
        return f"is nested more than {DEEPEST} deep"
    if isinstance(value, dict):
        odd = next((key for key in value if not isinstance(key, str)), None)
        if odd is not None or None in value:
            return f"has the key {str(odd)[:80]}, which YAML does not take for text: put it in quotes"
        problems = (_text_problem(key) for key in value)
        return next((f"has a key that {problem}" for problem in problems if problem), None)
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, bool | list) or value is None:
        return None
    if isinstance(value, int | float):
        return None if abs(value) < LARGEST else "must be a finite number of less than 64 bits"
    return f"is of the type {type(value).__name__}: put it in quotes, so that YAML takes it for text"


def _text_problem(text: str) -> str | None:
    odd = re.search("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", text)
    return f"holds the character U+{ord(odd[0]):04X}, which text cannot have" if odd else None


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
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:80]}" for part in parts)
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


def _check_paths(config: Config) -> None:
    """Paths that are inputs of rules: Snakemake fills in whatever stands in braces, and takes line breaks amiss."""
    data, submitted, encoder = config["data"], config["write_submission"], config["assess_synthetic"]["encoder"]
    paths = {f"data.{key}": data[key] for key in ("images", "table", "groups", "classes")}
    if data["source"] == "simulated":
        paths = {}
    paths |= {f"write_submission.{key}": submitted[key] for key in ("images", "sample")}
    paths |= {f"{section}.folder": config[section]["folder"] for section in ("fetch_images", "fetch_weights")}
    paths |= {"assess_synthetic.encoder.weights": encoder["weights"] if isinstance(encoder, dict) else None}
    named = [("train_classifier", config["train_classifier"])]
    named += [(f"arms ({entry['name']})", entry) for entry in config["arms"]]
    paths |= {f"{name}.weights": section.get("weights") for name, section in named}
    for key, path in paths.items():
        if path and re.search(r"[{}\r\n]", os.path.expandvars(path)):
            raise ConfigError(
                f"{key} = {_short(path)}: Snakemake would read the braces or line breaks in this path as its own; "
                "give the folder another name, or a link to it"
            )


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
        # pathlib would let the errors of names through that no file can have.
        if data[key] and not os.path.exists(data[key]):  # noqa: PTH110
            raise ConfigError(f"data.{key} = {_short(data[key])}: there is no such file or folder")
    described = known_datasets.described(data)
    named = re.findall(r"\{(\w+)\}", described["id_parts"] or "")
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice:
        raise ConfigError(f"data.id_parts = {_short(described['id_parts'])} names {twice!r} twice")
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
    fractions = section["fractions"]
    tested = section["folds"] * fractions["test"] + fractions["lockbox"]
    if section["roles_from"] and (section["leave_out"] or section["folds"] != 1):
        other = "leave_out" if section["leave_out"] else "folds"
        raise ConfigError(
            f"make_folds.roles_from = {_short(section['roles_from'])} and make_folds.{other} = {section[other]!r} do "
            "not go together: a column that says what is tested leaves one fold, folds: 1 (repeats may be several)"
        )
    # Where a column decides what is tested, the images that it names are the test part, however many they are.
    if tested > 1 + 1e-9 and not section["leave_out"] and not section["roles_from"]:
        raise ConfigError(
            f"make_folds.fractions.test = {fractions['test']}: {section['folds']} folds with test parts that do not overlap "
            f"and the lockbox need {tested:g} of the images"
        )
    parts = sum(fraction for role, fraction in fractions.items() if role != "test" or not section["roles_from"])
    if parts >= 1 - 1e-9:
        raise ConfigError(f"make_folds.fractions add up to {parts:g}: nothing is left to train on")


def _check_sets(config: Config) -> None:
    known, images = by_name(config, "generators"), config["preprocess_images"]
    for name, generator in known.items():
        if name == generator_choices.SIMULATOR:
            raise ConfigError(
                f"generators ({name}): the name is taken: a synthetic set of it has fresh simulated cells"
            )
        problem = generator_choices.generator_problem(generator, images["size"], len(images["channels"]))
        if problem:
            raise ConfigError(f"generators ({name}): {problem}")
    for synthetic_set in config["synthetic_sets"]:
        if synthetic_set["generator"] == generator_choices.SIMULATOR:
            _check_simulator(synthetic_set, config["data"])
            continue
        if synthetic_set["generator"] not in known:
            raise ConfigError(
                f"synthetic sets ({synthetic_set['name']}).generator = {synthetic_set['generator']!r} is not defined; "
                f"known: {', '.join(known) or 'none'}"
            )
        problem = generator_choices.set_problem(synthetic_set, known[synthetic_set["generator"]], images["channels"])
        if problem:
            raise ConfigError(f"synthetic sets ({synthetic_set['name']}): {problem}")


def _check_simulator(synthetic_set: Config, data: Config) -> None:
    problem = generator_choices.simulator_problem(synthetic_set)
    if data["source"] != "simulated" or data["label_map"]:
        problem = f"generator {generator_choices.SIMULATOR} needs data.source simulated, and no data.label_map"
    if problem:
        raise ConfigError(f"synthetic sets ({synthetic_set['name']}): {problem}")


def _check_compute(config: Config) -> None:
    processes, at_once = (config["compute"][key] for key in ("processes", "arms_at_once"))
    if processes > 1 and at_once > 1:
        raise ConfigError(
            f"compute.arms_at_once = {at_once} and compute.processes = {processes} exclude each other: set one to 1"
        )
    batches = {f"generators ({entry['name']}).batch": entry["batch"] for entry in config["generators"]}
    for key, batch in (batches | {"train_classifier.batch": config["train_classifier"]["batch"]}).items():
        if batch < processes:
            raise ConfigError(f"compute.processes = {processes} is more than {key} = {batch} images: each needs one")


def _check_encoder(encoder: Config | str) -> None:
    if isinstance(encoder, dict) and not arm_choices.weights_path(encoder["weights"]).is_file():
        raise ConfigError(f"assess_synthetic.encoder.weights = {_short(encoder['weights'])}: there is no such file")


def _check_published(section: Config) -> None:
    try:
        check_url(section["url"] or "https://localhost")
    except Refused as error:
        raise ConfigError(f"fetch_weights.url = {_short(section['url'])}: {error}") from None


def _check_arm(entry: Config, config: Config) -> Config:
    where = f"arms ({entry['name']})"
    method = arm_choices.METHODS.get(entry["method"])
    if method is None:
        raise ConfigError(f"{where}.method = {entry['method']!r} is not known; known: {', '.join(arm_choices.METHODS)}")
    synthetic_sets = by_name(config, "synthetic_sets")
    if method.needs_set and "synthetic_set" not in entry:
        raise ConfigError(
            f"{where}.synthetic set is missing: the method {entry['method']!r} needs one of {', '.join(synthetic_sets)}"
        )
    if "synthetic_set" in entry and not method.takes_set:
        raise ConfigError(
            f"{where}.synthetic set is given, but the method {entry['method']!r} uses no synthetic images"
        )
    if "synthetic_set" in entry and entry["synthetic_set"] not in synthetic_sets:
        raise ConfigError(
            f"{where}.synthetic set = {entry['synthetic_set']!r} is not defined; known: {', '.join(synthetic_sets) or 'none'}"
        )
    if method.partners in arm_choices.RESERVES and not config["make_folds"]["fractions"][method.partners] > 0:
        raise ConfigError(
            f"{where}: the method {entry['method']!r} needs make_folds.fractions.{method.partners} above 0: the fraction of "
            "the images that is kept aside for it"
        )
    images = config["preprocess_images"]
    problem = arm_choices.problem(entry, config["train_classifier"], images["channels"], images["size"])
    if problem:
        raise ConfigError(f"{where}: {problem}")
    own = arm_choices.effective(entry, config["train_classifier"])
    if own["weights"] == arm_choices.IMAGENET:
        # From here on a file like any other, which a rule brings.
        return entry | {"weights": arm_choices.published_path(config["fetch_weights"]["folder"], own["backbone"])}
    return entry
