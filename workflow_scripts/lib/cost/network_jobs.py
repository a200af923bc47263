"""Jobs that train, sample and look at networks, fold by fold, and the training of the judge of simulated cells."""

from __future__ import annotations

from workflow_scripts.lib.classify import arm_choices, arm_settings, network_choices
from workflow_scripts.lib.config import stage_views, views
from workflow_scripts.lib.cost import embedding_jobs, image_jobs
from workflow_scripts.lib.cost.counted_run import CountedRun
from workflow_scripts.lib.cost.workloads import BLOCK, GFLOP, IMAGES, JOBS, TEXT, Config, Job, Network, Workload, job_of
from workflow_scripts.lib.generate import generator_choices

PARTS = ("test", "calibration", "validation")  # parts that a classifier predicts
JUDGE_SELECTS = 0.2  # images for selecting the judge, relative to those for fitting it


def fold_by_fold(run: CountedRun) -> list[Job]:
    """Jobs of all folds, in an order in which they can run."""
    jobs = []
    used = views.used_generators(run.config)
    for repeat, fold in run.places:
        place, folds = f"repeat{repeat}_fold{fold}", [f"make_folds/repeat{repeat}"]
        first = f"train_classifier/{place}_job0"
        jobs += [_generator(run, run.generators[name], place, folds) for name in used]
        sets = [_synthetic_set(run, synthetic_set, place, folds) for synthetic_set in run.synthetic_sets]
        jobs += [*_joined_sets(run, sets, place), *embedding_jobs.synthetic(run, place)]
        jobs += [_arms(run, number, batch, place, folds) for number, batch in enumerate(run.batches)]
        for synthetic_set in run.synthetic_sets:
            seen = [run.set_key(synthetic_set["name"], place), first]
            jobs += _looking(run, synthetic_set, place, seen + (["train_judge/train_judge"] if run.simulated else []))
    # In topological order: sets that use the baseline come after it.
    return _ordered(jobs)


def _generator(run: CountedRun, generator: Config, place: str, after: list[str]) -> Job:
    network = run.generator_network(generator)
    units = generator["steps"] * generator["batch"] * network.training / 1e9
    traits = run.generator_traits(generator) | {"batch": generator["batch"]} | run.shared()
    if generator_choices.pseudo_labels(generator):
        after = [*after, run.baseline_job(place, generator)]
    job = job_of(
        "train_ddpm", f"{place}_{generator['name']}", [Workload("train_ddpm", GFLOP, units, traits)], after,
        run.threads,
    )  # fmt: skip
    job.threads, job.gpus = run.threads * run.processes, run.processes
    job.disk["weights"] = network.bytes * (2 if generator.get("snapshot") else 1)
    job.held = run.part["train"] * run.pixels
    return job


def _synthetic_set(run: CountedRun, synthetic_set: Config, place: str, folds: list[str]) -> Job:
    """Job of a synthetic set."""
    count = run.made(synthetic_set)
    stage, name = run.own_key(synthetic_set["name"], place).split("/")
    if stage == "sample_simulator":
        job = job_of(stage, name, [Workload(stage, IMAGES, count, {"size": run.size})], folds)
    else:
        generator = run.generators[synthetic_set["generator"]]
        units = count * _operations(run, generator, synthetic_set) / 1e9
        weaker = generator_choices.weaker_generator(synthetic_set)
        traits = run.generator_traits(generator) | {"batch": min(synthetic_set["batch"], count)}
        after = [
            f"train_ddpm/{place}_{synthetic_set['generator']}",
            *([f"train_ddpm/{place}_{weaker}"] if weaker else []),
            *([run.baseline_job(place, synthetic_set)] if generator_choices.asks_baseline(synthetic_set) else []),
        ]
        job = job_of(stage, name, [Workload(stage, GFLOP, units, traits)], after, run.threads)
    job.disk["synthetic"] = count * (run.pixels + run.facts.classes + 2 * TEXT)
    # Real images that channels are taken from, or that are varied, lie beside those that are made.
    real = synthetic_set.get("reference_channels") or synthetic_set.get("start_noise")
    job.held = count * run.pixels * (2 if real else 1)
    return job


