"""Generators that come from the file of another run or laboratory: whether they fit, and what they have read of the
images here.

Trained on the same image set, a generator's record holds here too. Trained on another one, it is compared by
fingerprints: an image that both have counts as read, and a protein that both have must be one to train on. Whatever
they have in common under other names is not found, so the record says that it is unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.generate import generator_file, generator_header
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.networks import make_network
from workflow_scripts.lib.images import fingerprints
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import AS_WRITTEN
from workflow_scripts.lib.split.roles import Role

NAMED = 5  # groups in a message
MOST_CLASSES = 100_000  # of a network
# Roles of which it does not matter here that a relative has been read.
APART = (Role.TRAIN, Role.RESERVE_SAME, Role.UNLABELLED, Role.UNUSED)


def read(path: Path, source: ImageSet, settings: dict[str, Any]) -> Generator:
    """The generator of a file, with the classes of the image set `source` and what it has read of that set.

    `settings` are those of the generator here; UserError where the file does not suit them."""
    name = settings["name"]
    made = generator_file.read(path)
    header = generator_header.Header(made.settings, made.channels, made.classes, made.size, made.digest)
    problem = generator_header.problem(header, settings, source.size, source.channels)
    problem = problem or generator_header.unknown_classes(header, source.classes) or _weights_problem(made)
    if problem:
        raise UserError(f"generator {name} ({path.name}): {problem}")
    own = dict(settings)
    if made.settings.get("condition_on"):
        own["column_values"] = made.settings["column_values"]
    if made.classes != source.classes or "label_places" in made.settings:
        own["label_places"] = _label_places(made, source.classes)
    record = _record(made, source, name)
    return replace(made, settings=own, classes=source.classes, access_record=record)


def check_roles(made: Generator, source: ImageSet, table: Path, fold: int) -> None:
    """UserError that names groups which a generator from elsewhere has read and which are no train groups here."""
    record, name = made.access_record, made.settings["name"]
    roles = role_table.read(table, fold, source.ids, AS_WRITTEN)
    groups: set[str] = set()
    for purpose, further in (("fit", ()), ("select", (Role.VALIDATION,))):
        rows, allowed = record.of(purpose), (Role.TRAIN, Role.UNLABELLED, *further)
        # A further image has its role from its relatives.
        kin = ~source.further & ~np.isin(roles, (*APART, *further))
        groups |= set(source.groups[rows[~np.isin(roles[rows], allowed)]])
        groups |= set(source.groups[rows]) & set(source.groups[kin])
    # Where a name alone is in common, the role of the group decides; what was selected on here stands in the record.
    outside = ~source.further & ~np.isin(roles, APART)
    named = set(source.groups[_namesakes(made, source)]) - set(source.groups[record.of("select")])
    groups |= set(source.groups[outside]) & named
    if groups:
        first, more = ", ".join(sorted(groups)[:NAMED]), len(groups) - NAMED
        count = f"{len(groups)} group{'s' * (len(groups) != 1)}"
        raise UserError(
            f"generator {name} comes from a file that was trained on {count} that may not be trained on in fold {fold} "
            f"here: {first}{f' and {more} more' if more > 0 else ''}. Take one of a fold with the same roles "
            "({repeat} and {fold} may stand in the path), or leave these groups out"
        )


def _record(made: Generator, source: ImageSet, name: str) -> AccessRecord:
    """What a generator has read of an image set."""
    before = made.access_record
    if (before.images, before.count) == (source.digest, len(source)):
        return before.only("fit", "select")
    record = AccessRecord(source.digest, len(source), unknown=before.unknown | {name})
    if made.trained_on is not None:
        # Opened by itself: that pixels were compared is no part of what a training reads.
        with ImageSet(source.path) as compared:
            own = fingerprints.of_images(compared, np.arange(len(source)))
        record.record("fit", np.flatnonzero(fingerprints.contained(own, made.trained_on.images)))
    return record


def _namesakes(made: Generator, source: ImageSet) -> np.ndarray:
    """Rows of the images of groups that a generator has read elsewhere, by the names of these."""
    if made.trained_on is None or not made.access_record.unknown:
        return np.empty(0, dtype=np.int64)
    names, owner = fingerprints.of_groups(source)
    return owner[fingerprints.contained(names, made.trained_on.groups)]


def _label_places(made: Generator, classes: list[str]) -> dict[str, Any]:
    """Which class of its network each class here is."""
    before = made.settings.get("label_places") or {"of": len(made.classes), "places": list(range(len(made.classes)))}
    return {"of": before["of"], "places": [before["places"][made.classes.index(name)] for name in classes]}


def _weights_problem(made: Generator) -> str | None:
    """Why the weights of a file are not those of the network that it describes, in one line; None where they are."""
    told, placed = made.settings.get("column_values", {}), made.settings.get("label_places")
    if not isinstance(told, dict) or list(told) != list(made.settings.get("condition_on") or []):
        return "it does not tell the values of the columns that it is conditioned on"
    if placed and not (len(placed["places"]) == len(made.classes) and 0 < placed["of"] <= MOST_CLASSES):
        return "it does not tell which classes its network knows"
    try:
        with torch.random.fork_rng(devices=[]):
            network = make_network(made.settings, len(made.channels), len(made.classes), made.size, torch.float32)
        for weights in filter(None, (made.weights, made.earlier)):
            network.load_state_dict(weights)
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
        return f"its weights are not those of its network ({str(error).splitlines()[0]})"
    numbers = [*made.weights.values(), made.pixels.shift, made.pixels.scale]
    channels = (len(made.channels),)
    if not all(bool(torch.isfinite(value).all()) for value in numbers) or not bool((made.pixels.scale > 0).all()):
        return "its weights hold values that are no numbers, or its pixel scaling divides by zero"
    if (made.pixels.shift.shape, made.pixels.scale.shape) != (channels, channels):
        return "its pixel scaling is not one number a channel"
    return None
