"""write_crate: metadata that make the folder of a run an RO-Crate (Workflow Run Crate), and a copy of the workflow.

Describes inputs with checksums, settings, software, results, the declaration, the leak certificate, licence and
citation. All paths in it are relative to the run's folder. Of files that lie elsewhere it tells name and checksum.

Example:
    python -m workflow_scripts.write_crate --run-dir results/demo --folds results/demo/repeat0/folds.csv \\
        --arms results/demo/repeat0/fold0/arms/job0.json --out results/demo/ro-crate-metadata.json \\
        --workflow results/demo/workflow --settings '{"config": {"run": "demo", ...}, "licence": ""}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workflow_scripts.lib.base import arguments, files, source_code, stage
from workflow_scripts.lib.crate import parameters, run_crate, workflow_copy


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--run-dir", type=Path, required=True, help="folder of the run, which becomes the crate")
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of arms (JSON) of all folds")
    out.add_argument("--folds", type=Path, nargs="+", required=True, help="tables of roles of all repeats")
    out.add_argument("--generators", type=Path, nargs="*", default=[], help="generators of all folds")
    out.add_argument("--synthetic", type=Path, nargs="*", default=[], help="synthetic sets of all folds")
    out.add_argument("--tables", nargs="*", default=[], metavar="NAME=PATH", help="tables that came with the images")
    out.add_argument("--workflow", type=Path, required=True, help="folder to write: a copy of the workflow")
    out.add_argument("--out", type=Path, required=True, help="metadata of the crate to write (JSON-LD)")
    return out.parse_args(argv)


def write_crate(args: argparse.Namespace) -> None:
    """Write the metadata `args.out` and the folder `args.workflow`."""
    config = args.settings["config"]
    with files.atomic(args.workflow) as part:
        workflow_copy.write(source_code.ROOT, part)
        files.write_json(part / "run.json", parameters.without_places(config))
    tables = arguments.pairs(args.tables, "--tables")
    listed = run_crate.CrateFiles(
        args.run_dir, args.workflow, args.arms, args.generators, args.synthetic, args.folds, tables
    )
    made = run_crate.metadata(listed, config, args.settings["licence"])
    files.write_json(args.out, made)
    stage.log.info("%s: %d entities", args.out, len(made["@graph"]))


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("write_crate", args, lambda: write_crate(args))


if __name__ == "__main__":
    sys.exit(main())
