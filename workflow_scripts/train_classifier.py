"""train_classifier: the arms of one fold, each trained and then asked about validation, calibration and test images.

Writes, for every arm (arm) in the settings, under --arms-dir:
    {arm}/classifier.safetensors   the weights that were best on validation, and how to use them
    {arm}/predictions.h5           logits with ids of the validation, calibration and test images
and, as the declared output, a manifest of the arms. An arm whose settings, inputs and code are unchanged is kept as it
is, so changing one re-trains that one, however arms are put together into jobs. Test images are read only when no arm
of the job is left to train. Arms that ask the fold's trained baseline (filtered, relabel, weighted) need --baseline:
the manifest of the job whose first arm it is. Under torchrun several processes share the training of each arm; with
--at-once several arms train side by side in one process. Neither changes what is written, but for rounding.

Example:
    python -m workflow_scripts.train_classifier --images images.h5 --folds folds.csv --repeat 0 --fold 0 --seed 1 \\
        --synthetic as_train=synthetic/as_train.h5 --arms-dir arms --manifest arms/job0.json \\
        --settings '{"arms": [{"name": "real_only", "method": "real_only"}], "train_classifier": {...},
                     "threads": 1}'
"""

from __future__ import annotations

import argparse
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workflow_scripts.lib.base import arguments, files, source_code, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress, duration
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import arm_choices, arm_job, classifier_file, second_source
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.classify.classifier_training import Images, train
from workflow_scripts.lib.compute import device, multiprocess
from workflow_scripts.lib.compute.multiprocess import SharedResume
from workflow_scripts.lib.images.access_record import Provenance
from workflow_scripts.lib.images.image_set import ImageSet, Part, select_channels
from workflow_scripts.lib.scores import arm_list, prediction_file
from workflow_scripts.lib.scores.prediction_file import Predictions, Scored
from workflow_scripts.lib.split import assignment, role_table
from workflow_scripts.lib.split.roles import Role

# What each part of a fold is read for.
PURPOSES = {Role.VALIDATION: "select", Role.CALIBRATION: "threshold", Role.TEST: "score"}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    out.add_argument("--folds", type=Path, required=True, help="the table of roles of this repeat")
    out.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    out.add_argument("--fold", type=int, required=True, help="number of the fold")
    out.add_argument("--synthetic", nargs="*", default=[], metavar="SET=PATH", help="synthetic sets by name")
    out.add_argument("--baseline", type=Path, help="the manifest of the job whose first arm is the fold's baseline")
    out.add_argument("--arms-dir", type=Path, required=True, help="folder of the arms")
    out.add_argument("--manifest", type=Path, required=True, help="list of the arms to write (JSON)")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    out.add_argument("--at-once", type=int, default=1, help="arms that train side by side; it changes no result")
    return out.parse_args(argv)


@dataclass
class Arm:
    """One arm: how it is trained, what it needs, and where it lies."""

    settings: dict[str, Any]  # arms.effective
    digest: str
    folder: Path
    synthetic: Path | None = None
    baseline: Path | None = None  # the classifier that it asks

    @property
    def name(self) -> str:
        """Its name in the config."""
        return self.settings["name"]

    def seen(self, channels: list[str]) -> list[str]:
        """The channels that it looks at, of those that there are."""
        return self.settings["channels"] or channels

    @property
    def classifier(self) -> Path:
        """Where its weights lie."""
        return self.folder / "classifier.safetensors"

    @property
    def predictions(self) -> Path:
        """Where its predictions lie."""
        return self.folder / "predictions.h5"

    @property
    def resume(self) -> Path:
        """Where a training in progress lies."""
        return self.folder / "resume.pt"

    @property
    def trained(self) -> bool:
        """Whether its weights are there and are those of this very task."""
        return classifier_file.read_digest(self.classifier) == self.digest

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.trained and prediction_file.read_digest(self.predictions) == self.digest


