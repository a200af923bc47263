"""fetch_images: the images of a public source, fetched once into a folder that all runs share.

Sources: `public` (the Human Protein Atlas, by a manifest of Ids and an address template), `kaggle2018` and
`kaggle2021` (with the user's own Kaggle credentials). Under --folder, in a folder named like the source:

    train/{Id}_{channel}.jpg or .png   the images            (kaggle2018, if asked for, also test/ and its sample table)
    checksums.csv                      size and sha256 of every file, compared whenever the stage runs
    failed.csv                         what could not be had, and why
    partial/                           what an interruption left, to go on from

As outputs: --table, the rows of the label table whose images are all there, and --checksums, those of their files.

Example:
    python -m workflow_scripts.fetch_images --source public --manifest HPAv18.csv.gz --folder data \\
        --table fetched/table.csv --checksums fetched/checksums.csv --settings '{"url": "https://...", ...}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.download import download_store, http_client, image_sources, kaggle_api
from workflow_scripts.lib.download.download_store import Store
from workflow_scripts.lib.download.fetch_session import GB, MB, Session
from workflow_scripts.lib.download.http_client import Fetcher, Policy
from workflow_scripts.lib.images import invalid_input


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument(
        "--source", choices=["public", *kaggle_api.COMPETITIONS], required=True, help="where the images come from"
    )
    out.add_argument("--manifest", type=Path, help="CSV or CSV.gz with Id and Target (source public)")
    out.add_argument("--folder", type=Path, required=True, help="folder of all downloads, kept between runs")
    out.add_argument("--table", type=Path, required=True, help="label table to write")
    out.add_argument("--checksums", type=Path, required=True, help="table of checksums to write")
    return out.parse_args(argv)


def fetch_images(args: argparse.Namespace) -> None:
    """Fetch what is missing, verify what is there, and write the table of complete images."""
    home, settings = args.folder / args.source, args.settings
    policy = Policy(**{name: settings[name] for name in Policy.__dataclass_fields__})
    fetcher = Fetcher(home, policy, int(settings["total_gb"] * GB))

    def waiting(holder: str) -> None:
        stage.log.info("waiting for process %s, which fetches into %s", holder, home)

    with files.lock(home, waiting), Store(home) as store:
        session = Session(args.source, settings, store, fetcher)
        if store.records:
            stage.log.info("going on from %d files that were fetched before", len(store.records))
        try:
            rows, names = image_sources.fetch_source(session, args.manifest)
        except http_client.Stopped:
            if not fetcher.full:
                raise
            raise UserError(
                f"the images have more than fetch_images.total_gb = {settings['total_gb']:g}: raise it, or take fewer "
                "(fetch_images.limit); what is there is kept"
            ) from None
        except OSError as error:
            if error.errno not in http_client.NO_ROOM:
                raise
            raise UserError(f"{home} cannot be written to: {error.strerror}; what is there is kept") from None
        finally:
            fetcher.stop.set()
            invalid_input.write_list(home / "failed.csv", session.bad)
        files.write_text(args.table, rows)
        with files.atomic(args.checksums) as part, part.open("w", encoding="utf-8", newline="") as out:
            download_store.write(out, {name: store.records[name] for name in names})
    stage.log.info("%d files, %.1f MB of them fetched now", len(names), fetcher.received / MB)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("fetch_images", args, lambda: fetch_images(args))


if __name__ == "__main__":
    sys.exit(main())
