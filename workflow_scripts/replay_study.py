"""replay_study: trains the reference study's models in one fold, under a factorial design of its suspicious choices.

`forensics.switches` names the choices that are varied (see lib/study/switches.py). Those that act before or during
training follow a two-level design. Those that act after it are all combined on every trained model, which costs no
training. Rows that agree in what makes a generator share it; rows that agree in all that acts on a model share its
training. A unit is one trained model with all its scores. Finished units are kept under --work and found after a kill.

Writes a table of scores (CSV): a line for each row of the design, combination of switches that act after training,
model, part (validation, test) and metric, with the state of every switch. Also writes a record (JSON) of what was
fitted on which images, for certify_leaks. Test images are those of the fold's test part, whatever is switched.

Example:
    python -m workflow_scripts.replay_study --images images.h5 --folds folds.csv --repeat 0 --fold 0 --shard 0 \\
        --seed 1 --work replay --scores replay/0.csv --record replay/0.fitted.json --settings '{"forensics": ...}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.lib.base import arguments, files, source_code, stage
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.study.fold_replay import FoldReplay, unit_scores
from workflow_scripts.lib.study.switches import SWITCHES
from workflow_scripts.lib.study.units import score_lines, shard_units


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    out.add_argument("--folds", type=Path, required=True, help="the table of roles of this repeat")
    out.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    out.add_argument("--fold", type=int, required=True, help="number of the fold")
    out.add_argument("--shard", type=int, required=True, help="which of forensics.shards parts of the work, from 0")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    out.add_argument("--work", type=Path, required=True, help="folder of generators, synthetic sets, finished units")
    out.add_argument("--scores", type=Path, required=True, help="table of scores to write (CSV)")
    out.add_argument("--record", type=Path, required=True, help="what was fitted on which images, to write (JSON)")
    return out.parse_args(argv)


def replay_study(args: argparse.Namespace) -> None:
    """Train and score all units of a shard; write their scores and what they were fitted on."""
    settings, repeat, fold = args.settings, args.repeat, args.fold
    device.use_threads(settings["threads"])
    design, units = shard_units(settings, args.shard)
    stage.log.info(
        "%s design of resolution %s, %d units here", design.notation, design.resolution or "full", len(units)
    )
    lines: list[dict[str, Any]] = []
    fitted: dict[str, AccessRecord] = {}
    with ImageSet(args.images) as source:
        roles = role_table.read(args.folds, fold, source.ids)
        seed, code = derive(args.seed, repeat, fold, "replay"), source_code.stage_digest("replay_study")
        replay = FoldReplay(source, roles, repeat, fold, seed, args.work, settings, code)
        for number, unit in enumerate(units, start=1):
            result = unit_scores(replay, unit)
            stage.log.info("unit %d of %d: %s", number, len(units), unit.title)
            lines += list(score_lines(unit, design, settings["replay"], result["scores"], repeat, fold))
            for name, text in result["fitted"].items():
                own = AccessRecord.from_json(text)
                fitted[name] = fitted[name].merged(own) if name in fitted else own
    columns = ["repeat", "fold", "row", "model", "part", "metric", "value", *SWITCHES]
    with files.atomic(args.scores) as part:
        pd.DataFrame(lines, columns=columns).to_csv(part, index=False, float_format="%.6f")
    entries = [
        {"name": name, "repeat": repeat, "fold": fold, "access_record": own.to_json()} for name, own in fitted.items()
    ]
    files.write_json(args.record, {"fitted": sorted(entries, key=lambda entry: entry["name"])})


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("replay_study", args, lambda: replay_study(args))


if __name__ == "__main__":
    sys.exit(main())