class Fold:
    """The images of one fold, read when they are asked for."""

    def __init__(self, images: Path, table: Path, repeat: int, fold: int) -> None:
        self.source = ImageSet(images)
        self.table, self.repeat, self.fold = table, repeat, fold
        self._parts: dict[str, Part] = {}
        self.reading = threading.RLock()  # arms that train side by side read one after the other

    def rows(self, role: str) -> np.ndarray:
        """Row numbers of a role."""
        rows = role_table.rows(self.table, self.fold, self.source.ids, role)
        if not len(rows):
            raise UserError(f"{self.table}: fold {self.fold} has no image with role {role}")
        return rows

    def part(self, role: str) -> Part:
        """The images of a role, read once, for the one purpose that this role has here."""
        with self.reading:
            if role not in self._parts:
                self._parts[role] = self.source.read(self.rows(role), PURPOSES.get(role, "fit"))
            return self._parts[role]

    def digest(self) -> str:
        """Of the image set and of who plays which role in this fold."""
        roles = role_table.read(self.table, self.fold, self.source.ids)
        return files.digest([self.source.digest, self.repeat, self.fold, list(roles)])


def train_classifier(
    images: Path,
    table: Path,
    repeat: int,
    fold: int,
    synthetic: dict[str, Path],
    baseline: Path | None,
    arms_dir: Path,
    manifest: Path,
    seed: int,
    settings: dict[str, Any],
    at_once: int = 1,
) -> None:
    """Train and predict all arms of the settings that are not finished; write the manifest."""
    device.use_threads(settings["threads"])
    if at_once > 1 and multiprocess.size() > 1:
        raise UserError("--at-once is for one process; several share one arm after the other: leave it out")
    data = Fold(images, table, repeat, fold)
    with data.source:
        listed = arms_of(data, synthetic, baseline, arms_dir, seed, settings)
        kept = {arm.name for arm in listed if multiprocess.decided(arm.finished)}
        where = device.device()

        def work(arm: Arm) -> None:
            place = f"arm {arm.name} ({listed.index(arm) + 1} of {len(listed)})"
            if arm.name in kept:
                stage.log.info("%s: unchanged, kept", place)
                return
            stage.log.info("%s: %s", place, device.describe(where))
            with multiprocess.held(_lock(arm)):
                if not multiprocess.decided(arm.trained):
                    train_arm(arm, data, derive(seed, repeat, fold), bar=at_once == 1)

        arm_job.each(work, listed, at_once, where)
        if not multiprocess.first():
            return
        for arm in listed:
            with _lock(arm):
                if not arm.finished:
                    predict_arm(arm, data)
    entries = []
    for arm in listed:
        if not arm.finished:
            raise UserError(f"{arm.folder} was changed by another run meanwhile: run again when that has ended")
        # Relative to the manifest's folder, so that results can be moved.
        paths = {key: os.path.relpath(getattr(arm, key), manifest.parent) for key in ("predictions", "classifier")}
        seconds = prediction_file.read_predictions(arm.predictions, parts=()).numbers["seconds"]
        found = {"arm": arm.name, "digest": arm.digest, "reused": arm.name in kept, "seconds": seconds}
        entries.append(found | paths)
    files.write_json(manifest, {"arms": entries})


def arms_of(
    data: Fold, synthetic: dict[str, Path], baseline: Path | None, arms_dir: Path, seed: int, settings: dict[str, Any]
) -> list[Arm]:
    """The arms with their digests; complains about what does not fit before anything is trained."""
    code_digest = source_code.stage_digest("train_classifier")
    fold_digest, out, sets = data.digest(), [], {}
    for entry in settings["arms"]:
        if entry["method"] not in arm_choices.METHODS:
            raise UserError(f"arms ({entry['name']}).method = {entry['method']!r} is not known")
        found = arm_choices.problem(entry, settings["train_classifier"], data.source.channels, data.source.size)
        if found:
            raise UserError(f"arms ({entry['name']}): {found}")
        path, set_digest = None, ""
        if arm_choices.METHODS[entry["method"]].needs_set or "synthetic_set" in entry:
            path = synthetic.get(entry.get("synthetic_set", ""))
            if path is None:
                raise UserError(
                    f"arms ({entry['name']}) needs the synthetic set {entry.get('synthetic_set')!r}: "
                    f"--synthetic {entry.get('synthetic_set')}=PATH"
                )
            if path not in sets:
                sets[path] = _check_synthetic(path, data.source)
            set_digest = sets[path]
        effective = arm_choices.effective(entry, settings["train_classifier"])
        inputs = [fold_digest, set_digest, code_digest, torch.__version__]
        if effective["weights"]:
            # By content, and written down with the arm: a name says little about a file.
            effective["weights_digest"] = files.file_digest(arm_choices.weights_path(effective["weights"]))
        asked = None
        if arm_choices.METHODS[entry["method"]].needs_baseline:
            asked = _baseline_file(baseline, data, entry["name"])
            inputs.append(classifier_file.read_digest(asked))
        digest = files.digest([effective, settings["threads"], seed, *inputs])
        out.append(Arm(effective, digest, arms_dir / entry["name"], path, asked))
    return out


