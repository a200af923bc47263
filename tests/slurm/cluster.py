"""A SLURM cluster of one node on loopback with pretend GPUs, for the tests of profiles/slurm; to be run as root.

    python -m tests.slurm.cluster up        # needs slurmctld, slurmd, slurm-client and munge; says where its state lies
    python -m tests.slurm.cluster down

No systemd, no cgroups, no accounting. The configuration lies in /etc/slurm because the executor plugin takes SLURM_*
out of the environment of jobs; a /etc/slurm/slurm.conf without a controller costs every start of Snakemake ten seconds,
so `down` removes it. A configuration that this module has not written is left alone; no cluster is made beside it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path("/etc/slurm")
MARK = "# written by tests/slurm/cluster.py"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "munged")
CPUS, GPUS = 4, 2  # claimed, whatever the machine has
DAEMONS = ("slurmd", "slurmctld", "munged")  # in the order in which they are stopped

SLURM_CONF = """{mark}, state in {state}
ClusterName=mixloc
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job may start again only when its credential has expired: soon.
AuthInfo=socket={state}/munge.socket,cred_expire=5
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/node
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Memory is watched every second, and a job above what it asked for is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=2
MinJobAge=600
InactiveLimit=0
GresTypes=gpu
# The node claims what the profile asks for; what jobs really use is little.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 Gres=gpu:pretend:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=2-00:00:00 State=UP PriorityTier=1
PartitionName=gpu Nodes={host} MaxTime=2-00:00:00 State=UP PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=2-00:00:00 State=UP PriorityTier=10
"""


class NoCluster(Exception):
    """Why no cluster can be made here."""


def up() -> Path:
    """Configure and start the cluster; the folder of its state."""
    if os.geteuid() != 0:
        raise NoCluster("a SLURM cluster can be started by root only")
    absent = [name for name in PROGRAMS if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")]
    if absent:
        raise NoCluster(f"not installed: {', '.join(absent)} (Debian: slurmctld slurmd slurm-client munge)")
    written = CONFIG / "slurm.conf"
    if written.exists():
        if not written.read_text().startswith(MARK):
            raise NoCluster(f"{written} belongs to another cluster")
        down()
    state = Path(tempfile.mkdtemp(prefix="mixloc-slurm-"))
    # The name must lead to this machine, and munge looks at who may write along the path to its key.
    state.chmod(0o755)
    for name in ("controller", "node"):
        (state / name).mkdir()
    _configure(state)
    try:
        _start(state)
    except BaseException:
        down()
        raise
    return state


def down() -> None:
    """Cancel all jobs, stop the daemons and remove what `up` has written."""
    written = CONFIG / "slurm.conf"
    if not written.exists() or not written.read_text().startswith(MARK):
        return
    state = Path(written.read_text().splitlines()[0].rpartition(" ")[2])
    if _alive(state / "slurmctld.pid"):
        subprocess.run(["scancel", "--partition=cpu,gpu,urgent"], timeout=30, capture_output=True)
        with contextlib.suppress(TimeoutError):
            _wait(lambda: not _output("squeue", "--noheader", "--states=RUNNING,COMPLETING").strip(), "jobs end", 15)
    for name in DAEMONS:
        pid = _alive(state / f"{name}.pid")
        if pid:
            os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                _wait(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"{name} ends", 10)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for name in ("slurm.conf", "gres.conf"):
        (CONFIG / name).unlink(missing_ok=True)
    shutil.rmtree(state, ignore_errors=True)


def _configure(state: Path) -> None:
    host = socket.gethostname().split(".")[0]
    CONFIG.mkdir(exist_ok=True)
    text = SLURM_CONF.format(mark=MARK, state=state, host=host, ports=_free_ports(2), cpus=CPUS, gpus=GPUS)
    (CONFIG / "slurm.conf").write_text(text)
    # A device that exists is enough to be counted; SLURM numbers those of a line by CUDA_VISIBLE_DEVICES.
    devices = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")[:GPUS]
    lines = [f"NodeName={host} Name=gpu Type=pretend File={device}\n" for device in devices]
    (CONFIG / "gres.conf").write_text("".join(lines))
    key = state / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)


def _start(state: Path) -> None:
    munge = [f"--{name}-file={state}/munge.{name}" for name in ("key", "log", "seed")]
    munge += [f"--socket={state}/munge.socket", f"--pid-file={state}/munged.pid"]
    for command in (["munged", "--force", *munge], ["slurmctld"], ["slurmd"]):
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=30,
            env=os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin"},
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        if command[0] == "slurmctld":
            _wait(lambda: "UP" in _output("scontrol", "ping"), "the controller answers")
    _wait(lambda: _output("sinfo", "--noheader", "--format=%t").split()[:1] == ["idle"], "the node is idle")


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout


def _alive(pid_file: Path) -> int:
    """The process that a file names, 0 if it is gone."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return 0
    return pid


def _wait(condition: object, what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited in vain until {what}")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    if sys.argv[1:] not in (["up"], ["down"]):
        sys.exit(__doc__)
    try:
        print(up()) if sys.argv[1] == "up" else down()
    except NoCluster as error:
        sys.exit(str(error))
