"""Where the files of a run lie that the report page reads or links to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.lib.base.errors import UserError

# Figures of the page: name on the page, stem of its file.
FIGURES = {
    "forest": "arms_forest",
    "classes": "arms_classes",
    "gap": "arms_gap",
    "worth": "arms_worth",
    "usefulness": "arms_usefulness",
    "sweeps": "arms_sweeps",
    "map": "arms_map",
    "ranks": "arms_ranks",
    "generators": "training_generators",
    "classifiers": "training_classifiers",
    **{name: name for name in ("data_classes", "data_cooccurrence", "data_groups", "data_intensity")},
    **{name: name for name in ("data_histograms", "data_samples")},
}


@dataclass(frozen=True)
class FoldFile:
    """A file of one synthetic set in one fold of one repeat."""

    synthetic_set: str
    repeat: int
    fold: int
    path: Path

    @property
    def title(self) -> str:
        """The place, as the page writes it."""
        return f"repeat {self.repeat}, fold {self.fold}"


@dataclass(frozen=True)
class RunFiles:
    """The folder of a run, its numbers of repeats and folds, and the synthetic sets that its arms use.

    Files of other sets may lie there from earlier settings; the page does not show them."""

    folder: Path
    repeats: int
    folds: int
    sets: list[str]

    def file(self, name: str) -> Path:
        """A file that the page cannot do without."""
        path = self.folder / name
        if not path.exists():
            raise UserError(f"{path} is missing: run the workflow to its end")
        return path

    def optional(self, name: str) -> Path | None:
        """A file or folder that a run may lack."""
        path = self.folder / name
        return path if path.exists() else None

    def figure(self, name: str) -> Path:
        """A figure by its name on the page."""
        return self.file(f"figures/{FIGURES[name]}.svg")

    def role_tables(self) -> list[tuple[int, Path]]:
        """Each repeat's table of roles."""
        return [(repeat, self.file(f"repeat{repeat}/folds.csv")) for repeat in range(self.repeats)]

    def synthetic(self, ending: str) -> list[FoldFile]:
        """The files of every synthetic set, such as those that end in assess.csv."""
        return self._of_sets("repeat{repeat}/fold{fold}/synthetic/{name}." + ending)

    def panels(self, kind: str) -> list[FoldFile]:
        """The figures of every synthetic set: images or closest."""
        return self._of_sets("figures/" + kind + "_repeat{repeat}_fold{fold}_{name}.svg")

    def _of_sets(self, pattern: str) -> list[FoldFile]:
        return [
            FoldFile(name, repeat, fold, self.file(pattern.format(name=name, repeat=repeat, fold=fold)))
            for name in self.sets
            for repeat in range(self.repeats)
            for fold in range(self.folds)
        ]
