"""What is asked of a run: the declared analysis, its arms, and which pairs of arms are compared.

Knows nothing of predictions or scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow_scripts.lib.judge import declaration
from workflow_scripts.lib.judge.analysis_choices import THESE_PROTEINS


@dataclass(frozen=True)
class Pair:
    """A paired comparison: `arm` minus `against`."""

    arm: str
    against: str
    relation: str  # baseline | control


@dataclass(frozen=True)
class Question:
    """The declared analysis, the arms it speaks of, and the seed of the run."""

    analysis: dict[str, Any]  # the section `analysis` of the config
    arms: list[dict[str, Any]]  # the list `arms` of the config
    seed: int

    @property
    def names(self) -> list[str]:
        """All arms, in the order of the config."""
        return [arm["name"] for arm in self.arms]

    @property
    def primary_control(self) -> str | None:
        """The control of the primary arm, where it has one."""
        return next((arm.get("control") for arm in self.arms if arm["name"] == self.analysis["primary_arm"]), None)

    @property
    def claim(self) -> str:
        """What its intervals speak of: one of analysis_choices.CLAIMS."""
        return str(self.analysis.get("claim", THESE_PROTEINS))

    def pairs(self) -> list[Pair]:
        """Every arm against the baseline (or its own baseline), and against its control where it has one."""
        common = self.analysis["baseline"]
        against = {arm["name"]: arm.get("baseline", common) for arm in self.arms if arm["name"] != common}
        out = [Pair(name, baseline, "baseline") for name, baseline in against.items()]
        return out + [Pair(arm["name"], arm["control"], "control") for arm in self.arms if arm.get("control")]

    def family_pairs(self) -> list[Pair]:
        """The comparisons that share the error rate."""
        family = declaration.family(self.analysis, self.arms)
        return [pair for pair in self.pairs() if pair.arm in family]

    def outside_pairs(self) -> list[Pair]:
        """The comparisons outside the declared family."""
        inside = self.family_pairs()
        return [pair for pair in self.pairs() if pair not in inside]

    def primary_pairs(self) -> list[Pair]:
        """The primary arm and its control against their baseline, and the primary arm against its control."""
        primary, control = self.analysis["primary_arm"], self.primary_control
        return [
            pair
            for pair in self.pairs()
            if pair.arm == primary or (pair.arm == control and pair.relation == "baseline")
        ]


def arms_of(pairs: list[Pair]) -> list[str]:
    """The arms that these comparisons need, baselines first."""
    return list(dict.fromkeys([*(pair.against for pair in pairs), *(pair.arm for pair in pairs)]))
