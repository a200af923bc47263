"""First guess of what the columns of a table mean: labels, and what images have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workflow_scripts.lib.images.image_list import Labels
from workflow_scripts.lib.images.known_datasets import GROUP_BY
from workflow_scripts.lib.images.user_tables import UserTable

# Words of a column's name, the likeliest first.
LABELS = (
    "target", "label", "labels", "class", "classes", "localization", "localisation", "location", "locations",
    "compartment", "annotation", "mechanism", "moa", "phenotype", "category", "type",
)  # fmt: skip
GROUPS = (
    *GROUP_BY, "protein", "gen", "orf", "strain", "uniprot", "ensembl", "patient", "donor", "animal", "mouse", "sample",
    "clone", "compound", "well", "slide", "field", "fov", "image", "plate",
)  # fmt: skip
PROTEIN = ("protein", "green", "gfp", "egfp", "antibody", "target", "yfp", "venus", "halo", "mcherry", "rfp")
NUCLEUS = ("dapi", "hoechst", "dna", "nucleus", "nuclei", "nuclear", "blue", "draq5", "h2b")
REFERENCE = (
    *NUCLEUS,
    "dic",
    "bf",
    "brightfield",
    "phase",
    "red",
    "yellow",
    "er",
    "tubulin",
    "microtubules",
    "actin",
    "membrane",
)
SEPARATORS = (",", "+", "/", "&")  # beside those that are known anyway
MOST_CLASSES = 60


def words(name: str) -> list[str]:
    """The words of a name, in small letters."""
    return re.findall(r"[a-z]+|[0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def _hint(name: str, hints: Sequence[str]) -> int:
    """Place of the first hint that is a word of a name; their number if none is."""
    whole = [name.lower(), *words(name)]
    return next((place for place, hint in enumerate(hints) if hint in whole), len(hints))


def labels(table: UserTable, id_column: str) -> list[str]:
    """Columns that may hold labels, the likeliest first."""
    found = []
    for name, values in table.columns.items():
        filled = [value for value in values if value]
        if name == id_column or not filled:
            continue
        count, place = len(set(split(filled))), _hint(name, LABELS)
        hinted = place < len(LABELS)
        few = 2 <= count <= min(MOST_CLASSES, max(2, len(filled) // 3))
        if (hinted and count >= 2) or (few and _hint(name, GROUPS) == len(GROUPS)):
            found.append((not hinted, place, count, name))
    return [name for *_, name in sorted(found)]


def split(values: Sequence[str], separator: str | None = None) -> list[str]:
    """All labels of a column, cut as they will be read."""
    parser = _parser(values, separator)
    return [part for value in values for part in parser.split(value)]


def _parser(values: Sequence[str], separator: str | None = None) -> Labels:
    # Names of classes are not needed for cutting, but numbers want some.
    return Labels(values, {"label_separator": separator, "labels": None}, ("?",))


def numbers(values: Sequence[str]) -> bool:
    """Whether labels are numbers of classes."""
    return _parser(values).numbers


def separator(values: Sequence[str]) -> str | None:
    """A separator of labels that must be told: one whose parts are labels by themselves too."""
    filled = [value for value in values if value]
    before = set(split(filled))
    for sign in SEPARATORS:
        compound = {label for label in before if sign in label}
        parts = {part.strip() for label in compound for part in label.split(sign)}
        if compound and parts <= before - compound:
            return sign
    return None


def groups(table: UserTable, taken: Sequence[str]) -> list[str]:
    """Columns that may say which images belong together, the likeliest first."""
    found = []
    for name, values in table.columns.items():
        filled, place = [value for value in values if value], _hint(name, GROUPS)
        if name not in taken and place < len(GROUPS) and 1 < len(set(filled)) <= len(filled):
            alone = len(set(filled)) == len(filled) and place >= len(GROUP_BY)  # it would join nothing
            found.append((alone, place, name))
    return [name for *_, name in sorted(found)]


def protein_channel(channels: Sequence[str]) -> str:
    """The channel that shows the protein."""
    hinted = sorted((place, name) for name in channels if (place := _hint(name, PROTEIN)) < len(PROTEIN))
    others = [name for name in channels if _hint(name, REFERENCE) == len(REFERENCE)]
    return hinted[0][1] if hinted else (others or list(channels))[-1]


def nucleus_channel(channels: Sequence[str]) -> str | None:
    """The channel that shows nuclei, if one does by its name."""
    return next((name for name in channels if _hint(name, NUCLEUS) < len(NUCLEUS)), None)
