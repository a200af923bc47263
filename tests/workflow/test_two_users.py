"""Two users of one checkout: the second one is told what to do, and it works. Needs root, to be both of them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.checkout import Checkout

FIRST, SECOND = "daemon", "nobody"
# Reading of Python itself, where it lies in a folder of root. What may be written stays the user's own.
READING = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


def identity(name: str) -> list[str]:
    user = pwd.getpwnam(name)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *READING]


def possible() -> bool:
    if os.geteuid() or shutil.which("setpriv") is None:
        return False
    known = {user.pw_name for user in pwd.getpwall()}
    return {FIRST, SECOND} <= known and not subprocess.run([*identity(SECOND), "true"], capture_output=True).returncode


def owned(folder: Path, name: str) -> Path:
    """Give a folder and all in it to a user."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        if (
            not path.is_symlink() and path.stat().st_nlink < 2
        ) or path.is_dir():  # byte code is shared with other tests
            shutil.chown(path, name)
    return folder


def snakemake(folder: Path, home: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """What the second user gets in a folder."""
    command = [*identity(SECOND), sys.executable, "-m", "snakemake", "--cores", "1", *map(str, words)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"HOME": str(home), "PATH": path, "XDG_CACHE_HOME": str(home)}
    return subprocess.run(command, cwd=folder, env=os.environ | own, capture_output=True, text=True)


@pytest.mark.workflow
@pytest.mark.skipif(not possible(), reason="needs root and setpriv, and the users daemon and nobody")
def test_second_user_of_a_checkout_is_sent_to_a_folder_of_their_own(tmp_path: Path) -> None:
    checkout = Checkout.fresh(tmp_path / "checkout")
    for made in (".snakemake/locks", ".snakemake/metadata", ".snakemake/log", "results/ci"):
        (checkout.folder / made).mkdir(parents=True)  # as a first run leaves them
    owned(checkout.folder, FIRST)
    home = owned(tmp_path / "home", SECOND)
    done = snakemake(checkout.folder, home, "--configfile", "presets/ci.yaml", "--dry-run")
    told = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("MixLoc: ")]
    assert done.returncode and len(told) == 1 and "Traceback" not in done.stdout + done.stderr
    assert f"belongs to {FIRST}" in told[0] and "--directory MY_FOLDER" in told[0]
    own = owned(tmp_path / "own", SECOND)
    start = told[0].partition("folder of your own: snakemake ")[2].replace("MY_FOLDER", str(own)).split()
    preset = checkout.folder / "presets" / "ci.yaml"
    done = snakemake(checkout.folder, home, *start, "--configfile", preset, "--", "results/ci/declaration.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (own / "results/ci/declaration.json").owner() == SECOND
    assert not list((checkout.folder / "results/ci").iterdir()), "nothing of the second user's lies in the checkout"
