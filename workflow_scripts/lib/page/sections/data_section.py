"""What the images of a run are, as tables: classes, combinations, values of columns, groups, roles, near-duplicates,
and what was left out and why. Everything here comes from labels and text; no pixel is read."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.images import known_datasets
from workflow_scripts.lib.images.format_choices import STACKS
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_layout import FURTHER, LABELLED, MISSING
from workflow_scripts.lib.images.known_datasets import TRAIN_PART
from workflow_scripts.lib.page import intensity_histograms
from workflow_scripts.lib.page.html_page import Column, PageTable
from workflow_scripts.lib.page.intensity_histograms import IntensityHistograms
from workflow_scripts.lib.split import missing_channels, role_table
from workflow_scripts.lib.split.roles import ROLES, Role

# What makes a group a protein: the columns that images may be grouped by.
PROTEIN_COLUMNS = {"gene", "protein", "antibody"}
MOST_VALUES = 60  # of a column that gets a table of its own
TOLD = ("source", "release", "licence", "credit", "digest", "intensity")  # attributes of the set, told as they are
GROUP_SIZES = (1, 2, 3, 4, 5, 6, 10, 20, 50, 100, 200, 500, 1000, 10_000)  # the first size of each row

Roles = dict[tuple[int, int], np.ndarray]  # (repeat, fold) -> role of each image


@dataclass
class Data:
    """Labels and text of the labelled images of a set, and their roles."""

    labels: np.ndarray  # uint8 (n, K)
    classes: list[str]
    groups: np.ndarray  # str (n,)
    columns: dict[str, np.ndarray]  # further text columns, each (n,)
    attrs: dict[str, Any]
    roles: Roles
    channels: list[str]
    size: int
    present: np.ndarray | None = None  # bool (n, C): channels that are there; None: all


def lines_tested(data: Data) -> int:
    """How many cell lines the test parts hold; 0 where none are known."""
    if "cell_line" not in data.columns:
        return 0
    tested = np.zeros(len(data.groups), dtype=bool)
    for roles in data.roles.values():
        tested |= roles == Role.TEST
    return len(set(data.columns["cell_line"][tested].tolist()) - {""})


def read(images: Path, tables: list[tuple[int, Path]]) -> Data:
    """An image set without its images, and the tables of roles (repeat, path); without further images, which have no
    labels and follow the others."""
    with ImageSet(images) as source:
        own = np.flatnonzero(~source.further)
        roles = {place: all_roles[own] for place, all_roles in role_table.read_all(tables, source.ids).items()}
        columns = {
            name: source.column(name)[own] for name in source.columns() if name != LABELLED or len(own) == len(source)
        }
        labels, groups = source.labels(own, "inspect"), source.groups[own]
        about = (source.attrs, roles, source.channels, source.size, source.present[own])
        return Data(labels, source.classes, groups, columns, *about)


def _used(data: Data) -> list[str]:
    return [role for role in ROLES if any((own == role).any() for own in data.roles.values())]


def tested_groups(data: Data) -> np.ndarray:
    """Positive test groups of each class (K,), over all folds of a repeat; the fewest that a repeat has."""
    _, member = np.unique(data.groups, return_inverse=True)
    groups = []
    for repeat in dict.fromkeys(repeat for repeat, _ in data.roles):
        tested = np.any([own == Role.TEST for (r, _), own in data.roles.items() if r == repeat], axis=0)
        groups.append(groups_with(data.labels[tested], member[tested]))
    return np.min(groups, axis=0)


def groups_with(labels: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Groups that have each class (K,)."""
    return np.array([len(np.unique(member[labels[:, k] > 0])) for k in range(labels.shape[1])], dtype=np.int64)


def unit_of(grouped_by: list[str]) -> str:
    """What a group is, in the singular, from the columns that images are grouped by: protein, well, patient, group."""
    names = [name.lower().replace("_", " ").strip() for name in grouped_by]
    if PROTEIN_COLUMNS & set(names):
        return "protein"
    # Names of columns come from users; what is no word makes no sentence.
    if len(names) != 1 or not re.fullmatch(r"[a-z][a-z ]{2,19}", names[0]):
        return "group"
    return names[0].removesuffix("s")


