"""lib.base.source_code: the files of a stage are found without running it, and compared by meaning."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_scripts.lib.base import source_code

ROOT = Path(__file__).resolve().parents[2]
STAGES = sorted(path.stem for path in (ROOT / "workflow_scripts").glob("*.py") if path.stem != "__init__")

# Imports each stage in a process of its own, and then what its functions import when they are called, as their byte
# code tells; prints the files of the package that came in. What is slow is done before they part: the
# imports of foreign packages, by importing every module once and forgetting it, and reading the byte code.
IMPORTER = """
import contextlib, dis, gc, importlib, importlib.machinery, json, os, pathlib, sys, types
def mine():
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "workflow_scripts"}
def late(body):
    for step in dis.get_instructions(body):
        if step.opname == "IMPORT_NAME":
            package = step.argval
            yield package
        elif step.opname == "IMPORT_FROM":
            yield f"{package}.{step.argval}"
    for inner in body.co_consts:
        if isinstance(inner, types.CodeType):
            yield from late(inner)
wanted_late = {}
for path in map(str, pathlib.Path("workflow_scripts").resolve().rglob("*.py")):
    body = importlib.machinery.SourceFileLoader("any", path).get_code("any")
    wanted_late[path] = [name for name in late(body) if name and name.startswith("workflow_scripts")]
    importlib.import_module(".".join(pathlib.Path(path).relative_to(os.getcwd()).with_suffix("").parts))
for name in mine():
    del sys.modules[name]
gc.collect()
for stage in sys.argv[1:]:
    assert not mine()
    if os.fork() == 0:
        importlib.import_module("workflow_scripts." + stage)
        known = {}
        while set(known) != set(mine()):
            known = mine()
            for name in known:
                for wanted in wanted_late[known[name].__file__]:
                    with contextlib.suppress(ModuleNotFoundError):  # a function or class, not a module
                        importlib.import_module(wanted)
        print(json.dumps([stage, [module.__file__ for module in known.values()]]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, stage
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTER, *STAGES], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    # Empty files, such as those that make a folder a package, are nobody's code.
    return {
        stage: {str(Path(path).relative_to(ROOT)) for path in paths if Path(path).stat().st_size}
        for stage, paths in found.items()
    }


@pytest.mark.parametrize("stage", STAGES)
def test_sources_are_what_is_imported(imported, stage):
    found = source_code.sources(stage, ROOT)
    assert found[0] == ROOT / "workflow_scripts" / f"{stage}.py"
    assert {str(path.relative_to(ROOT)) for path in found} == imported[stage]
    assert len(found) == len(set(found))


@pytest.fixture
def package(tmp_path):
    """A function that writes a small package: package({"lib/a.py": text}) -> its root."""

    def write(files: dict[str, str]) -> Path:
        for name, text in ({"__init__.py": "", "lib/__init__.py": ""} | files).items():
            path = tmp_path / "workflow_scripts" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_every_form_of_import_is_found(package):
    root = package(
        {
            "stage.py": "import os\nfrom workflow_scripts.lib import a\nfrom workflow_scripts.lib.b import f\n",
            "lib/a.py": "import workflow_scripts.lib.c\nfrom workflow_scripts.lib.sub import deep\n",
            "lib/b.py": "f = 1\ndef g():\n    from workflow_scripts.lib import late as other\n    return other\n",
            "lib/c.py": "from workflow_scripts.lib import a\n",  # a circle
            "lib/late.py": "import numpy\n",
            "lib/sub/__init__.py": "deep = 1\n",
            "lib/unused.py": "from workflow_scripts import stage\n",
        }
    )
    found = [str(path.relative_to(root / "workflow_scripts")) for path in source_code.sources("stage", root)]
    assert found == ["stage.py", "lib/a.py", "lib/b.py", "lib/c.py", "lib/late.py", "lib/sub/__init__.py"]
    with pytest.raises(FileNotFoundError, match=r"none\.py"):
        source_code.sources("none", root)


PLAIN = """
from __future__ import annotations
SIZE = 64  # pixels
def double(value: int = 3) -> int:
    return value * 2
class Cell:
    size: int = 1
    def show(self):
        return f"{self.size:.3f}"
"""
REWORDED = """
'''A module.'''
from __future__ import annotations
# In pixels.
SIZE = (
    64
)
'Pixels a side.'
def double(
    value: int=3,
) -> int:
    '''Twice the value.'''
    # Explained.
    return (value*2)
class Cell:
    '''A cell.'''
    size: int = 1
    '''Its size.'''

    def show(self):
        '''As text.'''
        return f'{self.size:.3f}'
"""


def digest_of(folder: Path, text: str, name: str = "unet.py") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return source_code.digest([folder / name])


def test_comments_docstrings_layout_and_place_mean_nothing(tmp_path):
    assert digest_of(tmp_path / "here", PLAIN) == digest_of(tmp_path / "there", REWORDED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("64", "65"),
        ("64", "64.0"),
        ("64", "'64'"),
        ("64", "None"),
        ("64", "[64]"),
        ("64", "[[64]]"),
        ("SIZE", "WIDTH"),
        ("value * 2", "value ** 2"),
        ("value * 2", "-value * 2"),
        ("    return value", "    value += 1\n    return value"),
        ("value: int = 3", "value: int, *, more: int = 3"),
        ("value: int = 3", "*, value: int = 3"),
        (".3f", ".4f"),
        ("    size: int = 1", "    size: float = 1"),
        ("def show", "@property\n    def show"),
        ("def show", "async def show"),
    ],
)
def test_what_can_act_counts(tmp_path, old, new):
    assert old in PLAIN
    assert digest_of(tmp_path, PLAIN) != digest_of(tmp_path, PLAIN.replace(old, new))


def test_pass_means_as_little_as_a_docstring(tmp_path):
    texts = ("def f():\n    pass\n", "def f():\n    'Nothing.'\n", "def f():\n    return\n")
    first, second, third = (digest_of(tmp_path, text) for text in texts)
    assert first == second != third


def test_the_name_of_a_file_counts(tmp_path):
    assert digest_of(tmp_path, PLAIN) != digest_of(tmp_path, PLAIN, "other.py")


def test_of_other_files_every_byte_counts(tmp_path):
    assert digest_of(tmp_path, "<p>\n", "page.html") != digest_of(tmp_path, "<p>\n\n", "page.html")


def test_versions_of_python_agree(tmp_path):
    """Another digest in a new version of Python would train everything again: keep the way of writing it."""
    assert digest_of(tmp_path, PLAIN) == "4b96c74c3478b666b9c862b183e58ee4"


def test_a_stage_follows_its_modules_and_its_data(package):
    files = {
        "stage.py": "from workflow_scripts.lib import a\n",
        "lib/a.py": "x = 1\n",
        "lib/b.py": "",
        "page.html": "a",
    }
    root = package(files)
    data = [root / "workflow_scripts/page.html"]

    def now() -> tuple[str, str]:
        return source_code.stage_digest("stage", root), source_code.stage_digest("stage", root, data)

    first = now()
    package(files | {"lib/b.py": "x = 1\n"})
    assert now() == first
    package(files | {"lib/a.py": "x = 10\n"})
    assert all(new != old for new, old in zip(now(), first, strict=True))
    package(files | {"page.html": "ab"})
    assert now()[0] == first[0] and now()[1] != first[1]
