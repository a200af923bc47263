"""Options of a generator at equal core-seconds: tiny trainings, the table that they leave, and what is told of it."""

import pytest
import torch

from benchmarks import generator_options
from workflow_scripts.lib.generate import average_choice, generator_checks

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)

TINY = '{"widths": [16, 16], "batch": 4}'


def test_options_are_measured_once_and_compared_with_the_default(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(average_choice, "EXAMPLES", 8)
    chosen = ["default", "autoguidance by the snapshot at a quarter", "width of the average chosen after training"]
    line = ["--out", str(tmp_path / "options.csv"), "--core-seconds", "0.1", "--seeds", "1", "--settings", TINY]
    line += ["--cells", "300", "--size", "16", "--count", "16", "--encoder-steps", "2", "--only", *chosen]
    assert generator_options.main(line) == 0
    rows = generator_options.read(tmp_path / "options.csv")
    assert [row["option"] for row in rows] == chosen
    assert all(int(row["steps"]) >= 4 and 0 <= float(row["label_map"]) <= 1 for row in rows)
    assert rows[2]["about"].startswith("width 0."), "the chosen one"
    assert generator_options.main(line) == 0
    assert generator_options.read(tmp_path / "options.csv") == rows, "what is there is not done again"
    assert "| default |" in capsys.readouterr().out


def test_differences_are_paired_by_seed():
    def row(option, seed, frechet):
        return {"option": option, "seed": seed, "frechet": frechet, "steps": 5, "core_seconds": 1} | dict.fromkeys(
            ("recall", "precision", "label_map"), "0.5"
        )

    rows = [row("default", "1", "0.4"), row("default", "2", "0.6"), row("x", "1", "0.5"), row("x", "2", "0.5")]
    assert "| x | 1 | 5 | 0.500 | +0.100 -0.100 | 0.50 | 0.500 |" in generator_options.told(rows)


@pytest.mark.parametrize("option", generator_options.OPTIONS, ids=lambda option: option.name)
def test_every_option_is_one_that_can_be_trained(option):
    base = generator_options.generator_data.config()["generators"][0] | {"reference_channels": ["red"]}
    assert generator_checks.generator_problem(base | option.generator, 32, ["red", "green"]) is None
