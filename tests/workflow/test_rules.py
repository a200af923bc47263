"""The rules: each has all that a rule must have, and one name stands for rule, script, logs and benchmarks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.helpers.checkout import Checkout
from workflow_scripts.lib.config import check

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
# Rules that only collect inputs.
TARGETS = {
    "cells", "check", "clean", "compare", "cost", "crate", "export", "gallery", "lockbox", "model_package", "paper",
    "predict", "rehearse", "submission",
}  # fmt: skip
RULES = {
    name: body
    for path in sorted((ROOT / "rules").glob("*.smk"))
    for name, body in BLOCK.findall(path.read_text(encoding="utf-8"))
    if name not in TARGETS
}
QUOTED = {
    "params.python",
    "params.raw",
    "params.manifest",
    "params.classes",
    "params.baseline",
    "params.weaker",
    "params.origin",
}  # by shlex.quote
OWN = {
    "params.seed",
    "resources.launcher",
    "resources.arms_at_once",
    "resources.strip_minutes",
    "resources.judged_from",
}  # numbers and words of the workflow itself
# `start` writes the config that Snakemake needs before it knows any rule.
STAGES = {path.stem for path in (ROOT / "workflow_scripts").glob("*.py")} - {"__init__", "start"}


AGAIN = {"cut_new_cells": "cut_cells"}  # rules that run the program of another one, for other images


def test_every_stage_has_its_rule_and_every_rule_its_stage() -> None:
    assert set(RULES) - set(AGAIN) == STAGES


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_rule_is_complete(name: str) -> None:
    body = RULES[name]
    assert body.lstrip().startswith('"""'), "says what it makes"
    for directive in ("output", "params", "log", "benchmark", "threads", "resources", "conda", "shell"):
        assert re.search(rf"^    {directive}:", body, re.MULTILINE), directive
    stage = AGAIN.get(name, name)
    assert re.search(rf'^        code=code\("{stage}"[,)]', body.split("    params:")[1], re.MULTILINE), "its own code"
    assert "python=python," in body
    assert f"/logs/{name}/" in body
    assert f"/benchmarks/{name}/" in body
    assert re.search(rf'"\{{params\.python\}} -m (\{{resources\.launcher\}})?workflow_scripts\.{stage}', body)
    assert re.search(r"mem_mb=", body)
    assert re.search(r"runtime=", body)


