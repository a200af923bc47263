"""What each rule must know of a checked config: names, jobs and files. Pure functions, without Snakemake.

What a stage is told stands in `stage_views.py`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.classify import arm_settings, network_choices
from workflow_scripts.lib.config import asked_arms, embedding_checks
from workflow_scripts.lib.config.problems import Config, ConfigError
from workflow_scripts.lib.fidelity import encoder_choices
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.images import corruption_choices
from workflow_scripts.lib.images.known_datasets import TRAIN_PART

REAL = ""  # name of the embeddings of the real images, beside those of synthetic sets

# ----------------------------------------------------------------------------------------------------------------------
# Names and jobs


def by_name(config: Config, section: str) -> dict[str, Config]:
    """The entries of one of the lists, by name."""
    return {entry["name"]: entry for entry in config[section]}


def without(section: Config, *names: str) -> Config:
    """A section without some of its keys."""
    return {name: value for name, value in section.items() if name not in names}


def as_json(section: Config, **more: Any) -> str:
    """A stage's settings as one line of JSON."""
    return json.dumps(section | more, sort_keys=True, ensure_ascii=False)


def by_train_part(config: Config) -> bool:
    """Whether intensities are normalised by the train part, so that each fold has images of its own look."""
    return config["preprocess_images"]["intensity"] == TRAIN_PART


def in_run(config: Config, path: str) -> str:
    """A path of this run."""
    return f"results/{config['run']}/{path}"


def job_lists(config: Config) -> list[list[Config]]:
    """The arms in jobs of `compute.arms_per_job`, in the order of the list; the baseline is in the first job.

    An arm that others wait for has a job of its own, so that they wait for nothing else. Those that wait are in jobs
    of one regime, whose methods ask one arm."""
    size = config["compute"]["arms_per_job"]
    first = [entry for entry in config["arms"] if entry["name"] == config["analysis"]["baseline"]]
    others = [entry for entry in config["arms"] if entry not in first]
    asked = set().union(*(asked_arms.asked_by(entry, config) for entry in others))
    own = [entry for entry in others if entry["name"] in asked]
    left = [entry for entry in others if entry not in own]
    waiting = [entry for entry in left if asked_arms.waits(entry, config)]
    ready = [entry for entry in left if entry not in waiting]
    kinds = [(entry.get("regime"), entry.get(asked_arms.FROM)) for entry in waiting]
    alike = [[entry for entry, kind in zip(waiting, kinds, strict=True) if kind == one] for one in dict.fromkeys(kinds)]
    queues = [first, *([entry] for entry in own), ready, *alike] if asked else [first + ready]
    return [queue[start : start + size] for queue in queues for start in range(0, len(queue), size)]


def job_of(config: Config, name: str | None) -> int:
    """The number of the job that begins with an arm which others ask."""
    return next(number for number, arms in enumerate(job_lists(config)) if arms[0]["name"] == name)


def asked_job(config: Config, entry: Config) -> int:
    """The number of the job with the arm that a generator, a synthetic set or an arm asks."""
    return job_of(config, asked_arms.answering(entry, config))


def corruptions(config: Config) -> list[str]:
    """Corruptions under which arms are scored; none where no stress test is asked for."""
    channels = len(config["preprocess_images"]["channels"])
    return corruption_choices.wanted(config["stress_test"]["corruptions"], channels)


def sets_of(arms: Iterable[Config]) -> list[str]:
    """The synthetic sets that these arms need."""
    return sorted({entry["synthetic_set"] for entry in arms if entry.get("synthetic_set")})


def generators_of(arms: Iterable[Config]) -> list[str]:
    """The generators whose encoder these arms have."""
    return sorted({entry["generator"] for entry in arms if entry.get("generator")})


def used_sets(config: Config) -> list[str]:
    """Synthetic sets that some arm trains with; only these are sampled."""
    used = sets_of(config["arms"])
    return [entry["name"] for entry in config["synthetic_sets"] if entry["name"] in used]


def sets_together(config: Config) -> list[str]:
    """Used synthetic sets that one process samples for a fold: those drawn from generators that wait for no baseline.

    None where compute.sets_together is off, or where there are fewer than two."""
    entries, generators = by_name(config, "synthetic_sets"), by_name(config, "generators")
    found = [
        name
        for name in used_sets(config)
        if (source := generators.get(entries[name]["generator"])) is not None
        and not generator_choices.asks_baseline(entries[name])
        and not generator_choices.pseudo_labels(source)
    ]
    return found if config["compute"]["sets_together"] and len(found) > 1 else []


