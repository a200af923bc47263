"""Content of the gallery: one page that holds its images, its data and its script, and loads nothing.

What comes from data (names of classes, channels and sets, ids) goes in as JSON, and the script shows it as text alone.
The page's policy allows no script but the one of this digest."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from workflow_scripts.lib.images import colour_choices
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.page import image_legend, image_strips, sprite_sheets
from workflow_scripts.lib.page.gallery_images import Gallery, Source
from workflow_scripts.lib.page.sprite_sheets import Sheets

SCALED_BY = 500  # real images by which brightness is scaled


def looks(gallery: Gallery, images: np.ndarray, real: ImageSet, chosen: Mapping[str, str] | None) -> dict[str, Any]:
    """What the script is told of channels, colours and scale; `images` (n, C, t, t), `chosen`: the config's colours."""
    first = len(gallery.made) if len(gallery.real) else 0
    scale = image_strips.brightest([images[first:][:SCALED_BY]], len(real.channels))
    colours = colour_choices.colours_of(real.channels, chosen)
    known = dict.fromkeys([*colour_choices.COLOURS, *colours])
    bar = image_legend.of_set(real, chosen)
    return {
        "channels": [
            {"name": name, "colour": colour, "high": round(float(high))}
            for name, colour, high in zip(real.channels, colours, scale, strict=True)
        ],
        "colours": {name: [round(255 * part) for part in colour_choices.rgb(name)] for name in known},
        "bar": {"fraction": bar.fraction, "length": bar.length},
    }


def data(gallery: Gallery, classes: list[str], places: list[tuple[int, int]], sources: list[Source]) -> dict[str, Any]:
    """What the script is told of the run, and of each image."""
    made, real = gallery.made, gallery.real
    at = {name: len(made) + row for row, name in enumerate(real["id"])}
    return {
        "classes": classes,
        "places": [{"repeat": repeat, "fold": fold} for repeat, fold in places],
        "sources": [
            {
                "set": source.synthetic_set,
                "place": places.index((source.repeat, source.fold)),
                "without": source.reference_channels(),
            }
            for source in sources
        ],
        "judged": not made["agreement_judge"].equals(made["agreement_baseline"]),
        "generated": len(made),
        "id": [*made["generated"], *real["id"]],
        "labels": [*made["labels"], *real["labels"]],
        "source": made["source"].tolist(),
        "in": real["places"].tolist(),
        "baseline": _rounded(made["agreement_baseline"]),
        "judge": _rounded(made["agreement_judge"]),
        "nearest": [at.get(name, -1) for name in made["nearest"]],
        "reference": [at.get(name, -1) if name else None for name in made["reference"]],
        "turn": made["turn"].tolist(),
        "ratio": _rounded(made["ratio"]),
        "authentic": made["authentic"].astype(int).tolist(),
    }


def context(told: dict[str, Any], gallery: Gallery, sheets: Sheets, run: str, script: str) -> dict[str, Any]:
    """The values of the template."""
    return {
        "run": run,
        "notes": [*_samples(gallery), _quality(sheets)],
        "data": in_page(told | {"tile": sheets.tile, "across": sheets.across}),
        "sheets": sheets.texts,
        "script": Markup(script),  # noqa: S704  MixLoc's own
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    }


def in_page(value: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it can end the element or begin another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704  escaped above


def _rounded(values: pd.Series) -> list[float | None]:
    return [round(float(value), 3) if np.isfinite(value) else None for value in values]


def _samples(gallery: Gallery) -> list[str]:
    out = []
    for kind, shown, whole in (
        ("generated images", len(gallery.made), gallery.made_of),
        ("real images of train parts", len(gallery.real), gallery.real_of),
    ):
        if shown < whole:
            out.append(
                f"A sample of {shown:,} of {whole:,} {kind}, drawn by the seed of the run, as evenly over classes as "
                "there are images."
            )
        else:
            out.append(f"All {whole:,} {kind}.")
    return out


def _quality(sheets: Sheets) -> str:
    said = f"Images are shown at {sheets.tile} × {sheets.tile} pixels"
    if sheets.quality == sprite_sheets.LOSSLESS:
        return f"{said}, without loss."
    return f"{said}, compressed to WebP quality {sheets.quality} of 100: fine noise is not that of the images."
