"""What Snakemake's way of handing jobs to machines asks of a run: checks and settings of the profiles.

Imported by the Snakefile at every start, so it must stay light."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from workflow_scripts.lib.compute.gpu_locks import CHOICE


def array_problem(rules: set[str], waiting: Counter[str], jobs: int | None) -> str | None:
    """Why jobs that are to be submitted as arrays would wait for ever, in one line; None where they would not.

    Snakemake picks at most `jobs` of those that are ready. The SLURM plugin submits an array only when nothing of its
    rule is left over, and what it was given before it forgets: the run would stand still without a word."""
    if jobs is None:
        return None
    for rule, count in sorted(waiting.items()):
        if count > jobs and (rule in rules or "all" in rules):
            return (
                f"jobs = {jobs} is less than the {count} jobs of {rule}, which slurm-array-jobs submits together: "
                f"in the profile set jobs to {count} or more, or take slurm-array-jobs out"
            )
    return None


def submission_problem(workflow: Any) -> str | None:
    """`array_problem` of a run that is about to start."""
    wanted = getattr(workflow.executor_settings, "array_jobs", None) or ""
    rules = {name.strip() for name in wanted.replace(";", ",").split(",") if name.strip()}
    if not rules:
        return None
    waiting = Counter(job.rule.name for job in workflow.dag.needrun_jobs())
    return array_problem(rules, waiting, workflow.resource_settings.nodes)


def launcher(processes: int) -> str:
    """What stands between `python -m` and the name of a stage that so many processes of one machine share."""
    if processes == 1:
        return ""
    # They meet on this machine's own loopback, at a port that is free.
    here = "--standalone --local-addr=127.0.0.1"
    # What follows the dashes is the stage's own: torchrun would take --log for short of one of its options.
    return f"torch.distributed.run {here} --nproc-per-node={processes} -m -- "


def devices_problem(workflow: Any, processes: int, rules: tuple[str, ...]) -> str | None:
    """Why jobs of these rules have fewer GPUs than processes, in one line; None where they have not, or need none."""
    for job in workflow.dag.needrun_jobs():
        gpus = job.resources.get("gpu") if job.rule.name in rules else None
        if isinstance(gpus, int) and 0 < gpus < processes:
            return (
                f"compute.processes = {processes}, but the profile gives {job.rule.name} gpu: {gpus}: "
                f"write gpu: {processes} there under set-resources"
            )
    return None


def cores_warning(workflow: Any, threads: int) -> str | None:
    """That a job gets fewer cores than it computes on, in one line; None where it does not. Its threads stay: another
    number of them would be another result."""
    cores = workflow.resource_settings.cores
    if cores is None or cores >= threads:
        return None
    return (
        f"compute.threads times compute.processes is {threads}, and cores = {cores}: trainings get {cores} cores for "
        f"{threads} threads, and take longer; say --cores {threads} or more, or fewer threads"
    )


def share_devices(workflow: Any) -> None:
    """Tell the jobs of one machine which GPUs there are, where a profile limits them by the resource `gpu`.

    Snakemake counts a resource but gives none out; each job takes one for itself (see devices.py). On a cluster that
    is the scheduler's business."""
    limit = workflow.global_resources.get("gpu").value
    if limit is None or workflow.remote_exec or workflow.resource_settings.nodes is not None:
        return
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = visible or [str(number) for number in range(int(limit))]
    os.environ.setdefault(CHOICE, ",".join(names[: int(limit)]))


def room(workflow: Any) -> tuple[int, int | None]:
    """How many cores, and how many of the GPUs that the profiles ask for, jobs may have at a time; None: not limited.

    On a cluster so many as all jobs together that may be submitted, as though none of them waited."""
    settings = workflow.resource_settings
    cores, jobs = settings.cores or 1, settings.nodes
    if jobs is None:
        return cores, workflow.global_resources.get("gpu").value
    return jobs * cores, jobs if "gpu" in settings.overwrite_resources.get("train_ddpm", {}) else 0
