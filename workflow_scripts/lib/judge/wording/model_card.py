"""Model card of an arm: what it is, how it scored and on what, made from the tables of the run."""

from __future__ import annotations

import csv
import html
import re
from collections import Counter
from pathlib import Path
from typing import Any

SCORES = {"macro_f1": "macro-F1", "micro_f1": "micro-F1", "map": "mean average precision"}
LEVELS = {"image": "per image", "protein": "per protein"}
USE = """import json, torch
from safetensors.torch import load_file
from mixloc_networks import backbones  # the code that lies in the package
about = json.load(open("model.json"))
def answers(member):  # images: uint8 (n, channels, size, size); gives probabilities (n, classes)
    network = backbones.build(**about["network"], encoder=member.get("encoder"), seed=0).eval()
    network.load_state_dict(load_file(member["weights"]))
    mean, std = (torch.tensor(member[key]).view(-1, 1, 1) for key in ("mean", "std"))
    return network((images / 255 - mean) / std).sigmoid().detach()
probabilities = sum(map(answers, about["members"])) / len(about["members"])
"""
SCRIPT = '\nOr `torch.jit.load("{}")(images.float())`, which answers bit for bit alike.\n'
CARD = """# {run}: {arm}

{count} classifiers of the arm `{arm}` of the MixLoc run `{run}`, one for each fold and repeat.
Their probabilities are averaged. An image gets each class whose probability reaches the class's threshold in
`model.json`. If there is none, it gets its most probable class.

| what | value |
|---|---|
| network | {network} |
| how it was trained | {method} |
| channels, in order | {channels} |
| size | {size} px |
| classes | {classes} |

## Use

In this folder, with torch and safetensors, and without MixLoc:

```python
{use}```
{torchscript}
Images are prepared as in training: {preprocessing}.

## Scores on images of groups that it was not trained on

{scores}
Scores are those of the single classifiers, pooled or averaged over folds and repeats.
Intervals are at {confidence:g} %. The ensemble was not scored by itself.

## Data

{data}

## Leak certificate

{leaks}

## Limits

- It was trained and scored on images of this source alone. Images of other microscopes, stains or cell lines may get
  wrong labels with high probabilities.
- It knows only the classes above, and gives every image at least one of them.

## Licence

The code in `{code}` is part of MixLoc and under the MIT licence (`LICENSE`).
The weights were fitted to the images above. Their licence: {licence}.
"""


def read_rows(path: Path, **wanted: str) -> list[dict[str, str]]:
    """Rows of a table of the run that have these values."""
    with path.open(newline="", encoding="utf-8") as handle:
        return [row for row in csv.DictReader(handle) if all(row[key] == value for key, value in wanted.items())]


def scores(metrics: Path, arm: str) -> list[dict[str, Any]]:
    """Test scores of an arm over all folds and repeats, with their intervals."""
    out = []
    for row in read_rows(metrics, arm=arm, repeat="mean", part="test"):
        if row["class"] or row["metric"] not in SCORES or not row["value"]:
            continue
        ends = [float(row[end]) if row[end] else None for end in ("low", "high")]
        out.append({"metric": row["metric"], "level": row["level"], "value": float(row["value"]), "interval": ends})
    return out


def certificate(leaks: Path, arm: str) -> dict[str, int]:
    """How often each status stands in the leak certificate of an arm."""
    return dict(Counter(row["status"] for row in read_rows(leaks, artefact=f"arm {arm}")))


def card(about: dict[str, Any], run: str, licence: str) -> str:
    """The model card, as Markdown, from model.json."""
    script = about["torchscript"]
    rows = "\n".join(_row(row) for row in about["scores"])
    data = {name: value for name, value in about["data"].items() if value}
    return CARD.format(
        run=run,
        arm=about["arm"],
        count=len(about["members"]),
        network=f"`{about['network']['name']}`",
        method=_method(about["trained"]),
        channels=", ".join(about["channels"]),
        size=about["size"],
        classes=", ".join(map(_plain, about["classes"])),
        use=USE,
        torchscript=SCRIPT.format(script) if script else "",
        preprocessing=_preprocessing(about["preprocessing"]),
        scores=f"| score | value | interval |\n|---|---|---|\n{rows}\n" if rows else "None was found.\n",
        confidence=100 * about["confidence"],
        data="\n".join(f"- {name}: {_plain(value)}" for name, value in data.items()),
        leaks=_leaks(about["leak_certificate"]),
        code="mixloc_networks",
        licence=_plain(licence) or "not stated",
    )


def _plain(value: Any) -> str:
    """Text from outside in one line that Markdown takes for text: no tags, no cells of a table, no code."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(" ".join(str(value).split()), quote=False))


def _row(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    span = f"{low:.3f} to {high:.3f}" if low is not None and high is not None else "–"
    return f"| {SCORES[row['metric']]}, {LEVELS.get(row['level'], row['level'])} | {row['value']:.3f} | {span} |"


def _method(entry: dict[str, Any]) -> str:
    made = f", with images of the synthetic set `{entry['synthetic_set']}`" if entry.get("synthetic_set") else ""
    return f"method `{entry['method']}`{made}"


def _preprocessing(settings: dict[str, Any]) -> str:
    scale = f"{settings['pixel_size']:g} µm a pixel, centre cut out" if settings["pixel_size"] else "whole image"
    return (
        f"{scale}, area averaging to {settings['size']} × {settings['size']} px, intensity {settings['intensity']}, "
        f"8 bits, channels {', '.join(settings['channels'])}"
    )


def _leaks(counts: dict[str, int]) -> str:
    if not counts:
        return "The run has no certificate of this arm."
    told = ", ".join(f"{count} *{status}*" for status, count in sorted(counts.items()))
    return f"Checks of what its classifiers read, against the roles of the images: {told}."


def facts(attrs: dict[str, Any], told: dict[str, str], images: int, groups: int) -> dict[str, Any]:
    """What is known of the images: from the image set, and from the config where that says more."""
    known = {name: told.get(name) or attrs.get(name, "") for name in ("release", "licence", "credit")}
    return {"source": told.get("origin") or attrs.get("source", ""), "images": images, "groups": groups} | known
