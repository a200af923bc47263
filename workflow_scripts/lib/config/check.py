"""The config of a run, checked before any job starts: key by key by its models, then what only several keys can tell.

Imported by the Snakefile at every start, so it must stay light: no torch, no pandas."""

from __future__ import annotations

import os
import re
from pathlib import Path

from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.classify import arm_checks, arm_choices, arm_settings, network_choices, source_choices
from workflow_scripts.lib.config import asked_arms, bases, data_checks, embedding_checks, label_regimes, origins, views
from workflow_scripts.lib.config.messages import parsed
from workflow_scripts.lib.config.problems import Config, ConfigError, short
from workflow_scripts.lib.download.urls import Refused, check_url
from workflow_scripts.lib.fidelity import encoder_choices
from workflow_scripts.lib.generate import generator_checks, generator_choices
from workflow_scripts.lib.images.corruption_choices import CORRUPTIONS
from workflow_scripts.lib.judge import declaration
from workflow_scripts.lib.study import switches


def check(config: Config, conda: bool = True) -> Config:
    """The config with references resolved; the first thing wrong with it ends in a ConfigError.

    `conda`: whether stages may have packages of their own (--sdm conda), which are then not looked for here."""
    config = parsed(config)
    for section in ("regimes", "generators", "synthetic_sets", "arms"):
        _check_names(config[section], section)
    simulated = _simulated(config["data"])
    config["arms"] = [entry for entry in config["arms"] if not entry.pop("only_simulated", False) or simulated]
    label_regimes.fill_in(config)
    config["data"] |= _expanded(config["data"])
    for section in ("predict", "write_submission"):
        own = {key: config[section][key] for key in ("images", "table", "sample") if config[section].get(key)}
        config[section] |= {key: os.path.expanduser(os.path.expandvars(path)) for key, path in own.items()}  # noqa: PTH111
    data_checks.check_data(config)
    _check_folds(config["make_folds"])
    _fill_in_references(config)
    _check_generators(config)
    _check_sets(config)
    _check_encoders(config, conda)
    _check_encoder_inputs(config)
    data_checks.check_formats(config, conda)
    _check_compute(config)
    _check_mirror(config["fetch_weights"])
    for entry in config["arms"]:
        _check_arm(entry, config)
        own = arm_settings.effective(entry, config["train_classifier"])
        if own["weights"] == network_choices.IMAGENET:
            # From here on a file like any other, which a rule brings.
            entry["weights"] = network_choices.published_path(config["fetch_weights"]["folder"], own["backbone"])
    _check_stress(config)
    _check_paths(config)
    folder = os.path.expandvars(config["fetch_images"]["folder"])
    config["fetch_images"]["folder"] = str(Path(folder).expanduser())
    if problem := embedding_checks.problem(config):
        raise ConfigError(problem)
    config["analysis"] |= {"primary_arm": _primary_arm(config["analysis"]["primary_arm"], config["arms"])}
    problem = declaration.analysis_problem(
        config["analysis"], config["arms"], config["train_classifier"], config["synthetic_sets"]
    )
    problem = problem or switches.problem(config) or _baseline_problem(config)
    if problem:
        raise ConfigError(problem)
    return config


def _primary_arm(asked: str | list[str], arms: list[Config]) -> str:
    """The arm that is asked for: of a list, the first that the run has, since some arms need simulated cells."""
    if isinstance(asked, str):
        return asked
    names = [entry["name"] for entry in arms]
    there = [name for name in asked if name in names]
    if not there:
        raise ConfigError(f"analysis.primary_arm = {asked}: none of them is among the arms: {', '.join(names)}")
    return there[0]


def _fill_in_references(config: Config) -> None:
    """Check the protein's channel, and put the names of channels in place of the word `others`."""
    channels, protein = config["preprocess_images"]["channels"], config["report"]["panels"]["protein_channel"]
    if protein not in channels:
        raise ConfigError(
            f"report.panels.protein_channel = {short(protein)} is none of preprocess_images.channels: "
            f"name the channel in which the protein is stained, one of {', '.join(channels)}"
            f"{meant(protein, channels)}"
        )
    for name in config["report"]["panels"]["colours"]:
        if name not in channels:
            raise ConfigError(
                f"report.panels.colours names {short(name)}, which is none of preprocess_images.channels: "
                f"{', '.join(channels)}{meant(name, channels)}"
            )
    others = [name for name in channels if name != protein]
    for entry in (*config["generators"], *config["synthetic_sets"]):
        if entry.get("reference_channels") == generator_choices.OTHERS:
            entry["reference_channels"] = others
            if not others and entry.get("reference_fraction"):
                entry["reference_fraction"] = 0  # images of the protein alone