def _baseline_file(manifest: Path | None, data: Fold, name: str) -> Path:
    """The classifier of the first arm of a manifest, checked to be of this very fold."""
    if manifest is None:
        raise UserError(f"arms ({name}) asks the fold's trained baseline: --baseline MANIFEST")
    path = arm_list.read(manifest)[0]["classifier"]
    found = classifier_file.read(path)
    record = Provenance.from_json(found.provenance)
    if (found.repeat, found.fold, record.images) != (data.repeat, data.fold, data.source.digest):
        raise UserError(
            f"{path} is of repeat {found.repeat}, fold {found.fold}, or of another image set: "
            f"give the baseline of repeat {data.repeat}, fold {data.fold}"
        )
    return path


def _check_synthetic(path: Path, real: ImageSet) -> str:
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


def _lock(arm: Arm) -> Any:
    def waiting(holder: str) -> None:
        stage.log.info("waiting for process %s, which works on arm %s", holder, arm.name)

    return files.lock(arm.folder, waiting)


def partners_of(
    arm: Arm, real: Part, channels: list[str], seed: int, reserve: Part | None = None
) -> tuple[Images | None, list[Provenance]]:
    """The arm's second source of images, and what it was made from besides the train part: what its generator and the
    baseline that it asks were fitted on, and the images in reserve that it may have."""
    inherited = [reserve.provenance] if reserve is not None else []
    if arm.synthetic is not None:
        with ImageSet(arm.synthetic) as made:
            inherited += [record for record in [made.inherited()] if record is not None]
    asked = classifier_file.read(arm.baseline) if arm.baseline is not None else None
    if asked is not None:
        inherited.append(Provenance.from_json(asked.provenance))
    material = second_source.Material(arm.settings, real, channels, seed, arm.synthetic, asked, reserve)
    return second_source.second_images(material, arm.seen(channels)), inherited


def real_part(arm: Arm, data: Fold, seed: int) -> Part:
    """The train images of an arm: all, or those of its fraction of the groups."""
    part, fraction = data.part(Role.TRAIN), arm.settings.get("real_fraction", 1)
    if fraction == 1:
        return part
    names, member = np.unique(part.groups.astype(str), return_inverse=True)
    counts = assignment.group_counts(part.labels, member)
    kept = assignment.nested(counts, np.bincount(member), fraction, derive(seed, "real_share"))
    stage.log.info("arm %s: %d of %d train groups", arm.name, kept.sum(), len(names))
    # Read as any other part, so that the record holds these rows and no others.
    with data.reading:
        return data.source.read(part.rows[kept[member]], "fit")


def real_numbers(numbers: dict[str, float], real: Part, reserve: Part | None) -> dict[str, float]:
    """How many real images, and of how many groups, an arm could learn from; none where it was shown none."""
    parts = [part for part in (real, reserve) if part is not None] if numbers["real_seen"] else []
    groups = {str(name) for part in parts for name in part.groups}
    return {"real_images": sum(map(len, parts)), "real_groups": len(groups)}


