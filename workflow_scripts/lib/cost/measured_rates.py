"""Measured rates: the speed of earlier runs, read from their benchmark files.

A run's cost.json says how much work each of its jobs holds (`job_costs.py`). Snakemake's benchmark file says how long
the job took. Its log says how long its start was, what a step of its loop took, on which device it computed, and
whether it did all of the work. From these follow rates (units a second) and starts (seconds of a job before and around
its work), each with the lowest and the highest measured value.

Times depend on the machine and its load. Each run also records the speed of its machine (`machine_speed.py`), by which
its rates are scaled to another one."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import digest, write_json
from workflow_scripts.lib.cost.workloads import BLOCK, GFLOP, JOBS, Job, Workload

FORMAT_VERSION = 1
SHORTEST = 0.02  # seconds of work below which a job is not used for a rate
# Log messages of jobs that did not do all of their work in the measured time.
KEPT = "unchanged, kept"  # an arm that was there; the others of its job tell their own time
PARTLY = ("going on from", KEPT, "was finished meanwhile")
DURATION = re.compile(r"done in (?:(\d+) h )?(?:(\d+) min )?(?:([\d.]+) s)?$", re.MULTILINE)
MEMORY = re.compile(r"memory: at most (\d+) MB$", re.MULTILINE)
DEVICE = re.compile(r"[:,] ([^:,]+)(?:, (\d+) thread\(s\))?, (?:bfloat16|float32)\b")
# Last lines of loops (`base.progress`): the number of steps, and the milliseconds of one.
LOOP = re.compile(r"\b(\d+)/\1 \(100 %\).*, ([\d.e+-]+) ms each$", re.MULTILINE)
# Stages whose work is their loops. Reading before them, and the slow first step, are parts of their start.
PACED = ("train_ddpm", "sample_ddpm", "sample_fold", "aggregate_metrics")
# Patterns that sort the files of a run by kind; the first that fits a path counts.
KINDS = {
    "raw images": r"^simulated/train/",
    "images": r"^images\.h5$",
    "embeddings": r"\.embeddings\.h5$",
    "synthetic": r"/synthetic/[^/]+\.h5$",
    "predictions": r"/predictions\.h5$",
    "weights": r"\.safetensors$",
    "figures": r"^figures/",
}


@dataclass(frozen=True)
class Speed:
    """Speed of a machine, in rounds a second of one thread (`machine_speed.py`), by kind of work; 0: not known."""

    network: float = 0.0
    other: float = 0.0


@dataclass
class Rate:
    """Speed of work of one kind in one run."""

    kind: str
    unit: str
    traits: dict[str, Any]
    threads: int
    gpu: bool
    machine: str
    run: str
    jobs: int
    low: float  # units a second of one job
    middle: float
    high: float
    speed: float = 0.0  # of the machine at this kind of work, then (`machine_speed.py`); 0: not known


@dataclass
class Start:
    """Overhead of the jobs of a stage in one run, and their peak memory."""

    stage: str
    gpu: bool
    machine: str
    run: str
    jobs: int
    low: float  # seconds
    middle: float
    high: float
    memory: float | None = None  # MB, the largest job
    held: float = 0.0  # bytes of images and the like in that job
    speed: float = 0.0  # of the machine, then; 0: not known


@dataclass
class Measured:
    """All measurements of earlier runs."""

    rates: list[Rate] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    pixel_bytes: list[float] = field(default_factory=list)  # of the files of simulated cells, a pixel of a channel
    figure_bytes: list[float] = field(default_factory=list)  # of all figures, for each panel of a synthetic set

    def add(self, other: Measured) -> None:
        """Add the measurements of another object."""
        for name in ("rates", "starts", "pixel_bytes", "figure_bytes"):
            getattr(self, name).extend(getattr(other, name))

    def to_json(self) -> dict[str, Any]:
        """Content of a file of rates."""
        return {"format_version": FORMAT_VERSION} | asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Measured:
        """Measurements from a file of rates."""
        if value.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"no rates of format {FORMAT_VERSION}")
        rates, starts = [Rate(**row) for row in value["rates"]], [Start(**row) for row in value["starts"]]
        return cls(rates, starts, list(value["pixel_bytes"]), list(value["figure_bytes"]))


# Reading runs -------------------------------------------------------------------------------------------------------


@dataclass
class Timed:
    """Job of an earlier run with its duration."""

    job: Job
    seconds: float
    memory: float | None
    start: float | None
    looped: float | None  # seconds of all steps of its loops, where these are its work
    gpu: bool
    machine: str
    whole: bool  # whether it did all of its work in that time


def jobs_to_json(jobs: list[Job]) -> list[dict[str, Any]]:
    """Jobs in the form of cost.json."""
    return [asdict(job) for job in jobs]


def jobs_from_json(rows: list[dict[str, Any]]) -> list[Job]:
    """Jobs from the form of cost.json."""
    return [Job(**row | {"works": [Workload(**work) for work in row["works"]]}) for row in rows]


def benchmark(path: Path) -> tuple[float, float | None, float | None] | None:
    """Seconds, peak memory (MB) and seconds of CPU from a benchmark file; None where it cannot be read."""
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            row = list(csv.DictReader(handle, delimiter="\t"))[-1]
        return float(row["s"]), _number(row.get("max_rss")), _number(row.get("cpu_time"))
    except (OSError, IndexError, KeyError, ValueError):
        return None


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def mark_outdated(jobs: list[Job], folder: Path) -> None:
    """Set `since` of the jobs whose work has changed since the last prediction: their benchmark files are outdated.

    The works of a run as last predicted are kept beside its prediction."""
    path = folder / "cost.works.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    for job in jobs:
        works = digest([asdict(work) for work in job.works])
        before, job.since = known.get(job.key, (works, 0.0))
        if before != works and (file := _benchmark_file(folder, job)).is_file():
            job.since = file.stat().st_mtime
        known[job.key] = [works, job.since]
    write_json(path, known)


def _benchmark_file(folder: Path, job: Job) -> Path:
    return folder / "benchmarks" / job.stage / f"{job.name}.tsv"


def timed(folder: Path, prediction: dict[str, Any]) -> list[Timed]:
    """Jobs of a run that have a benchmark file."""
    out = []
    for job in jobs_from_json(prediction["jobs"]):
        file = _benchmark_file(folder, job)
        measured = benchmark(file)
        if measured is None or file.stat().st_mtime <= job.since:
            continue
        try:
            text = (folder / "logs" / job.stage / f"{job.name}.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        # Logs are appended to: the last start counts.
        text = text[max((match.start() for match in re.finditer(r", process \d+$", text, re.MULTILINE)), default=0) :]
        device = DEVICE.search(text)
        gpu = device is not None and device[1].strip() != "cpu"
        looped = _looped(text, measured[0]) if job.stage in PACED else None
        out.append(
            Timed(
                job, measured[0], _memory(measured[1], text), _start(measured[0], text, looped), looped, gpu,
                device[1].strip() if gpu else prediction["machine"], _whole(folder, job, text),
            )
        )  # fmt: skip
    return out


def _whole(folder: Path, job: Job, text: str) -> bool:
    """Whether a job did all of the work that is timed, by its log."""
    found = {words for words in PARTLY if words in text}
    return not found or (found == {KEPT} and bool(_arm_seconds(folder, job)))


def _memory(seen: float | None, text: str) -> float | None:
    """MB that a job has held: the more of what Snakemake saw now and then, and of what the job said at its end."""
    told = [float(value) for value in MEMORY.findall(text)]
    return max([*told, *([seen] if seen is not None else [])], default=None)


def _looped(text: str, most: float) -> float | None:
    """Seconds of all steps of a job's loops, at the pace that they had after their first step."""
    loops = [int(count) * float(each) / 1000 for count, each in LOOP.findall(text)]
    return min(most, sum(loops)) if loops else None


