"""What an edit of the code makes again: the stages that import the module, and what follows from their outputs.

A table says which stages. It is compared with the digests of the stages, and these with what Snakemake would run."""

from __future__ import annotations

import ast
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT, Checkout
from workflow_scripts.lib.base import source_code

STAGES = frozenset(path.stem for path in (ROOT / "workflow_scripts").glob("*.py")) - {"__init__", "start"}
TRAINING = {"train_classifier", "train_judge", "replay_study"}
GENERATORS = {"train_ddpm", "sample_ddpm", "sample_fold", "replay_study"}
CELLS = {"simulate_cells", "sample_simulator", "train_judge"}
JUDGING = {"aggregate_metrics", "aggregate_stress", "open_lockbox", "report"}
PLOTS = {"plot_arms", "plot_data", "plot_images", "plot_training"}
PREPROCESSING = {"preprocess_images", "preprocess_shard"}
READING = PREPROCESSING | {"check_images", "cut_cells"}

# The stages that an edit of a module makes again by themselves; a module or more of each package.
RERUN = {
    "lib/base/errors.py": STAGES,
    "lib/base/process_pool.py": READING | {"simulate_cells"},
    "lib/images/image_set.py": STAGES
    - PREPROCESSING
    - {
        "clean_run",
        "cut_cells",
        "declare_analysis",
        "fetch_images",
        "fetch_weights",
        "forensics",
        "plot_arms",
        "plot_training",
    }
    - {"simulate_cells", "tabulate_study"},
    "lib/images/image_set_writer.py": READING | {"sample_ddpm", "sample_fold", "sample_simulator", "replay_study"},
    "lib/images/corruptions.py": {"stress_test"},
    "lib/images/copy_test.py": READING,
    "lib/images/duplicates.py": READING,
    "lib/images/nearest_images.py": {"assess_synthetic", "train_classifier"},
    "lib/simulate/laboratory.py": CELLS,
    "lib/split/assignment.py": {"check_images", "make_folds", "train_classifier"},
    "lib/split/label_order.py": {"check_images", "make_folds"},
    # The cost of sampling is counted on the sampler itself.
    "lib/compute/checkpoint.py": GENERATORS | TRAINING | {"predict_cost", "rehearse_run", "stress_test"},
    "lib/download/http_client.py": {"fetch_images", "fetch_weights"},
    "lib/scores/decisions.py": JUDGING
    | TRAINING
    | {
        "certify_leaks",
        "plot_arms",
        "plot_training",
        "sample_ddpm",
        "sample_fold",
        "stress_test",
        "tabulate_study",
        "train_ddpm",
    }
    | {"predict_images", "write_model_package", "write_submission"},
    "lib/scores/f1.py": JUDGING | TRAINING | {"plot_arms", "tabulate_study"},
    "lib/scores/ranking_metrics.py": JUDGING
    | {"assess_synthetic", "plot_arms", "replay_study", "sample_ddpm", "sample_fold", "tabulate_study"},
    # A classifier may have the encoder of a generator.
    "lib/generate/diffusion.py": GENERATORS
    | TRAINING
    | {"assess_synthetic", "embed_images", "open_lockbox", "predict_cost", "rehearse_run"}
    | {"predict_images", "stress_test", "write_model_package", "write_submission"},
    "lib/generate/label_plans.py": {"sample_ddpm", "sample_fold", "sample_simulator", "replay_study"},
    "lib/generate/training_images.py": {"train_ddpm"},
    "lib/classify/classifier_training.py": TRAINING,
    "lib/classify/second_source.py": {"train_classifier"},
    "lib/fidelity/encoder_networks.py": {"assess_synthetic", "embed_images", "predict_images"},
    "lib/fidelity/bracket.py": {"assess_synthetic"},
    # The page names the measures.
    "lib/fidelity/distances.py": {"assess_synthetic", "report"},
    # Declared before any arm, and checked with the config: no arm is trained again.
    "lib/judge/declaration.py": JUDGING | {"declare_analysis", "plot_arms", "rehearse_run"},
    "lib/judge/stress_scores.py": {"aggregate_stress"},
    "lib/judge/inference.py": JUDGING
    | PLOTS
    | {"check_images", "compare_runs", "cut_cells", "forensics", "make_gallery"},
    "lib/study/emulation.py": {"replay_study"},
    "lib/config/views.py": {"predict_cost", "rehearse_run"},
    "lib/cost/forecast.py": {"predict_cost", "rehearse_run"},
    "lib/crate/entities.py": {"write_crate"},
    "lib/page/figure_style.py": PLOTS
    | {"aggregate_stress", "check_images", "compare_runs", "cut_cells", "forensics", "make_gallery", "report"},
    "lib/page/sections/cost_section.py": {"report"},
    "train_ddpm.py": {"train_ddpm"},
    "report.py": {"report"},
}

