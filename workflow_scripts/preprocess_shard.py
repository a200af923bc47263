"""preprocess_shard: reads one shard of the images of a set; preprocess_images joins the shards.

It reads its shard of the set's pieces and writes them beside the set's path. preprocess_images takes the pixels from
these pieces, so every image is decoded once. --out records what was done.

Example:
    python -m workflow_scripts.preprocess_shard --images-dir raw/train --table raw/train.csv --set images.h5 \\
        --shard 0 --shards 8 --out shards/0.json --settings '{"size": 32, ...}'
"""

from __future__ import annotations

import argparse
from pathlib import Path

from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.files import write_json
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.images import chunks, reading_plan


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = reading_plan.parser(__doc__)
    out.add_argument("--set", type=Path, required=True, help="the image set that preprocess_images will write")
    out.add_argument("--shard", type=int, required=True, help="number of this job, from 0")
    out.add_argument("--shards", type=int, required=True, help="number of jobs")
    out.add_argument("--out", type=Path, required=True, help="JSON to write of what was done")
    return out.parse_args(argv)


def preprocess_shard(args: argparse.Namespace) -> None:
    """Make every piece of this shard; faults of images stay in the pieces until they are joined."""
    work = reading_plan.plan(args, args.set)
    own = [*work.tasks(), *work.further_tasks()][args.shard :: args.shards]
    reading_plan.check_room(args.set, work.size // args.shards, [task.path for task in own if task.path.is_file()])
    count, bad = sum(len(task.ids) for task in own), 0
    with Progress("images", count) as bar:
        done = 0
        for task, piece in zip(own, chunks.made(own, int(args.settings["threads"])), strict=True):
            done, bad = done + len(task.ids), bad + len(piece.bad)
            bar.update(done, bad=bad)
    write_json(args.out, {"pieces": [task.path.name for task in own], "images": count, "bad": bad})


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("preprocess_shard", args, lambda: preprocess_shard(args))


if __name__ == "__main__":
    stage.leave(main())