def _start(seconds: float, text: str, looped: float | None) -> float | None:
    """Seconds of a job beside its loops; else those that its log does not account for: Python, imports, and exit."""
    if looped is not None:
        return seconds - looped
    told = list(DURATION.finditer(text))
    # Hours are logged in whole minutes, too coarse for this.
    if not told or told[-1][1]:
        return None
    minutes, rest = (float(value or 0) for value in told[-1].groups()[1:])
    return max(0.0, seconds - 60 * minutes - rest)


def observed(folder: Path) -> Measured:
    """Measurements of a run; none where it has no cost.json."""
    prediction = read_prediction(folder / "cost.json")
    if prediction is None or not prediction["jobs"]:
        return Measured()
    run, jobs = prediction["run"], timed(folder, prediction)
    speed = Speed(**prediction.get("speed", {}))
    starts = _starts([job for job in jobs if job.whole], run, folder, speed)
    begun = {(start.stage, start.gpu, start.machine): start.middle for start in starts}
    seen: dict[str, tuple[Workload, Timed, list[float]]] = {}
    for job in jobs:
        if not job.whole:
            continue
        start = begun.get((job.job.stage, job.gpu, job.machine), 0.0)
        for work, seconds in _parts(folder, job, start):
            # Work counted in jobs always gives a rate. Other work needs SHORTEST seconds.
            if work.units <= 0 or (seconds < SHORTEST and work.unit != JOBS):
                continue
            seconds = max(seconds, SHORTEST)
            key = json.dumps([work.kind, work.unit, work.traits, job.job.threads, job.gpu, job.machine])
            seen.setdefault(key, (work, job, []))[2].append(work.units / seconds)
    rates = [
        Rate(work.kind, work.unit, work.traits, job.job.threads, job.gpu, job.machine, run, len(values),
             min(values), median(values), max(values), speed.network if work.unit == GFLOP else speed.other)
        for work, job, values in seen.values()
    ]  # fmt: skip
    return Measured(rates, starts, *_bytes(folder, prediction))


