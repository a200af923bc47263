"""rehearse_run: Snakemake within a job, what it says when it fails, and the forecast from what its jobs took."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.configs import SHIPPED
from workflow_scripts import rehearse_run
from workflow_scripts.lib.cost import measured_rates, run_facts
from workflow_scripts.lib.cost.measured_rates import Measured, Rate, Start
from workflow_scripts.lib.cost.workloads import Facts

# Stands in for Snakemake: keeps its arguments, says what it is told to, and ends as it is told to.
FAKE = """
import json, os, pathlib, sys
pathlib.Path("asked.json").write_text(json.dumps([sys.argv[1:], dict(os.environ)]))
print(pathlib.Path("say.txt").read_text())
sys.exit(int(pathlib.Path("status.txt").read_text()))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fake.py").write_text(FAKE)
    return tmp_path


def rehearse(here: Path, say: str, status: int) -> int:
    (here / "say.txt").write_text(say)
    (here / "status.txt").write_text(str(status))
    settings = json.dumps({"config": SHIPPED, "gpus": 0, "threads": 1})
    return rehearse_run.main([
        "--snakemake", f"{sys.executable} fake.py", "--snakefile", "some where/Snakefile", "--cores", "2",
        "--out", "results/demo/rehearsal.json", "--settings", settings, "--log", "rehearse.log",
    ])  # fmt: skip


def test_the_run_within_gets_the_small_config_and_its_jobs_make_the_forecast(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    rate = Rate("preprocess_images", "megapixels", {"side": 32, "size": 32}, 1, False, "m", "r", 1, 8.0, 8.0, 8.0)
    seen: list[Path] = []
    counted: list[str] = []
    known = run_facts.of

    def facts(config: dict[str, Any]) -> Facts:
        counted.append(config["run"])
        return known(config)

    monkeypatch.setattr(run_facts, "of", facts)

    def observed(folder: Path) -> Measured:
        seen.append(folder)
        return Measured([rate], [Start("preprocess_images", False, "m", "r", 1, 1.0, 1.0, 1.0, 100.0)])

    monkeypatch.setattr(measured_rates, "observed", observed)
    assert rehearse(here, "MixLoc: 3 of 9 jobs done", 0) == 0
    arguments, environment = json.loads((here / "asked.json").read_text())
    within = json.loads((here / arguments[arguments.index("--configfile") + 1]).read_text())
    assert within["run"] == "demo-rehearsal" and within["generators"][0]["steps"] < SHIPPED["generators"][0]["steps"]
    assert arguments[arguments.index("--snakefile") + 1] == "some where/Snakefile" and "--nolock" in arguments
    assert "OMP_NUM_THREADS" not in environment, "it limits this job, and not those within"
    assert seen == [Path("results/demo-rehearsal")] and counted == ["demo-rehearsal"], "its tables, if it made some"
    told = json.loads((here / "results/demo/rehearsal.json").read_text())
    stage = next(row for row in told["stages"] if row["stage"] == "preprocess_images")
    # 4,000 images of 4 channels and 32 px, 8 megapixels a second, after a start of 1 s.
    assert stage["seconds"][1] == pytest.approx(1 + 4000 * 4 * 32**2 / 1e6 / 8) and stage["memory"] == 100
    assert "3 of 9 jobs done" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Building DAG\ntrain_ddpm failed: no room to write\n  | more\nError in rule train_ddpm:\nMixLoc: x",
            "no room",
        ),
        ("MixLoc config: arms: no arm 'pol'; did you mean 'pool'?", "did you mean 'pool'?"),
        (
            "MixLoc: 0 of 54 jobs done, about 1 min 00 s left\nError in rule train_ddpm:\nWorkflowError:\n"
            "MixLoc: train_ddpm was killed (x.log); unless you did so, memory ran out",
            "train_ddpm was killed",
        ),
        ("nothing that is known", "Snakemake stopped"),
    ],
)
def test_a_failure_is_told_in_one_line_with_the_place_of_the_rest(
    here: Path, capsys: pytest.CaptureFixture[str], said: str, told: str
) -> None:
    assert rehearse(here, said, 1) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "rehearse_run failed" in line]
    assert len(lines) == 1 and told in lines[0] and "results/demo-rehearsal/snakemake.log" in lines[0]
    assert not (here / "results/demo/rehearsal.json").exists()
    assert said.splitlines()[0] in (here / "results/demo-rehearsal/snakemake.log").read_text()
