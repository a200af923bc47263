"""What Snakemake's way of handing jobs to machines asks of a run: checks and settings of the profiles.

Imported by the Snakefile at every start, so it must stay light."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import time
from collections import Counter
from pathlib import Path
from typing import Any

from workflow_scripts.lib.compute.gpu_locks import CHOICE

# Rules whose outputs others read: two Snakemakes that make them would take them away from each other.
MAKING = {
    "simulate_cells", "fetch_images", "cut_cells", "cut_new_cells", "preprocess_shard", "preprocess_images",
    "make_folds", "train_ddpm", "sample_ddpm", "sample_fold", "train_classifier", "train_judge",
}  # fmt: skip
HELD: list[Any] = []  # open files whose locks last as long as this process
BEGAN = time.time()  # this run, as files tell the time
START = re.compile(r", process \d+$", re.MULTILINE)
# The words by which a stage ends its log, whether it failed or not.
END = re.compile(r"^\S+ \S+ (ERROR |INFO done in )", re.MULTILINE)


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


def held_elsewhere(workflow: Any, run: str) -> str | None:
    """That another Snakemake makes the same run, in one line; otherwise this one holds it until it ends.

    Snakemake's own lock of the outputs is gone as soon as any other one in this folder has ended. Targets that only
    read what the run has made, such as predict and export, need not wait for each other."""
    if not any(job.rule.name in MAKING for job in workflow.dag.needrun_jobs()):
        return None
    path = Path(".snakemake", "mixloc", f"{run}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = path.open("w", encoding="utf-8")
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return (
            f"the run {run} is being made by another Snakemake: wait until it has ended, or give this one a run of its "
            "own (--config run=...)"
        )
    except OSError:  # a file system that knows no locks
        return None
    HELD.append(holder)
    return None


def deployment(workflow: Any) -> list[str]:
    """The words by which this Snakemake was told to give stages environments of their own, such as --sdm conda."""
    methods = sorted(str(method) for method in workflow.deployment_settings.deployment_method)
    return ["--sdm", *methods] if methods else []


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


def ended_silently(path: Path) -> bool:
    """Whether the last process that has written to a stage's log was killed: it neither failed nor was done."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    starts = list(START.finditer(text))
    return bool(starts) and not END.search(text, starts[-1].end())


def killed_jobs(workflow: Any) -> list[str]:
    """A line for each job of this run that was killed: Snakemake itself does not say by what a job has ended."""
    out = []
    for job in workflow.dag.needrun_jobs():
        for log in map(Path, job.log):
            if log.is_file() and log.stat().st_mtime >= BEGAN and ended_silently(log):
                out.append(
                    f"{job.rule.name} was killed ({log}); unless you did so, memory ran out: run again with more "
                    f"memory (mem_mb in a profile), fewer jobs at a time (--cores) or smaller batches; it goes on from "
                    f"its checkpoint. `snakemake rehearse` tells what a run needs"
                )
    return out


def folder_problem(folder: Path, run: str, snakefile: Path) -> str | None:
    """Why this user cannot run in a working directory, in one line; None where nothing is in the way.

    What the first user of a checkout makes there is not writable for a second one."""
    asked = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
    own = ("", ".snakemake", ".snakemake/locks", ".snakemake/metadata", "results", f"results/{run}")
    for path in (folder / name for name in own):
        if path.exists() and not os.access(path, os.W_OK | os.X_OK, **asked):
            return (
                f"{path} is not writable for you, it belongs to {_owner(path)}: work in a folder of your own: "
                f"snakemake -s {shlex.quote(str(snakefile))} --directory MY_FOLDER"
            )
    return None


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return f"user {path.stat().st_uid}"
