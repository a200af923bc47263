"""Whether generated images look real, in a sentence, by measures that neither generator nor arms depend on."""

from __future__ import annotations

import math
from dataclasses import dataclass

ALIKE, NEAR, FAR, UNKNOWN = "alike", "near", "far", "unknown"
HALF = 0.5  # of the way from real to degraded images, from which on images do not look real


@dataclass(frozen=True)
class Eye:
    """A measure of distance to held-out real images, of generated, real (floor) and degraded ones (the nearest)."""

    name: str
    generated: float
    generated_low: float  # of its interval
    floor: float
    floor_high: float
    degraded: float

    @property
    def known(self) -> bool:
        """Whether there were enough images for all of it."""
        return all(map(math.isfinite, (self.generated, self.generated_low, self.floor, self.floor_high, self.degraded)))

    @property
    def way(self) -> float:
        """Part of the way from real to degraded images at which generated ones lie."""
        far = self.degraded - self.floor
        return max(0.0, self.generated - self.floor) / far if far > 0 else math.inf

    @property
    def tells_apart(self) -> bool:
        """Whether generated images are farther than real ones may be."""
        return self.generated_low > self.floor_high


def kind(eyes: list[Eye]) -> str:
    """How alike generated and real images are: by the eye that tells them apart best."""
    known = [eye for eye in eyes if eye.known]
    if not known:
        return UNKNOWN
    if not any(eye.tells_apart for eye in known):
        # Estimates that lie so far off would be told apart, were there more images.
        return UNKNOWN if any(eye.way >= HALF for eye in known) else ALIKE
    return NEAR if _worst(known).way < HALF else FAR


def sentence(eyes: list[Eye], synthetic_set: str) -> str:
    """The answer for the images of a synthetic set."""
    found, who = kind(eyes), f"The generated images of {synthetic_set}"
    if found == UNKNOWN:
        return f"There are too few images to say whether those of {synthetic_set} look like the real ones."
    if found == ALIKE:
        names = " and ".join(eye.name for eye in eyes if eye.known)
        return f"{who} look like the real ones: they cannot be told apart by {names}."
    worst = _worst([eye for eye in eyes if eye.known])
    where = (
        f"lie {100 * worst.way:.0f} % of the way from real images to degraded ones"
        if worst.way < 1
        else "are farther from real images than degraded ones are"
    )
    told = "resemble the real ones, but can be told from them" if found == NEAR else "do not look like the real ones"
    return f"{who} {told}: by {worst.name} they {where} (noise, blurred cells, random phases)."


SAID = {
    ALIKE: "look like the real ones",
    NEAR: "resemble the real ones, but can be told from them",
    FAR: "do not look like the real ones",
    UNKNOWN: "cannot be judged, as there are too few",
}


def second_opinion(first: Eye, second: Eye, differing: list[str]) -> str:
    """Whether an independent encoder agrees with the first; `differing` names measures on which they do not."""
    one, other = kind([first]), kind([second])
    if one == other:
        said = f"Both encoders agree by the Fréchet distance: generated images {SAID[one]}."
    else:
        said = (
            f"The encoders disagree by the Fréchet distance: in the features of {first.name}, generated images "
            f"{SAID[one]}; in those of {second.name}, they {SAID[other]}."
        )
    if differing:
        said += f" Only one of the two tells generated images from real ones by: {', '.join(differing)}."
    return said


def _worst(eyes: list[Eye]) -> Eye:
    return max((eye for eye in eyes if eye.tells_apart), key=lambda eye: eye.way)
