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
import sys
from dataclasses import asdict
from pathlib import Path

from workflow_scripts.lib.base import arguments, machine, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import write_json
from workflow_scripts.lib.cost import flops, job_costs, machine_speed, measured_rates, prediction, run_facts
from workflow_scripts.lib.cost.forecast import Here
from workflow_scripts.lib.cost.workloads import Facts


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
        measured.add(measured_rates.read(args.rates))
    # A GPU that Snakemake does not count is used nevertheless, by one job at a time.
    gpus = len(machine.gpus()) if gpus is None else gpus
    try:
        facts, problem = run_facts.of(config), None
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


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("predict_cost", args, lambda: predict_cost(args))


if __name__ == "__main__":
    sys.exit(main())
