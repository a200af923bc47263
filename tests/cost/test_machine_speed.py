"""Speed of a machine, and prediction scaled by it."""

from __future__ import annotations

import pytest
import torch

from workflow_scripts.lib.cost import forecast, machine_speed
from workflow_scripts.lib.cost.forecast import Here
from workflow_scripts.lib.cost.measured_rates import Measured, Rate, Speed, Start
from workflow_scripts.lib.cost.workloads import Job, Workload


def test_the_speed_is_measured_and_the_threads_are_left_as_they_were(monkeypatch):
    monkeypatch.setattr(machine_speed, "SECONDS", 0.02)
    before = torch.get_num_threads()
    found = machine_speed.measure()
    assert found.network > 0 and found.other > 0 and torch.get_num_threads() == before


def test_a_slower_round_is_a_lower_speed(monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(machine_speed.time, "perf_counter", lambda: 0.5 * next(ticks))
    assert machine_speed._rounds(lambda: None) == pytest.approx(2.0)


def test_rates_of_another_machine_are_scaled_by_the_speed_of_this_one():
    rate = Rate("train_ddpm", "GFLOP", {"network": "unet"}, 1, False, "fast", "first", 1, 10.0, 10.0, 10.0, speed=200.0)
    begun = Start("train_ddpm", False, "fast", "first", 1, 2.0, 2.0, 2.0, speed=50.0)
    job = Job("train_ddpm", "x", [Workload("train_ddpm", "GFLOP", 1000.0, {"network": "unet"})])
    measured = Measured([rate], [begun])
    slow = Here("slow", speed=Speed(network=100.0, other=25.0))
    assert forecast.estimate(job.works[0], job, measured, slow).middle == pytest.approx(200)
    assert "scaled by 0.5" in forecast.estimate(job.works[0], job, measured, slow).source
    assert forecast.start_of(job, measured, slow).middle == pytest.approx(4)
    # A speed that is not known changes nothing.
    assert forecast.estimate(job.works[0], job, measured, Here("slow")).middle == pytest.approx(100)
    # The same machine, which is busier now, takes longer as well.
    busy = Here("fast", speed=Speed(network=50.0, other=25.0))
    assert forecast.estimate(job.works[0], job, measured, busy).middle == pytest.approx(400)
