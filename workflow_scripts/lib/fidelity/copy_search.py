"""Search for copies of train images: nearest train images, authentic fractions and the data-copying test C_T.

Copies are looked for among all generated images and all train images: in pixels in all orientations, in the features of
an encoder upright and as each image matches best in pixels.
Held-out real images are searched for in the same way, for they too lie near train images by chance. Channels that were
taken from train images count in neither."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.fidelity import bracket, closest_search, data_copying, distances, encoders
from workflow_scripts.lib.fidelity.compared_images import ComparedImages
from workflow_scripts.lib.fidelity.data_copying import Apart
from workflow_scripts.lib.fidelity.distances import Estimate
from workflow_scripts.lib.fidelity.encoders import Encoder
from workflow_scripts.lib.images import nearest_images, orientation, spectra
from workflow_scripts.lib.images.nearest_images import Nearest, Turns

AUTHENTIC_PIXELS, AUTHENTIC_FEATURES = "authentic_pixels", "authentic_features"
CONTROLS = 250  # held-out images compared with the train part


@dataclass(frozen=True)
class Searched:
    """Images whose nearest train images were looked for, by measure (AUTHENTIC_PIXELS, AUTHENTIC_FEATURES)."""

    images: np.ndarray  # uint8 (n, C, s, s)
    groups: np.ndarray  # (n,)
    nearest: dict[str, Nearest]

    def authentic(self, measure: str, rng: np.random.Generator, settings: dict[str, Any]) -> Estimate:
        """Fraction of authentic images."""
        values = self.nearest[measure].authentic.astype(float)
        return distances.average(values, self.groups, rng, settings["draws"], settings["confidence"])


@dataclass(frozen=True)
class CopySearch:
    """What was found for the generated images and for some held-out ones, by an encoder."""

    made: Searched
    held_out: Searched
    train: np.ndarray  # uint8 (n, C, s, s)
    given: list[int]  # channels that the generated images took from train images
    encoder: Encoder  # does not see these
    fractions: dict[str, dict[str, Estimate]]  # authentic images, by measure and contender


def search(compared: ComparedImages, encoder: Encoder, settings: dict[str, Any], seed: int) -> CopySearch:
    """Nearest train image of each generated image and of some held-out ones, in pixels and in features."""
    rng, given = np.random.default_rng(derive(seed, "copies")), compared.reference_channels
    some = bracket.some_of(np.arange(len(compared.held_out)), CONTROLS, rng)
    made, train, held_out = compared.made.images, compared.train.images, compared.held_out.images[some]
    encoder, closest = _blind(encoder, given, train), closest_search.search(device.device())
    ours, control = (
        Searched(part, groups, {})
        for part, groups in ((made, compared.own), (held_out, compared.held_out.groups[some]))
    )
    pixels = partial(nearest_images.pixels, black=given)
    by_pixels = nearest_images.nearest_of_each([made, held_out], train, pixels, closest)
    turns = Turns(
        [part.turn for part in by_pixels], lambda places: nearest_images.turns_of(train, places, pixels, closest)
    )
    by_features = nearest_images.nearest_of_each([made, held_out], train, encoder.encode, closest, turns)
    fractions: dict[str, dict[str, Estimate]] = {}
    for measure, found in ((AUTHENTIC_PIXELS, by_pixels), (AUTHENTIC_FEATURES, by_features)):
        ours.nearest[measure], control.nearest[measure] = found
        fractions[measure] = {
            bracket.GENERATED: ours.authentic(measure, rng, settings),
            bracket.FLOOR: control.authentic(measure, rng, settings),
        }
    return CopySearch(ours, control, train, given, encoder, fractions)


def copying(found: CopySearch, settings: dict[str, Any], seed: int) -> dict[str, Estimate]:
    """C_T of each contender in the features of the search, whose distances it takes."""
    kinds = {bracket.GENERATED: found.made, bracket.FLOOR: found.held_out}
    places = {name: (part.nearest[AUTHENTIC_FEATURES].train, part.nearest[AUTHENTIC_FEATURES].distance)
              for name, part in kinds.items()}  # fmt: skip
    return _copying(found, places, AUTHENTIC_FEATURES, settings, seed)


def copying_by(found: CopySearch, encoder: Encoder, settings: dict[str, Any], seed: int) -> dict[str, Estimate]:
    """C_T of each contender in the features of another encoder.

    Images are turned as they match best in pixels: to encode all eight orientations would take long."""
    found = replace(found, encoder=_blind(encoder, found.given, found.train))
    kinds = {bracket.GENERATED: found.made, bracket.FLOOR: found.held_out}
    places = {name: _nearest(found, part.images, part.nearest[AUTHENTIC_PIXELS].turn) for name, part in kinds.items()}
    return _copying(found, places, AUTHENTIC_PIXELS, settings, seed)


def _blind(encoder: Encoder, given: list[int], train: np.ndarray) -> Encoder:
    """The encoder without the channels that were given; it encodes the train images once."""
    return encoders.remembering(replace(encoder, encode=nearest_images.blind(encoder.encode, given)), [train])


def _copying(
    found: CopySearch,
    places: dict[str, tuple[np.ndarray, np.ndarray]],
    turned_by: str,
    settings: dict[str, Any],
    seed: int,
) -> dict[str, Estimate]:
    """C_T of each contender; places and distances of generated and held-out images are known."""
    rng, held_out = np.random.default_rng(derive(seed, "copying")), found.held_out
    # Degraded images match in no orientation: they are turned as the image that they were.
    turn = held_out.nearest[turned_by].turn
    for name, spoil in spectra.CEILINGS.items():
        places[name] = _nearest(found, spoil(held_out.images, rng), turn)
    cell = data_copying.cells(found.encoder.encode(found.train), len(held_out.images), rng)
    apart = {
        name: Apart(distance, cell[place], found.made.groups if name == bracket.GENERATED else held_out.groups)
        for name, (place, distance) in places.items()
    }
    draws, level, real = settings["draws"], settings["confidence"], apart.pop(bracket.FLOOR)
    out = {name: data_copying.estimate(part, real, rng, draws, level) for name, part in apart.items()}
    return out | {bracket.FLOOR: data_copying.floor(real, rng, draws, level)}


def _nearest(found: CopySearch, images: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place and distance of the nearest train image of each image, turned by the orientations (n,)."""
    turned = np.stack([orientation.mirror_then_rotate(image, way) for image, way in zip(images, turn, strict=True)])
    closest = closest_search.search(device.device())
    return nearest_images.as_they_are(found.encoder.encode(turned), found.encoder.encode(found.train), closest)
