"""embed_images: features of the images of a set, for arms that learn from embeddings.

They come from the user's table, joined by Id, or from a network in whose features also synthetic images are expressed
(settings.encoder). Labels are not read.

Example:
    python -m workflow_scripts.embed_images --of synthetic/painted.h5 --out synthetic/painted.embeddings.h5 \\
        --settings '{"table": null, "ids": null, "encoder": {...}, "threads": 1}'
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.fidelity import encoders
from workflow_scripts.lib.images import embedding_table
from workflow_scripts.lib.images.image_set import ImageSet

BLOCK = 1024  # images in memory at a time
KEY = "embeddings.encoder"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--of", type=Path, required=True, help="the set whose images are embedded: real, or synthetic")
    out.add_argument("--out", type=Path, required=True, help="file of features to write (HDF5)")
    return out.parse_args(argv)


def embed_images(args: argparse.Namespace) -> None:
    """Write the features of one image set."""
    settings = args.settings
    device.use_threads(settings["threads"])
    with ImageSet(args.of) as source:
        about = {"images": source.digest}
        if settings["table"]:
            ids = Path(settings["ids"]) if settings["ids"] else None
            table = embedding_table.read(Path(settings["table"]), ids)
            # Further images that came without labels are asked too: label regimes may show them.
            features, about["source"] = table.of(source.ids), table.where
        else:
            features, about["source"] = _computed(source, settings["encoder"])
        embedding_table.write(args.out, source.ids, features, about)
    stage.log.info("%s: %d features of %d images, from %s", args.out, features.shape[1], len(features), about["source"])


def _computed(source: ImageSet, settings: dict) -> tuple[np.ndarray, str]:
    first = source.read(np.arange(1), "inspect", labels=False).images
    encoder = encoders.own(settings, source.channels, first, KEY)
    blocks = np.array_split(np.arange(len(source)), max(1, len(source) // BLOCK))
    found = [encoder.encode(source.read(rows, "inspect", labels=False).images) for rows in blocks]
    return np.concatenate(found), encoder.name


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("embed_images", args, lambda: embed_images(args))


if __name__ == "__main__":
    stage.leave(main())
