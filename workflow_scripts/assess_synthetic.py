"""assess_synthetic: how good is a synthetic set, beside real images of groups that its generator never saw?

Held-out real images are those that neither the generator nor a network asked here was fitted or selected on
(lib/fidelity/compared_images.py). Five files are written for a synthetic set (lib/fidelity/assessment_rows.py):

    {set}.assess.csv     a judge's average precision (chance: the prevalence) and area under the ROC curve (chance:
                          0.5) on real and on generated images, class by class
    {set}.fidelity.csv   distances in an encoder's features and in plain pixels, label agreement by the baseline, the
                          fraction of authentic images and the data-copying test (lib/fidelity/copy_search.py): each
                          figure with its floor, its ceilings and intervals; for all images, each class and each
                          combination (lib/fidelity/bracket.py). Distances by an independent encoder come after these
    {set}.closest.csv    the generated images that lie closest to a training image
    {set}.images.csv     every generated image: label agreement by both networks, and its nearest training image
    {set}.assess.json    which networks were asked, what is known of them, and what to be wary of

Example:
    python -m workflow_scripts.assess_synthetic --synthetic synthetic/as_train.h5 --images images.h5 \\
        --folds folds.csv --repeat 0 --fold 0 --seed 1 --judge judge.safetensors --baseline arms/job0.json \\
        --scores as_train.assess.csv --fidelity as_train.fidelity.csv --closest as_train.closest.csv \\
        --each as_train.images.csv --about as_train.assess.json \\
        --settings '{"judge": "independent", "baseline": "real_only", "threads": 1, ...}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import atomic, write_json
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import classifier_file
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.fidelity import assessment_rows, compared_images, copy_search, encoders
from workflow_scripts.lib.fidelity.encoders import Encoder
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.scores import arm_list


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--synthetic", type=Path, required=True, help="the synthetic set")
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
    out.add_argument("--each", type=Path, required=True, help="table of every generated image to write")
    out.add_argument("--about", type=Path, required=True, help="what is known of the networks asked (JSON), to write")
    return out.parse_args(argv)


def assess_synthetic(args: argparse.Namespace) -> None:
    """Write the five files of one synthetic set."""
    settings = args.settings
    device.use_threads(settings["threads"])
    with ImageSet(args.images) as source:
        classes, channels = source.classes, source.channels
    baseline = _classifier(args.baseline, settings["baseline"], "baseline", classes, channels)
    # The same file is the same network.
    two = settings["judge"] != settings["baseline"]
    judge = _classifier(args.judge, settings["judge"], "judge", classes, channels) if two else baseline
    compared = compared_images.read(args.synthetic, args.images, args.folds, args.fold, [baseline, judge])
    several = [part.images for part in (compared.held_out, compared.train, compared.made)]
    baseline = encoders.remembering(baseline, several)
    judge = encoders.remembering(judge, several) if two else baseline
    encoder = {"baseline": baseline, "judge": judge}.get(str(settings["encoder"]))
    if encoder is None:
        encoder = encoders.remembering(encoders.own(settings["encoder"], channels, several[1]), several)
    independent = None
    if settings["independent_encoder"] is not None:
        key = "assess_synthetic.independent_encoder"
        independent = encoders.own(settings["independent_encoder"], channels, several[1], key)
        independent = encoders.remembering(independent, several)
    seed = derive(args.seed, args.repeat, args.fold, "assess", args.synthetic.stem)
    place = {"repeat": args.repeat, "fold": args.fold, "synthetic_set": args.synthetic.stem}
    _write(args.scores, assessment_rows.judge_scores(compared, judge, place | {"judge": settings["judge"]}))
    rows = assessment_rows.fidelity_rows(compared, encoder, baseline, settings, seed)
    found = copy_search.search(compared, encoder, settings, seed)
    rows += assessment_rows.copy_rows(found, copy_search.copying(found, settings, seed), rows[0])
    figures = [place | {"encoder": encoder.name} | row for row in rows]
    if independent is not None:
        # The first encoder's rows come first; by this the page tells them apart.
        second = assessment_rows.independent_rows(compared, independent, settings, seed)
        copying = copy_search.copying_by(found, independent, settings, seed)
        second += assessment_rows.copying_rows(found, copying, second[0])
        figures += [place | {"encoder": independent.name} | row for row in second]
    _write(args.fidelity, figures)
    nearest = found.made.nearest
    _write(args.closest, [place | row for row in assessment_rows.closest_rows(compared, nearest, settings["pairs"])])
    by_pixels = nearest[copy_search.AUTHENTIC_PIXELS]
    _write(args.each, [place | row for row in assessment_rows.image_rows(compared, by_pixels, judge, baseline)])
    write_json(args.about, place | assessment_rows.described(compared, encoder, judge, baseline, settings, independent))
    told = {(row["measure"], row["contender"]): row["value"] for row in rows if row["scope"] == "all"}
    stage.log.info(
        "Fréchet distance %.4f (floor %.4f, noise %.4f), authentic in pixels %.1f %% (held-out real: %.1f %%)",
        *(told["frechet", name] for name in ("generated", "floor", "noise")),
        *(100 * told["authentic_pixels", name] for name in ("generated", "floor")),
    )


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
