"""Jobs that judge what was trained, and that draw it."""

from __future__ import annotations

from workflow_scripts.lib.classify import arm_settings
from workflow_scripts.lib.config import views
from workflow_scripts.lib.cost import network_jobs
from workflow_scripts.lib.cost.counted_run import CountedRun
from workflow_scripts.lib.cost.workloads import GFLOP, IMAGES, JOBS, Job, Workload, job_of
from workflow_scripts.lib.images import corruption_choices


def declaring() -> list[Job]:
    """Jobs that precede all scores."""
    return [
        job_of(stage, stage, [Workload(stage, JOBS, 1)])
        for stage in ("predict_cost", "declare_analysis")
    ]  # fmt: skip


def judging(run: CountedRun) -> list[Job]:
    """Jobs from predictions to verdicts, the stress test and the certificate."""
    analysis, places = run.config["analysis"], len(run.places)
    trained = len(run.config["arms"]) * places
    scored = run.part["test"] + run.part["calibration"]
    arms_done = [f"train_classifier/repeat{r}_fold{f}_job{n}" for r, f in run.places
                 for n in range(len(run.batches))]  # fmt: skip
    units = trained * analysis["draws"] * scored * run.facts.classes / 1e9
    refit = {"refit_thresholds": analysis["refit_thresholds"]}
    judged = job_of(
        "aggregate_metrics", "aggregate_metrics",
        [Workload("aggregate_metrics", "billion logits drawn", units, refit)],
        [*arms_done, "declare_analysis/declare_analysis"], min(4, run.cores),
    )  # fmt: skip
    judged.held = trained * scored * run.facts.classes * 8
    stressed = _stressed(run, arms_done)
    artefacts = trained + places * (len(run.synthetic_sets) + len(views.used_generators(run.config)))
    checks = Workload("certify_leaks", IMAGES, artefacts * run.facts.images)
    tested = [job.key for job in stressed if job.stage == "stress_test"]
    return [judged, *stressed, job_of("certify_leaks", "certify_leaks", [checks], [judged.key, *tested])]


def _stressed(run: CountedRun, arms_done: list[str]) -> list[Job]:
    """Jobs of the stress test, where one is asked for."""
    conditions = len(corruption_choices.conditions(views.corruptions(run.config)))
    if not conditions:
        return []
    arms = [arm_settings.effective(entry, run.config["train_classifier"]) for entry in run.config["arms"]]
    works = [
        network_jobs.training(run, arm | {"steps": 0}, "stress_test", conditions * run.part["test"])[0] for arm in arms
    ]
    networks = "+".join(sorted({arm["backbone"] for arm in arms}))
    # Hand-made features count nothing here; their time is in the rates of jobs with them.
    units = sum(work.units for work in works if work.unit == GFLOP)
    traits = {"network": networks, "size": run.size, "channels": run.channels}
    jobs = []
    for repeat, fold in run.places:
        place = f"repeat{repeat}_fold{fold}"
        after = [f"train_classifier/{place}_job{number}" for number in range(len(run.batches))]
        job = job_of("stress_test", place, [Workload("stress_test", GFLOP, units, traits)], after, run.threads)
        job.held = 2 * run.part["test"] * run.pixels
        jobs.append(job)
    scored = run.part["calibration"] + (conditions + 1) * run.part["test"]
    drawn = len(arms) * len(run.places) * run.config["stress_test"]["draws"] * scored * run.facts.classes / 1e9
    after = [*arms_done, "declare_analysis/declare_analysis", *(job.key for job in jobs)]
    work = Workload("aggregate_stress", "billion logits drawn", drawn)
    return [*jobs, job_of("aggregate_stress", "aggregate_stress", [work], after, min(4, run.cores))]


def showing(run: CountedRun) -> list[Job]:
    """Jobs that draw figures and write the page."""
    arms_done = [f"train_classifier/repeat{r}_fold{f}_job{n}" for r, f in run.places
                 for n in range(len(run.batches))]  # fmt: skip
    folds = [f"make_folds/repeat{r}" for r in range(run.config["make_folds"]["repeats"])]
    trained = len(run.config["arms"]) * len(run.places)
    data = job_of("plot_data", "plot_data", [Workload("plot_data", IMAGES, run.facts.images)], folds)
    curves = job_of("plot_training", "plot_training", [Workload("plot_training", "arms", trained)], arms_done)
    assessed = [
        f"assess_synthetic/repeat{r}_fold{f}_{synthetic_set['name']}"
        for r, f in run.places
        for synthetic_set in run.synthetic_sets
    ]
    after = ["aggregate_metrics/aggregate_metrics", *assessed]
    forest = job_of("plot_arms", "plot_arms", [Workload("plot_arms", JOBS, 1)], after)
    panels = [
        f"plot_images/repeat{r}_fold{f}_{synthetic_set['name']}"
        for r, f in run.places
        for synthetic_set in run.synthetic_sets
    ]
    before = [data.key, curves.key, forest.key, "certify_leaks/certify_leaks", "predict_cost/predict_cost", *panels]
    before += ["aggregate_stress/aggregate_stress"] if views.corruptions(run.config) else []
    return [data, curves, forest, job_of("report", "report", [Workload("report", JOBS, 1)], before)]
