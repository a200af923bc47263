"""What each stage is told of a checked config. Pure functions, without Snakemake.

`X_settings` are all that the stage X is told; what changes no result (processes, folders) is left out, so that
changing it makes nothing again. Jobs and files stand in `views.py`."""

from __future__ import annotations

from collections.abc import Iterable

from workflow_scripts.lib.classify import arm_settings, network_choices
from workflow_scripts.lib.config import asked_arms, embedding_checks, label_regimes, origins, views
from workflow_scripts.lib.config.problems import Config
from workflow_scripts.lib.fidelity import encoder_choices
from workflow_scripts.lib.images import known_datasets

# How servers are treated: the fields of http_client.Policy, and the size of all files together.
POLICY = (
    "connections", "requests_per_second", "timeout", "slowest", "retries", "pause", "longest_pause", "redirects",
    "total_gb",
)  # fmt: skip

# Sections about what is done with a finished run.
AFTERWARDS = ("predict", "model_package", "gallery", "export", "runs", "clean")


def analysis(config: Config) -> Config:
    """What is declared of the analysis: the section, and the stress test where it is declared with it."""
    section, names = config["stress_test"], views.corruptions(config)
    return config["analysis"] | ({"stress_test": names} if section["declared"] and names else {})


def generators_saw(config: Config) -> Config:
    """What the generator of each synthetic set saw, for the map of label regimes."""
    return label_regimes.seen_by_generators(config)


def of_run(config: Config) -> Config:
    """The config without what is done with a finished run, which changes nothing that the report shows."""
    return views.without(config, *AFTERWARDS)


def described_data(config: Config) -> Config:
    """What preprocess_images must know of the data beyond its files: the config, and what its source is known to be."""
    return known_datasets.described_cells(config["data"])


def cutting(config: Config) -> Config:
    """Settings of cut_cells: how fields are read, and how cells are cut out of them."""
    images = config["preprocess_images"]
    about = {"run": config["run"], "data": known_datasets.described(config["data"]), "cells": config["data"]["cells"]}
    return about | {name: images[name] for name in ("channels", "size", "pixel_size")}


def reading(config: Config) -> Config:
    """The settings by which images are read; not by how many jobs, as the set is the same for any number."""
    return views.without(config["preprocess_images"], "shards", "intensity_column") | {"data": described_data(config)}


def limits_settings(config: Config) -> Config:
    """Settings of normalise_images."""
    return {"column": config["preprocess_images"]["intensity_column"], "regimes": label_regimes.partial(config)}


def fetched_images(config: Config) -> Config:
    """Those settings of fetch_images that decide which images there are; how servers are treated is not among them."""
    kept = views.without(fetch_settings(config), *POLICY, "verify", "file_mb", "kaggle")
    return kept | {"test_images": config["fetch_images"]["kaggle"]["test_images"]}


def fetch_settings(config: Config) -> Config:
    """Settings of fetch_images."""
    return views.without(config["fetch_images"], "folder") | {
        "channels": config["preprocess_images"]["channels"],
        "columns": described_data(config)["columns"],
        "on_invalid": config["data"]["on_invalid"],
        "invalid_limit": config["data"]["invalid_limit"],
    }


def fetch_weights_settings(config: Config) -> Config:
    """Settings of fetch_weights: servers are treated as in fetch_images."""
    return {name: config["fetch_images"][name] for name in POLICY} | views.without(config["fetch_weights"], "folder")


def cells(config: Config) -> Config:
    """The settings by which cells are simulated; not by how many processes, as they are the same for any number."""
    return views.without(config["simulate_cells"], "processes")


def entry_settings(config: Config, section: str, name: str) -> Config:
    """Settings of a stage that makes one entry of a list: a generator or a synthetic set, with its label regime."""
    # The file that a generator comes from is an input, wherever it lies.
    return views.without(label_regimes.told(config, views.by_name(config, section)[name]), origins.FROM)


def together_settings(config: Config) -> Config:
    """Settings of sample_fold."""
    return {"sets": [entry_settings(config, "synthetic_sets", name) for name in views.sets_together(config)]}


def fold_settings(config: Config) -> Config:
    """Settings of make_folds, with the regimes that leave groups without labels, if there are some."""
    regimes = [entry for entry in label_regimes.partial(config) if entry["labelled"] < 1]
    unused = () if config["make_folds"]["show_left_out"] else ("show_left_out",)
    return views.without(config["make_folds"], "repeats", *unused) | ({"regimes": regimes} if regimes else {})


def roles_settings(config: Config) -> Config:
    """Those settings of make_folds that decide about its table. Groups are ranked alike for all regimes."""
    settings = fold_settings(config)
    return views.without(settings, "regimes") | ({"ranked": True} if "regimes" in settings else {})


def job_settings(config: Config, arms: Iterable[Config]) -> Config:
    """Settings of a job of train_classifier."""
    told = [label_regimes.told(config, entry) for entry in arms]
    asked = [entry["name"] for entry in told if entry["name"] in asked_arms.answer_unlabelled(config)]
    out = {"arms": told, "train_classifier": config["train_classifier"]}
    return out | ({"answer_unlabelled": asked} if asked else {})


def certificate_settings(config: Config) -> Config:
    """Settings of certify_leaks."""
    own = views.users_encoders(config)
    if table := config["embeddings"]["table"]:
        own.append({"architecture": "of embeddings", "weights": table})
    about = {"violations": config["violations"], "encoders": own}
    if weights := {entry["name"]: own for entry in config["arms"] if (own := views.users_weights(config, entry))}:
        about["weights"] = weights
    return about | label_regimes.of_artefacts(config, lambda entry: asked_arms.behind(entry, config))


