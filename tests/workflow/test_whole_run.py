"""The whole workflow on the tiny preset: a full run, and what happens when things are edited, killed or broken."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.checkout import JOB, OTHER_CORES, Checkout, kill, processes, wait_for, weights, weights_of

pytestmark = pytest.mark.workflow

GENERATOR = "repeat0/fold0/generators/unet.safetensors"
STAGES = (
    "predict_cost", "simulate_cells", "preprocess_images", "make_folds", "train_ddpm", "sample_ddpm", "train_judge",
    "assess_synthetic", "declare_analysis", "train_classifier", "aggregate_metrics", "certify_leaks", "plot_data",
    "plot_images", "plot_training", "plot_arms", "report",
)  # fmt: skip


def test_full_run_leaves_a_report_and_a_clean_certificate(finished: Checkout) -> None:
    page = (finished.run / "report.html").read_text(encoding="utf-8")
    assert "</html>" in page
    with (finished.run / "leaks.csv").open() as handle:
        checks = list(csv.DictReader(handle))
    assert {check["status"] for check in checks} == {"clean"}
    # Every kind of artefact was really looked at, and had really read something.
    for kind in ("generator", "synthetic", "arm", "thresholds"):
        assert any(check["artefact"].startswith(kind) and int(check["images"]) > 0 for check in checks), kind
    assert not list(finished.run.rglob("*.resume.pt")), "checkpoints are removed when training is done"
    assert not list(finished.run.rglob("*.part*")), "nothing half-written is left"
    for stage in STAGES:
        assert list((finished.run / "logs" / stage).glob("*.log")), f"{stage} has no log"


def test_the_page_of_its_progress_says_that_it_is_finished(finished: Checkout) -> None:
    page = (finished.run / "progress.html").read_text(encoding="utf-8")
    assert "Finished: all" in page and 'href="report.html"' in page and 'http-equiv="refresh"' not in page
    for title in ("Generators: training loss", "Classifiers: training loss", "Classifiers: validation mAP"):
        assert title in page
    assert "unet, repeat 0, fold 0" in page and "data:image/png;base64," in page, "samples"


def test_second_run_has_nothing_to_do(finished: Checkout) -> None:
    started = time.monotonic()
    assert "Nothing to be done" in finished.snakemake().stdout
    assert time.monotonic() - started < 30


STRESS = """
stress_test: {corruptions: [defocus, bleed_through], draws: 100}
arms:
  - {name: real_only, method: real_only}
  - {name: pool, method: pool, synthetic_set: as_train, ratio: 0.5, control: resample_real}
  - {name: resample_real, method: resample_real, synthetic_set: as_train, ratio: 0.5}
  - {name: mix_loss, method: mix_loss, synthetic_set: minimal}
  - {name: classical, method: real_only, backbone: classical}
"""


def test_a_stress_test_trains_nothing_and_reaches_the_page(clone: Checkout, tmp_path: Path) -> None:
    (tmp_path / "stress.yaml").write_text(STRESS, encoding="utf-8")
    files = sorted(clone.run.glob("repeat*/fold*/arms/*/classifier.safetensors"))
    before = {path: weights(path) for path in files}
    clone.snakemake("--configfile", "presets/ci.yaml", str(tmp_path / "stress.yaml"))
    assert files and {path: weights(path) for path in files} == before, "the arms that were there are kept"
    with (clone.run / "metrics.csv").open() as handle:
        known = {
            tuple(row[key] for key in ("arm", "repeat", "fold", "metric")): row["value"]
            for row in csv.DictReader(handle)
            if (row["part"], row["level"], row["class"]) == ("test", "image", "")
        }
    with (clone.run / "stress.csv").open() as handle:
        clean = [row for row in csv.DictReader(handle) if row["strength"] == "0"]
    assert {row["arm"] for row in clean} == {"real_only", "pool", "resample_real", "mix_loss", "classical"}
    for row in clean:
        assert row["value"] == known[tuple(row[key] for key in ("arm", "repeat", "fold", "metric"))]
    with (clone.run / "leaks.csv").open() as handle:
        checks = [row for row in csv.DictReader(handle) if row["artefact"] == "stress test"]
    assert {row["status"] for row in checks} == {"clean"} and {row["purpose"] for row in checks} >= {"fit", "scored"}
    page = (clone.run / "report.html").read_text(encoding="utf-8")
    assert 'id="stress"' in page and "defocus" in page
    assert (
        "Nothing to be done" in clone.snakemake("--configfile", "presets/ci.yaml", str(tmp_path / "stress.yaml")).stdout
    )


REPLAY = """
forensics:
  models:
    - {name: plain, method: real_only}
    - {name: mixed, method: mix_loss}
  switches: [image_split, shared_batchnorm, test_in_training_mode, thresholds_on_reported]
  runs: 4
  repeats: 1
  training: {steps: 10, batch: 16, checkpoints: 2, learning_rate: 0.002}
  synthetic_sets: {study: minimal, mixloc: as_train}
  count: 20
