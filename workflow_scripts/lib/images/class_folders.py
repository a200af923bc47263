"""Images that lie in one folder for each class: a single folder and a label table, as MixLoc reads them."""

from __future__ import annotations

import csv
import os
import re
import shutil
from pathlib import Path

from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import folder_guess

SPLIT = re.compile(r"(.*?)[_-]([A-Za-z][A-Za-z0-9]*)$")  # an Id and a channel
WELL = re.compile(r"[A-P][0-9]{1,2}")  # of a plate


def classes(folder: Path) -> list[Path]:
    """The folders below one that hold images, if there are several."""
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    found = [path for path in found if folder_guess.image_names(path, 1)]
    return found if len(found) > 1 else []


def gather(folders: list[Path], images: Path, table: Path) -> None:
    """Link all files into `images` under the names of their folders, and write `table` with a row for each image.

    Links are hard: they take no room, and nothing is moved. Where the file system has none, files are copied."""
    rows: dict[str, str] = {}
    with files.atomic(images) as part:
        part.mkdir()
        found = {folder: folder_guess.image_names(folder) for folder in folders}
        channelled = _channelled([(folder.name, stem) for folder, names in found.items() for stem in _stems(names)])
        for folder, names in found.items():
            for name, own in zip(names, _ids(names, channelled), strict=True):
                safe = re.sub(r"[^A-Za-z0-9-]+", "-", folder.name)
                if rows.setdefault(f"{safe}_{own}", folder.name) != folder.name:
                    raise UserError(f"{folder} and {rows[f'{safe}_{own}']} would get the same names: rename one")
                try:
                    # By itself it would link to a link, and not to where that leads.
                    os.link(os.path.realpath(folder / name), part / f"{safe}_{name}")
                except FileNotFoundError:
                    raise UserError(f"{folder / name} is a link to nothing: delete it") from None
                except OSError:
                    shutil.copyfile(folder / name, part / f"{safe}_{name}")
    with files.atomic(table) as part, part.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("Id", "Target"))
        writer.writerows(sorted(rows.items()))


def _ids(names: list[str], channelled: bool) -> list[str]:
    """The Id in each file's name: without its ending, and without its channel where names have one."""
    return [SPLIT.fullmatch(stem)[1] if channelled else stem for stem in _stems(names)]


def _stems(names: list[str]) -> list[str]:
    return [re.sub(r"(\.ome)?\.[^.]+$", "", name) for name in names]


def _channelled(stems: list[tuple[str, str]]) -> bool:
    """Whether names, given with their folders, end in one of a few channels that most images have.

    All folders decide together: a folder with twelve wells of a plate must not take them for channels."""
    parts = [(folder, SPLIT.fullmatch(stem)) for folder, stem in stems]
    if not all(match for _, match in parts):
        return False
    channels, ids = {match[2] for _, match in parts}, {(folder, match[1]) for folder, match in parts}
    wells = all(WELL.fullmatch(channel) for channel in channels)
    return not wells and 1 < len(channels) <= 16 and len(ids) * len(channels) <= 1.2 * len(parts)
