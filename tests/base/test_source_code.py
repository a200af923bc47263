"""lib.code: the files that a stage consists of, as found without running it, are those that it really imports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_scripts.lib.base import source_code

ROOT = Path(__file__).resolve().parents[2]
STAGES = sorted(path.stem for path in (ROOT / "workflow_scripts").glob("*.py") if path.stem != "__init__")

# Imports each stage in a process of its own, and then what its functions import when they are called, as their byte
# code tells; prints the files of the package that came in. What is slow and foreign is imported before they part.
IMPORTER = """
import contextlib, dis, importlib, json, os, sys, types
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
for foreign in ("torch", "pandas", "scipy.ndimage", "matplotlib.pyplot", "jsonschema"):
    importlib.import_module(foreign)
for stage in sys.argv[1:]:
    assert not mine()
    if os.fork() == 0:
        importlib.import_module("workflow_scripts." + stage)
        known = {}
        while set(known) != set(mine()):
            known = mine()
            for name in known:
                for wanted in late(known[name].__loader__.get_code(name)):
                    if wanted.startswith("workflow_scripts"):
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


def test_digest_is_that_of_what_the_code_does(package):
    root = package({"stage.py": "from workflow_scripts.lib import a\n", "lib/a.py": "def f():\n    return 1\n"})
    before = source_code.digest("stage", root)
    package(
        {"lib/a.py": '"""Module."""\n\ndef f():  # one\n    """One."""\n    return (1)\n', "lib/unused.py": "b = 2\n"}
    )
    assert source_code.digest("stage", root) == before, "comments, docstrings and layout do nothing"
    package({"lib/a.py": "def f():\n    return 2\n"})
    assert source_code.digest("stage", root) != before
    package({"lib/a.py": "def f():\n    'Nothing but a docstring.'\n"})
    nothing = source_code.digest("stage", root)
    package({"lib/a.py": "def f():\n    pass\n"})
    assert source_code.digest("stage", root) == nothing
    package({"lib/a.py": "def f():\n    return 1\n"})
    assert source_code.digest("stage", root) == before, "an edit that was taken back"