def simulator_settings(config: Config, name: str) -> Config:
    """Settings of sample_simulator for a synthetic set: as many cells as that one has."""
    return {
        "synthetic_set": entry_settings(config, "synthetic_sets", name),
        "simulate_cells": views.without(config["simulate_cells"], "images", "processes"),
    }


def judge_settings(config: Config) -> Config:
    """What decides about the independent judge: cells as in the run, and the training of the plain baseline."""
    entry = arm_settings.effective({"name": "judge", "method": "real_only"}, config["train_classifier"])
    # The judge is always a network.
    facts = network_choices.BACKBONES[entry["backbone"]]
    network = {"backbone": "small"} if facts.hand_made or facts.embedded else {}
    return {
        "simulate_cells": cells(config),
        "data": {name: described_data(config)[name] for name in ("label_map", "unmapped", "emptied")},
        "channels": config["preprocess_images"]["channels"],
        "training": entry | {"channels": None, "weights": None, "frozen": False} | network,
    }


def assess_settings(config: Config) -> Config:
    """Settings of assess_synthetic."""
    section, side = config["assess_synthetic"], config["preprocess_images"]["size"]
    full = {key: encoder_choices.full(section[key], side) for key in ("encoder", "independent_encoder")}
    return section | full | {"judge": views.judged_by(config), "baseline": config["analysis"]["baseline"]}


def experiment(config: Config) -> Config:
    """All that decides what the arms are and on which images they are trained and tested; not how they are judged."""
    used = [entry for entry in config["synthetic_sets"] if entry["name"] in views.used_sets(config)]
    names = views.used_generators(config)
    sections = {name: config[name] for name in ("make_folds", "train_classifier", "arms", "seed")}
    if label_regimes.partial(config):
        sections["regimes"] = config["regimes"]
    if views.embedded_sets(config, config["arms"]):
        sections["embeddings"] = config["embeddings"]
    return sections | {
        "images": reading(config) | ({"limits": limits_settings(config)} if views.by_train_part(config) else {}),
        "threads": config["compute"]["threads"],
        "simulate_cells": cells(config),
        "synthetic_sets": used,
        "generators": [entry for entry in config["generators"] if entry["name"] in names],
    }


def embedding_settings(config: Config) -> Config:
    """Settings of embed_images."""
    return views.embedding_tables(config) | {"encoder": embedding_checks.encoder(config)}


def data_settings(config: Config) -> Config:
    """Settings of plot_data."""
    panels = config["report"]["panels"]
    return {
        # One side of a panel of real beside generated images has half the room.
        "per_class": 2 * panels["per_class"],
        "protein_channel": panels["protein_channel"],
        "colours": panels["colours"],
        "minimum_positive_groups": config["analysis"]["minimum_positive_groups"],
        "intensity_column": config["preprocess_images"]["intensity_column"],
    }


def submission_settings(config: Config) -> Config:
    """Settings of write_submission."""
    return {
        "arm": views.submitted_arm(config),
        "batch": config["write_submission"]["batch"],
        "preprocess_images": config["preprocess_images"] | {"data": described_data(config)},
    }


def check_settings(config: Config) -> Config:
    """Settings of check_images."""
    return {
        "run": config["run"],
        "seed": config["seed"],
        "preprocess_images": reading(config) | {"threads": config["compute"]["threads"]},
        "make_folds": fold_settings(config),
        "intensity_column": config["preprocess_images"]["intensity_column"],
        "repeats": config["make_folds"]["repeats"],
        "minimum_positive_groups": config["analysis"]["minimum_positive_groups"],
        "generators": views.used_generators(config),
        "colours": config["report"]["panels"]["colours"],
        "known_classes": {
            entry["name"]: origins.header(entry).classes for entry in config["generators"] if entry.get(origins.FROM)
        },
    }


def predict_settings(config: Config) -> Config:
    """Settings of predict_images."""
    section = config["predict"]
    return {
        "arm": views.predicting_arm(config),
        "batch": section["batch"],
        "unlike": section["unlike"],
        "preprocess_images": reading(config),
    }


def package_settings(config: Config) -> Config:
    """Settings of write_model_package."""
    return {
        "run": config["run"],
        "arm": views.by_name(config, "arms")[views.packed_arm(config)],
        "preprocess_images": views.without(config["preprocess_images"], "shards"),
        "told": known_datasets.told(config["data"]),
        "confidence": config["analysis"]["confidence"],
    }


def gallery_settings(config: Config) -> Config:
    """Settings of make_gallery."""
    return config["gallery"] | {"run": config["run"], "colours": config["report"]["panels"]["colours"]}


def progress_settings(config: Config) -> Config:
    """What the page of a run in progress is told."""
    return {
        "run": config["run"],
        "generators": views.used_generators(config),
        "arms": [entry["name"] for entry in config["arms"]],
        "colours": config["report"]["panels"]["colours"],
        "pixel_size": config["preprocess_images"]["pixel_size"],
    }


def export_settings(config: Config) -> Config:
    """Settings of export_images."""
    protein = config["report"]["panels"]["protein_channel"]
    return {"format": config["export"]["format"], "run": config["run"], "protein_channel": protein}


def crate_settings(config: Config) -> Config:
    """Settings of write_crate: those of the run, and the licence of its images where the data set is a known one."""
    told = known_datasets.told(config["data"])
    # Weights that a rule has fetched are nowhere in the crate: whoever makes the run again fetches them again.
    arms = [
        entry
        | (
            {"weights": network_choices.IMAGENET}
            if entry.get("weights") and not views.users_weights(config, entry)
            else {}
        )
        for entry in config["arms"]
    ]
    return {"config": of_run(config) | {"arms": arms}, "licence": told.get("licence", "")}
