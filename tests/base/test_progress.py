"""lib.base.progress: plain lines in a log, a bar in a terminal, and durations that read well."""

from __future__ import annotations

import io
import os
import pty
import re

import pytest

from workflow_scripts.lib.base import arguments, progress, stage
from workflow_scripts.lib.base.progress import Progress, duration


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the log gets."""
    logged: list[str] = []
    monkeypatch.setattr(progress.log, "info", lambda form, text: logged.append(form % text))
    return logged


def test_the_time_left_is_that_of_the_steps_so_far(clock: Clock, lines: list[str]) -> None:
    with Progress("train", total=4) as bar:
        for step in (1, 2, 3, 4):
            clock.now += 60
            bar.update(step, loss=1 / step)
    # A step takes a minute, and the first counts as one.
    assert lines == [
        "train 1/4 (25 %), loss 1, 3 min 00 s left",
        "train 2/4 (50 %), loss 0.5, 2 min 00 s left",
        "train 3/4 (75 %), loss 0.3333, 1 min 00 s left",
        "train 4/4 (100 %), loss 0.25, 60000 ms each",
    ]


def test_the_last_line_says_what_a_step_took_without_the_slow_first(clock: Clock, lines: list[str]) -> None:
    with Progress("train", total=30) as bar:
        clock.now += 5
        bar.update(10)
        for step in (20, 30):
            clock.now += 0.4
            bar.update(step)
    with Progress("read", total=2) as bar:
        clock.now += 3
        bar.update(2)
    assert [line.rsplit(", ", 1)[1] for line in lines if "100 %" in line] == ["40 ms each", "3000 ms each"]


def test_a_slow_loop_has_a_line_before_its_first_tenth(clock: Clock, lines: list[str]) -> None:
    with Progress("read", total=1000, line_every=30) as bar:
        for step in range(1, 6):
            clock.now += 20
            bar.update(step)
    assert [line.split(" (")[0] for line in lines] == ["read 2/1000", "read 4/1000"], "after 40 s and 80 s"


def test_a_bar_is_redrawn_at_most_five_times_a_second(clock: Clock) -> None:
    terminal = Terminal()
    with Progress("train", total=1000, stream=terminal) as bar:
        for step in range(1, 101):
            clock.now += 0.01
            bar.update(step)
    assert 4 <= terminal.getvalue().count("train ") <= 6
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_loops_that_run_side_by_side_draw_no_bar(clock: Clock, lines: list[str]) -> None:
    terminal = Terminal()
    with Progress("train", total=2, stream=terminal, bar=False) as bar:
        bar.update(2)
    assert terminal.getvalue() == "" and len(lines) == 1


def test_progress_without_a_terminal_is_plain_lines(tmp_path, capsys):
    words = ["--settings", "{}", "--log", str(tmp_path / "train.log")]
    args = arguments.parser("train: it does.").parse_args(words)

    def work() -> None:
        with Progress("train", total=200) as bar:
            for step in range(1, 201):
                bar.update(step, loss=0.03125)

    assert stage.run("train", args, work) == 0
    shown = capsys.readouterr().err
    for text in (shown, args.log.read_text()):
        assert len(re.findall(r"train \d+/200 \(\d+ %\), loss 0\.03125, .* (?:left|each)", text)) == 10
        assert not set("\r\x1b█░") & set(text)
    assert re.search(r"train 200/200 \(100 %\), loss 0.03125, \S+ ms each", shown)


def test_progress_that_is_resumed_counts_only_its_own_steps(clock: Clock, lines: list[str]) -> None:
    with Progress("train", total=100, line_every=0.5) as bar:
        # One second for the first step of this process, and 10 more to go.
        clock.now += 1
        bar.update(90)
    assert lines == ["train 90/100 (90 %), 10 s left"]


def test_progress_in_a_terminal_is_a_bar():
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as terminal:
        with Progress("train", total=4, stream=terminal) as bar:
            bar.update(4, loss=0.5)
        raw = b""
        while raw.count(b"\x1b[K") < 2:
            raw += os.read(leader, 10_000)
    os.close(leader)
    shown = raw.decode()
    assert "\r\x1b[K" + "█" * 24 + " train 4/4 (100 %), loss 0.5" in shown
    assert shown.endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (-1, "0.0 s"), (9.5, "9.5 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s")]
    + [(3599.8, "1 h 00 min"), (7800, "2 h 10 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
