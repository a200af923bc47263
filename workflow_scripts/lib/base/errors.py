"""Errors that end a stage in one line: user errors, a full disk, and a file system that fails."""

from __future__ import annotations

import errno
import os
import re

# Error numbers for a file that cannot grow: disk full, quota used up, file too large.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Those of a file system that became read-only, or that a network has lost.
FAILED = {errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EREMOTEIO}


class UserError(Exception):
    """Error that the user can fix: its message names the file, key or class and says what to do, in one line."""

    def __init__(self, message: str) -> None:
        # Names of files and values come from outside: a line break in one could fake a message of MixLoc.
        super().__init__("".join(char if char.isprintable() else " " if char.isspace() else "?" for char in message))


def out_of_room(error: Exception) -> bool:
    """Whether a write failed because the disk is full, a quota is used up, or a file may not grow."""
    return _has_number(error, FULL) or bool(
        re.search(r"PytorchStreamWriter failed writing|inline_container.* unexpected pos", str(error))
    )


def file_system_failed(error: Exception) -> bool:
    """Whether the file system itself has failed."""
    return _has_number(error, FAILED)


def _has_number(error: Exception, numbers: set[int]) -> bool:
    if isinstance(error, OSError) and error.errno in numbers:
        return True
    # HDF5 and safetensors give the error number only in their message, torch does not give it at all.
    told = re.search(r"(?:errno =|os error) (\d+)", str(error))
    return bool(told and int(told[1]) in numbers)


def reason_of_disk(error: Exception) -> str:
    """Message that names the file and the system's reason, without the memory addresses that HDF5 adds."""
    told, name = re.search(r"errno = (\d+)", str(error)), re.search(r"filename = '([^']*)'", str(error))
    if not told:
        return str(error)
    return os.strerror(int(told[1])) + (f": {name[1]!r}" if name else "")
