"""The pinned versions stand in several files and are built into images: held equal, and equal to what the code imports
and to what the report says. Profiles: held apart."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

import pytest
import yaml

from tests.helpers.checkout import Checkout
from workflow_scripts.lib.config import schema
from workflow_scripts.lib.page.sections import arms_section

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[a-z,]+\])?==(?P<version>[A-Za-z0-9.+!]+)\s*(;.*)?$")
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
CUDA = re.compile(r"(nvidia|cuda)-|triton$")
IMAGE = re.compile(r"python:(\d+)\.(\d+)-slim")
INSTRUCTIONS = {"FROM", "ARG", "COPY", "RUN", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
SECTIONS = {"arguments", "files", "post", "environment", "runscript"}
# Started as programs, or needed by others: no module imports them.
PROGRAMS = {
    "snakemake", "snakemake-executor-plugin-slurm", "snakemake-executor-plugin-cluster-generic", "pytest",
    "pytest-xdist", "ruff", "snakedeploy", "snakefmt",
}  # fmt: skip
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


def needed(names: set[str]) -> set[str]:
    """What these distributions need, directly or through others, less the CUDA libraries of a build of torch."""
    known, found, waiting = pins_of("constraints.txt"), set(names), list(names)
    while waiting:
        try:
            texts = requires(waiting.pop()) or []
        except PackageNotFoundError:  # of another platform
            continue
        new = {canonical(re.match(r"[\w.-]+", text)[0]) for text in texts if "extra ==" not in text}
        new = {name for name in new & set(known) if not CUDA.match(name)} - found
        found |= new
        waiting += new
    return found - set(names)


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
    constraints = pins_of("constraints.txt")
    wanted |= {name: constraints[name] for name in needed(set(wanted))}
    if path.stem.endswith("-encoders"):
        wanted |= pins_of("requirements-encoders.txt")
    if path.stem.endswith("-formats"):
        wanted |= pins_of("requirements-formats.txt")
    if path.stem.endswith("-cuda"):
        wanted |= {name: version for name, version in constraints.items() if CUDA.match(name)}
    lines = differences(wanted, pins_of_environment(path))
    assert not lines, "\n".join([f"envs/{path.name} differs from requirements and constraints; edit its pins:", *lines])


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-docs.txt"])
def test_constraints_hold_the_pinned_versions(name: str) -> None:
    constraints = pins_of("constraints.txt")
    pins = pins_of(name)
    lines = differences(pins, {key: constraints[key] for key in pins if key in constraints})
    assert not lines, "\n".join([f"constraints.txt differs from {name}; compile it anew (see its head):", *lines])


def test_every_import_is_pinned() -> None:
    pins = pins_of("requirements.txt") | pins_of("requirements-formats.txt")  # optional ones only where installed
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


def test_every_rule_takes_the_environment_that_the_config_names() -> None:
    for path in sorted((ROOT / "rules").glob("*.smk")):
        for name in re.findall(r"^\s+conda:\n\s+(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert name == "ENVIRONMENT", f"rules/{path.name}: conda: must be ENVIRONMENT, not {name}"
    [named] = schema.at(["compute", "environment"])
    assert set(named["enum"]) == {path.stem for path in ENVIRONMENTS}


def test_one_python_everywhere() -> None:
    found = {
        f"envs/{path.name}": re.findall(r"- python=([\d.]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        for path in ENVIRONMENTS
    }
    found |= {name: [".".join(image.groups())] for name, image in base_images().items()}
    assert len({tuple(versions) for versions in found.values()}) == 1, found
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least = re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"])
    for name, (text,) in found.items():
        assert tuple(map(int, text.split("."))) >= tuple(map(int, least.groups())), f"{name}: Python {text} is too old"


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with what they are told, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    found = [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]
    assert {name for name, _ in found} <= INSTRUCTIONS, "Dockerfile: an instruction that this test does not know"
    assert found[0][0] == "FROM"
    return found


def definition() -> tuple[dict[str, str], dict[str, str]]:
    """The header of apptainer.def and its sections."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "apptainer.def").read_text(encoding="utf-8"), flags=re.MULTILINE)
    head, *parts = re.split(r"^%(\w+)\n", text, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(sections) <= SECTIONS, "apptainer.def: a section that this test does not know"
    return dict(line.split(": ") for line in head.split("\n") if line.strip()), sections


def base_images() -> dict[str, re.Match[str]]:
    """The image that each file builds upon, taken apart."""
    header, _ = definition()
    assert header["Bootstrap"] == "docker"
    named = {"Dockerfile": dict(dockerfile())["FROM"], "apptainer.def": header["From"]}
    found = {name: IMAGE.fullmatch(image) for name, image in named.items()}
    assert all(found.values()), f"not python:X.Y-slim: {named}"
    return found


def installs(script: str) -> list[list[str]]:
    """What each `pip install` of a shell script is told."""
    lines = re.split(r"&&|;|\n", script.replace("\\\n", " "))
    words = [shlex.split(line) for line in lines if re.search(r"\bpip3?\s+install\b", line)]
    return [line[line.index("install") + 1 :] for line in words]


def pinned_install(words: list[str]) -> bool:
    """Whether a `pip install` takes the requirements within the constraints, and nothing else."""
    files = [word for word in words if not word.startswith("--")]
    return files == ["-r", "/opt/mixloc/requirements.txt", "-c", "/opt/mixloc/constraints.txt"]


def scripts() -> dict[str, str]:
    """The shell text of both files."""
    _, sections = definition()
    found = {"Dockerfile": "\n".join(text for name, text in dockerfile() if name == "RUN")}
    return found | {f"apptainer.def, {name}": sections[name] for name in ("post", "environment", "runscript")}


def test_images_install_what_is_pinned_and_nothing_else() -> None:
    told = {name: installs(script) for name, script in scripts().items()}
    for name in ("Dockerfile", "apptainer.def, post"):
        assert len(told[name]) == 1 and pinned_install(told[name][0]), f"{name}: {told[name]}"
    assert not told["apptainer.def, environment"] + told["apptainer.def, runscript"]
    assert not any(re.search(r"\b(conda|mamba|uv|easy_install|pipx)\b", script) for script in scripts().values())
    both = " ".join(["-r", "/opt/mixloc/requirements.txt", "-c", "/opt/mixloc/constraints.txt"])
    assert not pinned_install(shlex.split(f"{both} numpy"))
    assert not pinned_install(shlex.split("-r /opt/mixloc/requirements.txt"))


def test_images_hold_the_files_that_they_install_from() -> None:
    copied = [text.split() for name, text in dockerfile() if name == "COPY"]
    assert copied == [["requirements.txt", "constraints.txt", "/opt/mixloc/"]]
    _, sections = definition()
    files = [line.split() for line in sections["files"].splitlines() if line.strip()]
    assert files == [[name, f"/opt/mixloc/{name}"] for name in ("requirements.txt", "constraints.txt")]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules == ["*", *(f"!{name}" for name in copied[0][:-1])], "the context must hold these files alone"


def test_images_do_not_run_as_root() -> None:
    users = [text for name, text in dockerfile() if name == "USER"]
    assert users and users[-1] not in ("root", "0")
    assert re.search(rf"\buseradd\b.* {users[-1]}$", scripts()["Dockerfile"], re.MULTILINE), "a user must be made first"


def test_shell_text_of_images_is_sound() -> None:
    for name, script in scripts().items():
        done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"


def test_arguments_of_images_are_defined() -> None:
    _, sections = definition()
    values = dict(line.strip().split("=", 1) for line in sections["arguments"].splitlines() if line.strip())
    assert all(values.values()), "older Apptainers forget an argument whose value is empty"
    assert set(re.findall(r"\{\{ (\w+) \}\}", "".join(sections.values()))) == set(values)


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
    synthetic_set = checkout.snakemake("--dry-run", "--profile", "profiles/slurm").stdout
    jobs = re.findall(r"^rule (\w+):\n(.*?)\n(?=\S|$)", synthetic_set, re.MULTILINE | re.DOTALL)
    asked = {rule: dict(re.findall(r"(\w+)=([^,\n]+)", text.partition("resources:")[2])) for rule, text in jobs}
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text(encoding="utf-8"))
    for rule in ("train_ddpm", "sample_ddpm", "train_classifier", "train_judge"):
        assert asked[rule]["gpu"] == "1", asked[rule]
        assert asked[rule]["slurm_partition"] == profile["set-resources"][rule]["slurm_partition"], asked[rule]
    for rule in ("simulate_cells", "aggregate_metrics"):
        assert "gpu" not in asked[rule], asked[rule]
        assert asked[rule]["slurm_partition"] == profile["default-resources"]["slurm_partition"], asked[rule]