def _joined_sets(run: CountedRun, sets: list[Job], place: str) -> list[Job]:
    """Jobs of the sets, with one job in place of those that are made together."""
    keys = {run.own_key(name, place) for name in run.together}
    parts = [job for job in sets if job.key in keys]
    if not parts:
        return sets
    after = sorted({key for job in parts for key in job.after})
    works = [work for job in parts for work in job.works]
    joined = job_of("sample_fold", f"{place}_sets", works, after, run.threads)
    joined.disk["synthetic"] = sum(job.disk["synthetic"] for job in parts)
    joined.held = max(job.held for job in parts)
    return [job for job in sets if job.key not in keys] + [joined]


def _operations(run: CountedRun, generator: Config, synthetic_set: Config) -> float:
    """Operations for an image of a synthetic set, those of the network that guides it included."""
    forward, calls = run.generator_network(generator).forward, run.networks.calls(generator, synthetic_set)
    weaker = generator_choices.weaker_generator(synthetic_set)
    if not weaker:
        return calls * forward
    unguided = synthetic_set | {"guidance": synthetic_set["guidance"] | {"scale": 1}}
    own = run.networks.calls(generator, unguided)
    return own * forward + (calls - own) * run.generator_network(run.generators[weaker]).forward


def training(run: CountedRun, entry: Config, kind: str, judged: float) -> tuple[Workload, Network]:
    """Training of a classifier, with `judged` predictions an image."""
    seen = len(entry["channels"]) if entry["channels"] else run.channels
    if network_choices.BACKBONES[entry["backbone"]].hand_made:
        # Time goes into the features of all images that it looks at, rather than into steps.
        embedded = network_choices.BACKBONES[entry["backbone"]].embedded
        traits = {"network": entry["backbone"], "size": 1 if embedded else run.size, "channels": seen}
        work = Workload(kind, "images described", run.part["train"] + judged, traits, entry["name"])
        return work, Network(0.0, 0.0, run.facts.classes * BLOCK)
    if arm_choices.METHODS[entry["method"]].scores:
        return _scored(run, entry, kind, judged)
    if network_choices.BACKBONES[entry["backbone"]].embedded:
        return _embedded(run, entry, kind, judged)
    frozen = bool(entry["frozen"])
    if network_choices.BACKBONES[entry["backbone"]].of_generator:
        # The way down is about a half of the network, however many blocks of it are taken.
        whole = run.generator_network(run.generators[entry["generator"]])
        ahead, back = (whole.forward / 2, (whole.forward if frozen else whole.training) / 2)
        network = Network(ahead, back, whole.bytes)
    else:
        network = run.networks.classifier(entry["backbone"], seen, run.facts.classes, run.size, frozen)
    operations = entry["steps"] * arm_settings.seen_in_batch(entry) * network.training + judged * network.forward
    traits = {"network": entry["backbone"] + (" frozen" if frozen else ""), "size": run.size, "channels": seen}
    return Workload(kind, GFLOP, operations / 1e9, traits | {"batch": entry["batch"]}, entry["name"]), network


def _embedded(run: CountedRun, entry: Config, kind: str, judged: float) -> tuple[Workload, Network]:
    """A head on embeddings."""
    network = run.networks.classifier(entry["backbone"], embedding_jobs.width(run), run.facts.classes, 1, False)
    operations = entry["steps"] * entry["batch"] * network.training + judged * network.forward
    traits = {"network": entry["backbone"], "batch": entry["batch"]}
    return Workload(kind, GFLOP, operations / 1e9, traits, entry["name"]), network


def _scored(run: CountedRun, entry: Config, kind: str, judged: float) -> tuple[Workload, Network]:
    """A generator as classifier: it trains nothing, and is asked with and without each label."""
    network, scoring = run.generator_network(run.generators[entry["generator"]]), entry["scoring"]
    # The validation part is scored twice: to be calibrated, and with the others.
    scored = run.part["validation"] + sum(run.part[role] for role in PARTS)
    images = scored if kind == "train_classifier" else judged
    calls = (1 + run.facts.classes) * len(scoring["levels"]) * scoring["draws"]
    traits = {"network": entry["backbone"], "size": run.size, "channels": run.channels, "batch": entry["batch"]}
    return Workload(kind, GFLOP, images * calls * network.forward / 1e9, traits, entry["name"]), network


