"""Where the raw images of a run and their tables lie, for the rules that read them. Pure functions."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from workflow_scripts.lib.config import views
from workflow_scripts.lib.config.problems import Config, ConfigError


def is_fetched(config: Config) -> bool:
    """Whether the images lie elsewhere and fetch_images brings them."""
    data = config["data"]
    return data["source"] in ("public", "kaggle2018", "kaggle2021") and not data["images"]


def fetched_folder(config: Config, part: str = "train") -> str:
    """Where fetch_images puts the images. It outlives runs, so it is nobody's declared output; what it held
    when a run began stands in fetched/checksums.csv."""
    return f"{config['fetch_images']['folder']}/{config['data']['source']}/{part}"


def image_manifest(config: Config) -> dict[str, str]:
    """What fetch_images is to fetch; the Kaggle sets bring their own table."""
    return {"manifest": config["data"]["table"]} if config["data"]["source"] == "public" else {}


def known_tables(config: Config, *more: str) -> dict[str, str]:
    """The tables of one's own images, by which they can be counted before any is read."""
    return cut_images(config, *more) if config["data"]["cells"] else own_tables(config, *more)


def own_tables(config: Config, *more: str) -> dict[str, str]:
    """The tables that came with one's own images, and whatever `more` of the section data names a path."""
    data = config["data"]
    names = (*more, "table", "groups", "classes") if data["source"] != "simulated" else ()
    return {name: data[name] for name in names if data[name]}


def crate_tables(config: Config) -> dict[str, str]:
    """The tables that came with the images, and the checksums of images that were fetched."""
    fetched = {"checksums": views.in_run(config, "fetched/checksums.csv")} if is_fetched(config) else {}
    return own_tables(config) | fetched


def cut_images(config: Config, *more: str) -> dict[str, str]:
    """The tables of cells that are cut out of whole fields, and with `images` their folder."""
    kept = {name: path for name, path in own_tables(config).items() if name == "classes"}
    names = [name for name in (*more, "table", "groups") if name != "groups" or config["data"]["groups"]]
    return {name: views.in_run(config, f"cells/{name}{'' if name == 'images' else '.csv'}") for name in names} | kept


def raw_images(config: Config) -> dict[str, str]:
    """Where the images that are preprocessed and their tables are."""
    return cut_images(config, "images") if config["data"]["cells"] else raw_fields(config)


def raw_fields(config: Config) -> dict[str, str]:
    """Where the raw images and their tables are, before any cells are cut out of them."""
    if config["data"]["source"] == "simulated":
        places = {"images": "train", "table": "train.csv", "groups": "metadata.csv", "classes": "classes.csv"}
        return {name: views.in_run(config, f"simulated/{place}") for name, place in places.items()}
    given = own_tables(config, "images")
    given |= {f"unlabelled_{name}": path for name, path in (config["data"]["unlabelled"] or {}).items() if path}
    if is_fetched(config):
        given |= {name: views.in_run(config, f"fetched/{name}.csv") for name in ("table", "checksums")}
    return given


def fields_to_cut(config: Config) -> dict[str, str]:
    """The whole fields and their tables, for cut_cells."""
    if not config["data"]["cells"]:
        raise ConfigError("the target cells needs data.cells, such as {nucleus_channel: blue}")
    return raw_fields(config)


def cells_page(config: Config) -> str:
    """The page of the cells that are cut out of whole fields."""
    fields_to_cut(config)
    return views.in_run(config, "cells/index.html")


def raw_flags(config: Config, given: dict[str, Any]) -> str:
    """The flags by which a stage gets the raw images and their tables, from a rule's inputs."""
    flags = {"images-dir": given.get("images") or fetched_folder(config), "table": given["table"]}
    names = ("groups", "classes", "unlabelled_images", "unlabelled_table")
    flags |= {name.replace("_", "-"): given[name] for name in names if given.get(name)}
    return " ".join(f"--{name} {shlex.quote(path)}" for name, path in flags.items())


def test_images(config: Config) -> dict[str, str]:
    """The competition's test images and sample table where the config names them; otherwise what fetches them."""
    section = config["write_submission"]
    given = {name: section[name] for name in ("images", "sample") if section[name]}
    if config["data"]["classes"]:
        given["classes"] = config["data"]["classes"]
    if "images" in given and "sample" in given:
        return given
    if not is_fetched(config):
        raise ConfigError("the target submission needs write_submission.images and write_submission.sample")
    if config["data"]["source"] != "kaggle2018" or not config["fetch_images"]["kaggle"]["test_images"]:
        raise ConfigError(
            "the target submission needs the test images: set fetch_images.kaggle.test_images: true (for "
            "data.source: kaggle2018), or write_submission.images and .sample"
        )
    return given | {"checksums": views.in_run(config, "fetched/checksums.csv")}


def new_images(config: Config) -> dict[str, str]:
    """The folder of the images that are to be predicted, and their table where there is one.

    Of whole fields these are cells that cut_new_cells makes."""
    if not config["data"]["cells"]:
        return given_new_images(config)
    folder = f"new_cells/{config['predict']['name']}"
    return {
        "new_left_out": views.in_run(config, f"{folder}/left_out.csv"),
        "new_images": views.in_run(config, f"{folder}/images"),
        "new_table": views.in_run(config, f"{folder}/table.csv"),
    }


def predicted(config: Config) -> str:
    """The folder of the predictions that the target predict makes.

    It looks itself for what is given: of a rule whose earlier output is there Snakemake hides that an input is missing,
    and old predictions would pass for those of the new images."""
    for path in given_new_images(config).values():
        if not Path(path).exists():
            raise ConfigError(f"the target predict: there is no {path!r} (predict.images, predict.table)")
    return views.in_run(config, f"predicted/{config['predict']['name']}")


def given_new_images(config: Config) -> dict[str, str]:
    """The user's folder of new images or whole fields, and their table where there is one."""
    section = config["predict"]
    images, table = section["images"], section["table"]
    if not images:
        raise ConfigError("the target predict needs predict.images: a folder of images, or a table of their Ids")
    if Path(images).is_file() and table is None:
        images, table = str(Path(images).parent), images
    return {"new_images": images} | ({"new_table": table} if table else {})
