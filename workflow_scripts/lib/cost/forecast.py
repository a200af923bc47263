"""Forecast of job durations from measured rates (`measured_rates.py`) alone.

The rate of the same work comes first, then the nearest to it, which is reported as such. Rates of a machine of the same
name come before those of others. All are scaled by the speed of this machine now, relative to the machine that they
were measured on, then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from workflow_scripts.lib.cost.measured_rates import Measured, Rate, Speed, Start
from workflow_scripts.lib.cost.workloads import GFLOP, MEGAPIXELS, ON_GPU, Job, Workload


@dataclass
class Estimate:
    """Lowest and highest seconds of some work by what was measured, and the source of the estimate."""

    low: float
    middle: float
    high: float
    source: str
    exact: bool  # measured with the same settings on a machine of the same name


@dataclass(frozen=True)
class Here:
    """The machine that a prediction is for."""

    machine: str
    gpus: int = 0
    speed: Speed = field(default_factory=Speed)  # unknown speeds leave rates as they were measured

    def factor(self, then: float, unit: str) -> float:
        """Speed of this machine relative to a measurement, at work counted in this unit."""
        now = self.speed.network if unit == GFLOP else self.speed.other
        return now / then if now > 0 and then > 0 else 1.0


def estimate(work: Workload, job: Job, measured: Measured, here: Here) -> Estimate | None:
    """Duration of a part of a job; None where nothing like it was measured."""
    # train_judge draws its cells on the CPU.
    on_gpu = here.gpus > 0 and job.stage in ON_GPU and work.unit == GFLOP
    alike = [rate for rate in measured.rates if (rate.kind, rate.unit, rate.gpu) == (work.kind, work.unit, on_gpu)]
    if work.unit == MEGAPIXELS:
        # A small file costs by itself, a large one by its pixels: one tells nothing about the other.
        alike = [rate for rate in alike if _near(work, rate)]
    same = [rate for rate in alike if rate.traits == work.traits]
    network = [rate for rate in alike if rate.traits.get("network") == work.traits.get("network")]
    if same:
        chosen, how = same, ""
    elif network:
        chosen, how = network, _differs(work, network)
    elif alike and work.unit == GFLOP:
        # Another network of the same stage: as many operations, at the measured speed.
        chosen, how = alike, f"by its FLOPs as {_listed(rate.traits['network'] for rate in alike)}"
    else:
        return None
    own = [rate for rate in chosen if on_gpu or rate.machine == here.machine]
    chosen = own or chosen
    # A GPU does not compute faster with more cores. On cores, the speed is taken to be proportional to their number.
    threads = [1.0 if on_gpu else job.threads / rate.threads for rate in chosen]
    speeds = [1.0 if on_gpu else here.factor(rate.speed, work.unit) for rate in chosen]
    scale = [by * speed for by, speed in zip(threads, speeds, strict=True)]
    if any(by != 1 for by in threads):
        how = f"{how}; " if how else ""
        how += f"with {_listed(str(rate.threads) for rate in chosen)} thread(s) instead of {job.threads}"
    jobs = sum(rate.jobs for rate in chosen)
    source = f"{jobs} measured in {_listed(rate.run for rate in chosen)} on {_listed(rate.machine for rate in chosen)}"
    if not own and not on_gpu:
        source += " (another machine)"
    if any(speed != 1 for speed in speeds):
        source += f", scaled by {median(speeds):.2g}: the speed of this machine now"
    return Estimate(
        min(work.units / (rate.high * by) for rate, by in zip(chosen, scale, strict=True)),
        work.units / median([rate.middle * by for rate, by in zip(chosen, scale, strict=True)]),
        max(work.units / (rate.low * by) for rate, by in zip(chosen, scale, strict=True)),
        source + (f"; {how}" if how else ""),
        bool(same) and bool(own) and not how,
    )


def _near(work: Workload, rate: Rate) -> bool:
    sizes = [name for name in ("side", "size") if name in work.traits and name in rate.traits]
    return all(0.5 <= rate.traits[name] / work.traits[name] <= 2 for name in sizes)


def _differs(work: Workload, rates: list[Rate]) -> str:
    said = []
    for name, value in work.traits.items():
        others = {str(rate.traits.get(name)) for rate in rates if rate.traits.get(name) != value}
        if others:
            said.append(f"{name} {_listed(others)} instead of {value}")
    return "with " + ", ".join(said) if said else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))


def start_of(job: Job, measured: Measured, here: Here) -> Start | None:
    """Overhead of a job beside its work, from earlier jobs of its stage."""
    on_gpu = here.gpus > 0 and job.stage in ON_GPU
    starts = [start for start in measured.starts if (start.stage, start.gpu) == (job.stage, on_gpu)]
    starts = [start for start in starts if on_gpu or start.machine == here.machine] or starts
    if not starts:
        return None
    largest = max(starts, key=lambda start: start.memory or 0.0)
    # Slower machines take longer for the same overhead.
    scaled = [(start, here.factor(start.speed, "")) for start in starts]
    return Start(
        job.stage, on_gpu, _listed(start.machine for start in starts), _listed(start.run for start in starts),
        sum(start.jobs for start in starts), min(start.low / by for start, by in scaled),
        median([start.middle / by for start, by in scaled]), max(start.high / by for start, by in scaled),
        largest.memory, largest.held,
    )  # fmt: skip


def memory_of(job: Job, start: Start | None) -> float | None:
    """Peak memory of a job in MB: that of the largest job measured, plus the images that exceed that job's."""
    if start is None or start.memory is None:
        return None
    return start.memory + max(0.0, job.held - start.held) / 2**20
