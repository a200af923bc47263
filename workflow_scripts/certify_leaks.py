"""certify_leaks: leak certificate: checks that nothing was fitted, selected or tuned on test images or their groups.

Every artefact carries a record of the rows that its loader read, and for what: generators, synthetic sets (which
inherit their generator's record), classifiers (which inherit their synthetic set's) and decision thresholds.

This stage compares each record with the roles in folds.csv, image by image and group by group. It also checks that no
group has two roles, and that every arm was scored on exactly the test part. Real images in reserve may be fitted on by
the arms with more real images (methods more_real, more_real_same), and by nothing else. leaks.csv has a line for each
check. A leak that is not declared under `violations` fails the run.

With label regimes each artefact is also checked under its own: that it read no label of an unlabelled image, and no
image that is unused there. What it inherited is checked under the regime of the artefact that read it.

Where the set has further images, which came without labels, nothing may read one as if it had labels. Those that a fold
shows may have no relatives outside of its train part. Of one whose protein nobody tells, that is not excluded.

What weights and encoders of the user's own have seen is unknown, and has lines that say so.

Of a generator that was trained on another image set nobody can tell for certain whether it saw test proteins. What
rests on one has a line that says so.

Example:
    python -m workflow_scripts.certify_leaks --images images.h5 --folds 0=repeat0/folds.csv \\
        --artefacts generators/unet.safetensors synthetic/as_train.h5 arms/job0.json --thresholds analysis.json \\
        --out leaks.csv --settings '{"violations": [], "encoders": []}'
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge.fitted_artefacts import read_artefacts
from workflow_scripts.lib.judge.leak_checks import (
    DECLARED,
    LEAK,
    NOT_EXCLUDED,
    UNKNOWN_ORIGIN,
    Check,
    Rules,
    check_artefact,
    check_encoder,
    check_further,
    check_groups,
    check_labels,
    check_origin,
    check_scored,
    check_weights,
    describe,
    violation,
)
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import AS_WRITTEN, WHOLE, Regime
from workflow_scripts.lib.split.roles import Role


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    arguments.add_role_tables(out)
    out.add_argument(
        "--artefacts", nargs="*", type=Path, default=[], help="generators, synthetic sets, lists of arms, replays"
    )
    out.add_argument(
        "--thresholds", type=Path, nargs="?", help="analysis.json, which records what thresholds were fitted on"
    )
    out.add_argument("--out", type=Path, required=True, help="the certificate to write")
    return out.parse_args(argv)


def certify_leaks(
    images: Path,
    tables: dict[int, Path],
    artefacts: list[Path],
    thresholds: Path | None,
    out: Path,
    settings: dict[str, Any],
) -> None:
    """Write the certificate; fail if it finds a leak that is not declared."""
    with ImageSet(images) as source:
        ids, groups, digest = source.ids, source.groups, source.digest
        known, further = source.kin_known(), source.further
    rules = Rules(groups, set(settings["violations"]), known, further)
    regimes = {entry["name"]: Regime(**entry) for entry in settings.get("regimes", [])}
    members = settings.get("artefacts", {})
    roles: dict[tuple[int, int, Regime], np.ndarray] = {}

    def roles_of(repeat: int, fold: int, regime: Regime = WHOLE) -> np.ndarray:
        if repeat not in tables:
            raise UserError(f"no table of roles is given for repeat {repeat}")
        if (repeat, fold, regime) not in roles:
            roles[repeat, fold, regime] = role_table.read(tables[repeat], fold, ids, regime)
        return roles[repeat, fold, regime]

    checks: list[Check] = []
    for artefact in read_artefacts(artefacts, thresholds, ids):
        if (artefact.access_record.images, artefact.access_record.count) != (digest, len(ids)):
            raise UserError(f"{artefact.name} was made from another image set than {images}: delete it, run again")
        written = roles_of(artefact.repeat, artefact.fold, AS_WRITTEN)
        checks += [*check_artefact(artefact, written, rules), *check_origin(artefact)]
        if regimes or (written == Role.UNLABELLED).any():
            about = members.get(artefact.name, {"regime": WHOLE.name, "through": []})
            through = {name: regimes.get(name, WHOLE) for name in about["through"]}
            own, under = regimes.get(about["regime"], WHOLE), partial(roles_of, artefact.repeat, artefact.fold)
            checks += check_labels(artefact, own, through, under, rules)
    checks += check_scored(artefacts, ids, roles_of)
    for repeat, fold in sorted({(repeat, fold) for repeat, fold, _ in roles}):
        checks.append(check_groups(repeat, fold, roles_of(repeat, fold), groups))
        if further.any():
            checks.append(check_further(repeat, fold, roles_of(repeat, fold, AS_WRITTEN), rules))
        for name, regime in regimes.items():
            own_roles = np.where(further, Role.UNUSED, roles_of(repeat, fold, regime))
            checks.append(check_groups(repeat, fold, own_roles, groups, f"folds.csv, {name}"))
        checks += [check_encoder(repeat, fold, encoder) for encoder in settings.get("encoders", [])]
        checks += [check_weights(repeat, fold, *arm) for arm in settings.get("weights", {}).items()]
    if not checks:
        raise UserError("there is nothing to certify: no artefact was given")
    with atomic(out) as part:
        pd.DataFrame([asdict(check) for check in checks]).to_csv(part, index=False)
    leaks = [check for check in checks if check.status == LEAK]
    unmet = rules.declared - {violation(check) for check in checks if check.status == DECLARED}
    for check in leaks:
        stage.log.warning("%s", describe(check))
    if leaks:
        raise UserError(f"{describe(leaks[0])}{f' (and {len(leaks) - 1} more)' if len(leaks) > 1 else ''}")
    if unmet:
        raise UserError(f"violations declares {sorted(unmet)[0]!r}, but no artefact shows it: remove the line")
    told = "; proteins are unknown: not excluded" * any(check.status == NOT_EXCLUDED for check in checks)
    told += "; a generator came from elsewhere: unknown" * any(check.status == UNKNOWN_ORIGIN for check in checks)
    stage.log.info("%d checks, no undeclared leak%s", len(checks), told)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "certify_leaks",
        args,
        lambda: certify_leaks(args.images, dict(args.folds), args.artefacts, args.thresholds, args.out, args.settings),
    )


if __name__ == "__main__":
    sys.exit(main())
