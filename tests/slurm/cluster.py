"""A SLURM cluster of three nodes on loopback with pretend GPUs, for the tests of profiles/slurm; to be run as root.

    python -m tests.slurm.cluster up        # needs slurmctld, slurmd, slurm-client and munge; says where its state lies
    python -m tests.slurm.cluster down

Each node is a slurmd with a name and port of its own on this host; all share its files. No systemd, no cgroups. Where
slurmdbd and MariaDB are installed, jobs are accounted for. The configuration lies in /etc/slurm because the executor
plugin takes SLURM_* out of the environment of jobs; a /etc/slurm/slurm.conf without a controller costs every start of
Snakemake ten seconds, so `down` removes it. A configuration that this module has not written is left alone; no cluster
is made beside it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.slurm import accounting

CONFIG = Path("/etc/slurm")
MARK = "# written by tests/slurm/cluster.py"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "munged")
NODES = ("node1", "node2", "node3")
CPUS, GPUS = 4, 1  # of each node; claimed, whatever the machine has
DOWN_AFTER = 20  # seconds without an answer after which a node is down
# In the order in which they are stopped: the database is told of the end of jobs.
DAEMONS = (*(f"slurmd.{node}" for node in NODES), "slurmctld", *accounting.DAEMONS, "munged")

SLURM_CONF = """{mark}, state in {state}
ClusterName=mixloc
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job may start again only when its credential has expired: soon.
AuthInfo=socket={state}/munge.socket,cred_expire=5
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.%n.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.%n.log
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/%n
SlurmdTimeout={down_after}
# Gives the jobs of one node another clock, if a test wants it.
TaskProlog={state}/clock.sh
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Memory is watched every second, and a job above what it asked for is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/none
{accounting}
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
# Nodes claim what the profile asks for; what jobs really use is little.
SlurmdParameters=config_overrides
{nodes}
PartitionName=cpu Nodes={names} LLN=YES Default=YES MaxTime=2-00:00:00 State=UP PriorityTier=1
PartitionName=gpu Nodes={names} LLN=YES MaxTime=2-00:00:00 State=UP PriorityTier=1
PartitionName=urgent Nodes={names} MaxTime=2-00:00:00 State=UP PriorityTier=10
"""
NODE = (
    "NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=64000 "
    "Gres=gpu:pretend:{gpus} State=UNKNOWN"
)
CLOCK = """#!/bin/sh
# What this prints is set in the environment of a task.
if [ -e {state}/clock.$SLURMD_NODENAME ]; then cat {state}/clock.$SLURMD_NODENAME; fi
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
    for name in ("controller", *NODES):
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
    state = state_folder()
    if _alive(state / "slurmctld.pid"):
        subprocess.run(["scancel", "--partition=cpu,gpu,urgent"], timeout=30, capture_output=True)
        with contextlib.suppress(TimeoutError):
            _wait(lambda: not _output("squeue", "--noheader", "--states=RUNNING,COMPLETING").strip(), "jobs end", 15)
    for name in DAEMONS:
        pid = _alive(state / f"{name}.pid")
        if pid:
            os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                _wait(lambda pid=pid: not _runs(pid), f"{name} ends", 10)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for name in ("slurm.conf", "gres.conf", "slurmdbd.conf"):
        (CONFIG / name).unlink(missing_ok=True)
    shutil.rmtree(state, ignore_errors=True)


def state_folder() -> Path:
    """Where the running cluster keeps its state and logs."""
    return Path((CONFIG / "slurm.conf").read_text().splitlines()[0].rpartition(" ")[2])


def accounted() -> bool:
    """Whether the running cluster keeps accounts, so that sacct knows its jobs."""
    return _alive(state_folder() / "slurmdbd.pid") != 0


def start_node(node: str) -> None:
    """Start the daemon of a node and wait until it takes jobs."""
    _daemon("slurmd", "-N", node)
    _wait(lambda: node_state(node) in ("idle", "mixed", "allocated"), f"{node} takes jobs", 60)