"""


def test_the_replay_of_the_study_goes_from_one_command_to_the_page(clone: Checkout, tmp_path: Path) -> None:
    (tmp_path / "replay.yaml").write_text(REPLAY, encoding="utf-8")
    overlay = ("--configfile", "presets/ci.yaml", str(tmp_path / "replay.yaml"))
    clone.snakemake("paper", *overlay)
    assert 'id="study"' in (clone.run / "report.html").read_text(encoding="utf-8")
    clone.snakemake("forensics", *overlay)
    with (clone.run / "forensics.csv").open() as handle:
        found = {(row["model"], row["switch"]) for row in csv.DictReader(handle) if row["kind"] == "main"}
    both = {"image_split", "test_in_training_mode", "thresholds_on_reported"}
    assert found >= {(model, switch) for model in ("plain", "mixed") for switch in both} | {
        ("mixed", "shared_batchnorm")
    }
    with (clone.run / "forensics_leaks.csv").open() as handle:
        broken = {row["status"] for row in csv.DictReader(handle)} - {"clean"}
    assert broken == {"declared"}, "what the switches break, and nothing else"
    # Told on the page when that is made again.
    clone.snakemake("paper", *overlay)
    assert 'id="forensics"' in (clone.run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("change", ["processes: 2", "arms_at_once: 2, strip_minutes: 5"])
def test_how_a_training_is_spread_trains_nothing_again(finished: Checkout, tmp_path: Path, change: str) -> None:
    (tmp_path / "overlay.yaml").write_text(f"compute: {{{change}}}\n", encoding="utf-8")
    # The page shows all settings, and what they cost.
    planned = finished.planned("--configfile", "presets/ci.yaml", str(tmp_path / "overlay.yaml"))
    assert planned - {"all"} <= {"predict_cost", "report"}


def test_another_number_of_cores_predicts_again_and_does_nothing_else(finished: Checkout) -> None:
    planned = set(JOB.findall(finished.snakemake("--dry-run", cores=OTHER_CORES).stdout))
    assert planned - {"all"} == {"predict_cost", "report"}


def test_changing_strategies_retrains_those_only(clone: Checkout) -> None:
    arms = clone.run / "repeat0/fold0/arms"
    before = {path.parent.name: path.stat().st_mtime_ns for path in arms.glob("*/predictions.h5")}
    # An arm and its control, which must keep the same ratio.
    for _ in range(2):
        clone.edit("presets/ci.yaml", "ratio: 0.5", "ratio: 0.6")
    clone.snakemake("results/ci/metrics.csv")
    after = {path.parent.name: path.stat().st_mtime_ns for path in arms.glob("*/predictions.h5")}
    assert {name for name in before if before[name] != after[name]} == {"pool", "resample_real"}


def test_killed_stage_goes_on_from_its_checkpoint(finished: Checkout, tmp_path: Path) -> None:
    checkout = finished.clone(tmp_path / "killed")
    output = checkout.run / GENERATOR
    expected = output.read_bytes()
    resume = output.with_name("unet.resume.pt")
    command = stage_command(checkout, "train_ddpm", str(output.relative_to(checkout.folder)))
    output.unlink()
    where = {"cwd": checkout.folder, "env": checkout.environment(warm=False), "shell": True}
    for _ in range(2):
        process = subprocess.Popen(command, start_new_session=True, **where)
        stamp = resume.stat().st_mtime_ns if resume.exists() else 0
        wait_for(lambda stamp=stamp: resume.exists() and resume.stat().st_mtime_ns > stamp)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not output.exists()
    done = subprocess.run(command, capture_output=True, text=True, **where)
    assert done.returncode == 0, done.stderr
    assert "going on from" in done.stderr
    assert weights(output) == weights_of(expected)


def test_killed_snakemake_and_its_orphan(finished: Checkout, tmp_path: Path) -> None:
    """Killed at the first generator, then finished with another number of cores: every number is the same."""
    checkout = finished.clone(tmp_path / "orphan")
    # The other fold, whose numbers must come out the same, is there already.
    for made in (checkout.run / "repeat0/fold0", checkout.run / "metrics.csv"):
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    output = checkout.run / GENERATOR
    metrics = checkout.run / "metrics.csv"
    process = checkout.start(str(output.relative_to(checkout.folder)), cores=OTHER_CORES)
    marker = str(tmp_path / "orphan")
    resume = output.with_name("unet.resume.pt")
    wait_for(resume.exists)
    orphans = [pid for pid in processes("train_ddpm") if str(Path(f"/proc/{pid}/cwd").readlink()).startswith(marker)]
    kill(process.pid)
    process.wait()
    assert orphans, "the stage outlives Snakemake"
    checkout.snakemake("--unlock")
    checkout.snakemake(str(metrics.relative_to(checkout.folder)), cores=OTHER_CORES)
    assert weights(output) == weights(finished.run / GENERATOR)
    assert metrics.read_bytes() == (finished.run / "metrics.csv").read_bytes()


def test_planted_leak_fails_the_run(clone: Checkout) -> None:
    # A loader that, asked for train rows to fit on, slips in a test image.
    clone.edit(
        "workflow_scripts/lib/images/image_set.py",
        "        chosen = self._rows(rows)\n        record = ",
        "        chosen = self._rows(rows)\n"
        "        if purpose == 'fit' and 'syn-' not in str(self.ids[0]):\n"
        "            import csv\n"
        "            table = list(csv.DictReader(open('results/ci/repeat0/folds.csv')))\n"
        "            test = [row for row, line in enumerate(table) if line['fold0'] == 'test']\n"
        "            chosen = np.concatenate([chosen[1:], test[:1]])\n"
        "        record = ",
    )
    # What is read matters here, not how long is trained, nor in how many folds.
    shorter = [("  steps: 12\n", "  steps: 4\n"), ("steps: 60", "steps: 4"), ("folds: 2", "folds: 1")]
    arm = "  - {name: mix_loss, method: mix_loss, synthetic_set: minimal}\n"
    for old, new in (*shorter, (arm, "")):
        clone.edit("presets/ci.yaml", old, new)
    done = clone.snakemake("results/ci/leaks.csv", check=False)
    assert done.returncode != 0
    assert "LEAK" in done.stdout
    assert not (clone.run / "leaks.csv").exists()
    assert "certify_leaks" in done.stdout


@pytest.mark.parametrize(
    ("overlay", "named"),
    [
        ("steps: 3", "steps"),
        ("compute: {threads: many}", "compute.threads"),
        ("make_folds: {folds: 40}", "make_folds.fractions.test"),
        ("arms: [{name: pool, method: pool, synthetic_set: nowhere, ratio: 0.5}]", "nowhere"),
        ("synthetic_sets: [{name: a}]", "synthetic_sets[0]"),
    ],
)
def test_bad_config_is_one_line_before_any_job(finished: Checkout, tmp_path: Path, overlay: str, named: str) -> None:
    preset = tmp_path / "bad.yaml"
    preset.write_text(overlay)
    done = subprocess.run(
        finished.command("--dry-run", overlays=(str(preset),)), cwd=finished.folder, env=finished.environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "MixLoc config" in line]
    assert done.returncode != 0
    assert len(lines) == 1
    assert named in lines[0]
    assert "Traceback" not in done.stdout + done.stderr


def stage_command(checkout: Checkout, rule: str, target: str) -> str:
    """The stage's command line as `snakemake -np` prints it for a target."""
    lines = checkout.snakemake("--dry-run", "--printshellcmds", "--forcerun", rule, "--", target).stdout.splitlines()
    marker = f"python -m workflow_scripts.{rule} "
    return next(line[line.index(marker) :] for line in lines if marker in line)
