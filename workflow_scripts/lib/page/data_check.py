"""Check of a user's data before anything trains: what was understood, what the folds allow, and what speaks against it.

Each finding is a line that the screen and the page show alike. A finding that stops the run comes from the same code as
the stage that would fail."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import duration
from workflow_scripts.lib.images import copy_test, grouping, invalid_input
from workflow_scripts.lib.images.format_choices import STACKS
from workflow_scripts.lib.images.image_list import Listed
from workflow_scripts.lib.images.image_set_layout import MISSING
from workflow_scripts.lib.images.image_set_writer import missing_names
from workflow_scripts.lib.images.preview import Preview
from workflow_scripts.lib.page.sections import data_section
from workflow_scripts.lib.page.sections.data_section import Data
from workflow_scripts.lib.split import confounding, fold_design, judgeable, missing_channels
from workflow_scripts.lib.split.fold_design import FoldDesign
from workflow_scripts.lib.split.roles import Role

GOOD, DOUBT, STOP = "good", "doubt", "stop"
# Diffusion models that learned from 1,000 images or fewer gave back training images, those that learned from 100,000
# new ones (Kadkhodaie et al., ICLR 2024, faces of 80 px).
FEWEST_TRAIN = 1000
GROWN = 2  # a largest group that near-duplicates make so many times larger is doubtful
LOST = 0.05  # fraction of the groups that near-duplicates may join without doubt
NAMED = 5  # names in a line


@dataclass(frozen=True)
class Finding:
    """A line of the check: what it is about, what was found, and whether that is good."""

    about: str
    text: str
    level: str = GOOD


@dataclass
class Checked:
    """Everything that is known of the data before a run."""

    listed: Listed  # images without a known fault
    by: list[str]  # columns that images are grouped by
    preview: Preview
    groups: np.ndarray  # str (n,)
    read: list[int] = field(default_factory=list)  # rows of the list whose pixels the preview has
    pairs: list[tuple[int, int, float]] = field(default_factory=list)  # near-duplicates, by row of the preview
    joined: list[tuple[str, list[str]]] = field(default_factory=list)  # groups that these pairs made one: its parts
    roles: data_section.Roles = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    present: np.ndarray | None = None  # bool (n, C): channels that are there; None: all

    @property
    def problem(self) -> str | None:
        """Why the run would stop or could not be judged; None if nothing is known against it."""
        return next((found.text for found in self.findings if found.level == STOP), None)

    def add(self, about: str, text: str, level: str = GOOD) -> None:
        """Add a finding."""
        self.findings.append(Finding(about, text, level))

    def data(self, channels: list[str], size: int) -> Data:
        """Labels, groups and roles, as the tables of the report take them."""
        columns = {name: np.array(values, dtype=object) for name, values in self.listed.columns.items()}
        about = ({}, self.roles, channels, size, self.present)
        return Data(self.listed.labels, self.listed.classes, self.groups, columns, *about)


def check(listed: Listed, by: list[str], preview: Preview, settings: dict[str, Any], absent: str | None) -> Checked:
    """All findings on the images of the tables; `settings` are those of check_images.

    `absent` says what is wrong where no image has its files."""
    named, faulty = len(listed.ids) + len({entry.id for entry in listed.bad}), {entry.id for entry in preview.bad}
    kept = [row for row, name in enumerate(listed.ids) if name not in faulty]
    place = {row: number for number, row in enumerate(kept)}
    listed.bad += preview.bad
    listed.keep(kept)
    present = preview.present[kept]
    out = Checked(listed, by, preview, np.zeros(0, dtype=object))
    _check_images(out, named, settings, absent)
    if not kept:
        return out
    _check_missing(out, present, settings["preprocess_images"]["channels"])
    least = settings["preprocess_images"]["duplicates"]
    out.read = [place[row] for row in preview.rows.tolist()]
    out.pairs = copy_test.near_duplicates(preview.grids, least, lambda rows: preview.images[rows]) if least else []
    _check_groups(out, least)
    _check_folds(out, settings)
    _check_columns(out, settings)
    _check_generators(out, settings["generators"])
    for name, known in settings.get("known_classes", {}).items():
        if absent := [own for own in listed.classes if own not in known]:
            text = f"{name} comes from a file that does not know the class {absent[0]!r}; it knows {', '.join(known)}"
            out.add("generators", text, STOP)
    return out


def _check_images(out: Checked, named: int, settings: dict[str, Any], absent: str | None) -> None:
    listed, preview, data = out.listed, out.preview, settings["preprocess_images"]["data"]
    shown = ", ".join(f"{width} × {height}" for (width, height), _ in preview.sizes.most_common(3))
    more = f" and {len(preview.sizes) - 3} other sizes" if len(preview.sizes) > 3 else ""
    files = f"; files of {shown} pixels{more}" if shown else ""
    out.add("images", f"{len(listed.ids):,} of {named:,} can be used{files}; {len(preview.rows):,} were read")
    if told := STACKS[data["stack"]].told:
        out.add("images", told)
    if absent:
        out.add("images", absent, STOP)
    elif invalid_input.counted(listed.bad):
        problem, left_out = invalid_input.judged(
            invalid_input.counted(listed.bad), named, data["on_invalid"], data["invalid_limit"]
        )
        out.add("images", problem, DOUBT if left_out else STOP)
    labels = listed.labels.sum(axis=1)
    if len(labels):
        kind = "one label each" if (labels == 1).all() else f"{labels.mean():.2f} labels an image"
        out.add("labels", f"{len(listed.classes)} classes, {kind}")


def _check_missing(out: Checked, present: np.ndarray, channels: list[str]) -> None:
    """Which channels images lack, where the config lets them."""
    left_out = {entry.id for entry in out.listed.bad if entry.kind == invalid_input.LACKING}
    if left_out:
        out.add("channels", f"{len(left_out):,} images lack one and are left out (data.missing_channel)", DOUBT)
    if present.all():
        return
    try:
        missing_channels.refuse_empty(present, channels)
    except UserError as error:
        out.add("channels", str(error), STOP)
        return
    out.present = present
    out.listed.columns[MISSING] = missing_names(present, channels)
    text = f"{missing_channels.described(present, channels)}; these are filled with zeros, and the networks are told"
    out.add("channels", text, DOUBT)


def _check_groups(out: Checked, least: float) -> None:
    """What belongs together by the columns and by near-duplicates."""
    columns, count = [out.listed.columns[name] for name in out.by], len(out.listed.ids)
    before = np.array(grouping.connected(columns, count), dtype=object)
    pairs = [(out.read[one], out.read[other]) for one, other, _ in out.pairs]
    out.groups = np.array(grouping.connected(columns, count, pairs), dtype=object)
    (few, many), (large, larger) = (
        (len(set(before)), len(set(out.groups))),
        (max(Counter(before).values()), max(Counter(out.groups).values())),
    )
    parts: dict[str, set[str]] = {}
    for name, own in zip(out.groups, before, strict=True):
        parts.setdefault(name, set()).add(own)
    out.joined = sorted((name, sorted(own)) for name, own in parts.items() if len(own) > 1)
    if out.by:
        out.add("groups", f"{few:,} by {' or '.join(out.by)}; the largest has {large:,} images")
    else:
        text = "no column says which images belong together, so that none may be split: set data.group_by"
        out.add("groups", text, DOUBT)
    if not least:
        out.add("near-duplicates", "not looked for (preprocess_images.duplicates: 0)")
        return
    doubtful = bool(out.by) and (larger >= GROWN * large or few - many > LOST * few)
    text = f"{len(out.pairs):,} pair{'s' * (len(out.pairs) != 1)} among the {len(out.read):,} images that were read"
    if out.joined:
        text += f"; {few:,} groups become {many:,}, the largest of {larger:,} images"
    if doubtful:
        text += ": look at the pairs; preprocess_images.duplicates: 0 joins none"
    out.add("near-duplicates", text, DOUBT if doubtful else GOOD)


def _check_folds(out: Checked, settings: dict[str, Any]) -> None:
    """Roles of all repeats, and which classes they allow to judge."""
    classes, minimum, tested = out.listed.classes, settings["minimum_positive_groups"], []
    try:
        for repeat in range(settings["repeats"]):
            design = _design(out, settings, repeat)
            with _silence():
                assigned = design.assign(quiet=True)
                design.label_ranks(assigned)
            tested.append(judgeable.positive_test_groups(out.listed.labels, design.member, assigned))
            judgeable.refuse(design, len(classes), tested[-1], minimum)
            out.roles |= {(repeat, fold): assigned[:, fold] for fold in range(assigned.shape[1])}
    except UserError as error:
        out.add("folds", str(error), STOP)
        return
    fewest = np.min(tested, axis=0)
    can, few = int((fewest >= minimum).sum()), judgeable.lacking(classes, fewest, minimum)
    out.add("classes", f"{can} of {len(classes)} can be judged (from {minimum} positive test groups on)")
    if few:
        out.add("classes", f"cannot be judged, with their positive test groups: {few}", DOUBT)


def _design(out: Checked, settings: dict[str, Any], repeat: int) -> FoldDesign:
    folds = settings["make_folds"]
    columns: dict[str, np.ndarray | None] = {}
    for option in fold_design.COLUMNS:
        name, values = folds[option], out.listed.columns.get(folds[option] or "")
        if name and (values is None or not any(values)):
            known = ", ".join(sorted(out.listed.columns)) or "none"
            told = "is empty" if values is not None else "is no column"
            raise UserError(f"make_folds.{option} = {name!r} {told}; there are: {known}")
        columns[option] = grouping.one_spelling(np.array(values, dtype=object)) if name else None
    return FoldDesign(
        Path("the table"), out.groups, list(out.listed.classes), out.listed.labels, columns, folds, repeat,
        settings["seed"],
    )  # fmt: skip


def _check_columns(out: Checked, settings: dict[str, Any]) -> None:
    folds = settings["make_folds"]
    known = [*out.by, "pixel_size", *(folds[name] for name in ("leave_out", "roles_from") if folds[name])]
    columns = {name: np.array(values, dtype=object) for name, values in out.listed.columns.items()}
    found = confounding.associations(out.listed.labels, out.groups, columns, known)
    strong = [each for each in found if each.confounded]
    if strong:
        told = ", ".join(f"{each.column} (Cramér's V {each.v:.2f})" for each in strong[:NAMED])
        text = f"goes with the labels: {told}. A classifier may learn it instead; make_folds.leave_out tests this"
        out.add("columns", text, DOUBT)
    elif found:
        out.add("columns", f"none goes with the labels; the nearest: {found[0].column} (Cramér's V {found[0].v:.2f})")


def _check_generators(out: Checked, generators: list[str]) -> None:
    if not generators or not out.roles:
        return
    train = min(int((own == Role.TRAIN).sum()) for own in out.roles.values())
    if train < FEWEST_TRAIN:
        text = (
            f"{train:,} train images for {', '.join(generators)}: with fewer than {FEWEST_TRAIN:,}, diffusion models "
            "tend to copy them. Look at the closest pairs of the report"
        )
        out.add("generators", text, DOUBT)
    else:
        out.add("generators", f"{train:,} train images")


def forecast(cost: dict[str, Any]) -> Finding:
    """What the run will cost, from cost.json."""
    if cost["problem"]:
        return Finding("cost", f"not known: {cost['problem']}", DOUBT)
    low, middle, high = map(duration, cost["wall_clock"])
    least = "at least " if cost["unknown"] else ""
    text = f"{least}{middle} ({low} to {high}) on {cost['cores']} cores, {cost['disk']['total'] / 1e9:.2g} GB of disk"
    return Finding("cost", text)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the lines that make_folds would write."""
    level = stage.log.level
    stage.log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        stage.log.setLevel(level)
