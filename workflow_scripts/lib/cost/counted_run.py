"""What the jobs of a run have in common when they are counted: sizes and parts of the images, and names of jobs."""

from __future__ import annotations

from workflow_scripts.lib.config import views
from workflow_scripts.lib.cost.workloads import Config, Facts, Network, Networks
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.generate.generator_choices import NETWORKS


class CountedRun:
    """A checked config, facts about its images, and what follows from both."""

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

    def made(self, synthetic_set: Config) -> int:
        """Upper bound of the images of a synthetic set."""
        return generator_choices.most_images(synthetic_set, self.facts.classes)

    def set_key(self, name: str, place: str) -> str:
        """Key of the job that makes a synthetic set."""
        if name in self.together:
            return f"sample_fold/{place}_sets"
        return self.own_key(name, place)

    def own_key(self, name: str, place: str) -> str:
        """Key of the job that makes a set alone."""
        synthetic_set = next(synthetic_set for synthetic_set in self.synthetic_sets if synthetic_set["name"] == name)
        stage = "sample_simulator" if synthetic_set["generator"] == generator_choices.SIMULATOR else "sample_ddpm"
        return f"{stage}/{place}_{name}"

    def baseline_job(self, place: str, entry: Config) -> str:
        """Key of the job with the arm that an entry asks, mostly the baseline of its label regime."""
        return f"train_classifier/{place}_job{views.asked_job(self.config, entry)}"

    def generator_network(self, generator: Config) -> Network:
        """Counts of a generator's network."""
        return self.networks.generator(generator, self.channels, self.facts.classes, self.size)

    def generator_traits(self, generator: Config) -> Config:
        """What the speed of a generator depends on."""
        shape = [generator.get("widths"), generator.get("blocks")] if NETWORKS[generator["network"]].resolutions else []
        name = " ".join([generator["network"], *("-".join(map(str, part)) for part in shape)])
        return {"network": name, "size": self.size, "channels": self.channels}

    def shared(self) -> Config:
        """Number of processes that share a training, as a property of its work."""
        return {"processes": self.processes} if self.processes > 1 else {}
