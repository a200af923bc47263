"""Time left of a run in progress: read from logs and benchmark files, corrected by what jobs have really taken."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from workflow_scripts.lib.cost import time_left
from workflow_scripts.lib.cost.time_left import DOUBT, Watch, fraction_done
from workflow_scripts.lib.cost.workloads import Job, Workload

NOW = 1_000_000.0


def make_run(folder: Path, jobs: list[Job], seconds: dict[str, float]) -> None:
    prediction = {"format_version": 1, "jobs": [asdict(job) for job in jobs], "seconds": seconds}
    (folder / "cost.json").write_text(json.dumps(prediction))


def training(name: str, after: tuple[str, ...] = ()) -> Job:
    return Job("train_ddpm", name, [Workload("train_ddpm", "GFLOP", 1.0)], list(after))


def write_log(folder: Path, key: str, text: str, at: float) -> None:
    path = folder / "logs" / f"{key}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (at, at))


def write_benchmark(folder: Path, key: str, seconds: float, at: float) -> None:
    path = folder / "benchmarks" / f"{key}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\tmax_rss\tcpu_time\n{seconds}\t100\t{seconds}\n")
    os.utime(path, (at, at))


def at(seconds: float) -> str:
    """The beginning of a line that a job wrote to its log at this time."""
    return time.strftime("%Y-%m-%d %H:%M:%S INFO ", time.localtime(NOW + seconds))


def test_the_log_says_how_far_a_job_is():
    assert fraction_done("") == 0
    assert fraction_done("train 40/100 (40 %), loss 0.1, 3 s left\n") == pytest.approx(0.4)
    assert fraction_done("arm a (1 of 8): cpu\na 9/9 (100 %)\narm b (2 of 8): cpu\nb (40 %)\n") == pytest.approx(0.175)
    assert fraction_done("arm b (2 of 8): cpu\n") == pytest.approx(1 / 8)
    # A log is appended to when a job runs again: only its last start counts.
    again = "INFO train_ddpm, process 12\ntrain 90/100 (90 %)\nINFO train_ddpm, process 13\ntrain 10/100 (10 %)\n"
    assert fraction_done(again) == pytest.approx(0.1)


def test_what_is_left_follows_the_prediction_until_jobs_say_otherwise(tmp_path):
    jobs = [training("a"), training("b"), training("c")]
    make_run(tmp_path, jobs, dict.fromkeys((job.key for job in jobs), 100.0))
    watch = Watch(tmp_path, {job.key for job in jobs}, cores=1, started=NOW)
    watch.look(NOW)
    assert watch.left(NOW) == pytest.approx(300)
    assert watch.line(NOW) == "0 of 3 jobs done, about 5 min 00 s left"
    # The first job took twice as long as predicted, so the other two nearly will.
    write_benchmark(tmp_path, "train_ddpm/a", 200.0, NOW + 200)
    watch.look(NOW + 200)
    overall = (200 + DOUBT) / (100 + DOUBT)
    assert watch.left(NOW + 200) == pytest.approx(200 * (200 + DOUBT * overall) / (100 + DOUBT))
    # The second one runs, and its own pace counts: 25 % in 30 s, seen 10 s later.
    write_log(tmp_path, "train_ddpm/b", at(0) + "x, process 3\n" + at(30) + "train 25/100 (25 %)\n", NOW + 230)
    watch.look(NOW + 240)
    overall = (200 + 30 + DOUBT) / (100 + 25 + DOUBT)
    expected = 120 - 40 + 100 * (200 + 30 + DOUBT * overall) / (100 + 25 + DOUBT)
    assert watch.left(NOW + 240) == pytest.approx(expected)
    assert "1 of 3 jobs done" in watch.line(NOW + 240) and "running: train_ddpm b 25 %" in watch.line(NOW + 240)


def test_the_log_itself_says_when_a_job_began_however_late_it_is_looked_at_and_by_whichever_clock(tmp_path):
    make_run(tmp_path, [training("a")], {"train_ddpm/a": 100.0})
    watch = Watch(tmp_path, {"train_ddpm/a"}, cores=1, started=NOW)
    # The clock of the node is a day behind; half is done after 40 s, and the first look comes 10 s later.
    late = -86400
    write_log(tmp_path, "train_ddpm/a", at(late) + "x, process 3\n" + at(late + 40) + "train 5/10 (50 %)\n", NOW + 60)
    watch.look(NOW + 70)
    assert watch.left(NOW + 70) == pytest.approx(80 - 50)


def test_seconds_logged_need_the_start_of_the_job():
    text = at(0) + "train_ddpm, process 3\n" + at(90) + "train_ddpm, process 4\n" + at(100) + "train 1/10 (10 %)\n"
    assert time_left.seconds_logged(text) == pytest.approx(10)
    assert time_left.seconds_logged(at(100) + "train 1/10 (10 %)\n") is None and time_left.seconds_logged("") is None


def test_jobs_are_spread_over_cores_and_wait_for_each_other(tmp_path):
    jobs = [training("a"), training("b"), training("c", ("train_ddpm/a",))]
    make_run(tmp_path, jobs, {"train_ddpm/a": 10.0, "train_ddpm/b": 30.0, "train_ddpm/c": 40.0})
    watch = Watch(tmp_path, {job.key for job in jobs}, cores=2, started=NOW)
    watch.look(NOW)
    assert watch.left(NOW) == pytest.approx(50)


def test_files_of_an_earlier_run_say_nothing(tmp_path):
    make_run(tmp_path, [training("a")], {"train_ddpm/a": 60.0})
    write_benchmark(tmp_path, "train_ddpm/a", 1.0, NOW - 100)
    write_log(tmp_path, "train_ddpm/a", "train 90/100 (90 %)\n", NOW - 100)
    watch = Watch(tmp_path, {"train_ddpm/a"}, cores=1, started=NOW)
    watch.look(NOW)
    assert watch.left(NOW) == pytest.approx(60) and "running" not in watch.line(NOW)


def test_without_a_prediction_the_jobs_are_counted_alone(tmp_path):
    watch = Watch(tmp_path, {"plot_data/plot_data"}, cores=1, started=NOW)
    watch.look(NOW)
    assert watch.left(NOW) is None and watch.line(NOW) == "0 of 1 jobs done"


def test_stages_stand_in_the_order_of_the_prediction_with_the_work_that_is_left(tmp_path):
    make_run(tmp_path, [training("b"), training("a")], {"train_ddpm/a": 60.0, "train_ddpm/b": 60.0})
    write_benchmark(tmp_path, "train_ddpm/b", 60.0, NOW + 60)
    watch = Watch(tmp_path, {"train_ddpm/a", "train_ddpm/b", "aaa/x"}, cores=1, started=NOW)
    watch.look(NOW + 60)
    first, last = watch.stages(NOW + 60)
    assert (first.stage, first.done, first.running, first.waiting, last.stage) == ("train_ddpm", 1, {}, 1, "aaa")
    assert first.left == pytest.approx(60)
    watch.cores = None  # jobs run elsewhere, so nothing is predicted
    assert [stage.left for stage in watch.stages(NOW + 60)] == [None, None] and watch.left(NOW + 60) is None


def test_the_thread_tells_and_ends_with_the_last_job(tmp_path, monkeypatch):
    monkeypatch.setattr(time_left, "FIRST", 0.05)
    make_run(tmp_path, [training("a")], {"train_ddpm/a": 60.0})
    said: list[str] = []
    time_left.start(tmp_path, ["results/x/logs/train_ddpm/a.log"], 1, said.append)
    deadline = time.monotonic() + 20
    while not said and time.monotonic() < deadline:
        time.sleep(0.05)
    write_benchmark(tmp_path, "train_ddpm/a", 2.0, time.time() + 5)
    while "1 of 1 jobs done" not in said[-1] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert said[0].startswith("MixLoc: 0 of 1 jobs done, about 1 min 00 s left") and "1 of 1" in said[-1]


def test_a_job_that_goes_on_says_nothing_of_the_pace(tmp_path):
    jobs = [training("a"), training("b")]
    make_run(tmp_path, jobs, dict.fromkeys((job.key for job in jobs), 1000.0))
    watch = Watch(tmp_path, {job.key for job in jobs}, cores=1, started=NOW)
    again = "x, process 3\n" + at(2) + "going on from step 60\n" + at(38) + "train 63/100 (63 %)\n"
    write_log(tmp_path, "train_ddpm/a", at(0) + again, NOW + 38)
    watch.look(NOW + 38)
    assert watch.left(NOW + 38) == pytest.approx(370 + 1000), "and not 63 % in 38 s"
    write_benchmark(tmp_path, "train_ddpm/a", 400.0, NOW + 400)
    watch.look(NOW + 400)
    assert watch.left(NOW + 400) == pytest.approx(1000), "its seconds are those of a part"


def test_a_job_that_went_on_and_ended_between_two_looks_is_known_by_its_log(tmp_path):
    jobs = [training("a"), training("b")]
    make_run(tmp_path, jobs, dict.fromkeys((job.key for job in jobs), 1000.0))
    watch = Watch(tmp_path, {job.key for job in jobs}, cores=1, started=NOW)
    write_log(tmp_path, "train_ddpm/a", at(0) + "x, process 3\n" + at(2) + "arm a: unchanged, kept\n", NOW + 5)
    write_benchmark(tmp_path, "train_ddpm/a", 5.0, NOW + 5)
    watch.look(NOW + 5)
    assert watch.left(NOW + 5) == pytest.approx(1000)


def test_names_of_jobs_may_have_folders(tmp_path):
    log = "results/x/logs/embed_images/repeat0/fold1/synthetic/drawn.log"
    assert time_left.keys_of([log]) == {"embed_images/repeat0/fold1/synthetic/drawn"}
    assert time_left.keys_of(["results/logs/logs/train_ddpm/repeat0_fold0_v1.2.log"]) == {
        "train_ddpm/repeat0_fold0_v1.2"
    }
