"""replay_study: the reference study's models in one fold, under every row of a design of its suspicious choices.

`forensics.switches` names the choices that are varied (see lib/study/switches.py); those that act before or during training
follow a two-level design, those that act after it are all combined on every trained model, which costs no training.
Rows that agree in what makes a generator share it, and rows that agree in all that acts on a model share its training.
A unit is one trained model with all its scores; finished ones are kept under --work and found again after a kill.

Writes scores (CSV): one line for each row of the design, combination of the switches that act after training, model,
part (validation, test) and metric, with the state of every switch; and a record (JSON) of what was fitted on which
images, for certify_leaks. Test images are those of the fold's test part, whatever is switched.

Example:
    python -m workflow_scripts.replay_study --images images.h5 --folds folds.csv --repeat 0 --fold 0 --share 0 \\
        --seed 1 --work replay --scores replay/0.csv --record replay/0.fitted.json --settings '{"forensics": ...}'
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base import arguments, files, source_code, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress, duration
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify.classifier_training import Images
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.generate import generator_file, generator_training
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.generator_training import Pixels
from workflow_scripts.lib.images.access_record import Provenance
from workflow_scripts.lib.images.image_set import ImageSet, Part, write_images
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role
from workflow_scripts.lib.study import designs, emulation
from workflow_scripts.lib.study import switches as study_switches
from workflow_scripts.lib.study.designs import Design
from workflow_scripts.lib.study.emulation import Asked

Levels = dict[str, bool]
OFF: Levels = dict.fromkeys(study_switches.SWITCHES, False)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    out.add_argument("--folds", type=Path, required=True, help="the table of roles of this repeat")
    out.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    out.add_argument("--fold", type=int, required=True, help="number of the fold")
    out.add_argument("--shard", type=int, required=True, help="which of forensics.shards parts of the work, from 0")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    out.add_argument("--work", type=Path, required=True, help="folder of generators, synthetic sets, finished units")
    out.add_argument("--scores", type=Path, required=True, help="table of scores to write (CSV)")
    out.add_argument("--record", type=Path, required=True, help="what was fitted on which images, to write (JSON)")
    return out.parse_args(argv)


@dataclass(frozen=True)
class Unit:
    """One training of one model, and the rows of the design that share it."""

    model: dict[str, Any]
    levels: Levels  # of all switches that act before or during training; off where one does not act on the model
    after: tuple[str, ...]  # varied switches that act on the model after its training
    rows: tuple[int, ...]
    made: tuple[tuple[str, bool], ...] | None = None  # what decides about its synthetic images; None: it uses none

    @property
    def said(self) -> str:
        """Its name in the log."""
        on = [name for name, level in self.levels.items() if level]
        return f"{self.model['name']} ({', '.join(on) or 'as MixLoc'})"


def units_of(settings: dict[str, Any], shard: int) -> tuple[Design, list[Unit]]:
    """The design, and the units of a share: those with one generator together, generators dealt out in turn."""
    section, base = settings["forensics"], settings["train_classifier"]
    training = study_switches.acting(section, base, after=False)
    design = designs.fraction(training, section["runs"])
    varied, fixed = study_switches.varied(section), settings["replay"]
    groups: dict[tuple, list[Unit]] = {}
    for model in study_switches.models(section, base):
        acting = study_switches.of_model(study_switches.SWITCHES, model, after=False)
        after = tuple(study_switches.of_model(varied, model, after=True))
        states: dict[tuple, list[int]] = {}
        for row, signs in enumerate(design.signs):
            levels = fixed | {name: bool(sign > 0) for name, sign in zip(design.factors, signs, strict=True)}
            states.setdefault(tuple((name, levels[name]) for name in acting), []).append(row)
        for state, rows in states.items():
            levels = {
                name: level for name, level in OFF.items() if study_switches.SWITCHES[name].acts != study_switches.AFTER
            }
            levels |= dict(state)
            learns = any(study_switches.SWITCHES[name].acts == study_switches.GENERATOR for name in acting)
            names = study_switches.needs_generator(levels) if learns else ("image_split", "premultiplied_alpha")
            key = (learns, *((name, levels[name]) for name in names))
            made = (*key[1:], ("uniform_prior", levels["uniform_prior"])) if learns else None
            groups.setdefault(key, []).append(Unit(model, levels, after, tuple(rows), made))
    order = sorted(groups, key=str)
    return design, [unit for key in order[shard :: section["shards"]] for unit in _sorted(groups[key])]


def _sorted(units: list[Unit]) -> list[Unit]:
    return sorted(units, key=lambda unit: (str(unit.made), unit.model["name"], str(unit.levels)))


@dataclass
class Place:
    """One fold of one repeat: its images as the switches want them, and what is made of them."""

    source: ImageSet
    roles: np.ndarray
    repeat: int
    fold: int
    seed: int  # of this place
    work: Path
    settings: dict[str, Any]
    digest: str = ""  # of images, roles and code
    judged: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self) -> None:
        where = [self.source.digest, self.repeat, self.fold, list(self.roles), device.rounding(device.device())]
        self.digest = files.digest([where, source_code.stage_digest("replay_study"), self.seed])
        self.part = lru_cache(maxsize=6)(self._part)
        labels = self.source.labels(None, "inspect").astype(bool)
        # Classes that occur in every part, however it is drawn: gaps must not come from another set of classes.
        parts = [rows for split in (False, True) for rows in self.rows(split)]
        parts += [self.of(role) for role in (Role.CALIBRATION, Role.TEST)]
        self.judged = np.all([labels[rows].any(axis=0) for rows in parts], axis=0)
        if not self.judged.any():
            raise UserError(f"repeat {self.repeat}, fold {self.fold}: no class has images in every part")

    def of(self, role: str) -> np.ndarray:
        """Row numbers of a role."""
        rows = np.flatnonzero(self.roles == role)
        if not len(rows):
            raise UserError(f"repeat {self.repeat}, fold {self.fold}: no image has the role {role}")
        return rows

    def rows(self, image_split: bool) -> tuple[np.ndarray, np.ndarray]:
        """Train and validation rows; drawn image by image they are as many as those of the fold."""
        train, validation = self.of(Role.TRAIN), self.of(Role.VALIDATION)
        if not image_split:
            return train, validation
        both = np.sort(np.concatenate([train, validation]))
        return emulation.split_by_image(both, len(validation), derive(self.seed, "image_split"))

    def _part(self, role: str, image_split: bool, premultiplied: bool) -> Part:
        purpose = {"train": "fit", "validation": "select", "calibration": "threshold", "test": "score"}[role]
        rows = self.of(role) if role in (Role.CALIBRATION, Role.TEST) else None
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
        """Digest of a piece of work here."""
        return files.digest([self.digest, *what])


def generator_of(place: Place, levels: Levels) -> Generator:
    """The generator of these switches: from its file, or trained now."""
    key = "study" if levels["no_time"] else "mixloc"
    settings = place.settings["generators"][key] | {"labels": "single" if levels["single_label"] else "multi_hot"}
    size = place.settings["forensics"]["shown_from"] if levels["shown_larger"] else place.source.size
    named = {name: levels[name] for name in study_switches.needs_generator(levels)}
    digest = place.task("generator", settings, size, named)
    path = place.work / "generators" / f"{digest}.safetensors"
    with files.lock(path, _waiting):
        if generator_file.read_digest(path) == digest:
            return generator_file.read(path)
        part = place.parts(levels)[Role.TRAIN]
        images = emulation.resized(part.images, size, levels["premultiplied_alpha"] and size != part.images.shape[-1])
        pixels, where = Pixels.fitted(settings["pixels"], images), device.device()
        resume = Resume(path.with_suffix(".resume.pt"), digest)
        seed = derive(place.seed, "generator")
        with Progress("generator", total=settings["steps"]) as bar:
            done = generator_training.train(
                images, part.labels, settings, pixels, seed, where, device.fast_dtype(where), resume,
                lambda step, loss: bar.update(step, loss=loss),
            )  # fmt: skip
        found = Generator(
            place.repeat, place.fold, settings, place.source.channels, place.source.classes, size, pixels,
            part.provenance, digest, done.seconds, done.weights,
        )  # fmt: skip
        generator_file.write(path, found)
        resume.clear()
    stage.log.info("generator (%s): %s", _on(named), duration(done.seconds))
    return found


def synthetic_of(place: Place, levels: Levels) -> tuple[Images, Provenance]:
    """The synthetic set of these switches, as the classifier sees it, and what its generator was fitted on."""
    section, synthetic_set = (
        place.settings["forensics"],
        place.settings["synthetic_sets"]["study" if levels["no_time"] else "mixloc"],
    )
    made = generator_of(place, levels)
    digest = place.task("synthetic", made.digest, synthetic_set, section["count"], levels["uniform_prior"])
    path = place.work / "synthetic" / f"{digest}.h5"
    with files.lock(path, _waiting):
        if not path.exists():
            real = place.parts(levels)[Role.TRAIN].labels
            rng = np.random.default_rng(derive(place.seed, "labels"))
            single = levels["single_label"]
            labels = emulation.wanted_labels(real, section["count"], levels["uniform_prior"], single, rng)
            images = emulation.made_images(made, labels, synthetic_set, derive(place.seed, "sample"), device.device())
            images = emulation.resized(images, place.source.size, levels["premultiplied_alpha"])
            attrs = {"source": "replay of the reference study", "provenance": made.provenance.to_json()}
            attrs |= {"repeat": place.repeat, "fold": place.fold}
            with write_images(path, made.channels, made.classes, place.source.size, attrs) as writer:
                ids = [f"syn-{number:06d}" for number in range(len(images))]
                writer.append(images, labels, ids, ["synthetic"] * len(images))
    with ImageSet(path) as found:
        part = found.read(None, "fit")
        return Images(part.images, part.labels, synthetic=True), found.inherited() or made.provenance


def _synthetic_settings(place: Place, levels: Levels) -> list[Any]:
    """What decides about a synthetic set beside the switches."""
    key, section = "study" if levels["no_time"] else "mixloc", place.settings["forensics"]
    return [
        place.settings["generators"][key],
        place.settings["synthetic_sets"][key],
        section["count"],
        section["shown_from"],
    ]


def unit_scores(place: Place, unit: Unit) -> dict[str, Any]:
    """The scores of a unit under every combination of its after-training switches, and what it was fitted on."""
    fixed = {
        name: place.settings["replay"][name]
        for name in study_switches.of_model(study_switches.SWITCHES, unit.model, after=True)
    }
    states = [OFF | fixed | levels for levels in designs.combinations_of(list(unit.after))]
    section = place.settings["forensics"]
    least = place.settings["minimum_calibration_groups"]
    made = _synthetic_settings(place, unit.levels) if unit.made else None
    digest = place.task("unit", unit.model, unit.levels, unit.after, fixed, least, section["plateau"], made)
    path = place.work / "units" / f"{digest}.json"
    with files.lock(path, _waiting):
        finished = _finished(path)
        if finished is not None:
            return finished
        partners, inherited = synthetic_of(place, unit.levels) if unit.made else (None, None)
        parts = place.parts(unit.levels)
        real, validation = (Images(parts[role].images, parts[role].labels) for role in (Role.TRAIN, Role.VALIDATION))
        seed = derive(place.seed, "classifier")
        trainer, course = emulation.trained(
            unit.model, unit.levels, section["plateau"], real, partners, validation, seed
        )
        asked = {role: _asked(parts[role]) for role in (Role.VALIDATION, Role.CALIBRATION, Role.TEST)}
        found = emulation.scored(trainer.network, course, asked, states, unit.model, least, place.judged, seed)
        record = parts[Role.TRAIN].provenance.merged(
            parts[Role.VALIDATION].provenance,
            parts[Role.TEST].provenance,
            *([inherited] if inherited else []),
        )
        out = {"scores": found, "fitted": _records(unit, states, record, parts)}
        files.write_json(path, out)
    return out


def _finished(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if {"scores", "fitted"} <= found.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _records(unit: Unit, states: list[Levels], record: Provenance, parts: dict[str, Part]) -> dict[str, str]:
    """What stands in the certificate: the model, and apart from it what breaks a rule on purpose."""
    name = unit.model["name"]
    reported = {levels["thresholds_on_reported"] for levels in states}
    own = record.merged(parts[Role.CALIBRATION].provenance) if False in reported else record
    out = {study_switches.artefact(name, "image_split" if unit.levels["image_split"] else ""): own.to_json()}
    if True in reported:
        tuned = Provenance(record.images, record.count)
        tuned.record("threshold", parts[Role.VALIDATION].rows)
        out[study_switches.artefact(name, "thresholds_on_reported")] = tuned.to_json()
    return out


def _asked(part: Part) -> Asked:
    return Asked(part.images, part.labels, np.unique(part.groups.astype(str), return_inverse=True)[1])


def replay_study(
    images: Path,
    table: Path,
    repeat: int,
    fold: int,
    shard: int,
    seed: int,
    work: Path,
    scores: Path,
    record: Path,
    settings: dict[str, Any],
) -> None:
    """Train and score all units of a share; write their scores and what they were fitted on."""
    device.use_threads(settings["threads"])
    design, units = units_of(settings, shard)
    stage.log.info(
        "%s design of resolution %s, %d units here", design.notation, design.resolution or "full", len(units)
    )
    lines: list[dict[str, Any]] = []
    fitted: dict[str, Provenance] = {}
    with ImageSet(images) as source:
        roles = role_table.read(table, fold, source.ids)
        place = Place(source, roles, repeat, fold, derive(seed, repeat, fold, "replay"), work, settings)
        for number, unit in enumerate(units, start=1):
            found = unit_scores(place, unit)
            stage.log.info("unit %d of %d: %s", number, len(units), unit.said)
            lines += list(_lines(unit, design, settings["replay"], found["scores"], repeat, fold))
            for name, text in found["fitted"].items():
                own = Provenance.from_json(text)
                fitted[name] = fitted[name].merged(own) if name in fitted else own
    columns = ["repeat", "fold", "row", "model", "part", "metric", "value", *study_switches.SWITCHES]
    with files.atomic(scores) as part:
        pd.DataFrame(lines, columns=columns).to_csv(part, index=False, float_format="%.6f")
    entries = [
        {"name": name, "repeat": repeat, "fold": fold, "provenance": own.to_json()} for name, own in fitted.items()
    ]
    files.write_json(record, {"fitted": sorted(entries, key=lambda entry: entry["name"])})


def _lines(
    unit: Unit, design: Design, fixed: Levels, scores: list[dict[str, dict[str, float]]], repeat: int, fold: int
) -> Iterator[dict[str, Any]]:
    """The lines of a unit in the table: for all rows that share it."""
    for row in unit.rows:
        state = fixed | {name: sign > 0 for name, sign in zip(design.factors, design.signs[row], strict=True)}
        for levels, found in zip(designs.combinations_of(list(unit.after)), scores, strict=True):
            switches = {name: int(level) for name, level in (state | levels).items()}
            # In one order, whether they were computed now or read from a finished unit.
            for part, values in sorted(found.items()):
                for metric, value in sorted(values.items()):
                    yield {
                        "repeat": repeat, "fold": fold, "row": row, "model": unit.model["name"], "part": part,
                        "metric": metric, "value": value,
                    } | switches  # fmt: skip


def _on(levels: Levels) -> str:
    return ", ".join(name for name, level in levels.items() if level) or "as MixLoc"


def _waiting(holder: str) -> None:
    stage.log.info("waiting for process %s, which makes the same", holder)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "replay_study",
        args,
        lambda: replay_study(
            args.images, args.folds, args.repeat, args.fold, args.shard, args.seed, args.work, args.scores,
            args.record, args.settings,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
