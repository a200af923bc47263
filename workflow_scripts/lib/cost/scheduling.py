"""Simulation of scheduling: wall-clock of jobs with dependencies on so many cores and GPUs."""

from __future__ import annotations

import heapq

from workflow_scripts.lib.cost.workloads import ON_GPU, Job


def schedule(jobs: list[Job], seconds: dict[str, float], cores: int, gpus: int) -> float:
    """Wall-clock of the jobs on so many cores, each started as soon as its dependencies are done and there is room.

    With `gpus`, stages that the profiles give a GPU take theirs. Of jobs that are ready, the first in the list starts
    first; Snakemake uses another rule, which changes little."""

    def room(job: Job) -> tuple[int, int]:
        return min(job.threads, cores), min(job.gpus, gpus) if job.stage in ON_GPU else 0

    waits = {job.key: sum(1 for key in job.after if key in seconds) for job in jobs}
    followers: dict[str, list[int]] = {}
    for number, job in enumerate(jobs):
        for key in job.after:
            followers.setdefault(key, []).append(number)
    ready = [number for number, job in enumerate(jobs) if not waits[job.key]]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now, free, free_gpus = 0.0, cores, gpus
    while ready or running:
        held_back = []
        while ready and free > 0:
            number = heapq.heappop(ready)
            needs, on_gpu = room(jobs[number])
            if needs > free or on_gpu > free_gpus:
                held_back.append(number)
                continue
            free, free_gpus = free - needs, free_gpus - on_gpu
            heapq.heappush(running, (now + seconds[jobs[number].key], number))
        for number in held_back:
            heapq.heappush(ready, number)
        now, number = heapq.heappop(running)
        job = jobs[number]
        needs, on_gpu = room(job)
        free, free_gpus = free + needs, free_gpus + on_gpu
        for follower in followers.get(job.key, ()):
            waits[jobs[follower].key] -= 1
            if not waits[jobs[follower].key]:
                heapq.heappush(ready, follower)
    return now


def critical_path(jobs: list[Job], seconds: dict[str, float]) -> float:
    """Critical path: seconds of the longest chain of dependent jobs, which no number of cores can beat."""
    end: dict[str, float] = {}
    for job in jobs:
        end[job.key] = seconds[job.key] + max((end[key] for key in job.after if key in end), default=0.0)
    return max(end.values(), default=0.0)