def test_pins_name_no_registry() -> None:
    names = [*ROOT.glob("requirements*.txt"), ROOT / "constraints.txt", *ENVIRONMENTS]
    names += [ROOT / "Dockerfile", ROOT / "apptainer.def"]
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


def versions_beside(root: Path, change: str) -> tuple[dict[str, dict], bool, str]:
    """The report's versions where constraints.txt holds those installed and a change: the rows, and the sentence."""
    pins = [f"{name}=={version(name)}" for name in ("numpy", "pandas", "pluggy")]
    pins += [f"torch=={version('torch').partition('+')[0]} ; sys_platform == 'linux'", "absent==1.0", change]
    (root / "constraints.txt").write_text("\n".join(["# pins", *pins]), encoding="utf-8")
    table = arms_section.versions(root)
    return {row["what"]: row for row in table.rows}, *arms_section.about_pins(table)


def test_report_says_that_versions_are_those_pinned(tmp_path: Path) -> None:
    rows, sound, sentence = versions_beside(tmp_path, "")
    assert sound and sentence.startswith("All packages")
    assert rows["numpy"]["pinned"] == version("numpy") and not rows["numpy"]["is_other"]
    # The build of torch is no other version.
    assert rows["torch"]["version"] == version("torch") and not rows["torch"]["is_other"]
    assert "pluggy" not in rows and "absent" not in rows


def test_report_marks_versions_that_are_not_those_pinned(tmp_path: Path) -> None:
    _, sound, sentence = versions_beside(tmp_path, "scipy==0.1\npytest==1.0rc1\n")
    assert not sound
    assert f"scipy {version('scipy')} (0.1)" in sentence and f"pytest {version('pytest')} (1.0rc1)" in sentence
    assert "numpy" not in sentence
    table = arms_section.versions(tmp_path)
    marked = {row["what"] for row in table.rows if table.mark(row) == "alarm"}
    assert marked == {"scipy", "pytest"}, "also what the table does not show otherwise"


def test_report_says_that_pins_are_unknown(tmp_path: Path) -> None:
    sound, sentence = arms_section.about_pins(arms_section.versions(tmp_path))
    assert not sound and "no constraints.txt" in sentence
