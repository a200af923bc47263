"""README and docs: each command is run or marked as not run, what they name exists, and the README stays short.

A block of commands (```sh) follows a mark, an HTML comment that no reader sees:

    <!-- run -->                   each line is run here
    <!-- dry run -->               each line is run here with --dry-run (snakemake, make)
    <!-- tested by: test_name -->  another test runs it, perhaps smaller (said in brackets)
    <!-- not run: reason -->       no test runs it
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.helpers.checkout import Checkout
from workflow_scripts.lib.judge import comparisons, leak_checks, lockbox_scores, score_table, strata, stress_scores

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / "workflow_scripts" / "lib"
README = ROOT / "README.md"
PAGES = [README, ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?:^<!-- (?P<mark>.*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"run|dry run|tested by: (?P<test>test_\w+)( \(.+\))?|not run: .+")
NOT_COMMANDS = {"yaml", "python", "text"}
LINK = re.compile(r"!?\[[^]]*\]\((?P<target>[^)#]*)(#(?P<anchor>[^)]*))?\)")
FOLDERS = (
    "benchmarks",
    "captions",
    "docs",
    "envs",
    "presets",
    "profiles",
    "rules",
    "schemas",
    "tests",
    "workflow_scripts",
)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands(text: str) -> list[tuple[str, str, list[str]]]:
    """Language, mark and lines (without comments) of each block that may hold commands."""
    found = [block for block in FENCE.finditer(text) if block["language"] not in NOT_COMMANDS]
    lines = [re.sub(r"\s+# .*", "", block["text"]).strip().splitlines() for block in found]
    return [(block["language"], block["mark"] or "", part) for block, part in zip(found, lines, strict=True)]


def marked(mark: str) -> list[str]:
    """The lines of all pages under a mark, each once."""
    blocks = [block for page in PAGES for block in commands(read(page))]
    return list(dict.fromkeys(line for _, found, lines in blocks if found == mark for line in lines))


def prose(text: str) -> str:
    """A page without blocks, comments and tables."""
    return re.sub(r"^\|.*$", "", re.sub(r"<!--.*?-->", "", FENCE.sub("", text)), flags=re.MULTILINE)


def spans(page: Path) -> list[str]:
    """What stands in backticks outside of blocks."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", read(page)))


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def problem(language: str, mark: str, tests: str) -> str | None:
    """What is wrong with a block of commands."""
    if language != "sh":
        return "has no language, or one that is not known: commands stand in ```sh"
    if not (found := MARK.fullmatch(mark)):
        return f"has no mark, or one that is not known ({mark!r}): see tests/docs/test_pages.py"
    if found["test"] and f"def {found['test']}(" not in tests:
        return f"is marked with {found['test']}, which is no test"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_is_run_or_marked_as_not_run(page: Path) -> None:
    tests = "".join(read(path) for path in (ROOT / "tests").rglob("test_*.py"))
    wrong = [
        (lines, told) for language, mark, lines in commands(read(page)) if (told := problem(language, mark, tests))
    ]
    assert not wrong, "\n".join(f"{page.name}: {lines[0] if lines else ''!r} {told}" for lines, told in wrong)


@pytest.mark.parametrize(
    "before", ["", "<!-- ran -->\n", "<!-- tested by: test_of_nothing -->\n", "<!-- not run: -->\n"]
)
def test_a_command_without_a_sound_mark_is_seen(before: str) -> None:
    ((language, mark, lines),) = commands(f"text\n{before}```sh\nmake demo  # runs\n```\n")
    assert lines == ["make demo"] and problem(language, mark, "def test_a(")
    assert problem("", "run", "") and not problem("sh", "tested by: test_a (less)", "def test_a(")