def classes_table(data: Data, minimum: int) -> PageTable:
    """Images and groups of every class, its groups in each role of the first fold, and whether it can be judged."""
    used, tested = _used(data), tested_groups(data)
    (repeat, fold), first = next(iter(data.roles.items()))
    _, member = np.unique(data.groups, return_inverse=True)
    groups = groups_with(data.labels, member)
    by_role = {role: groups_with(data.labels[first == role], member[first == role]) for role in used}
    rows = []
    for k, name in enumerate(data.classes):
        row: dict[str, Any] = {"class": name, "images": int(data.labels[:, k].sum())}
        row |= {"fraction": float(data.labels[:, k].mean()) if len(data.labels) else None, "groups": int(groups[k])}
        row |= {role: int(by_role[role][k]) for role in used} | {"test_groups": int(tested[k])}
        rows.append(row | {"judged": "yes" if tested[k] >= minimum else f"no, {minimum} needed"})
    columns = [
        Column("class", "class", "name"),
        Column("images", "images", "count"),
        Column("fraction", "fraction", "percent"),
        Column("groups", "groups", "count"),
    ]
    columns += [Column("test_groups", "tested in a repeat", "count"), Column("judged", "can be judged")]
    columns += [Column(role, f"{role} groups", "count") for role in used]
    caption = f"Classes; groups by role are those of repeat {repeat}, fold {fold}"
    return PageTable(
        "data_classes", caption, columns, rows, mark=lambda row: "" if row["judged"] == "yes" else "control"
    )


def roles_table(data: Data) -> PageTable:
    """Images and groups of every role in every fold."""
    used, rows = _used(data), []
    for (repeat, fold), own in data.roles.items():
        row: dict[str, Any] = {"fold": f"repeat {repeat}, fold {fold}"}
        for role in used:
            mine = own == role
            row |= {f"{role}_images": int(mine.sum()), f"{role}_groups": len(set(data.groups[mine]))}
        rows.append(row)
    columns = [Column("fold", "fold", "name")]
    for role in used:
        columns += [Column(f"{role}_images", role, "count"), Column(f"{role}_groups", "groups", "count")]
    unused = "Unused images belong to groups of tested ones, or have an unknown value. They are not read."
    note = unused * (Role.UNUSED in used)
    caption = "Images and groups by role; a group never plays two roles in a fold"
    return PageTable("data_roles", caption, columns, rows, note=note)


def combinations_table(data: Data) -> PageTable:
    """Images and groups of every combination of classes, the commonest first."""
    kinds, member = np.unique(data.labels, axis=0, return_inverse=True)
    member = member.ravel()
    images = np.bincount(member, minlength=len(kinds))
    rows = []
    for index in np.lexsort((*(-kinds.T[::-1].astype(int)), -images)):
        names = [name for name, on in zip(data.classes, kinds[index], strict=True) if on]
        rows.append(
            {"classes": " + ".join(names) or "none", "labels": len(names), "images": int(images[index])}
            | {"fraction": images[index] / len(data.labels), "groups": len(set(data.groups[member == index]))}
        )
    columns = [
        Column("classes", "classes", "name"),
        Column("labels", "labels", "count"),
        Column("images", "images", "count"),
        Column("fraction", "fraction", "percent"),
        Column("groups", "groups", "count"),
    ]
    return PageTable("data_combinations", f"All {len(rows)} combinations of classes", columns, rows)


