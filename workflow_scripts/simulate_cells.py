"""simulate_cells: simulated fluorescence cells as an image folder in the Kaggle layout, with their true labels.

    python -m workflow_scripts.simulate_cells --out results/demo/cells --seed 1 --processes 2 \\
        --settings '{"images": 3000, …}'

The folder holds
  train/{Id}_{red,green,blue,yellow}.png   8-bit grey: microtubules, protein, nucleus, endoplasmic reticulum
  train.csv                                Id,Target: the class numbers that the table gives, errors included
  classes.csv                              number,name
  metadata.csv                             Id, gene, antibody, plate, cell_line, field, reliability, shifted
  truth.csv                                Id, the true class numbers, artefacts and planted effects; not for training
  simulation.json                          seed, settings and the counts of images and proteins per class

It appears whole or not at all. The images depend on seed and settings alone, not on the number of processes."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from workflow_scripts.lib.base import arguments, files, process_pool, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.simulate import simulator

AT_ONCE = 50  # images that a worker draws and writes before it reports


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line of the stage."""
    p = arguments.parser(__doc__)
    p.add_argument("--out", type=Path, required=True, help="the folder to write")
    p.add_argument("--seed", type=int, required=True, help="seed of the simulated world")
    p.add_argument("--processes", type=int, required=True, help="worker processes; they change nothing but the time")
    return p.parse_args(argv)


def write_part(settings: dict[str, Any], seed: int, start: int, stop: int, folder: Path) -> list[dict[str, Any]]:
    """Draw images start … stop - 1, write their channels, and return their rows of the tables."""
    batch = simulator.cells(_world(settings, seed), range(start, stop))
    for name, image in zip(batch.ids, batch.images, strict=True):
        for channel, plane in zip(simulator.CHANNELS, image, strict=True):
            Image.fromarray(plane).save(folder / f"{name}_{channel}.png", compress_level=1)
    return [{"metadata": row, "truth": facts} for row, facts in zip(batch.metadata, batch.truth, strict=True)]


_worlds: dict[str, simulator.World] = {}


def _world(settings: dict[str, Any], seed: int) -> simulator.World:
    # A process describes the world once, however many parts it draws.
    key = files.digest([settings, seed])
    if key not in _worlds:
        _worlds.clear()
        _worlds[key] = simulator.World(settings, seed)
    return _worlds[key]


def _parts(settings: dict[str, Any], seed: int, folder: Path, processes: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of all parts in order, drawn here or by worker processes."""
    total = settings["images"]
    spans = [(start, min(start + AT_ONCE, total)) for start in range(0, total, AT_ONCE)]
    if processes == 1:
        for start, stop in spans:
            yield write_part(settings, seed, start, stop, folder)
        return
    with process_pool.pool(processes) as pool:
        jobs = [pool.submit(write_part, settings, seed, start, stop, folder) for start, stop in spans]
        for job in jobs:
            yield job.result()


def _table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _summary(settings: dict[str, Any], seed: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts per class, by the given and by the true labels, in images and in proteins."""
    counts: dict[str, Any] = {}
    for number, name in enumerate(simulator.COMPARTMENTS):
        entry = {}
        for kind in ("given", "true"):
            having = [row["truth"]["gene"] for row in rows if str(number) in row["truth"][kind].split()]
            entry[kind] = {"images": len(having), "genes": len(set(having))}
        counts[name] = entry
    return {"seed": seed, "settings": settings, "classes": counts}


def simulate_cells(out: Path, seed: int, settings: dict[str, Any], processes: int) -> None:
    """Write the whole folder `out`."""
    try:
        simulator.check(settings)
    except ValueError as error:
        raise UserError(str(error)) from None
    with files.atomic(out) as folder:
        (folder / "train").mkdir(parents=True)
        rows: list[dict[str, Any]] = []
        with Progress("simulate", total=settings["images"]) as bar:
            for part in _parts(settings, seed, folder / "train", processes):
                rows += part
                bar.update(len(rows))
        _table(folder / "train.csv", [{"Id": r["truth"]["Id"], "Target": r["truth"]["given"]} for r in rows])
        _table(folder / "metadata.csv", [row["metadata"] for row in rows])
        _table(folder / "truth.csv", [row["truth"] for row in rows])
        classes = [{"number": number, "name": name} for number, name in enumerate(simulator.COMPARTMENTS)]
        _table(folder / "classes.csv", classes)
        summary = _summary(settings, seed, rows)
        files.write_json(folder / "simulation.json", summary)
        for name, entry in summary["classes"].items():
            stage.log.info("%s: %d images of %d proteins", name, *entry["given"].values())
    genes = len(np.unique([row["metadata"]["gene"] for row in rows]))
    stage.log.info("%d images of %d proteins in %s", len(rows), genes, out)


def main(argv: list[str] | None = None) -> int:
    """Run the stage; return the exit status."""
    args = parse_args(argv)
    return stage.run("simulate_cells", args, lambda: simulate_cells(args.out, args.seed, args.settings, args.processes))


if __name__ == "__main__":
    sys.exit(main())
