"""A Python that has imported Snakemake and torch already: what tests start begins in 0.1 s instead of 1 to 3 s.

In `programs()` lie `python` and `snakemake`. Where the arguments are `-m` and a module of `WARM`, they ask a server to
fork and to run that module with their own environment, working directory and files. With any other arguments `python`
is the real one. The server has imported libraries alone, never `workflow_scripts`, so every checkout runs its own
code. What is run has another process number than its `python`: tests that look for processes or kill them take the
real one."""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import NoReturn

LIBRARIES = (
    "torch", "torch._dynamo", "torch.distributed.run", "numpy", "pandas", "h5py", "scipy.special", "scipy.stats",
    "scipy.ndimage", "sklearn.linear_model", "safetensors.torch", "yaml", "jinja2", "tifffile", "matplotlib.figure",
    "matplotlib.backends.backend_pdf", "matplotlib.backends.backend_svg", "pydantic", "smart_open",
)  # fmt: skip
# Only an environment of venv can be made again elsewhere.
POSSIBLE = (Path(sys.prefix) / "pyvenv.cfg").is_file()
SNAKEMAKE = "snakemake"
WARM = ("workflow_scripts.", f"{SNAKEMAKE}.", "torch.distributed.run.", "tests.helpers.ranks.")
LARGEST = 1 << 20  # bytes of a request: arguments and environment


@functools.cache
def programs() -> Path:
    """The folder of those programs, and of `real`, a Python by which Snakemake's jobs find them: they look beside it.

    It belongs to an environment with the libraries of this one. The server starts at the first call and ends with this
    process."""
    place = Path(tempfile.mkdtemp(prefix="warm-python-"))
    (place / "bin").mkdir()
    (place / "lib").symlink_to(Path(sys.prefix) / "lib")
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", place)
    (place / "bin" / "real").symlink_to(Path(sys.executable).resolve())
    this = f'"{sys.executable}" -I -S "{Path(__file__).resolve()}"'
    for name, words in (("python", ""), ("snakemake", f"-m {SNAKEMAKE} ")):
        program = place / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {this} {words}"$@"\n', encoding="utf-8")
        program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(place / "socket"))
        listening.listen(16)
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(listening.fileno())], pass_fds=[listening.fileno()],
            env=environment, cwd="/", stdin=subprocess.DEVNULL,
        )  # fmt: skip
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    atexit.register(server.wait)
    atexit.register(server.kill)
    return place / "bin"


def python() -> str:
    """The warm Python, or the real one where there can be none."""
    return str(programs() / "python") if POSSIBLE else sys.executable


def environment() -> dict[str, str]:
    """The variables under which those programs are found and find their server; none where there can be none."""
    if not POSSIBLE:
        return {}
    path = os.pathsep.join([str(programs()), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"PATH": path, "WARM_PYTHON": str(programs().parent / "socket")}


# The program ----------------------------------------------------------------------------------------------------------


def ask(words: list[str]) -> int:
    """Have a module run in a fork of the server, and wait for it; its exit status."""
    request = json.dumps({"words": words, "cwd": str(Path.cwd()), "environment": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)
        server.connect(os.environ["WARM_PYTHON"])
        socket.send_fds(server, [request], [0, 1, 2])
        answer = json.loads(server.recv(1024))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda sent, frame: os.kill(answer["pid"], sent))
        status = json.loads(server.recv(1024) or b'{"status": 1}')["status"]
    return status if status >= 0 else 128 - status


# The server -----------------------------------------------------------------------------------------------------------


def serve(number: int) -> None:
    """Fork for each request, tell its exit status, and kill what nobody waits for any more."""
    for name in LIBRARIES:
        __import__(name)
    importlib.import_module(f"{SNAKEMAKE}.cli").get_argument_parser()  # which looks for plugins, and imports them
    path = [entry for entry in sys.path if Path(entry) != Path(__file__).parent]
    gc.freeze()  # so that a fork copies no page only because it collects
    listening = socket.socket(fileno=number)
    running: dict[int, socket.socket] = {}
    waking, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda sent, frame: None)
    with selectors.DefaultSelector() as watched:
        watched.register(listening, selectors.EVENT_READ)
        watched.register(waking, selectors.EVENT_READ)
        while True:
            for key, _ in watched.select():
                if key.fileobj is listening:
                    client, _ = listening.accept()
                    pid = _begin(client, path)
                    running[pid] = client
                    watched.register(client, selectors.EVENT_READ, pid)
                elif key.fileobj is waking:
                    waking.recv(4096)
                elif key.data in running:  # its program has ended, or was killed
                    watched.unregister(key.fileobj)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(key.data, signal.SIGKILL)
                    running.pop(key.data).close()
            _reap(running, watched)


def _reap(running: dict[int, socket.socket], watched: selectors.BaseSelector) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        if pid in running:
            client = running.pop(pid)
            watched.unregister(client)
            with contextlib.suppress(OSError):
                client.send(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode())
            client.close()


def _begin(client: socket.socket, path: list[str]) -> int:
    """Fork; the child runs the module and never returns."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LARGEST)
    message, ancillary, _, _ = client.recvmsg(LARGEST, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    given = array.array("i", ancillary[0][2])
    pid = os.fork()
    if pid:
        for number in given:
            os.close(number)
        client.send(json.dumps({"pid": pid}).encode())
        return pid
    status = 1
    try:
        status = _run(json.loads(message), given, path)
    finally:
        with contextlib.suppress(Exception):
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _run(request: dict[str, object], given: array.array[int], path: list[str]) -> int:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setpgid(0, 0)
    for target, number in enumerate(given):
        os.dup2(number, target)
    os.closerange(3, 256)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    here = [] if os.environ.get("PYTHONSAFEPATH") else [str(Path.cwd())]
    sys.path[:] = [*here, *named, *path]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    module, *arguments = request["words"][1:]
    if module == SNAKEMAKE:
        sys.executable = str(Path(request["environment"]["WARM_PYTHON"]).parent / "bin" / "real")
    sys.argv[:] = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main(words: list[str]) -> NoReturn:
    """A request to the server, or the real Python."""
    if words[:1] == ["--serve"]:
        serve(int(words[1]))  # until it is killed
    if words[:1] == ["-m"] and "WARM_PYTHON" in os.environ and f"{words[1]}.".startswith(WARM):
        sys.exit(ask(words))
    os.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    main(sys.argv[1:])
