"""predict_cost: what a run will cost, before it is spent: core- and GPU-hours, disk, memory, wall-clock.

Every stage's work is counted from the config (lib/cost/job_costs.py) and multiplied by the measured time of such work
(lib/cost/prediction.py).
Times come from earlier runs, whose cost.json and benchmark files lie below --earlier, and from the file --rates, which
comes with MixLoc and names its machine. The speed of this machine is measured in two seconds, and times are scaled by
it. Each figure says where it comes from and has a range, from the fastest to the slowest job seen. It says so where it
was measured with other settings or on another machine. Work of a kind that was never measured is said to be unknown.

cost.json also holds the work of every job, from which later runs learn their rates. A run never predicts itself.

Example:
    python -m workflow_scripts.predict_cost --earlier results --rates benchmarks/rates.json --out cost.json \\
        --settings '{"cores": 2, "gpus": 0, "config": {...}}'
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from workflow_scripts.lib.base import arguments, machine, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import write_json
from workflow_scripts.lib.cost import flops, job_costs, machine_speed, measured_rates, prediction
from workflow_scripts.lib.cost.forecast import Here
from workflow_scripts.lib.cost.job_costs import Facts
from workflow_scripts.lib.cost.measured_rates import Measured
from workflow_scripts.lib.images import image_list, known_datasets, label_maps
from workflow_scripts.lib.simulate.protein_labels import COMPARTMENTS

# Sets that may be asked about before they are there: images with labels, and pixels a side.
KNOWN = {"kaggle2018": (31072, 512)}
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--earlier", type=Path, required=True, help="folder of the results of earlier runs")
    out.add_argument("--rates", type=Path, help="file of rates measured elsewhere; left out of account if absent")
    out.add_argument("--out", type=Path, required=True, help="prediction to write (JSON)")
    return out.parse_args(argv)


def predict_cost(args: argparse.Namespace) -> None:
    """Write the prediction and show it; what cannot be known of the images is told, and no failure."""
    config, cores, gpus = (args.settings[name] for name in ("config", "cores", "gpus"))
    measured = measured_rates.earlier(args.earlier, config["run"])
    if args.rates is not None and args.rates.is_file():
        measured.add(read_rates(args.rates))
    # A GPU that Snakemake does not count is used nevertheless, by one job at a time.
    gpus = len(machine.gpus()) if gpus is None else gpus
    try:
        facts, problem = facts_of(config), None
        jobs = job_costs.jobs_of(config, facts, flops.Counted(), cores)
    except UserError as error:
        facts, problem, jobs = Facts(0, 0), str(error), []
    measured_rates.mark_outdated(jobs, args.out.parent)
    here = Here(machine.described(), gpus, machine_speed.measure())
    predicted = prediction.predicted(jobs, measured, cores, facts, here)
    about = {"format_version": measured_rates.FORMAT_VERSION, "run": config["run"], "machine": here.machine}
    about["speed"] = asdict(here.speed)
    about |= {"cores": cores, "gpus": gpus, "problem": problem, "facts": vars(facts)}
    write_json(args.out, about | predicted | {"jobs": measured_rates.jobs_to_json(jobs)})
    prediction.show(about | predicted)


def read_rates(path: Path) -> Measured:
    """A file of rates."""
    try:
        return Measured.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no file of rates ({error}): make it anew by python -m benchmarks.overhead --rates {path}"
        ) from None


def facts_of(config: dict[str, Any]) -> Facts:
    """How many images and classes there are, from the tables; no image is read but the size of the first."""
    data, fetched = config["data"], Path("results") / config["run"] / "fetched" / "table.csv"
    described = known_datasets.described(data)
    table = Path(data["table"]) if data["table"] else fetched
    if data["source"] == "simulated":
        cells = config["simulate_cells"]
        return Facts(cells["images"], _mapped(COMPARTMENTS, described), cells["size"])
    if table.is_file():
        groups, classes = (Path(data[name]) if data[name] else None for name in ("groups", "classes"))
        listed = image_list.from_tables(table, groups, classes, described)
        limit = config["fetch_images"]["limit"]["images"] if data["source"] == "public" else 0
        count = min(len(listed.ids), limit) if limit else len(listed.ids)
        return Facts(count, len(listed.classes), _side(data["images"]))
    if data["source"] in KNOWN:
        count, side = KNOWN[data["source"]]
        return Facts(count, _mapped(described["class_names"], described), side)
    raise UserError(
        f"how many images {data['source']} has is not known before {table} is there: predict again when it is"
    )


def _mapped(classes: list[str], described: dict[str, Any]) -> int:
    """The number of classes behind the label map."""
    none = np.zeros((0, len(classes)), dtype=np.uint8)
    return len(label_maps.apply(none, classes, described["label_map"], "drop", "keep").classes)


def _side(folder: str | None) -> int | None:
    """Pixels a side of the first picture that a folder gives."""
    for path in Path(folder).iterdir() if folder and Path(folder).is_dir() else ():
        if path.suffix.lower() in PICTURES:
            try:
                with Image.open(path) as picture:
                    return round((picture.width * picture.height) ** 0.5)
            except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
                return None
    return None


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("predict_cost", args, lambda: predict_cost(args))


if __name__ == "__main__":
    sys.exit(main())
