"""assess_synthetic: how good is a synthetic set, beside real images of groups that its generator never saw?

Held-out real images are those that neither the generator nor a network asked here was fitted or selected on, by what
their files recorded. Four files are written for a synthetic set:

    {set}.assess.csv     a judge's average precision (chance: the prevalence) and area under the ROC curve (chance:
                          0.5) on real and on generated images, class by class
    {set}.fidelity.csv   distances in an encoder's features and in plain pixels, label agreement by the baseline, and
                          the fraction of authentic images: each figure with its floor, its ceilings and intervals; for
                          all images, each class and each combination (lib/fidelity/bracket.py)
    {set}.closest.csv    the generated images that lie closest to a training image
    {set}.assess.json    which networks were asked, what is known of them, and what to be wary of

Example:
    python -m workflow_scripts.assess_synthetic --synthetic synthetic/as_train.h5 --images images.h5 \\
        --folds folds.csv --repeat 0 --fold 0 --seed 1 --judge judge.safetensors --baseline arms/job0.json \\
        --scores as_train.assess.csv --fidelity as_train.fidelity.csv --closest as_train.closest.csv \\
        --about as_train.assess.json --settings '{"judge": "independent", "baseline": "real_only", "threads": 1, ...}'
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import atomic, write_json
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import classifier_file
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.fidelity import bracket, encoders
from workflow_scripts.lib.fidelity.bracket import Answered, Described
from workflow_scripts.lib.fidelity.encoders import Encoder
from workflow_scripts.lib.images import nearest_images, spectra
from workflow_scripts.lib.images.access_record import Provenance
from workflow_scripts.lib.images.image_set import ImageSet, Part
from workflow_scripts.lib.scores import arm_list, ranking_metrics
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role

HELD_OUT = (Role.VALIDATION, Role.CALIBRATION, Role.TEST)


@dataclass
class World:
    """The images that are compared."""

    held_out: Part
    train: Part  # what the generator was fitted on
    made: Part
    given: list[int]  # channels that the synthetic set took from training images
    varied: float | None  # noise level to which training images were noised that the generated ones are variations of
    references: np.ndarray | None  # ids (n,) of these training images
    relatives: np.ndarray | None  # their groups
    classes: list[str]
    channels: list[str]

    @property
    def own(self) -> np.ndarray:
        """Groups of the generated images: they are independent of each other, but for real images of one group."""
        return np.arange(len(self.made)) if self.relatives is None else self.relatives


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--synthetic", type=Path, required=True, help="the synthetic set of one synthetic set")
    out.add_argument("--images", type=Path, required=True, help="the real image set")
    out.add_argument("--folds", type=Path, required=True, help="the table of roles")
    out.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    out.add_argument("--fold", type=int, required=True, help="number of the fold")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    out.add_argument("--judge", type=Path, required=True, help="a classifier, or a list of arms with settings.judge")
    out.add_argument("--baseline", type=Path, required=True, help="a list of arms with settings.baseline")
    out.add_argument("--scores", type=Path, required=True, help="table of the judge's scores to write")
    out.add_argument("--fidelity", type=Path, required=True, help="table of distances to write")
    out.add_argument("--closest", type=Path, required=True, help="table of the closest pairs to write")
    out.add_argument("--about", type=Path, required=True, help="what is known of the networks asked (JSON), to write")
    return out.parse_args(argv)


def assess_synthetic(args: argparse.Namespace) -> None:
    """Write the four files of one synthetic set."""
    settings = args.settings
    device.use_threads(settings["threads"])
    with ImageSet(args.images) as source:
        classes, channels = source.classes, source.channels
    baseline = _classifier(args.baseline, settings["baseline"], "baseline", classes, channels)
    # The same file is the same network, and is asked once.
    independent = settings["judge"] != settings["baseline"]
    judge = _classifier(args.judge, settings["judge"], "judge", classes, channels) if independent else baseline
    fixed = {"baseline": baseline, "judge": judge}.get(str(settings["encoder"]))
    world = _world(args, [network for network in (baseline, judge, fixed) if network is not None])
    encoder = fixed or encoders.own(settings["encoder"], channels, world.train.images)
    seed = derive(args.seed, args.repeat, args.fold, "assess", args.synthetic.stem)
    place = {"repeat": args.repeat, "fold": args.fold, "synthetic_set": args.synthetic.stem}
    _write(args.scores, judged(world, judge, place | {"judge": settings["judge"]}))
    rows = fidelity_rows(world, encoder, baseline, settings, seed)
    found, fractions = bracket.copies(
        world.made.images, world.own, world.held_out.images, world.held_out.groups, world.train.images, world.given,
        encoder.encode, settings, seed,
    )  # fmt: skip
    about = next({key: row[key] for key in row if key not in ("measure", "contender", "value", "low", "high")}
                 for row in rows)  # fmt: skip
    rows += [
        bracket.row(about | {"images": len(world.made)}, measure, contender, estimate)
        for measure, by in fractions.items()
        for contender, estimate in by.items()
    ]
    _write(args.fidelity, [place | {"encoder": encoder.name} | row for row in rows])
    _write(args.closest, [place | row for row in closest(world, found, settings["pairs"])])
    write_json(args.about, place | described(world, encoder, judge, baseline, settings))
    told = {(row["measure"], row["contender"]): row["value"] for row in rows if row["scope"] == "all"}
    stage.log.info(
        "Fréchet distance %.4f (floor %.4f, noise %.4f), authentic in pixels %.1f %% (held-out real: %.1f %%)",
        *(told["frechet", name] for name in ("generated", "floor", "noise")),
        *(100 * told["authentic_pixels", name] for name in ("generated", "floor")),
    )


def _world(args: argparse.Namespace, networks: list[Encoder]) -> World:
    """The three sets of images; held out is what no network and no synthetic set has seen, nor a relative of it."""
    with ImageSet(args.synthetic) as source:
        made, inherited = source.read(None, "inspect"), source.inherited()
        synthetic_set = json.loads(source.attrs.get("synthetic_set", "{}"))
        references = source.column("reference") if "reference" in source.columns() else None
        theirs = (source.channels, source.classes)
    with ImageSet(args.images) as source:
        if theirs != (source.channels, source.classes):
            raise UserError(
                f"{args.synthetic} has other channels or classes than {args.images}: delete it and run again"
            )
        roles = role_table.read(args.folds, args.fold, source.ids)
        records = [record for record in (inherited, *(network.fitted for network in networks)) if record is not None]
        seen = _rows_seen(records, source, args.images)
        held = np.isin(roles, HELD_OUT) & ~np.isin(source.groups, source.groups[seen])
        fitted = np.zeros(len(source), dtype=bool)
        fitted[inherited.of("fit") if inherited else np.flatnonzero(roles == Role.TRAIN)] = True
        if not held.any() or not fitted.any():
            raise UserError(f"{args.folds} leaves no held-out or no train image in fold {args.fold} to compare")
        given = [
            source.channels.index(name)
            for name in synthetic_set.get("reference_channels") or []
            if name in source.channels
        ]
        return World(
            source.read(np.flatnonzero(held), "inspect"), source.read(np.flatnonzero(fitted), "inspect"), made,
            given, synthetic_set.get("start_noise"), references, _groups_of(references, source, args), source.classes, source.channels,
        )  # fmt: skip


def _groups_of(references: np.ndarray | None, source: ImageSet, args: argparse.Namespace) -> np.ndarray | None:
    if references is None:
        return None
    at = {name: row for row, name in enumerate(source.ids)}
    absent = [name for name in references if name not in at]
    if absent:
        raise UserError(f"{args.synthetic} refers to {absent[0]!r}, which {args.images} does not hold")
    return source.groups[[at[name] for name in references]]


def _rows_seen(records: list[Provenance], source: ImageSet, path: Path) -> np.ndarray:
    seen = np.zeros(len(source), dtype=bool)
    for record in records:
        if (record.images, record.count) != (source.digest, len(source)):
            raise UserError(f"a network or a synthetic set was made from another image set than {path}: run again")
        for purpose in ("fit", "select"):
            seen[record.of(purpose)] = True
    return np.flatnonzero(seen)


def judged(world: World, judge: Encoder, place: dict[str, Any]) -> list[dict[str, Any]]:
    """The judge's scores on generated and on real images, a row a class."""
    parts = (("real", world.held_out), ("generated", world.made))
    scores = {name: judge.decide(judge.encode(part.images)) for name, part in parts}
    rows = []
    for kind, name in enumerate(world.classes):
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
    world: World, encoder: Encoder, baseline: Encoder, settings: dict[str, Any], seed: int
) -> list[dict[str, Any]]:
    """The bracketed table."""
    rng = np.random.default_rng(derive(seed, "spoiled"))
    # Encoding more than is compared would be a waste; classes and combinations draw from these.
    held, train = (_some(part, 4 * settings["images"], rng) for part in (world.held_out, world.train))
    made = world.made
    reference = bracket.describe(held.images, held.labels, held.groups, encoder)
    others = {
        bracket.GENERATED: bracket.describe(made.images, made.labels, world.own, encoder),
        bracket.FLOOR: bracket.describe(train.images, train.labels, train.groups, encoder),
    }

    def answered(images: np.ndarray, of: Described) -> Answered:
        features = of.features if encoder is baseline else baseline.encode(images)
        return Answered(of.labels, of.groups, baseline.decide(features))

    answers = {
        bracket.GENERATED: answered(made.images, others[bracket.GENERATED]),
        bracket.FLOOR: answered(held.images, reference),
    }
    for name, spoil in spectra.CEILINGS.items():
        others[name] = bracket.describe(spoil(train.images, rng), train.labels, train.groups, encoder)
        logits = baseline.decide(baseline.encode(spoil(held.images, rng)))
        answers[name] = Answered(held.labels, reference.groups, logits)
    return bracket.bracketed(reference, others, answers, world.classes, settings, seed)


