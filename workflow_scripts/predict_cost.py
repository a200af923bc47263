"""predict_cost: what a run will cost, before it is spent: core- and GPU-hours, disk, memory, wall-clock.

Every stage's work is counted from the config (lib/cost/job_costs.py) and multiplied by the measured time of such work.
Times come from earlier runs, whose cost.json and benchmark files lie below --earlier, and from the file --rates, which
comes with MixLoc and names its machine. Each figure says where it comes from and has a range, from the fastest to the
slowest job seen. It says so where it was measured with other settings or on another machine. Work of a kind that was
never measured is said to be unknown.

cost.json also holds the work of every job, from which later runs learn their rates. A run never predicts itself.

Example:
    python -m workflow_scripts.predict_cost --earlier results --rates benchmarks/rates.json --out cost.json \\
        --settings '{"cores": 2, "gpus": 0, "config": {...}}'
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from workflow_scripts.lib.base import arguments, machine, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import write_json
from workflow_scripts.lib.base.progress import duration
from workflow_scripts.lib.cost import flops, forecast, job_costs, measured_rates, scheduling
from workflow_scripts.lib.cost.forecast import Estimate
from workflow_scripts.lib.cost.job_costs import Facts, Job
from workflow_scripts.lib.cost.measured_rates import Measured
from workflow_scripts.lib.images import known_datasets, label_maps
from workflow_scripts.lib.simulate.protein_labels import COMPARTMENTS
from workflow_scripts.preprocess_images import list_images

# Sets that may be asked about before they are there: images with labels, and pixels a side.
KNOWN = {"kaggle2018": (31072, 512)}
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
Range = list[float]


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
    found = predicted(jobs, measured, cores, gpus, facts, machine.described())
    about = {"format_version": measured_rates.FORMAT_VERSION, "run": config["run"], "machine": machine.described()}
    about |= {"cores": cores, "gpus": gpus, "problem": problem, "facts": vars(facts)}
    write_json(args.out, about | found | {"jobs": measured_rates.jobs_to_json(jobs)})
    show(about | found)


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
        listed = list_images(table, groups, classes, described)
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


# From jobs to hours -------------------------------------------------------------------------------------------------


def predicted(jobs: list[Job], measured: Measured, cores: int, gpus: int, facts: Facts, here: str) -> dict[str, Any]:
    """Everything that cost.json says beside the jobs."""
    stages: dict[str, dict[str, Any]] = {}
    seconds: list[dict[str, float]] = [{}, {}, {}]
    for job in jobs:
        works = [forecast.estimate(work, job, measured, gpus, here) for work in job.works]
        start = forecast.start_of(job, measured, gpus, here)
        known = [work for work in works if work is not None]
        # A job of which a part is unknown counts with nothing: half of it would pass for the whole.
        whole = len(known) == len(works)
        for place, (by_job, part) in enumerate(zip(seconds, ("low", "middle", "high"), strict=True)):
            begun = getattr(start, part) if start is not None else 0.0
            by_job[job.key] = begun + sum(getattr(work, part) for work in known) if whole else 0.0
            row = stages.setdefault(job.stage, _row(job, gpus))
            row["seconds"][place] += by_job[job.key]
        row["jobs"] += 1
        row["unknown"] += not whole
        row["longest"] = max(row["longest"], seconds[1][job.key])
        _note(row, known, forecast.memory_of(job, start))
    for row in stages.values():
        row["source"] = sorted(row["source"])
    hours = {kind: [sum(row["seconds"][place] * row["width"] / 3600
                        for row in stages.values() if row["gpu"] == (kind == "gpu")) for place in range(3)]
             for kind in ("core", "gpu")}  # fmt: skip
    memory = [row["memory"] for row in stages.values() if row["memory"] is not None]
    return {
        "stages": list(stages.values()),
        "core_hours": hours["core"],
        "gpu_hours": hours["gpu"],
        "unknown": sorted(row["stage"] for row in stages.values() if row["unknown"]),
        "wall_clock": [scheduling.schedule(jobs, by_job, cores, gpus) for by_job in seconds],
        "critical_path": [scheduling.critical_path(jobs, by_job) for by_job in seconds],
        "disk": disk(jobs, measured, facts),
        "memory": max(memory, default=None),
    }


def _row(job: Job, gpus: int) -> dict[str, Any]:
    on_gpu = gpus > 0 and job.stage in job_costs.ON_GPU
    row = {"stage": job.stage, "jobs": 0, "unknown": 0, "gpu": on_gpu, "seconds": [0.0, 0.0, 0.0], "longest": 0.0}
    # An hour of a job is so many hours of a core or of a GPU.
    return row | {"width": job.gpus if on_gpu else job.threads, "memory": None, "exact": True, "source": set()}


def _note(row: dict[str, Any], works: list[Estimate], memory: float | None) -> None:
    row["source"] |= {work.source for work in works}
    row["exact"] = row["exact"] and all(work.exact for work in works)
    row["memory"] = max((value for value in (row["memory"], memory) if value is not None), default=None)


def disk(jobs: list[Job], measured: Measured, facts: Facts) -> dict[str, Any]:
    """Bytes by kind that a finished run holds."""
    kinds: dict[str, float] = {}
    unknown = []
    panels = 0
    for job in jobs:
        for kind, size in job.disk.items():
            if kind == "figures":
                panels += 1
            else:
                kinds[kind] = kinds.get(kind, 0.0) + size
    files = sum(job.files for job in jobs)
    for kind, count, seen in (("raw images", files, measured.pixel_bytes), ("figures", panels, measured.figure_bytes)):
        if count and not seen:
            unknown.append(kind)
        elif count:
            mean = sum(seen) / len(seen)
            kinds[kind] = job_costs.raw_bytes(count, facts.side or 0, mean) if kind == "raw images" else count * mean
    return {"kinds": kinds, "total": sum(kinds.values()), "unknown": unknown}


# The table in the log -----------------------------------------------------------------------------------------------


def show(found: dict[str, Any]) -> None:
    """The prediction as lines of the log."""
    say = stage.log.info
    if found["problem"]:
        say("no prediction: %s", found["problem"])
        return
    gpus = f" and {found['gpus']} GPU(s)" if found["gpus"] else ""
    say("on %d core(s)%s of %s; ranges: the fastest and the slowest job seen", found["cores"], gpus, found["machine"])
    for row in found["stages"]:
        kind = "GPU" if row["gpu"] else "core"
        hours = [value * row["width"] / 3600 for value in row["seconds"]]
        memory = f", {row['memory']:,.0f} MB" if row["memory"] else ""
        if row["unknown"]:
            say(
                "%-18s %5d jobs  unknown: nothing like %d of them was measured",
                row["stage"],
                row["jobs"],
                row["unknown"],
            )
            continue
        say(
            "%-18s %5d jobs  %s %s-hours, longest %s%s; %s%s", row["stage"], row["jobs"], spread(hours), kind,
            duration(row["longest"]), memory, "" if row["exact"] else "not as measured: ",
            " | ".join(row["source"]),
        )  # fmt: skip
    least = "at least " if found["unknown"] else ""
    say("together %s%s core-hours, %s GPU-hours", least, spread(found["core_hours"]), spread(found["gpu_hours"]))
    low, middle, high = (duration(value) for value in found["wall_clock"])
    path = duration(found["critical_path"][1])
    say("wall-clock %s%s (%s to %s); the longest chain of jobs %s", least, middle, low, high, path)
    kinds = ", ".join(f"{kind} {size / 1e9:.3g} GB" for kind, size in sorted(found["disk"]["kinds"].items()))
    say("disk %.3g GB (%s)", found["disk"]["total"] / 1e9, kinds)
    for kind in found["disk"]["unknown"]:
        say("disk of the %s: unknown, none was measured", kind)


def spread(values: Range) -> str:
    """A figure with the least and the most that it may be."""
    low, middle, high = values
    return f"{middle:.3g} ({low:.3g} to {high:.3g})" if f"{low:.3g}" != f"{high:.3g}" else f"{middle:.3g}"


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("predict_cost", args, lambda: predict_cost(args))


if __name__ == "__main__":
    sys.exit(main())
