"""Registries of image formats, by the end of a file's name, and of what is done with stacks of planes.

A new format is a function in `decode.py` and an entry here. Read before any job starts: neither numpy nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import PurePath

from workflow_scripts.lib.base.registry import Registry

EXTRA = "requirements-formats.txt"  # optional packages of formats and tables
ENVIRONMENT = "mixloc-formats"  # conda environment that holds them
PARQUET = ".parquet"  # a table; needs TABLE_PACKAGE
TABLE_PACKAGE = "pyarrow"


@dataclass(frozen=True)
class FormatFacts:
    """Facts about a format that are needed before a file is read."""

    about: str
    suffixes: tuple[str, ...]  # in small letters
    package: str | None = None  # optional package that reads it
    opened: bool = False  # the function opens a Stack, whose planes are read one by one


FORMATS = Registry(
    "image format",
    {
        "png": FormatFacts("PNG", (".png",)),
        "jpeg": FormatFacts("JPEG", (".jpg", ".jpeg")),
        "tiff": FormatFacts("TIFF, OME-TIFF and hyperstacks of ImageJ", (".tif", ".tiff")),
        "npy": FormatFacts("array of NumPy", (".npy",)),
        "ome_zarr": FormatFacts("OME-Zarr (NGFF 0.4 and 0.5), a local folder", (".zarr",), "zarr", opened=True),
        "czi": FormatFacts("CZI (Zeiss)", (".czi",), "pylibCZIrw", opened=True),
        "nd2": FormatFacts("ND2 (Nikon)", (".nd2",), "nd2", opened=True),
    },
)
BY_SUFFIX = {suffix: name for name, facts in FORMATS.items() for suffix in facts.suffixes}


@dataclass(frozen=True)
class StackFacts:
    """Facts about a treatment of stacks."""

    about: str
    told: str = ""  # how the report says it


STACKS = Registry(
    "treatment of stacks",
    {
        "refuse": StackFacts("such files cannot be used"),
        "channels": StackFacts("the planes are the channels", "Planes of focus or time in a file are its channels."),
        "maximum": StackFacts(
            "maximum over focus and time, for each channel",
            "Files with several planes in focus or time were projected: the maximum over them, for each channel.",
        ),
        "middle": StackFacts(
            "the middle plane of focus and time, for each channel",
            "Of files with several planes in focus or time, the middle plane of each channel was read.",
        ),
    },
)


def missing_package(files: Iterable[str]) -> str | None:
    """What to install where files of these names need a package that is not there; None where nothing is missing."""
    for file in files:
        name = BY_SUFFIX.get(PurePath(file).suffix.lower())
        package = FORMATS[name].package if name else None
        if package and find_spec(package) is None:
            return f"{file!r} needs the package {package}: pip install -r {EXTRA}"
    return None


def missing_table_package(path: str) -> str | None:
    """What to install where a table needs a package that is not there; None where nothing is missing."""
    if PurePath(path).suffix.lower() == PARQUET and find_spec(TABLE_PACKAGE) is None:
        return f"{path} needs the package {TABLE_PACKAGE}: pip install -r {EXTRA}, or save the table as CSV"
    return None
