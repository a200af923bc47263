"""GPU locks: where several jobs of one machine share its GPUs, each job takes a free one.

Each GPU has a lock that its job holds as long as it lives. The kernel releases the lock when the job ends, however it
ends, so a killed job leaves nothing to clean up. This module does not import torch, which must see the choice when it
starts to look for GPUs."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from pathlib import Path

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import private_folder
from workflow_scripts.lib.base.stage import log

# The GPUs of this machine that jobs may choose among, separated by commas, as CUDA_VISIBLE_DEVICES numbers or names
# them. Set by the workflow where a profile limits jobs by the resource `gpu`; unset: no choice is to be made.
CHOICE = "MIXLOC_DEVICES"
PAUSE = 0.2  # seconds between two looks at GPUs that are all taken

_held: list[int] = []  # the open lock, kept for the life of the process


def take() -> str | None:
    """Take a free GPU, waiting if need be, and hide the others from this process; None where GPUs are not shared out.

    Further calls change nothing. The processes of torchrun share what the first of them takes (`take_several`)."""
    if not os.environ.get(CHOICE) or _held or "LOCAL_RANK" in os.environ:
        return None
    os.environ["CUDA_VISIBLE_DEVICES"] = take_several(1)[0]
    return os.environ["CUDA_VISIBLE_DEVICES"]


def take_several(count: int) -> list[str]:
    """Take this many free GPUs for the processes of one training, waiting until there are enough."""
    names = [name for name in os.environ[CHOICE].split(",") if name]
    if count > len(names):
        raise UserError(f"{count} processes need as many GPUs, and there are {len(names)}: lower compute.processes")
    folder = _folder()
    waiting = False
    while True:
        handles: dict[str, int] = {}
        for name in names:
            handle = _try(folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock") if len(handles) < count else None
            if handle is not None:
                handles[name] = handle
        if len(handles) == count:
            _held.extend(handles.values())
            log.info("GPU %s of %s", ",".join(handles), ",".join(names))
            return list(handles)
        # No lock is kept while waiting for others, or two trainings could deadlock.
        for handle in handles.values():
            os.close(handle)
        if not waiting:
            log.info("waiting for %s of the GPUs %s", "one" if count == 1 else count, ",".join(names))
            waiting = True
        time.sleep(PAUSE)


def _folder() -> Path:
    # One folder for all runs of a user on a machine, so that two runs do not take the same GPU.
    return private_folder(Path(tempfile.gettempdir()) / f"mixloc-devices-{os.getuid()}")


def _try(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
