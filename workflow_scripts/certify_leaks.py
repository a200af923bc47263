"""certify_leaks: does anything that was fitted, selected or tuned know a test image, or a relative of one?

Every artefact carries a record of the rows that its loader really read, and for what: generators, synthetic sets (which
inherit their generator's), classifiers (which inherit their synthetic set's) and decision thresholds. This stage
compares each record with the roles in folds.csv, image by image and group by group, and checks that no group plays two
roles and that every arm was scored on exactly the test part. Real images in reserve may be fitted on by the arms that
are there to show what more real images bring (methods more_real, more_real_same), and by nothing else. leaks.csv has a
line for each check; one that finds something not declared under `violations` fails the run.

Example:
    python -m workflow_scripts.certify_leaks --images images.h5 --folds 0=repeat0/folds.csv \\
        --artefacts generators/unet.safetensors synthetic/as_train.h5 arms/job0.json --thresholds analysis.json \\
        --out leaks.csv --settings '{"violations": [], "encoder": "baseline"}'
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.classify import arm_choices
from workflow_scripts.lib.images.access_record import Provenance
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.scores import arm_list, prediction_file
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role

# Records of replay_study: its models, of which several are trained in one job.
REPLAYED = ".fitted.json"
# What may be read for what. Anything else that was read for such a purpose is a leak.
ALLOWED = {
    "fit": (Role.TRAIN,),
    "select": (Role.TRAIN, Role.VALIDATION),
    "threshold": (Role.CALIBRATION,),
}
# "not excluded": no overlap was found, but the proteins are unknown, so relatives of test images may be in other parts.
CLEAN, LEAK, DECLARED, NOT_EXCLUDED = "clean", "LEAK", "declared", "not excluded"
# Of a network that the user brought along nobody here knows which images it has learned from.
UNKNOWN = "pre-training overlap: unknown"


@dataclass
class Artefact:
    """Something that was made from images: its name, the fold it belongs to, and what it was made from."""

    name: str
    repeat: int
    fold: int
    provenance: Provenance
    method: str = ""  # of an arm


@dataclass
class Check:
    """A line of leaks.csv."""

    artefact: str
    repeat: int
    fold: int
    purpose: str
    images: int  # images read for this purpose
    allowed_roles: str
    overlap_images: int  # of them, images of a role that is not allowed
    overlap_groups: int  # groups of a role that is not allowed
    status: str


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    out.add_argument(
        "--folds", nargs="+", type=_numbered, required=True, metavar="REPEAT=CSV", help="each repeat's table of roles"
    )
    out.add_argument(
        "--artefacts", nargs="*", type=Path, default=[], help="generators, synthetic sets, lists of arms, replays"
    )
    out.add_argument(
        "--thresholds", type=Path, nargs="?", help="analysis.json, which records what thresholds were fitted on"
    )
    out.add_argument("--out", type=Path, required=True, help="the certificate to write")
    return out.parse_args(argv)


def _numbered(text: str) -> tuple[int, Path]:
    repeat, _, path = text.partition("=")
    if not repeat.isdecimal() or not path:
        raise argparse.ArgumentTypeError(f"{text!r} must be a repeat and its table, such as 0=repeat0/folds.csv")
    return int(repeat), Path(path)


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
        known = bool(source.attrs.get("grouped_by"))
    declared = set(settings["violations"])
    roles: dict[tuple[int, int], np.ndarray] = {}

    def roles_of(repeat: int, fold: int) -> np.ndarray:
        if repeat not in tables:
            raise UserError(f"no table of roles is given for repeat {repeat}")
        if (repeat, fold) not in roles:
            roles[repeat, fold] = role_table.read(tables[repeat], fold, ids)
        return roles[repeat, fold]

    checks: list[Check] = []
    for artefact in _artefacts(artefacts, thresholds, ids):
        if (artefact.provenance.images, artefact.provenance.count) != (digest, len(ids)):
            raise UserError(f"{artefact.name} was made from another image set than {images}: delete it, run again")
        checks += _check_artefact(artefact, roles_of(artefact.repeat, artefact.fold), groups, declared, known)
    checks += _check_scored(artefacts, ids, roles_of)
    for (repeat, fold), found in sorted(roles.items()):
        checks.append(_check_groups(repeat, fold, found, groups))
        if isinstance(encoder := settings.get("encoder"), dict):
            checks.append(_check_encoder(repeat, fold, encoder))
    if not checks:
        raise UserError("there is nothing to certify: no artefact was given")
    with atomic(out) as part:
        pd.DataFrame([asdict(check) for check in checks]).to_csv(part, index=False)
    leaks = [check for check in checks if check.status == LEAK]
    unmet = declared - {_violation(check) for check in checks if check.status == DECLARED}
    for check in leaks:
        stage.log.warning("%s", _tell(check))
    if leaks:
        raise UserError(f"{_tell(leaks[0])}{f' (and {len(leaks) - 1} more)' if len(leaks) > 1 else ''}")
    if unmet:
        raise UserError(f"violations declares {sorted(unmet)[0]!r}, but no artefact shows it: remove the line")
    stage.log.info(
        "%d checks, no undeclared leak%s", len(checks), "" if known else "; the proteins are unknown: not excluded"
    )


def _tell(check: Check) -> str:
    return (
        f"LEAK: {check.artefact} (repeat {check.repeat}, fold {check.fold}), purpose {check.purpose!r}: "
        f"{check.overlap_images} images of {check.overlap_groups} groups that are not {check.allowed_roles}"
    )


def _violation(check: Check) -> str:
    return f"{check.artefact}:{check.purpose}"


def _check_artefact(
    artefact: Artefact, roles: np.ndarray, groups: np.ndarray, declared: set[str], known: bool
) -> Iterator[Check]:
    kin = _kin(roles)
    for purpose, allowed in ALLOWED.items():
        rows = artefact.provenance.of(purpose)
        if purpose == "fit":
            allowed += _reserve_of(artefact.method)
        if purpose == "threshold" and not (roles == Role.CALIBRATION).any():
            allowed = (Role.VALIDATION,)
        good = np.isin(roles, allowed)
        foreign = rows[~good[rows]]
        # A relative of a test image is as bad as the image: groups that have a role which is not allowed. Images that
        # nobody may read in this fold are no part of it: their groups are judged by their other images.
        outside = np.intersect1d(groups[rows], groups[~np.isin(kin, allowed) & (kin != Role.UNUSED)])
        check = Check(
            artefact.name, artefact.repeat, artefact.fold, purpose, len(rows), " or ".join(allowed),
            len(foreign), len(outside), CLEAN if known or not len(rows) else NOT_EXCLUDED,
        )  # fmt: skip
        if len(foreign) or len(outside):
            check.status = DECLARED if _violation(check) in declared else LEAK
        yield check


def _reserve_of(method: str) -> tuple[str, ...]:
    """The images in reserve that an arm of this method may be fitted on."""
    second = arm_choices.METHODS[method].second_source if method in arm_choices.METHODS else None
    return (second,) if second in arm_choices.RESERVES else ()


def _kin(roles: np.ndarray) -> np.ndarray:
    """Roles as far as relatives are concerned: images kept aside from train groups are relatives of train images."""
    return np.where(roles == Role.RESERVE_SAME, Role.TRAIN, roles)


def _check_groups(repeat: int, fold: int, roles: np.ndarray, groups: np.ndarray) -> Check:
    roles = _kin(roles)
    played = roles != Role.UNUSED
    table = pd.DataFrame({"group": groups[played], "role": roles[played]}).groupby("group")["role"].nunique()
    torn = table.index[table > 1]
    images = int(np.isin(groups[played], torn).sum())
    return Check(
        "folds.csv", repeat, fold, "one role a group", len(groups), "any", images, len(torn),
        LEAK if len(torn) else CLEAN,
    )  # fmt: skip


def _check_encoder(repeat: int, fold: int, encoder: dict[str, Any]) -> Check:
    # It fits and selects nothing: it only assesses synthetic sets. Its figures may still flatter what it knows.
    name = f"encoder {encoder['architecture']} ({Path(encoder['weights']).name})"
    return Check(name, repeat, fold, "pre-training", 0, "unknown", 0, 0, UNKNOWN)


def _check_scored(paths: list[Path], ids: np.ndarray, roles_of: Any) -> Iterator[Check]:
    # The reverse of a leak: an arm scored on other images than the fold's test part, or not on all of them.
    for path in _arm_files(paths):
        arm = prediction_file.read_predictions(path, parts=("test",))
        expected = set(ids[roles_of(arm.repeat, arm.fold) == Role.TEST])
        scored = arm.parts["test"]
        wrong = expected.symmetric_difference(scored.ids)
        repeated = len(scored) - len(set(scored.ids))
        yield Check(
            f"arm {arm.arm}", arm.repeat, arm.fold, "scored", len(scored), Role.TEST, len(wrong) + repeated, 0,
            LEAK if wrong or repeated else CLEAN,
        )  # fmt: skip
    for path in paths:
        for entry in _replayed(path) if path.name.endswith(REPLAYED) else ():
            yield from _check_replayed(_artefact(str(entry.get("name")), entry, path), roles_of)


def _check_replayed(artefact: Artefact, roles_of: Any) -> Iterator[Check]:
    # A model of the replay is scored on the test part however it was trained; its thresholds alone score nothing.
    rows = artefact.provenance.of("score")
    if len(rows):
        wrong = np.setxor1d(rows, np.flatnonzero(roles_of(artefact.repeat, artefact.fold) == Role.TEST))
        yield Check(
            artefact.name, artefact.repeat, artefact.fold, "scored", len(rows), Role.TEST, len(wrong), 0,
            LEAK if len(wrong) else CLEAN,
        )  # fmt: skip


def _arm_files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.suffix == ".json" and not path.name.endswith(REPLAYED):
            for arm in arm_list.read(path):
                yield arm["predictions"]


def _artefacts(paths: list[Path], thresholds: Path | None, ids: np.ndarray) -> Iterator[Artefact]:
    for path in paths:
        if path.suffix == ".safetensors":
            yield _artefact(f"generator {path.stem}", _metadata(path), path)
        elif path.suffix == ".h5":
            with ImageSet(path) as made:
                yield _artefact(f"synthetic {path.stem}", made.attrs, path)
        elif path.name.endswith(REPLAYED):
            for entry in _replayed(path):
                yield _artefact(str(entry.get("name")), entry, path)
    for path in _arm_files(paths):
        arm = prediction_file.read_predictions(path, parts=())
        yield _artefact(f"arm {arm.arm}", vars(arm), path, str(arm.settings.get("method", "")))
    if thresholds:
        at = {name: row for row, name in enumerate(ids)}
        for entry in _fitted_on(thresholds):
            record = Provenance(str(entry["images"]), len(ids))
            unknown = [name for name in entry["ids"] if name not in at]
            if unknown:
                raise UserError(f"{thresholds} speaks of image {unknown[0]!r}, which the image set has not")
            record.record("threshold", [at[name] for name in entry["ids"]])
            yield Artefact("thresholds", int(entry["repeat"]), int(entry["fold"]), record)


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is not a generator that can be read ({error}): delete it, run again") from None


def _replayed(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["fitted"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it and run again") from None


def _fitted_on(thresholds: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(thresholds.read_text(encoding="utf-8"))["thresholds_fitted_on"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{thresholds} cannot be read ({error}): delete it and run again") from None


def _artefact(name: str, about: dict[str, Any], path: Path, method: str = "") -> Artefact:
    try:
        record = Provenance.from_json(str(about["provenance"]))
        return Artefact(name, int(about["repeat"]), int(about["fold"]), record, method)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} does not say what it was made from ({error}): delete it and run again") from None


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
