"""Rows of the tables that assess a synthetic set: the judge's scores, fidelity, the closest pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.fidelity import bracket, data_copying, distances
from workflow_scripts.lib.fidelity.bracket import Answered, Described
from workflow_scripts.lib.fidelity.compared_images import ComparedImages
from workflow_scripts.lib.fidelity.copy_search import CopySearch
from workflow_scripts.lib.fidelity.encoders import Encoder
from workflow_scripts.lib.images import nearest_images, spectra
from workflow_scripts.lib.images.image_set import Part
from workflow_scripts.lib.scores import ranking_metrics

# Columns in which rows of one scope of the fidelity table differ.
FIGURES = ("measure", "contender", "value", "low", "high")


def judge_scores(compared: ComparedImages, judge: Encoder, place: dict[str, Any]) -> list[dict[str, Any]]:
    """Average precision and ROC AUC of the judge on real and on generated images, a row per class."""
    parts = (("real", compared.held_out), ("generated", compared.made))
    scores = {name: judge.decide(judge.encode(part.images)) for name, part in parts}
    rows = []
    for kind, name in enumerate(compared.classes):
        row: dict[str, Any] = place | {"class": name}
        for which, part in parts:
            truth = part.labels[:, kind].astype(bool)
            row[f"images_{which}"] = int(truth.sum())
            row[f"prevalence_{which}"] = float(truth.mean())
            row[f"ap_{which}"] = average_precision(scores[which][:, kind], truth)
            row[f"auc_{which}"] = roc_area(scores[which][:, kind], truth)
        rows.append(row)
    return rows


def fidelity_rows(
    compared: ComparedImages, encoder: Encoder, baseline: Encoder | None, settings: dict[str, Any], seed: int
) -> list[dict[str, Any]]:
    """Fidelity of the generated images with floors and ceilings, a row per scope, measure and contender.

    Without a baseline there is no agreement with labels."""
    rng = np.random.default_rng(derive(seed, "spoiled"))
    # Encoding more than is compared would be a waste; classes and combinations draw from these.
    held, train = (_some(part, 4 * settings["images"], rng) for part in (compared.held_out, compared.train))
    made = compared.made
    # Which images are compared follows from labels alone: of the degraded ones, no others are encoded.
    labels = {bracket.GENERATED: made.labels, bracket.FLOOR: train.labels}
    labels |= dict.fromkeys(spectra.CEILINGS, train.labels)
    drawn = bracket.draws(held.labels, labels, compared.classes, settings, seed)
    reference = bracket.describe(held.images, held.labels, held.groups, encoder)
    others = {
        bracket.GENERATED: bracket.describe(made.images, made.labels, compared.own, encoder),
        bracket.FLOOR: bracket.describe(train.images, train.labels, train.groups, encoder),
    }

    def answered(images: np.ndarray, of: Described) -> Answered:
        features = of.features if encoder is baseline else baseline.encode(images)
        return Answered(of.labels, of.groups, baseline.decide(features))

    answers = {}
    if baseline is not None:
        answers[bracket.GENERATED] = answered(made.images, others[bracket.GENERATED])
        answers[bracket.FLOOR] = answered(held.images, reference)
    for name, spoil in spectra.CEILINGS.items():
        rows = bracket.drawn_rows(drawn, name)
        others[name] = bracket.describe(spoil(train.images, rng), train.labels, train.groups, encoder, rows)
        degraded = spoil(held.images, rng)
        if baseline is not None:
            answers[name] = Answered(held.labels, reference.groups, baseline.decide(baseline.encode(degraded)))
    return bracket.bracketed(drawn, reference, others, answers, settings)


def independent_rows(
    compared: ComparedImages, encoder: Encoder, settings: dict[str, Any], seed: int
) -> list[dict[str, Any]]:
    """The same distances of the same images by a second encoder, where they depend on the encoder."""
    rows = fidelity_rows(compared, encoder, None, settings, seed)
    return [row for row in rows if distances.MEASURES[row["measure"]].needs_encoder]


def _some(part: Part, most: int, rng: np.random.Generator) -> Part:
    if len(part) <= most:
        return part
    chosen = np.sort(rng.choice(len(part), most, replace=False))
    columns = (part.images, part.labels, part.ids, part.groups, part.rows)
    return Part(*(values[chosen] for values in columns), part.access_record)


def copy_rows(found: CopySearch, copying: dict[str, distances.Estimate], whole: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of authentic fractions and of C_T; `whole` is a fidelity row of all images."""
    about = _of_all_images(whole, found)
    rows = [
        bracket.row(about, measure, contender, estimate)
        for measure, by in found.fractions.items()
        for contender, estimate in by.items()
    ]
    return rows + copying_rows(found, copying, whole)


