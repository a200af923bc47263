"""The pinned versions stand in several files: held equal, and equal to what the code imports. Profiles: held apart."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
import yaml

from tests.workflow import Checkout

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[a-z,]+\])?==(?P<version>[A-Za-z0-9.+!]+)\s*(;.*)?$")
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
# Started as programs, or needed by others: no module imports them.
PROGRAMS = {"snakemake", "snakemake-executor-plugin-slurm", "pytest", "ruff", "snakefmt"}
# Run the stages from outside, so an environment for stages has no need of them.
OUTSIDE = {"snakemake", "snakemake-executor-plugin-slurm"}


def canonical(name: str) -> str:
    """The spelling under which a package index files a name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(lines: list[str], where: str) -> dict[str, str]:
    """Name and version of each line; anything but an exact pin is an error."""
    pins: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = re.sub(r"(^|\s)#.*$", "", line).strip()
        if not text or text.startswith("-r "):
            continue
        found = PIN.match(text)
        assert found, f"{where}, line {number}: {text!r} is no exact pin of the form name==version"
        name = canonical(found["name"])
        assert name not in pins, f"{where}, line {number}: {name} is pinned twice"
        pins[name] = found["version"]
    return pins


def pins_of(name: str) -> dict[str, str]:
    """The pins of a requirements or constraints file."""
    return read_pins((ROOT / name).read_text(encoding="utf-8").splitlines(), name)


def pins_of_environment(path: Path) -> dict[str, str]:
    """The pins in the pip section of a conda environment file."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    sections = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    assert len(sections) == 1, f"{path.name} needs one pip section"
    return read_pins(sections[0], f"envs/{path.name}")


def differences(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """What to edit in `found` so that it says what `wanted` says, as a diff."""
    lines: list[str] = []
    for name in sorted(wanted | found):
        if wanted.get(name) != found.get(name):
            lines += [f"- {name}=={found[name]}"] if name in found else []
            lines += [f"+ {name}=={wanted[name]}"] if name in wanted else []
    return lines


def imported(*folders: str) -> set[str]:
    """The distributions of third-party modules that the files of these folders import."""
    owners = packages_distributions()
    names: set[str] = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return {canonical(owners[name][0]) for name in names - set(sys.stdlib_module_names) if name in owners}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_environment_has_the_pinned_versions(path: Path) -> None:
    wanted = {name: version for name, version in pins_of("requirements.txt").items() if name not in OUTSIDE}
    lines = differences(wanted, pins_of_environment(path))
    assert not lines, "\n".join([f"envs/{path.name} differs from requirements.txt; edit its pip section:", *lines])


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_constraints_hold_the_pinned_versions(name: str) -> None:
    constraints = pins_of("constraints.txt")
    pins = pins_of(name)
    lines = differences(pins, {key: constraints[key] for key in pins if key in constraints})
    assert not lines, "\n".join([f"constraints.txt differs from {name}; compile it anew (see its head):", *lines])


def test_every_import_is_pinned() -> None:
    pins = pins_of("requirements.txt")
    absent = imported("workflow_scripts") - set(pins)
    assert not absent, f"requirements.txt does not pin what workflow_scripts imports: {', '.join(sorted(absent))}"
    absent = imported("tests", "benchmarks") - set(pins) - set(pins_of("requirements-dev.txt"))
    assert not absent, f"requirements-dev.txt does not pin what the tests import: {', '.join(sorted(absent))}"


def test_every_pin_is_used() -> None:
    for name, folders in (
        ("requirements.txt", ["workflow_scripts"]),
        ("requirements-dev.txt", ["tests", "benchmarks"]),
    ):
        idle = set(pins_of(name)) - imported(*folders) - PROGRAMS
        assert not idle, f"{name} pins what nothing imports: {', '.join(sorted(idle))}"


def test_installed_versions_are_those_pinned() -> None:
    pins = pins_of("requirements.txt") | pins_of("requirements-dev.txt")
    # The build of torch (+cpu, +cu130) is the machine's affair.
    lines = differences(pins, {name: version(name).partition("+")[0] for name in pins})
    assert not lines, "\n".join(["the environment differs from the requirements files; run make again:", *lines])


def test_every_rule_names_an_environment_that_exists() -> None:
    for path in sorted((ROOT / "rules").glob("*.smk")):
        for name in re.findall(r"^\s+conda:\n\s+\"([^\"]+)\"", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert (path.parent / name).resolve() in ENVIRONMENTS, f"rules/{path.name}: there is no {name}"


def test_profiles_agree_with_the_one_that_is_always_loaded() -> None:
    """Snakemake takes a key that stands in both from profiles/default and drops the other's whole."""
    default = yaml.safe_load((ROOT / "profiles" / "default" / "config.yaml").read_text(encoding="utf-8"))
    assert default, "an empty profiles/default is an error of Snakemake"
    for path in (ROOT / "profiles").glob("*/config.yaml"):
        profile = yaml.safe_load(path.read_text(encoding="utf-8"))
        clash = [key for key in default if profile.get(key, default[key]) != default[key]]
        assert not clash, (
            f"profiles/default/config.yaml overrides {path.parent.name}'s {', '.join(clash)}; take it out there"
        )


@pytest.mark.workflow
def test_slurm_profile_asks_for_gpus_where_networks_train(tmp_path: Path) -> None:
    checkout = Checkout.fresh(tmp_path / "checkout")
    shutil.copytree(ROOT / "profiles" / "slurm", checkout.folder / "profiles" / "slurm")
    plan = checkout.snakemake("--dry-run", "--profile", "profiles/slurm").stdout
    jobs = re.findall(r"^rule (\w+):\n(.*?)\n(?=\S|$)", plan, re.MULTILINE | re.DOTALL)
    asked = {rule: dict(re.findall(r"(\w+)=([^,\n]+)", text.partition("resources:")[2])) for rule, text in jobs}
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text(encoding="utf-8"))
    for rule in ("train_ddpm", "sample_ddpm", "train_classifier", "train_judge"):
        assert asked[rule]["gpu"] == "1", asked[rule]
        assert asked[rule]["slurm_partition"] == profile["set-resources"][rule]["slurm_partition"], asked[rule]
    for rule in ("simulate_cells", "aggregate_metrics"):
        assert "gpu" not in asked[rule], asked[rule]
        assert asked[rule]["slurm_partition"] == profile["default-resources"]["slurm_partition"], asked[rule]


def test_pins_name_no_registry() -> None:
    names = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt", ROOT / "constraints.txt", *ENVIRONMENTS]
    for path in names:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|index-url|find-links|\s@\s|file:", text), (
            f"{path.name} names a place to install from"
        )


def test_a_difference_is_seen(tmp_path: Path) -> None:
    copy = tmp_path / "mixloc.yaml"
    text = (ROOT / "envs" / "mixloc.yaml").read_text(encoding="utf-8")
    copy.write_text(
        re.sub(r"numpy==[\d.]+", "numpy==1.0", text).replace("      - pandas==", "      - polars=="), encoding="utf-8"
    )
    wanted = pins_of_environment(ROOT / "envs" / "mixloc.yaml")
    lines = differences(wanted, pins_of_environment(copy))
    assert lines[:2] == ["- numpy==1.0", f"+ numpy=={wanted['numpy']}"]
    assert f"+ pandas=={wanted['pandas']}" in lines
    with pytest.raises(AssertionError, match="no exact pin"):
        read_pins(["numpy>=2"], "requirements.txt")
