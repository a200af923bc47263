"""A checkout in a temporary folder in which tests run Snakemake on the tiny preset, edit code, and kill things."""

from __future__ import annotations

import compileall
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers import warm_python
from workflow_scripts.lib.base import source_code

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "Snakefile", "config.yaml", "rules", "workflow", "workflow_scripts", "schemas", "presets", "profiles/default",
    "envs", "captions", "LICENSE",
)  # fmt: skip
PRESET = "presets/ci.yaml"
# Two workers of pytest-xdist on two cores leave one for each.
CORES = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
OTHER_CORES = 3 - CORES
JOB = re.compile(r"^(?:local)?rule (\w+):", re.MULTILINE)


class Checkout:
    """A copy of the workflow; commands run inside it as a user would run them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def fresh(cls, folder: Path) -> Checkout:
        """A copy without results; its code comes with byte code, which every stage would have to make."""
        _compiled()
        for part in PARTS:
            source, target = ROOT / part, folder / part
            if source.is_dir():
                shutil.copytree(source, target, copy_function=_copy)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        return cls(folder)

    def clone(self, folder: Path) -> Checkout:
        """A copy with all results and Snakemake's memory of them; times are kept, so nothing looks changed."""
        shutil.copytree(self.folder, folder, symlinks=True, copy_function=_copy)
        return Checkout(folder)

    @property
    def run(self) -> Path:
        """The results of the tiny preset."""
        return self.folder / "results" / "ci"

    def command(
        self, *options: str, cores: int = CORES, overlays: tuple[str, ...] = (), warm: bool = True
    ) -> list[str]:
        """The command line of a run; overlays are further files of settings."""
        python = warm_python.python() if warm else sys.executable
        return [python, "-m", "snakemake", "--configfile", PRESET, *overlays, "--cores", str(cores), *options]

    def snakemake(self, *options: str, cores: int = CORES, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Snakemake and wait; what it prints is in `.stdout`."""
        done = subprocess.run(
            self.command(*options, cores=cores), cwd=self.folder, env=self.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, done.stdout[-6000:]
        return done

    def start(self, *options: str, cores: int = CORES) -> subprocess.Popen[str]:
        """Start Snakemake in a session of its own and return at once; its jobs are processes that can be looked for."""
        return subprocess.Popen(
            self.command(*options, cores=cores, warm=False),
            cwd=self.folder, env=self.environment(warm=False), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def environment(self, warm: bool = True) -> dict[str, str]:
        """The test's own Python comes first, as in an activated environment; `warm`: one that has imported torch."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Training keeps a checkpoint after every step, so that there is always one to kill behind.
        own = {"PATH": path, "MIXLOC_CHECKPOINT_SECONDS": "0"}
        return os.environ | own | (warm_python.environment() if warm else {})

    def planned(self, *options: str) -> set[str]:
        """Rules that a run would execute now."""
        return set(JOB.findall(self.snakemake("--dry-run", *options).stdout))

    def edit(self, path: str, old: str | None, new: str) -> None:
        """Replace text in a file; without `old`, add it at the end."""
        file = self.folder / path
        text = file.read_text(encoding="utf-8")
        assert old is None or old in text, f"{path} has no {old!r}"
        file.write_text(text + new if old is None else text.replace(old, new, 1), encoding="utf-8")


def _copy(source: str, target: str) -> None:
    # Files that nobody writes into: they are replaced whole.
    if source.endswith((".pyc", ".digest", ".png")):
        with contextlib.suppress(OSError):  # another disk
            os.link(source, target)
            return
    shutil.copy2(source, target)


@functools.cache
def _compiled() -> None:
    """Byte code and digests of all modules, in __pycache__."""
    compileall.compile_dir(ROOT / "workflow_scripts", quiet=2)
    source_code.digest((ROOT / "workflow_scripts").rglob("*.py"))


def wait_for(condition: object, seconds: float = 120.0) -> None:
    """Wait until a callable is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def processes(text: str) -> list[int]:
    """Numbers of Python processes whose command line holds a text (not the shells that started them)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "python" in Path(words[0]).name and text in " ".join(words) and "snakemake" not in words:
                found.append(int(entry.name))
    return found


def kill(pid: int) -> None:
    """SIGKILL, if it still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def weights(path: Path) -> dict[str, bytes]:
    """Tensors of a safetensors file by name, to the bit."""
    return weights_of(path.read_bytes())


def weights_of(content: bytes) -> dict[str, bytes]:
    """Tensors of a safetensors file by name, to the bit; its remarks (such as seconds) left out."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    return {
        name: content[8 + size + about["data_offsets"][0] : 8 + size + about["data_offsets"][1]]
        for name, about in header.items()
        if name != "__metadata__"
    }
