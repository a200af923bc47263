"""Errors that end a stage in one line: mistakes of the user, and a disk that is full."""

from __future__ import annotations

import errno
import os
import re

# Numbers of errors by which the system says that a file cannot grow: disk full, quota used up, file too large.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class UserError(Exception):
    """A failure that the user can mend: the message names the file, key or class and says what to do, in one line."""

    def __init__(self, message: str) -> None:
        # Names of files and values come from outside: a line of their own could pass for one of ours.
        super().__init__("".join(char if char.isprintable() else " " if char.isspace() else "?" for char in message))


def out_of_room(error: Exception) -> bool:
    """Whether a write failed because the disk is full, a quota is used up, or a file may not grow."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    # HDF5 and safetensors have the number of the error in their text alone, torch not even that.
    told = re.search(r"(?:errno =|os error) (\d+)", str(error))
    written = re.search(r"PytorchStreamWriter failed writing|inline_container.* unexpected pos", str(error))
    return bool(written or (told and int(told[1]) in FULL))


def reason_of_full_disk(error: Exception) -> str:
    """Which file, and why; HDF5 tells addresses in memory, too."""
    told, name = re.search(r"errno = (\d+)", str(error)), re.search(r"filename = '([^']*)'", str(error))
    if not told:
        return str(error)
    return os.strerror(int(told[1])) + (f": {name[1]!r}" if name else "")
