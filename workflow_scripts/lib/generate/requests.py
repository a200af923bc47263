"""Per-image sampling requests: labels, reference channels, the real image to start from, the guidance target."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.generate import baseline_errors, column_plans, column_values, label_plans
from workflow_scripts.lib.generate.baseline_errors import BaselinePredictions
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.generate.generator_choices import LABEL_PLANS
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.generator_training import Pixels
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_layout import MISSING
from workflow_scripts.lib.images.orientation import COUNT as ORIENTATIONS
from workflow_scripts.lib.images.orientation import oriented
from workflow_scripts.lib.split.regimes import Regime, regime_of


@dataclass
class Requests:
    """Sampling requests of a set, one entry an image, decided before the first image is made."""

    labels: np.ndarray  # uint8 (n, K)
    access_record: AccessRecord  # of the generator, and of the rows that were read to decide
    real: Tensor | None = None  # uint8 (n, C, s, s): real images with the reference channels, or to start from
    references: np.ndarray | None = None  # str (n,): ids of these real images
    shown: Tensor | None = None  # bool (C,): the reference channels; None: none
    values: dict[str, list[str]] = field(default_factory=dict)  # of each column that the generator is told, (n,)
    told: np.ndarray | None = None  # float32 (n, V): these values, as the network is told them
    absent: np.ndarray | None = None  # bool (n, C): channels that an image is asked to lack; None: it lacks none
    against: np.ndarray | None = None  # int (n,): class that guidance pushes away from; -1: from "nothing is said"
    attrs: dict[str, Any] = field(default_factory=dict)  # what the set's file says about it

    def digest(self) -> str:
        """Digest of all that is asked for. Of the real images too: limits of intensity may have changed them."""
        content = [self.labels.tobytes(), b"" if self.against is None else self.against.tobytes()]
        content += [] if self.told is None else [self.told.tobytes()]
        out = hashlib.blake2b(b"|".join(content), digest_size=16)
        if self.real is not None:
            out.update(self.real.contiguous().numpy())
        return out.hexdigest()

    def columns(self, classes: list[str]) -> dict[str, list[str]]:
        """Text columns of the synthetic set."""
        out = dict(self.values)
        if self.references is not None:
            out["reference"] = list(self.references)
        if self.against is not None:
            out["against"] = [classes[kind] if kind >= 0 else "" for kind in self.against]
        return out

    def conditions(self, part: slice, pixels: Pixels, where: torch.device) -> tuple[Condition, Condition | None]:
        """Conditions of some of the images, and of the guidance targets where those are classes."""
        hot = torch.from_numpy(self.labels[part]).float().to(where)
        said = torch.zeros(len(hot), dtype=torch.bool, device=where)
        told = None if self.told is None else torch.from_numpy(self.told[part]).to(where)
        condition = Condition(hot, said, columns=told)
        if self.shown is not None:
            shown = self.shown.to(where).expand(len(hot), -1)
            clean = pixels.to_network(self.real[part].to(where)) * shown[:, :, None, None]
            condition = replace(condition, reference=clean, shown=shown)
        if self.against is None:
            return condition, None
        kinds = torch.from_numpy(self.against[part]).to(where)
        only = torch.nn.functional.one_hot(kinds.clamp(min=0), hot.shape[1]).float()
        return condition, replace(condition, labels=only, dropped=kinds < 0)

    def with_references(self, images: Tensor, part: slice) -> Tensor:
        """Finished images uint8 (n, C, s, s), with the reference channels copied from the real images.

        Channels that an image is asked to lack are zeros."""
        if self.shown is not None:
            images = torch.where(self.shown[:, None, None], self.real[part], images)
        if self.absent is not None:
            images = images.masked_fill(torch.from_numpy(self.absent[part])[:, :, None, None], 0)
        return images


def make_requests(
    settings: dict[str, Any],
    made: Generator,
    source: ImageSet,
    rows: np.ndarray,
    baseline: BaselinePredictions | None,
    seed: int,
    weaker: Generator | None = None,
) -> Requests:
    """Requests of a synthetic set from the train images (`rows`) and, if needed, the baseline's predictions.

    What the generators `made` and `weaker` have read enters the set's record."""
    # The synthetic set learns from the training labels, so their rows count as fitted on, like those of the generator.
    real = source.labels(rows, "fit")
    errors = None if baseline is None else baseline_errors.errors(baseline.labels, baseline.probabilities)
    labels = label_plans.planned(settings, real, np.random.default_rng(derive(seed, "labels")), errors)
    values, told = {}, None
    if made.settings.get("condition_on"):
        labels, values, told = _column_values(settings, made.settings, source, rows, real, labels, seed)
    chosen, rng = None, np.random.default_rng(derive(seed, "references"))
    if settings.get("reference_channels") or settings.get("start_noise"):
        chosen = rows[label_plans.references(real, labels, rng)]
        # Those of the very image that is shown, since the network has learned from such pairs alone. Under another plan
        # of columns still the channels that are missing.
        as_real = settings.get("columns", "as_real") == "as_real"
        if taken := [name for name in values if as_real or name == MISSING]:
            own = source.values(taken, chosen, "fit")
            values |= {name: [str(value) for value in column] for name, column in zip(taken, own.T, strict=True)}
            table = np.array(list(values.values()), dtype=object).T
            told = column_values.one_hot(table, list(made.settings["column_values"].values()))
    inherited = [_inherited(one, regime_of(settings)) for one in (made, weaker) if one is not None]
    absent = None
    if MISSING in values:
        absent = np.array([[name in missing.split("|") for name in made.channels] for missing in values[MISSING]])
    requests = Requests(labels, inherited[0], values=values, told=told, absent=absent)
    if LABEL_PLANS[settings["labels"]].asks_baseline:
        weights = dict(zip(source.classes, label_plans.class_weights(real, errors).round(6).tolist(), strict=True))
        requests.attrs["class_weights"] = json.dumps(weights)
    if settings["guidance"].get("against") == "confused":
        matrix = baseline_errors.confusion(baseline.labels, baseline.probabilities)
        requests.against = baseline_errors.most_confused(matrix, labels)
    if chosen is not None:
        part = source.read(chosen, "fit")
        ways = (
            rng.integers(ORIENTATIONS, size=len(labels))
            if made.settings["turn_images"]
            else np.zeros(len(labels), dtype=int)
        )
        requests.real = oriented(torch.from_numpy(part.images), torch.from_numpy(ways))
        requests.references = part.ids
    if settings.get("reference_channels"):
        requests.shown = torch.tensor([name in settings["reference_channels"] for name in made.channels])
    try:
        further = [source.access_record(), *([baseline.access_record] if baseline else [])]
        requests.access_record = inherited[0].merged(*inherited[1:], *further)
    except ValueError as error:
        raise UserError(f"the generator was not trained on {source.path}: {error}") from None
    return requests


