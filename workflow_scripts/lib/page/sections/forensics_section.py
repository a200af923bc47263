"""The section of the page on the replay of the reference study: what its choices do, if `forensics` has been run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.page.html_page import Column, PageTable

ALT = "The effect of each of the study's choices on validation, test and their gap, with intervals; see the tables."
OUTCOMES = ("validation", "test", "gap")


def read(facts: Path | None, out: Path) -> dict[str, Any] | None:
    """What the template shows, from forensics.json and the files beside it; None where there are none."""
    if facts is None or not facts.exists():
        return None
    table = facts.with_suffix(".csv")
    try:
        content = json.loads(facts.read_text(encoding="utf-8"))
        effects = pd.read_csv(table, keep_default_na=True)
        tables = [_effects(content, effects, name) for name in content["models"]]
        tables += [_fractions(content, effects), _switches(content)]
    except (OSError, ValueError, KeyError) as error:
        raise_if_passing(error)
        raise UserError(f"{facts} and {table} cannot be read ({error}): delete them, or make forensics again") from None
    return {
        "facts": content,
        "tables": {shown.name: shown for shown in tables},
        "models": [f"forensics_{name}" for name in content["models"]],
        "figure": facts.parent / "figures" / "forensics.svg",
        "csv": os.path.relpath(table, out.parent),
        "json": os.path.relpath(facts, out.parent),
    }


def study_table(path: Path | None) -> PageTable | None:
    """The study's own table, with the published numbers beside those of the run (study.csv)."""
    if path is None:
        return None
    rows = pd.read_csv(path, keep_default_na=False).to_dict("records")
    published = {"published_validation_last": "published, last", "published_validation_best": "published, best"}
    return PageTable(
        "study",
        "Macro-F1 of every model, decided as the study did, with the published numbers where they are known",
        [
            Column("arm", "arm", "name"),
            Column("validation_last", "validation, last", "number"),
            *(Column(key, title) for key, title in published.items()),
            Column("validation_best", "validation, best", "number"),
            Column("validation", "validation, kept", "number"),
            Column("test", "test", "number"),
            Column("gap", "gap", "signed"),
            Column("published_test", "published test score"),
        ],
        rows,
        note="Last and best: checks during training, thresholds not tuned. Kept: the checkpoint that is tested.",
    )


def _difference(lines: pd.DataFrame, outcome: str) -> tuple[float, float, float] | None:
    own = lines[lines["outcome"] == outcome]
    return None if own.empty else tuple(float(own.iloc[0][key]) for key in ("effect", "low", "high"))


def _effects(facts: dict[str, Any], effects: pd.DataFrame, model: str) -> PageTable:
    main = effects[
        (effects["model"] == model)
        & (effects["metric"] == facts["metric"])
        & (effects["kind"] == "main")
        & (effects["at"] == "mean")
    ]
    rows = []
    for name in dict.fromkeys(main["switch"]):
        own = main[main["switch"] == name]
        rows.append(
            {"switch": name, "acts": own.iloc[0]["acts"], "aliases": own.iloc[0]["aliases"]}
            | {outcome: _difference(own, outcome) for outcome in OUTCOMES}
        )
    about = facts["models"][model]
    columns = [Column("switch", "switch", "name"), Column("acts", "acts")]
    columns += [Column(outcome, outcome, "difference") for outcome in OUTCOMES]
    resolution = f"resolution {about['resolution']}" if about["resolution"] else "all combinations"
    return PageTable(
        f"forensics_{model}",
        f"{model}: change of {facts['metric_name']} when a choice is the study's ({about['notation']}, {resolution}, "
        f"{about['trainings']} trainings)",
        [*columns, Column("aliases", "cannot be told apart from")],
        rows,
    )


def _fractions(facts: dict[str, Any], effects: pd.DataFrame) -> PageTable:
    some = effects[(effects["metric"] == facts["metric"]) & effects["kind"].isin(["shapley", "total", "ends"])]
    rows = []
    for (model, kind, name), own in some.groupby(["model", "kind", "switch"], sort=False):
        said = {"shapley": name, "total": "all that act after training", "ends": "everything, before and after"}[kind]
        rows.append({"model": model, "fraction": said} | {outcome: _difference(own, outcome) for outcome in OUTCOMES})
    columns = [Column("model", "model", "name"), Column("fraction", "choice, from MixLoc's to the study's")]
    columns += [Column(outcome, outcome, "difference") for outcome in OUTCOMES]
    return PageTable(
        "forensics_fractions",
        "Joint effect of the choices that act after training, divided among them (exact Shapley values), and whole "
        "differences",
        columns,
        rows,
    )


def _switches(facts: dict[str, Any]) -> PageTable:
    rows = [{"switch": name} | own for name, own in facts["switches"].items()]
    columns = [Column("switch", "switch", "name"), Column("acts", "acts on"), Column("about", "what it is")]
    return PageTable("forensics_switches", "The study's choices", columns, rows)
