"""Before the lockbox is opened: the run is finished and clean, its box is found, and the ledger's line is drawn up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge import declaration, lockbox_ledger
from workflow_scripts.lib.judge.leak_checks import LEAK
from workflow_scripts.lib.judge.lockbox_ledger import Box
from workflow_scripts.lib.judge.lockbox_members import Members
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.split import role_table


def read_declaration(
    declaration_json: Path, analysis_json: Path, leaks_csv: Path, question: Question
) -> tuple[dict[str, Any], list[str]]:
    """What was declared, and the classes that the run judged; refuses a run not finished under this analysis."""
    declared, judged = (json.loads(path.read_text(encoding="utf-8")) for path in (declaration_json, analysis_json))
    hashed = declaration.declaration_hash(question.analysis, question.arms)
    for path, content in ((declaration_json, declared), (analysis_json, judged)):
        if content.get("hash") != hashed:
            raise UserError(
                f"{path} has another analysis (hash {content.get('hash')}) than the settings ({hashed}): run the "
                "workflow to its end under these settings before the lockbox is opened"
            )
    certificate = pd.read_csv(leaks_csv, dtype=str, keep_default_na=False)
    if "status" not in certificate or (certificate["status"] == LEAK).any():
        raise UserError(f"{leaks_csv} is no certificate of a run without leaks: mend the run first")
    return declared, list(judged["judged"])


def find_box(folds: list[tuple[int, Path]], source: ImageSet) -> Box:
    """The lockbox by the folds of all repeats."""
    box = lockbox_ledger.find(source.ids, source.groups, role_table.read_all(folds, source.ids))
    if box is None:
        raise UserError(lockbox_ledger.NO_LOCKBOX)
    return box


def ledger_line(
    run: str,
    question: Question,
    thresholds_csv: Path,
    source: ImageSet,
    box: Box,
    declared: dict[str, Any],
    members: Members,
) -> dict[str, Any]:
    """The line of the ledger, but for the times and the result; `task` tells this opening from any other."""
    asked = [[name, *place, one.classifier.digest] for name, own in members.items() for place, one in own.items()]
    entry = {
        "run": run,
        "seed": question.seed,
        "declaration": declared["hash"],
        "experiment": declared.get("experiment", ""),
        "declared_at": declared["declared_at"],
        "ids_digest": box.digest,
        "images_digest": source.digest,
        "images": len(box.rows),
        "groups": box.groups,
        "arms": list(members),
        "classifiers": len(asked),
    }
    return entry | {"task": files.digest([entry, asked, files.file_digest(thresholds_csv)])}
