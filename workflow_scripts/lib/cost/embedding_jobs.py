"""Jobs that express images, real and generated ones, in features, for arms that learn from embeddings."""

from __future__ import annotations

from workflow_scripts.lib.config import embedding_checks, views
from workflow_scripts.lib.cost.counted_run import CountedRun
from workflow_scripts.lib.cost.workloads import IMAGES, MEGAPIXELS, TEXT, Config, Job, Workload, job_of
from workflow_scripts.lib.fidelity import encoder_choices

STAGE = "embed_images"
EMBEDDING = 1280  # features of an image, where only a file tells how many there are
TOGETHER = 3  # channels that a network of a package takes together; of any other number each goes in by itself


def real(run: CountedRun) -> list[Job]:
    """The job that embeds the real images, where some arm takes embeddings."""
    if not views.embedded_sets(run.config, run.config["arms"]):
        return []
    return [_job(run, "images", run.facts.images, "preprocess_images/preprocess_images")]


def synthetic(run: CountedRun, place: str) -> list[Job]:
    """The jobs that embed the synthetic sets of a fold, where some arm takes their embeddings."""
    known, wanted = views.by_name(run.config, "synthetic_sets"), views.embedded_sets(run.config, run.config["arms"])
    return [
        _job(run, _name(name, place), run.made(known[name]), run.set_key(name, place))
        for name in wanted
        if name != views.REAL
    ]


def needed(run: CountedRun, arms: list[Config], place: str) -> list[str]:
    """Keys of the jobs whose embeddings these arms take in a fold."""
    names = views.embedded_sets(run.config, arms)
    return [f"{STAGE}/{_name(name, place) if name != views.REAL else 'images'}" for name in names]


def width(run: CountedRun) -> int:
    """Features of an image."""
    encoder = embedding_checks.encoder(run.config)
    apart = encoder is not None and encoder["weights"] == encoder_choices.INSTALLED
    count = _channels(run, encoder) if apart else TOGETHER
    return EMBEDDING * (1 if count == TOGETHER else count)


def _name(synthetic_set: str, place: str) -> str:
    # Logs and benchmark files have the path of the set.
    return f"{place.replace('_', '/')}/synthetic/{synthetic_set}"


def _job(run: CountedRun, name: str, count: int, after: str) -> Job:
    encoder, bytes_each = embedding_checks.encoder(run.config), 4 * width(run)
    work = Workload(STAGE, IMAGES, count, {"network": "table"})
    if encoder is not None:
        # What a network computes grows with the pixels that it is shown, channel by channel or together.
        channels, size = _channels(run, encoder), encoder["size"] or run.size
        traits = {"network": encoder["architecture"], "size": size, "channels": channels}
        work = Workload(STAGE, MEGAPIXELS, count * channels * size**2 / 1e6, traits)
    job = job_of(STAGE, name, [work], [after], run.threads)
    job.disk["embeddings"] = count * (bytes_each + TEXT)
    job.held = count * bytes_each
    return job


def _channels(run: CountedRun, encoder: Config) -> int:
    return len(encoder["channels"] or []) or run.channels
