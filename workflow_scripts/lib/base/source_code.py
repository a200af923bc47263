"""The code of the stages: the source files of each, found without running them, and the Python that runs it."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

PACKAGE = "workflow_scripts"


def sources(stage: str, root: Path) -> list[Path]:
    """All files of the package that `stage` imports, directly or through others, itself first; sorted beyond that."""
    first = _file(root, f"{PACKAGE}.{stage}")
    if first is None:
        raise FileNotFoundError(f"{root / PACKAGE / stage}.py")
    found, waiting = {first}, [first]
    while waiting:
        for module in _imports(waiting.pop()):
            path = _file(root, module)
            if path is not None and path not in found:
                found.add(path)
                waiting.append(path)
    return [first, *sorted(found - {first})]


def _imports(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import module` and `from package.module import name` look alike: try both.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] == PACKAGE]


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
