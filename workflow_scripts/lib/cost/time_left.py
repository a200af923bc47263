"""Time left of a run in progress: one line with the jobs that run, how far each is, and an estimate for the whole.

The prediction (cost.json) gives seconds for each job. Jobs of this run that are finished, or far enough, correct them:
times of a stage are scaled by what that stage has taken so far, relative to its prediction. What is left is then
scheduled on the cores, as in the prediction. States are read from files: a finished job has a new benchmark file, a
running one a new log, whose lines say how far it was at which time."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from workflow_scripts.lib.base.progress import duration
from workflow_scripts.lib.cost import measured_rates, scheduling
from workflow_scripts.lib.cost.workloads import Job

FIRST, LATER, LONG = 20.0, 60.0, 600.0  # seconds between lines in the first LONG seconds, and after that
UNKNOWN = 3.0  # seconds of a job of which nothing is known: the start of Python and its imports
TRUSTED = 0.1  # part of a job from which its own pace is better than a prediction
DOUBT = (
    20.0  # seconds of work after which the pace of a stage counts as much as that of all stages, and that as much as 1
)
TAIL = 4096  # bytes at the end of a log that are looked at
PERCENT = re.compile(r"\((\d+) %\)")
PART = re.compile(r"\((\d+) of (\d+)\)")
START = re.compile(r", process \d+$", re.MULTILINE)
MOMENT = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) ", re.MULTILINE)
log = logging.getLogger("mixloc")


@dataclass
class State:
    """A job of this run: when it was first seen to run, how far it is, and its seconds once it is finished."""

    since: float | None = None
    fraction: float = 0.0
    reached: float = 0.0  # seconds after its start at which it was that far
    seconds: float | None = None
    resumed: bool = False  # it goes on from an earlier start, or keeps what that made: its own pace says nothing


def fraction_done(text: str) -> float:
    """How far a job is, by its log: (2 of 8) arms and (40 %) of the present loop are 0.175 of the whole."""
    text = _last_start(text)
    parts = list(PART.finditer(text))
    at, count = (int(value) for value in parts[-1].groups()) if parts else (1, 1)
    percents = PERCENT.findall(text[parts[-1].end() :] if parts else text)
    within = int(percents[-1]) / 100 if percents else 0.0
    return min(1.0, (at - 1 + within) / max(count, 1))


def _last_start(text: str) -> str:
    """What a job has logged since it was last started."""
    starts = list(START.finditer(text))
    return text[starts[-1].end() :] if starts else text


def went_on(text: str) -> bool:
    """Whether a job did a part of its work in an earlier start, by its log."""
    recent = _last_start(text)
    return any(words in recent for words in measured_rates.PARTLY)


def seconds_logged(text: str) -> float | None:
    """Seconds from the last start of a job to the last line of its log, by the clock of the machine that it runs on.

    None where its start is not in the text."""
    starts = list(START.finditer(text))
    if not starts:
        return None
    begin = text.rfind("\n", 0, starts[-1].start()) + 1
    moments = [time.mktime(time.strptime(found, "%Y-%m-%d %H:%M:%S")) for found in MOMENT.findall(text[begin:])]
    return max(0.0, moments[-1] - moments[0]) if moments else None


@dataclass(frozen=True)
class StageState:
    """Jobs of a stage of this run."""

    stage: str
    done: int
    running: dict[str, float]  # name of the job -> how far it is
    waiting: int
    left: float | None  # seconds of work; None where nothing predicts it


@dataclass
class Watch:
    """What is known of a run that is under way."""

    folder: Path  # results/{run}
    planned: set[str]  # keys of the jobs that Snakemake will run
    cores: int | None  # None: of a cluster, not known
    started: float  # by the clock of files
    states: dict[str, State] = field(default_factory=dict)

    def look(self, now: float) -> None:
        """Bring the states of all planned jobs up to date."""
        for key in self.planned:
            state = self.states.setdefault(key, State())
            if state.seconds is not None:
                continue
            stage, _, name = key.partition("/")
            measured = self.folder / "benchmarks" / stage / f"{name}.tsv"
            written = self.folder / "logs" / stage / f"{name}.log"
            if _newer(measured, self.started) and (found := measured_rates.benchmark(measured)) is not None:
                state.seconds = found[0]
                state.resumed = state.resumed or went_on(_tail(written))
            elif _newer(written, self.started):
                self._read(state, written, now)

    def _read(self, state: State, written: Path, now: float) -> None:
        """Bring the state of a running job up to date by its log."""
        text, last = _tail(written), min(now, written.stat().st_mtime)
        if state.since is None:
            state.since = last - (seconds_logged(text) or 0.0)
        state.resumed = state.resumed or went_on(text)
        fraction = fraction_done(text)
        if fraction != state.fraction:
            state.fraction, state.reached = fraction, last - state.since

    def left(self, now: float) -> float | None:
        """Seconds until the run ends; None as long as there is no prediction, or for an unknown number of cores."""
        estimate = self._estimate(now)
        if estimate is None:
            return None
        open_jobs, order, seconds = estimate
        # Jobs that run already wait for nothing, and keep their place.
        running = [replace(job, after=[]) for job in open_jobs if self.states[job.key].since is not None]
        waiting = [job for job in open_jobs if self.states[job.key].since is None]
        waiting.sort(key=lambda job: order.get(job.key, len(order)))
        return scheduling.schedule(running + waiting, seconds, self.cores, 0)

    def _estimate(self, now: float) -> tuple[list[Job], dict[str, int], dict[str, float]] | None:
        """Jobs that are not finished, the order of the prediction, and the seconds that each still takes."""
        prediction = measured_rates.read_prediction(self.folder / "cost.json") if self.cores is not None else None
        if prediction is None or "seconds" not in prediction:
            return None
        known = {job.key: job for job in measured_rates.jobs_from_json(prediction["jobs"])}
        jobs = [known.get(key) or Job(*key.split("/", 1), works=[]) for key in sorted(self.planned)]
        predicted = {job.key: prediction["seconds"].get(job.key) or UNKNOWN for job in jobs}
        pace = self._pace(predicted)
        seconds = {job.key: self._job_left(job, predicted[job.key] * pace(job.stage), now) for job in jobs}
        open_jobs = [job for job in jobs if self.states[job.key].seconds is None]
        order = {key: place for place, key in enumerate(known)}
        return open_jobs, order, {job.key: seconds[job.key] for job in open_jobs}

    def stages(self, now: float) -> list[StageState]:
        """Each stage of the planned jobs, in the order of the prediction."""
        estimate = self._estimate(now)
        order, left = ({}, {}) if estimate is None else estimate[1:]
        keys: dict[str, list[str]] = {}
        for key in sorted(self.planned, key=lambda key: (order.get(key, len(order)), key)):
            keys.setdefault(key.partition("/")[0], []).append(key)
        out = []
        for stage, own in keys.items():
            states = {key: self.states.get(key, State()) for key in own}
            running = {
                key.partition("/")[2]: state.fraction
                for key, state in states.items()
                if state.seconds is None and state.since is not None
            }
            done = sum(state.seconds is not None for state in states.values())
            work = sum(left.get(key, 0.0) for key in own) if estimate is not None else None
            out.append(StageState(stage, done, running, len(own) - done - len(running), work))
        return out

    def _pace(self, predicted: dict[str, float]) -> Callable[[str], float]:
        """What jobs of a stage take relative to their prediction: by that stage's own jobs, and by all together.

        Little work says little: the pace of a stage is drawn towards that of all stages, and that towards 1."""
        taken: dict[str, float] = {}
        expected: dict[str, float] = {}
        for key, state in self.states.items():
            if state.resumed:
                continue
            seconds, part = state.seconds, 1.0
            if seconds is None and state.fraction >= TRUSTED:
                seconds, part = state.reached, state.fraction
            if seconds is not None:
                for name in (key.partition("/")[0], ""):
                    taken[name] = taken.get(name, 0.0) + seconds
                    expected[name] = expected.get(name, 0.0) + predicted[key] * part
        overall = (taken.get("", 0.0) + DOUBT) / (expected.get("", 0.0) + DOUBT)
        return lambda stage: (taken.get(stage, 0.0) + DOUBT * overall) / (expected.get(stage, 0.0) + DOUBT)

    def _job_left(self, job: Job, expected: float, now: float) -> float:
        state = self.states[job.key]
        if state.seconds is not None:
            return 0.0
        if state.since is None:
            return expected
        if state.resumed:
            return expected * (1 - state.fraction)
        spent = now - state.since
        whole = state.reached / state.fraction if state.fraction >= TRUSTED else expected
        return max(whole - spent, 0.1 * whole * (1 - state.fraction))

    def line(self, now: float) -> str:
        """The line for the user."""
        done = sum(state.seconds is not None for state in self.states.values())
        left = self.left(now)
        running = [
            f"{key.replace('/', ' ')}{f' {100 * state.fraction:.0f} %' if state.fraction else ''}"
            for key, state in sorted(self.states.items())
            if state.seconds is None and state.since is not None
        ]
        told = f"{done} of {len(self.planned)} jobs done"
        told += f", about {duration(left)} left" if left is not None else ""
        return told + (f"; running: {', '.join(running)}" if running else "")


def _newer(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime >= moment
    except OSError:
        return False


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - TAIL))
            return handle.read().decode("utf-8", "replace")
    except OSError:
        return ""


def keys_of(logs: Iterable[str]) -> set[str]:
    """Keys of jobs (stage/name) from the paths of their logs: results/{run}/logs/{stage}/{name}.log.

    A name may have folders."""
    return {"/".join(Path(path).with_suffix("").parts[3:]) for path in logs}


def start(
    folder: Path,
    logs: Iterable[str],
    cores: int | None,
    say: Callable[[str], None] = lambda line: None,
    show: Callable[[Watch, float], None] = lambda watch, now: None,
) -> Watch:
    """Tell of the run in a thread of its own until this process ends; `show` gets all that is known."""
    # File systems keep time in their own steps: a file made at once must count as new.
    watch = Watch(folder, keys_of(logs), cores, (time.time() if cores is not None else file_time(folder)) - 1)

    def tell() -> None:
        begun = time.time()
        _quietly(watch, lambda line: None, show)
        while len(watch.planned) > sum(state.seconds is not None for state in watch.states.values()):
            time.sleep(FIRST if time.time() - begun < LONG else LATER)
            _quietly(watch, say, show)

    if watch.planned:
        threading.Thread(target=tell, name="time left", daemon=True).start()
    return watch


def file_time(folder: Path) -> float:
    """The present by the clock of the file system, which other machines may write to."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as handle:
        return os.fstat(handle.fileno()).st_mtime


def _quietly(watch: Watch, say: Callable[[str], None], show: Callable[[Watch, float], None]) -> None:
    """Look and tell; an estimate must never stop a run."""
    try:
        now = time.time()
        watch.look(now)
        say(f"MixLoc: {watch.line(now)}")
        show(watch, now)
    except Exception:
        log.debug("no estimate of the time left", exc_info=True)
