"""Training and prediction of the arms of a job, several at a time where requested."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress, duration
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.base.stage import log
from workflow_scripts.lib.classify import (
    arm_choices,
    arm_settings,
    averaged,
    backbones,
    classifier_file,
    classifier_training,
    generator_backbone,
    generator_classifier,
    network_choices,
    second_source,
    source_choices,
)
from workflow_scripts.lib.classify.arm_job import READ_FOR, Arm, FoldImages
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.classify.classifier_training import Images, Start, Trained
from workflow_scripts.lib.compute import device, multiprocess
from workflow_scripts.lib.compute.live_course import NOWHERE, Live, LiveCourse
from workflow_scripts.lib.compute.multiprocess import SharedResume
from workflow_scripts.lib.generate import generator_choices, generator_file
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet, Part
from workflow_scripts.lib.scores import prediction_file
from workflow_scripts.lib.scores.prediction_file import Predictions, Scored
from workflow_scripts.lib.split import assignment
from workflow_scripts.lib.split.regimes import regime_of
from workflow_scripts.lib.split.roles import Role

Item = TypeVar("Item")


def each(work: Callable[[Item], None], items: Sequence[Item], at_once: int, where: torch.device) -> None:
    """Run `work` on each item, `at_once` at a time; on a GPU each in its own stream.

    The first error is raised once the running items have ended; no further item is started."""
    if at_once == 1:
        for item in items:
            work(item)
        return

    def apart(item: Item) -> None:
        with torch.cuda.stream(torch.cuda.Stream(where)) if where.type == "cuda" else contextlib.nullcontext():
            work(item)

    with ThreadPoolExecutor(at_once) as pool:
        waiting = [pool.submit(apart, item) for item in items]
        try:
            for done in as_completed(waiting):
                done.result()
        finally:
            for one in waiting:
                one.cancel()


def second_images(
    arm: Arm,
    real: Part,
    channels: list[str],
    seed: int,
    reserve: Part | None = None,
    unlabelled: Part | None = None,
    column: np.ndarray | None = None,
) -> tuple[Images | None, list[AccessRecord]]:
    """Images of the arm's second source, and the records of their inputs besides the train part.

    Records are those of the generator, of the baseline that the arm uses, and of images in reserve or unlabelled. The
    values of a `column` (n,) are those of the train part."""
    inherited = [part.access_record for part in (reserve, unlabelled) if part is not None]
    if arm.synthetic is not None:
        with ImageSet(arm.synthetic) as made:
            record, regime = made.inherited(), regime_of(json.loads(made.attrs.get("synthetic_set", "{}")))
        if record is not None and regime != regime_of(arm.settings):
            record = record.inherited_from(regime.record_name)
        inherited += [record] if record is not None else []
    if arm.generator is not None:
        made = generator_file.read(arm.generator)
        regime, same = regime_of(made.settings), regime_of(made.settings) == regime_of(arm.settings)
        inherited.append(made.access_record if same else made.access_record.inherited_from(regime.record_name))
    asked = classifier_file.read(arm.baseline) if arm.baseline is not None else None
    if asked is not None:
        inherited.append(AccessRecord.from_json(asked.access_record))
    material = second_source.Material(
        arm.settings, real, channels, seed, arm.synthetic, asked, reserve, unlabelled, column, arm.embedded
    )
    return second_source.second_images(material, arm.seen(channels)), inherited


def real_part(arm: Arm, data: FoldImages, seed: int) -> Part:
    """Train images of an arm: all, or those of its fraction of the groups."""
    part, fraction = data.part(Role.TRAIN), arm.settings.get("real_fraction", 1)
    if fraction == 1:
        return part
    names, member = np.unique(part.groups.astype(str), return_inverse=True)
    counts = assignment.group_counts(part.labels, member)
    kept = assignment.nested(counts, np.bincount(member), fraction, derive(seed, "real_share"))
    log.info("arm %s: %d of %d train groups", arm.name, kept.sum(), len(names))
    # Read as any other part, so that the record holds these rows and no others.
    with data.reading:
        return data.source.read(part.rows[kept[member]], "fit")


def real_numbers(numbers: dict[str, float], real: Part, reserve: Part | None) -> dict[str, float]:
    """Number of real images, and of their groups, that an arm could learn from; zero where it saw none."""
    parts = [part for part in (real, reserve) if part is not None] if numbers["real_seen"] else []
    groups = {str(name) for part in parts for name in part.groups}
    return {"real_images": sum(map(len, parts)), "real_groups": len(groups)}


def trainer(arm: Arm, start: Start | None) -> Callable[..., Trained]:
    """What trains an arm: a network by steps, from where it starts, or a regression on hand-made features."""
    if network_choices.BACKBONES[arm.settings["backbone"]].hand_made:
        # Imported here: scikit-learn takes a second and a half that networks need not wait for.
        from workflow_scripts.lib.classify import feature_regression

        return feature_regression.train
    if arm_choices.METHODS[arm.settings["method"]].scores:
        return partial(generator_classifier.train, start=start)
    return partial(classifier_training.train, start=start)


def start_of(arm: Arm, real: Images, validation: Images, seed: int) -> Start | None:
    """The trunk that an arm starts from, where its method has that of the baseline or of a generator; else None."""
    method = arm_choices.METHODS[arm.settings["method"]]
    if method.scores:
        return generator_classifier.start_of(generator_file.read(arm.generator), arm.settings["scoring"])
    if method.generator:
        return _encoder_start(arm, real, validation, seed)
    if not method.on_baseline:
        return None
    asked = classifier_file.read(arm.baseline)
    trunk = {name.removeprefix("trunk."): value for name, value in asked.weights.items() if name.startswith("trunk.")}
    return Start(trunk, asked.mean, asked.std)


def _encoder_start(arm: Arm, real: Images, validation: Images, seed: int) -> Start:
    """The encoder of the arm's generator; block and noise level are those of the best probe on the validation part."""
    made, kind = generator_file.read(arm.generator), arm_choices.METHODS[arm.settings["method"]].generator
    encoder = {
        "widths": made.settings["widths"],
        "blocks": made.settings["blocks"],
        "references": generator_choices.takes_references(made.settings),
        "patch": made.settings.get("patch"),
        "block": 0,
        "noise_level": made.settings.get("noise_level", 0.0),
    }
    if "label_places" in made.settings:
        encoder["classes"] = made.settings["label_places"]["of"]
    if "column_values" in made.settings:
        encoder["column_values"] = made.settings["column_values"]
    shape = (real.pixels.shape[1], real.labels.shape[1], real.pixels.shape[-1])
    # With the weights that a network of this seed has anyway, whatever its head.
    trunk = backbones.build("generator", *shape, derive(seed, "weights"), encoder=encoder).trunk
    if kind != arm_choices.FRESH:
        trunk.load_generator(made.weights)
    scale = made.pixels.shift / 255, made.pixels.scale / 255
    # As many candidates for every kind: the control has as many looks at the validation part.
    own = (encoder["noise_level"],) if encoder["noise_level"] else ()
    levels = (*own, *(level for level in generator_backbone.LEVELS if level not in own))
    parts = ((part.pixels, part.labels) for part in (real, validation))
    score = classifier_training.mean_average_precision
    tried = generator_backbone.choose(trunk.to(device.device()), levels, *parts, scale, score)
    # The first process decides, as scores may differ in their last bits.
    block, noise_level = multiprocess.of_first(np.array(tried[0][1:], dtype=np.float64)).tolist()
    encoder |= {"block": int(block), "noise_level": noise_level}
    log.info(
        "arm %s: block %d of %d at noise level %g, the best of %d probes on validation (mAP %.3f)",
        arm.name, block + 1, len(trunk.widths), noise_level, len(tried), tried[0][0],
    )  # fmt: skip
    state = {name: value.detach().cpu().clone() for name, value in trunk.state_dict().items()}
    return Start(state, *scale, encoder)