def _parts(folder: Path, timed_job: Timed, start: float) -> list[tuple[Workload, float]]:
    """Works of a job with the seconds of each, where these are known."""
    works = timed_job.job.works
    if len(works) == 1:
        return [(works[0], timed_job.seconds - start if timed_job.looped is None else timed_job.looped)]
    arms = _arm_seconds(folder, timed_job.job)
    # Arms that were trained side by side took longer than their job.
    if arms is not None and sum(arms.values()) <= timed_job.seconds:
        return [(work, arms[work.part]) for work in works if work.part in arms]
    if timed_job.job.stage in ("train_classifier", "sample_fold"):
        # They share its time by their work.
        whole = sum(work.units for work in works)
        spent = timed_job.seconds - start if timed_job.looped is None else timed_job.looped
        return [(work, spent * work.units / whole) for work in works]
    return []


def _arm_seconds(folder: Path, job: Job) -> dict[str, float] | None:
    """Seconds of each arm of a job, from its list of arms."""
    place = re.fullmatch(r"repeat(\d+)_fold(\d+)_(job\d+)", job.name)
    if job.stage != "train_classifier" or place is None:
        return None
    try:
        path = folder / f"repeat{place[1]}/fold{place[2]}/arms/{place[3]}.json"
        listed = json.loads(path.read_text(encoding="utf-8"))["arms"]
        return {arm["arm"]: float(arm["seconds"]) for arm in listed if not arm["reused"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _starts(jobs: list[Timed], run: str, folder: Path, speed: Speed) -> list[Start]:
    out: dict[tuple[str, bool, str], list[Timed]] = {}
    for job in jobs:
        out.setdefault((job.job.stage, job.gpu, job.machine), []).append(job)
    starts = []
    for (stage, gpu, machine), group in out.items():
        begun = []
        for job in group:
            arms = _arm_seconds(folder, job.job)
            # Reading, and the predictions of the trained arms, belong to none of them.
            own = job.start if not arms else max(0.0, job.seconds - sum(arms.values()))
            if own is not None:
                begun.append(own)
        if not begun:
            continue
        largest = max(group, key=lambda job: job.memory or 0.0)
        starts.append(
            Start(stage, gpu, machine, run, len(group), min(begun), median(begun), max(begun), largest.memory,
                  largest.job.held, speed.other)
        )  # fmt: skip
    return starts


def _bytes(folder: Path, prediction: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Bytes a pixel of the files of simulated cells, and bytes a panel of figures, where the files still exist."""
    pixels, figures = [], []
    raw = folder / "simulated" / "train"
    sizes = [path.stat().st_size for path in raw.iterdir()] if raw.is_dir() else []
    if sizes and prediction["facts"]["side"]:
        pixels.append(sum(sizes) / len(sizes) / prediction["facts"]["side"] ** 2)
    panels = sum(1 for row in prediction["jobs"] if row["stage"] == "plot_images")
    drawn = disk_used(folder).get("figures", 0)
    if panels and drawn:
        figures.append(drawn / panels)
    return pixels, figures


def disk_used(folder: Path) -> dict[str, int]:
    """Disk space of the files of a run in bytes, by kind, for the kinds that can be predicted."""
    used = dict.fromkeys(KINDS, 0)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(folder).as_posix()
            kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), None)
            if kind:
                used[kind] += -(-path.stat().st_size // BLOCK) * BLOCK
    return {kind: size for kind, size in used.items() if size}


def read_prediction(path: Path) -> dict[str, Any] | None:
    """Content of a cost.json; None where there is none of this format."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if value["format_version"] == FORMAT_VERSION and "jobs" in value else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def earlier(folder: Path, but: str) -> Measured:
    """Measurements of all runs below a folder except the named one: a run must not predict itself."""
    measured = Measured()
    for path in sorted(folder.glob("*/cost.json")):
        if path.parent.name != but:
            measured.add(observed(path.parent))
    return measured


def read(path: Path) -> Measured:
    """A file of rates."""
    try:
        return Measured.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no file of rates ({error}): make it anew by python -m benchmarks.overhead --rates {path}"
        ) from None
