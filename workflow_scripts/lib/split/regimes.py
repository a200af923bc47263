"""Label regimes: how many of the train groups are labelled, and what may be read of the others.

A regime changes the roles of a fold: labelled groups keep theirs, the others become unlabelled or unused. Regimes are
nested: groups are ranked once, and a regime labels those whose rank is within its fraction. Knows nothing of tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from workflow_scripts.lib.split.roles import Role

# Roles whose groups are ranked among themselves. Images kept aside from train groups follow their group.
RANKED = (Role.TRAIN, Role.VALIDATION, Role.CALIBRATION)
FEWEST_LABELLED = 4  # groups of a part; thresholds and checkpoints chosen on fewer would follow single proteins
SEEN, UNUSED = "seen", "unused"
SAME, FULL = "same", "full"


@dataclass(frozen=True)
class Regime:
    """What of a fold is labelled, and what is only seen."""

    name: str = "all"
    labelled: float = 1.0  # fraction of the train groups
    # Whether images of the other train groups, and further ones that nobody labelled, may be read without labels.
    unlabelled: str = UNUSED  # seen or unused
    selection: str = SAME  # whether validation and calibration shrink likewise (same) or stay whole (full)

    @property
    def whole(self) -> bool:
        """Whether everything that it shows is labelled."""
        return self.labelled >= 1 and self.unlabelled != SEEN

    @property
    def record_name(self) -> str:
        """The name by which access records know it: that of everything where everything is labelled."""
        return WHOLE.name if self.whole else self.name

    def settings(self) -> dict[str, Any]:
        """The regime as stages are told it."""
        return asdict(self)


WHOLE = Regime()
# Roles as the table of folds has them, whatever a regime makes of them.
AS_WRITTEN = Regime("as written", unlabelled=SEEN)


def regime_of(settings: Mapping[str, Any]) -> Regime:
    """The regime of an arm, a generator or a synthetic set by its settings; those without one have all labels."""
    return Regime(**settings["regime"]) if settings.get("regime") else WHOLE


def roles_under(regime: Regime, roles: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Roles of images (n,) of a fold under a regime, from those of the fold and the ranks of the groups (n,).

    A rank is in (0, 1] and NaN for images without one. Further images have none, and are unlabelled as written."""
    out = roles if regime.unlabelled == SEEN else np.where(roles == Role.UNLABELLED, Role.UNUSED, roles)
    if regime.labelled >= 1:
        return out
    out = out.copy()
    # Ranks are fractions of whole groups, written with few digits.
    beyond = ~(rank <= regime.labelled + 1e-9)
    out[beyond & (roles == Role.TRAIN)] = Role.UNLABELLED if regime.unlabelled == SEEN else Role.UNUSED
    out[beyond & (roles == Role.RESERVE_SAME)] = Role.UNUSED
    if regime.selection == SAME:
        out[beyond & np.isin(roles, (Role.VALIDATION, Role.CALIBRATION))] = Role.UNUSED
    return out