def _column_values(
    settings: dict[str, Any],
    made: dict[str, Any],
    source: ImageSet,
    rows: np.ndarray,
    real: np.ndarray,
    wanted: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, dict[str, list[str]], np.ndarray]:
    """Labels (m, K), values of each column (m,), and these as the network is told them (m, V); `made`: the generator's
    settings."""
    names, known = made["condition_on"], list(made["column_values"].values())
    own = source.values(names, rows, "fit")
    for name, column, learned in zip(names, own.T, known, strict=True):
        strange = sorted({str(value) for value in column} - {"", *learned})
        if strange and name != MISSING:  # nobody chose that column, and channels are blackened by it all the same
            raise UserError(f"synthetic set {settings['name']}: its generator does not know {strange[0]!r} of {name}")
    rng, plan = np.random.default_rng(derive(seed, "columns")), settings.get("columns", "as_real")
    # Which channels are missing is asked for by no plan: it is as in real images.
    asked = [place for place, name in enumerate(names) if plan == "as_real" or name != MISSING]
    if not asked:
        plan, asked = "as_real", list(range(len(names)))
    material = column_plans.Material(real, own[:, asked], [known[place] for place in asked])
    labels, drawn = column_plans.planned(plan, settings["name"], material, wanted, rng)
    values = drawn
    if len(asked) < len(names):
        values = own[label_plans.references(real, labels, rng)]
        values[:, asked] = drawn
    listed = {name: [str(value) for value in column] for name, column in zip(names, values.T, strict=True)}
    return labels, listed, column_values.one_hot(values, known)


def _inherited(generator: Generator, own: Regime) -> AccessRecord:
    """What a set of regime `own` has read through a generator."""
    other = regime_of(generator.settings)
    return generator.access_record if other == own else generator.access_record.inherited_from(other.record_name)
