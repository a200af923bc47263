"""Replay of the reference study in one fold: generators, synthetic sets and scores; finished work is kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress, duration
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.base.stage import log
from workflow_scripts.lib.classify.classifier_training import Images
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.generate import generator_file, generator_training
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.generator_training import Pixels
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet, Part
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.split.roles import Role
from workflow_scripts.lib.study import designs, emulation, switches
from workflow_scripts.lib.study.emulation import Asked
from workflow_scripts.lib.study.units import OFF, Levels, Unit


@dataclass
class FoldReplay:
    """Replay in one fold of one repeat: its images under the switches, and the cache of finished work."""

    source: ImageSet
    roles: np.ndarray
    repeat: int
    fold: int
    seed: int  # of this repeat and fold
    work: Path
    settings: dict[str, Any]
    code: str  # digest of the code of the stage
    digest: str = ""  # of images, roles and code
    judged: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self) -> None:
        where = [self.source.digest, self.repeat, self.fold, list(self.roles), device.rounding(device.device())]
        self.digest = files.digest([where, self.code, self.seed])
        self.part = lru_cache(maxsize=6)(self._part)
        labels = self.source.labels(None, "inspect").astype(bool)
        # Classes that occur in every part, however it is drawn: gaps must not come from another set of classes.
        parts = [rows for split in (False, True) for rows in self.rows(split)]
        parts += [self.rows_of(role) for role in (Role.CALIBRATION, Role.TEST)]
        self.judged = np.all([labels[rows].any(axis=0) for rows in parts], axis=0)
        if not self.judged.any():
            raise UserError(f"repeat {self.repeat}, fold {self.fold}: no class has images in every part")

    def rows_of(self, role: str) -> np.ndarray:
        """Row numbers of a role."""
        rows = np.flatnonzero(self.roles == role)
        if not len(rows):
            raise UserError(f"repeat {self.repeat}, fold {self.fold}: no image has the role {role}")
        return rows

    def rows(self, image_split: bool) -> tuple[np.ndarray, np.ndarray]:
        """Train and validation rows; drawn image by image they are as many as those of the fold."""
        train, validation = self.rows_of(Role.TRAIN), self.rows_of(Role.VALIDATION)
        if not image_split:
            return train, validation
        both = np.sort(np.concatenate([train, validation]))
        return emulation.split_by_image(both, len(validation), derive(self.seed, "image_split"))

    def _part(self, role: str, image_split: bool, premultiplied: bool) -> Part:
        purpose = {"train": "fit", "validation": "select", "calibration": "threshold", "test": "score"}[role]
        rows = self.rows_of(role) if role in (Role.CALIBRATION, Role.TEST) else None
        if rows is None:
            rows = self.rows(image_split)[0 if role == Role.TRAIN else 1]
        part = self.source.read(rows, purpose)
        part.images = emulation.resized(part.images, self.source.size, premultiplied)
        return part

    def parts(self, levels: Levels) -> dict[str, Part]:
        """All parts under these switches, by role."""
        return {
            role: self.part(role, levels["image_split"] and role in (Role.TRAIN, Role.VALIDATION),
                            levels["premultiplied_alpha"])
            for role in (Role.TRAIN, Role.VALIDATION, Role.CALIBRATION, Role.TEST)
        }  # fmt: skip

    def task(self, *what: Any) -> str:
        """Digest of a unit of work in this fold."""
        return files.digest([self.digest, *what])


def trained_generator(replay: FoldReplay, levels: Levels) -> Generator:
    """Generator of these switches: from its file, or trained now."""
    key = "study" if levels["no_time"] else "mixloc"
    settings = replay.settings["generators"][key] | {"labels": "single" if levels["single_label"] else "multi_hot"}
    size = replay.settings["forensics"]["shown_from"] if levels["shown_larger"] else replay.source.size
    named = {name: levels[name] for name in switches.needs_generator(levels)}
    digest = replay.task("generator", settings, size, named)
    path = replay.work / "generators" / f"{digest}.safetensors"
    with files.lock(path, _waiting):
        if generator_file.read_digest(path) == digest:
            return generator_file.read(path)
        part = replay.parts(levels)[Role.TRAIN]
        images = emulation.resized(part.images, size, levels["premultiplied_alpha"] and size != part.images.shape[-1])
        pixels, where = Pixels.fitted(settings["pixels"], images), device.device()
        resume = Resume(path.with_suffix(".resume.pt"), digest)
        seed = derive(replay.seed, "generator")
        with Progress("generator", total=settings["steps"]) as bar:
            done = generator_training.train(
                images, part.labels, settings, pixels, seed, where, device.fast_dtype(where), resume,
                lambda step, loss: bar.update(step, loss=loss),
            )  # fmt: skip
        generator = Generator(
            replay.repeat, replay.fold, settings, replay.source.channels, replay.source.classes, size, pixels,
            part.access_record, digest, done.seconds, done.weights,
        )  # fmt: skip
        generator_file.write(path, generator)
        resume.clear()
    log.info("generator (%s): %s", _on(named), duration(done.seconds))
    return generator


def synthetic_images(replay: FoldReplay, levels: Levels) -> tuple[Images, AccessRecord]:
    """Synthetic images of these switches as the classifier sees them, and what their generator was fitted on."""
    section, synthetic_set = (
        replay.settings["forensics"],
        replay.settings["synthetic_sets"]["study" if levels["no_time"] else "mixloc"],
    )
    made = trained_generator(replay, levels)
    digest = replay.task("synthetic", made.digest, synthetic_set, section["count"], levels["uniform_prior"])
    path = replay.work / "synthetic" / f"{digest}.h5"
    with files.lock(path, _waiting):
        if not path.exists():
            real = replay.parts(levels)[Role.TRAIN].labels
            rng = np.random.default_rng(derive(replay.seed, "labels"))
            single = levels["single_label"]
            labels = emulation.wanted_labels(real, section["count"], levels["uniform_prior"], single, rng)
            images = emulation.made_images(made, labels, synthetic_set, derive(replay.seed, "sample"), device.device())
            images = emulation.resized(images, replay.source.size, levels["premultiplied_alpha"])
            attrs = {"source": "replay of the reference study", "access_record": made.access_record.to_json()}
            attrs |= {"repeat": replay.repeat, "fold": replay.fold}
            with write_images(path, made.channels, made.classes, replay.source.size, attrs) as writer:
                ids = [f"syn-{number:06d}" for number in range(len(images))]
                writer.append(images, labels, ids, ["synthetic"] * len(images))
    with ImageSet(path) as synthetic:
        part = synthetic.read(None, "fit")
        return Images(part.images, part.labels, synthetic=True), synthetic.inherited() or made.access_record


def _synthetic_settings(replay: FoldReplay, levels: Levels) -> list[Any]:
    """Settings of a synthetic set that no switch decides."""
    key, section = "study" if levels["no_time"] else "mixloc", replay.settings["forensics"]
    return [
        replay.settings["generators"][key],
        replay.settings["synthetic_sets"][key],
        section["count"],
        section["shown_from"],
    ]


def unit_scores(replay: FoldReplay, unit: Unit) -> dict[str, Any]:
    """Scores of a unit under every combination of its after-training switches, and what it was fitted on."""
    fixed = {
        name: replay.settings["replay"][name] for name in switches.of_model(switches.SWITCHES, unit.model, after=True)
    }
    states = [OFF | fixed | levels for levels in designs.combinations_of(list(unit.after))]
    section = replay.settings["forensics"]
    least = replay.settings["minimum_calibration_groups"]
    made = _synthetic_settings(replay, unit.levels) if unit.made else None
    digest = replay.task("unit", unit.model, unit.levels, unit.after, fixed, least, section["plateau"], made)
    path = replay.work / "units" / f"{digest}.json"
    with files.lock(path, _waiting):
        finished = _finished(path)
        if finished is not None:
            return finished
        second, inherited = synthetic_images(replay, unit.levels) if unit.made else (None, None)
        parts = replay.parts(unit.levels)
        real, validation = (Images(parts[role].images, parts[role].labels) for role in (Role.TRAIN, Role.VALIDATION))
        seed = derive(replay.seed, "classifier")
        trainer, course = emulation.trained(unit.model, unit.levels, section["plateau"], real, second, validation, seed)
        asked = {role: _asked(parts[role]) for role in (Role.VALIDATION, Role.CALIBRATION, Role.TEST)}
        scores = emulation.scored(trainer.network, course, asked, states, unit.model, least, replay.judged, seed)
        record = parts[Role.TRAIN].access_record.merged(
            parts[Role.VALIDATION].access_record,
            parts[Role.TEST].access_record,
            *([inherited] if inherited else []),
        )
        out = {"scores": scores, "fitted": _records(unit, states, record, parts)}
        files.write_json(path, out)
    return out


def _finished(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if {"scores", "fitted"} <= record.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _records(unit: Unit, states: list[Levels], record: AccessRecord, parts: dict[str, Part]) -> dict[str, str]:
    """Records for the leak certificate: the model, and separately what breaks a rule on purpose."""
    name = unit.model["name"]
    reported = {levels["thresholds_on_reported"] for levels in states}
    own = record.merged(parts[Role.CALIBRATION].access_record) if False in reported else record
    out = {switches.artefact(name, "image_split" if unit.levels["image_split"] else ""): own.to_json()}
    if True in reported:
        tuned = AccessRecord(record.images, record.count)
        tuned.record("threshold", parts[Role.VALIDATION].rows)
        out[switches.artefact(name, "thresholds_on_reported")] = tuned.to_json()
    return out


def _asked(part: Part) -> Asked:
    return Asked(part.images, part.labels, np.unique(part.groups.astype(str), return_inverse=True)[1])


def _on(levels: Levels) -> str:
    return ", ".join(name for name, level in levels.items() if level) or "as MixLoc"


def _waiting(holder: str) -> None:
    log.info("waiting for process %s, which makes the same", holder)