def _baseline_problem(config: Config) -> str | None:
    name, known = config["analysis"]["baseline"], views.by_name(config, "arms")
    if asked_arms.waits(known[name], config):
        return (
            f"analysis.baseline = {name!r} needs a trained baseline itself, by its method or its synthetic set: "
            "take an arm that needs none, such as real_only"
        )
    if problem := asked_arms.problem(config):
        return problem
    for entry in config["arms"]:
        asked = known[label_regimes.baseline_of(config, entry.get("regime")) or name]
        pair = (arm_settings.effective(one, config["train_classifier"]) for one in (entry, asked))
        if problem := arm_checks.baseline_problem(*pair):
            return f"arms ({entry['name']}): {problem}"
        beside = known[entry.get("baseline", name)]
        own, theirs = (
            arm_settings.effective(one, config["train_classifier"]).get("real_fraction", 1) for one in (entry, beside)
        )
        if own > theirs and "real_fraction" not in entry and "real_fraction" not in beside:
            return (
                f"train_classifier.real_fraction = {theirs:g} takes train groups from {beside['name']!r}, and none "
                f"from {entry['name']!r}, which is compared with it: give real_fraction to single arms (arms), or "
                "fewer labels to all by regimes"
            )
    return None


def _simulated(data: Config) -> bool:
    """Whether the simulator can draw further cells like those of the run."""
    return data["source"] == "simulated" and not data["label_map"]


def _check_names(entries: list[Config], section: str) -> None:
    seen: set[str] = set()
    for entry in entries:
        # Case-blind, because some file systems are.
        if entry["name"].lower() in seen:
            raise ConfigError(f"{section}: the name {entry['name']!r} is given twice")
        seen.add(entry["name"].lower())


def _expanded(data: Config) -> Config:
    """Paths with the environment's variables filled in, so that a preset need not know where data lies."""
    out = {key: _path(data, key, data[key]) for key in data_checks.PATHS if data[key]}
    if further := data["unlabelled"]:
        own = {key: _path(data, f"unlabelled.{key}", path) for key, path in further.items() if path}
        out["unlabelled"] = {"images": out.get("images"), "table": None} | own
    return out


def _path(data: Config, key: str, given: str) -> str:
    path = os.path.expanduser(os.path.expandvars(given))  # noqa: PTH111
    unset = re.search(r"\$\{?(\w+)", path)
    if unset and data["source"] != "simulated":
        raise ConfigError(
            f"data.{key} = {short(given)}: the environment variable {unset[1]} is not set; "
            "export it, or give the path by --config"
        )
    return path


def _check_paths(config: Config) -> None:
    """Paths that are inputs of rules: Snakemake fills in whatever stands in braces, and takes line breaks amiss."""
    data = config["data"]
    paths = {f"data.{key}": path for key, path in data_checks.data_paths(data).items() if data["source"] != "simulated"}
    paths |= {f"write_submission.{key}": config["write_submission"][key] for key in ("images", "sample")}
    paths |= {f"predict.{key}": config["predict"][key] for key in ("images", "table")}
    paths |= {f"{section}.folder": config[section]["folder"] for section in ("fetch_images", "fetch_weights")}
    paths |= {f"{key}.weights": encoder["weights"] for key, encoder in views.encoders(config).items()}
    paths |= {f"embeddings.{key}": config["embeddings"][key] for key in ("table", "ids")}
    paths |= {"train_classifier.weights": config["train_classifier"]["weights"]}
    paths |= {f"arms ({entry['name']}).weights": entry.get("weights") for entry in config["arms"]}
    # Those of a generator's path stand for repeat and fold.
    paths |= {
        f"generators ({entry['name']}).from": origins.place(entry)
        for entry in config["generators"]
        if entry.get(origins.FROM)
    }
    for key, path in paths.items():
        if path and re.search(r"[{}\r\n]", os.path.expandvars(path)):
            raise ConfigError(
                f"{key} = {short(path)}: Snakemake would read the braces or line breaks in this path as its own; "
                "give the folder another name, or a link to it"
            )


