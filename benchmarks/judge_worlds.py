"""Worlds that the judge did not define: predictions of arms that do not differ, or differ by a known amount.

    world = Fresh(Shape(), repeats=3, rng)          # new proteins, labels and folds
    arms = {name: world.arm(rng) for name in ARMS}  # every call is a training of its own, with its own luck

`Fresh` is made of normal numbers, anew for every repetition. `Pool` holds the predictions of networks that were really
trained, on simulated cells; repetitions deal the same trained copies to arms in ever new ways. Classes are ordered from
the most frequent to the rarest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.judge.fold_scores import FoldScores, ScoredRows

CALIBRATION, TEST = 1, 2  # roles of a group in a fold; 0: train


@dataclass(frozen=True)
class Shape:
    """A fresh world: its size, and the standard deviations, in logits, of all that is drawn at random."""

    groups: int = 400
    images: int = 3  # of a group
    classes: int = 6
    most: float = 0.45  # share of the groups that carry the most frequent class
    least: float = 0.03  # and the rarest; between them, shares fall by a constant factor
    folds: int = 2
    calibration: float = 0.2  # share of the groups that a fold does not test
    skill: float = 3.0  # distance between logits of positives and negatives
    hard_group: float = 1.0  # what makes a protein hard for every network
    hard_image: float = 0.6
    own_group: float = 0.5  # what one trained network errs by on a protein
    own_image: float = 0.5
    luck: float = 0.15  # by which one trained network is more skilled than another
    class_luck: float = 0.25  # the same, class by class


class Fresh:
    """New proteins with labels, and the folds of all repeats; arms are asked for one by one."""

    def __init__(self, shape: Shape, repeats: int, rng: np.random.Generator) -> None:
        self.shape = shape
        fraction = np.geomspace(shape.most, shape.least, shape.classes)
        self.of_group = rng.random((shape.groups, shape.classes)) < fraction
        self.owner = np.repeat(np.arange(shape.groups), shape.images)
        self.labels = self.of_group[self.owner]
        hard = rng.normal(0, shape.hard_group, self.of_group.shape)[self.owner]
        # Networks know how frequent a class is: without that one threshold could not serve all classes.
        self.common = hard + rng.normal(0, shape.hard_image, self.labels.shape) + np.log(fraction / (1 - fraction)) / 2
        self.roles = [_roles(shape, rng) for _ in range(repeats)]

    def arm(
        self, rng: np.random.Generator, gain: float | np.ndarray = 0.0, persistent: float = 0.0
    ) -> list[FoldScores]:
        """One arm in all repeats and folds. `gain` is what it is more skilled by, of all classes or each (K,);
        `persistent` is the spread of what it errs by on a protein in every one of its trainings."""
        s = self.shape
        always = rng.normal(0, persistent, self.of_group.shape) if persistent else 0.0
        cells = []
        for repeat, roles in enumerate(self.roles):
            for fold in range(s.folds):
                own = rng.normal(0, s.own_group, self.of_group.shape) + always
                skill = s.skill + gain + rng.normal(0, s.luck) + rng.normal(0, s.class_luck, s.classes)
                logits = self.common + own[self.owner] + skill * (self.labels - 0.5)
                logits += rng.normal(0, s.own_image, logits.shape)
                scores, role = 1 / (1 + np.exp(-logits)), roles[self.owner, fold]
                cells.append(_cell(repeat, fold, scores, self.labels, self.owner, role))
        return cells


def _roles(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(shape.groups)[:, None] % shape.folds
    roles = np.where(rng.random((shape.groups, shape.folds)) < shape.calibration, CALIBRATION, 0)
    return np.where(order == np.arange(shape.folds), TEST, roles)


def _cell(
    repeat: int, fold: int, scores: np.ndarray, labels: np.ndarray, owner: np.ndarray, role: np.ndarray
) -> FoldScores:
    calibration, test = (
        ScoredRows(scores[rows], labels[rows], owner[rows]) for rows in (role == CALIBRATION, role == TEST)
    )
    # Nothing here is judged on the validation part.
    return FoldScores(repeat, fold, calibration, test, calibration)


@dataclass(frozen=True)
class Pool:
    """What copies of one arm, trained with seeds of their own, say about simulated cells."""

    scores: np.ndarray  # probabilities float64 (copies, folds, n, K)
    labels: np.ndarray  # bool (n, K)
    owner: np.ndarray  # int (n,)
    roles: np.ndarray  # int (n, folds)
    short: int  # the last so many copies were trained for fewer steps
    seconds: float

    @property
    def copies(self) -> int:
        """Copies that were trained alike."""
        return len(self.scores) - self.short

    def deal(self, rng: np.random.Generator, arms: int, repeats: int) -> list[list[FoldScores]]:
        """Every arm gets `repeats` copies of each fold, no two the same, and all see the same groups, which are drawn
        with replacement; a group that is drawn twice counts as two."""
        folds = self.scores.shape[1]
        if arms * repeats > self.copies:
            raise ValueError(f"{arms} arms in {repeats} repeats need {arms * repeats} copies, there are {self.copies}")
        hands = [rng.permutation(self.copies)[: arms * repeats].reshape(arms, repeats) for _ in range(folds)]
        count = int(self.owner.max()) + 1
        members = np.split(np.argsort(self.owner, kind="stable"), np.cumsum(np.bincount(self.owner))[:-1])
        drawn = rng.integers(0, count, count)
        rows = np.concatenate([members[group] for group in drawn])
        owner = np.repeat(np.arange(count), [len(members[group]) for group in drawn])
        return [
            [
                _cell(r, f, self.scores[hands[f][arm, r], f, rows], self.labels[rows], owner, self.roles[rows, f])
                for r in range(repeats)
                for f in range(folds)
            ]
            for arm in range(arms)
        ]

    def swapped(self, rng: np.random.Generator, arms: int, repeats: int) -> list[list[FoldScores]]:
        """As many copies as arms, some trained for fewer steps; then each group's predictions are swapped among the
        arms at random, the same way in all repeats and folds: no arm is better, whatever the copies are."""
        folds, count = self.scores.shape[1], int(self.owner.max()) + 1
        order = rng.permuted(np.tile(np.arange(arms), (count, 1)), axis=1)[self.owner]  # (n, arms)
        kinds = np.arange(arms) < min(self.short, arms // 3)
        found: list[list[FoldScores]] = [[] for _ in range(arms)]
        for r in range(repeats):
            for f in range(folds):
                full = rng.permutation(self.copies)[:arms]
                weak = self.copies + rng.permutation(self.short)
                chosen = np.where(kinds, np.resize(weak, arms) if self.short else full, full)
                scores = self.scores[chosen, f]
                for arm in range(arms):
                    mixed = scores[order[:, arm], np.arange(len(self.owner))]
                    found[arm].append(_cell(r, f, mixed, self.labels, self.owner, self.roles[:, f]))
        return found


@dataclass(frozen=True)
class PoolSettings:
    """How the copies are trained; small, as many are needed."""

    images: int = 1500
    size: int = 16
    classes: int = 6  # the most frequent ones
    folds: int = 2
    steps: int = 120
    copies: int = 12
    short: int = 2  # more copies, trained for a third of the steps
    seed: int = 1


FRACTIONS = {"test": 0.4, "calibration": 0.12, "validation": 0.1, "reserve": 0.0, "lockbox": 0.0}


def train_pool(settings: PoolSettings) -> Pool:
    """Simulate cells and train the copies; takes minutes."""
    # What only this needs; the other worlds are numbers.
    import tempfile
    import time

    import torch

    from benchmarks import generator_data
    from workflow_scripts.lib.classify import arm_settings, backbones, classifier_file, classifier_training
    from workflow_scripts.lib.compute.checkpoint import Resume
    from workflow_scripts.lib.split import assignment

    started = time.monotonic()
    cells = generator_data.simulated(settings.images, settings.size, settings.seed)
    kinds = np.argsort(-cells.labels.sum(axis=0), kind="stable")[: settings.classes]
    labels = cells.labels[:, kinds]
    owner = np.unique(cells.groups, return_inverse=True)[1]
    counts = assignment.group_counts(labels, owner)
    roles = assignment.roles(counts, np.bincount(owner), settings.folds, FRACTIONS, settings.seed, 0)[owner]
    section = generator_data.config()["train_classifier"] | {"steps": settings.steps, "checkpoints": 2}
    scores = np.zeros((settings.copies + settings.short, settings.folds, *labels.shape))
    for copy in range(len(scores)):
        steps = settings.steps if copy < settings.copies else settings.steps // 3
        own = arm_settings.effective({"name": "real_only", "method": "real_only"}, section | {"steps": steps})
        for fold in range(settings.folds):
            fit, select = (roles[:, fold] == role for role in ("train", "validation"))
            with tempfile.TemporaryDirectory() as place:
                trained = classifier_training.train(
                    own,
                    classifier_training.Images(cells.images[fit], labels[fit]),
                    None,
                    classifier_training.Images(cells.images[select], labels[select]),
                    derive(settings.seed, "copy", copy, fold),
                    Resume(Path(place) / "resume.pt", ""),
                )
            network = backbones.build(own["backbone"], cells.images.shape[1], labels.shape[1], settings.size, 0)
            network.load_state_dict(trained.weights)
            network = network.to(memory_format=torch.channels_last).eval()
            logits = classifier_file.predict(network, cells.images, trained.mean, trained.std).astype(np.float64)
            scores[copy, fold] = 1 / (1 + np.exp(-logits))
        best = trained.numbers["best_validation_map"]
        print(f"trained {copy + 1} of {len(scores)} copies: validation mAP {best:.3f}", flush=True)
    numbers = np.select([roles == "calibration", roles == "test"], [CALIBRATION, TEST], 0)
    seconds = time.monotonic() - started
    return Pool(scores, labels.astype(bool), owner, numbers, settings.short, seconds)


def pool(path: Path | None, settings: PoolSettings) -> Pool:
    """The pool kept at `path` (.npz), trained and kept there first where there is none of these settings."""
    about = json.dumps(asdict(settings), sort_keys=True)
    if path is not None and path.is_file():
        with np.load(path) as kept:
            found = {name: kept[name] for name in kept.files}
        if str(found.pop("settings", "")) == about:
            return Pool(**found | {"short": int(found["short"]), "seconds": float(found["seconds"])})
        print(f"{path} was trained with other settings: training anew")
    made = train_pool(settings)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, settings=about, **asdict(made))
    return made


def balance(
    curve: np.ndarray, gains: Sequence[float], signs: np.ndarray, judged: np.ndarray, size: float
) -> np.ndarray:
    """Gains of classes (K,): `size` where signs are +1, and elsewhere the loss that makes the mean score of the judged
    classes what it was. `curve` (S, K) is the score of each class at each of the gains (S,), 0 among them."""
    known = np.asarray(gains, dtype=float)

    def change(gain: np.ndarray) -> float:
        at = [np.interp(gain[k], known, curve[:, k]) - np.interp(0, known, curve[:, k]) for k in np.flatnonzero(judged)]
        return float(np.sum(at))

    low, high = known[0], 0.0
    for _ in range(40):
        middle = (low + high) / 2
        if change(np.where(signs > 0, size, middle)) > 0:
            high = middle
        else:
            low = middle
    return np.where(signs > 0, size, high)
