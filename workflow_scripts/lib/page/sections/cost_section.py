"""What the page says of the cost: the prediction of cost.json beside what Snakemake measured and what lies on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base.progress import duration
from workflow_scripts.lib.cost import disk_use, measured_rates
from workflow_scripts.lib.page.html_page import Column, PageTable


@dataclass
class Foreseen:
    """A paragraph, and the tables `prediction` and `disk` where there are any."""

    sentence: str
    tables: dict[str, PageTable] = field(default_factory=dict)


def read(path: Path | None, benchmarks: Path) -> Foreseen:
    """Prediction and fact; `benchmarks` lies in the folder of the run."""
    prediction = measured_rates.read_prediction(path) if path is not None else None
    if prediction is None:
        return Foreseen("The cost of this run was not predicted.")
    if prediction["problem"]:
        return Foreseen(f"The cost of this run was not predicted: {prediction['problem']}.")
    stages, disk = _stages(prediction, benchmarks), _disk(prediction, benchmarks.parent)
    tables = {"prediction": _stage_table(stages), "disk": _disk_table(disk)}
    return Foreseen(_sentence(prediction, stages, disk), tables)


def _stages(cost: dict[str, Any], benchmarks: Path) -> list[dict[str, Any]]:
    """A row a stage, of the jobs that were predicted."""
    measured: dict[str, list[float]] = {}
    for job in cost["jobs"]:
        taken = measured_rates.benchmark(benchmarks / job["stage"] / f"{job['name']}.tsv")
        if taken is not None:
            measured.setdefault(job["stage"], []).append(taken[0])
    rows = []
    for row in cost["stages"]:
        low, middle, high = row["seconds"]
        seen = measured.get(row["stage"], [])
        # Half a stage beside a whole one would tell nothing.
        seconds = sum(seen) if len(seen) == row["jobs"] else None
        predicted = None if row["unknown"] else (middle, low, high)
        ratio = seconds / middle if seconds and middle and predicted else None
        rows.append(
            {"stage": row["stage"], "jobs": row["jobs"], "predicted": predicted, "measured": seconds, "ratio": ratio,
             "source": "; ".join(row["source"]) or "unknown: nothing like it was measured",
             "hours": (seconds or 0.0) * row["width"] / 3600, "gpu": row["gpu"]}
        )  # fmt: skip
    both = [row for row in rows if row["ratio"] is not None]
    if both:
        whole = tuple(sum(row["predicted"][place] for row in both) for place in range(3))
        seconds = sum(row["measured"] for row in both)
        rows.append(
            {"stage": "all stages with both figures", "jobs": sum(row["jobs"] for row in both), "predicted": whole,
             "measured": seconds, "ratio": seconds / whole[0], "source": "", "hours": 0.0, "gpu": False,
             "is_total": True}
        )  # fmt: skip
    return rows


def _stage_table(rows: list[dict[str, Any]]) -> PageTable:
    columns = [
        Column("stage", "stage", "name"),
        Column("jobs", "jobs", "count"),
        Column("predicted", "seconds predicted", "estimate"),
        Column("measured", "seconds measured", "seconds"),
        Column("ratio", "measured to predicted", "number", 2),
        Column("source", "predicted from"),
    ]
    note = "Below each prediction: its range, by the fastest and the slowest job that was measured before."
    return PageTable(
        "prediction", "Seconds of all jobs, predicted and measured", columns, rows, note,
        mark=lambda row: "total" if row.get("is_total") else "",
    )  # fmt: skip


def _disk(cost: dict[str, Any], run: Path) -> list[dict[str, Any]]:
    """A row a kind of file, in MB."""
    predicted, used = cost["disk"]["kinds"], measured_rates.disk_used(run)
    names = [kind for kind in measured_rates.KINDS if kind in predicted or kind in used]
    rows = [
        {"kind": kind} | {key: sizes[kind] / 1e6 if kind in sizes else None
                          for key, sizes in (("predicted", predicted), ("measured", used))}
        for kind in names
    ]  # fmt: skip
    whole = {key: sum(row[key] or 0.0 for row in rows) for key in ("predicted", "measured")}
    return [*rows, {"kind": "all kinds", "is_total": True} | whole]


def _disk_table(rows: list[dict[str, Any]]) -> PageTable:
    columns = [
        Column("kind", "kind of file", "name"),
        Column("predicted", "MB predicted", "number", 1),
        Column("measured", "MB on disk", "number", 1),
    ]
    return PageTable(
        "disk", "Disk of the run, predicted and measured", columns, rows,
        mark=lambda row: "total" if row.get("is_total") else "",
    )  # fmt: skip


def disk_by_stage(run: Path) -> PageTable:
    """Room that the files of each stage take now, and what deletes them.

    Logs and the page itself are left out, so that the same files give the same page."""
    goes = {disk_use.YES: "clean=yes", disk_use.ALL: "clean=all", disk_use.NEVER: "stays"}
    files = [file for file in disk_use.files_of(run) if file.part.stage not in ("report", "all stages")]
    rows = [row | {"mb": row["bytes"] / 1e6, "goes": goes[row["by"]]} for row in disk_use.rows(files)]
    whole = {"stage": "all", "files": len(files), "mb": sum(row["mb"] for row in rows), "is_total": True}
    columns = [
        Column("stage", "stage", "name"),
        Column("what", "files of"),
        Column("mb", "MB on disk", "number", 1),
        Column("goes", "deleted by"),
        Column("files", "files", "count"),
    ]
    note = (
        "snakemake --cores 1 clean, with the config of this run, shows what is there now; --config clean=yes or "
        "clean=all deletes."
    )
    return PageTable(
        "disk_stages", "Disk of the run by stage, without logs and this page", columns, [*rows, whole], note,
        mark=lambda row: "total" if row.get("is_total") else "",
    )  # fmt: skip


def _sentence(cost: dict[str, Any], stages: list[dict[str, Any]], disk: list[dict[str, Any]]) -> str:
    low, middle, high = (f"{hours:.3g}" for hours in cost["core_hours"])
    gpus = f" and {cost['gpus']} GPU(s)" if cost["gpus"] else ""
    said = f"Predicted from other runs, for {cost['cores']} core(s){gpus} of {cost['machine']}: {middle} core-hours "
    said += f"({low} to {high})"
    if cost["gpus"]:
        said += f", {cost['gpu_hours'][1]:.3g} GPU-hours"
    said += f", a wall-clock of {duration(cost['wall_clock'][1])}, {disk[-1]['predicted']:,.1f} MB of disk. Measured: "
    said += f"{sum(row['hours'] for row in stages if not row['gpu']):.3g} core-hours"
    if cost["gpus"]:
        said += f", {sum(row['hours'] for row in stages if row['gpu']):.3g} GPU-hours"
    said += f", {disk[-1]['measured']:,.1f} MB."
    if cost["unknown"]:
        said += f" Not predicted, because nothing like it was measured: {', '.join(cost['unknown'])}."
    return said
