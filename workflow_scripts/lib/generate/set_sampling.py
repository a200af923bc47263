"""Making of a synthetic set as a file: from a generator's file to an image set (HDF5) with its record.

One set is the work of the stage sample_ddpm, all sets of a fold in one process are that of sample_fold. A set's images
depend on the run's seed, its settings and its generators alone, so both make the same."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import duration
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.base.stage import log
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.generate import baseline_errors, generator_checks, generator_choices, generator_file
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.requests import Requests, make_requests
from workflow_scripts.lib.generate.synthetic_set import Networks, make_images
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_layout import MISSING
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import regime_of
from workflow_scripts.lib.split.roles import Role


@dataclass(frozen=True)
class SampledFold:
    """Fold of a run for which sets are made: its images, roles, number, the seed of the run, and the stage's code."""

    images: Path
    folds: Path
    repeat: int
    fold: int
    seed: int
    code: str  # digest


@dataclass(frozen=True)
class SetFiles:
    """Files of one set: what it is made from, and the set itself."""

    generator: Path
    out: Path
    weaker: Path | None = None  # the generator that guidance pushes away from
    baseline: Path | None = None  # a list of arms that begins with the fold's baseline


def make_set(fold: SampledFold, paths: SetFiles, settings: dict[str, Any], networks: Networks) -> None:
    """Make one synthetic set; resumes from a checkpoint beside it after a kill."""
    out, where = paths.out, networks.where
    seed = derive(fold.seed, fold.repeat, fold.fold, "plan", settings["name"])
    with files.lock(out, lambda holder: log.info("waiting for process %s, which writes %s", holder, out)):
        generator = generator_file.read(paths.generator)
        weaker = generator_file.read(paths.weaker) if paths.weaker else None
        requests = _requests(fold, paths, settings, (generator, weaker), seed)
        access_record = requests.access_record.to_json()
        task = [settings, seed, generator.digest, access_record, requests.digest(), device.rounding(where), fold.code]
        task += [weaker.digest] if weaker else []
        digest = files.digest(task)
        if _finished(out, digest):
            log.info("%s was finished meanwhile by another process: kept", out)
            return
        resume = Resume(out.with_name(f"{out.stem}.resume.pt"), digest)
        _announce(settings, len(requests.labels), networks)
        attrs: dict[str, Any] = {
            "source": f"generator {generator.settings['name']}, synthetic set {settings['name']}",
            "access_record": access_record,
            "generator": json.dumps(generator.settings, sort_keys=True),
            "generator_digest": generator.digest,
            "synthetic_set": json.dumps(settings, sort_keys=True),
            "repeat": fold.repeat,
            "fold": fold.fold,
            "task_digest": digest,
        }
        started = time.monotonic()
        images = make_images(generator, requests, settings, seed, where, resume, weaker, networks)
        spent, count = time.monotonic() - started, len(images)
        form = (generator.channels, generator.classes, generator.size)
        with write_images(out, *form, attrs | requests.attrs) as writer:
            ids = [f"syn-{number:06d}" for number in range(count)]
            writer.append(images, requests.labels, ids, ["synthetic"] * count, requests.columns(generator.classes))
        resume.clear()
    log.info("%d images in %s (%.1f a second)", count, duration(spent), count / max(spent, 1e-9))


def _requests(
    fold: SampledFold, paths: SetFiles, settings: dict[str, Any], pair: tuple[Generator, Generator | None], seed: int
) -> Requests:
    """Sampling requests of a set; UserError where its generators or the images do not fit."""
    (generator, weaker), regime = pair, regime_of(settings)
    problem = generator_checks.set_problem(
        settings, generator.settings, generator.channels, weaker.settings if weaker else None
    )
    if problem:
        raise UserError(f"synthetic set {settings['name']}: {problem}")
    with ImageSet(fold.images) as source:
        for made in filter(None, pair):
            if (made.classes, made.channels, made.size) != (source.classes, source.channels, source.size):
                raise UserError(
                    f"the generator was trained on other classes, channels or sizes than those of {fold.images}"
                )
        if weaker is not None:
            _check_scales(settings["name"], generator, weaker)
        baseline = None
        if generator_choices.asks_baseline(settings):
            if paths.baseline is None:
                raise UserError(
                    f"synthetic set {settings['name']} asks the fold's trained baseline: --baseline arms/job0.json"
                )
            place = (fold.folds, fold.repeat, fold.fold)
            baseline = baseline_errors.read_baseline(paths.baseline, source, *place, regime)
        rows = role_table.rows(fold.folds, fold.fold, source.ids, Role.TRAIN, regime)
        return make_requests(settings, generator, source, rows, baseline, seed, weaker)


def _check_scales(name: str, generator: Generator, weaker: Generator) -> None:
    """Refuse a pair of which one came from elsewhere with its own scale of pixels, or its own values of columns."""
    shifts, scales = ([getattr(one.pixels, part) for one in (generator, weaker)] for part in ("shift", "scale"))
    known = [dict(one.settings.get("column_values") or {}) for one in (generator, weaker)]
    for values in known:
        values.pop(MISSING, None)  # one of the pair may not have been told which channels are missing
    if not (torch.allclose(*shifts) and torch.allclose(*scales)) or known[0] != known[1]:
        raise UserError(
            f"synthetic set {name}: generator and guidance.weaker have other scales of pixels, or know other values of "
            "columns, because one comes from elsewhere: train both on the same images"
        )


def _announce(settings: dict[str, Any], count: int, networks: Networks) -> None:
    start, guidance = settings.get("start_noise"), settings["guidance"]
    worse = guidance.get("weaker") or guidance.get("against")
    log.info(
        "synthetic set %s: %d images%s, %s, %d evaluations, guidance %g%s, %s",
        settings["name"],
        count,
        f" varied from noise level {start:g}" if start else "",
        settings["sampler"],
        settings["evaluations"],
        guidance["scale"],
        f" away from {worse}" if worse else "",
        device.describe(networks.where),
    )


def _finished(out: Path, digest: str) -> bool:
    if not out.exists():
        return False
    with ImageSet(out) as source:
        return source.attrs.get("task_digest") == digest