def copying_rows(
    found: CopySearch, copying: dict[str, distances.Estimate], whole: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of C_T, a row per contender."""
    about = _of_all_images(whole, found)
    return [bracket.row(about, data_copying.COPYING, name, copying[name]) for name in bracket.CONTENDERS]


def _of_all_images(whole: dict[str, Any], found: CopySearch) -> dict[str, Any]:
    kept = {key: value for key, value in whole.items() if key not in FIGURES}
    return kept | {"images": len(found.made.images)}


def closest_rows(
    compared: ComparedImages, by_measure: dict[str, nearest_images.Nearest], count: int
) -> list[dict[str, Any]]:
    """The closest pairs of a generated and a training image, in pixels and in features, a row per pair.

    Closeness is the distance divided by that between training images."""
    rows = []
    for measure, nearest in by_measure.items():
        # Equal ratios, such as those of exact copies, in the order of the set.
        order = np.argsort(nearest.ratio, kind="stable")[:count]
        for rank, index in enumerate(order.tolist()):
            row = {"space": measure.removeprefix("authentic_"), "rank": rank + 1}
            row |= {"generated": compared.made.ids[index], "train": compared.train.ids[nearest.train[index]]}
            row |= {"turn": int(nearest.turn[index]), "distance": float(nearest.distance[index])}
            row |= {"between_train": float(nearest.own[index]), "ratio": float(nearest.ratio[index])}
            row |= {"authentic": bool(nearest.authentic[index])}
            if compared.references is not None:
                row["reference"] = compared.references[index]
            rows.append(row)
    return rows


def image_rows(
    compared: ComparedImages, nearest: nearest_images.Nearest, judge: Encoder, baseline: Encoder
) -> list[dict[str, Any]]:
    """Label agreement and nearest training image of every generated image, a row an image.

    `nearest` is by pixels. Agreement is that of `bracket.agreement`, by the baseline and by the judge."""
    agreed = {name: _agreement(compared, network) for name, network in (("baseline", baseline), ("judge", judge))}
    return [
        {
            "generated": compared.made.ids[index],
            "agreement_baseline": float(agreed["baseline"][index]),
            "agreement_judge": float(agreed["judge"][index]),
            "nearest": compared.train.ids[nearest.train[index]],
            "turn": int(nearest.turn[index]),
            "ratio": float(nearest.ratio[index]),
            "authentic": bool(nearest.authentic[index]),
        }
        for index in range(len(compared.made))
    ]


def _agreement(compared: ComparedImages, network: Encoder) -> np.ndarray:
    answers = {
        name: Answered(part.labels, groups, network.decide(network.encode(part.images)))
        for name, part, groups in (
            (bracket.GENERATED, compared.made, compared.own),
            (bracket.FLOOR, compared.held_out, compared.held_out.groups),
        )
    }
    everything = bracket.Scope("all", "all images", np.zeros(len(compared.classes), dtype=np.uint8))
    return bracket.agreement(bracket.usual(answers)[bracket.GENERATED].logits, compared.made.labels, everything)


def described(
    compared: ComparedImages,
    encoder: Encoder,
    judge: Encoder,
    baseline: Encoder,
    settings: dict[str, Any],
    independent: Encoder | None = None,
) -> dict[str, Any]:
    """Networks asked, images compared and settings: what a reader of the tables must know."""
    second = {}
    if independent is not None:
        about = {"name": independent.name, "overlap": independent.overlap}
        second["independent_encoder"] = about | _licence(independent)
    return second | {
        "encoder": {"name": encoder.name, "kind": "baseline" if encoder is baseline else encoder.kind,
                    "overlap": encoder.overlap} | _licence(encoder),
        "judge": "baseline" if judge is baseline else "independent",
        "knows_train": encoder.fitted is not None,
        "images": {"held_out": len(compared.held_out), "train": len(compared.train), "generated": len(compared.made)},
        "groups": {"held_out": len(np.unique(compared.held_out.groups)),
                   "train": len(np.unique(compared.train.groups))},
        "reference_channels": [compared.channels[index] for index in compared.reference_channels],
        "start_noise": compared.start_noise,
        "shares_labels": bool(
            np.abs(compared.made.labels.mean(axis=0) - compared.held_out.labels.mean(axis=0)).max(initial=0) < 0.1
        ),
        "settings": {key: settings[key] for key in ("images", "draws", "confidence", "smallest")},
    }  # fmt: skip


def _licence(encoder: Encoder) -> dict[str, str]:
    return {"licence": encoder.licence} if encoder.licence else {}


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision; empty (NaN) where a class has no positive or nothing but positives."""
    if not 0 < truth.sum() < len(truth):
        return float("nan")
    return float(ranking_metrics.average_precision(scores, truth, *ranking_metrics.unweighted(len(truth)))[0])


def roc_area(scores: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties counted half; NaN where there is nothing to compare."""
    positives, negatives = scores[truth], scores[~truth]
    return data_copying.farther(positives, negatives) if len(positives) and len(negatives) else float("nan")
