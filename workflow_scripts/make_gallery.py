"""make_gallery: one self-contained page for browsing generated images beside real ones.

Real images are those of train parts; no image that is validated, calibrated or tested on is shown as such. Where there
are more images than fit, a sample is drawn by the run's seed, and the page says so.

Example:
    python -m workflow_scripts.make_gallery --images images.h5 --folds 0=repeat0/folds.csv \\
        --synthetic painted/0/0=synthetic/painted.h5 --each painted/0/0=synthetic/painted.images.csv --seed 1 \\
        --template workflow_scripts/lib/page/gallery.html --script workflow_scripts/lib/page/gallery.js \\
        --out gallery/index.html --settings '{"run": "demo", "images": 10000, "size": 64, "megabytes": 48}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.page import gallery_images, gallery_page, html_page, sprite_sheets
from workflow_scripts.lib.page.gallery_images import Source
from workflow_scripts.lib.split import role_table

AROUND = 50_000  # bytes of the page beside its data, more than they are


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the real image set")
    arguments.add_role_tables(out)
    places = "SET/REPEAT/FOLD=PATH"
    out.add_argument("--synthetic", nargs="+", required=True, metavar=places, help="synthetic sets")
    out.add_argument("--each", nargs="+", required=True, metavar=places, help="tables of their images, in this order")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    out.add_argument("--template", type=Path, required=True, help="the page to fill in")
    out.add_argument("--script", type=Path, required=True, help="the script of the page")
    out.add_argument("--out", type=Path, required=True, help="page to write")
    return out.parse_args(argv)


def make_gallery(args: argparse.Namespace) -> None:
    """Write the page `args.out`."""
    settings = args.settings
    each = dict(arguments.pairs(args.each, "--each"))
    sources = []
    for where, path in arguments.pairs(args.synthetic, "--synthetic"):
        name, repeat, fold = arguments.place(where)
        sources.append(Source(name, int(repeat), int(fold), path, each[where]))
    places = sorted({(source.repeat, source.fold) for source in sources})
    with ImageSet(args.images) as real:
        tables = role_table.read_all(args.folds, real.ids)
        rng = np.random.default_rng(derive(args.seed, "gallery"))
        gallery = gallery_images.choose(
            real, {place: tables[place] for place in places}, sources, settings["images"], rng
        )
        images = gallery_images.pixels(gallery, real, sources, settings["size"])
        told = gallery_page.data(gallery, real.classes, places, sources)
        told |= gallery_page.looks(gallery, images, real, settings.get("colours"))
    room = int(settings["megabytes"] * 1e6) - len(gallery_page.in_page(told).encode()) - AROUND
    sheets = sprite_sheets.make(images, room)
    script = args.script.read_text(encoding="utf-8")
    context = gallery_page.context(told, gallery, sheets, settings["run"], script)
    files.write_text(args.out, html_page.render(args.template.read_text(encoding="utf-8"), context))
    for note in context["notes"]:
        stage.log.info("%s", note)
    stage.log.info("%s, %.1f MB", args.out, args.out.stat().st_size / 1e6)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("make_gallery", args, lambda: make_gallery(args))


if __name__ == "__main__":
    sys.exit(main())