def _check_folds(section: Config) -> None:
    fractions, folds, roles = section["fractions"], section["folds"], section["roles_from"]
    tested = folds * fractions["test"] + fractions["lockbox"]
    if roles and (section["leave_out"] or folds != 1):
        other = "leave_out" if section["leave_out"] else "folds"
        raise ConfigError(
            f"make_folds.roles_from = {short(roles)} and make_folds.{other} = {section[other]!r} do not go together: "
            "a column that says what is tested leaves one fold, folds: 1 (repeats may be several)"
        )
    if section["show_left_out"] and not section["leave_out"]:
        raise ConfigError(
            f"make_folds.show_left_out = {section['show_left_out']:g} needs make_folds.leave_out: the column of which "
            "each fold tests one value"
        )
    # Where a column decides what is tested, the images that it names are the test part, however many they are.
    if tested > 1 + 1e-9 and not section["leave_out"] and not roles:
        raise ConfigError(
            f"make_folds.fractions.test = {fractions['test']}: {folds} folds with test parts that do not overlap "
            f"and the lockbox need {tested:g} of the images"
        )
    parts = sum(fraction for role, fraction in fractions.items() if role != "test" or not roles)
    if parts >= 1 - 1e-9:
        raise ConfigError(f"make_folds.fractions add up to {parts:g}: nothing is left to train on")


def _check_generators(config: Config) -> None:
    images, folds = config["preprocess_images"], config["make_folds"]
    for entry in config["generators"]:
        problem = generator_checks.generator_problem(entry, images["size"], images["channels"])
        regime = views.by_name(config, "regimes")[entry.get("regime", config["regimes"][0]["name"])]
        problem = problem or generator_checks.regime_problem(entry, regime)
        problem = problem or origins.problem(entry, images, folds["repeats"], folds["folds"])
        if entry["name"] == generator_choices.SIMULATOR:
            problem = "the name is taken: a synthetic set of it has fresh simulated cells"
        if problem:
            raise ConfigError(f"generators ({entry['name']}): {problem}")


def _check_sets(config: Config) -> None:
    known, data = views.by_name(config, "generators"), config["data"]
    asked = {entry.get("synthetic_set") for entry in config["arms"]}
    for entry in config["synthetic_sets"]:
        where, name = f"synthetic_sets ({entry['name']})", entry["generator"]
        if name == generator_choices.SIMULATOR:
            problem = generator_checks.simulator_problem(entry)
            if entry["name"] in asked and not _simulated(data):
                problem = f"generator {name} needs data.source simulated, and no data.label_map"
        elif name not in known:
            told = f"{', '.join(known) or 'none'}{bases.hint('generators', name)}"
            raise ConfigError(f"{where}.generator = {name!r} is not defined{meant(name, known)}; known: {told}")
        else:
            weaker = known.get(generator_choices.weaker_generator(entry) or "")
            problem = _missing(entry) or generator_checks.set_problem(
                entry, known[name], config["preprocess_images"]["channels"], weaker
            )
        if problem:
            raise ConfigError(f"{where}{problem if problem.startswith('.') else f': {problem}'}")


def _missing(entry: Config) -> str | None:
    """What a synthetic set lacks that is drawn from a generator, rather than by the simulator."""
    absent = [key for key in ("sampler", "evaluations", "guidance", "clip", "batch") if key not in entry]
    return f".{absent[0]} is missing" if absent else None


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


def _check_encoders(config: Config, conda: bool = True) -> None:
    # Stages of a conda environment have packages of their own.
    elsewhere = conda and config["compute"]["environment"] == encoder_choices.ENVIRONMENT
    for key, encoder in views.encoders(config).items():
        if elsewhere and encoder["weights"] == encoder_choices.INSTALLED:
            continue
        problem = encoder_choices.problem(encoder)
        if problem:
            raise ConfigError(f"{key}.{problem}")