def train_arm(arm: Arm, data: FoldImages, seed: int, bar: bool = True, live: Live = NOWHERE) -> None:
    """Train one arm and write its classifier; resumes from its checkpoint after a kill."""
    real, validation = real_part(arm, data, seed), data.part(Role.VALIDATION)
    kind = arm_choices.METHODS[arm.settings["method"]].second_source
    reserve = data.part(kind) if kind in source_choices.RESERVES else None
    shown = kind in source_choices.UNLABELLED or (kind in source_choices.SEEN and data.has(Role.UNLABELLED))
    unlabelled = data.part(Role.UNLABELLED) if shown else None
    source = data.source
    if arm.settings["weights"]:
        log.info("arm %s starts from %s (%s)", arm.name, arm.settings["weights"], arm.settings["weights_digest"])
    elif arm.generator is None:
        log.info("arm %s starts from scratch", arm.name)
    column = None
    if kind is not None and source_choices.SOURCES[kind].column:
        with data.reading:
            column = source.values([arm.settings["column"]], real.rows, "fit")[:, 0]
    second, inherited = second_images(arm, real, source.channels, seed, reserve, unlabelled, column)
    if second is not None:
        # The baseline's predictions may differ in their last bits between GPUs; all processes must use the same images.
        second.rows, second.weights = multiprocess.of_first(second.rows), multiprocess.of_first(second.weights)
        second.labels, second.features = multiprocess.of_first(second.labels), multiprocess.of_first(second.features)
    # Another kind of machine rounds differently: its checkpoint would not lead to the same weights.
    task = files.digest([arm.digest, device.rounding(device.device())])
    resume = SharedResume(arm.resume, task)
    own_real, own_validation = (Images(arm.look(part, source.channels), part.labels) for part in (real, validation))
    start, method = start_of(arm, own_real, own_validation, seed), arm_choices.METHODS[arm.settings["method"]]
    # A second baseline has other weights, and other images at each step.
    second_baseline = method.averaged and not method.scores
    whose = {"kind": "classifier", "name": arm.name, "repeat": data.repeat, "fold": data.fold}
    course = LiveCourse(live.folder if multiprocess.first() else None, whose, arm.settings["steps"], task)
    with Progress(arm.name, total=arm.settings["steps"], bar=bar) as progress:

        def tell(step: int, numbers: dict[str, float]) -> None:
            progress.update(step, **numbers)
            course.add(step, **numbers)

        result = trainer(arm, start)(
            arm.settings,
            own_real,
            second,
            own_validation,
            derive(seed, "second baseline") if second_baseline else seed,
            resume,
            tell,
        )
    if not multiprocess.first():
        return
    about = {} if start is None or start.encoder is None else {"encoder": start.encoder}
    if method.averaged:
        asked = classifier_file.read(arm.baseline)
        result, about = averaged.with_baseline(asked, result, arm.settings, about.get("encoder"), own_validation)
    result.numbers |= real_numbers(result.numbers, real, reserve)
    if unlabelled is not None:
        result.numbers["unlabelled_images"] = len(unlabelled)
    # What this arm used, whatever else this process has read for other arms.
    record = real.access_record.merged(validation.access_record, *inherited)
    written = _classifier(arm, data, result, record)
    written.settings = arm.settings | about
    if "block" in about.get("encoder", {}):
        written.numbers |= {"encoder_block": start.encoder["block"], "encoder_noise": start.encoder["noise_level"]}
    classifier_file.write(arm.classifier, written)
    resume.clear()
    log.info(
        "arm %s: validation mAP %.3f at step %d of %d, %s",
        arm.name,
        result.numbers["best_validation_map"],
        result.numbers["best_step"],
        int(result.numbers["steps"]),
        duration(result.numbers["seconds"]),
    )


