"""Safe unpacking of zip archives: nothing outside the folder, no links, limited size."""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError

BLOCK = 1 << 20


def unpack(
    archive: Path, folder: Path, wanted: set[str], most_bytes: int, landed: Callable[[str, str], None]
) -> set[str]:
    """Unpack the wanted members, by file name, into `folder`, without subfolders.

    `landed` is called with each name and its sha256. Returns the names that the archive lacks. An archive with any
    member that would leave the folder is refused before anything is written."""
    try:
        with zipfile.ZipFile(archive) as source:
            members = _members(source, archive, wanted)
            total = sum(info.file_size for info in members.values())
            if total > most_bytes:
                raise UserError(
                    f"{archive} would unpack to {total / 1e9:.1f} GB, more than the {most_bytes / 1e9:g} left"
                )
            # Not files.atomic, which looks through the folder each time: there are a hundred thousand files.
            with files.room(folder / archive.name) as own:
                for name, info in members.items():
                    landed(name, _extract(source, info, own / name, folder / name))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, EOFError, zlib.error) as error:
        # RuntimeError: a way of compressing or encrypting that zipfile does not know.
        raise UserError(f"{archive} is a damaged archive ({error}): delete it and run again") from None
    return wanted - set(members)


def _members(source: zipfile.ZipFile, archive: Path, wanted: set[str]) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in source.infolist():
        problem = member_problem(info)
        if problem:
            raise UserError(f"{archive} is not unpacked: its member {info.filename[:120]!r} {problem}")
        name = PurePosixPath(info.filename).name
        if info.is_dir() or name not in wanted:
            continue
        if name in members:
            raise UserError(f"{archive} is not unpacked: it holds {name!r} twice")
        members[name] = info
    return members


def member_problem(info: zipfile.ZipInfo) -> str | None:
    """Reason why a member must not be unpacked; None if it may."""
    # The name as stored in the archive, before zipfile normalises it.
    name = info.orig_filename
    if name.startswith(("/", "\\")) or ":" in name or "\\" in name or "\0" in name or ".." in name.split("/"):
        return "leads out of the folder"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    return None


def _extract(source: zipfile.ZipFile, info: zipfile.ZipInfo, part: Path, place: Path) -> str:
    digest, size = hashlib.sha256(), 0
    with part.open("wb") as out, source.open(info) as member:
        # zipfile compares the checksum when the last byte is read.
        while block := member.read(BLOCK):
            size += len(block)
            if size > info.file_size:
                raise zipfile.BadZipFile(f"{info.filename} is longer than declared")
            digest.update(block)
            out.write(block)
    part.replace(place)
    return digest.hexdigest()