def _check_encoder_inputs(config: Config) -> None:
    """What an encoder is shown: told by the config, and otherwise found out only once everything is trained."""
    for key, encoder in views.encoders(config).items():
        problem = encoder_choices.input_problem(encoder, config["preprocess_images"]["channels"])
        if problem:
            raise ConfigError(f"{key}.{problem}")


def _check_stress(config: Config) -> None:
    channels = len(config["preprocess_images"]["channels"])
    for name in views.corruptions(config):
        least = CORRUPTIONS[name].channels
        if channels < least:
            raise ConfigError(
                f"stress_test.corruptions names {name!r}, which acts on {least} channels or more; the images have "
                f"{channels}"
            )


def _check_mirror(section: Config) -> None:
    try:
        check_url(section["url"] or "https://localhost")
    except Refused as error:
        raise ConfigError(f"fetch_weights.url = {short(section['url'])}: {error}") from None


def _check_authentic(entry: Config, config: Config, where: str) -> None:
    """Copies are looked for among the arm's own train images. A generator that has seen others may copy those."""
    name = views.by_name(config, "synthetic_sets")[entry["synthetic_set"]]["generator"]
    made = views.by_name(config, "generators").get(name)
    if made is None or made.get("from"):
        return
    regimes, first = views.by_name(config, "regimes"), config["regimes"][0]["name"]
    labelled = [regimes[one.get("regime", first)]["labelled"] for one in (made, entry)]
    if made.get("sees", "labelled") != "labelled" or labelled[0] > labelled[1]:
        raise ConfigError(
            f"{where}: the method authentic looks for copies among the arm's own train images, and generator "
            f"{made['name']!r} has seen more: take filtered, or a generator of the arm's regime that sees its labelled "
            "images alone"
        )


def _check_encoder_of_arm(entry: Config, config: Config, where: str) -> None:
    """The generator whose encoder an arm has: named where its method needs one, and there."""
    kind, name = arm_choices.METHODS[entry["method"]].generator, entry.get("generator")
    known = views.by_name(config, "generators")
    if kind is None and name is not None:
        raise ConfigError(f"{where}.generator is given, but {entry['method']!r} has no encoder of one")
    if kind is not None and name not in known:
        told = "is missing" if name is None else f"= {name!r} is not defined{meant(name, known)}"
        raise ConfigError(f"{where}.generator {told}: the method {entry['method']!r} needs one of {', '.join(known)}")
    if kind is not None:
        problem = generator_checks.encoder_problem(known[name], kind == arm_choices.AUTOENCODER)
        if problem:
            raise ConfigError(f"{where}: {problem}")


def _check_arm(entry: Config, config: Config) -> None:
    where, name, method = f"arms ({entry['name']})", entry.get("synthetic_set"), arm_choices.METHODS[entry["method"]]
    sets = views.by_name(config, "synthetic_sets")
    known = ", ".join(sets) or "none"
    if method.needs_set and name is None:
        raise ConfigError(f"{where}.synthetic_set is missing: the method {entry['method']!r} needs one of {known}")
    if name is not None and not method.takes_set:
        raise ConfigError(f"{where}.synthetic_set is given, but {entry['method']!r} uses no synthetic images")
    if name is not None and name not in sets:
        told = f"{known}{bases.hint('synthetic_sets', name)}"
        raise ConfigError(f"{where}.synthetic_set = {name!r} is not defined{meant(name, sets)}; known: {told}")
    _check_encoder_of_arm(entry, config, where)
    if (
        method.second_source in source_choices.RESERVES
        and not config["make_folds"]["fractions"][method.second_source] > 0
    ):
        raise ConfigError(
            f"{where}: the method {entry['method']!r} needs make_folds.fractions.{method.second_source} above 0: the "
            "fraction of the images that is kept aside for it"
        )
    regimes = views.by_name(config, "regimes")
    problem = arm_checks.regime_problem(entry, regimes[entry.get("regime", config["regimes"][0]["name"])])
    if problem:
        raise ConfigError(f"{where}: {problem}")
    if method.second_source == "authentic":
        _check_authentic(entry, config, where)
    images = config["preprocess_images"]
    problem = arm_checks.problem(entry, config["train_classifier"], images["channels"], images["size"])
    if problem:
        raise ConfigError(f"{where}: {problem}")
