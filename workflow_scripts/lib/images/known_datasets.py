"""Known data sets: descriptions of the sources that MixLoc can name, and of any user's folder.

Each source is a description without code. The `data` section of the config takes precedence over it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from workflow_scripts.lib.images.label_maps import NUMBERINGS, ordered

# Columns with a meaning, and what a table calls them unless the config says otherwise (upper and lower case are the
# same). All other columns are carried along under their own names.
COLUMNS = {
    "id": "Id",
    "labels": "Target",
    "group": "group",
    "gene": "gene",
    "antibody": "antibody",
    "cell_line": "cell_line",
    "reliability": "reliability",
    "pixel_size": "pixel_size",
}
# What becomes of images that lack the file of a channel (data.missing_channel).
REFUSE, ZERO, DROP = "refuse", "zero", "drop_image"
MISSING_CHANNEL = (REFUSE, ZERO, DROP)
TRAIN_PART = "train_part"  # preprocess_images.intensity: limits are fitted on the train part of each fold
# Images that share a value of any of these columns form a group.
GROUP_BY = ("group", "gene", "antibody")
CUT_FROM = "cut_from"  # column of the field that a cell was cut from; cells of one field always form a group
CELL_FILES = "{id}.ome.tif"  # files of cells that were cut out of whole fields
ATLAS = "Human Protein Atlas, proteinatlas.org (Thul et al., Science 2017, doi:10.1126/science.aal3321)"


@dataclass(frozen=True)
class Source:
    """Description of a source before any image is read; None: found out later, or unknown."""

    origin: str
    files: str = "{id}_{channel}.png"
    columns: dict[str, str] = field(default_factory=dict)
    labels: str | None = "numbers"
    label_separator: str | None = None
    class_names: str | None = None  # a list in label_maps.NUMBERINGS
    bits: tuple[int, ...] | None = None
    planes: dict[str, str] | None = None
    id_parts: str | None = None
    release: str = ""
    licence: str = ""
    credit: str = ""


SOURCES = {
    "simulated": Source("simulated cells (MixLoc)", bits=(8,), licence="none needed: made by the run itself"),
    "folder": Source("", labels=None),
    "kaggle2018": Source(
        "Human Protein Atlas Image Classification (Kaggle 2018)",
        class_names="kaggle_2018",
        bits=(8,),
        licence="the rules of the competition",
        credit=ATLAS,
    ),
    "kaggle2021": Source(
        "Human Protein Atlas - Single Cell Classification (Kaggle 2021)",
        columns={"id": "ID", "labels": "Label"},
        label_separator="|",
        class_names="kaggle_2021",
        bits=(8, 16),
        licence="the rules of the competition",
        credit=ATLAS,
    ),
    "public": Source(
        "Human Protein Atlas, subcellular images",
        files="{id}_{channel}.jpg",
        class_names="kaggle_2018",
        bits=(8,),
        # The Atlas shows each stain in its colour; yellow is red and green in equal parts.
        planes={"red": "red", "green": "green", "blue": "blue", "yellow": "yellow"},
        id_parts="{gene}_{antibody}_{plate}_{well}_{field}",
        licence="see proteinatlas.org/about/licence for the release",
        credit=ATLAS,
    ),
}  # fmt: skip


TOLD = ("origin", "release", "licence", "credit")  # text for the report alone


def described(data: dict[str, Any]) -> dict[str, Any]:
    """`data` section of the config, completed by the description of its source.

    Text for the report alone comes from the source only. What the config says of it goes directly to the page (`told`),
    so that editing it re-runs nothing."""
    known = asdict(SOURCES[data["source"]])
    said = {name: value for name, value in data.items() if name not in TOLD and value not in (None, "", [])}
    out = {name: said.get(name, value) for name, value in known.items()}
    if data["source"] == "simulated":
        # They are what the run makes them: settings for other images do not reach them.
        out = known
    given = {name: value for name, value in (data["columns"] or {}).items() if value}
    given = given if data["source"] != "simulated" else {}
    out["columns"] = COLUMNS | known["columns"] | given
    out["columns_given"] = sorted(given)  # these must be there
    if isinstance(out["class_names"], str):
        out["class_names"] = list(NUMBERINGS[out["class_names"]])
    kept = ("group_by", "file_channels", "stack", "pixel_size", "unmapped", "emptied")
    out |= {name: data[name] for name in (*kept, "no_label", "on_invalid", "invalid_limit")}
    if data.get("missing_channel", REFUSE) != REFUSE:
        out["missing_channel"] = data["missing_channel"]
    out["label_map"] = ordered(data["label_map"])
    if data["source"] == "simulated":
        out |= {"group_by": ["gene", "antibody"], "file_channels": None, "stack": "refuse", "pixel_size": None}
        out.pop("missing_channel", None)
    return out


def described_cells(data: dict[str, Any]) -> dict[str, Any]:
    """The same of single cells, where they are cut out of what `data` describes."""
    out = described(data)
    if data["cells"]:
        out |= {"files": CELL_FILES, "file_channels": None, "planes": None}
    return out


def told(data: dict[str, Any]) -> dict[str, str]:
    """Origin, release, licence and credit from the `data` section of the config, for the report."""
    # Simulated cells are what the run makes them, as in `described`.
    return {} if data.get("source") == "simulated" else {name: data[name] for name in TOLD if data.get(name)}
