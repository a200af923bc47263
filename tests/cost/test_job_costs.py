"""The cost of a run: its jobs are those of the workflow, its rates those that were measured, and nothing is made up."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from snakemake.utils import update_config

from benchmarks import overhead
from tests.helpers.checkout import Checkout
from tests.helpers.configs import DEFAULT
from workflow_scripts import predict_cost
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.config import check
from workflow_scripts.lib.cost import flops, forecast, job_costs, measured_rates, run_facts, scheduling, workloads
from workflow_scripts.lib.cost.forecast import Here
from workflow_scripts.lib.cost.workloads import Facts, Job, Network, Workload
from workflow_scripts.lib.generate import diffusion, sampling
from workflow_scripts.lib.generate.diffusion import Condition, Guidance
from workflow_scripts.lib.page import html_page
from workflow_scripts.lib.page.sections import cost_section

ROOT = Path(__file__).resolve().parents[2]
FACTS = Facts(4000, 10, 32)


def config(preset: str | None = None, **changed: Any) -> dict[str, Any]:
    """The checked default config, with a preset and some sections changed."""
    out = copy.deepcopy(DEFAULT)
    overlay = yaml.safe_load((ROOT / "presets" / preset).read_text(encoding="utf-8")) if preset else {}
    for layer in (overlay, changed):
        update_config(out, layer)
    return check.check(out)


class Simple:
    """Networks of round figures."""

    def classifier(self, backbone: str, channels: int, classes: int, size: int, frozen: bool) -> Network:
        """One that computes its size."""
        return Network(size**2, 3 * size**2, 4000)

    def generator(self, generator: dict[str, Any], channels: int, classes: int, size: int) -> Network:
        """The same."""
        return Network(size**2, 3 * size**2, 8000)

    def calls(self, generator: dict[str, Any], synthetic_set: dict[str, Any]) -> float:
        """No guidance."""
        return synthetic_set["evaluations"]


def jobs_of(given: dict[str, Any], facts: Facts = FACTS) -> dict[str, Job]:
    return {job.key: job for job in job_costs.jobs_of(given, facts, Simple(), 2)}


OWN = {"architecture": "resnet18", "weights": "own.safetensors", "channels": None, "size": 64}
OWN |= {"normalise": {"mean": [0.5], "std": [0.5]}}


def on_embeddings(synthetic_set: str) -> list[dict[str, Any]]:
    """A head on features of real images, one that also learns from a synthetic set, and the control of that."""
    head = {"backbone": "embedding_linear"}
    pooled = head | {"synthetic_set": synthetic_set, "baseline": "head"}
    return [
        head | {"name": "head", "method": "real_only"},
        pooled | {"name": "head_pool", "method": "pool", "control": "head_again"},
        pooled | {"name": "head_again", "method": "resample_real"},
    ]


# The model against the workflow ------------------------------------------------------------------------------------


def planned(checkout: Checkout, *overlays: str) -> dict[str, set[str]]:
    """The jobs that Snakemake would run, named as here, and those that each waits for, directly or through others."""
    options = ("--dry-run", "--printshellcmds", "--forceall", "--configfile", "presets/ci.yaml", *overlays)
    direct, makers = {}, {}
    for block in checkout.snakemake(*options).stdout.split("\n\n"):
        lines = dict(re.findall(r"^\s+(input|output|log): (.*)$", block, re.MULTILINE))
        named = re.search(r"/logs/(.+)\.log$", lines.get("log", ""))
        if named:
            direct[named[1]] = lines.get("input", "").split(", ")
            makers |= dict.fromkeys(lines["output"].split(", "), named[1])
    return closed({key: {makers[path] for path in paths if path in makers} for key, paths in direct.items()})


def closed(direct: dict[str, set[str]]) -> dict[str, set[str]]:
    """All that each waits for, in place of what it waits for directly."""
    out: dict[str, set[str]] = {}

    def of(key: str) -> set[str]:
        if key not in out:
            out[key] = set(direct[key]).union(*map(of, direct[key]))
        return out[key]

    return {key: of(key) for key in direct}


@pytest.mark.workflow
def test_jobs_are_those_of_the_workflow_and_wait_for_the_same(tmp_path):
    checkout = Checkout.fresh(tmp_path / "checkout")
    preset = yaml.safe_load((ROOT / "presets" / "ci.yaml").read_text(encoding="utf-8"))
    synthetic_set = preset["synthetic_sets"][0]
    against = {"guidance": {"scale": 2.0, "interval": [0.2, 20], "against": "confused"}}
    fresh = {"name": "fresh", "generator": "simulator", "labels": "as_train", "count": 20}
    synthetic_sets = [
        *preset["synthetic_sets"],
        synthetic_set | {"name": "apart"} | against,
        synthetic_set | {"name": "errs", "labels": "feedback"},
        fresh,
    ]
    pools = [{"name": f"pool_{name}", "method": "pool", "synthetic_set": name} for name in ("apart", "errs", "fresh")]
    started = {"name": "started", "method": "real_only", "backbone": "resnet18", "weights": "imagenet"}
    plain = {"name": "plain", "method": "real_only", "backbone": "classical"}
    keen = {"name": "keen", "method": "filtered", "synthetic_set": "as_train"}
    overlay = {
        "synthetic_sets": synthetic_sets,
        "arms": [*preset["arms"], *pools, keen, started, plain],
        "preprocess_images": {"shards": 2, "size": 32},
        "make_folds": {"repeats": 2},
        "stress_test": {"corruptions": ["defocus"]},
    }
    same_jobs(checkout, overlay)


@pytest.mark.workflow
def test_jobs_that_embed_images_are_those_of_the_workflow(tmp_path, monkeypatch):
    # Apart from the others, as arms on embeddings go without a stress test.
    checkout = Checkout.fresh(tmp_path / "checkout")
    preset = yaml.safe_load((ROOT / "presets" / "ci.yaml").read_text(encoding="utf-8"))
    (checkout.folder / "own.safetensors").touch()
    monkeypatch.chdir(checkout.folder)
    arms = [*preset["arms"], *on_embeddings("as_train")]
    same_jobs(checkout, {"arms": arms, "embeddings": {"encoder": OWN}, "stress_test": {"corruptions": []}})


def same_jobs(checkout: Checkout, overlay: dict[str, Any]) -> None:
    """Check that the jobs of the model and of Snakemake are the same, and what they wait for."""
    (checkout.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    found = planned(checkout, "overlay.yaml")
    known = jobs_of(config("ci.yaml", **overlay))
    assert set(found) == set(known)
    assert closed({key: set(job.after) for key, job in known.items()}) == found


@pytest.mark.workflow
def test_pieces_of_the_reading_go_and_nothing_is_made_again(tmp_path):
    checkout = Checkout.fresh(tmp_path / "checkout")
    (checkout.folder / "overlay.yaml").write_text("preprocess_images: {shards: 2}\n", encoding="utf-8")
    more = ("--configfile", "presets/ci.yaml", "overlay.yaml")
    folds = "results/ci/repeat0/folds.csv"
    checkout.snakemake(folds, *more)
    assert list((checkout.run / "benchmarks" / "preprocess_shard").glob("*.tsv"))
    assert not list((checkout.run / "shards").glob("*")), "what tells of the pieces went with them"
    assert "Nothing to be done" in checkout.snakemake(folds, *more).stdout
    checkout.edit("presets/ci.yaml", "method: mix_loss, synthetic_set: minimal", "method: pool, synthetic_set: minimal")
    made = checkout.planned(*more)
    assert "train_classifier" in made
    assert not made & {"simulate_cells", "preprocess_shard", "preprocess_images", "make_folds"}


def test_edits_that_cost_nothing_predict_nothing_again():
    plain = config()
    told = config(data={"origin": "our microscope"}, report={"title": "Another"}, analysis={"metric": "map"})
    assert job_costs.counted(told) == job_costs.counted(plain)
    assert job_costs.counted(config(train_classifier={"steps": 700})) != job_costs.counted(plain)
    # Nothing that the count reads is missing.
    assert jobs_of(job_costs.counted(plain)).keys() == jobs_of(plain).keys()


# Work --------------------------------------------------------------------------------------------------------------


def test_work_grows_with_what_it_is_made_of():
    plain = jobs_of(config())
    generator = plain["train_ddpm/repeat0_fold0_unet"].works[0]
    assert generator.units == pytest.approx(3000 * 32 * 3 * 32**2 / 1e9)
    arms = plain["train_classifier/repeat0_fold0_job0"].works
    judged = 10 * 0.12 * 4000
    assert [work.part for work in arms] == [entry["name"] for entry in DEFAULT["arms"]]
    assert arms[0].units == pytest.approx((600 * 64 * 3 + judged) * 32**2 / 1e9)
    assert plain["sample_ddpm/repeat0_fold1_balanced"].works[0].units == pytest.approx(500 * 20 * 32**2 / 1e9)
    longer = [entry | ({"budget": 2} if entry["name"] == "pool" else {}) for entry in DEFAULT["arms"]]
    longer = [entry | ({"budget": 2} if entry["name"] == "resample_real" else {}) for entry in longer]
    twice = jobs_of(config(arms=longer))["train_classifier/repeat0_fold0_job0"].works
    assert twice[2].units - arms[2].units == pytest.approx(600 * 64 * 3 * 32**2 / 1e9)
    drawn = jobs_of(config(analysis={"draws": 4000}))["aggregate_metrics/aggregate_metrics"].works[0]
    assert drawn.units == pytest.approx(2 * plain["aggregate_metrics/aggregate_metrics"].works[0].units)


def test_a_weaker_generator_is_trained_first_and_asked_within_the_interval():
    small = next(entry for entry in DEFAULT["generators"] if entry["name"] == "unet") | {"name": "small"}
    changed = config(generators=[*DEFAULT["generators"], small])
    for entry in changed["synthetic_sets"]:
        if entry["name"] == "balanced":
            entry["guidance"] = {"scale": 2.0, "interval": [0.2, 20], "weaker": "small"}
    jobs = jobs_of(changed)
    assert "train_ddpm/repeat0_fold0_small" in jobs
    made, plain = (found["sample_ddpm/repeat0_fold0_balanced"] for found in (jobs, jobs_of(config())))
    assert "train_ddpm/repeat0_fold0_small" in made.after and "train_ddpm/repeat0_fold0_unet" in made.after
    assert made.works[0].units == plain.works[0].units, "as many operations as for a network of the same size"


def test_sets_made_together_are_one_job_with_the_work_of_all():
    more = [*DEFAULT["arms"], {"name": "pool_tail", "method": "pool", "synthetic_set": "tail_fill"}]
    together, apart = jobs_of(config(arms=more, compute={"sets_together": True})), jobs_of(config(arms=more))
    joined = together["sample_fold/repeat0_fold0_sets"]
    parts = [job for key, job in apart.items() if key.startswith("sample_ddpm/repeat0_fold0_")]
    assert len(parts) > 1 and len(joined.works) == len(parts)
    assert not [key for key in together if key.startswith("sample_ddpm/")]
    assert sum(work.units for work in joined.works) == pytest.approx(sum(job.works[0].units for job in parts))
    assert set(joined.after) == {key for job in parts for key in job.after}
    assert all(key in together for job in together.values() for key in job.after)


def test_embeddings_of_real_and_generated_images_are_counted(tmp_path, monkeypatch):
    (tmp_path / "own.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    plain = config()
    assert not [key for key in jobs_of(plain) if key.startswith("embed_images/")]
    arms = [*DEFAULT["arms"], *on_embeddings("balanced")]
    changed = config(arms=arms, embeddings={"encoder": OWN})
    jobs = jobs_of(changed)
    assert jobs_of(job_costs.counted(changed)) == jobs
    real, made = jobs["embed_images/images"], jobs["embed_images/repeat0/fold1/synthetic/balanced"]
    assert len([key for key in jobs if key.startswith("embed_images/")]) == 1 + 2, "one a set and fold"
    assert real.after == ["preprocess_images/preprocess_images"]
    assert made.after == ["sample_ddpm/repeat0_fold1_balanced"]
    # Megapixels: images times four channels, at the size that the network is shown.
    assert real.works[0].units == pytest.approx(4000 * 4 * 64**2 / 1e6)
    assert made.works[0].units == pytest.approx(500 * 4 * 64**2 / 1e6)
    assert real.works[0].traits == {"network": "resnet18", "size": 64, "channels": 4}
    assert real.disk["embeddings"] == pytest.approx(4000 * 1280 * 4, rel=0.01)
    waiting = [job for key, job in jobs.items() if key.startswith("train_classifier/repeat0_fold1_")]
    assert [made.key in job.after and real.key in job.after for job in waiting] == [
        any("head_pool" in work.part for work in job.works) for job in waiting
    ]
    # A table has real images alone, and costs the same whatever the pixels.
    table = tmp_path / "mine.csv"
    table.write_text("Id,x\n")
    told = config(arms=[*DEFAULT["arms"], on_embeddings("balanced")[0]], embeddings={"table": str(table)})
    (only,) = [job for key, job in jobs_of(told).items() if key.startswith("embed_images/")]
    assert (only.works[0].unit, only.works[0].units) == ("images", 4000)


def test_measured_embeddings_predict_others_of_the_same_network(tmp_path):
    def job(name: str, units: float, **traits: Any) -> Job:
        shown = {"network": "resnet18", "size": 64, "channels": 4} | traits
        return Job("embed_images", name, [Workload("embed_images", "megapixels", units, shown)])

    done = job("repeat0/fold0/synthetic/a", 10)
    measured = measured_rates.observed(write_run(tmp_path, [done], {done.key: 6.0}))
    assert (measured.rates[0].middle, measured.starts[0].middle) == pytest.approx((2.0, 1.0))

    def seconds(asked: Job) -> float | None:
        found = forecast.estimate(asked.works[0], asked, measured, Here("A, 2 cores"))
        return found.middle if found else None

    assert seconds(job("images", 80)) == pytest.approx(40.0)
    assert seconds(job("images", 80, size=32)) == pytest.approx(40.0), "as many pixels"
    assert seconds(job("images", 80, network="another")) is None, "of another network nothing is known"
    assert seconds(job("images", 80, size=224)) is None


def test_disk_is_that_of_the_formats():
    plain = jobs_of(config())
    assert plain["preprocess_images/preprocess_images"].disk["images"] == pytest.approx(4000 * 4 * 32**2, rel=0.08)
    made = plain["sample_ddpm/repeat0_fold0_balanced"].disk["synthetic"]
    assert made == pytest.approx(500 * 4 * 32**2, rel=0.03)
    assert plain["train_classifier/repeat0_fold0_job0"].disk["weights"] == 8 * 4000
    # Files take whole blocks.
    assert workloads.raw_bytes(10, 32, 0.8) == 10 * 4096
    assert workloads.raw_bytes(1, 128, 0.5) == 2 * 4096


def test_networks_are_counted():
    counted = flops.Counted()
    small = counted.classifier("small", 4, 10, 32, False)
    # The stem: 3x3 of 16 to 32 channels on 16x16 positions; the whole is more, and training is thrice the way forward.
    assert small.forward > 2 * 9 * 16 * 32 * 16**2
    assert small.training == pytest.approx(3 * small.forward, rel=0.1)
    assert small.bytes == pytest.approx(4 * 0.3e6, rel=0.3)
    assert counted.classifier("resnet18", 4, 10, 64, False).bytes == pytest.approx(45e6, rel=0.02)
    # A frozen trunk is computed forwards alone.
    assert (
        counted.classifier("resnet18", 4, 10, 64, True).training
        < 1.1 * small.forward + counted.classifier("resnet18", 4, 10, 64, False).forward
    )
    by_name = {entry["name"]: entry for entry in DEFAULT["generators"]}
    unet = counted.generator(by_name["unet"], 4, 10, 32)
    assert unet.training / 1e9 == pytest.approx(0.81, rel=0.05)  # as benchmarks.generator_speed counts it
    assert counted.generator(by_name["unet"], 4, 10, 64).forward == pytest.approx(4 * unet.forward, rel=0.02)
    assert counted.generator(by_name["minimal"], 4, 10, 32).forward > 0
    given = counted.generator(by_name["unet"] | {"reference_fraction": 0.5}, 4, 10, 32)
    assert unet.forward < given.forward < 1.2 * unet.forward


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "heun", "dpmpp_2m", "dpmpp_2m_sde"])
@pytest.mark.parametrize("objective", ["edm", "epsilon_cosine"])
@pytest.mark.parametrize("start_noise", [None, 0.9])
def test_calls_are_those_that_a_sampler_makes(sampler, objective, start_noise):
    synthetic_set = {
        "sampler": sampler,
        "evaluations": 50,
        "guidance": {"scale": 2.0, "interval": [0.3, 8.0]},
        "start_noise": start_noise,
    }
    seen = 0

    def network(x: torch.Tensor, log_sigma: torch.Tensor, condition: Condition) -> torch.Tensor:
        nonlocal seen
        seen += len(x)
        return torch.zeros_like(x)

    made = diffusion.make_objective(objective)
    condition = Condition(torch.ones(1, 2), torch.zeros(1, dtype=torch.bool))
    denoise = diffusion.conditional(made, network, condition, Guidance(2.0, 0.3, 8.0))
    generator = torch.Generator().manual_seed(0)
    varied = (torch.zeros(1, 1, 2, 2), start_noise) if start_noise else None
    sampling.sample(made, denoise, (1, 1, 2, 2), sampler, 50, generator, torch.device("cpu"), varied)
    assert flops.Counted().calls({"objective": objective}, synthetic_set) == seen


# The schedule ------------------------------------------------------------------------------------------------------


def chain(*links: tuple[str, float, list[str]], threads: int = 1) -> tuple[list[Job], dict[str, float]]:
    """Jobs of a stage each, with their seconds and what they wait for."""
    jobs = [Job(name, name, [], [f"{other}/{other}" for other in after], threads) for name, _, after in links]
    return jobs, {job.key: seconds for job, (_, seconds, _) in zip(jobs, links, strict=True)}


def test_wall_clock_is_played_through():
    jobs, seconds = chain(("a", 4, []), ("b", 3, []), ("c", 5, ["a"]), ("d", 1, ["b", "c"]), ("e", 2, []))
    assert scheduling.schedule(jobs, seconds, 1, 0) == 15
    # b and e beside a; c waits for a; d waits for c.
    assert scheduling.schedule(jobs, seconds, 2, 0) == 10
    assert scheduling.schedule(jobs, seconds, 9, 0) == scheduling.critical_path(jobs, seconds) == 10
    wide, both = chain(("a", 4, []), ("b", 3, []), threads=2)
    assert scheduling.schedule(wide, both, 2, 0) == scheduling.schedule(wide, both, 3, 0) == 7
    assert scheduling.schedule(wide, both, 4, 0) == scheduling.schedule(wide, both, 1, 0) - 3 == 4
    # Stages of the GPU take one each, however many cores there are.
    jobs = [Job("train_ddpm", name, []) for name in "abc"]
    seconds = {job.key: 2.0 for job in jobs}
    assert [scheduling.schedule(jobs, seconds, 8, gpus) for gpus in (0, 1, 2)] == [2, 6, 4]


# Rates -------------------------------------------------------------------------------------------------------------


def write_run(folder: Path, jobs: list[Job], seconds: dict[str, float], **more: Any) -> Path:
    """A finished run as predictions read it: each job began in a second."""
    run = folder / more.get("run", "first")
    about = {"format_version": 1, "run": run.name, "machine": "A, 2 cores", "facts": {"side": 32}, "problem": None}
    for job in jobs:
        table = run / "benchmarks" / job.stage / f"{job.name}.tsv"
        log = run / "logs" / job.stage / f"{job.name}.log"
        for path in (table, log):
            path.parent.mkdir(parents=True, exist_ok=True)
        if job.key not in seconds:
            continue
        taken = seconds[job.key]
        table.write_text(f"s\th:m:s\tmax_rss\tmax_vms\tcpu_time\n{taken}\t0:00:01\t300.5\t2000\t{taken}\n")
        minutes, rest = divmod(taken - 1, 60)
        told = f"{minutes:.0f} min {rest:02.0f} s" if minutes else f"{rest:.1f} s"
        device = more.get("device", "cpu, 1 thread(s), bfloat16")
        middle = more.get("log", {}).get(job.key, "")
        log.write_text(
            f"2026 INFO {job.stage}, process 7\n2026 INFO 30 images, {device}\n{middle}2026 INFO done in {told}\n"
        )
    (run / "cost.json").write_text(
        json.dumps(about | {"jobs": measured_rates.jobs_to_json(jobs)} | more.get("about", {}))
    )
    return run


TRAITS = {"network": "unet 16", "size": 32, "channels": 4, "batch": 8}


def training(name: str, units: float, **traits: Any) -> Job:
    return Job("train_ddpm", name, [Workload("train_ddpm", "GFLOP", units, TRAITS | traits)])


def test_rates_are_work_by_time_without_the_start(tmp_path):
    jobs = [training("a", 100), training("b", 100), training("c", 100), training("large", 600, size=64)]
    jobs[3].held = 7.0
    taken = {"train_ddpm/a": 11.0, "train_ddpm/b": 21.0, "train_ddpm/c": 6.0, "train_ddpm/large": 121.0}
    # One went on from a checkpoint: its time is not that of its work.
    part = {"train_ddpm/c": "2026 INFO going on from x.resume.pt\n"}
    found = measured_rates.observed(write_run(tmp_path, jobs, taken, log=part))
    small, large = sorted(found.rates, key=lambda rate: rate.traits["size"])
    assert (small.low, small.middle, small.high, small.jobs) == pytest.approx((5.0, 7.5, 10.0, 2))
    assert large.middle == pytest.approx(5.0)
    assert (small.machine, small.gpu, small.run) == ("A, 2 cores", False, "first")
    assert found.starts[0].middle == pytest.approx(1.0) and found.starts[0].jobs == 3
    assert found.starts[0].memory == 300.5
    again = measured_rates.Measured.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found


def test_a_training_goes_by_the_pace_of_its_steps_and_all_else_is_its_start(tmp_path):
    """A rehearsal of few steps must not take the time before them for theirs."""
    jobs = [training("a", 100), training("b", 100)]
    loops = "2026 INFO sample 10/20 (50 %), 8 s left\n2026 INFO {} 20/20 (100 %), loss 0.5, {} ms each\n"
    told = {job.key: loops.format("train", each) for job, each in zip(jobs, (250, 500), strict=True)}
    found = measured_rates.observed(write_run(tmp_path, jobs, dict.fromkeys(told, 15.0), log=told))
    (rate,), (start,) = found.rates, found.starts
    assert (rate.low, rate.high) == pytest.approx((10.0, 20.0)) and (start.low, start.high) == pytest.approx((5, 10))


def test_memory_is_the_more_of_what_was_seen_and_what_the_job_said(tmp_path):
    jobs = [training("a", 100)]
    for said, known in ((250, 300.5), (410, 410)):
        told = {"train_ddpm/a": f"2026 INFO memory: at most {said} MB\n"}
        (start,) = measured_rates.observed(write_run(tmp_path, jobs, {"train_ddpm/a": 11.0}, log=told)).starts
        assert start.memory == known


def test_what_was_measured_of_other_work_teaches_no_rate(tmp_path):
    def predicted(units: float, **seconds: float) -> Path:
        jobs = [training("a", units), training("b", 100)]
        # As `snakemake cost` does: beside benchmark files of before, if there are any.
        measured_rates.mark_outdated(jobs, tmp_path / "first")
        return write_run(tmp_path, jobs, {f"train_ddpm/{name}": taken for name, taken in seconds.items()})

    (tmp_path / "first").mkdir()
    run = predicted(100, a=11.0, b=11.0)
    assert {rate.jobs for rate in measured_rates.observed(run).rates} == {2}
    # Ten times as many steps are asked for, and not yet taken.
    (rate,) = measured_rates.observed(predicted(1000)).rates
    assert (rate.jobs, rate.middle) == (1, pytest.approx(10.0))
    (rate,) = measured_rates.observed(predicted(1000)).rates
    assert rate.jobs == 1, "asked twice"
    file = run / "benchmarks" / "train_ddpm" / "a.tsv"
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime + 60))
    assert max(rate.middle for rate in measured_rates.observed(run).rates) > 50, "taken by now"


def test_arms_of_a_job_have_their_own_rates(tmp_path):
    works = [Workload("train_classifier", "GFLOP", 50, {"network": name}, name) for name in ("small", "resnet18")]
    job = Job("train_classifier", "repeat0_fold1_job0", works)
    run = write_run(tmp_path, [job], {job.key: 42.0})
    manifest = run / "repeat0/fold1/arms/job0.json"
    # Without the list of arms they share the time by their work.
    assert [rate.middle for rate in measured_rates.observed(run).rates] == pytest.approx([100 / 41] * 2)
    manifest.parent.mkdir(parents=True)
    listed = [{"arm": "small", "seconds": 10.0, "reused": False}, {"arm": "resnet18", "seconds": 30.0}]
    manifest.write_text(json.dumps({"arms": [entry | {"reused": False} for entry in listed]}))
    found = measured_rates.observed(run)
    by_network = {rate.traits["network"]: rate.middle for rate in found.rates}
    assert by_network == pytest.approx({"small": 5.0, "resnet18": 50 / 30})
    assert found.starts[0].middle == pytest.approx(2.0), "reading and predicting belong to no arm"


def test_an_arm_that_was_kept_takes_nothing_from_the_others_of_its_job(tmp_path):
    works = [Workload("train_classifier", "GFLOP", 50, {"network": name}, name) for name in ("small", "resnet18")]
    job = Job("train_classifier", "repeat0_fold1_job0", works)
    kept = {job.key: "2026 INFO arm small: unchanged, kept\n"}
    run = write_run(tmp_path, [job], {job.key: 32.0}, log=kept)
    assert measured_rates.observed(run).rates == [], "which arms took how long is not known"
    manifest = run / "repeat0/fold1/arms/job0.json"
    manifest.parent.mkdir(parents=True)
    arms = [{"arm": "small", "seconds": 10.0, "reused": True}, {"arm": "resnet18", "seconds": 30.0, "reused": False}]
    manifest.write_text(json.dumps({"arms": arms}))
    found = measured_rates.observed(run)
    assert [(rate.traits["network"], rate.middle) for rate in found.rates] == [("resnet18", pytest.approx(50 / 30))]
    assert found.starts[0].middle == pytest.approx(2.0)


def test_a_gpu_is_known_by_the_log(tmp_path):
    run = write_run(tmp_path, [training("a", 100)], {"train_ddpm/a": 3.0}, device="NVIDIA H100 80GB HBM3, bfloat16")
    (rate,) = measured_rates.observed(run).rates
    assert (rate.gpu, rate.machine) == (True, "NVIDIA H100 80GB HBM3")
    job = training("x", 200)
    assert forecast.estimate(
        job.works[0], job, measured_rates.observed(run), Here("another", 1)
    ).middle == pytest.approx(4.0)


def test_a_run_does_not_predict_itself(tmp_path):
    for name in ("first", "second"):
        write_run(tmp_path, [training("a", 100)], {"train_ddpm/a": 3.0}, run=name)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cost.json").write_text("{")
    assert {rate.run for rate in measured_rates.earlier(tmp_path, "first").rates} == {"second"}


# The stage ---------------------------------------------------------------------------------------------------------


def predict(
    folder: Path, given: dict[str, Any], cores: int = 2, gpus: int | None = 0, known: Path | None = None
) -> dict:
    words = ["--earlier", str(folder / "results"), "--out", str(folder / "cost.json"), "--log", str(folder / "log")]
    words += ["--rates", str(known)] if known else []
    told = {"config": job_costs.counted(given), "cores": cores, "gpus": gpus}
    assert predict_cost.main([*words, "--settings", json.dumps(told)]) == 0
    return json.loads((folder / "cost.json").read_text())


def test_a_run_like_an_earlier_one_is_predicted_to_cost_what_that_one_did(tmp_path):
    nothing = predict(tmp_path, config())
    assert nothing["core_hours"] == [0, 0, 0] and "train_ddpm" in nothing["unknown"]
    assert "unknown: nothing like" in (tmp_path / "log").read_text()
    jobs = measured_rates.jobs_from_json(nothing["jobs"])
    taken = {job.key: 2.0 + 7 * number for number, job in enumerate(jobs)}
    about = {"machine": nothing["machine"]}
    run = write_run(tmp_path / "results", jobs, taken, about=about)
    (run / "simulated" / "train").mkdir(parents=True)
    (run / "simulated" / "train" / "a.png").write_bytes(bytes(512))
    found = predict(tmp_path, config())
    assert found["unknown"] == [] and found["problem"] is None
    for row in found["stages"]:
        whole = sum(taken[job.key] for job in jobs if job.stage == row["stage"])
        # Of a stage with equal work and unequal times the median counts, which of two is their mean of rates.
        assert row["seconds"][1] == pytest.approx(whole, rel=0.35), row["stage"]
        assert row["seconds"][0] <= row["seconds"][1] <= row["seconds"][2]
    assert found["wall_clock"][1] >= max(found["critical_path"][1], 0.5 * sum(r["seconds"][1] for r in found["stages"]))
    assert found["disk"]["kinds"]["raw images"] == 16000 * 4096
    assert found["disk"]["total"] > found["disk"]["kinds"]["images"]
    more = predict(tmp_path, config(), cores=8)
    assert more["wall_clock"][1] < found["wall_clock"][1]
    assert more["core_hours"][1] == pytest.approx(found["core_hours"][1], rel=0.2)
    on_gpu = predict(tmp_path, config(), gpus=1)
    assert {"train_ddpm", "train_classifier"} <= set(on_gpu["unknown"]) and on_gpu["gpu_hours"] == [0, 0, 0]


def test_images_are_counted_by_their_table_and_what_is_not_known_is_no_failure(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw.csv").write_text("Id,Target\na,Golgi|Cytosol\nb,Golgi\nc,Nucleoli\n", encoding="utf-8")
    own = {"source": "folder", "images": str(tmp_path / "raw"), "table": str(tmp_path / "raw.csv")}
    found = predict(tmp_path, config(data=own))
    assert found["facts"] == {"images": 3, "classes": 3, "side": None}
    assert not [row for row in found["stages"] if row["stage"] in ("simulate_cells", "train_judge")]
    known = predict(tmp_path, config("hpa.yaml"))
    assert known["facts"] == {"images": 31072, "classes": 28, "side": 512}
    assert "fetch_images" in known["unknown"]
    part = config("hpa.yaml", fetch_images={"limit": {"images": 500, "per_class": 0}})
    assert predict(tmp_path, part)["facts"]["images"] == 500
    part["fetch_images"]["limit"] = {"images": 0, "per_class": 2}
    assert predict(tmp_path, part)["facts"]["images"] == 56, "at most"
    unknown = predict(tmp_path, config(data={"source": "kaggle2021"}))
    assert "how many images kaggle2021 has is not known" in unknown["problem"] and unknown["jobs"] == []
    told = cost_section.read(tmp_path / "cost.json", tmp_path / "benchmarks")
    assert told.tables == {} and "not known" in told.sentence


def test_images_that_are_not_fetched_do_not_count_and_further_ones_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"G{number}_1_2_A1_1,{7 if number % 3 else 25}\n" for number in range(90)]
    (tmp_path / "m.csv").write_text("Id,Target\n" + "".join(rows))
    given = config(data={"source": "public", "table": str(tmp_path / "m.csv")})
    given["fetch_images"]["limit"] = {"images": 0, "per_class": 2}
    assert run_facts.of(given).images == 4
    given["fetch_images"]["limit"]["images"] = 3
    assert run_facts.of(given).images == 3
    fetched = tmp_path / "results" / given["run"] / "fetched" / "table.csv"
    fetched.parent.mkdir(parents=True)
    fetched.write_text("Id,Target\nG1_1_2_A1_1,7\nG3_1_2_A1_1,25\n")
    assert run_facts.of(given).images == 2, "what is there, whatever was asked for"
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw.csv").write_text("Id,Target\na,Golgi\nb,Cytosol\n")
    (tmp_path / "more.csv").write_text("Id\nc\nd\ne\n")
    own = {"source": "folder", "images": str(tmp_path / "raw"), "table": str(tmp_path / "raw.csv")}
    given = config(data=own)
    given["data"]["unlabelled"] = {"images": str(tmp_path / "raw"), "table": str(tmp_path / "more.csv")}
    assert run_facts.of(given).images == 5
    given["data"]["unlabelled"]["table"] = None
    for name in "cde":
        for channel in given["preprocess_images"]["channels"]:
            (tmp_path / "raw" / f"{name}_{channel}.png").touch()
    assert run_facts.of(given).images == 5


def test_a_picture_too_large_to_open_is_no_failure(tmp_path):
    Image.new("L", (14_000, 14_000)).save(tmp_path / "overview.png")
    assert run_facts._side(str(tmp_path)) is None


def test_rates_that_come_with_mixloc_predict_the_default_run(tmp_path):
    found = predict(tmp_path, config(), known=ROOT / "benchmarks" / "rates.json")
    # A stage that is younger than the rates is unknown until they are measured again.
    assert {"train_ddpm", "sample_ddpm", "train_classifier", "train_judge"} & set(found["unknown"]) == set()
    assert 60 < found["wall_clock"][1] < 6 * 3600
    broken = tmp_path / "rates.json"
    broken.write_text("{}")
    with pytest.raises(UserError, match=r"rates\.json is no file of rates.*benchmarks\.overhead"):
        measured_rates.read(broken)


# The page and the overhead -------------------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path) -> Path:
    """A finished run with its prediction, made by one like it that took half as long."""
    jobs = measured_rates.jobs_from_json(predict(tmp_path, config())["jobs"])
    machine = json.loads((tmp_path / "cost.json").read_text())["machine"]
    write_run(tmp_path / "results", jobs, {job.key: 10.0 for job in jobs}, about={"machine": machine})
    found = predict(tmp_path, config())
    run = write_run(tmp_path, jobs, {job.key: 20.0 for job in jobs}, run="demo")
    (run / "cost.json").write_text(json.dumps(found))
    (run / "images.h5").write_bytes(bytes(5000))
    return run


def test_the_page_puts_prediction_beside_fact(finished):
    shown = cost_section.read(finished / "cost.json", finished / "benchmarks")
    rows = {row["stage"]: row for row in shown.tables["prediction"].rows}
    assert rows["train_ddpm"]["measured"] == 40.0 and rows["train_ddpm"]["ratio"] == pytest.approx(2.0, rel=0.02)
    total = rows["all stages with both figures"]
    assert total["measured"] == 20.0 * sum(row["jobs"] for row in rows.values() if not row.get("is_total"))
    # A stage of which some job was not timed has no sum.
    next((finished / "benchmarks" / "train_ddpm").glob("*")).unlink()
    again = cost_section.read(finished / "cost.json", finished / "benchmarks").tables["prediction"]
    assert next(row for row in again.rows if row["stage"] == "train_ddpm")["measured"] is None
    disk = {row["kind"]: row for row in shown.tables["disk"].rows}
    assert disk["images"]["measured"] == 8192 / 1e6 and disk["images"]["predicted"] > 10
    assert "core-hours" in shown.sentence and "of disk. Measured: " in shown.sentence
    html_page.write_tables(finished / "tables", list(shown.tables.values()), "tables")
    first = (finished / "tables" / "prediction.csv").read_text().splitlines()[0]
    assert first == "stage,jobs,predicted,predicted_low,predicted_high,measured,ratio,source"
    assert "was not predicted" in cost_section.read(None, finished / "benchmarks").sentence


def test_overhead_is_wall_clock_beside_work(finished, tmp_path, capsys):
    jobs, seconds, core = overhead.measured(finished)
    assert len(jobs) == len(measured_rates.read_prediction(finished / "cost.json")["jobs"])
    assert overhead.shown(jobs, seconds, core, 1.25 * sum(core.values()) / 2, 2) == pytest.approx(1.25)
    assert "DOES NOT HOLD" in capsys.readouterr().out
    assert overhead.shown(jobs, seconds, core, 1.05 * sum(core.values()) / 2, 2) == pytest.approx(1.05)
    assert overhead.span(finished) == pytest.approx(20.0, abs=5.0)
    overhead.keep(finished, tmp_path / "kept.json")
    kept = measured_rates.read(tmp_path / "kept.json")
    assert {rate.run for rate in kept.rates} == {overhead.ORIGIN}
    (finished / "cost.json").unlink()
    with pytest.raises(SystemExit, match=r"has no cost\.json"):
        overhead.measured(finished)


def test_sets_sampled_together_share_the_time_of_their_loops_by_their_work(tmp_path):
    works = [Workload("sample_ddpm", "GFLOP", units, {"network": name}) for name, units in (("a", 30.0), ("b", 90.0))]
    job = Job("sample_fold", "repeat0_fold0_sets", works)
    told = {job.key: "2026 INFO sample 20/20 (100 %), 250 ms each\n2026 INFO sample 20/20 (100 %), 750 ms each\n"}
    found = measured_rates.observed(write_run(tmp_path, [job], {job.key: 25.0}, log=told))
    assert [rate.middle for rate in found.rates] == pytest.approx([120 / 20] * 2)
