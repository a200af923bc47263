"""Job of train_classifier: the arms of one fold that one process trains, and which of them are up to date."""

from __future__ import annotations

import copy
import os
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.stage import log
from workflow_scripts.lib.classify import (
    arm_checks,
    arm_choices,
    arm_settings,
    classifier_file,
    network_choices,
    source_choices,
)
from workflow_scripts.lib.classify.embedded import Embedded
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.generate import generator_checks, generator_file
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet, Part, select_channels
from workflow_scripts.lib.scores import arm_list, prediction_file
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import WHOLE, Regime, regime_of
from workflow_scripts.lib.split.roles import Role

REAL = ""  # name of the embeddings of real images
# Purpose for which the images of a role are read; all others are trained on.
READ_FOR = {Role.VALIDATION: "select", Role.CALIBRATION: "threshold", Role.TEST: "score"}


@dataclass
class Arm:
    """One arm of a fold: its settings, its inputs and its files."""

    settings: dict[str, Any]  # arm_settings.effective
    digest: str
    folder: Path
    synthetic: Path | None = None
    baseline: Path | None = None  # the classifier that it asks
    generator: Path | None = None  # the generator whose encoder it has
    embedded: Embedded | None = None  # what it looks at in place of pixels

    @property
    def name(self) -> str:
        """Name in the config."""
        return self.settings["name"]

    @property
    def regime(self) -> Regime:
        """Label regime that it is trained under."""
        return regime_of(self.settings)

    def seen(self, channels: list[str]) -> list[str]:
        """Channels that the arm uses, of all channels of the images; features, where it has embeddings."""
        return self.embedded.names if self.embedded is not None else self.settings["channels"] or channels

    def look(self, part: Part, channels: list[str]) -> np.ndarray:
        """What the arm sees of a part whose images have these channels: pixels, or embeddings."""
        if self.embedded is not None:
            return self.embedded.of(part)
        return select_channels(part.images, channels, self.seen(channels))

    @property
    def classifier(self) -> Path:
        """Path of the weights."""
        return self.folder / "classifier.safetensors"

    @property
    def predictions(self) -> Path:
        """Path of the predictions."""
        return self.folder / "predictions.h5"

    @property
    def resume(self) -> Path:
        """Path of the checkpoint of a training in progress."""
        return self.folder / "resume.pt"

    @property
    def trained(self) -> bool:
        """Whether the weights exist and belong to this very task."""
        return classifier_file.read_digest(self.classifier) == self.digest

    def lock(self) -> AbstractContextManager[None]:
        """Lock that a process holds while it works on this arm."""

        def waiting(holder: str) -> None:
            log.info("waiting for process %s, which works on arm %s", holder, self.name)

        return files.lock(self.folder, waiting)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.trained and prediction_file.read_digest(self.predictions) == self.digest


class FoldImages:
    """Images of one fold under one label regime, read on demand."""

    def __init__(self, images: Path, table: Path, repeat: int, fold: int) -> None:
        self.source = ImageSet(images)
        self.table, self.repeat, self.fold, self.regime = table, repeat, fold, WHOLE
        self._rows: dict[tuple[str, Regime], np.ndarray] = {}
        self._parts: dict[tuple[str, bytes], Part] = {}
        self.reading = threading.RLock()  # arms that train side by side read one after the other

    def under(self, regime: Regime) -> FoldImages:
        """The same fold under another label regime; what both read is read once."""
        if regime == self.regime:
            return self
        role_table.refuse_few(self.table, self.fold, self.source.ids, self.source.groups, regime)
        out = copy.copy(self)
        out.regime = regime
        return out

    def rows(self, role: str) -> np.ndarray:
        """Row numbers of a role."""
        key = (role, self.regime)
        if key not in self._rows:
            self._rows[key] = role_table.rows(self.table, self.fold, self.source.ids, role, self.regime)
        if not len(self._rows[key]):
            raise UserError(f"{self.table}: fold {self.fold} has no image with role {role}")
        return self._rows[key]

    def has(self, role: str) -> bool:
        """Whether an image of this fold has a role under the regime."""
        return bool((role_table.read(self.table, self.fold, self.source.ids, self.regime) == role).any())

    def part(self, role: str) -> Part:
        """Images of a role, read once, for the one purpose that this role has here; of unlabelled ones no labels."""
        with self.reading:
            rows = self.rows(role)
            key = (role, rows.tobytes())
            if key not in self._parts:
                purpose = READ_FOR.get(role, "fit")
                self._parts[key] = self.source.read(rows, purpose, labels=role != Role.UNLABELLED)
            return self._parts[key]

    def forget_training(self) -> None:
        """Let go of the images that arms are trained on, before those that they predict are read: memory is for one."""
        for key in [key for key in self._parts if key[0] not in (*READ_FOR, Role.UNLABELLED)]:
            del self._parts[key]

    def digest(self) -> str:
        """Digest of the image set and of the roles in this fold."""
        roles = role_table.read(self.table, self.fold, self.source.ids, self.regime)
        limits = [self.source.limits_digest] if self.source.limits_digest else []
        return files.digest([self.source.digest, self.repeat, self.fold, list(roles), *limits])


