"""rehearse_run: every job of a run once through, with a handful of steps, and what the run itself will then take.

A rehearsal has the run's images, sizes, networks and batches (lib/config/rehearsal.py). It finds in minutes what would
otherwise fail after a night: memory, labels, disk, a class without positive groups. It is a run of its own, whose
results lie beside those of the run. What its jobs took is the measurement from which the run's hours, memory and disk
are forecast.

Snakemake runs it, as a program within the job; its output goes to snakemake.log in the rehearsal's folder.

Example:
    python -m workflow_scripts.rehearse_run --snakemake "python -m snakemake" --snakefile Snakefile --cores 2 \\
        --out results/demo/rehearsal.json --settings '{"config": {...}, "gpus": 0}'
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from workflow_scripts.lib.base import arguments, machine, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import write_json
from workflow_scripts.lib.base.progress import duration
from workflow_scripts.lib.config import check, rehearsal
from workflow_scripts.lib.cost import flops, job_costs, measured_rates, prediction, run_facts
from workflow_scripts.lib.cost.forecast import Here

TOLD = re.compile(r"^MixLoc: (.*)$")  # what the run within says of itself
WRONG = re.compile(r"^(MixLoc config: .*|MixLoc: (?!\d+ of \d+ jobs done).*|\w+ failed: .*|.*Error: .*|Error: .*)$")
JOB_ENDED = (" failed: ", " was killed (")  # what names the job that went wrong


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--snakemake", required=True, help="the command that starts Snakemake")
    out.add_argument("--snakefile", type=Path, required=True, help="MixLoc's Snakefile")
    out.add_argument("--cores", type=int, required=True, help="cores of the rehearsal, and of the run that is forecast")
    out.add_argument("--out", type=Path, required=True, help="forecast to write (JSON)")
    return out.parse_args(argv)


def rehearse_run(args: argparse.Namespace) -> None:
    """Run the rehearsal, and write and show the forecast."""
    given, gpus = args.settings["config"], args.settings["gpus"]
    config = check.check(copy.deepcopy(given))
    small = rehearsal.of(given)
    folder = Path("results") / small["run"]
    write_json(folder / "config.json", small)
    begun = time.monotonic()
    run(shlex.split(args.snakemake), args.snakefile, folder, args.cores)
    spent = time.monotonic() - begun
    facts = run_facts.of(config | {"run": small["run"]})  # the tables that the rehearsal has fetched or cut
    jobs = job_costs.jobs_of(config, facts, flops.Counted(), args.cores)
    here = Here(machine.described(), len(machine.gpus()) if gpus is None else gpus)
    told = prediction.predicted(jobs, measured_rates.observed(folder), args.cores, facts, here)
    about = {"format_version": measured_rates.FORMAT_VERSION, "run": config["run"], "rehearsal": small["run"]}
    about |= {
        "machine": here.machine,
        "cores": args.cores,
        "gpus": here.gpus,
        "problem": None,
        "seconds_rehearsed": spent,
    }
    write_json(args.out, about | {"facts": vars(facts)} | told)
    stage.log.info("every job went through, in %s; the run itself, from what they took:", duration(spent))
    prediction.show(about | told)


def run(snakemake: list[str], snakefile: Path, folder: Path, cores: int) -> None:
    """Run Snakemake on the config in a folder; a failure names what failed."""
    command = [
        *snakemake, "--snakefile", str(snakefile), "--configfile", str(folder / "config.json"), "--cores", str(cores),
        # The run around this one holds the lock of the working directory. It starts nothing beside this job, whose
        # outputs are of another run.
        "--nolock", "--rerun-incomplete", "--profile", "none", "--workflow-profile", "none",
    ]  # fmt: skip
    output, wrong = folder / "snakemake.log", list[str]()
    # Variables by which Snakemake limits the threads of this job are no business of the jobs within.
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    with (
        output.open("w", encoding="utf-8") as kept,
        subprocess.Popen(  # noqa: S603 - a list, no shell
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
        ) as program,
    ):
        for line in program.stdout or ():
            kept.write(line)
            kept.flush()
            if told := TOLD.match(line):
                stage.log.info("%s", told[1].rstrip())
            if WRONG.match(line):
                wrong.append(line.strip())
    if program.returncode:
        named = [line for line in wrong if any(words in line for words in JOB_ENDED)]
        failed = named or wrong or ["Snakemake stopped"]
        raise UserError(f"the rehearsal stopped: {failed[0]}. Its whole output is in {output}")


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("rehearse_run", args, lambda: rehearse_run(args))


if __name__ == "__main__":
    sys.exit(main())
