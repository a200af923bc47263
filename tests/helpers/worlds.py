"""Worlds with known truth for the tests of the judge: arms of given skill on grouped, labelled rows."""

from __future__ import annotations

import numpy as np

from workflow_scripts.lib.judge import scoring
from workflow_scripts.lib.judge.experiment import Experiment
from workflow_scripts.lib.judge.fold_scores import FoldScores, ScoredRows
from workflow_scripts.lib.judge.scoring import Summary
from workflow_scripts.lib.judge.thresholds import Rule
from workflow_scripts.lib.scores.prediction_file import PARTS, Predictions, Scored

CLASSES = ["nucleus", "golgi", "cytosol", "rods"]
PREVALENCE = np.array([0.5, 0.3, 0.2, 0.1])


class World:
    """Groups with labels and a latent difficulty; each fold tests one share of them and calibrates on another."""

    def __init__(
        self, seed: int, groups: int = 80, images: int = 3, folds: int = 2, prevalence: np.ndarray = PREVALENCE
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.classes = CLASSES[: len(prevalence)]
        self.folds = folds
        self.owner = np.repeat(np.arange(groups), images)
        self.of_group = self.rng.random((groups, len(prevalence))) < prevalence
        self.labels = self.of_group[self.owner]
        # What makes a protein hard is shared by its images and by all arms.
        self.hard = self.rng.normal(0, 1.0, self.of_group.shape)[self.owner]
        self.noise = self.rng.normal(0, 0.6, self.labels.shape)
        self.place = self.rng.permutation(groups)[self.owner] % (2 * folds)

    def rows(self, fold: int, part: str) -> np.ndarray:
        """Row numbers of a part: test is a 1/folds share of the groups, the rest is halved."""
        test = self.place // 2 == fold
        half = self.place % 2 == 0
        chosen = test if part == "test" else ~test & (half if part == "calibration" else ~half)
        return np.flatnonzero(chosen)

    def arm(
        self, name: str, skill: float = 2.0, luck: float = 0.5, repeat: int = 0, by_fold: float = 0.0
    ) -> list[Predictions]:
        """Predictions of an arm in all folds; `luck` is what two arms of equal skill differ by."""
        out = []
        for fold in range(self.folds):
            own = self.rng.normal(0, luck, self.of_group.shape)[self.owner] + self.rng.normal(
                0, luck, self.labels.shape
            )
            shift = self.rng.normal(0, by_fold) if by_fold else 0.0
            logits = (skill + shift) * (2 * self.labels - 1) / 2 + self.hard + self.noise + own - 0.5
            parts = {part: self._part(self.rows(fold, part), logits) for part in PARTS}
            out.append(Predictions(self.classes, name, repeat, fold, parts, images="world"))
        return out

    def _part(self, rows: np.ndarray, logits: np.ndarray) -> Scored:
        ids = [f"image{row:05d}" for row in rows]
        return Scored(ids, [f"gene{self.owner[row]:04d}" for row in rows], self.labels[rows], logits[rows])


ANALYSIS = {
    "primary_arm": "mix",
    "baseline": "real_only",
    "metric": "macro_f1",
    "level": "image",
    "claim": "these_proteins",
    "threshold_rule": "calibrated",
    "minimum_positive_groups": 5,
    "minimum_calibration_groups": 10,
    "refit_thresholds": True,
    "draws": 400,
    "confidence": 0.95,
    "smallest_effect": 0.02,
    "family": "all",
}
ARMS = [
    {"name": "real_only", "method": "real_only"},
    {"name": "mix", "method": "mix_representation", "control": "mix_real"},
    {"name": "mix_real", "method": "mix_representation_real"},
]
SAME = {"real_only": 2.0, "mix": 2.0, "mix_real": 2.0}  # arms of equal skill


def experiment(world: World, skills: dict[str, float], repeats: int = 1) -> Experiment:
    """Arms of these skills in all folds of a world."""
    arms = {
        name: [p for r in range(repeats) for p in world.arm(name, skill, repeat=r)] for name, skill in skills.items()
    }
    parts = [part for arm in arms.values() for fold in arm for part in fold.parts.values()]
    groups = sorted({str(name) for part in parts for name in part.groups})
    return Experiment(world.classes, groups, arms)


def summaries(
    seed: int, skills: dict[str, float], draws: int = 200, repeats: int = 1, **more: int
) -> dict[str, Summary]:
    """Scores per image, of arms with these skills in a world of this seed."""
    arms = experiment(World(seed, **more), skills, repeats)
    weights = scoring.group_weights(seed, len(arms.groups), draws)
    judged = np.ones(len(arms.classes), dtype=bool)
    return scoring.summarise_arms(arms, "image", Rule("calibrated", 10), weights, judged, 1)


def random_folds(
    seed: int = 6, folds: int = 2, rows: int = 240, classes: int = 4, groups: int = 50
) -> list[FoldScores]:
    """Scored rows of an arm in some folds, with test groups of their own."""
    rng = np.random.default_rng(seed)

    def table(offset: int) -> ScoredRows:
        labels = rng.random((rows, classes)) < np.linspace(0.5, 0.1, classes)
        scores = 1 / (1 + np.exp(-rng.normal(2.0 * labels - 1, 1.2)))
        return ScoredRows(scores, labels, offset + rng.integers(0, groups, rows))

    return [FoldScores(0, fold, table(0), table(100 * (fold + 1)), table(0)) for fold in range(folds)]
