"""Jobs that make, read and divide images, and fetch what trainings start from."""

from __future__ import annotations

from workflow_scripts.lib.classify import arm_settings, network_choices
from workflow_scripts.lib.cost.counted_run import CountedRun
from workflow_scripts.lib.cost.workloads import IMAGES, MEGAPIXELS, TEXT, Config, Job, Workload, job_of

# Bytes on disk, of the format: see images.image_set_layout.
COLUMNS = 6  # columns of text of an image set of cells (id, group, gene, antibody, cell line ...)


def reading(run: CountedRun) -> list[Job]:
    """Jobs as far as the image set."""
    raw, jobs = _raw(run), []
    shards, files = run.config["preprocess_images"]["shards"], run.facts.images * run.channels
    side = run.facts.side
    read = Workload("preprocess_images", IMAGES, run.facts.images, {"source": run.config["data"]["source"]})
    if side is not None:
        read = Workload("preprocess_images", MEGAPIXELS, files * side**2 / 1e6, {"side": side, "size": run.size})
    before = [job.key for job in raw]
    if shards > 1:
        jobs = [
            job_of("preprocess_shard", f"{n}of{shards}", [_fraction(read, shards)], before, run.threads)
            for n in range(shards)
        ]
        before = [job.key for job in jobs]
        # What the shards have read is put together, which takes no decoding.
        read = Workload("preprocess_images", "images joined", run.facts.images, {"size": run.size})
    joined = job_of("preprocess_images", "preprocess_images", [read], before, run.threads)
    joined.disk["images"] = run.facts.images * (run.pixels + run.facts.classes + COLUMNS * TEXT)
    return [*raw, *jobs, joined]


def _raw(run: CountedRun) -> list[Job]:
    if run.simulated:
        cells = run.config["simulate_cells"]
        job = job_of("simulate_cells", "simulate_cells", [drawing(run, 1)], [], cells["processes"])
        job.files = cells["images"] * 4  # all channels are drawn, whichever are used
        return [job]
    if run.config["data"]["source"] != "folder" and not run.config["data"]["images"]:
        wanted = Workload("fetch_images", IMAGES, run.facts.images, {"source": run.config["data"]["source"]})
        return [job_of("fetch_images", "fetch_images", [wanted])]
    return []


def weights(run: CountedRun) -> list[Job]:
    """Jobs that fetch published weights."""
    keys = {key for batch in run.batches for key in fetched(run, batch)}
    return [
        job_of("fetch_weights", key.partition("/")[2], [Workload("fetch_weights", "files", 1)]) for key in sorted(keys)
    ]


def fetched(run: CountedRun, batch: list[Config]) -> list[str]:
    """Jobs that fetch the published weights from which the arms of a job start."""
    folder, out = run.config["fetch_weights"]["folder"], set()
    for entry in batch:
        arm = arm_settings.effective(entry, run.config["train_classifier"])
        if arm["weights"] == network_choices.published_path(folder, arm["backbone"]):
            out.add(f"fetch_weights/{arm['backbone']}")
    return sorted(out)


def drawing(run: CountedRun, fraction: float) -> Workload:
    """Drawing of a fraction of the simulated cells."""
    cells = run.config["simulate_cells"]
    return Workload(
        "simulate_cells", MEGAPIXELS, fraction * cells["images"] * 4 * cells["size"] ** 2 / 1e6,
        {"size": cells["size"]}, "drawing",
    )  # fmt: skip


def folds(run: CountedRun) -> list[Job]:
    """Jobs that divide the images, one a repeat."""
    section = run.config["make_folds"]
    work = Workload("make_folds", IMAGES, run.facts.images * section["folds"])
    after = ["preprocess_images/preprocess_images"]
    return [job_of("make_folds", f"repeat{r}", [work], after) for r in range(section["repeats"])]


def _fraction(work: Workload, count: int) -> Workload:
    return Workload(work.kind, work.unit, work.units / count, work.traits, work.part)
