"""The rules: each has all that a rule must have, and one name stands for rule, script, logs and benchmarks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
TARGETS = {"paper", "submission"}  # rules that only collect inputs
RULES = {
    name: body
    for path in sorted((ROOT / "rules").glob("*.smk"))
    for name, body in BLOCK.findall(path.read_text(encoding="utf-8"))
    if name not in TARGETS
}
QUOTED = {"params.raw", "params.manifest", "params.classes"}  # by shlex.quote
STAGES = {path.stem for path in (ROOT / "workflow_scripts").glob("*.py")} - {"__init__"}


def test_every_stage_has_its_rule_and_every_rule_its_stage() -> None:
    assert set(RULES) == STAGES


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_rule_is_complete(name: str) -> None:
    body = RULES[name]
    assert body.lstrip().startswith('"""'), "says what it makes"
    for directive in ("input", "output", "params", "log", "benchmark", "threads", "resources", "conda", "shell"):
        assert re.search(rf"^    {directive}:", body, re.MULTILINE), directive
    assert f'code=code("{name}")' in body
    assert f"/logs/{name}/" in body
    assert f"/benchmarks/{name}/" in body
    assert f"python -m workflow_scripts.{name}" in body
    assert re.search(r"mem_mb=", body)
    assert re.search(r"runtime=", body)


@pytest.mark.parametrize("name", sorted(RULES))
def test_nothing_reaches_the_shell_unquoted(name: str) -> None:
    shell = RULES[name].split("    shell:", 1)[1]
    for field in re.findall(r"\{([^{}]+)\}", shell):
        # Numbers of the workflow itself, and flags that are quoted where they are put together, stand as they are.
        bare = field.startswith("wildcards.") or field == "params.seed" or field in QUOTED
        assert field.endswith(":q") or bare, field
