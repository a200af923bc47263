"""Accounts of the cluster's jobs, as real clusters keep them: slurmdbd and a small MariaDB with files of its own.

It knows nothing of the nodes. Without these programs the cluster runs too, and keeps no accounts."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb-admin")
DAEMONS = ("slurmdbd", "mariadbd")  # in the order in which they are stopped
NONE = "AccountingStorageType=accounting_storage/none"
ACCOUNT = "lab"

SLURM_LINES = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={port}
# Where clients of slurmdbd find munge.
AccountingStoragePass={state}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment"""

SLURMDBD_CONF = """AuthType=auth/munge
AuthInfo=socket={state}/munge.socket
DbdHost=localhost
DbdPort={port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=mixloc
LogFile={state}/slurmdbd.log
PidFile={state}/slurmdbd.pid
"""


def absent() -> str | None:
    """Why no accounts can be kept; None if they can."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    return f"not installed: {', '.join(missing)} (Debian: slurmdbd mariadb-server)" if missing else None


def configure(folder: Path, state: Path, port: int) -> str:
    """Write slurmdbd's configuration; the lines that slurm.conf needs."""
    file = folder / "slurmdbd.conf"
    file.write_text(SLURMDBD_CONF.format(state=state, port=port))
    file.chmod(0o600)  # slurmdbd refuses another
    return SLURM_LINES.format(state=state, port=port)


def start(state: Path) -> None:
    """Start the database and slurmdbd, and add the account that jobs are charged to."""
    data, socket = state / "database", state / "database.socket"
    _run("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db",
         "--auth-root-authentication-method=socket")  # fmt: skip
    # Without a network, and with as little memory as slurmdbd takes without a warning that ends it.
    command = [
        "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={socket}", "--skip-networking",
        f"--pid-file={state}/mariadbd.pid", f"--log-error={state}/mariadbd.log", "--innodb-buffer-pool-size=64M",
        "--innodb-lock-wait-timeout=900",
    ]  # fmt: skip
    subprocess.Popen(command, env=_environment(socket), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    _until("mariadb-admin", "--no-defaults", f"--socket={socket}", "ping")
    # Its client library finds the socket by an environment variable alone.
    _run("slurmdbd", environment=_environment(socket))
    _until("sacctmgr", "--noheader", "list", "cluster")
    _run("sacctmgr", "--immediate", "add", "cluster", "mixloc")
    _run("sacctmgr", "--immediate", "add", "account", ACCOUNT, "cluster=mixloc")
    _run("sacctmgr", "--immediate", "add", "user", "root", f"account={ACCOUNT}", "cluster=mixloc")


def _path() -> str:
    return os.environ["PATH"] + ":/usr/sbin"


def _environment(socket: Path) -> dict[str, str]:
    return os.environ | {"PATH": _path(), "MYSQL_UNIX_PORT": str(socket)}


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120,
                          env=environment or os.environ | {"PATH": _path()})  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")


def _until(*command: str, seconds: float = 60) -> None:
    """Repeat a command until it succeeds."""
    end = time.monotonic() + seconds
    while subprocess.run(command, capture_output=True, timeout=30, env=os.environ | {"PATH": _path()}).returncode:
        if time.monotonic() > end:
            raise TimeoutError(f"waited in vain for {' '.join(command)}")
        time.sleep(0.2)