@pytest.mark.workflow
def test_commands_of_the_pages_run(tmp_path: Path) -> None:
    checkout = Checkout.fresh(tmp_path / "checkout")
    # The presets for real cells want to see the files that they name.
    cells = tmp_path / "cells"
    (cells / "train").mkdir(parents=True)
    (cells / "train.csv").write_text("Id,Target\na,0\n")
    (cells / "groups.csv").write_text("Id,group\na,a\n")
    (cells / "images").mkdir()
    (cells / "labelled.csv").write_text("Id,Target,well\na,DMSO,w\n")
    (cells / "unlabelled.csv").write_text("Id,well\nb,v\n")
    lines = [line.replace("/where/they/lie", str(cells)) for line in marked("run")]
    for line in marked("dry run"):
        dry = re.sub(r"\b(snakemake|make) ", r"\1 --dry-run ", line, count=1)
        assert dry != line, f"neither snakemake nor make: {line}"
        lines.append(dry.replace("/where/they/lie", str(cells)))
    assert len(lines) > 10

    def run(line: str) -> subprocess.CompletedProcess[str]:
        # Make's targets are those of the repository, and a dry run of make changes nothing there.
        where = ROOT if line.startswith("make ") else checkout.folder
        return subprocess.run(
            ["sh", "-c", line], cwd=where, env=checkout.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        for line, done in zip(lines, pool.map(run, lines), strict=True):
            assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_registries_that_are_named_exist(page: Path) -> None:
    folders = {*FOLDERS, *(path.name for path in LIB.iterdir() if path.is_dir())}
    for span in spans(page):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", span) and span.partition("/")[0] in folders:
            assert (ROOT / span).exists() or (LIB / span).exists(), f"{page.name} names {span}"
    for name, path in re.findall(r"`(\w+)` of `(\w+/\w+\.py)`", read(page)):
        body = ast.parse(read(LIB / path)).body
        known = {node.name for node in body if isinstance(node, ast.FunctionDef)}
        known |= {ast.unparse(node.target) for node in body if isinstance(node, ast.AnnAssign)}
        known |= {ast.unparse(target) for node in body if isinstance(node, ast.Assign) for target in node.targets}
        assert name in known, f"{page.name} names {name} of {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_are_named_exist(page: Path) -> None:
    config = yaml.safe_load(read(ROOT / "config.yaml"))
    # Old names stand in that section on purpose.
    text = read(page).partition("## Renamed settings")[0]
    named = re.findall(r"`(\w+)((?:\.\w+)+)[`:]", text)
    for section, keys in [
        (section, keys) for section, keys in named if not keys.endswith((".json", ".csv", ".h5", ".html"))
    ]:
        value = config.get(section)
        for key in keys[1:].split("."):
            if isinstance(value, dict):
                assert key in value, f"{page.name} names {section}{keys}"
                value = value[key]


@pytest.mark.parametrize("page", [README, ROOT / "benchmarks" / "README.md"], ids=["README", "benchmarks"])
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.finditer(read(page)):
        if link["target"].startswith("https://"):
            continue
        path = page.parent / link["target"] if link["target"] else page
        assert path.exists(), f"{page.name} links to {link['target']}"
        if link["anchor"]:
            anchors = {slug(heading) for heading in re.findall(r"^#+ (.+)$", read(path), re.MULTILINE)}
            assert link["anchor"] in anchors, f"{page.name} links to {link['target']}#{link['anchor']}"


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="make docs was not called here")
@pytest.mark.parametrize("link", ["", "[a](nowhere.md)", "[a](methods.md#nowhere)", "![a](pictures/nowhere.png)"])
def test_a_dead_link_stops_make_docs(tmp_path: Path, link: str) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{link}\n")
    options = re.search(r"bin/mkdocs (.+)", read(ROOT / "Makefile"))[1].split()
    done = subprocess.run([sys.executable, "-m", "mkdocs", *options], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode != 0) == bool(link), done.stderr


def test_readme_is_short_and_its_numbers_stand_in_tables() -> None:
    text = read(README)
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 1200
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert pictures == [f"docs/pictures/{name}" for name in ("cells.png", "report.png", "pipeline.svg", "map.png")]
    assert sum((ROOT / picture).stat().st_size for picture in pictures) < 1_000_000
    plain = re.sub(r"`[^`]*`|\]\([^)]*\)", "", prose(text))
    for paragraph in re.split(r"\n\s*\n|\n- ", plain):
        numbers = re.findall(r"(?<![\w.])\d[\d.,]*", paragraph)
        assert len(numbers) <= 2, paragraph
        for sentence in re.split(r"(?<=[.!?:])\s", paragraph):
            assert len(sentence.split()) <= 25, sentence


def test_the_page_of_methods_lists_every_stage() -> None:
    text = read(ROOT / "docs" / "methods.md")
    stages = [path.stem for path in (ROOT / "workflow_scripts").glob("*.py") if path.stem != "__init__"]
    assert not [stage for stage in stages if f"`{stage}`" not in text]


def test_every_column_of_every_table_of_results_is_explained() -> None:
    tables = {
        "comparisons.csv": comparisons.COLUMNS,
        "metrics.csv": score_table.METRIC_COLUMNS,
        "thresholds.csv": score_table.THRESHOLD_COLUMNS,
        "strata.csv": strata.COLUMNS,
        "stress.csv": stress_scores.COLUMNS,
        "lockbox.csv": lockbox_scores.COLUMNS,
        "leaks.csv": [field.name for field in fields(leak_checks.Check)],
    }
    sections = re.split(r"^## ", read(ROOT / "docs" / "tables.md"), flags=re.MULTILINE)
    for name, columns in tables.items():
        (section,) = [text for text in sections if f"`{name}`" in text.splitlines()[0]]
        rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
        explained = [column for row in rows for column in re.findall(r"`(\w+)`", row)]
        assert sorted(explained) == sorted(columns), name
