"""Jobs of a run, counted from the config: the work in each, its dependencies, and its files on disk.

Work is counted in units: billions of operations of a network (GFLOP: steps x batch x those of an image, which depend on
size and widths), millions of pixels drawn or read, images, draws of the bootstrap. The time for a unit is measured
(`measured_rates.py`); nothing here contains speeds. Jobs name their dependencies, so that the wall-clock on any number
of cores can be simulated (`scheduling.py`).

This reads no files and needs no torch; a `Networks` object counts the networks."""

from __future__ import annotations

from workflow_scripts.lib.cost import embedding_jobs, image_jobs, judging_jobs, network_jobs
from workflow_scripts.lib.cost.counted_run import CountedRun
from workflow_scripts.lib.cost.workloads import Config, Facts, Job, Networks


def jobs_of(config: Config, facts: Facts, networks: Networks, cores: int) -> list[Job]:
    """All jobs of a run of a checked config, dependencies first."""
    run = CountedRun(config, facts, networks, cores)
    return [
        *image_jobs.reading(run), *embedding_jobs.real(run), *image_jobs.weights(run), *network_jobs.judge(run),
        *judging_jobs.declaring(),
        *image_jobs.folds(run), *network_jobs.fold_by_fold(run), *judging_jobs.judging(run), *judging_jobs.showing(run),
    ]  # fmt: skip


def counted(config: Config) -> Config:
    """Part of a config that affects the cost: edits of anything else do not repeat the prediction."""
    out = {name: config[name] for name in ("run", "simulate_cells", "preprocess_images", "make_folds", "generators",
                                           "synthetic_sets", "embeddings", "arms", "train_classifier")}  # fmt: skip
    out["data"] = config["data"] | dict.fromkeys(("origin", "release", "licence", "credit"), "")
    out["fetch_images"] = {"limit": config["fetch_images"]["limit"]}
    out["fetch_weights"] = {"folder": config["fetch_weights"]["folder"]}
    out["analysis"] = {name: config["analysis"][name] for name in ("baseline", "draws", "refit_thresholds")}
    out["stress_test"] = {name: config["stress_test"][name] for name in ("corruptions", "draws")}
    out["compute"] = {name: value for name, value in config["compute"].items() if name != "environment"}
    return out