def _some(part: Part, most: int, rng: np.random.Generator) -> Part:
    if len(part) <= most:
        return part
    chosen = np.sort(rng.choice(len(part), most, replace=False))
    columns = (part.images, part.labels, part.ids, part.groups, part.rows)
    return Part(*(values[chosen] for values in columns), part.provenance)


def closest(world: World, found: dict[str, nearest_images.Nearest], count: int) -> list[dict[str, Any]]:
    """The pairs that lie closest for the distances between training images, in pixels and in features."""
    rows = []
    for measure, nearest in found.items():
        # Equal ratios, such as those of exact copies, in the order of the set.
        order = np.argsort(nearest.ratio, kind="stable")[:count]
        for rank, index in enumerate(order.tolist()):
            row = {"space": measure.removeprefix("authentic_"), "rank": rank + 1}
            row |= {"generated": world.made.ids[index], "train": world.train.ids[nearest.train[index]]}
            row |= {"turn": int(nearest.turn[index]), "distance": float(nearest.distance[index])}
            row |= {"between_train": float(nearest.own[index]), "ratio": float(nearest.ratio[index])}
            row |= {"authentic": bool(nearest.authentic[index])}
            if world.references is not None:
                row["reference"] = world.references[index]
            rows.append(row)
    return rows


def described(
    world: World, encoder: Encoder, judge: Encoder, baseline: Encoder, settings: dict[str, Any]
) -> dict[str, Any]:
    """What a reader of the tables must know."""
    return {
        "encoder": {"name": encoder.name, "kind": "baseline" if encoder is baseline else encoder.kind,
                    "overlap": encoder.overlap},
        "judge": "baseline" if judge is baseline else "independent",
        "knows_train": encoder.fitted is not None,
        "images": {"held_out": len(world.held_out), "train": len(world.train), "generated": len(world.made)},
        "groups": {"held_out": len(np.unique(world.held_out.groups)), "train": len(np.unique(world.train.groups))},
        "given": [world.channels[index] for index in world.given],
        "varied": world.varied,
        "shares_labels": bool(
            np.abs(world.made.labels.mean(axis=0) - world.held_out.labels.mean(axis=0)).max(initial=0) < 0.1
        ),
        "settings": {key: settings[key] for key in ("images", "draws", "confidence", "smallest")},
    }  # fmt: skip


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision; empty (NaN) where a class has no positive or nothing but positives."""
    if not 0 < truth.sum() < len(truth):
        return float("nan")
    return float(ranking_metrics.average_precision(scores, truth, *ranking_metrics.unweighted(len(truth)))[0])


def roc_area(scores: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties counted half; NaN where there is nothing to compare."""
    positives, negatives = np.sort(scores[truth]), scores[~truth]
    if not len(positives) or not len(negatives):
        return float("nan")
    # Of each negative: positives above it, and half of those equal.
    below, upto = np.searchsorted(positives, negatives, "left"), np.searchsorted(positives, negatives, "right")
    return float(1 - (below + upto).mean() / 2 / len(positives))


def _classifier(path: Path, name: str, kind: str, classes: list[str], channels: list[str]) -> Encoder:
    if path.suffix == ".json":
        listed = {arm["arm"]: arm for arm in arm_list.read(path)}
        if name not in listed:
            raise UserError(f"{path} has no arm {name!r} to ask")
        path = listed[name]["classifier"]
    read = classifier_file.read(path)
    if read.classes != classes:
        raise UserError(f"{path} knows the classes {', '.join(read.classes)}; the images have {', '.join(classes)}")
    return encoders.of_classifier(read, kind, channels)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic(path) as part:
        pd.DataFrame(rows).to_csv(part, index=False, float_format="%.6g")


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("assess_synthetic", args, lambda: assess_synthetic(args))


if __name__ == "__main__":
    sys.exit(main())
