"""export_images: synthetic sets as PNG or OME-TIFF files with a table, for other tools and for MixLoc itself.

Writes into --out:
    images/       a PNG file for each channel of each image, or an OME-TIFF file for each image
    labels.csv    Id, labels, set, generator, repeat, fold, seed of the run, reference (the real image that it was made
                  from) and group (that of the reference)
    mixloc.yaml   a config by which MixLoc reads the folder

Example:
    python -m workflow_scripts.export_images --images images.h5 --synthetic painted/0/0=synthetic/painted.h5 \\
        --seed 1 --out export --settings '{"format": "png", "run": "demo", "protein_channel": "green"}'
"""

from __future__ import annotations

import argparse
from pathlib import Path

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.images import image_export
from workflow_scripts.lib.images.image_set import ImageSet


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set of the run")
    out.add_argument("--synthetic", nargs="+", required=True, metavar="SET/REPEAT/FOLD=PATH", help="synthetic sets")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    out.add_argument("--out", type=Path, required=True, help="folder to write")
    return out.parse_args(argv)


def export_images(args: argparse.Namespace) -> None:
    """Write the folder `args.out`."""
    form, run = args.settings["format"], args.settings["run"]
    sets = arguments.of_sets(args.synthetic, "--synthetic")
    with ImageSet(args.images) as real, files.atomic(args.out) as part:
        part.mkdir()
        count = image_export.write(part, sets, real, form, args.seed)
        like = image_export.Exported(real.channels, real.classes, real.size)
        origin = f"generated in the MixLoc run {run}, from {real.attrs.get('source', 'images')}"
        text = image_export.config_text(args.out, like, form, origin, args.settings["protein_channel"])
        files.write_text(part / "mixloc.yaml", text)
    stage.log.info("%s: %d images of %d synthetic sets", args.out, count, len(sets))


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("export_images", args, lambda: export_images(args))


if __name__ == "__main__":
    stage.leave(main())