@pytest.mark.parametrize("name", sorted(RULES))
def test_nothing_reaches_the_shell_unquoted(name: str) -> None:
    shell = RULES[name].split("    shell:", 1)[1]
    for field in re.findall(r"\{([^{}]+)\}", shell):
        # Numbers of the workflow itself, and flags that are quoted where they are put together, stand as they are.
        bare = field.startswith("wildcards.") or field in OWN | QUOTED
        assert field.endswith(":q") or bare, field


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout without results, for dry runs."""
    return Checkout.fresh(tmp_path_factory.mktemp("rules") / "checkout")


def dry_run(checkout: Checkout, *changed: dict, **sections: dict) -> dict[str, dict]:
    """Jobs of a dry run of the tiny preset, by output; synthetic sets and arms are added to those of the preset."""
    preset = yaml.safe_load((ROOT / "presets" / "ci.yaml").read_text(encoding="utf-8"))
    synthetic_set = next(
        synthetic_set for synthetic_set in preset["synthetic_sets"] if synthetic_set["name"] == "as_train"
    )
    overlay = {"synthetic_sets": list(preset["synthetic_sets"]), "arms": list(preset["arms"])}
    for change in changed:
        overlay["synthetic_sets"].append(synthetic_set | change)
        overlay["arms"].append({"name": f"pool_{change['name']}", "method": "pool", "synthetic_set": change["name"]})
    # The baseline is found wherever it stands in the list.
    overlay["arms"] = overlay["arms"][1:] + overlay["arms"][:1]
    (checkout.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay | sections), encoding="utf-8")
    done = checkout.snakemake("--dry-run", "--printshellcmds", "--configfile", "presets/ci.yaml", "overlay.yaml")
    jobs = {}
    for block in done.stdout.split("\n\n"):
        lines = dict(re.findall(r"^\s+(input|output|jobid): (.*)$", block, re.MULTILINE))
        if "output" in lines:
            jobs[lines["output"].split(", ")[0]] = lines | {"inputs": lines.get("input", "").split(", "), "text": block}
    return jobs


def arms_of(job: dict) -> list[str]:
    return re.findall(r'"method": "\w+", "name": "(\w+)"', job["text"])


@pytest.mark.workflow
def test_several_processes_are_launched_for_training_alone(checkout: Checkout) -> None:
    (checkout.folder / "overlay.yaml").write_text("compute: {processes: 2}\n", encoding="utf-8")
    options = ("--dry-run", "--printshellcmds", "--configfile", "presets/ci.yaml", "overlay.yaml")
    done = checkout.snakemake(*options, cores=2)
    launched = r"python -m torch\.distributed\.run --standalone .*--nproc-per-node=2 -m -- workflow_scripts\.(\w+)"
    assert set(re.findall(launched, done.stdout)) == {"train_ddpm", "train_classifier"}
    plain = set(re.findall(r"python -m workflow_scripts\.(\w+)", done.stdout))
    assert "sample_ddpm" in plain and not plain & {"train_ddpm", "train_classifier"}
    jobs = [block for block in done.stdout.split("\n\n") if re.search(launched, block)]
    assert jobs and all("threads: 2\n" in job for job in jobs), "one for each process"


@pytest.mark.workflow
def test_the_numbers_of_no_stage_depend_on_the_number_of_cores(checkout: Checkout) -> None:
    # Snakemake gives numpy as many threads as a job gets, which sums in another order.
    done = checkout.snakemake("--dry-run", "--printshellcmds", "--configfile", "presets/ci.yaml", cores=4)
    commands = re.findall(r"^Shell command: (.*\bworkflow_scripts\..*)$", done.stdout, re.MULTILINE)
    assert len(commands) > 10
    assert not [line for line in commands if not line.startswith("OPENBLAS_NUM_THREADS=1 ")]


@pytest.mark.workflow
def test_the_reference_study_can_be_planned(checkout: Checkout) -> None:
    models = {
        "models": [{"name": "plain", "method": "real_only"}],
        "switches": ["image_split"],
        "runs": 2,
        "repeats": 1,
    }
    overlay = {"forensics": models | {"synthetic_sets": {"study": "minimal", "mixloc": "as_train"}}}
    (checkout.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    options = ("--dry-run", "--configfile", "presets/ci.yaml", "overlay.yaml")
    assert {"certify_leaks_of_replay", "tabulate_study"} <= checkout.planned("forensics", "paper", *options)


@pytest.mark.workflow
def test_what_asks_the_baseline_comes_after_it(checkout: Checkout) -> None:
    against = {"guidance": {"scale": 2.0, "interval": [0.2, 20], "against": "confused"}}
    jobs = dry_run(checkout, {"name": "apart"} | against, {"name": "feedback", "labels": "feedback"})
    fold = "results/ci/repeat0/fold1"
    first = f"{fold}/arms/job0.json"
    # The baseline waits for nothing, and nothing but it is waited for.
    assert arms_of(jobs[first]) == ["real_only"] and "--baseline" not in jobs[first]["text"]
    assert not any("synthetic" in path or "batch" in path for path in jobs[first]["inputs"])
    for synthetic_set in ("apart", "feedback"):
        job = jobs[f"{fold}/synthetic/{synthetic_set}.h5"]
        assert first in job["inputs"] and f"--baseline {first}" in job["text"]
    assert first not in jobs[f"{fold}/synthetic/as_train.h5"]["inputs"]
    batches = {path: arms_of(job) for path, job in jobs.items() if path.startswith(f"{fold}/arms/")}
    assert sorted(batches) == [f"{fold}/arms/job{number}.json" for number in range(3)]
    assert batches[f"{fold}/arms/job1.json"] == ["pool", "resample_real", "mix_loss"]
    assert batches[f"{fold}/arms/job2.json"] == ["pool_apart", "pool_feedback"]
    # These have what they need of the baseline in their synthetic sets.
    assert "--baseline" not in jobs[f"{fold}/arms/job2.json"]["text"]


@pytest.mark.workflow
def test_sets_that_ask_no_baseline_are_sampled_together_where_that_is_asked(checkout: Checkout) -> None:
    more, asking = {"name": "more", "count": 9}, {"name": "feedback", "labels": "feedback"}
    jobs = dry_run(checkout, more, asking, compute={"sets_together": True})
    fold = "results/ci/repeat0/fold1"
    together = next(job for job in jobs.values() if "workflow_scripts.sample_fold" in job["text"])
    made = [path.rpartition("/")[2] for path in together["output"].split(", ")]
    assert {"as_train.h5", "more.h5"} <= set(made) and "feedback.h5" not in made
    assert "workflow_scripts.sample_ddpm" in jobs[f"{fold}/synthetic/feedback.h5"]["text"]
    alone = [job for job in jobs.values() if "workflow_scripts.sample_ddpm" in job["text"]]
    assert {job["output"].rpartition("/")[2] for job in alone} == {"feedback.h5"}
    assert not any("arms/" in path for path in together["inputs"]), "it waits for no baseline"


@pytest.mark.workflow
def test_where_nothing_asks_the_baseline_it_shares_its_job(checkout: Checkout) -> None:
    jobs = dry_run(checkout)
    assert arms_of(jobs["results/ci/repeat0/fold0/arms/job0.json"]) == ["real_only", "pool", "resample_real"]
    own = [job for job in jobs.values() if re.search(r"workflow_scripts\.(train_classifier|sample_ddpm)", job["text"])]
    assert own and not any("--baseline" in job["text"] for job in own)


@pytest.mark.workflow
def test_a_method_that_asks_the_baseline_gets_it(checkout: Checkout, tmp_path: Path) -> None:
    asking = checkout.clone(tmp_path / "clone")
    method = 'METHODS["mix_loss"]'
    line = f"\n{method} = __import__('dataclasses').replace({method}, needs_baseline=True)\n"
    asking.edit("workflow_scripts/lib/classify/arm_choices.py", None, line)
    jobs = dry_run(asking)
    fold = "results/ci/repeat0/fold0"
    job = jobs[f"{fold}/arms/job2.json"]
    assert arms_of(job) == ["mix_loss"] and f"{fold}/arms/job0.json" in job["inputs"]
    assert f"--baseline {fold}/arms/job0.json" in job["text"]


def test_a_baseline_that_needs_a_baseline_is_refused() -> None:
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    config["synthetic_sets"].append(config["synthetic_sets"][0] | {"name": "errs", "labels": "feedback"})
    config["arms"].append({"name": "circular", "method": "pool", "synthetic_set": "errs"})
    config["analysis"]["baseline"] = "circular"
    with pytest.raises(check.ConfigError, match=r"analysis\.baseline = 'circular'.*real_only"):
        check.check(config)


@pytest.mark.workflow
def test_the_map_can_be_planned(checkout: Checkout) -> None:
    done = checkout.snakemake("--dry-run", "--printshellcmds", "--configfile", "presets/map.yaml")
    blocks = done.stdout.split("\n\n")
    trained = [block for block in blocks if "-m workflow_scripts.train_ddpm" in block]
    assert len(trained) == 3 * 2 * 13, "in each repeat, two budgets: three kinds in four regimes, one of all labels"
    # What learns from the baseline's answers waits for the baseline of its own regime.
    [pseudo] = [block for block in trained if "repeat2/fold0/generators/tenth_pseudo.safetensors" in block]
    waited = re.search(r"--baseline (\S+)", pseudo)
    assert waited and waited[1] in pseudo.split("output:")[0]
    [asked] = [block for block in blocks if f"output: {waited[1]}" in block]
    assert arms_of({"text": asked}) == ["real_tenth"]
    [judged] = [block for block in blocks if "-m workflow_scripts.aggregate_metrics" in block]
    for name, sees, labelled in (
        ("full", "labelled", 1), ("tenth_pseudo", "pseudo_labelled", 0.1), ("half_unlabelled", "unlabelled", 0.5),
        ("fresh", "simulator", 1),
    ):  # fmt: skip
        assert re.search(rf'"{name}": {{"labelled": {labelled}(\.0)?, "sees": "{sees}"}}', judged), name


@pytest.mark.workflow
def test_embeddings_are_computed_for_what_arms_learn_from(checkout: Checkout, tmp_path: Path) -> None:
    table = tmp_path / "features.h5"
    table.touch()
    head = {"name": "head", "method": "real_only", "backbone": "embedding_linear"}
    overlay = {"embeddings": {"table": str(table)}, "arms": [{"name": "real_only", "method": "real_only"}, head]}
    overlay |= {"analysis": {"primary_arm": "head"}, "stress_test": {"corruptions": []}}
    (checkout.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    options = ("--dry-run", "--printshellcmds", "--configfile", "presets/ci.yaml", "overlay.yaml")
    shown = checkout.snakemake(*options).stdout
    assert re.findall(r"output: (\S+\.embeddings\.h5)", shown) == ["results/ci/images.embeddings.h5"]
    assert f"input: results/ci/images.h5, {table}" in shown
    assert "--embeddings =results/ci/images.embeddings.h5" in shown
