"""Errors that end a stage in one line: user errors, a full disk, exhausted memory, and a file system that fails."""

from __future__ import annotations

import errno
import os
import re
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

# Error numbers for a file that cannot grow: disk full, quota used up, file too large.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Those of a file system that became read-only, or that a network has lost.
FAILED = {errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EREMOTEIO}
# How libraries say that memory did not suffice, where they raise no MemoryError. HDF5 gives the number of ENOMEM.
NO_MEMORY = re.compile(
    r"can't allocate memory|out of memory|bad_alloc|memory allocation failed|can't start new thread"
    r"|could not create a (primitive|memory)|(errno =|os error) 12\b",
    re.IGNORECASE,
)


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


def out_of_memory(error: Exception) -> bool:
    """Whether memory did not suffice: of this process, of a GPU, or of a worker process that the system has killed."""
    if isinstance(error, MemoryError | BrokenProcessPool):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, OSError | RuntimeError) and bool(NO_MEMORY.search(str(error)))


def reason_of_memory(error: Exception) -> str:
    """First line of the library's message, which names how much was asked for."""
    if isinstance(error, BrokenProcessPool):
        return "a worker process was killed"
    return str(error).partition("\n")[0].strip().rstrip(".") or "an allocation failed"


def _has_number(error: Exception, numbers: set[int]) -> bool:
    if isinstance(error, OSError) and error.errno in numbers:
        return True
    # HDF5 and safetensors give the error number only in their message, torch does not give it at all.
    told = re.search(r"(?:errno =|os error) (\d+)", str(error))
    return bool(told and int(told[1]) in numbers)


def raise_if_passing(error: Exception) -> None:
    """Raise an error again if the file system has failed, or mapping a file: it tells nothing about the file itself."""
    if _has_number(error, FAILED | {errno.ENOMEM}):
        raise error
    # Safetensors says so of every file that it cannot open.
    absent = re.search(r"No such file or directory: (.+)$", str(error))
    if absent and Path(absent[1]).exists():
        raise OSError(errno.EIO, "cannot be opened", absent[1]) from error


def reason_of_disk(error: Exception) -> str:
    """Message that names the file and the system's reason, without the memory addresses that HDF5 adds."""
    told, name = re.search(r"errno = (\d+)", str(error)), re.search(r"filename = '([^']*)'", str(error))
    if not told:
        return str(error)
    return os.strerror(int(told[1])) + (f": {name[1]!r}" if name else "")
