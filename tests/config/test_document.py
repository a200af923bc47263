"""The files made from the models: never stale, and a schema that knows every preset and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.helpers.configs import DEFAULT, ROOT, arm
from workflow_scripts.lib.config import document, schema

FILES = [ROOT / "config.yaml", *sorted((ROOT / "presets").glob("*.yaml"))]
SCHEMA = ROOT / "schemas" / "config.schema.json"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    written = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(written)
    return Draft202012Validator(written)


def test_made_files_are_what_the_models_say() -> None:
    for path, text in document.pages(ROOT).items():
        stale = f"{path.relative_to(ROOT)} is not what the models and config.yaml say: run {document.COMMAND}"
        assert path.exists() and path.read_text(encoding="utf-8") == text, stale


def test_the_command_writes_what_is_stale_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("config.yaml", "docs/config.md", "config/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "schemas").mkdir()
    page = tmp_path / "docs" / "config.md"
    page.write_text(page.read_text(encoding="utf-8").replace("`20250522`", "`7`") + "Mine.\n", encoding="utf-8")
    assert document.main(tmp_path) == 0
    assert set(capsys.readouterr().out.split()) >= {"docs/config.md:", "schemas/config.schema.json:"}
    assert page.read_text(encoding="utf-8") == (ROOT / "docs" / "config.md").read_text(encoding="utf-8") + "Mine.\n"
    assert document.main(tmp_path) == 0 and capsys.readouterr().out == ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_configs_name_the_schema_and_follow_it(path: Path, validator: Draft202012Validator) -> None:
    text = path.read_text(encoding="utf-8")
    named = text.partition("\n")[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == SCHEMA, "editors read the schema that the first line names"
    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(yaml.safe_load(text))]
    assert not problems


@pytest.mark.parametrize(
    "overlay",
    [
        {"seeds": 1},
        {"train_classifier": {"steps": 0}},
        {"train_classifier": {"steps": "many"}},
        {"train_classifier": {"budget": "much"}},
        {"data": {"files": "/etc/{id}.png"}},
        {"data": {"files": {"gr een": "{id}.png"}}},
        {"data": {"class_names": ["a", "a"]}},
        {"run": "two words"},
        {"arms": [{"name": "a"}]},
        arm("pool", ratio=1e-4),
        arm("pool", method="stir"),
    ],
)
def test_an_editor_sees_what_is_wrong(overlay: dict, validator: Draft202012Validator) -> None:
    assert not validator.is_valid(overlay)


def test_every_key_has_a_row_with_its_default() -> None:
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert "| `draws` | integer, at least 100 and at most 100,000 | draws | `2000` |" in text
    assert "| `fractions.lockbox` | number, at least 0 and less than 1 |  | `0` |" in text
    for name, section in DEFAULT.items():
        table = (
            text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
            if name not in ("run", "seed", "violations")
            else text
        )
        for key in (
            section if isinstance(section, dict) else section[0] if section and isinstance(section, list) else []
        ):
            assert f"| `{key}`" in table or f"| `{key}." in table, f"{name}.{key}"


def test_a_place_of_the_schema_is_found_by_its_path() -> None:
    assert [part["type"] for part in schema.at(["data", "files"])] == ["string", "object", "null"]
    assert schema.at(["data", "files", "green"])[0]["type"] == "string"
    assert schema.at(["arms", 3, "strong", "scale", 1])[0]["maximum"] == 1
    assert schema.at(["nowhere", "else"]) == []
