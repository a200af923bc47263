"""Label maps: merging, renaming and selecting classes before training.

A map lists for each new class the old classes that it consists of. Some are built in: each takes the location names of
the public Human Protein Atlas, of its Kaggle sets, or a mixture of them, to one list of classes. Names are compared
without regard to upper and lower case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.names import meant

# The locations that the public Human Protein Atlas annotates in cell lines.
HPA_PUBLIC = (
    "Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nucleoli fibrillar center", "Nucleoli rim", "Nuclear speckles",
    "Nuclear bodies", "Mitotic chromosome", "Kinetochore", "Endoplasmic reticulum", "Golgi apparatus", "Vesicles",
    "Peroxisomes", "Endosomes", "Lysosomes", "Lipid droplets", "Intermediate filaments", "Actin filaments",
    "Focal adhesion sites", "Microtubules", "Microtubule ends", "Cytokinetic bridge", "Midbody", "Midbody ring",
    "Cleavage furrow", "Mitotic spindle", "Centriolar satellite", "Centrosome", "Plasma membrane", "Cell Junctions",
    "Mitochondria", "Aggresome", "Cytosol", "Cytoplasmic bodies", "Rods & Rings",
)  # fmt: skip
# 30 of these and Negative, as networks that were trained on the whole Atlas name them.
HPA_31 = (
    "Actin filaments", "Aggresome", "Cell Junctions", "Centriolar satellite", "Centrosome", "Cytokinetic bridge",
    "Cytoplasmic bodies", "Cytosol", "Endoplasmic reticulum", "Endosomes", "Focal adhesion sites", "Golgi apparatus",
    "Intermediate filaments", "Lipid droplets", "Lysosomes", "Microtubules", "Midbody", "Mitochondria",
    "Mitotic chromosome", "Mitotic spindle", "Nuclear bodies", "Nuclear membrane", "Nuclear speckles", "Nucleoli",
    "Nucleoli fibrillar center", "Nucleoli rim", "Nucleoplasm", "Peroxisomes", "Plasma membrane", "Vesicles",
    "Negative",
)  # fmt: skip
# Class numbers 0 to 27 of the Kaggle competition of 2018.
KAGGLE_2018 = (
    "Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nucleoli fibrillar center", "Nuclear speckles", "Nuclear bodies",
    "Endoplasmic reticulum", "Golgi apparatus", "Peroxisomes", "Endosomes", "Lysosomes", "Intermediate filaments",
    "Actin filaments", "Focal adhesion sites", "Microtubules", "Microtubule ends", "Cytokinetic bridge",
    "Mitotic spindle", "Microtubule organizing center", "Centrosome", "Lipid droplets", "Plasma membrane",
    "Cell junctions", "Mitochondria", "Aggresome", "Cytosol", "Cytoplasmic bodies", "Rods & rings",
)  # fmt: skip
# Class numbers 0 to 18 of the Kaggle competition of 2021.
KAGGLE_2021 = (
    "Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nucleoli fibrillar center", "Nuclear speckles", "Nuclear bodies",
    "Endoplasmic reticulum", "Golgi apparatus", "Intermediate filaments", "Actin filaments", "Microtubules",
    "Mitotic spindle", "Centrosome", "Plasma membrane", "Mitochondria", "Aggresome", "Cytosol",
    "Vesicles and punctate cytosolic patterns", "Negative",
)  # fmt: skip
COARSE = ("Nucleus", "Cytoplasm", "Cytoskeleton", "Mitochondria", "Endomembrane system", "Plasma membrane")

# Lists of class names by number, for tables that give numbers alone.
NUMBERINGS = {"hpa_public": HPA_PUBLIC, "hpa_31": HPA_31, "kaggle_2018": KAGGLE_2018, "kaggle_2021": KAGGLE_2021}

_VESICLES = "Vesicles and punctate cytosolic patterns"
# What a list calls otherwise, or holds as a part of something larger; all else keeps its name. Locations that have no
# place in a list (Vesicles among the 28 of 2018, Rods & Rings among the 19 of 2021) are unmapped.
_PARTS: dict[str, dict[str, Sequence[str]]] = {
    "hpa_31": {
        "Centriolar satellite": ["Microtubule organizing center"],
        "Microtubules": ["Microtubule ends"],
        "Midbody": ["Midbody ring"],
        "Vesicles": [_VESICLES],
    },
    "kaggle_2018": {
        "Cytokinetic bridge": ["Midbody", "Midbody ring"],
        "Microtubule organizing center": ["Centriolar satellite"],
        "Nucleoli": ["Nucleoli rim"],
    },
    "kaggle_2021": {
        "Actin filaments": ["Focal adhesion sites"],
        "Centrosome": ["Centriolar satellite", "Microtubule organizing center"],
        "Microtubules": ["Microtubule ends"],
        "Nucleoli": ["Nucleoli rim"],
        "Plasma membrane": ["Cell junctions"],
        _VESICLES: ["Vesicles", "Peroxisomes", "Endosomes", "Lysosomes", "Lipid droplets", "Cytoplasmic bodies"],
    },
    "coarse": {
        "Nucleus": [*HPA_PUBLIC[:9]],
        "Cytoplasm": ["Cytosol", "Aggresome", "Cytoplasmic bodies", "Rods & rings"],
        "Cytoskeleton": [
            "Intermediate filaments", "Actin filaments", "Focal adhesion sites", "Microtubules", "Microtubule ends",
            "Cytokinetic bridge", "Midbody", "Midbody ring", "Cleavage furrow", "Mitotic spindle",
            "Microtubule organizing center", "Centriolar satellite", "Centrosome",
        ],
        "Endomembrane system": [
            "Endoplasmic reticulum", "Golgi apparatus", "Vesicles", _VESICLES, "Peroxisomes", "Endosomes", "Lysosomes",
            "Lipid droplets",
        ],
        "Plasma membrane": ["Cell junctions"],
    },
}  # fmt: skip


def _built_in(name: str, classes: Sequence[str]) -> dict[str, list[str]]:
    return {kind: [kind, *_PARTS[name].get(kind, ())] for kind in classes}


# name of the map -> new class -> old classes. The classes keep their numbers whatever the images hold.
BUILT_IN: dict[str, dict[str, list[str]]] = {
    name: _built_in(name, classes)
    for name, classes in (("hpa_31", HPA_31), ("kaggle_2018", KAGGLE_2018), ("kaggle_2021", KAGGLE_2021))
} | {"coarse": _built_in("coarse", COARSE)}


@dataclass
class Mapped:
    """Labels after a map, and what was lost by it."""

    labels: np.ndarray  # uint8 (n, K'), of the images that are kept
    classes: list[str]  # K' names
    kept: np.ndarray  # row numbers of the images that are kept
    emptied: np.ndarray  # row numbers of the images that had labels and have none any more
    unmapped: dict[str, int]  # old class that is in no new one -> images that had it


# A map of the user's own, as the config has it or as `ordered` makes it.
Own = Mapping[str, Sequence[str]] | Sequence[tuple[str, Sequence[str]]]


def ordered(label_map: str | Own | None) -> str | Own | None:
    """User's map as pairs, which keep the order of the classes: settings travel with sorted keys."""
    return [(new, list(old)) for new, old in label_map.items()] if isinstance(label_map, Mapping) else label_map