def _arms(run: CountedRun, number: int, batch: list[Config], place: str, folds: list[str]) -> Job:
    synthetic_sets = sorted({entry["synthetic_set"] for entry in batch if entry.get("synthetic_set")})
    asked = [entry for entry in batch if arm_choices.METHODS[entry["method"]].needs_baseline]
    after = [
        *folds,
        *(run.set_key(synthetic_set, place) for synthetic_set in synthetic_sets),
        *([run.baseline_job(place, asked[0])] if asked else []),
    ]
    after += [f"train_ddpm/{place}_{name}" for name in views.generators_of(batch)]
    after += [*image_jobs.fetched(run, batch), *embedding_jobs.needed(run, batch, place)]
    job = job_of("train_classifier", f"{place}_job{number}", [], after, run.threads)
    scored = sum(run.part[role] for role in PARTS)
    row = 2 * TEXT + 5 * run.facts.classes  # ids and groups, a label of one byte and a logit of four a class
    job.disk = {"weights": 0.0, "predictions": 0.0}
    for entry in batch:
        entry = arm_settings.effective(entry, run.config["train_classifier"])
        work, network = training(run, entry, "train_classifier", entry["checkpoints"] * run.part["validation"])
        work.traits |= run.shared() | ({"at_once": run.at_once} if run.at_once > 1 else {})
        job.works.append(work)
        job.disk["weights"] += network.bytes
        job.disk["predictions"] += scored * row
    made = sum(
        run.made(synthetic_set) for synthetic_set in run.synthetic_sets if synthetic_set["name"] in synthetic_sets
    )
    job.threads, job.gpus = run.threads * run.processes * run.at_once, run.processes
    job.held = (run.facts.images + made) * run.pixels
    return job


def judge(run: CountedRun) -> list[Job]:
    """Training of the judge, which only simulated cells have."""
    if not run.simulated:
        return []
    entry, images = stage_views.judge_settings(run.config)["training"], run.config["simulate_cells"]["images"]
    # The judge is trained by the same code as any arm.
    judged = entry["checkpoints"] * JUDGE_SELECTS * images
    work, network = training(run, entry | {"channels": None}, "train_classifier", judged)
    drawn = image_jobs.drawing(run, 1 + JUDGE_SELECTS)
    job = job_of("train_judge", "train_judge", [work, drawn], [], run.threads)
    job.disk["weights"], job.held = network.bytes, (1 + JUDGE_SELECTS) * images * run.pixels
    return [job]


def _looking(run: CountedRun, synthetic_set: Config, place: str, after: list[str]) -> list[Job]:
    name = f"{place}_{synthetic_set['name']}"
    compared = run.made(synthetic_set) + run.facts.images
    # Also each generated image with each of the train part, which these do not hold apart.
    work = Workload("assess_synthetic", IMAGES, compared, {"size": run.size, "classes": run.facts.classes})
    job = job_of("assess_synthetic", name, [work], after, run.threads)
    job.held = compared * run.pixels
    drawn = job_of("plot_images", name, [Workload("plot_images", JOBS, 1)], [job.key])
    drawn.disk["figures"] = 1.0
    return [job, drawn]


def _ordered(jobs: list[Job]) -> list[Job]:
    """Jobs in topological order, otherwise in their order."""
    here, done, out, waiting = {job.key for job in jobs}, set(), [], list(jobs)
    while waiting:
        later = []
        for job in waiting:
            if any(key in here and key not in done for key in job.after):
                later.append(job)
            else:
                done.add(job.key)
                out.append(job)
        if len(later) == len(waiting):
            raise ValueError(f"jobs wait for each other: {', '.join(job.key for job in later[:3])}")
        waiting = later
    return out
