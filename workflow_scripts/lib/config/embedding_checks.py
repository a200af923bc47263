"""Checks of embeddings, and of the arms whose backbone takes them in place of pixels.

An arm with embeddings sees images of the run alone: nothing is known of corrupted, new or locked-away ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from workflow_scripts.lib.classify import arm_choices, arm_settings, network_choices, source_choices
from workflow_scripts.lib.config import label_regimes
from workflow_scripts.lib.config.problems import Config, short
from workflow_scripts.lib.fidelity import encoder_choices
from workflow_scripts.lib.images.embedding_forms import ENDINGS, NEEDS_IDS

SECTION = "embeddings"
KEY = f"{SECTION}.encoder"


def is_embedded(entry: Config, config: Config) -> bool:
    """Whether an arm takes embeddings in place of pixels."""
    return arm_settings.effective(entry, config["train_classifier"])["backbone"] in network_choices.EMBEDDED


def embedded(arms: Iterable[Config], config: Config) -> list[Config]:
    """Those of these arms that take embeddings."""
    return [entry for entry in arms if is_embedded(entry, config)]


def sets_with_embeddings(arms: Iterable[Config], config: Config) -> list[str]:
    """Synthetic sets of which these arms need the embeddings."""
    chosen = (entry for entry in embedded(arms, config) if _learns_from_set(entry))
    return sorted({entry["synthetic_set"] for entry in chosen})


def encoder(config: Config) -> Config | None:
    """Full settings of the network that computes embeddings; None where there is none."""
    return encoder_choices.full(config[SECTION]["encoder"], config["preprocess_images"]["size"])


def problem(config: Config) -> str | None:
    """Error in the embeddings, in one line, or None; weights are checked with those of the other encoders."""
    section = config[SECTION]
    table, network = section["table"], encoder(config)
    if table and network:
        return f"{SECTION}.table and {KEY} exclude each other: set one to null"
    if table and not network_choices.is_file(table):
        return f"{SECTION}.table = {short(table)}: there is no such file"
    if table and not table.endswith(ENDINGS):
        return f"{SECTION}.table = {short(table)}: its name must end in {', '.join(ENDINGS)}"
    if table and table.endswith(NEEDS_IDS) and not section["ids"]:
        return f"{SECTION}.ids is missing: a {NEEDS_IDS} file needs a CSV table of its rows, with the column Id"
    if section["ids"] and not network_choices.is_file(section["ids"]):
        return f"{SECTION}.ids = {short(section['ids'])}: there is no such file"
    facts = encoder_choices.ARCHITECTURES.get(network["architecture"]) if network else None
    if network and network["normalise"] is None and not (facts and facts.normalises):
        return f"{KEY}.normalise must be given: embeddings are the same in all folds, so no train part can say it"
    return next(_problems(embedded(config["arms"], config), config), None)


def _problems(arms: list[Config], config: Config) -> Iterator[str]:
    section, names = config[SECTION], {entry["name"] for entry in arms}
    for entry in arms:
        where = f"arms ({entry['name']})"
        if not section["table"] and not section["encoder"]:
            yield f"{where}: its backbone takes embeddings: give {SECTION}.table, or a network in {KEY}"
        if section["table"] and _learns_from_set(entry):
            yield (
                f"{where}: {SECTION}.table holds no synthetic images, and the method {entry['method']!r} learns from "
                f"those of {entry['synthetic_set']!r}: let {KEY} compute embeddings instead"
            )
    asked = {config["analysis"]["baseline"]}
    asked |= {label_regimes.baseline_of(config, regime["name"]) for regime in config["regimes"]}
    asked |= {entry.get("pseudo_labels_from") for key in ("arms", "generators") for entry in config[key]}
    for name in sorted(names & asked):
        yield (
            f"arms ({name}) takes embeddings, and other stages show it images: let an arm that sees pixels be the "
            "baseline, and name this one in `baseline` of the arms that are compared with it"
        )
    if arms and config["stress_test"]["corruptions"]:
        yield f"stress_test.corruptions: of corrupted images there are no embeddings for arms ({arms[0]['name']})"
    if arms and config["make_folds"]["fractions"]["lockbox"] > 0:
        yield f"make_folds.fractions.lockbox: it is opened by pixels, which arms ({arms[0]['name']}) does not see"


def _learns_from_set(entry: Config) -> bool:
    return arm_choices.METHODS[entry["method"]].second_source in source_choices.OF_SET