def apply(
    labels: np.ndarray,
    classes: Sequence[str],
    label_map: str | Own | None,
    unmapped: str = "refuse",
    emptied: str = "keep",
) -> Mapped:
    """Labels (n, K) of old classes -> labels (n, K') of new ones.

    `label_map`: a name in BUILT_IN, new class -> old classes (or pairs of these), or None for no change. `unmapped`:
    refuse (a class with images that the map does not name is an error) or drop (its labels are forgotten). `emptied`:
    images that lose all their labels are kept as images of no class, or left out (drop)."""
    labels, everything = np.asarray(labels), np.arange(len(labels))
    if label_map is None:
        return Mapped(labels, list(classes), everything, everything[:0], {})
    parts = _resolved(label_map, classes)
    out = np.stack([labels[:, old].max(axis=1, initial=0) for old in parts.values()], axis=1).astype(np.uint8)
    used = {index for old in parts.values() for index in old}
    left_over = {
        name: int((labels[:, k] > 0).sum()) for k, name in enumerate(classes) if k not in used and labels[:, k].any()
    }
    if left_over and unmapped == "refuse":
        listed = ", ".join(f"{name} ({count} images)" for name, count in left_over.items())
        raise UserError(
            f"data.label_map names no new class for: {listed}. Add them to the map, or set data.unmapped: drop"
        )
    emptied_rows = np.flatnonzero((labels.sum(axis=1) > 0) & (out.sum(axis=1) == 0))
    kept = np.setdiff1d(everything, emptied_rows) if emptied == "drop" else everything
    return Mapped(out[kept], list(parts), kept, emptied_rows, left_over)


def _resolved(label_map: str | Own, classes: Sequence[str]) -> dict[str, list[int]]:
    """New class -> numbers of the old classes."""
    number = {name.casefold(): k for k, name in enumerate(classes)}
    if isinstance(label_map, str):
        if label_map not in BUILT_IN:
            raise UserError(f"data.label_map = {label_map!r} is not known; built in: {', '.join(BUILT_IN)}")
        parts = {
            new: sorted({number[name.casefold()] for name in old if name.casefold() in number})
            for new, old in BUILT_IN[label_map].items()
        }
        if not any(parts.values()):
            raise UserError(
                f"data.label_map = {label_map!r} has none of the classes of the images: {', '.join(classes)}"
            )
        return parts
    own = dict(label_map)
    for new, old in own.items():
        unknown = [name for name in old if name.casefold() not in number]
        if unknown:
            raise UserError(
                f"data.label_map ({new}) names {unknown[0]!r}, which is no class of the images: {', '.join(classes)}"
                f"{meant(unknown[0], classes)}"
            )
    # An unknown name in the user's map is a mistake; in a built-in map it is a class that the set lacks.
    return {new: [number[name.casefold()] for name in old] for new, old in own.items()}