def kill_node(node: str) -> None:
    """Kill all that runs on a node, its daemon first, as when its power is cut."""
    daemon = _alive(state_folder() / f"slurmd.{node}.pid")
    assert daemon, f"{node} is dead already"
    os.kill(daemon, signal.SIGKILL)
    numbers = _output("squeue", "--noheader", "--array", "--format=%A", f"--nodelist={node}").split()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            step = re.match(r"slurmstepd: \[(\d+)\.", command)
            job = f"SLURMD_NODENAME={node}".encode() in (entry / "environ").read_bytes().split(b"\0")
            if job or (step and step[1] in numbers):
                os.kill(int(entry.name), signal.SIGKILL)


def node_state(node: str) -> str:
    """The state of a node in one word, such as idle or down, without what SLURM adds to it (such as not_responding)."""
    found = re.search(r" State=(\w+)", _output("scontrol", "--oneliner", "show", "node", node))
    return found[1].lower() if found else ""


def set_clock(node: str, seconds: int) -> None:
    """Let the clock of jobs that start on a node from now on be that many seconds ahead."""
    if not shutil.which("cc"):
        raise NoCluster("not installed: a C compiler, which makes the clock that is wrong (Debian: gcc libc6-dev)")
    # Times of files come from the server of a shared folder, which has a clock of its own: they are not changed.
    library, source = state_folder() / "clock.so", Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
    clock_file(node).write_text(f"export LD_PRELOAD={library}\nexport CLOCK_SKEW={seconds}\n")


def clock_file(node: str) -> Path:
    """What says that the clock of a node is wrong; without it, the clock is right."""
    return state_folder() / f"clock.{node}"


def _configure(state: Path) -> None:
    host = socket.gethostname().split(".")[0]
    CONFIG.mkdir(exist_ok=True)
    controller, database, *ports = _free_ports(2 + len(NODES))
    nodes = [NODE.format(node=node, host=host, port=port, cpus=CPUS, gpus=GPUS)
             for node, port in zip(NODES, ports, strict=True)]  # fmt: skip
    kept = accounting.configure(CONFIG, state, database) if accounting.absent() is None else accounting.NONE
    text = SLURM_CONF.format(
        mark=MARK, state=state, host=host, port=controller, down_after=DOWN_AFTER, accounting=kept,
        nodes="\n".join(nodes), names=",".join(NODES),
    )  # fmt: skip
    (CONFIG / "slurm.conf").write_text(text)
    # A device that exists is enough to be counted; SLURM numbers those of a line by CUDA_VISIBLE_DEVICES.
    devices = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")[:GPUS]
    lines = [f"NodeName={','.join(NODES)} Name=gpu Type=pretend File={device}\n" for device in devices]
    (CONFIG / "gres.conf").write_text("".join(lines))
    (state / "clock.sh").write_text(CLOCK.format(state=state))
    (state / "clock.sh").chmod(0o755)
    key = state / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)


def _start(state: Path) -> None:
    munge = [f"--{name}-file={state}/munge.{name}" for name in ("key", "log", "seed")]
    _daemon("munged", "--force", *munge, f"--socket={state}/munge.socket", f"--pid-file={state}/munged.pid")
    if (CONFIG / "slurmdbd.conf").exists():
        accounting.start(state)
    _daemon("slurmctld")
    _wait(lambda: "UP" in _output("scontrol", "ping"), "the controller answers")
    for node in NODES:
        _daemon("slurmd", "-N", node)
    _wait(lambda: {node_state(node) for node in NODES} == {"idle"}, "the nodes are idle")


def _daemon(*command: str) -> None:
    path = os.environ["PATH"] + ":/usr/sbin"
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=os.environ | {"PATH": path})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout


def _alive(pid_file: Path) -> int:
    """The process that a file names, 0 if it has ended."""
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return 0
    return pid if _runs(pid) else 0


def _runs(pid: int) -> bool:
    """Whether a process has not ended; one whose exit status nobody has asked for yet has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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