def _classifier(arm: Arm, data: FoldImages, result: Trained, record: AccessRecord) -> Classifier:
    source = data.source
    return Classifier(
        arm=arm.name,
        repeat=data.repeat,
        fold=data.fold,
        classes=source.classes,
        channels=arm.seen(source.channels),
        size=source.size if arm.embedded is None else 1,
        settings=arm.settings,
        mean=result.mean,
        std=result.std,
        weights=result.weights,
        access_record=record.to_json(),
        digest=arm.digest,
        history=result.history,
        numbers=result.numbers,
    )


def predict_arm(arm: Arm, data: FoldImages) -> None:
    """Write the predictions of a trained arm for the parts that it was not fitted on."""
    trained = classifier_file.read(arm.classifier)
    if trained.digest != arm.digest:
        raise UserError(f"{arm.classifier} was replaced by another run meanwhile: run again when that has ended")
    network = trained.network(device.device())
    parts = {}
    for role in READ_FOR:
        part = data.part(role)
        pixels = arm.look(part, data.source.channels)
        logits = classifier_file.predict(network, pixels, trained.mean, trained.std)
        parts[role] = Scored(part.ids, part.groups, part.labels, logits)
    record = AccessRecord.from_json(trained.access_record).merged(*(data.part(role).access_record for role in READ_FOR))
    if arm_settings.labels_others(arm.settings) and data.has(Role.UNLABELLED):
        # What asks the regime's baseline about unlabelled images finds its answers here.
        part = data.part(Role.UNLABELLED)
        pixels = arm.look(part, data.source.channels)
        logits = classifier_file.predict(network, pixels, trained.mean, trained.std)
        parts[Role.UNLABELLED] = Scored(part.ids, part.groups, np.zeros_like(logits), logits)
        record = record.merged(part.access_record)
    # A kill just after the weights were written leaves this checkpoint behind.
    arm.resume.unlink(missing_ok=True)
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
            access_record=record.to_json(),
            digest=arm.digest,
            numbers=trained.numbers,
        ),
    )
