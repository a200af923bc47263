"""Table of roles (folds.csv): the role of every image in every fold of one repeat.

Where a run has label regimes, the table also ranks the groups of a fold, and roles are read under a regime."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.split.regimes import FEWEST_LABELLED, RANKED, SAME, WHOLE, Regime, roles_under
from workflow_scripts.lib.split.roles import Role


def write(path: Path, ids: np.ndarray, groups: np.ndarray, roles: np.ndarray, ranks: np.ndarray | None = None) -> None:
    """Write roles (n, folds), one row an image in the order of the image set, and ranks (n, folds) if there are some.

    A rank is the fraction of the groups of its role that are labelled when this image's group is the last to be."""
    columns = {"id": ids, "group": groups} | {f"fold{fold}": roles[:, fold] for fold in range(roles.shape[1])}
    if ranks is not None:
        columns |= {f"fold{fold}_rank": ranks[:, fold] for fold in range(ranks.shape[1])}
    with atomic(path) as part:
        pd.DataFrame(columns).to_csv(part, index=False)


def count_folds(path: Path) -> int:
    """Number of folds that a table has."""
    with path.open(encoding="utf-8") as handle:
        return sum(re.fullmatch(r"fold\d+", name) is not None for name in handle.readline().strip().split(","))


def read(path: Path, fold: int, ids: np.ndarray, regime: Regime = WHOLE) -> np.ndarray:
    """Roles (n,) of one fold under a regime, in the order of the image set with these ids."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} is no table of roles ({error}): delete it and run again") from None
    if f"fold{fold}" not in table:
        raise UserError(f"{path} has no fold {fold}; delete it and run again")
    if (
        "id" not in table
        or len(table) != len(ids)
        or not np.array_equal(table["id"].to_numpy(dtype=object), ids.astype(object))
    ):
        raise UserError(f"{path} was made for another image set (its ids differ); delete it and run again")
    roles = table[f"fold{fold}"].to_numpy(dtype=object)
    ranks = _ranks(path, table, fold) if regime.labelled < 1 else np.full(len(roles), np.nan)
    return roles_under(regime, roles, ranks)


def refuse_few(path: Path, fold: int, ids: np.ndarray, groups: np.ndarray, regime: Regime) -> None:
    """Raise UserError where a regime labels too few groups (n,) of the images: the table may be older than the regime.

    Another regime changes no role, so the table is not made again for it."""
    if regime.labelled >= 1:
        return
    whole, roles = read(path, fold, ids), read(path, fold, ids, regime)
    for role in RANKED if regime.selection == SAME else (Role.TRAIN,):
        if (whole == role).any() and len(np.unique(groups[roles == role])) < FEWEST_LABELLED:
            raise UserError(
                f"regimes ({regime.name}).labelled = {regime.labelled:g} leaves fewer than {FEWEST_LABELLED} labelled "
                f"groups of {role} in fold {fold} of {path}: raise it, or delete the table to be told what would do"
            )


def _ranks(path: Path, table: pd.DataFrame, fold: int) -> np.ndarray:
    try:
        return np.array([float(text or "nan") for text in table[f"fold{fold}_rank"]])
    except (KeyError, ValueError):
        raise UserError(
            f"{path} ranks no groups of fold {fold}, so it has no label regime: delete it and run again"
        ) from None


def read_all(tables: Iterable[tuple[int, Path]], ids: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Roles (n,) in every repeat and fold, from each repeat's table."""
    return {(repeat, fold): read(path, fold, ids) for repeat, path in tables for fold in range(count_folds(path))}


def rows(path: Path, fold: int, ids: np.ndarray, role: str, regime: Regime = WHOLE) -> np.ndarray:
    """Row numbers of the images with a role in one fold, under a regime.

    Without a calibration part (its fraction is 0), thresholds are fitted on the validation part."""
    roles = read(path, fold, ids, regime)
    if role == Role.CALIBRATION and not (roles == role).any():
        role = Role.VALIDATION
    return np.flatnonzero(roles == role)
