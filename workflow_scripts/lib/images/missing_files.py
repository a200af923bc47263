"""What to do where no image has its files: the folder names them otherwise than the settings say."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from workflow_scripts.lib.images.format_choices import BY_SUFFIX
from workflow_scripts.lib.images.invalid_input import Fault, printable
from workflow_scripts.lib.images.read_image import Reader

KINDS = {"missing file", "Id without files"}
MOST = 100_000  # entries of a folder that are looked at


def problem(reader: Reader, ids: Iterable[str], bad: Iterable[Fault], new: bool = False) -> str | None:
    """A sentence where files of all these images are missing, with what the folder holds instead; None otherwise.

    Of `new` images, which are to be predicted, it names no setting of `data`: that would make the run again."""
    wanted, lost = list(ids), {fault.id for fault in bad if fault.kind in KINDS}
    if not wanted or not lost.issuperset(wanted):
        return None
    asked = next(iter(reader.files(wanted[0])))
    kinds, example = _held(reader.folder)
    if not kinds:
        key = "predict.images" if new else "data.images"
        return f"{reader.folder} holds no image file; files such as {printable(asked)!r} are looked for: set {key}"
    listed = " and ".join(f"{count:,} {suffix}" for suffix, count in kinds.most_common(3))
    return (
        f"none of the {len(wanted):,} images has its files, such as {printable(asked)!r}. The folder holds {listed} "
        f"files, such as {printable(example)!r}; "
        + ("name files and Ids as those of the run are (data.files)" if new else "set data.files")
    )


def _held(folder: Path) -> tuple[Counter[str], str]:
    """How many image files of each suffix a folder holds, and the name of the first of the commonest."""
    kinds: Counter[str] = Counter()
    first: dict[str, str] = {}
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            suffix = Path(entry.name).suffix
            if suffix.lower() in BY_SUFFIX:
                kinds[suffix] += 1
                first[suffix] = min(entry.name, first.get(suffix, entry.name))
            if number + 1 >= MOST:
                break
    return kinds, first[kinds.most_common(1)[0][0]] if kinds else ""
