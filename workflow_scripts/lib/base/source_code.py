"""Digests of the code of stages: the syntax trees of all files that a stage imports.

The files are found by following imports, without running any. Comments, docstrings and layout do not enter the digest,
so editing them re-runs nothing.

Two mechanisms compare the digest of a stage. Snakemake records it in .snakemake/, among the params of a rule's outputs,
and re-runs the rule where it differs. Arms, synthetic sets, replays and checkpoints store it inside.

Where Snakemake's record is lost, outputs count as up to date. After `--forcerun` of the stages, arms whose digest is
the same are kept.

What is found in a file is kept in __pycache__, beside its byte code, until the file changes."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from importlib.util import cache_from_source
from pathlib import Path

from workflow_scripts.lib.base import files

PACKAGE = "workflow_scripts"
ROOT = Path(__file__).resolve().parents[3]
# Fields of the syntax tree that are derived from others, or from comments.
SILENT = {"ctx", "kind", "type_comment", "type_ignores"}
SETTLED = 2 * 10**9  # nanoseconds after a change


def stage_digest(stage: str, root: Path = ROOT, data: Iterable[Path] = ()) -> str:
    """Digest of a stage: of the modules under `root` that it imports, and of further `data` files that it reads."""
    return digest([*sources(stage, root), *data])


def digest(paths: Iterable[Path]) -> str:
    """Digest of files by name and content, wherever the checkout lies; of Python files by syntax tree."""
    return files.digest(sorted([path.name, _content(path)] for path in map(Path, paths)))


def sources(stage: str, root: Path = ROOT) -> list[Path]:
    """All files of the package that `stage` imports, directly or indirectly: its own first, the others sorted."""
    # Paths as text: every start of Snakemake looks for some thousand modules.
    first = _file(f"{root}{os.sep}", f"{PACKAGE}.{stage}")
    if first is None:
        raise FileNotFoundError(f"{root / PACKAGE / stage}.py")
    modules, waiting = {first}, [first]
    while waiting:
        for module in _parsed(waiting.pop())[0]:
            path = _file(f"{root}{os.sep}", module)
            if path is not None and path not in modules:
                modules.add(path)
                waiting.append(path)
    return [Path(first), *sorted(map(Path, modules - {first}))]


def _content(path: Path) -> str:
    return _parsed(str(path))[1] if path.suffix == ".py" else files.file_digest(path)


def _parsed(path: str) -> tuple[list[str], str]:
    """Modules of the package that a file may import, and the digest of its syntax tree."""
    about = os.stat(path)  # noqa: PTH116
    return _parsed_once(path, about.st_mtime_ns, about.st_size)


@functools.cache
def _parsed_once(path: str, changed: int, size: int) -> tuple[list[str], str]:
    # Stages share most modules: each is read once for all of them, until it changes.
    beside, own = Path(cache_from_source(path)).with_suffix(".digest"), Path(__file__).stat()
    of = [changed, size, own.st_mtime_ns, own.st_size]  # another way of writing digests makes other ones
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(beside.read_bytes())
        if kept["of"] == of:
            return kept["modules"], kept["digest"]
    tree = ast.parse(Path(path).read_bytes(), path)
    words: list[str] = []
    imports: list[ast.Import | ast.ImportFrom] = []
    _write(tree, words, imports)
    modules, digest = _modules(imports), hashlib.blake2b("\n".join(words).encode(), digest_size=16).hexdigest()
    # A file that was written just now may be written again at what the disk takes for the same time.
    if not sys.dont_write_bytecode and time.time_ns() - changed > SETTLED:
        _keep(beside, {"of": of, "modules": modules, "digest": digest})
    return modules, digest


def _keep(path: Path, found: dict[str, object]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # code that must not be written to is parsed each time
        path.parent.mkdir(exist_ok=True)
        part.write_text(json.dumps(found), encoding="utf-8")
        part.replace(path)


def _modules(imports: list[ast.Import | ast.ImportFrom]) -> list[str]:
    names: list[str] = []
    for node in imports:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif node.module and not node.level:
            # `from package import module` and `from package.module import name` look alike: try both.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in dict.fromkeys(names) if name.split(".")[0] == PACKAGE]


def _write(node: ast.AST, out: list[str], imports: list[ast.Import | ast.ImportFrom]) -> None:
    """Append a syntax tree as words to `out`, and its imports to `imports`.

    The form is the same in all versions of Python; that of ast.dump changes between them."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        imports.append(node)
    out.append(type(node).__name__)
    for name in node._fields:
        value = getattr(node, name, None)
        if name in SILENT or value is None or value == []:
            continue
        out.append(name)
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, ast.AST):
                out.append(repr(item))
            elif not _says_nothing(item):
                _write(item, out, imports)
        out.append(".")
    out.append(".")


def _says_nothing(node: ast.AST) -> bool:
    """Whether a statement has no effect: `pass`, or a string by itself, such as a docstring."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return isinstance(node.value.value, str)
    return isinstance(node, ast.Pass)


def _file(root: str, module: str) -> str | None:
    path = root + module.replace(".", os.sep)
    for candidate in (f"{path}.py", f"{path}{os.sep}__init__.py"):
        try:
            size = os.stat(candidate).st_size  # noqa: PTH116
        except OSError:
            continue
        # Empty package files have no content and would make all stages depend on each other.
        return candidate if size else None
    return None


def use_this_python() -> None:
    """Make jobs that call `python` use the interpreter that runs Snakemake, even if its environment is not active.

    An environment that Snakemake activates for a job (--sdm conda) still takes precedence."""
    here = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
