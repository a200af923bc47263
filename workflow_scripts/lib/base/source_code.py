"""The code of the stages: the source files of each, found without running them, and the Python that runs it."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from functools import cache
from pathlib import Path

PACKAGE = "workflow_scripts"
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def sources(stage: str, root: Path) -> list[Path]:
    """All files of the package that `stage` imports, directly or through others, itself first; sorted beyond that."""
    first = _file(root, f"{PACKAGE}.{stage}")
    if first is None:
        raise FileNotFoundError(f"{root / PACKAGE / stage}.py")
    found, waiting = {first}, [first]
    while waiting:
        source = waiting.pop()
        for module in _imports(source, _text(source)):
            path = _file(root, module)
            if path is not None and path not in found:
                found.add(path)
                waiting.append(path)
    return [first, *sorted(found - {first})]


def digest(stage: str, root: Path) -> str:
    """Digest of what the code of a stage does. Comments, docstrings and layout are not part of it."""
    parts = (f"{path.relative_to(root)} {_meaning(path, _text(path))}" for path in sources(stage, root))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


@cache
def _meaning(path: Path, text: str) -> str:
    tree = ast.parse(text, str(path))
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.blake2b(ast.unparse(tree).encode(), digest_size=8).hexdigest()


@cache
def _imports(path: Path, text: str) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(text, str(path))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import module` and `from package.module import name` look alike: try both.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] == PACKAGE]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _file(root: Path, module: str) -> Path | None:
    path = root.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            # Empty package files say nothing and would tie every stage to each other.
            return candidate if candidate.stat().st_size else None
    return None


def use_this_python() -> None:
    """Let jobs that call `python` get the one that runs Snakemake, whether or not its environment is activated.

    An environment that Snakemake activates for a job (--sdm conda) still comes before it."""
    here = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