@dataclass
class Job:
    """Arms of one fold with all of their inputs."""

    fold: FoldImages
    synthetic: dict[str, Path]  # synthetic sets by name
    baseline: Path | None  # manifest whose first arm is the fold's baseline
    folder: Path  # of the arms
    seed: int  # of the run
    settings: dict[str, Any]  # arms, train_classifier, threads
    code: str  # digest of the code of the stage
    generators: dict[str, Path] = field(default_factory=dict)  # by name
    embeddings: dict[str, Path] = field(default_factory=dict)  # by synthetic set; those of real images by REAL

    def arms(self) -> list[Arm]:
        """Arms with their digests; errors are raised before any training."""
        digests: dict[Regime, str] = {}
        sets: dict[Path, str] = {}
        out = []
        for entry in self.settings["arms"]:
            regime = regime_of(entry)
            if regime not in digests:
                digests[regime] = self.fold.under(regime).digest()
            out.append(self._arm(entry, digests[regime], sets))
        return out

    def _arm(self, entry: dict[str, Any], fold: str, sets: dict[Path, str]) -> Arm:
        name, source = entry["name"], self.fold.source
        if entry["method"] not in arm_choices.METHODS:
            raise UserError(f"arms ({name}): {arm_choices.METHODS.unknown(entry['method'])}")
        problem = arm_checks.problem(entry, self.settings["train_classifier"], source.channels, source.size)
        if problem:
            raise UserError(f"arms ({name}): {problem}")
        method, path = arm_choices.METHODS[entry["method"]], None
        if method.needs_set or "synthetic_set" in entry:
            path = self._synthetic(entry)
            if path not in sets:
                sets[path] = _set_digest(path, source)
        settings = arm_settings.effective(entry, self.settings["train_classifier"])
        if name in self.settings.get("answer_unlabelled", []):
            settings["answers_unlabelled"] = True
        if self._lacking(settings):
            settings["channel_marks"] = True
        inputs = [fold, sets[path] if path else "", self.code, torch.__version__]
        inputs += [forced] if (forced := os.environ.get(device.FORMAT)) else []
        if settings["weights"]:
            # By content, and written down with the arm: a name says little about a file.
            settings["weights_digest"] = files.file_digest(network_choices.weights_path(settings["weights"]))
        baseline = None
        if method.needs_baseline:
            baseline = self._baseline(entry)
            problem = arm_checks.baseline_problem(settings, classifier_file.read(baseline).settings)
            if problem:
                raise UserError(f"arms ({name}): {problem}")
            inputs.append(classifier_file.read_digest(baseline))
        generator = self._generator(entry, method) if method.generator else None
        if generator is not None:
            inputs.append(generator_file.read_digest(generator))
        embedded = self._embedded(entry, settings)
        if embedded is not None:
            inputs += [files.file_digest(path) for path in (embedded.real_file, embedded.made_file) if path]
        digest = files.digest([settings, self.settings["threads"], self.seed, *inputs])
        return Arm(settings, digest, self.folder / name, path, baseline, generator, embedded)

    def _lacking(self, settings: dict[str, Any]) -> bool:
        """Whether some images of the set lack a channel that the arm uses, and its network can be told so."""
        source, wanted = self.fold.source, settings["channels"]
        used = [wanted is None or name in wanted for name in source.channels]
        return network_choices.BACKBONES[settings["backbone"]].takes_marks and not source.present[:, used].all()

    def _synthetic(self, entry: dict[str, Any]) -> Path:
        wanted = entry.get("synthetic_set", "")
        if wanted not in self.synthetic:
            raise UserError(
                f"arms ({entry['name']}) needs the synthetic set {entry.get('synthetic_set')!r}: "
                f"--synthetic {entry.get('synthetic_set')}=PATH"
            )
        return self.synthetic[wanted]

    def _embedded(self, entry: dict[str, Any], settings: dict[str, Any]) -> Embedded | None:
        """Files of the arm's embeddings, where its backbone takes these."""
        if settings["backbone"] not in network_choices.EMBEDDED:
            return None
        made = arm_choices.METHODS[entry["method"]].second_source in source_choices.OF_SET
        names = [REAL, *([entry["synthetic_set"]] if made else [])]
        for name in names:
            if name not in self.embeddings:
                raise UserError(f"arms ({entry['name']}) needs embeddings: --embeddings {name}=PATH")
        return Embedded(*(self.embeddings[name] for name in names))

    def _generator(self, entry: dict[str, Any], method: arm_choices.Method) -> Path:
        """File of the arm's generator, checked to belong to this fold and to have an encoder that serves."""
        wanted, own = entry.get("generator", ""), self.fold
        if wanted not in self.generators:
            raise UserError(f"arms ({entry['name']}) needs the generator {wanted!r}: --generators {wanted}=PATH")
        path = self.generators[wanted]
        written = generator_file.read(path)
        if (written.repeat, written.fold, written.access_record.images) != (own.repeat, own.fold, own.source.digest):
            raise UserError(f"{path} is of another repeat, fold or image set: give that of this fold")
        problem = generator_checks.encoder_problem(written.settings, method.generator == arm_choices.AUTOENCODER)
        if problem:
            raise UserError(f"arms ({entry['name']}): {problem}")
        return path

    def _baseline(self, entry: dict[str, Any]) -> Path:
        """Classifier of the first arm of the baseline's manifest, checked to belong to this fold and regime."""
        name, regime, wanted = entry["name"], regime_of(entry), entry.get("pseudo_labels_from")
        if self.baseline is None:
            raise UserError(f"arms ({name}) asks the fold's trained baseline: --baseline MANIFEST")
        path, own = arm_list.read(self.baseline)[0]["classifier"], self.fold
        written = classifier_file.read(path)
        record = AccessRecord.from_json(written.access_record)
        if (written.repeat, written.fold, record.images) != (own.repeat, own.fold, own.source.digest):
            raise UserError(
                f"{path} is of repeat {written.repeat}, fold {written.fold}, or of another image set: "
                f"give the baseline of repeat {own.repeat}, fold {own.fold}"
            )
        if wanted not in (None, written.arm):
            raise UserError(f"{path} is the arm {written.arm!r}, and arms ({name}) asks {wanted!r}: give its list")
        if regime_of(written.settings) != regime:
            raise UserError(f"{path} was trained under another label regime than {regime.name!r}: give its baseline")
        return path


def _set_digest(path: Path, real: ImageSet) -> str:
    """Digest of a synthetic set, checked to fit the real images."""
    with ImageSet(path) as made:
        for what in ("classes", "channels", "size"):
            if getattr(made, what) != getattr(real, what):
                raise UserError(
                    f"{path} has {what} {getattr(made, what)}, the real images {getattr(real, what)}: "
                    "delete it and run again"
                )
        if not len(made):
            raise UserError(f"{path} holds no image: raise the number of samples of its synthetic set")
        record = made.inherited()
        if record is not None and record.images != real.digest:
            raise UserError(f"{path} was made from another image set: delete it and run again")
        return files.digest([made.digest, record.to_json() if record else ""])
