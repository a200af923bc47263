"""Which package may import which: the arrows of the design, so that a package can be read without those that use it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "workflow_scripts"
LIB = "workflow_scripts.lib."
MAY_IMPORT = {
    "base": "",
    "images": "base",
    "simulate": "base",
    "split": "base",
    "compute": "base",
    "download": "base images",
    "scores": "base images",
    "generate": "base images split compute scores",
    "classify": "base images split compute scores generate",
    "fidelity": "base images split compute scores classify",
    "judge": "base images split scores classify",
    "study": "base images split compute generate classify scores judge",
    "config": "base images download compute judge",
    "cost": "base simulate compute config images generate classify fidelity",
    "crate": "base images scores config",
    "page": "base images simulate split compute download scores generate classify fidelity judge cost",
}
# Beside its arrows, the check of the config reads what can be chosen.
CHOICES = (
    "generate.generator_choices",
    "generate.generator_checks",
    "generate.generator_header",
    "classify.source_choices",
    "classify.arm_choices",
    "classify.arm_settings",
    "classify.arm_checks",
    "classify.network_choices",
    "fidelity.encoder_choices",
    "study.switches",
)
# Read whenever Snakemake starts or a stage fails: they must not wait for large libraries.
LIGHT = ("base.errors", "judge.declaration", "images.format_choices", *CHOICES)
MODULES = {
    ".".join(path.relative_to(PACKAGE / "lib").with_suffix("").parts): path for path in PACKAGE.glob("lib/*/**/*.py")
}


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports {'.' * node.level}: full names alone"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in whole if name.removeprefix(LIB) in MODULES}
            names |= modules or {str(node.module)}
    return names


def test_every_package_has_its_arrows() -> None:
    assert {module.split(".")[0] for module in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_those_alone_that_it_may(package: str) -> None:
    allowed = {package, *MAY_IMPORT[package].split()}
    choices = CHOICES if package == "config" else ()
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if module.split(".")[0] == package
        for name in sorted(imports(path))
        if name.startswith("workflow_scripts")
        and name.removeprefix(LIB).split(".")[0] not in allowed
        and name.removeprefix(LIB) not in choices
    ]
    assert not wrong, "\n".join(wrong)


def test_the_files_that_make_packages_are_empty() -> None:
    assert not [str(path) for path in PACKAGE.rglob("__init__.py") if path.stat().st_size]


@pytest.mark.parametrize("module", LIGHT)
def test_what_can_be_chosen_needs_neither_numpy_nor_torch(module: str) -> None:
    waiting, seen = [(module, module)], set()
    while waiting:
        name, way = waiting.pop()
        assert name.split(".")[0] not in ("numpy", "torch"), way
        path = MODULES.get(name.removeprefix(LIB))
        if path is not None and name not in seen:
            waiting += [(other, f"{way} imports {other}") for other in imports(path)]
        seen.add(name)