def generators_for(config: Config, sets: Iterable[str]) -> list[str]:
    """Generators from which these synthetic sets are drawn, and those that guide them."""
    entries = [by_name(config, "synthetic_sets")[name] for name in sets]
    guiding = {name for entry in entries if (name := generator_choices.weaker_generator(entry))}
    return sorted({entry["generator"] for entry in entries} - {generator_choices.SIMULATOR} | guiding)


def exported_sets(config: Config) -> list[str]:
    """Synthetic sets that the target export writes as files."""
    used, wanted = used_sets(config), config["export"]["sets"]
    unused = [name for name in wanted or () if name not in used]
    if unused:
        told = f"{', '.join(used) or 'none'}{meant(unused[0], used)}"
        raise ConfigError(f"export.sets names {unused[0]!r}, which no arm uses; used are: {told}")
    if not used:
        raise ConfigError("the target export needs a synthetic set that an arm uses")
    return wanted or used


def gallery_sets(config: Config) -> list[str]:
    """Synthetic sets that the target gallery shows."""
    if not used_sets(config):
        raise ConfigError("the target gallery needs a synthetic set that an arm uses")
    return used_sets(config)


def used_generators(config: Config) -> list[str]:
    """Generators that a used synthetic set is drawn from or guided by, or whose encoder an arm has; only these are
    trained."""
    return sorted({*generators_for(config, used_sets(config)), *generators_of(config["arms"])})


def sets_from(config: Config, simulator: bool) -> list[str]:
    """Synthetic sets that the simulator draws, or those that generators do: each kind has its own stage."""
    simulated = generator_choices.SIMULATOR
    return [entry["name"] for entry in config["synthetic_sets"] if (entry["generator"] == simulated) == simulator]


def judged_by(config: Config) -> str:
    """Who judges generated images: an independent judge where cells are simulated, elsewhere the fold's baseline."""
    return "independent" if config["data"]["source"] == "simulated" else config["analysis"]["baseline"]


def submitted_arm(config: Config) -> str:
    """The arm whose predictions are handed in."""
    return config["write_submission"]["arm"] or config["analysis"]["primary_arm"]


def submitted_jobs(config: Config) -> list[int]:
    """The number of the job with the arm that is handed in."""
    return jobs_with(config, submitted_arm(config), "write_submission.arm")


def predicting_arm(config: Config) -> str:
    """The arm that predicts new images."""
    return config["predict"]["arm"] or config["analysis"]["primary_arm"]


def predicting_jobs(config: Config) -> list[int]:
    """The number of the job with the arm that predicts new images."""
    return jobs_with(config, predicting_arm(config), "predict.arm")


def packed_arm(config: Config) -> str:
    """The arm of the model package."""
    return config["model_package"]["arm"] or config["analysis"]["primary_arm"]


def packed_jobs(config: Config) -> list[int]:
    """The number of the job with the arm of the model package."""
    return jobs_with(config, packed_arm(config), "model_package.arm")


def jobs_with(config: Config, arm: str, asked: str) -> list[int]:
    """The number of the job with an arm; `asked` is the key that names it."""
    known = by_name(config, "arms")
    if arm not in known:
        raise ConfigError(f"{asked} = {arm!r} is not among the arms: {', '.join(known)}{meant(arm, known)}")
    if embedding_checks.is_embedded(known[arm], config):
        raise ConfigError(f"{asked} = {arm!r} takes embeddings, and there are none of new images: name another arm")
    if by_train_part(config):
        raise ConfigError(
            f"{asked}: classifiers take no new images with preprocess_images.intensity: train_part, as each fold "
            "has its own limits, and a new plate none; take percentile or fixed"
        )
    return [number for number, arms in enumerate(job_lists(config)) if known[arm] in arms]


def require_lockbox(config: Config) -> None:
    """A ConfigError where no image was set aside for the lockbox."""
    if not config["make_folds"]["fractions"]["lockbox"] > 0:
        raise ConfigError(
            "there is no lockbox: make_folds.fractions.lockbox is 0, so no image was set aside for it. Give it a "
            "fraction, such as 0.1, and train again"
        )


# ----------------------------------------------------------------------------------------------------------------------
# Files


def compared_name(config: Config) -> str:
    """The name of the page that compares two runs."""
    return "_".join(config["runs"]) or "none"


def compared_runs(config: Config) -> dict[str, str]:
    """The folders of the two runs that the target compare puts on one page, by name."""
    if len(config["runs"]) != 2:
        raise ConfigError("the target compare needs two runs: --config 'runs=[one, other]'")
    found = {name: f"results/{name}" for name in config["runs"]}
    lacking = [name for name, folder in found.items() if not Path(folder, "analysis.json").is_file()]
    if lacking:
        raise ConfigError(f"runs names {lacking[0]!r}: results/{lacking[0]}/ holds no finished run")
    return found