def cooccurrence(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images that have two classes (K, K), and as fractions of the images of the row's class."""
    both = labels.astype(np.int64).T @ labels.astype(np.int64)
    return both, both / np.maximum(np.diag(both), 1)[:, None]


def cooccurrence_table(data: Data) -> PageTable:
    """Images that have both the class of the row and that of the column."""
    both, _ = cooccurrence(data.labels)
    rows = [
        {"class": name} | {f"c{k}": int(both[index, k]) for k in range(len(data.classes))}
        for index, name in enumerate(data.classes)
    ]
    columns = [Column("class", "class", "name")]
    columns += [Column(f"c{k}", name, "count") for k, name in enumerate(data.classes)]
    return PageTable(
        "data_cooccurrence", "Images that have both classes; on the diagonal, all of the class", columns, rows
    )


def column_tables(data: Data, wanted: list[str]) -> list[PageTable]:
    """Images, groups and classes of every value of columns such as cell_line, where they exist."""
    out = []
    for name in dict.fromkeys(wanted):
        if name not in data.columns:
            continue
        values = data.columns[name].astype(str)
        counts = Counter(values.tolist())
        if len(counts) > MOST_VALUES:
            continue
        rows = []
        for value in sorted(counts, key=lambda value: (-counts[value], value)):
            mine = values == value
            present = data.labels[mine].any(axis=0)
            row = {"value": value or "unknown", "images": counts[value], "fraction": counts[value] / len(values)}
            row |= {"groups": len(set(data.groups[mine])), "classes": int(present.sum())}
            lacking = [kind for kind, on in zip(data.classes, present, strict=True) if not on]
            rows.append(
                row | {"lacking": ", ".join(lacking[:4]) + (f" and {len(lacking) - 4} more" * (len(lacking) > 4))}
            )
        columns = [
            Column("value", name.replace("_", " "), "name"),
            Column("images", "images", "count"),
            Column("fraction", "fraction", "percent"),
            Column("groups", "groups", "count"),
            Column("classes", "classes", "count"),
            Column("lacking", "without an image of"),
        ]
        # Names of columns come from users; those of files do not.
        out.append(PageTable(f"data_column_{len(out)}", f"Images by {name.replace('_', ' ')}", columns, rows))
    return out


def group_sizes(groups: np.ndarray) -> list[dict[str, Any]]:
    """How many groups have how many images, in rows of similar size."""
    _, sizes = np.unique(groups, return_counts=True)
    rows = []
    for first, after in zip(GROUP_SIZES, (*GROUP_SIZES[1:], np.inf), strict=True):
        mine = sizes[(sizes >= first) & (sizes < after)]
        name = (
            str(first)
            if after == first + 1
            else f"{first:,} or more"
            if after == np.inf
            else f"{first:,} to {after - 1:,}"
        )
        rows.append({"size": name, "groups": len(mine), "images": int(mine.sum())})
    filled = [index for index, row in enumerate(rows) if row["groups"]] or [0]
    return rows[filled[0] : filled[-1] + 1]


def groups_table(data: Data) -> PageTable:
    """Groups by their number of images."""
    rows = group_sizes(data.groups)
    _, sizes = np.unique(data.groups, return_counts=True)
    largest = int(sizes.max(initial=0))
    columns = [
        Column("size", "images in a group", "name"),
        Column("groups", "groups", "count"),
        Column("images", "images", "count"),
    ]
    note = f"The largest group has {largest:,} images, {100 * largest / max(1, len(data.groups)):.1f} % of all."
    return PageTable("data_groups", "Sizes of groups", columns, rows, note=note)


def duplicates_table(data: Data) -> tuple[dict[str, Any], PageTable | None]:
    """What the search for near-duplicates found, and its examples; nothing where it was off."""
    duplicates = json.loads(data.attrs.get("duplicates") or "{}")
    rows = [
        {"one": one, "other": other, "likeness": likeness} for one, other, likeness in duplicates.get("examples", [])
    ]
    columns = [
        Column("one", "image", "name"),
        Column("other", "near-duplicate"),
        Column("likeness", "correlation", "number"),
    ]
    caption = "Near-duplicates: the first pairs" if len(rows) < duplicates.get("pairs", 0) else "All near-duplicates"
    return duplicates, PageTable("data_duplicates", caption, columns, rows) if rows else None


def left_out_table(path: Path | None) -> tuple[dict[str, int], PageTable | None]:
    """Images that were left out by the kind of their fault, and the whole list; nothing where the list is empty."""
    if path is None or not path.exists() or not path.stat().st_size:
        return {}, None
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not len(table):
        return {}, None
    kinds = Counter(table["kind"] if "kind" in table else table.iloc[:, -1])
    columns = [Column(name, name, "name" if not index else "text") for index, name in enumerate(table.columns)]
    listed = PageTable("data_left_out", "What was left out, and why", columns, table.to_dict("records"))
    return dict(kinds.most_common()), listed


def missing_table(data: Data) -> PageTable | None:
    """Images of each class that lack each channel; nothing where none is missing."""
    if data.present is None or data.present.all():
        return None
    rows = missing_channels.by_class(data.labels, data.classes, data.present)
    columns = [Column("class", "class", "name"), Column("images", "images", "count")]
    columns += [Column(f"c{k}", f"without {name}", "count") for k, name in enumerate(data.channels)]
    return PageTable("data_missing", "Images that lack a channel, by class", columns, rows)


def missing_told(data: Data) -> dict[str, str | None]:
    """How many images lack which channel, and whether this goes with the labels; nothing where none is missing."""
    if data.present is None or data.present.all():
        return {}
    found = missing_channels.association(data.labels, data.groups, data.columns[MISSING])
    about = missing_channels.described(data.present, data.channels)
    return {"text": about, "warning": missing_channels.warning(found)}


def histograms_told(data: Data, reading: dict[str, Any]) -> str:
    """What the figure of intensities by plate or the like shows."""
    column = intensity_histograms.column_of(reading.get("intensity_column"), data.columns)
    shown = IntensityHistograms(data.channels, column, data.columns.get(column), len(data.labels))
    kept = reading.get("intensity") == TRAIN_PART
    fold = " After normalisation: as the first fold sees them." if kept else " Intensities in the files are not kept."
    return shown.told(kept) + fold


def _map_in_words(label_map: str | dict[str, list[str]] | None) -> str:
    if not isinstance(label_map, dict):
        return label_map or ""
    return "; ".join(f"{new} from {' + '.join(old)}" for new, old in label_map.items())


def describe(
    data: Data, config: dict[str, Any], intensity: Path | None, left_out: Path | None
) -> tuple[dict[str, Any], dict[str, PageTable]]:
    """What the page says of the data, and its tables by name."""
    section, folding = config.get("data", {}), config.get("make_folds", {})
    simulated = section.get("source") == "simulated"
    grouped_by = [name for name in data.attrs.get("grouped_by", "").split(", ") if name]
    minimum = config.get("analysis", {}).get("minimum_positive_groups", 1)
    wanted = ["cell_line", folding.get("stratify_by"), folding.get("leave_out")]
    of_columns = column_tables(data, [name for name in wanted if name])
    kinds, listed = left_out_table(left_out)
    duplicates, examples = duplicates_table(data)
    tables = {
        "data_classes": classes_table(data, minimum),
        "data_combinations": combinations_table(data),
        "data_cooccurrence": cooccurrence_table(data),
        "data_groups": groups_table(data),
        "data_roles": roles_table(data),
    }
    tables |= {table.name: table for table in of_columns}
    told = (examples, listed, missing_table(data), intensity_table(intensity))
    tables |= {table.name: table for table in told if table}
    per_image = data.labels.sum(axis=1) if len(data.labels) else np.zeros(1)
    # What the config says of the images comes before what their set knows of its source.
    said = {"source" if name == "origin" else name: text for name, text in known_datasets.told(section).items()}
    return {
        "unit": unit_of(grouped_by),
        "lines_tested": lines_tested(data),
        "grouped_by": grouped_by,
        "simulated": simulated,
        "images": len(data.labels),
        "groups": len(set(data.groups)),
        "channels": data.channels,
        "size": data.size,
        "labels_per_image": float(per_image.mean()),
        "unlabelled": int((per_image == 0).sum()),
        "columns": {name: len(set(values)) for name, values in data.columns.items()},
        "of_columns": [table.name for table in of_columns],
        "duplicates": duplicates,
        "further": {"images": data.attrs.get(FURTHER), "duplicates": data.attrs.get("further_duplicates", "")},
        "left_out": kinds,
        "stack": STACKS[data.attrs["stack"]].told if data.attrs.get("stack") in STACKS else "",
        "missing": missing_told(data),
        "histograms": histograms_told(data, config.get("preprocess_images", {})),
        "leave_out": folding.get("leave_out"),
        "roles_from": folding.get("roles_from"),
        "label_map": _map_in_words(json.loads(data.attrs.get("label_map") or "null")),
        "notes": json.loads(data.attrs.get("notes") or "[]"),
    } | {name: data.attrs.get(name, "") for name in TOLD} | said, tables


def intensity_table(path: Path | None) -> PageTable | None:
    """Pixel values of every channel."""
    if path is None:
        return None
    rows = pd.read_csv(path, dtype={"channel": str}, keep_default_na=False).to_dict("records")
    columns = [Column("channel", "channel", "name")]
    columns += [Column(name, title, kind, 1) for name, title, kind in INTENSITY]
    return PageTable("data_intensity", "Pixel values by channel (0 to 255)", columns, rows)


INTENSITY = (
    ("mean", "mean", "number"),
    ("deviation", "deviation", "number"),
    ("p1", "1st percentile", "number"),
    ("p50", "median", "number"),
    ("p99", "99th percentile", "number"),
    ("black", "at 0", "percent"),
    ("saturated", "at 255", "percent"),
)
