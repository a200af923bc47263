"""A few hundred of the inputs of benchmarks/fuzz.py: whatever is wrong with a config or a table is told in one line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks import fuzz
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.config import check

# Other inputs than those of the benchmark: it has seeds of its own.
SEED = 77


def test_damaged_configs_are_taken_or_refused_in_one_line(tmp_path: Path) -> None:
    found = fuzz.fuzz_configs(range(400), SEED, tmp_path)
    assert found.escaped == []
    assert found.taken > 10 and found.refused > 200


def test_damaged_tables_are_taken_or_refused_in_one_line(tmp_path: Path) -> None:
    found = fuzz.fuzz_tables(range(2000), SEED, tmp_path)
    assert found.escaped == []
    assert found.taken > 200 and found.refused > 200


def test_what_escapes_is_seen_and_can_be_had_again() -> None:
    def once(rng: random.Random) -> None:
        draw = rng.randrange(4)
        if draw == 0:
            raise KeyError("channels")
        if draw == 1:
            raise UserError("images.h5 is damaged")
        if draw == 2:
            raise check.ConfigError("")

    found = fuzz.tried("any", range(200), 1, once)
    again = fuzz.tried("any", range(100, 101), 1, once)
    assert found.taken and found.refused and len(found.escaped) > 50
    assert sum("KeyError: 'channels'" in text for text in found.escaped) > 20
    assert found.taken + found.refused + len(found.escaped) == 200
    told = [text for text in found.escaped if text.startswith("any 1 100:")]
    assert again.escaped == told


@pytest.mark.parametrize("kind", ["configs", "tables"])
def test_the_program_prints_what_it_found(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--count", "20", "--only", kind]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{kind}: 20 inputs, ") and ", 0 escaped; " in said
