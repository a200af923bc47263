"""One generator of one fold, from images to its file: trained, fine-tuned, or taken over from another run."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base import files, source_code, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress, duration
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.compute import device, multiprocess
from workflow_scripts.lib.compute.live_course import NOWHERE, Live, LiveCourse
from workflow_scripts.lib.compute.multiprocess import SharedResume
from workflow_scripts.lib.generate import (
    average_choice,
    column_values,
    from_elsewhere,
    generator_checks,
    generator_choices,
    generator_file,
    live_strips,
    training_images,
)
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.generator_training import HISTORY_COLUMNS, Pixels, train
from workflow_scripts.lib.generate.training_images import Fold, TrainingImages
from workflow_scripts.lib.images import fingerprints
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_layout import MISSING


@dataclass(frozen=True)
class Wish:
    """What a generator is made from, and where it goes."""

    images: Path
    fold: Fold
    seed: int  # of the run
    out: Path
    history: Path
    origin: Path | None = None  # generator of another run to start from
    live: Live = NOWHERE


def make(wish: Wish, settings: dict[str, Any]) -> None:
    """Train one generator, from the weights of its origin where one is given; resumes after a kill."""
    settings, fold, out = dict(settings), wish.fold, wish.out
    seed = derive(wish.seed, fold.repeat, fold.number, "generator", settings["name"])
    device.use_threads(settings.pop("threads"))
    lock = files.lock(out, lambda holder: stage.log.info("waiting for process %s, which writes %s", holder, out))
    with multiprocess.held(lock), ImageSet(wish.images) as source:
        problem = generator_checks.generator_problem(settings, source.size, source.channels)
        if problem:
            raise UserError(f"generator {settings['name']}: {problem}")
        made = None
        if wish.origin is not None:
            made = from_elsewhere.read(wish.origin, source, settings)
            from_elsewhere.check_roles(made, source, fold.table, fold.number)
            _announce_origin(made, wish.origin)
            settings = made.settings
        else:
            settings = _told_missing(settings, source)
        if settings["steps"]:
            _train(source, wish, seed, settings, made)
        elif made is not None:
            _take_over(source, wish, made)
        else:
            raise UserError(f"generator {settings['name']}: steps is 0, and there is no file that it comes from")


def _told_missing(settings: dict[str, Any], source: ImageSet) -> dict[str, Any]:
    """Settings of a generator that is told which channels are missing, where some are and its network can be told."""
    if source.present.all() or MISSING in settings.get("condition_on", []):
        return settings
    told = settings | {"condition_on": [*settings.get("condition_on", []), MISSING]}
    if problem := generator_checks.generator_problem(told, source.size, source.channels):
        stage.log.warning("%s cannot be told which channels are missing: %s", settings["name"], problem)
        return settings
    return told


def _announce_origin(made: Generator, origin: Path) -> None:
    unknown = "; whether it has read other images or proteins of this set is unknown" * bool(made.access_record.unknown)
    count = len(made.access_record.of("fit"))
    stage.log.info("%s comes from %s, which has read %d images here%s", made.settings["name"], origin, count, unknown)


def _take_over(source: ImageSet, wish: Wish, made: Generator) -> None:
    """Write a generator from elsewhere as one of this fold."""
    fold, out, history = wish.fold, wish.out, wish.history
    task = [made.settings, made.digest, made.access_record.to_json(), source_code.stage_digest("train_ddpm")]
    digest = files.digest([*task, fold.repeat, fold.number, source.digest])
    if not multiprocess.first() or (history.exists() and generator_file.read_digest(out) == digest):
        return
    _write_history(history, [])
    place = {"repeat": fold.repeat, "fold": fold.number, "digest": digest, "seconds": 0.0}
    generator_file.write(out, replace(made, **place))


def _train(source: ImageSet, wish: Wish, seed: int, settings: dict[str, Any], made: Generator | None) -> None:
    """Train a generator, from fresh weights or from those of one that was made before."""
    fold, out, history, live = wish.fold, wish.out, wish.history, wish.live
    # Before the train part, whose record then holds it.
    validation = average_choice.read_validation(source, fold.table, fold.number, settings)
    part, columns = training_images.read(source, fold, settings), None
    if part.columns is not None:
        known = _known_values(part, settings, made)
        settings = settings | {"column_values": dict(zip(settings["condition_on"], known, strict=True))}
        columns = column_values.one_hot(part.columns, known)
    height, width = part.images.shape[2:]
    if height != width:
        raise UserError(
            f"{source.path} has images of {width} x {height} px: generators take square ones; "
            "let preprocess_images make them (preprocess_images.size)"
        )
    record = part.access_record if made is None else part.access_record.merged(made.access_record)
    where = device.device()
    dtype = device.fast_dtype(where)
    # The access_record tells which rows were read; threads and number format change the last bits.
    task = [settings, seed, record.to_json(), device.rounding(where), source_code.stage_digest("train_ddpm")]
    task += [source.limits_digest] if source.limits_digest else []
    digest = files.digest([*task, *([part.answers] if part.answers else []), *([made.digest] if made else [])])
    if multiprocess.decided(history.exists() and generator_file.read_digest(out) == digest):
        stage.log.info("%s was finished meanwhile by another process: kept", out)
        return
    full = settings | {"reference_places": generator_choices.reference_places(settings, source.channels)}
    resume = SharedResume(out.with_name(f"{out.stem}.resume.pt"), digest)
    pixels = Pixels.fitted(settings["pixels"], part.images) if made is None else made.pixels
    about = (settings["name"], len(part), source.size, device.describe(where))
    stage.log.info("generator %s: %d images of %d px, %s", *about)
    steps = settings["steps"]
    whose = {"kind": "generator", "name": settings["name"], "repeat": fold.repeat, "fold": fold.number}
    course = LiveCourse(
        live.folder if multiprocess.first() else None, whose | {"channels": source.channels}, steps, digest
    )
    with Progress("train", total=steps) as bar:

        def tell(step: int, loss: float) -> None:
            bar.update(step, loss=loss)
            course.add(step, loss=loss)

        trained = train(
            part.images,
            part.labels,
            full,
            pixels,
            seed,
            where,
            dtype,
            resume,
            tell,
            part.known,
            columns,
            made.weights if made else None,
            lambda training: live_strips.keep(training, course, live.minutes, dtype),
        )
    if not multiprocess.first():
        return
    weights, average = average_choice.chosen_weights(trained, validation, full, pixels, seed, where, dtype)
    rows = np.union1d(record.of("fit"), record.of("select"))
    trained_on = fingerprints.of_rows(source, rows)
    if made is not None and made.trained_on is not None:
        trained_on = trained_on.joined(made.trained_on)
    result = Generator(
        fold.repeat, fold.number, settings, source.channels, source.classes, source.size, pixels, record, digest,
        trained.seconds, weights, trained.earlier, average, trained_on,
    )  # fmt: skip
    _write_history(history, trained.history)
    generator_file.write(out, result)
    resume.clear()
    rate = steps * settings["batch"] / max(trained.seconds, 1e-9)
    stage.log.info("%d images seen in %s (%.0f a second)", steps * settings["batch"], duration(trained.seconds), rate)


def _known_values(part: TrainingImages, settings: dict[str, Any], made: Generator | None) -> list[list[str]]:
    """Values of the columns that a generator is told: those of its images, or those that its file knows."""
    name, asked, own = settings["name"], settings["condition_on"], column_values.known_values(part.columns)
    known = own if made is None else [made.settings["column_values"][column] for column in asked]
    for column, values, others in zip(asked, own, known, strict=True):
        if not values:
            raise UserError(f"generator {name}: no train image has a value of {column!r}")
        if absent := sorted(set(values) - set(others)):
            raise UserError(f"generator {name} comes from a file that does not know {absent[0]!r} of {column!r}")
    return known


def _write_history(path: Path, rows: list[list[float]]) -> None:
    with files.atomic(path) as part, part.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(HISTORY_COLUMNS)
        for step, seen, loss, rate, seconds in rows:
            writer.writerow([int(step), int(seen), f"{loss:.6g}", f"{rate:.6g}", f"{seconds:.2f}"])