# What follows from a stage of the tiny preset, by the files that its outputs feed.
USES_IMAGES = {"train_classifier", "assess_synthetic", "certify_leaks", "plot_data", "plot_images", "report"}
RULES_AFTER = {
    "predict_cost": {"report"},
    "simulate_cells": {"preprocess_images"},
    "preprocess_images": {"make_folds", "train_ddpm", "sample_ddpm"} | USES_IMAGES,
    "make_folds": {"train_ddpm", "sample_ddpm"} | USES_IMAGES,
    "train_ddpm": {"sample_ddpm", "plot_training", "certify_leaks"},
    "sample_ddpm": {"train_classifier", "assess_synthetic", "plot_images", "certify_leaks"},
    "train_judge": {"assess_synthetic"},
    "assess_synthetic": {"plot_images", "plot_arms", "report"},
    # Arms do not need what was declared: a change of the analysis trains nothing again.
    "declare_analysis": {"aggregate_metrics"},
    "train_classifier": {"aggregate_metrics", "assess_synthetic", "certify_leaks", "plot_training", "report"},
    "aggregate_metrics": {"certify_leaks", "plot_arms", "report"},
    "certify_leaks": {"report"},
    "plot_data": {"report"},
    "plot_images": {"report"},
    "plot_training": {"report"},
    "plot_arms": {"report"},
    "report": set(),
}
# Dry runs take seconds each: some modules stand for all.
DRY_RUNS = ["lib/generate/label_plans.py", "lib/judge/declaration.py", "report.py"]


def digests(root: Path) -> dict[str, str]:
    return {stage: source_code.stage_digest(stage, root) for stage in STAGES}


