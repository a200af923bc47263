"""The page of a run in progress: what it shows, that it is whole and harmless, and that it fits screens."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.html_reader import Reader
from workflow_scripts.lib.compute.live_course import LiveCourse
from workflow_scripts.lib.cost.time_left import State, Watch
from workflow_scripts.lib.page import progress_content, progress_page
from workflow_scripts.lib.page.progress_page import ProgressPage

TEMPLATE = Path(progress_page.__file__).with_name("progress.html")
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run", "--hide-scrollbars"]
EVIL = "</style><script>alert(1)</script><b>"
ABOUT: dict[str, Any] = {
    "run": EVIL, "generators": ["unet", EVIL], "arms": ["real_only", "pool"], "colours": {"dna": "#3060ff"},
    "pixel_size": 0.5,
}  # fmt: skip


def write(folder: Path, kind: str, name: str, fold: int = 0, **more: Any) -> LiveCourse:
    """The course of a training of 100 steps that is at step 60, as a stage writes it."""
    about = {"kind": kind, "name": name, "repeat": 0, "fold": fold} | more
    course = LiveCourse(folder / "progress", about, 100, "digest")
    for step in range(10, 70, 10):
        score = {"validation_map": step / 100} if kind == "classifier" else {}
        course.add(step, loss=10 / step, **score)
    course._write(60)
    return course


def begin(folder: Path) -> ProgressPage:
    """A run with a finished, a running and a waiting job, two generators and an arm in training."""
    rng = np.random.default_rng(0)
    for fold in range(2):
        course = write(folder, "generator", "unet", fold, channels=["dna", "gfp", EVIL])
        for step in (30, 60):
            course.keep_strip(step, rng.integers(0, 200, (8, 3, 16, 16)).astype(np.uint8))
    write(folder, "classifier", "real_only")
    write(folder, "classifier", "gone")  # an arm that the config no longer has
    (folder / "progress" / "generator_broken.json").write_text('{"kind": "generator"')
    page = ProgressPage(folder, TEMPLATE, ABOUT)
    keys = ("make_folds/repeat0", "train_ddpm/repeat0_fold0_unet", "train_ddpm/repeat0_fold1_unet", "report/report")
    states = [State(seconds=3.0), State(since=time.time() - 20, fraction=0.6, reached=18.0), State(), State()]
    page.watch = Watch(folder, set(keys), 1, time.time(), dict(zip(keys, states, strict=True)))
    return page


@pytest.fixture
def page(tmp_path: Path) -> ProgressPage:
    return begin(tmp_path)


def text(page: ProgressPage) -> str:
    return (page.folder / "progress.html").read_text(encoding="utf-8")


def test_it_shows_stages_curves_and_samples(page: ProgressPage) -> None:
    page.show(page.watch, time.time())
    shown = text(page)
    assert "Running: 1 of 4 jobs are done" in shown and '<meta http-equiv="refresh" content="30">' in shown
    stage = re.search(r'<th scope="row">train_ddpm.*?</tr>', shown, re.DOTALL)[0]
    assert "repeat0_fold0_unet 60 %" in stage and "width:30.0%" in stage
    assert re.findall(r'class="num">(\d*)<', stage) == ["", "1", "1", ""]
    for title in ("Generators: training loss", "Classifiers: training loss", "Classifiers: validation mAP"):
        assert f"<b>{title}</b>" in shown
    assert shown.count("<polyline") == 2 + 1 + 1, "a line for each training, and none of the arm that is gone"
    assert shown.count("data:image/png;base64,") == 4 and "samples at step 60 of 100" in shown
    assert '<em style="color:#3a68ff">dna</em>' in shown and "2 µm" in shown


def test_names_cannot_leave_the_text(page: ProgressPage) -> None:
    page.show(page.watch, time.time())
    shown = text(page)
    assert not Reader(shown).open and "<script" not in shown and "alert(1)&lt;/script&gt;" in shown
    assert "default-src 'none'" in shown and not re.search(r'(src|href)="(?!data:|report)', shown), "loads nothing"


def test_the_last_page_says_what_became_of_the_run(page: ProgressPage) -> None:
    page.end(progress_page.STOPPED)
    shown = text(page)
    assert "Stopped: 1 of 4 jobs are done" in shown and 'http-equiv="refresh"' not in shown
    (page.folder / "report.html").write_text("")
    page.end(progress_page.DONE)
    assert "Finished: all 4 jobs are done" in text(page) and '<a href="report.html">' in text(page)
    page.show(page.watch, time.time())
    assert "Finished" in text(page), "a late look of the thread changes nothing"


def test_a_run_that_trains_nothing_has_no_page(tmp_path: Path) -> None:
    page = ProgressPage(tmp_path, TEMPLATE, ABOUT)
    page.start(["results/x/logs/clean_run/clean_run.log"], 1, lambda line: None)
    page.end(progress_page.DONE)
    assert not (tmp_path / "progress.html").exists()


def test_it_is_written_while_jobs_run_elsewhere_and_tells_no_time_then(tmp_path: Path) -> None:
    page = ProgressPage(tmp_path, TEMPLATE, ABOUT)
    (tmp_path / "cost.json").write_text(json.dumps({"seconds": {}, "jobs": []}))
    page.start(["results/x/logs/train_ddpm/a.log"], None, lambda line: None)
    deadline = time.monotonic() + 20
    while not (tmp_path / "progress.html").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "Running: 0 of 1 jobs are done</h1>" in text(page)
    page.watch.states["train_ddpm/a"] = State(seconds=1.0)  # ends the thread


def test_a_damaged_strip_is_left_out(page: ProgressPage) -> None:
    for path in (page.folder / "progress").glob("*fold0*60.npy"):
        path.write_bytes(b"nonsense")
    found = progress_content.courses(page.folder / "progress", ABOUT)
    assert sorted(len(one["strips"]) for one in progress_content.samples(found, ABOUT)) == [1, 2]


PROBE = """<title>?</title><iframe src='progress.html' style='width:WIDTHpx;height:844px;border:0'></iframe><script>
onload = () => {
  const page = frames[0].document.documentElement;
  document.body.dataset.told = [page.scrollWidth, page.clientWidth, frames[0].document.images.length].join();
};
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no browser here")
@pytest.mark.parametrize("width", [390, 1400])
def test_it_fits_the_screen_of_a_browser(page: ProgressPage, width: int) -> None:
    page.show(page.watch, time.time())
    (page.folder / "probe.html").write_text(PROBE.replace("WIDTH", str(width)), encoding="utf-8")
    flags = [*FLAGS, "--allow-file-access-from-files", "--disable-web-security", "--enable-logging=stderr"]
    command = [BROWSER, *flags, f"--user-data-dir={page.folder / 'profile'}", "--window-size=1500,900", "--dump-dom"]
    probe = (page.folder / "probe.html").as_uri()
    done = subprocess.run([*command, probe], capture_output=True, text=True, timeout=120)
    assert not re.search("CONSOLE.*(progress.html|Uncaught|Refused)", done.stderr), done.stderr[-2000:]
    found = next(about["data-told"] for tag, about in Reader(done.stdout).tags if tag == "body")
    assert found == f"{width},{width},4"
