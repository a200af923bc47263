"""Checks of where images come from and how they are read, as far as the config and the existence of files tell."""

from __future__ import annotations

import os
import re

from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.config import views
from workflow_scripts.lib.config.problems import Config, ConfigError, short
from workflow_scripts.lib.download import manifest
from workflow_scripts.lib.images import format_choices, known_datasets
from workflow_scripts.lib.images.known_datasets import TRAIN_PART

SIMULATED_CHANNELS = ("red", "green", "blue", "yellow")
PATHS = ("images", "table", "groups", "classes")  # of the section data


def data_paths(data: Config) -> dict[str, str | None]:
    """The paths of the section data, by their keys below it."""
    further = data["unlabelled"] or {}
    return {key: data[key] for key in PATHS} | {f"unlabelled.{key}": path for key, path in further.items()}


def check_data(config: Config) -> None:
    data, images = config["data"], config["preprocess_images"]
    _check_limits(config)
    if data["source"] == "simulated":
        _check_simulated(config["simulate_cells"], images)
        if data["cells"]:
            raise ConfigError("data.cells is for fields of your own; simulated images are single cells already")
        if data["unlabelled"]:
            raise ConfigError(
                "data.unlabelled is for images of your own; where cells are simulated, simulate more (simulate_cells."
                "images) and let a label regime show some of them without labels"
            )
        if own := next((key for key in PATHS if data[key]), None):
            raise ConfigError(
                f"data.{own} = {short(data[own])} is not read, because data.source is simulated: set data.source: "
                "folder, or the name of the set"
            )
        return
    if data["cells"]:
        _check_cells(data, images["channels"])
    if data["unlabelled"] and not data["unlabelled"]["images"]:
        raise ConfigError("data.unlabelled.images is missing: without data.images it needs the path")
    needed = {"folder": ("images", "table"), "public": ("table",)}.get(data["source"], ())
    for key in (*needed, *(("table",) if data["images"] else ())):
        if not data[key]:
            raise ConfigError(f"data.{key} is missing: data.source {data['source']!r} needs the path")
    if data["table"] and not data["images"] and data["source"].startswith("kaggle"):
        raise ConfigError(
            f"data.table = {short(data['table'])} is not read without data.images: images that are fetched come with "
            "their own table (a part of them: fetch_images.limit); give data.images too, or leave data.table out"
        )
    for key, path in data_paths(data).items():
        # pathlib would let the errors of names through that no file can have.
        if path and not os.path.exists(path):  # noqa: PTH110
            where = "" if os.path.isabs(path) else f" in {os.getcwd()}"  # noqa: PTH109, PTH117
            raise ConfigError(f"data.{key} = {short(path)}: there is no such file or folder{where}")
    described = known_datasets.described(data)
    named = re.findall(r"\{(\w+)\}", described["id_parts"] or "")
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice:
        raise ConfigError(f"data.id_parts = {short(described['id_parts'])} names {twice!r} twice")
    if described["labels"] == "numbers" and not data["classes"] and not described["class_names"]:
        raise ConfigError("data.class_names is empty and data.classes names no table: the classes need names")
    key = "files" if isinstance(described["files"], dict) else "file_channels"
    listed = described["files"] if key == "files" else data["file_channels"]
    absent = [channel for channel in images["channels"] if listed is not None and channel not in listed]
    if absent:
        raise ConfigError(f"data.{key} has no channel {absent[0]!r}, which preprocess_images.channels names")
    if data["source"] == "public" and not data["images"]:
        fetched = config["fetch_images"]
        problem = manifest.template_problem(fetched["url"])
        problem = problem or manifest.colours_problem(fetched["colours"], images["channels"])
        if problem:
            raise ConfigError(problem)


def _check_cells(data: Config, channels: list[str]) -> None:
    cells = data["cells"]
    name, masks = cells.get("nucleus_channel"), cells.get("masks")
    if data["unlabelled"]:
        raise ConfigError("data.cells does not cut data.unlabelled: cut those fields in a run of their own")
    if data["missing_channel"] != known_datasets.REFUSE:
        raise ConfigError(
            f"data.cells and data.missing_channel = {short(data['missing_channel'])} do not go together: fields are "
            "cut with all channels"
        )
    if not masks and name is None:
        raise ConfigError("data.cells needs nucleus_channel, the channel in which nuclei are found, or masks")
    if name is not None and name not in channels:
        raise ConfigError(
            f"data.cells.nucleus_channel = {short(name)} is none of preprocess_images.channels: {', '.join(channels)}"
            f"{meant(name, channels)}"
        )
    smallest, largest = cells.get("smallest"), cells.get("largest")
    if smallest is not None and largest is not None and smallest >= largest:
        raise ConfigError(f"data.cells.smallest = {smallest:g} must be below data.cells.largest = {largest:g}")


def _check_limits(config: Config) -> None:
    """What goes together with intensities that differ from fold to fold."""
    images, by = config["preprocess_images"], "preprocess_images.intensity: train_part"
    if images["intensity"] != TRAIN_PART:
        if images["intensity_column"]:
            raise ConfigError(f"preprocess_images.intensity_column = {short(images['intensity_column'])} needs {by}")
        return
    if views.embedded_sets(config, config["arms"]):
        raise ConfigError(f"{by} and embeddings do not go together: they are made once for all folds")
    if config["make_folds"]["fractions"]["lockbox"]:
        raise ConfigError(f"{by} and make_folds.fractions.lockbox exclude each other: it is opened for all folds")


def _check_simulated(cells: Config, images: Config) -> None:
    # The judge of generated cells is trained on cells as they are simulated, which must be as the run sees them.
    if images["size"] != cells["size"]:
        raise ConfigError(
            f"preprocess_images.size = {images['size']} must equal simulate_cells.size = {cells['size']}: "
            "simulated cells are drawn at the size asked for"
        )
    if images["intensity"] != "fixed":
        raise ConfigError("preprocess_images.intensity must be fixed where cells are simulated")
    if images["pixel_size"] is not None:
        raise ConfigError("preprocess_images.pixel_size must be null where cells are simulated: they have no µm")
    for name in images["channels"]:
        if name not in SIMULATED_CHANNELS:
            raise ConfigError(
                f"preprocess_images.channels names {name!r}; simulated cells have {', '.join(SIMULATED_CHANNELS)}"
                f"{meant(name, SIMULATED_CHANNELS)}"
            )


def check_formats(config: Config, conda: bool = True) -> None:
    """Files and tables of formats that need optional packages."""
    data = config["data"]
    if data["source"] == "simulated" or (conda and config["compute"]["environment"] == format_choices.ENVIRONMENT):
        return  # stages of that conda environment have packages of their own
    files = data["files"] or ""
    problem = format_choices.missing_package(files.values() if isinstance(files, dict) else [files])
    if problem:
        raise ConfigError(f"data.files: {problem}")
    tables = {f"data.{name}": data[name] for name in ("table", "groups")}
    tables["data.unlabelled.table"] = (data["unlabelled"] or {}).get("table")
    for key, path in tables.items():
        if path and (problem := format_choices.missing_table_package(path)):
            raise ConfigError(f"{key} = {problem}")