def train_arm(arm: Arm, data: Fold, seed: int, bar: bool = True) -> None:
    """Train one arm and write its classifier; goes on from its resume point where a killed run left one."""
    real, validation = real_part(arm, data, seed), data.part(Role.VALIDATION)
    kind = arm_choices.METHODS[arm.settings["method"]].partners
    reserve = data.part(kind) if kind in arm_choices.RESERVES else None
    source = data.source
    own = arm.seen(source.channels)
    if arm.settings["weights"]:
        stage.log.info("arm %s starts from %s (%s)", arm.name, arm.settings["weights"], arm.settings["weights_digest"])
    else:
        stage.log.info("arm %s starts from scratch", arm.name)
    second, inherited = partners_of(arm, real, source.channels, seed, reserve)
    if second is not None:
        # The baseline's answers may differ in their last bits between GPUs; all must see the same images.
        second.rows, second.weights = multiprocess.of_first(second.rows), multiprocess.of_first(second.weights)
        second.labels = multiprocess.of_first(second.labels)
    # Another kind of machine rounds otherwise: its resume point would not lead to this machine's weights.
    task = files.digest([arm.digest, device.rounding(device.device())])
    resume = SharedResume(arm.resume, task)
    with Progress(arm.name, total=arm.settings["steps"], bar=bar) as progress:
        result = train(
            arm.settings,
            Images(select_channels(real.images, source.channels, own), real.labels),
            second,
            Images(select_channels(validation.images, source.channels, own), validation.labels),
            seed,
            resume,
            lambda step, numbers: progress.update(step, **numbers),
        )
    if not multiprocess.first():
        return
    result.numbers |= real_numbers(result.numbers, real, reserve)
    # What this arm used, whatever else this process has read for other arms.
    record = real.provenance.merged(validation.provenance, *inherited)
    classifier = Classifier(
        arm.name, data.repeat, data.fold, source.classes, own, source.size, arm.settings, result.mean,
        result.std, result.weights, record.to_json(), arm.digest, result.history, result.numbers,
    )  # fmt: skip
    classifier_file.write(arm.classifier, classifier)
    resume.clear()
    stage.log.info(
        "arm %s: validation mAP %.3f at step %d of %d, %s", arm.name, result.numbers["best_validation_map"],
        result.numbers["best_step"], arm.settings["steps"], duration(result.numbers["seconds"]),
    )  # fmt: skip


def predict_arm(arm: Arm, data: Fold) -> None:
    """Ask a trained arm about the parts it was not fitted on, and write what it says."""
    trained = classifier_file.read(arm.classifier)
    if trained.digest != arm.digest:
        raise UserError(f"{arm.classifier} was replaced by another run meanwhile: run again when that has ended")
    network = trained.network(device.device())
    parts = {}
    for role in PURPOSES:
        part = data.part(role)
        pixels = select_channels(part.images, data.source.channels, trained.channels)
        logits = classifier_file.predict(network, pixels, trained.mean, trained.std)
        parts[role] = Scored(part.ids, part.groups, part.labels, logits)
    # A kill just after the weights were written leaves this behind.
    arm.resume.unlink(missing_ok=True)
    record = Provenance.from_json(trained.provenance).merged(*(data.part(role).provenance for role in PURPOSES))
    prediction_file.write_predictions(
        arm.predictions,
        Predictions(
            classes=trained.classes,
            arm=arm.name,
            repeat=data.repeat,
            fold=data.fold,
            parts=parts,
            history={name: np.asarray(values) for name, values in trained.history.items()},
            settings=arm.settings,
            images=data.source.digest,
            provenance=record.to_json(),
            digest=arm.digest,
            numbers=trained.numbers,
        ),
    )


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    synthetic = {name: Path(path) for name, _, path in (text.partition("=") for text in args.synthetic)}
    return multiprocess.run(
        "train_classifier",
        args,
        lambda: train_classifier(
            args.images,
            args.folds,
            args.repeat,
            args.fold,
            synthetic,
            args.baseline,
            args.arms_dir,
            args.manifest,
            args.seed,
            args.settings,
            args.at_once,
        ),
    )


if __name__ == "__main__":
    stage.leave(main())
