"""declare_analysis: pre-registration of the analysis, with a hash, before the first test prediction.

The declaration is the `analysis` section with every arm's control and baseline; beside it stands a hash of the
experiment: of all settings that define the arms and their test folds. The ledger has a line for each declaration that a
run ever had, with the number of test predictions at that time. Lines are never removed. So a reader of the report can
tell an analysis that was chosen beforehand from one that was changed after a look at results.

Example:
    python -m workflow_scripts.declare_analysis --run-folder results/demo --ledger results/demo/declarations.jsonl \\
        --out results/demo/declaration.json --settings '{"primary_arm": "pool", ..., "arms": [...], \\
        "experiment": {"train_classifier": {...}, ...}}'
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.base.files import digest, write_json, write_text
from workflow_scripts.lib.judge import declaration


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--run-folder", type=Path, required=True, help="folder of the run, where predictions would lie")
    out.add_argument("--ledger", type=Path, required=True, help="all declarations so far, a line each")
    out.add_argument("--out", type=Path, required=True, help="the declaration to write")
    return out.parse_args(argv)


def declare_analysis(run_folder: Path, ledger: Path, out: Path, settings: dict[str, Any]) -> None:
    """Write the declaration, and add it to the ledger if it differs from the last one."""
    analysis = {key: value for key, value in settings.items() if key not in ("arms", "experiment")}
    hashed, experiment = declaration.declaration_hash(analysis, settings["arms"]), digest(settings["experiment"])
    entries = _read(ledger)
    if not entries or (entries[-1]["hash"], entries[-1]["experiment"]) != (hashed, experiment):
        entries.append(
            {
                "hash": hashed,
                "experiment": experiment,
                "declared_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "predictions": len(list(run_folder.glob("repeat*/fold*/arms/*/predictions.h5"))),
                "declaration": declaration.declaration(analysis, settings["arms"]),
            }
        )
        write_text(ledger, "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries))
    last = entries[-1]
    summary = {name: last[name] for name in ("hash", "experiment", "declared_at", "predictions")}
    earlier = [{name: entry[name] for name in ("hash", "experiment")} for entry in entries[:-1]]
    write_json(out, summary | {"earlier": earlier})
    when = f"after {last['predictions']} test predictions" if last["predictions"] else "before any test prediction"
    stage.log.info("analysis %s, experiment %s, declared %s %s", hashed, experiment, last["declared_at"], when)


def _read(ledger: Path) -> list[dict[str, Any]]:
    if not ledger.exists():
        return []
    try:
        entries = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
        # A ledger of earlier days knows nothing of the experiment.
        return [{"experiment": ""} | entry for entry in entries]
    except (OSError, ValueError, TypeError) as error:
        raise_if_passing(error)
        raise UserError(
            f"{ledger} cannot be read ({error}): it says which analyses were declared when, so mend it or choose "
            "another name for the run"
        ) from None


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "declare_analysis",
        args,
        lambda: declare_analysis(args.run_folder, args.ledger, args.out, args.settings),
    )


if __name__ == "__main__":
    sys.exit(main())
