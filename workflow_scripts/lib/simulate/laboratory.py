"""Simulated laboratory: genes, antibodies, plates, cell lines, fields and cells, their appearance and true labels.

An image's appearance is a vector of standard-normal traits. Each trait is a weighted sum of independent draws, one per
level of the hierarchy. So images of a protein resemble each other, and one setting per level controls how much. Nothing
here renders an image; `drawing.py` does that from the `Specimen` that this module describes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.simulate import protein_labels
from workflow_scripts.lib.simulate.protein_labels import COMPARTMENTS

LEVELS = ("gene", "antibody", "plate", "cell_line", "field", "cell")
# How the protein looks: overall brightness, texture scale, texture contrast, diffuse background, number, size and
# spread of the structures, polarity of the gradient over the cell; then the weight of each compartment.
PROTEIN = ("brightness", "grain", "contrast", "haze", "number", "size", "spread", "polarity")
# Brightness of the reference channels.
STAIN = ("red", "blue", "yellow")
# Shape of the cell.
SHAPE = ("cell_size", "cell_aspect", "roughness", "nucleus_size", "nucleus_aspect", "offset", "filaments", "reticulum")
TRAITS = PROTEIN + COMPARTMENTS + STAIN + SHAPE
# Standard deviation that each level adds to each group of traits, before the knobs.
SPREAD = {
    "gene": (0.80, 0.0, 0.0),
    "antibody": (0.35, 0.0, 0.0),
    "plate": (0.15, 0.5, 0.0),
    "cell_line": (0.25, 0.3, 0.7),
    "field": (0.15, 0.3, 0.2),
    "cell": (0.30, 0.4, 0.6),
}
_SCALES = {
    level: np.repeat(np.array(by_group), (len(PROTEIN) + len(COMPARTMENTS), len(STAIN), len(SHAPE)))
    for level, by_group in SPREAD.items()
}
# A copied image may be rotated or mirrored: the eight symmetries of the square.
TURNS = 8


@dataclass
class Specimen:
    """Description of one image before it is rendered: its identity, content, staining and imaging."""

    index: int
    id: str
    gene: int
    names: dict[str, str]
    true: np.ndarray
    given: np.ndarray
    traits: dict[str, float]
    weights: np.ndarray
    staining: dict[str, float]
    optics: dict[str, float]
    shifted: bool
    effect: bool
    seed: int
    turn: int = 0
    copy_of: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class World:
    """All simulated proteins and their images, described on demand.

    `settings` is the section `simulate_cells` of the config. A `cohort` other than 0 has other genes, antibodies,
    plates and cells on the same cell lines: new proteins from the same laboratory."""

    def __init__(self, settings: dict[str, Any], seed: int, cohort: int = 0) -> None:
        self.settings, self.seed, self.cohort = settings, seed, cohort
        self.genes = int(settings["genes"])
        self.classes = COMPARTMENTS
        self._levels: dict[tuple[Any, ...], np.ndarray] = {}
        self._antibodies: dict[tuple[int, int], dict[str, Any]] = {}
        self._schedule: tuple[list[int], int] = ([], 0)

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """Separate random generator for one purpose in this cohort."""
        return np.random.Generator(np.random.PCG64(derive(self.seed, "simulate", self.cohort, *purpose)))

    @cached_property
    def leaders(self) -> np.ndarray:
        """(genes,) gene whose antibody each gene uses: its own, or for a few relatives that of the gene before."""
        out = np.arange(self.genes)
        for gene in range(1, self.genes):
            if out[gene - 1] == gene - 1 and self.rng("relative", gene).random() < self.settings["shared_antibodies"]:
                out[gene] = gene - 1
        return out

    @cached_property
    def true(self) -> np.ndarray:
        """(genes, K) bool: true locations of each protein."""
        chosen = self.settings["labels"]
        floor, co_occurrence = chosen["genes_per_class"], chosen["co_occurrence"]
        return protein_labels.assign(self.leaders, floor, co_occurrence, self.rng("labels"))

    @cached_property
    def tiers(self) -> list[str]:
        """The reliability tier of each gene."""
        names = list(self.settings["reliability"])
        fractions = np.cumsum([self.settings["reliability"][name]["fraction"] for name in names])
        draws = [self.rng("tier", gene).random() * fractions[-1] for gene in range(self.genes)]
        return [names[min(int(np.searchsorted(fractions, draw)), len(names) - 1)] for draw in draws]

    def given(self, gene: int, index: int) -> np.ndarray:
        """(K,) bool: labels in the table for this gene's image, errors included."""
        noise = self.settings["noise"]
        table = self.settings["reliability"]
        # Relative noise is normalised over the tiers, so that the asked rates hold on average.
        mean = sum(t["fraction"] * t["noise"] for t in table.values()) / sum(t["fraction"] for t in table.values())
        factor = table[self.tiers[gene]]["noise"] / mean if mean > 0 else 1.0
        who = ("noise", gene) if noise["level"] == "gene" else ("noise", gene, index)
        omission, confusion = min(1.0, noise["omission"] * factor), min(1.0, noise["confusion"] * factor)
        return protein_labels.corrupt(self.true[gene], omission, confusion, self.rng(*who))

    def gene_of(self, index: int) -> int:
        """Gene of image `index`.

        Genes take turns in shuffled passes, so the first images do not depend on how many follow. In each pass but the
        first a tenth of the genes is left out, so that proteins differ in their number of images."""
        order, passes = self._schedule
        while len(order) <= index:
            rng = self.rng("pass", passes)
            shuffled, out = rng.permutation(self.genes), rng.random(self.genes) < (0.1 if passes else 0.0)
            order.extend(int(gene) for gene in shuffled if not out[gene])
            passes += 1
        self._schedule = (order, passes)
        return order[index]

    def antibody(self, gene: int, which: int) -> dict[str, Any]:
        """Antibody: its plate, whether it stains too weakly or too strongly, and its off-target binding."""
        leader = int(self.leaders[gene]) if which == 0 else gene
        if (leader, which) not in self._antibodies:
            rng, staining = self.rng("antibody", leader, which), self.settings["staining"]
            draws = rng.random(5)
            others = np.flatnonzero(~self.true[leader])
            self._antibodies[leader, which] = {
                "name": f"SAB{self.cohort:02d}{10 * leader + which:06d}",
                "plate": int(draws[0] * self.settings["plates"]),
                "weak": draws[1] < staining["weak"],
                "saturated": draws[2] < staining["saturation"],
                "off_target": int(others[int(draws[4] * len(others))]) if draws[3] < staining["off_target"] else -1,
            }
        return self._antibodies[leader, which]

    def _level(self, level: str, *who: str | int) -> np.ndarray:
        """(traits,) contribution of one unit of one level."""
        key = (level, *who)
        if key not in self._levels:
            # Cell lines belong to the laboratory and are the same in every cohort.
            purpose = ("simulate", level, *who) if level == "cell_line" else ("simulate", self.cohort, level, *who)
            rng = np.random.Generator(np.random.PCG64(derive(self.seed, *purpose)))
            self._levels[key] = rng.standard_normal(len(TRAITS)) * _SCALES[level] * self.settings["variance"][level]
        return self._levels[key]

    def specimen(self, index: int) -> Specimen:
        """Describe image `index`, independently of the number of images and of the order of calls."""
        gene = self.gene_of(index)
        rng = self.rng("image", index)
        draws = rng.random(12)
        two = self.rng("antibodies", gene).random() < self.settings["two_antibodies"]
        which = int(draws[0] < 0.5) if two else 0
        antibody = self.antibody(gene, which)
        shifted = draws[1] < self.settings["shift"]["fraction"]
        lines, per_gene = self.settings["cell_lines"], self.settings["cell_lines_per_gene"]
        own_lines = self.rng("lines", gene).permutation(lines)[:per_gene]
        # The unseen line is the one after the last.
        line = lines if shifted else int(own_lines[int(draws[2] * len(own_lines))])
        spot = (antibody["plate"], antibody["name"], line, int(draws[3] * self.settings["fields"]))
        effect = self._effect_on(gene)
        traits = self._traits(gene, antibody, line, spot, index, effect)
        names = {
            "gene": f"SIM{self.cohort:02d}{gene:05d}",
            "antibody": antibody["name"],
            "plate": f"plate{antibody['plate']:03d}",
            "cell_line": "unseen line" if shifted else f"line {line + 1}",
            "field": "-".join(str(part) for part in spot),
            "reliability": self.tiers[gene],
        }
        out = Specimen(
            index=index,
            id=f"{derive(self.seed, 'simulate', self.cohort, 'id', index):016x}",
            gene=gene,
            names=names,
            true=self.true[gene],
            given=self.given(gene, index),
            traits=dict(zip(TRAITS, traits.tolist(), strict=True)),
            weights=self._weights(gene, traits, antibody),
            staining=self._staining(antibody, gene, shifted),
            optics=self._optics(spot, draws, effect),
            shifted=bool(shifted),
            effect=effect,
            seed=derive(self.seed, "simulate", self.cohort, "draw", index),
        )
        out.facts = {"weak": antibody["weak"], "off_target": antibody["off_target"], "saturated": antibody["saturated"]}
        return self._maybe_copy(out, draws)

    def _traits(
        self, gene: int, antibody: dict[str, Any], line: int, spot: tuple[Any, ...], index: int, effect: bool
    ) -> np.ndarray:
        stable = self._level("gene", int(self.leaders[gene])) + self._level("antibody", antibody["name"])
        stable = stable + self._level("plate", antibody["plate"]) + self._level("cell_line", line)
        varying = self._level("field", *spot)
        rng = self.rng("cell", index)
        varying = varying + rng.standard_normal(len(TRAITS)) * _SCALES["cell"] * self.settings["variance"]["cell"]
        # The planted effect widens or narrows everything that differs within the class, proteins included.
        factor = self.settings["plants"]["effect_diversity"] if effect else 1.0
        return np.clip((stable + varying) * factor, -3.5, 3.5)

    def _weights(self, gene: int, traits: np.ndarray, antibody: dict[str, Any]) -> np.ndarray:
        """(K,) brightness of each compartment, the brightest true one at 1."""
        own = traits[len(PROTEIN) : len(PROTEIN) + len(COMPARTMENTS)]
        weights = np.where(self.true[gene], np.exp(0.4 * own), 0.0)
        weights = np.clip(weights / weights.max(), 0.5, None) * self.true[gene]
        # Background: every protein is weakly present everywhere, below what would be labelled, in its own pattern.
        faint = np.where(self.true[gene], 0.0, self.settings["staining"]["faint"] * np.exp(0.9 * own))
        weights = weights + np.minimum(faint, 0.25)
        if antibody["off_target"] >= 0:
            weights[antibody["off_target"]] += self.settings["staining"]["off_target_strength"]
        return weights

    def _staining(self, antibody: dict[str, Any], gene: int, shifted: bool) -> dict[str, float]:
        staining, plants = self.settings["staining"], self.settings["plants"]
        strength = staining["weak_strength"] if antibody["weak"] else 1.0
        exposure = 2.5 if antibody["saturated"] else 1.0
        bleed = staining["bleed_through"] * self.rng("bleed", antibody["plate"]).random(3) * 2
        out = {"strength": strength, "exposure": exposure, "shift": 1.0, "yellow_gain": 1.0}
        out |= {"bleed_red": bleed[0], "bleed_yellow": bleed[1], "bleed_back": bleed[2]}
        if shifted:
            out["shift"] = self.settings["shift"]["intensity"]
        if plants["reference_class"]:
            # Readable without the protein: the ER stain is brighter with the class than without.
            carries = self.true[gene][COMPARTMENTS.index(plants["reference_class"])]
            out["yellow_gain"] = (1.0 + plants["reference_strength"]) ** (1 if carries else -1)
        return out

    def _optics(self, spot: tuple[Any, ...], draws: np.ndarray, effect: bool) -> dict[str, float]:
        optics = self.settings["optics"]
        view = self.rng("optics", *spot).random(4)
        noise = self.settings["plants"]["effect_noise"] if effect else 1.0
        return {
            # Standard deviation of the blur where the half-width of the image is 1.
            "blur": 0.018 + 0.006 * view[0] + (0.035 if view[1] < optics["defocus"] else 0.0),
            "vignetting": optics["vignetting"],
            "vignette_x": 2 * view[2] - 1,
            "vignette_y": 2 * view[3] - 1,
            "photons": optics["photons"] / noise**2,
            "read_noise": optics["read_noise"] * noise,
            "neighbour": float(draws[4] < optics["neighbours"]),
            "debris": float(draws[5] < optics["debris"]),
        }

    def _effect_on(self, gene: int) -> bool:
        name = self.settings["plants"]["effect_class"]
        return bool(name) and bool(self.true[gene][COMPARTMENTS.index(name)])

    def _maybe_copy(self, own: Specimen, draws: np.ndarray) -> Specimen:
        """Plant a duplicate: the picture and labels of an earlier image, filed under this image's protein."""
        if own.index == 0 or draws[6] >= self.settings["plants"]["duplicates"]:
            return own
        rng = self.rng("copy", own.index)
        for _ in range(16):
            source = self.specimen(int(rng.integers(own.index)))
            # A relative shares the protein's group, so a copy of it would not cross groups.
            if source.copy_of is None and self.leaders[source.gene] != self.leaders[own.gene]:
                facts = source.facts | {"copied_gene": source.names["gene"]}
                turn = int(draws[7] * TURNS) if self.settings["plants"]["duplicates_turned"] else 0
                kept = {key: getattr(own, key) for key in ("index", "id", "gene", "names", "shifted")}
                return Specimen(**(vars(source) | kept | {"facts": facts, "turn": turn, "copy_of": source.index}))
        return own


def check(settings: dict[str, Any]) -> None:
    """Raise ValueError, naming the key, where settings contradict each other in a way that no schema can express."""
    for key in ("reference_class", "effect_class"):
        name = settings["plants"][key]
        if name and name not in COMPARTMENTS:
            raise ValueError(f"simulate_cells.plants.{key} is {name!r}; allowed: {', '.join(COMPARTMENTS)}, or empty")
    if settings["cell_lines_per_gene"] > settings["cell_lines"]:
        raise ValueError(
            f"simulate_cells.cell_lines_per_gene is {settings['cell_lines_per_gene']}, "
            f"more than simulate_cells.cell_lines ({settings['cell_lines']})"
        )
    if not sum(tier["fraction"] for tier in settings["reliability"].values()) > 0:
        raise ValueError("simulate_cells.reliability: the fractions of the tiers add up to nothing")
