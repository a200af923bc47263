"""The page of licences is that of the pinned packages."""

import re
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from docs import licences

ROW = re.compile(r"^\| (?P<name>[\w-]+) \| (?P<version>\d[\w.+]*) \| (?P<licence>.+) \|$", re.MULTILINE)


def test_page_has_each_run_time_dependency_as_it_is_pinned() -> None:
    said = {row["name"]: row["version"] for row in ROW.finditer(licences.PAGE.read_text(encoding="utf-8"))}
    pinned = licences.pins(licences.ROOT / "constraints.txt")
    needed = licences.run_time(licences.pins(licences.ROOT / "requirements.txt"), pinned)
    assert {"numpy", "torch", "snakemake", "jinja2"} <= set(needed), "direct dependencies, and those of dependencies"
    # Another platform or Python may need other packages; those here must stand on the page.
    stale = {name: pinned[name] for name in needed if said.get(name) != pinned[name]}
    stale |= {name: "no longer pinned" for name in said if name not in pinned}
    assert not stale, f"docs/licences.md is stale: run make licences ({stale})"


def test_every_licence_is_known_and_none_is_proprietary() -> None:
    rows = list(ROW.finditer(licences.PAGE.read_text(encoding="utf-8")))
    assert len(rows) > 60
    assert not [row["name"] for row in rows if "not declared" in row["licence"] or "Proprietary" in row["licence"]]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("License-Expression: BSD-3-Clause\nClassifier: License :: OSI Approved :: MIT License", "BSD-3-Clause"),
        ("Classifier: License :: OSI Approved :: MIT License\nLicense: something else", "MIT License"),
        ("Classifier: License :: OSI Approved\nLicense: BSD", "BSD"),
        (f"License: {'a whole text ' * 9}", "not declared; see its files"),
    ],
)
def test_a_licence_is_what_the_package_declares(tmp_path: Path, lines: str, said: str) -> None:
    folder = tmp_path / "thing-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: thing\nVersion: 1.0\n{lines}\n", encoding="utf-8")
    assert licences.licence(PathDistribution(folder)) == said
    (folder / "LICENSE").write_text(f"{licences.MIT}, to any person", encoding="utf-8")
    (folder / "RECORD").write_text("thing-1.0.dist-info/LICENSE,,\n", encoding="utf-8")
    assert licences.licence(PathDistribution(folder)) == said.replace(
        "not declared; see its files", "MIT (by its text)"
    )
