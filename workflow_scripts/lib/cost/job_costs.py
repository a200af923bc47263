"""Jobs of a run, counted from the config: the work in each, its dependencies, and its files on disk.

Work is counted in units: billions of operations of a network (GFLOP: steps x batch x those of an image, which depend on
size and widths), millions of pixels drawn or read, images, draws of the bootstrap. The time for a unit is measured
(`measured_rates.py`); this module contains no speeds. Jobs name their dependencies, so that the wall-clock on any
number of cores can be simulated (`scheduling.py`).

This module reads no files and needs no torch; a `Networks` object counts the networks."""

from __future__ import annotations

from collections.abc import Sequence

from workflow_scripts.lib.classify import arm_choices, arm_settings, network_choices
from workflow_scripts.lib.config import stage_views, views
from workflow_scripts.lib.cost.workloads import (
    BLOCK,
    GFLOP,
    IMAGES,
    JOBS,
    MEGAPIXELS,
    Config,
    Facts,
    Job,
    Network,
    Networks,
    Workload,
)
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.generate.generator_choices import NETWORKS
from workflow_scripts.lib.images import corruption_choices

PARTS = ("test", "calibration", "validation")  # parts that a classifier predicts
# Bytes on disk, of the formats: see images.image_set_layout and scores.prediction_file.
TEXT = 48  # bytes of an entry in a text column: its reference, and a few letters
COLUMNS = 6  # columns of text of an image set of cells (id, group, gene, antibody, cell line ...)
EMBEDDING = 1280  # features of an embedding
JUDGE_SELECTS = 0.2  # images for selecting the judge, relative to those for fitting it


