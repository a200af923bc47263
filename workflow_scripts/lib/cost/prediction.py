"""Prediction of a run's cost from its jobs: hours of each stage, wall-clock, disk and memory; and its lines of the log.

Rates and forecasts of single jobs are `measured_rates.py`'s and `forecast.py`'s."""

from __future__ import annotations

from typing import Any

from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.progress import duration
from workflow_scripts.lib.cost import forecast, scheduling, workloads
from workflow_scripts.lib.cost.forecast import Estimate, Here
from workflow_scripts.lib.cost.measured_rates import Measured
from workflow_scripts.lib.cost.workloads import Facts, Job

Range = list[float]  # least, middle and most

# From jobs to hours -------------------------------------------------------------------------------------------------


def predicted(jobs: list[Job], measured: Measured, cores: int, facts: Facts, here: Here) -> dict[str, Any]:
    """What cost.json says beside the jobs: core- and GPU-hours, wall-clock, disk and memory, by stage and together."""
    gpus, stages = here.gpus, dict[str, dict[str, Any]]()
    seconds: list[dict[str, float]] = [{}, {}, {}]
    for job in jobs:
        works = [forecast.estimate(work, job, measured, here) for work in job.works]
        start = forecast.start_of(job, measured, here)
        known = [work for work in works if work is not None]
        # A job of which a part is unknown counts with nothing: half of it would pass for the whole.
        whole = len(known) == len(works)
        for place, (by_job, part) in enumerate(zip(seconds, ("low", "middle", "high"), strict=True)):
            begun = getattr(start, part) if start is not None else 0.0
            by_job[job.key] = begun + sum(getattr(work, part) for work in known) if whole else 0.0
            row = stages.setdefault(job.stage, _row(job, gpus))
            row["seconds"][place] += by_job[job.key]
        row["jobs"] += 1
        row["unknown"] += not whole
        row["longest"] = max(row["longest"], seconds[1][job.key])
        _note(row, known, forecast.memory_of(job, start))
    for row in stages.values():
        row["source"] = sorted(row["source"])
    hours = {kind: [sum(row["seconds"][place] * row["width"] / 3600
                        for row in stages.values() if row["gpu"] == (kind == "gpu")) for place in range(3)]
             for kind in ("core", "gpu")}  # fmt: skip
    memory = [row["memory"] for row in stages.values() if row["memory"] is not None]
    return {
        "stages": list(stages.values()),
        "core_hours": hours["core"],
        "gpu_hours": hours["gpu"],
        "unknown": sorted(row["stage"] for row in stages.values() if row["unknown"]),
        "wall_clock": [scheduling.schedule(jobs, by_job, cores, gpus) for by_job in seconds],
        "critical_path": [scheduling.critical_path(jobs, by_job) for by_job in seconds],
        "disk": disk(jobs, measured, facts),
        "memory": max(memory, default=None),
        "seconds": seconds[1],
    }


def _row(job: Job, gpus: int) -> dict[str, Any]:
    on_gpu = gpus > 0 and job.stage in workloads.ON_GPU
    row = {"stage": job.stage, "jobs": 0, "unknown": 0, "gpu": on_gpu, "seconds": [0.0, 0.0, 0.0], "longest": 0.0}
    # An hour of a job is so many hours of a core or of a GPU.
    return row | {"width": job.gpus if on_gpu else job.threads, "memory": None, "exact": True, "source": set()}


def _note(row: dict[str, Any], works: list[Estimate], memory: float | None) -> None:
    row["source"] |= {work.source for work in works}
    row["exact"] = row["exact"] and all(work.exact for work in works)
    row["memory"] = max((value for value in (row["memory"], memory) if value is not None), default=None)


def disk(jobs: list[Job], measured: Measured, facts: Facts) -> dict[str, Any]:
    """Bytes on disk of a finished run, by kind of file."""
    kinds: dict[str, float] = {}
    unknown = []
    panels = 0
    for job in jobs:
        for kind, size in job.disk.items():
            if kind == "figures":
                panels += 1
            else:
                kinds[kind] = kinds.get(kind, 0.0) + size
    files = sum(job.files for job in jobs)
    for kind, count, seen in (("raw images", files, measured.pixel_bytes), ("figures", panels, measured.figure_bytes)):
        if count and not seen:
            unknown.append(kind)
        elif count:
            mean = sum(seen) / len(seen)
            kinds[kind] = workloads.raw_bytes(count, facts.side or 0, mean) if kind == "raw images" else count * mean
    return {"kinds": kinds, "total": sum(kinds.values()), "unknown": unknown}


# The table in the log -----------------------------------------------------------------------------------------------


def show(cost: dict[str, Any]) -> None:
    """The prediction as lines of the log."""
    say = stage.log.info
    if cost["problem"]:
        say("no prediction: %s", cost["problem"])
        return
    gpus = f" and {cost['gpus']} GPU(s)" if cost["gpus"] else ""
    say("on %d core(s)%s of %s; ranges: the fastest and the slowest job seen", cost["cores"], gpus, cost["machine"])
    for row in cost["stages"]:
        kind = "GPU" if row["gpu"] else "core"
        hours = [value * row["width"] / 3600 for value in row["seconds"]]
        memory = f", {row['memory']:,.0f} MB" if row["memory"] else ""
        if row["unknown"]:
            say(
                "%-18s %5d jobs  unknown: nothing like %d of them was measured",
                row["stage"],
                row["jobs"],
                row["unknown"],
            )
            continue
        say(
            "%-18s %5d jobs  %s %s-hours, longest %s%s; %s%s", row["stage"], row["jobs"], spread(hours), kind,
            duration(row["longest"]), memory, "" if row["exact"] else "not as measured: ",
            " | ".join(row["source"]),
        )  # fmt: skip
    least = "at least " if cost["unknown"] else ""
    say("together %s%s core-hours, %s GPU-hours", least, spread(cost["core_hours"]), spread(cost["gpu_hours"]))
    low, middle, high = (duration(value) for value in cost["wall_clock"])
    path = duration(cost["critical_path"][1])
    say("wall-clock %s%s (%s to %s); the longest chain of jobs %s", least, middle, low, high, path)
    kinds = ", ".join(f"{kind} {size / 1e9:.3g} GB" for kind, size in sorted(cost["disk"]["kinds"].items()))
    say("disk %.3g GB (%s)", cost["disk"]["total"] / 1e9, kinds)
    for kind in cost["disk"]["unknown"]:
        say("disk of the %s: unknown, none was measured", kind)


def spread(values: Range) -> str:
    """A figure with the least and the most that it may be."""
    low, middle, high = values
    return f"{middle:.3g} ({low:.3g} to {high:.3g})" if f"{low:.3g}" != f"{high:.3g}" else f"{middle:.3g}"
