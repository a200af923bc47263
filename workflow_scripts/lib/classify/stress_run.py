"""What trained arms answer for corrupted test images. Nothing is trained, and all arms see the same images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import classifier_file
from workflow_scripts.lib.classify.arm_job import FoldImages
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.images import corruptions
from workflow_scripts.lib.images.image_set import select_channels
from workflow_scripts.lib.scores import arm_list
from workflow_scripts.lib.scores.stress_file import Stress
from workflow_scripts.lib.split.roles import Role


def answers(
    lists: list[Path],
    data: FoldImages,
    conditions: list[tuple[str, int]],
    seed: int,
    report: Callable[[int], None] = lambda done: None,
) -> Stress:
    """Logits of every arm of these lists for the test images of the fold under each condition; `seed` is the run's."""
    where, source, part = device.device(), data.source, data.part(Role.TEST)
    out = Stress(data.repeat, data.fold, source.digest, part.access_record.to_json(), conditions, part.ids, part.groups)
    trained = {}
    for path in lists:
        for entry in arm_list.read(path):
            arm = classifier_file.read(entry["classifier"])
            if (arm.repeat, arm.fold, arm.digest) != (data.repeat, data.fold, entry["digest"]):
                raise UserError(f"{entry['classifier']} is not the classifier that {path} lists: train it again")
            trained[arm.arm] = (arm, arm.network(where))
            out.digests[arm.arm] = arm.digest
            out.logits[arm.arm] = np.empty((len(conditions), len(part), len(arm.classes)), dtype=np.float32)
    for number, (name, level) in enumerate(conditions):
        own = derive(seed, data.repeat, data.fold, "stress", name, level)
        pixels = corruptions.corrupt(part.images, name, level, own, where)
        for arm, network in trained.values():
            seen = select_channels(pixels, source.channels, arm.channels)
            out.logits[arm.arm][number] = classifier_file.predict(network, seen, arm.mean, arm.std)
        report(number + 1)
    return out
