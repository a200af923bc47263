"""fetch_weights: download of the ImageNet weights that torchvision publishes for a backbone, once for all runs.

Address and checksum come from torchvision itself: the name of the file ends in the first eight digits of its SHA-256.
A file with another checksum is deleted and never takes its place. Under --folder:

    {backbone}-imagenet1k_v1.pth   the weights
    checksums.csv                  size and sha256 of every file, compared whenever the stage runs
    partial/, received/            interrupted downloads, which are resumed; files not checked yet

Where no server can be reached, put the file there by hand: it is checked and kept. As output: --record, its line of
checksums.csv.

Example:
    python -m workflow_scripts.fetch_weights --backbone resnet18 --folder data/weights --record resnet18.csv \\
        --settings '{"url": null, "sha256": {}, "file_mb": 500, "timeout": 30, ...}'
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import network_choices, torchvision_models
from workflow_scripts.lib.download import download_store, http_client
from workflow_scripts.lib.download.download_store import Store
from workflow_scripts.lib.download.http_client import Fetcher, Item, Policy
from workflow_scripts.lib.download.urls import Refused

MB, GB = 1e6, 1e9


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--backbone", choices=sorted(network_choices.PUBLISHED), required=True, help="whose weights")
    out.add_argument("--folder", type=Path, required=True, help="folder of all published weights, kept between runs")
    out.add_argument("--record", type=Path, required=True, help="table with the checksum to write")
    return out.parse_args(argv)


def published(backbone: str) -> str:
    """Address of the weights according to torchvision."""
    return str(torchvision_models.models.get_model_weights(backbone)["IMAGENET1K_V1"].url)


def fetch_weights(backbone: str, folder: Path, record: Path, settings: dict[str, Any]) -> None:
    """Fetch the file unless it is there, compare it with its checksum, and record it."""
    address = published(backbone)
    file = Path(urlsplit(address).path).name
    expected = settings["sha256"].get(backbone) or digits_in(file)
    if settings["url"]:
        address = f"{settings['url'].rstrip('/')}/{file}"
    name = network_choices.published_path("", backbone)

    def waiting(holder: str) -> None:
        stage.log.info("waiting for process %s, which fetches into %s", holder, folder)

    with files.lock(folder, waiting), Store(folder) as store:
        sha256 = store.digest(name)
        if sha256 is not None and not sha256.startswith(expected):
            stage.log.warning("%s is not the published file (sha256 %s): fetching it again", folder / name, sha256)
            sha256 = None
        if sha256 is not None:
            stage.log.info("going on from the file that is there")
        else:
            sha256 = _fetched(folder, name, address, expected, settings)
        store.add(name, sha256)
        with files.atomic(record) as part, part.open("w", encoding="utf-8", newline="") as out:
            download_store.write(out, {name: store.records[name]})
    stage.log.info("%s is %s (sha256 %s)", folder / name, file, sha256)


def digits_in(file: str) -> str:
    """The first digits of the SHA-256 that the name of a published file ends in."""
    digits = re.search(r"-([0-9a-f]{8,64})\.pth$", file)
    if not digits:
        raise UserError(
            f"this torchvision publishes {file!r}, whose name holds no checksum: give it in fetch_weights.sha256"
        )
    return digits[1]


def _fetched(folder: Path, name: str, address: str, expected: str, settings: dict[str, Any]) -> str:
    """Fetch a file to its place by way of another, which it leaves only with the right checksum; returns that."""
    policy = Policy(**{key: settings[key] for key in Policy.__dataclass_fields__})
    fetcher = Fetcher(folder, policy, int(settings["total_gb"] * GB))
    item = Item(f"received/{name}", address, "pth", int(settings["file_mb"] * MB))
    stage.log.info("fetching %s", address)
    try:
        sha256 = fetcher.fetch_shown(item)
    except Refused as error:
        raise UserError(
            f"{address} cannot be fetched: {error}. Run again later, name a mirror in fetch_weights.url, or put "
            f"the file at {folder / name}"
        ) from None
    except http_client.Stopped:
        raise UserError(
            f"{address} has cost more than fetch_images.total_gb = {settings['total_gb']:g} already: the server "
            "breaks off again and again; name a mirror in fetch_weights.url"
        ) from None
    received = folder / item.name
    if not sha256.startswith(expected):
        received.unlink()
        raise UserError(
            f"{address} is another file than the published one: its SHA-256 is {sha256}, which should begin with "
            f"{expected}. It was deleted; name another mirror in fetch_weights.url, or give weights a file of your own"
        )
    received.replace(folder / name)
    return sha256


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "fetch_weights", args, lambda: fetch_weights(args.backbone, args.folder, args.record, args.settings)
    )


if __name__ == "__main__":
    sys.exit(main())