def downstream(stages: set[str]) -> set[str]:
    """These stages and all that follows from them."""
    found, waiting = set(stages), list(stages)
    while waiting:
        new = RULES_AFTER[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def reword(path: Path) -> None:
    """Change the comments, docstrings and layout of a module, and its time."""
    text = path.read_text(encoding="utf-8")
    first = ast.get_docstring(ast.parse(text), clean=False)
    changed = text.replace(first, f"Reworded. {first}", 1) if first else text
    path.write_text(f"# Edited.\n{changed}\n\n# The end.\n", encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code."""
    root = tmp_path_factory.mktemp("code")
    shutil.copytree(ROOT / "workflow_scripts", root / "workflow_scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="module")
def unedited(copy: Path) -> dict[str, str]:
    """The digests of that copy, to which each edit returns."""
    return digests(copy)


@pytest.mark.parametrize("module", RERUN)
def test_an_edit_reaches_the_stages_of_the_table(copy: Path, unedited: dict[str, str], module: str) -> None:
    before, file = unedited, copy / "workflow_scripts" / module
    text = file.read_text(encoding="utf-8")
    file.write_text(f"{text}\nEDITED = True\n", encoding="utf-8")
    after = digests(copy)
    file.write_text(text, encoding="utf-8")
    assert {stage for stage in STAGES if before[stage] != after[stage]} == RERUN[module]
    assert digests(copy) == before, "an edit that is taken back makes nothing again"


def test_the_table_has_every_package() -> None:
    packages = {path.name for path in (ROOT / "workflow_scripts" / "lib").iterdir() if (path / "__init__.py").exists()}
    assert {module.split("/")[1] for module in RERUN if module.startswith("lib/")} == packages


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_that_keeps_a_digest_of_code_keeps_its_own(stage: str) -> None:
    """So that what it has made is taken as it is exactly where Snakemake would not have run it again."""
    text = (ROOT / "workflow_scripts" / f"{stage}.py").read_text(encoding="utf-8")
    assert set(re.findall(r"stage_digest\((.*?)\)", text)) <= {f'"{stage}"'}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A run of which Snakemake believes that it is finished: its files are there, empty."""
    checkout = Checkout.fresh(tmp_path_factory.mktemp("pretended") / "checkout")
    planned = checkout.snakemake("--dry-run").stdout
    for names in re.findall(r"^    output: (.*)$", planned, re.MULTILINE):
        for name in names.split(", "):
            path = checkout.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix else path.mkdir()
    checkout.snakemake("--touch", "--forceall")
    assert checkout.planned() == set()
    return checkout


@pytest.fixture
def edited(finished: Checkout) -> Callable[[str], set[str]]:
    """A function that says which rules would run if a module ended in another line."""

    def planned(module: str) -> set[str]:
        file = finished.folder / "workflow_scripts" / module
        text = file.read_text(encoding="utf-8")
        file.write_text(f"{text}\nEDITED = True\n", encoding="utf-8")
        try:
            return finished.planned() - {"all"}
        finally:
            file.write_text(text, encoding="utf-8")

    return planned


@pytest.mark.workflow
@pytest.mark.parametrize("module", DRY_RUNS)
def test_snakemake_runs_these_stages_and_what_follows(edited: Callable[[str], set[str]], module: str) -> None:
    assert edited(module) == downstream(set(RERUN[module]) & set(RULES_AFTER))


@pytest.mark.workflow
def test_rewording_makes_nothing_again(finished: Checkout) -> None:
    before = digests(finished.folder)
    files = sorted((finished.folder / "workflow_scripts").rglob("*.py"))
    texts = {file: file.read_bytes() for file in files}
    for file in files:
        if texts[file]:
            reword(file)
            assert file.read_bytes() != texts[file]
    assert digests(finished.folder) == before, "by the digests that stages keep"
    assert finished.planned() == set(), "and by Snakemake, which sees newer files of another content"
    for file, text in texts.items():
        file.write_bytes(text)
    assert finished.planned() == set()


@pytest.mark.workflow
def test_an_edit_of_the_page_s_template_makes_the_page_again(finished: Checkout) -> None:
    file = finished.folder / "workflow_scripts" / "lib" / "page" / "report.html"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("</html>", " </html>"), encoding="utf-8")
    assert finished.planned() == {"all", "report"}
    file.write_text(text, encoding="utf-8")
    os.utime(file)
    assert finished.planned() == set()


@pytest.mark.workflow
def test_where_snakemake_has_forgotten_nothing_is_made_again(finished: Checkout, tmp_path: Path) -> None:
    """As with results that were copied without .snakemake: what is there counts as up to date, whatever the dates."""
    clone = finished.clone(tmp_path / "clone")
    shutil.rmtree(clone.folder / ".snakemake")
    for file in (clone.folder / "workflow_scripts").rglob("*.py"):
        os.utime(file)
    assert clone.planned() == set()


@pytest.mark.workflow
def test_no_rule_has_code_among_its_inputs(finished: Checkout) -> None:
    done = finished.snakemake("--dry-run", "--forceall").stdout
    inputs = re.findall(r"^    input: (.*)$", done, re.MULTILINE)
    assert inputs
    assert {name.split("/")[0] for line in inputs for name in line.split(", ")} == {"results"}
