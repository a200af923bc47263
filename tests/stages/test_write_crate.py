"""write_crate: the folder of a run becomes an RO-Crate that the public validator accepts."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.helpers.small_run import SmallRun
from workflow_scripts import write_crate

TERMS = Path(__file__).resolve().parents[1] / "reference" / "ro-crate-1.1-terms.json"
# Runs in the environment of the validator, which else asks the network for the terms of RO-Crate.
VALIDATE = """import io, pathlib, sys
import requests, urllib3
def send(self, request, **options):
    if not request.url.endswith("/ro/crate/1.1/context"):
        raise requests.ConnectionError(request.url)
    body, headers = io.BytesIO(pathlib.Path(sys.argv[2]).read_bytes()), {"Content-Type": "application/ld+json"}
    return self.build_response(request, urllib3.HTTPResponse(body, headers, 200, preload_content=False))
requests.adapters.HTTPAdapter.send = send
from rocrate_validator import models, services
settings = models.ValidationSettings(rocrate_uri=sys.argv[1], profile_identifier="workflow-run-crate-0.5",
                                     requirement_severity=models.Severity.REQUIRED, no_cache=True)
found = [f"{issue.check.identifier}: {issue.message}" for issue in services.validate(settings).get_issues()]
print("\\n".join(found) or "valid")
"""


@pytest.fixture(scope="module")
def crate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run that the stage has made a crate of; its table of labels lies elsewhere."""
    folder = tmp_path_factory.mktemp("crate")
    run = SmallRun(folder / "small")
    for name in ("report.html", "metrics.csv", "comparisons.csv"):
        run.path(name).write_text(name)
    run.path("analysis.json").write_text(json.dumps({"answer": {"sentence": "On 12 images, pool helps."}}))
    run.path("declaration.json").write_text(json.dumps({"declared_at": "2026-03-01T10:00:00+00:00", "hash": "ab12"}))
    run.path("leaks.csv").write_text("artefact,status\narm pool,clean\narm pool,clean\narm other,declared\n")
    run.path("tables").mkdir()
    run.path("tables/versions.csv").write_text(
        "what,version,pinned\nMixLoc,0.1.0,\nsnakemake,9.27.1,9.27.1\nprocessor,Abacus,\n"
    )
    run.path("logs/report").mkdir(parents=True)
    run.path("logs/report/report.log").write_text("2026-03-01 10:00:00 INFO report, process 1\n")
    (folder / "labels.csv").write_text("Id,Target\n")
    config = {"run": "small", "seed": 1, "data": {"images": str(folder / "cells"), "table": "labels.csv"}}
    status = write_crate.main(
        ["--run-dir", str(run.folder), "--arms", *run.arms, "--folds", str(run.path("repeat0/folds.csv"))]
        + ["--tables", f"table={folder / 'labels.csv'}", "--out", str(run.path("ro-crate-metadata.json"))]
        + ["--workflow", str(run.path("workflow")), "--log", str(folder / "log.txt")]
        + ["--settings", json.dumps({"config": config, "licence": ""})]
    )
    assert status == 0
    return run.folder


@pytest.fixture(scope="module")
def graph(crate: Path) -> dict[str, dict]:
    """Entities of the crate by @id."""
    made = json.loads((crate / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    return {entity["@id"]: entity for entity in made["@graph"]}


def ids(value: object) -> list[str]:
    """All @ids that a value refers to."""
    values = value if isinstance(value, list) else [value]
    return [each["@id"] for each in values if isinstance(each, dict)]


def test_every_reference_is_an_entity_or_a_page(graph: dict[str, dict]) -> None:
    asked = {name for entity in graph.values() for value in entity.values() for name in ids(value)}
    assert not [name for name in asked if name not in graph and not name.startswith("http")]


def test_every_file_is_there_with_its_checksum(graph: dict[str, dict], crate: Path) -> None:
    files = [entity for entity in graph.values() if "File" in entity["@type"] and "sha256" in entity]
    assert len(files) > 10
    for entity in files:
        assert entity["sha256"] == hashlib.sha256((crate / unquote(entity["@id"])).read_bytes()).hexdigest()


def test_the_run_leads_from_inputs_and_settings_to_results(graph: dict[str, dict]) -> None:
    [run] = [entity for entity in graph.values() if entity["@type"] == "CreateAction"]
    assert {"images.h5", "#table/table", "#setting/seed"} <= set(ids(run["object"]))
    results = set(ids(run["result"]))
    assert {"report.html", "metrics.csv", "declaration.json", "leaks.csv"} <= results
    assert "repeat0/fold1/arms/pool/classifier.safetensors" in results
    assert ids(run["instrument"]) == ids(graph["./"]["mainEntity"]) == ["workflow/Snakefile"]


def test_declaration_certificate_licence_and_versions_are_told(graph: dict[str, dict]) -> None:
    assert "hash ab12" in graph["declaration.json"]["description"]
    assert graph["leaks.csv"]["description"].endswith("2 clean, 1 declared")
    assert graph[ids(graph["./"]["license"])[0]]["name"] == "CC BY 4.0"
    assert "pool helps" in graph["./"]["description"]
    assert graph["#software/snakemake"]["softwareVersion"] == "9.27.1"
    assert graph["workflow/Snakefile"]["runtimePlatform"] == "Abacus"


def test_no_place_of_this_machine_is_told(crate: Path) -> None:
    for name in ("ro-crate-metadata.json", "workflow/run.json"):
        assert str(crate.parent) not in (crate / name).read_text(encoding="utf-8")


def test_the_terms_of_the_crate_are_those_that_the_validator_is_told(graph: dict[str, dict]) -> None:
    known = json.loads(TERMS.read_text(encoding="utf-8"))["@context"].keys() | {"sha256"}
    kinds = [entity["@type"] for entity in graph.values()]
    used = {kind for each in kinds for kind in ([each] if isinstance(each, str) else each)}
    used |= {key for entity in graph.values() for key in entity if not key.startswith("@")}
    assert used <= known


@pytest.fixture(scope="module")
def validator() -> Path:
    """The Python of the public validator, which wants other versions of packages than MixLoc."""
    program = shutil.which("rocrate-validator")
    if program is None:
        pytest.skip("rocrate-validator is not on the PATH: pip install roc-validator, in an environment of its own")
    return Path(program).with_name("python")


def validated(python: Path, crate: Path) -> str:
    command = [str(python), "-c", VALIDATE, str(crate), str(TERMS)]
    done = subprocess.run(command, cwd=crate.parent, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_public_validator_accepts_the_crate(validator: Path, crate: Path) -> None:
    assert validated(validator, crate) == "valid"


def test_the_public_validator_refuses_a_crate_without_its_run(validator: Path, crate: Path, tmp_path: Path) -> None:
    made = json.loads((crate / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    for entity in made["@graph"]:
        if entity["@type"] == "CreateAction":
            del entity["instrument"]
    shutil.copytree(crate, tmp_path / "crate")
    (tmp_path / "crate" / "ro-crate-metadata.json").write_text(json.dumps(made), encoding="utf-8")
    assert "instrument" in validated(validator, tmp_path / "crate")
