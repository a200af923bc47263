"""clean_run: what a finished run takes on disk by stage, and what of it can be deleted; deletes it when told to.

    show    deletes nothing
    yes     checkpoints, raw simulated images, generated images: made again from what stays, without training
    all     models, predictions and the image set as well: made again by training

The report, its tables and figures, scores, and the declaration with its ledger always stay (lib/cost/disk_use.py).
Snakemake makes nothing of this again unless something that needs it has to be made again.

Example:
    python -m workflow_scripts.clean_run --run-dir results/demo --out results/demo/clean.json \\
        --settings '{"clean": "show"}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import write_json
from workflow_scripts.lib.cost import disk_use

GOES = {disk_use.YES: "goes with clean=yes", disk_use.ALL: "goes with clean=all", disk_use.NEVER: "stays"}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--run-dir", type=Path, required=True, help="folder of the run")
    out.add_argument("--out", type=Path, required=True, help="what was found and deleted, to write (JSON)")
    return out.parse_args(argv)


def clean_run(args: argparse.Namespace) -> None:
    """Show what the run takes, and delete what `clean` names."""
    run, word = args.run_dir, args.settings["clean"]
    if not run.is_dir():
        raise UserError(f"{run} holds no run")
    files = disk_use.files_of(run)
    gone = disk_use.freed(files, word)
    if gone and not (run / "report.html").is_file():
        raise UserError(f"{run} has no report.html, so the run is not finished: nothing was deleted")
    rows = disk_use.rows(files)
    for row in rows:
        told = (row["stage"], row["what"], _megabytes(row["bytes"]), row["files"], GOES[row["by"]])
        stage.log.info("%s: %s, %s in %d file(s), %s", *told)
    sizes = {name: sum(file.bytes for file in disk_use.freed(files, name)) for name in (disk_use.YES, disk_use.ALL)}
    whole = sum(file.bytes for file in files)
    stage.log.info(
        "of %s, clean=yes frees %s, clean=all %s",
        *map(_megabytes, (whole, sizes[disk_use.YES], sizes[disk_use.ALL])),
    )
    disk_use.delete(run, gone)
    deleted = sum(file.bytes for file in gone)
    write_json(args.out, {"clean": word, "deleted": deleted, "files_deleted": len(gone), "parts": rows})
    if word in sizes:
        stage.log.info("deleted %s in %d file(s)", _megabytes(deleted), len(gone))
    else:
        stage.log.info("nothing was deleted: --config clean=yes or clean=all deletes")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("clean_run", args, lambda: clean_run(args))


if __name__ == "__main__":
    sys.exit(main())
