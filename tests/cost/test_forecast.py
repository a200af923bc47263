"""lib.cost.forecast: durations from measured rates by hand, and what an estimate says of its source."""

from __future__ import annotations

import pytest

from workflow_scripts.lib.cost import forecast
from workflow_scripts.lib.cost.forecast import Estimate, Here
from workflow_scripts.lib.cost.measured_rates import Measured, Rate, Start
from workflow_scripts.lib.cost.workloads import Job, Workload

TRAITS = {"network": "unet 16", "size": 32}
# Two jobs of 100 GFLOP that took 10 and 20 s.
RATE = Rate("train_ddpm", "GFLOP", TRAITS, 1, False, "A, 2 cores", "first", 2, 5.0, 7.5, 10.0)


def training(units: float, threads: int = 1, **traits: object) -> Job:
    return Job("train_ddpm", "x", [Workload("train_ddpm", "GFLOP", units, TRAITS | traits)], threads=threads)


def estimate(job: Job, *rates: Rate, machine: str = "A, 2 cores", gpus: int = 0) -> Estimate | None:
    return forecast.estimate(job.works[0], job, Measured([*rates] or [RATE]), Here(machine, gpus))


def test_the_same_work_on_the_same_machine_is_exact() -> None:
    assert estimate(training(200)) == Estimate(20.0, 200 / 7.5, 40.0, "2 measured in first on A, 2 cores", True)


def test_several_runs_span_their_rates_and_the_median_is_the_middle() -> None:
    other = Rate("train_ddpm", "GFLOP", TRAITS, 1, False, "A, 2 cores", "second", 3, 2.0, 2.5, 4.0)
    found = estimate(training(200), RATE, other)
    assert (found.low, found.middle, found.high) == (20.0, 200 / 5.0, 100.0)
    assert found.source == "5 measured in first, second on A, 2 cores"


def test_another_machine_counts_only_where_this_one_measured_nothing() -> None:
    other = Rate("train_ddpm", "GFLOP", TRAITS, 1, False, "B", "second", 1, 100.0, 100.0, 100.0)
    assert estimate(training(200), RATE, other).low == 20.0
    found = estimate(training(200), other)
    assert (found.low, found.exact) == (2.0, False) and found.source.endswith("on B (another machine)")


def test_what_differs_is_told() -> None:
    larger = estimate(training(800, size=64))
    assert (larger.high, larger.exact) == (160.0, False) and larger.source.endswith("; with size 32 instead of 64")
    # Another network: as many operations, at the measured speed.
    other = estimate(training(200, network="unet 64"))
    assert (other.high, other.exact) == (40.0, False) and other.source.endswith("; by its FLOPs as unet 16")


def test_cores_share_the_work_and_a_gpu_does_not_mind_them() -> None:
    found = estimate(training(200, threads=4))
    assert (found.low, found.high, found.exact) == (5.0, 10.0, False)
    assert found.source.endswith("; with 1 thread(s) instead of 4")
    fast = Rate("train_ddpm", "GFLOP", TRAITS, 1, True, "H100", "first", 1, 50.0, 50.0, 50.0)
    on_gpu = estimate(training(200, threads=4), RATE, fast, gpus=1)
    assert (on_gpu.low, on_gpu.high, on_gpu.source) == (4.0, 4.0, "1 measured in first on H100")


def test_small_files_say_nothing_of_large_ones() -> None:
    reading = Rate("read", "megapixels", {"side": 32}, 1, False, "A, 2 cores", "first", 1, 1.0, 1.0, 1.0)
    for side, known in ((16, True), (48, True), (64, True), (15, False), (65, False)):
        job = Job("preprocess_images", "x", [Workload("read", "megapixels", 5, {"side": side})])
        assert (estimate(job, reading) is not None) == known, side


@pytest.mark.parametrize(
    ("job", "gpus"),
    [
        (training(200), 1),
        (Job("assess_synthetic", "x", [Workload("assess_synthetic", "images", 5)]), 0),
        (Job("train_ddpm", "x", [Workload("train_ddpm", "images", 5, TRAITS)]), 0),
        (Job("train_ddpm", "x", [Workload("train_ddpm", "images", 5, {"network": "other"})]), 0),
    ],
    ids=["a GPU", "another stage", "another unit", "another network by images"],
)
def test_of_what_nothing_was_seen_nothing_is_said(job: Job, gpus: int) -> None:
    assert estimate(job, gpus=gpus) is None


def test_the_start_is_that_of_all_jobs_on_this_machine() -> None:
    def start(machine: str, jobs: int, seconds: tuple[float, float, float], memory: float, held: float) -> Start:
        return Start("train_ddpm", False, machine, f"run of {machine}", jobs, *seconds, memory, held)

    measured = Measured(starts=[start("A", 2, (1, 2, 3), 300, 2**20), start("A", 1, (2, 6, 9), 500, 3 * 2**20)])
    found = forecast.start_of(training(1), measured, Here("A", 0))
    assert (found.low, found.middle, found.high, found.jobs) == (1, 4, 9, 3)
    assert (found.memory, found.held) == (500, 3 * 2**20), "those of the job that took most"
    measured.starts.append(start("B", 1, (50, 50, 50), 900, 0))
    assert forecast.start_of(training(1), measured, Here("A", 0)) == found
    assert forecast.start_of(training(1), measured, Here("B", 0)).high == 50
    assert forecast.start_of(training(1), measured, Here("C", 0)).high == 50, "where none is of this machine, all count"
    assert forecast.start_of(training(1), measured, Here("A", 1)) is None


def test_memory_grows_with_the_images_that_are_held() -> None:
    start = Start("train_ddpm", False, "A", "first", 1, 1.0, 1.0, 1.0, 500.0, 2**20)
    job = training(1)
    for held, expected in ((0, 500.0), (2**20, 500.0), (5 * 2**20, 504.0)):
        job.held = held
        assert forecast.memory_of(job, start) == expected
    assert forecast.memory_of(job, None) is None