def compared_digests(config: Config) -> list[str]:
    """Digests by which the comparison of two runs follows what they found."""
    return [digest(Path(folder, "analysis.json"), 8) for folder in compared_runs(config).values()]


def shard_files(config: Config) -> list[str]:
    """What the jobs that read a part of the images leave, where there are several."""
    count = config["preprocess_images"]["shards"]
    return [in_run(config, f"shards/{shard}of{count}.json") for shard in range(count)] if count > 1 else []


def weights_of(config: Config, arms: Iterable[Config]) -> list[str]:
    """The files of published weights that these arms start from. Those that fetch_weights brings outlive runs,
    so they are nobody's declared output: their record of this run stands for them."""
    files = set()
    for entry in arms:
        arm, own = arm_settings.effective(entry, config["train_classifier"]), users_weights(config, entry)
        if own:
            files.add(str(network_choices.weights_path(own)))
        elif arm["weights"]:
            files.add(in_run(config, f"fetched/weights/{arm['backbone']}.csv"))
    return sorted(files)


def users_weights(config: Config, entry: Config) -> str | None:
    """The user's own file of weights that an arm starts from, if it does; not one that fetch_weights brings."""
    arm = arm_settings.effective(entry, config["train_classifier"])
    fetched = network_choices.published_path(config["fetch_weights"]["folder"], arm["backbone"])
    return None if arm["weights"] == fetched else arm["weights"]


def encoders(config: Config) -> dict[str, Config]:
    """Encoders that are no classifier of the run, by their key, with all of their settings."""
    keys = ("encoder", "independent_encoder")
    section, side = config["assess_synthetic"], config["preprocess_images"]["size"]
    found = {f"assess_synthetic.{key}": encoder_choices.full(section[key], side) for key in keys}
    found[embedding_checks.KEY] = embedding_checks.encoder(config)
    return {key: encoder for key, encoder in found.items() if isinstance(encoder, dict)}


def users_encoders(config: Config) -> list[Config]:
    """Of these, the user's own: what they were trained on is unknown."""
    return [encoder for encoder in encoders(config).values() if encoder["weights"] != encoder_choices.INSTALLED]


def encoder_weights(config: Config) -> list[str]:
    """The files of the user's own encoders that assess_synthetic asks; those of embeddings are `embedding_files`."""
    asked = [encoder for key, encoder in encoders(config).items() if key != embedding_checks.KEY]
    own = [encoder for encoder in asked if encoder["weights"] != encoder_choices.INSTALLED]
    return [str(encoder_choices.weights_file(encoder)) for encoder in own]


def embedding_tables(config: Config) -> dict[str, str | None]:
    """The user's table of embeddings, and that of its Ids."""
    given = {key: config["embeddings"][key] for key in ("table", "ids")}
    return {key: str(network_choices.weights_path(path)) if path else None for key, path in given.items()}


def embedding_files(config: Config) -> list[str]:
    """The files that embeddings are made from, beside images: the user's table, or the weights of a network."""
    own = embedding_checks.encoder(config)
    weights = [str(encoder_choices.weights_file(own))] if own and own["weights"] != encoder_choices.INSTALLED else []
    return [path for path in embedding_tables(config).values() if path] + weights


def embedded_sets(config: Config, arms: Iterable[Config]) -> list[str]:
    """Of what the embeddings are that these arms take: synthetic sets, and REAL for the real images."""
    arms = embedding_checks.embedded(arms, config)
    return [REAL, *embedding_checks.sets_with_embeddings(arms, config)] if arms else []


def replay_files(config: Config, ending: str) -> list[str]:
    """A file of every shard of the replay (target forensics), in every fold of its own number of repeats."""
    section, folds = config["forensics"], config["make_folds"]["folds"]
    if not section["models"]:
        raise ConfigError("the target forensics needs forensics.models; presets/paper.yaml has some")
    return [
        in_run(config, f"repeat{repeat}/fold{fold}/replay/{shard}{ending}")
        for repeat in range(section["repeats"])
        for fold in range(folds)
        for shard in range(section["shards"])
    ]


def digest(path: str | Path, size: int) -> str:
    """A digest of a file by which a rule sees that it has changed; empty where there is none."""
    path = Path(path)
    return hashlib.blake2b(path.read_bytes(), digest_size=size).hexdigest() if path.exists() else ""


def forensics_flag(config: Config) -> tuple[list[str], str]:
    """The flag by which the report gets the replay's result, if there is one, and the digest of that."""
    path = in_run(config, "forensics.json")
    current = digest(path, 16)
    return ["--forensics", path] if current else [], current
