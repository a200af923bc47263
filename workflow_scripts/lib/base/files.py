"""Atomic writes, content digests, and a lock that lasts as long as the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base.errors import UserError

# The umask can only be read by setting it.
_UMASK = os.umask(0o077)
os.umask(_UMASK)
_HOST = re.sub(r"\W", "_", socket.gethostname())


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name for a file or folder, which replaces `path` only if the block succeeds."""
    path = Path(path)
    with room(path) as own:
        # The same name, because some writers choose their format by it.
        part = own / path.name
        yield part
        if part.is_dir():
            _replace_folder(part, path)
        else:
            put_in_place(part, path)


def put_in_place(part: Path, path: Path) -> None:
    """Rename a complete file to its final name, after its content has reached the disk."""
    with part.open("rb+") as handle:
        try:
            os.fsync(handle.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None  # it names no file by itself
    # Some writers leave files that only their owner may read.
    part.chmod(0o666 & ~_UMASK)
    part.replace(path)


@contextlib.contextmanager
def room(path: Path) -> Iterator[Path]:
    """Private temporary folder beside `path`, removed when the block ends.

    Nobody else may enter it or guess its name, which is unique to the process, so two writers never collide. After
    SIGKILL a hidden `.part` remains beside the output. The next writer of the same output removes those whose process
    is gone."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    own = path.with_name(f".{path.stem}.{_writer()}.part{path.suffix}")
    own.mkdir(mode=0o700)
    try:
        yield own
    finally:
        _remove(own)


def private_folder(path: Path) -> Path:
    """Folder that outlives the process and that only its owner may enter; created if it is missing."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = path.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
        raise UserError(f"{path} is a link or belongs to somebody else: remove it, and run again")
    path.chmod(0o700)
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, with sorted keys, so that equal content means equal bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def _replace_folder(part: Path, path: Path) -> None:
    # A folder cannot be renamed over a non-empty one, so the old one is renamed first.
    old = path.with_name(f".{path.stem}.{_writer()}.part{path.suffix}")
    if path.exists():
        path.replace(old)
    part.replace(path)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _writer() -> str:
    return f"{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def sweep(path: Path) -> None:
    """Remove temporary files of the output `path` that killed processes of this machine have left."""
    # Writers of other machines on the same disk may still run.
    name = re.compile(re.escape(f".{path.stem}.{_HOST}-") + r"(\d+)-[0-9a-f]{8}" + re.escape(f".part{path.suffix}"))
    for rest in path.parent.iterdir():
        draft = name.fullmatch(rest.name)
        if draft and not alive(int(draft[1])):
            _remove(rest)


def alive(pid: int) -> bool:
    """Whether a process with this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def digest(value: Any) -> str:
    """Digest of settings or any other JSON value; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Digest of a file's content."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@contextlib.contextmanager
def lock(path: Path, waiting: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Hold the lock of the output `path`; wait while another process holds it.

    The kernel releases the lock when its holder ends, however it ends. `waiting` is called with the process number of
    each holder that is waited for, for a message to the user."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f".{path.name}.lock")
    while True:
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                waiting(os.read(handle, 32).decode(errors="replace").strip() or "unknown")
                fcntl.flock(handle, fcntl.LOCK_EX)
            # The previous holder may have removed the file that we opened. A lock on that protects nothing.
            if not _same_file(handle, name):
                continue
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            try:
                yield
            finally:
                # A file system that fails here has failed before, and that error tells more. A file that stays locks
                # nothing.
                with contextlib.suppress(OSError):
                    name.unlink()
            return
        finally:
            os.close(handle)


def _same_file(handle: int, name: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), name.stat())
    except FileNotFoundError:
        return False