class Counter:
    """Counter of the jobs of one config."""

    def __init__(self, config: Config, facts: Facts, networks: Networks, cores: int) -> None:
        self.config, self.facts, self.networks, self.cores = config, facts, networks, cores
        images, section = config["preprocess_images"], config["make_folds"]
        self.size, self.channels = images["size"], len(images["channels"])
        compute = config["compute"]
        self.threads, self.processes, self.at_once = (compute[key] for key in ("threads", "processes", "arms_at_once"))
        self.places = [(r, f) for r in range(section["repeats"]) for f in range(section["folds"])]
        fractions = section["fractions"]
        self.part = {role: fraction * facts.images for role, fraction in fractions.items()}
        self.part["train"] = facts.images * (1 - sum(fractions.values()))
        known = views.by_name(config, "synthetic_sets")
        self.synthetic_sets = [known[name] for name in views.used_sets(config)]
        self.generators = views.by_name(config, "generators")
        self.together = views.sets_together(config)
        self.batches = views.job_lists(config)
        self.pixels = self.channels * self.size**2  # bytes of an image
        self.simulated = config["data"]["source"] == "simulated"

    def jobs(self) -> list[Job]:
        """All jobs, dependencies first."""
        return [
            *self._reading(), *self._weights(), *self._judge(), *self._declaring(), *self._folds(),
            *self._fold_by_fold(), *self._judging(), *self._showing(),
        ]  # fmt: skip

    # Images ---------------------------------------------------------------------------------------------------------

    def _reading(self) -> list[Job]:
        raw, jobs = self._raw(), []
        shards, files = self.config["preprocess_images"]["shards"], self.facts.images * self.channels
        side = self.facts.side
        read = Workload("preprocess_images", IMAGES, self.facts.images, {"source": self.config["data"]["source"]})
        if side is not None:
            read = Workload("preprocess_images", MEGAPIXELS, files * side**2 / 1e6, {"side": side, "size": self.size})
        before = [job.key for job in raw]
        if shards > 1:
            jobs = [
                self._job("preprocess_shard", f"{n}of{shards}", [_fraction(read, shards)], before, self.threads)
                for n in range(shards)
            ]
            before = [job.key for job in jobs]
            # What the shards have read is put together, which takes no decoding.
            read = Workload("preprocess_images", "images joined", self.facts.images, {"size": self.size})
        joined = self._job("preprocess_images", "preprocess_images", [read], before, self.threads)
        joined.disk["images"] = self.facts.images * (self.pixels + self.facts.classes + COLUMNS * TEXT)
        return [*raw, *jobs, joined]

    def _raw(self) -> list[Job]:
        if self.simulated:
            cells = self.config["simulate_cells"]
            job = self._job("simulate_cells", "simulate_cells", [self._drawing(1)], [], cells["processes"])
            job.files = cells["images"] * 4  # all channels are drawn, whichever are used
            return [job]
        if self.config["data"]["source"] != "folder" and not self.config["data"]["images"]:
            wanted = Workload("fetch_images", IMAGES, self.facts.images, {"source": self.config["data"]["source"]})
            return [self._job("fetch_images", "fetch_images", [wanted])]
        return []

    def _weights(self) -> list[Job]:
        keys = {key for batch in self.batches for key in self._fetched(batch)}
        return [
            self._job("fetch_weights", key.partition("/")[2], [Workload("fetch_weights", "files", 1)])
            for key in sorted(keys)
        ]

    def _fetched(self, batch: list[Config]) -> list[str]:
        """Jobs that fetch the published weights from which the arms of a job start."""
        folder, out = self.config["fetch_weights"]["folder"], set()
        for entry in batch:
            arm = arm_settings.effective(entry, self.config["train_classifier"])
            if arm["weights"] == network_choices.published_path(folder, arm["backbone"]):
                out.add(f"fetch_weights/{arm['backbone']}")
        return sorted(out)

    def _drawing(self, fraction: float) -> Workload:
        cells = self.config["simulate_cells"]
        return Workload(
            "simulate_cells", MEGAPIXELS, fraction * cells["images"] * 4 * cells["size"] ** 2 / 1e6,
            {"size": cells["size"]}, "drawing",
        )  # fmt: skip

    def _folds(self) -> list[Job]:
        section = self.config["make_folds"]
        work = Workload("make_folds", IMAGES, self.facts.images * section["folds"])
        after = ["preprocess_images/preprocess_images"]
        return [self._job("make_folds", f"repeat{r}", [work], after) for r in range(section["repeats"])]

    # Networks -------------------------------------------------------------------------------------------------------

    def _fold_by_fold(self) -> list[Job]:
        jobs = []
        used = self._used_generators()
        for repeat, fold in self.places:
            place, folds = f"repeat{repeat}_fold{fold}", [f"make_folds/repeat{repeat}"]
            first = f"train_classifier/{place}_job0"
            jobs += [self._generator(self.generators[name], place, folds) for name in used]
            sets = [self._set(synthetic_set, place, folds) for synthetic_set in self.synthetic_sets]
            jobs += self._joined_sets(sets, place)
            jobs += [self._arms(number, batch, place, folds) for number, batch in enumerate(self.batches)]
            for synthetic_set in self.synthetic_sets:
                seen = [self._set_key(synthetic_set["name"], place), first]
                jobs += self._looking(
                    synthetic_set, place, seen + (["train_judge/train_judge"] if self.simulated else [])
                )
        # In topological order: sets that use the baseline come after it.
        return _ordered(jobs)

    def _baseline(self, place: str, entry: Config) -> str:
        """Key of the job with the arm that an entry asks, mostly the baseline of its label regime."""
        return f"train_classifier/{place}_job{views.asked_job(self.config, entry)}"

    def _network(self, generator: Config) -> Network:
        return self.networks.generator(generator, self.channels, self.facts.classes, self.size)

    def _generator_traits(self, generator: Config) -> Config:
        shape = [generator.get("widths"), generator.get("blocks")] if NETWORKS[generator["network"]].resolutions else []
        name = " ".join([generator["network"], *("-".join(map(str, part)) for part in shape)])
        return {"network": name, "size": self.size, "channels": self.channels}

    def _generator(self, generator: Config, place: str, after: list[str]) -> Job:
        network = self._network(generator)
        units = generator["steps"] * generator["batch"] * network.training / 1e9
        traits = self._generator_traits(generator) | {"batch": generator["batch"]} | self._shared()
        if generator_choices.pseudo_labels(generator):
            after = [*after, self._baseline(place, generator)]
        job = self._job(
            "train_ddpm", f"{place}_{generator['name']}", [Workload("train_ddpm", GFLOP, units, traits)], after,
            self.threads,
        )  # fmt: skip
        job.threads, job.gpus = self.threads * self.processes, self.processes
        job.disk["weights"] = network.bytes * (2 if generator.get("snapshot") else 1)
        job.held = self.part["train"] * self.pixels
        return job

    def _shared(self) -> Config:
        """Number of processes that share a training, as a property of its work."""
        return {"processes": self.processes} if self.processes > 1 else {}

    def made(self, synthetic_set: Config) -> int:
        """Upper bound of the images of a synthetic set."""
        return generator_choices.most_images(synthetic_set, self.facts.classes)

    def _used_generators(self) -> list[str]:
        return views.used_generators(self.config)

    def _set_key(self, name: str, place: str) -> str:
        if name in self.together:
            return f"sample_fold/{place}_sets"
        return self._own_key(name, place)

    def _own_key(self, name: str, place: str) -> str:
        """Key of the job that makes a set alone."""
        synthetic_set = next(synthetic_set for synthetic_set in self.synthetic_sets if synthetic_set["name"] == name)
        stage = "sample_simulator" if synthetic_set["generator"] == generator_choices.SIMULATOR else "sample_ddpm"
        return f"{stage}/{place}_{name}"

    def _set(self, synthetic_set: Config, place: str, folds: list[str]) -> Job:
        """Job of a synthetic set."""
        count = self.made(synthetic_set)
        stage, name = self._own_key(synthetic_set["name"], place).split("/")
        if stage == "sample_simulator":
            job = self._job(stage, name, [Workload(stage, IMAGES, count, {"size": self.size})], folds)
        else:
            generator = self.generators[synthetic_set["generator"]]
            units = count * self._operations(generator, synthetic_set) / 1e9
            weaker = generator_choices.weaker_generator(synthetic_set)
            traits = self._generator_traits(generator) | {"batch": min(synthetic_set["batch"], count)}
            after = [
                f"train_ddpm/{place}_{synthetic_set['generator']}",
                *([f"train_ddpm/{place}_{weaker}"] if weaker else []),
                *([self._baseline(place, synthetic_set)] if generator_choices.asks_baseline(synthetic_set) else []),
            ]
            job = self._job(stage, name, [Workload(stage, GFLOP, units, traits)], after, self.threads)
        job.disk["synthetic"] = count * (self.pixels + self.facts.classes + 2 * TEXT)
        # Real images that channels are taken from, or that are varied, lie beside those that are made.
        real = synthetic_set.get("reference_channels") or synthetic_set.get("start_noise")
        job.held = count * self.pixels * (2 if real else 1)
        return job

    def _joined_sets(self, sets: list[Job], place: str) -> list[Job]:
        """Jobs of the sets, with one job in place of those that are made together."""
        keys = {self._own_key(name, place) for name in self.together}
        parts = [job for job in sets if job.key in keys]
        if not parts:
            return sets
        after = sorted({key for job in parts for key in job.after})
        works = [work for job in parts for work in job.works]
        joined = self._job("sample_fold", f"{place}_sets", works, after, self.threads)
        joined.disk["synthetic"] = sum(job.disk["synthetic"] for job in parts)
        joined.held = max(job.held for job in parts)
        return [job for job in sets if job.key not in keys] + [joined]

    def _operations(self, generator: Config, synthetic_set: Config) -> float:
        """Operations for an image of a synthetic set, those of the network that guides it included."""
        forward, calls = self._network(generator).forward, self.networks.calls(generator, synthetic_set)
        weaker = generator_choices.weaker_generator(synthetic_set)
        if not weaker:
            return calls * forward
        unguided = synthetic_set | {"guidance": synthetic_set["guidance"] | {"scale": 1}}
        own = self.networks.calls(generator, unguided)
        return own * forward + (calls - own) * self._network(self.generators[weaker]).forward

    def _training(self, entry: Config, kind: str, judged: float) -> tuple[Workload, Network]:
        """Training of a classifier, with `judged` predictions an image."""
        seen = len(entry["channels"]) if entry["channels"] else self.channels
        if network_choices.BACKBONES[entry["backbone"]].hand_made:
            # Time goes into the features of all images that it looks at, rather than into steps.
            embedded = network_choices.BACKBONES[entry["backbone"]].embedded
            traits = {"network": entry["backbone"], "size": 1 if embedded else self.size, "channels": seen}
            work = Workload(kind, "images described", self.part["train"] + judged, traits, entry["name"])
            return work, Network(0.0, 0.0, self.facts.classes * BLOCK)
        if arm_choices.METHODS[entry["method"]].scores:
            return self._scored(entry, kind, judged)
        if network_choices.BACKBONES[entry["backbone"]].embedded:
            return self._embedded(entry, kind, judged)
        frozen = bool(entry["frozen"])
        if network_choices.BACKBONES[entry["backbone"]].of_generator:
            # The way down is about a half of the network, however many blocks of it are taken.
            whole = self._network(self.generators[entry["generator"]])
            ahead, back = (whole.forward / 2, (whole.forward if frozen else whole.training) / 2)
            network = Network(ahead, back, whole.bytes)
        else:
            network = self.networks.classifier(entry["backbone"], seen, self.facts.classes, self.size, frozen)
        operations = entry["steps"] * arm_settings.seen_in_batch(entry) * network.training + judged * network.forward
        traits = {"network": entry["backbone"] + (" frozen" if frozen else ""), "size": self.size, "channels": seen}
        return Workload(kind, GFLOP, operations / 1e9, traits | {"batch": entry["batch"]}, entry["name"]), network

    def _embedded(self, entry: Config, kind: str, judged: float) -> tuple[Workload, Network]:
        """A head on embeddings, whose number only their table tells: they are taken to be EMBEDDING."""
        network = self.networks.classifier(entry["backbone"], EMBEDDING, self.facts.classes, 1, False)
        operations = entry["steps"] * entry["batch"] * network.training + judged * network.forward
        traits = {"network": entry["backbone"], "batch": entry["batch"]}
        return Workload(kind, GFLOP, operations / 1e9, traits, entry["name"]), network

    def _scored(self, entry: Config, kind: str, judged: float) -> tuple[Workload, Network]:
        """A generator as classifier: it trains nothing, and is asked with and without each label."""
        network, scoring = self._network(self.generators[entry["generator"]]), entry["scoring"]
        # The validation part is scored twice: to be calibrated, and with the others.
        scored = self.part["validation"] + sum(self.part[role] for role in PARTS)
        images = scored if kind == "train_classifier" else judged
        calls = (1 + self.facts.classes) * len(scoring["levels"]) * scoring["draws"]
        traits = {"network": entry["backbone"], "size": self.size, "channels": self.channels, "batch": entry["batch"]}
        return Workload(kind, GFLOP, images * calls * network.forward / 1e9, traits, entry["name"]), network

    def _arms(self, number: int, batch: list[Config], place: str, folds: list[str]) -> Job:
        synthetic_sets = sorted({entry["synthetic_set"] for entry in batch if entry.get("synthetic_set")})
        asked = [entry for entry in batch if arm_choices.METHODS[entry["method"]].needs_baseline]
        after = [
            *folds,
            *(self._set_key(synthetic_set, place) for synthetic_set in synthetic_sets),
            *([self._baseline(place, asked[0])] if asked else []),
        ]
        after += [f"train_ddpm/{place}_{name}" for name in views.generators_of(batch)]
        after += self._fetched(batch)
        job = self._job("train_classifier", f"{place}_job{number}", [], after, self.threads)
        scored = sum(self.part[role] for role in PARTS)
        row = 2 * TEXT + 5 * self.facts.classes  # ids and groups, a label of one byte and a logit of four a class
        job.disk = {"weights": 0.0, "predictions": 0.0}
        for entry in batch:
            entry = arm_settings.effective(entry, self.config["train_classifier"])
            work, network = self._training(entry, "train_classifier", entry["checkpoints"] * self.part["validation"])
            work.traits |= self._shared() | ({"at_once": self.at_once} if self.at_once > 1 else {})
            job.works.append(work)
            job.disk["weights"] += network.bytes
            job.disk["predictions"] += scored * row
        made = sum(
            self.made(synthetic_set) for synthetic_set in self.synthetic_sets if synthetic_set["name"] in synthetic_sets
        )
        job.threads, job.gpus = self.threads * self.processes * self.at_once, self.processes
        job.held = (self.facts.images + made) * self.pixels
        return job

    def _judge(self) -> list[Job]:
        if not self.simulated:
            return []
        entry, images = stage_views.judge_settings(self.config)["training"], self.config["simulate_cells"]["images"]
        # The judge is trained by the same code as any arm.
        judged = entry["checkpoints"] * JUDGE_SELECTS * images
        work, network = self._training(entry | {"channels": None}, "train_classifier", judged)
        drawn = self._drawing(1 + JUDGE_SELECTS)
        job = self._job("train_judge", "train_judge", [work, drawn], [], self.threads)
        job.disk["weights"], job.held = network.bytes, (1 + JUDGE_SELECTS) * images * self.pixels
        return [job]

    def _looking(self, synthetic_set: Config, place: str, after: list[str]) -> list[Job]:
        name = f"{place}_{synthetic_set['name']}"
        compared = self.made(synthetic_set) + self.facts.images
        # Also each generated image with each of the train part, which these do not hold apart.
        work = Workload("assess_synthetic", IMAGES, compared, {"size": self.size, "classes": self.facts.classes})
        job = self._job("assess_synthetic", name, [work], after, self.threads)
        job.held = compared * self.pixels
        drawn = self._job("plot_images", name, [Workload("plot_images", JOBS, 1)], [job.key])
        drawn.disk["figures"] = 1.0
        return [job, drawn]

    # Tables and figures ---------------------------------------------------------------------------------------------

    def _declaring(self) -> list[Job]:
        return [
            self._job(stage, stage, [Workload(stage, JOBS, 1)])
            for stage in ("predict_cost", "declare_analysis")
        ]  # fmt: skip

    def _judging(self) -> list[Job]:
        analysis, places = self.config["analysis"], len(self.places)
        trained = len(self.config["arms"]) * places
        scored = self.part["test"] + self.part["calibration"]
        arms_done = [f"train_classifier/repeat{r}_fold{f}_job{n}" for r, f in self.places
                     for n in range(len(self.batches))]  # fmt: skip
        units = trained * analysis["draws"] * scored * self.facts.classes / 1e9
        refit = {"refit_thresholds": analysis["refit_thresholds"]}
        judged = self._job(
            "aggregate_metrics", "aggregate_metrics",
            [Workload("aggregate_metrics", "billion logits drawn", units, refit)],
            [*arms_done, "declare_analysis/declare_analysis"], min(4, self.cores),
        )  # fmt: skip
        judged.held = trained * scored * self.facts.classes * 8
        stressed = self._stressed(arms_done)
        artefacts = trained + places * (len(self.synthetic_sets) + len(self._used_generators()))
        checks = Workload("certify_leaks", IMAGES, artefacts * self.facts.images)
        tested = [job.key for job in stressed if job.stage == "stress_test"]
        return [judged, *stressed, self._job("certify_leaks", "certify_leaks", [checks], [judged.key, *tested])]

    def _stressed(self, arms_done: list[str]) -> list[Job]:
        """Jobs of the stress test, where one is asked for."""
        conditions = len(corruption_choices.conditions(views.corruptions(self.config)))
        if not conditions:
            return []
        arms = [arm_settings.effective(entry, self.config["train_classifier"]) for entry in self.config["arms"]]
        works = [self._training(arm | {"steps": 0}, "stress_test", conditions * self.part["test"])[0] for arm in arms]
        networks = "+".join(sorted({arm["backbone"] for arm in arms}))
        # Hand-made features count nothing here; their time is in the rates of jobs with them.
        units = sum(work.units for work in works if work.unit == GFLOP)
        traits = {"network": networks, "size": self.size, "channels": self.channels}
        jobs = []
        for repeat, fold in self.places:
            place = f"repeat{repeat}_fold{fold}"
            after = [f"train_classifier/{place}_job{number}" for number in range(len(self.batches))]
            job = self._job("stress_test", place, [Workload("stress_test", GFLOP, units, traits)], after, self.threads)
            job.held = 2 * self.part["test"] * self.pixels
            jobs.append(job)
        scored = self.part["calibration"] + (conditions + 1) * self.part["test"]
        drawn = len(arms) * len(self.places) * self.config["stress_test"]["draws"] * scored * self.facts.classes / 1e9
        after = [*arms_done, "declare_analysis/declare_analysis", *(job.key for job in jobs)]
        work = Workload("aggregate_stress", "billion logits drawn", drawn)
        return [*jobs, self._job("aggregate_stress", "aggregate_stress", [work], after, min(4, self.cores))]

    def _showing(self) -> list[Job]:
        arms_done = [f"train_classifier/repeat{r}_fold{f}_job{n}" for r, f in self.places
                     for n in range(len(self.batches))]  # fmt: skip
        folds = [f"make_folds/repeat{r}" for r in range(self.config["make_folds"]["repeats"])]
        trained = len(self.config["arms"]) * len(self.places)
        data = self._job("plot_data", "plot_data", [Workload("plot_data", IMAGES, self.facts.images)], folds)
        curves = self._job("plot_training", "plot_training", [Workload("plot_training", "arms", trained)], arms_done)
        assessed = [
            f"assess_synthetic/repeat{r}_fold{f}_{synthetic_set['name']}"
            for r, f in self.places
            for synthetic_set in self.synthetic_sets
        ]
        after = ["aggregate_metrics/aggregate_metrics", *assessed]
        forest = self._job("plot_arms", "plot_arms", [Workload("plot_arms", JOBS, 1)], after)
        panels = [
            f"plot_images/repeat{r}_fold{f}_{synthetic_set['name']}"
            for r, f in self.places
            for synthetic_set in self.synthetic_sets
        ]
        before = [data.key, curves.key, forest.key, "certify_leaks/certify_leaks", "predict_cost/predict_cost", *panels]
        before += ["aggregate_stress/aggregate_stress"] if views.corruptions(self.config) else []
        return [data, curves, forest, self._job("report", "report", [Workload("report", JOBS, 1)], before)]

    @staticmethod
    def _job(stage: str, name: str, works: list[Workload], after: Sequence[str] = (), threads: int = 1) -> Job:
        return Job(stage, name, works, list(after), threads)


def _fraction(work: Workload, count: int) -> Workload:
    return Workload(work.kind, work.unit, work.units / count, work.traits, work.part)


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


def counted(config: Config) -> Config:
    """Part of a config that affects the cost: edits of anything else do not repeat the prediction."""
    out = {name: config[name] for name in ("run", "simulate_cells", "preprocess_images", "make_folds", "generators",
                                           "synthetic_sets", "arms", "train_classifier")}  # fmt: skip
    out["data"] = config["data"] | dict.fromkeys(("origin", "release", "licence", "credit"), "")
    out["fetch_images"] = {"limit": config["fetch_images"]["limit"]}
    out["fetch_weights"] = {"folder": config["fetch_weights"]["folder"]}
    out["analysis"] = {name: config["analysis"][name] for name in ("baseline", "draws", "refit_thresholds")}
    out["stress_test"] = {name: config["stress_test"][name] for name in ("corruptions", "draws")}
    out["compute"] = {name: value for name, value in config["compute"].items() if name != "environment"}
    return out


def jobs_of(config: Config, facts: Facts, networks: Networks, cores: int) -> list[Job]:
    """All jobs of a run of a checked config, dependencies first."""
    return Counter(config, facts, networks, cores).jobs()
