"""The page: complete, escaped, self-contained, honest; and, where a browser is at hand, without errors in it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest

from tests.helpers import fake_run
from tests.helpers.fake_run import FakeRun
from tests.helpers.html_reader import Reader
from tests.page.test_map_section import made
from workflow_scripts import report
from workflow_scripts.lib.judge import inference
from workflow_scripts.lib.judge.wording import analysis_report, page_opening
from workflow_scripts.lib.page import figure_style, html_page, page_figures, run_tables
from workflow_scripts.lib.page.run_files import RunFiles
from workflow_scripts.lib.page.sections import arms_section, failures_section, other_runs_section, summary_section

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run", "--hide-scrollbars", "--enable-logging=stderr", "--v=0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    made = fake_run.drawn(tmp_path_factory)
    assert fake_run.write_report(made) == 0
    return made


@pytest.fixture(scope="module")
def text(run: FakeRun) -> str:
    return run.path("report.html").read_text(encoding="utf-8")


def test_opens_with_the_answer_in_numbers(run: FakeRun, text: str) -> None:
    words = " ".join(" ".join(Reader(text).words).split())
    answer = json.loads(run.path("analysis.json").read_text())["answer"]
    where = words.index("unseen proteins")
    assert words.index("A demonstration at small scale.") < where < words.index("The arms")
    assert f"{abs(answer['difference']):.3f}" in words[where : where + 400]
    assert page_opening.headline(answer["verdict"]) in words
    assert "Not excluded" in words
    assert "resample_real" in words[where : where + 800], "the control stands beside the answer"


def test_the_title_and_the_answer_say_what_the_groups_are(tmp_path: Path, run: FakeRun) -> None:
    wells = FakeRun(tmp_path / "wells", copy_of=run.folder)
    with h5py.File(wells.path("images.h5"), "r+") as images:
        images.attrs["grouped_by"] = "well"
    title = {"title": "Do they help on {groups} it has never seen?"}
    assert fake_run.write_report(wells, fake_run.SETTINGS | title) == 0
    page = wells.path("report.html").read_text(encoding="utf-8")
    words = " ".join(" ".join(Reader(page).words).split())
    assert "Do they help on wells it has never seen?" in words and "<title>Do they help on wells" in page
    assert "unseen wells" in words and "A well here is all images connected by a common well" in words
    assert "unseen protein" not in words


def test_the_first_screen_says_what_it_rests_on(run: FakeRun, text: str) -> None:
    words = " ".join(" ".join(Reader(text).words).split())
    first = words[: words.index("What an arm gains beyond its control")]
    facts = json.loads(run.path("analysis.json").read_text())
    assert f"The analysis (hash {facts['hash'][:8]}) of this experiment" in first and facts["hash"] not in first
    assert f"The analysis (hash {facts['hash']}) of this experiment" in words
    assert "had been made already." in first, "the made-up run predicted before it declared"
    assert "A protein here is all images connected by a common" in first
    assert "Lockbox" in first
    assert " images of 3 cell lines; " in first
    trained = {
        (synthetic_set["generator"], fold) for synthetic_set in fake_run.CONFIG["synthetic_sets"] for fold in (0, 1)
    }
    assert re.search(rf"generators trained {len(trained)}\b", first)


def test_pictures_and_figure_come_before_what_they_rest_on(text: str) -> None:
    places = [text.index(f'id="{name}"') for name in ("answer", "look", "forest", "standing", "judge")]
    assert places == sorted(places)
    look = text[places[1] : places[2]]
    assert "The generated images of as_train look like the real ones" in look, "those of the primary arm"
    for side in ("real", "generated"):
        assert re.search(rf'<img src="data:image/png;base64,[^"]+" alt="8 {side} images', look)
    assert "not selected by hand (repeat 0, fold 0)" in look
    assert 'class="scale"' in look and ">green</em>" in look, "legend and scale bar"


def test_what_generators_and_sets_cost_is_said_by_name(tmp_path: Path) -> None:
    for stage, name, seconds in (
        ("train_ddpm", "repeat0_fold0_my_unet", 60), ("train_ddpm", "repeat0_fold1_my_unet", 80),
        ("sample_ddpm", "repeat0_fold0_plan_a", 5), ("make_folds", "repeat0", 9),
        ("train_ddpm", "repeat0_fold0_renamed", 60),
    ):  # fmt: skip
        (tmp_path / stage).mkdir(exist_ok=True)
        (tmp_path / stage / f"{name}.tsv").write_text(f"s\tmax_rss\n{seconds}\t100\n")
    rows = {row["name"]: row for row in arms_section.generator_times(tmp_path, ["my_unet", "plan_a"]).rows}
    assert set(rows) == {"my_unet", "plan_a"}
    assert (rows["my_unet"]["mean"], rows["my_unet"]["longest"], rows["my_unet"]["jobs"]) == (70, 80, 2)
    assert rows["plan_a"]["what"] == "synthetic set"


def test_every_change_of_a_class_stands_in_a_table_with_its_rate_of_false_discoveries(run: FakeRun) -> None:
    table = pd.read_csv(run.path("tables/class_changes.csv"))
    made = pd.read_csv(run.path("comparisons.csv"), keep_default_na=False)
    rows = made[(made["class"] != "") & (made["relation"] == "baseline") & (made["metric"] == "f1")]
    rows = rows[rows["level"] == "image"]
    assert len(table) == len(rows) > 10
    assert np.allclose(sorted(table["q"]), sorted(rows["q"].astype(float)), atol=1e-3)
    assert set(table.loc[table["q"] > 0.05, "verdict"]) <= {"inconclusive"}
    assert "class_changes.csv" in run.path("report.html").read_text()


def test_other_runs_that_tested_the_same_images_are_listed(tmp_path: Path) -> None:
    runs = {"this": FakeRun(_folder(tmp_path / "this"), groups=40)}
    runs["larger"] = FakeRun(_folder(tmp_path / "larger"), groups=48)
    for name in ("same", "other", "broken", "cleaned", "bare"):
        runs[name] = FakeRun(tmp_path / name, groups=40, copy_of=tmp_path / "this")
    runs["cleaned"].path("images.h5").unlink()
    runs["bare"].path("images.h5").unlink()
    runs["bare"].path("repeat0/folds.csv").unlink()
    alike = other_runs_section.table(tmp_path / "this", runs["this"].path("images.h5"))
    assert [row["run"] for row in alike.rows] == ["broken", "cleaned", "larger", "other", "same"]
    # Other labels are other cells; what cannot be read is no finished run.
    with h5py.File(runs["other"].path("images.h5"), "r+") as file:
        file["labels"][...] = 1 - file["labels"][...]
    runs["broken"].path("analysis.json").write_text("{")
    fake_run.stub_figures(runs["this"])
    assert fake_run.write_report(runs["this"]) == 0
    text = runs["this"].path("report.html").read_text()
    words = " ".join(" ".join(Reader(text).words).split())
    assert "These images were tested in 3 other runs beside this one, too" in words
    listed = pd.read_csv(runs["this"].path("tables/other_runs.csv"))
    assert list(listed["run"]) == ["cleaned", "larger", "same"] and set(listed["arm"]) == {"pool"}
    assert other_runs_section.table(runs["this"].path("."), runs["other"].path("images.h5")).rows[1]["run"] == "other"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_replay_shows_the_studys_table(run: FakeRun, text: str) -> None:
    assert 'id="study"' not in text
    table = run.path("study.csv")
    table.write_text(
        "arm,method,backbone,loss,decision,validation_last,validation_best,validation,test,gap,"
        "published_validation_last,published_validation_best,published_test\n"
        'resnet18,real_only,resnet18,bce,0.5,0.51,0.62,0.61,0.4,0.21,0.64,0.648,"0.457, of <i>a</i> CNN"\n'
        "mix,mix_loss,resnet18,bce,0.5,0.3,0.4,0.4,0.3,0.1,0.245,not published,not published\n"
    )
    assert fake_run.write_report(run, more=("--study", str(table))) == 0
    shown = run.path("report.html").read_text()
    section = shown[shown.index('<h2 id="study">') :]
    section = section[: section.index("</section>")]
    assert "0.620" in section and "0.648" in section and "+0.210" in section
    assert section.count("not published") == 2 and "of &lt;i&gt;a&lt;/i&gt; CNN" in section
    assert 'href="#study"' in shown and run.path("tables/study.csv").exists()
    assert 'href="thresholds.csv"' in shown
    assert fake_run.write_report(run) == 0


def test_the_tables_of_closest_pairs_are_linked(run: FakeRun, text: str) -> None:
    for synthetic_set in fake_run.SYNTHETIC_SETS:
        for fold in (0, 1):
            link = f"repeat0/fold{fold}/synthetic/{synthetic_set}.closest.csv"
            assert f'href="{link}"' in text and run.path(link).exists()


def test_says_whether_versions_are_those_pinned(text: str) -> None:
    _, sentence = arms_section.about_pins(arms_section.versions(report.ROOT))
    words = " ".join(" ".join(Reader(text).words).split())
    assert words.index(sentence) < words.index("Run time of the stages")


def test_no_demonstration_where_none_is_declared(run: FakeRun, text: str) -> None:
    page_before = run.path("report.html").read_text()
    assert fake_run.write_report(run, fake_run.SETTINGS | {"demonstration": False}) == 0
    assert "A demonstration" not in run.path("report.html").read_text()
    assert fake_run.write_report(run) == 0
    assert run.path("report.html").read_text() == page_before, "same files, same page"


def test_text_of_users_is_escaped(text: str) -> None:
    reader = Reader(text)
    assert not [tag for tag, _ in reader.tags if tag == "script"]
    assert not [name for _, attrs in reader.tags for name in attrs if name.startswith("on")]
    for raw in ("<script", "<img src=x", "<b>made"):
        assert raw not in text
    # Where it is shown, it is shown as it is: in tables, in the title, in figures and in the settings.
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4
    assert "&lt;script&gt;alert(3)" in text
    assert "&lt;img src=x onerror=alert(2)&gt;" in text
    assert "&lt;b&gt;made&lt;/b&gt; by a test" in text


def test_nothing_is_asked_of_the_network(text: str) -> None:
    for tag, attrs in Reader(text).tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            value = (attrs.get(name) or "").strip().lower()
            assert not re.match(r"(?:[a-z]+:)?//", value), f"{tag} {name}={value[:80]}"
            assert value.startswith(("data:", "#")) or ":" not in value, f"{tag} {name}={value[:80]}"
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\((?!#)", text)


def test_pictures_have_words_and_names_are_unique(text: str) -> None:
    reader = Reader(text)
    svgs = [attrs for tag, attrs in reader.tags if tag == "svg"]
    assert len(svgs) == 13 + 2 * len(fake_run.SYNTHETIC_SETS)
    assert all(attrs["role"] == "img" and len(attrs["aria-label"] or "") > 30 for attrs in svgs)
    assert all(attrs.get("alt") for tag, attrs in reader.tags if tag == "img")
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids)), sorted(name for name in ids if ids.count(name) > 1)[:5]
    links = [value or "" for _, attrs in reader.tags for name, value in attrs.items() if name.endswith("href")]
    targets = [link[1:] for link in links if link.startswith("#")]
    assert targets and set(targets) <= set(ids), "a link leads nowhere"
    assert not reader.open, f"never closed: {reader.open}"
    assert text.startswith("<!DOCTYPE html>")


def test_the_gallery_is_linked_where_there_is_one(tmp_path: Path, run: FakeRun, text: str) -> None:
    assert "snakemake --cores 2 gallery" in text and 'href="gallery' not in text
    browsed = FakeRun(tmp_path / "browsed", copy_of=run.folder)
    browsed.path("gallery").mkdir()
    browsed.path("gallery/index.html").touch()
    assert fake_run.write_report(browsed) == 0
    page = browsed.path("report.html").read_text(encoding="utf-8")
    assert 'href="gallery/index.html"' in page and "snakemake --cores 2 gallery" not in page


def test_disk_is_told_by_stage(run: FakeRun, text: str) -> None:
    table = pd.read_csv(run.path("tables/disk_stages.csv")).set_index("what")
    sizes = [path.stat().st_size for path in run.folder.glob("repeat*/fold*/synthetic/*.h5")]
    assert table.loc["generated images", "files"] == len(sizes) and table.loc["generated images", "goes"] == "clean=yes"
    assert 0 <= table.loc["generated images", "mb"] * 1e6 - sum(sizes) < 4096 * len(sizes)
    assert table.loc["declaration and its ledger", "goes"] == "stays" and 'href="tables/disk_stages.csv"' in text


def test_linked_files_are_there_and_tables_are_csv(run: FakeRun, text: str) -> None:
    links = [attrs["href"] for tag, attrs in Reader(text).tags if tag == "a" and attrs.get("class") == "file"]
    assert all(run.path(link or "").is_file() for link in links)
    tables = {link for link in links if link and link.startswith("tables/")}
    assert len(tables) == len(list(run.path("tables").glob("*.csv"))) >= 9
    with run.path("tables/verdicts.csv").open() as handle:
        rows = {row["arm"]: row for row in csv.DictReader(handle)}
    found = run_tables.read(run.path("metrics.csv"), run.path("comparisons.csv"), run.path("analysis.json"))
    against = found.difference("pool")
    assert float(rows["pool"]["against_baseline"]) == pytest.approx(against.value)
    assert float(rows["pool"]["against_baseline_low"]) == pytest.approx(against.low)
    assert rows["mix_loss"]["control"] == "mix_loss_real"
    with run.path("tables/scores.csv").open() as handle:
        scores = {row["arm"]: row for row in csv.DictReader(handle)}
    assert next(iter(scores)) == "real_only" and len(scores) == len(fake_run.ARMS)
    assert float(scores["pool"]["map_gap"]) == pytest.approx(
        float(scores["pool"]["map_validation"]) - float(scores["pool"]["map_test"])
    )


def test_data_certificate_and_run_times(run: FakeRun, text: str) -> None:
    words = " ".join(" ".join(Reader(text).words).split())
    assert "360 images of 16 × 16 pixels with 4 channels (red, green, blue, yellow), 120 groups" in words
    assert "12 checks clean" in words
    assert "Not judged, too few positive test proteins: Rare" in words
    with run.path("tables/run_times.csv").open() as handle:
        times = {row["stage"]: row for row in csv.DictReader(handle)}
    assert float(times["train_ddpm"]["seconds"]) == 101.5
    assert float(times["train_ddpm"]["memory"]) == 812.5
    assert float(times["all stages"]["seconds"]) == pytest.approx(101.5 + 80.25 + 9.0)
    with run.path("tables/data_roles.csv").open() as handle:
        roles = list(csv.DictReader(handle))
    assert [row["fold"] for row in roles] == ["repeat 0, fold 0", "repeat 0, fold 1"]
    assert sum(int(roles[0][f"{role}_images"]) for role in ("train", "validation", "calibration", "test")) == 360


def test_prediction_stands_beside_fact(run: FakeRun, text: str) -> None:
    words = " ".join(" ".join(Reader(text).words).split())
    assert "for 2 core(s) of a <machine>, 2 cores: 0.02 core-hours (0.01 to 0.03)" in words
    assert "Not predicted, because nothing like it was measured: assess_synthetic." in words
    with run.path("tables/prediction.csv").open() as handle:
        rows = {row["stage"]: row for row in csv.DictReader(handle)}
    assert (float(rows["train_ddpm"]["predicted"]), float(rows["train_ddpm"]["measured"])) == (203.0, 101.5)
    assert float(rows["train_ddpm"]["ratio"]) == 0.5
    assert rows["assess_synthetic"]["predicted"] == rows["assess_synthetic"]["measured"] == ""
    with run.path("tables/disk.csv").open() as handle:
        disk = {row["kind"]: row for row in csv.DictReader(handle)}
    assert float(disk["images"]["predicted"]) == 2.0 and float(disk["images"]["measured"]) > 0.1


def test_data_page_tells_duplicates_map_notes_and_what_was_left_out(run: FakeRun, text: str) -> None:
    words = " ".join(" ".join(Reader(text).words).split())
    assert "Classes are those of the label map Rare from Rods & <rings>." in words
    assert "two rows were <merged>" in words
    assert (
        "Near-duplicates share a group: 1 pair. They are images whose perceptual hashes correlate by 0.95 or" in words
    )
    assert "<u>cell0005</u>" in words and "<i>x2.png</i>" in words
    assert "Not used: missing (1), truncated (1)." in words
    with run.path("tables/data_classes.csv").open() as handle:
        rows = {row["class"]: row for row in csv.DictReader(handle)}
    assert [rows[name]["judged"] for name in fake_run.CLASSES] == ["yes", "yes", "yes", "no, 5 needed"]
    assert int(rows["Rare"]["images"]) == run.labels[:, 3].sum()
    with run.path("tables/data_column_0.csv").open() as handle:
        assert [(row["value"], row["images"]) for row in csv.DictReader(handle)] == [(k, "120") for k in "ABC"]


def test_a_run_without_any_of_that_says_so(run: FakeRun) -> None:
    kept = run.path("left_out.csv").read_text()
    run.path("left_out.csv").write_text("Id,file,kind,reason\n")
    try:
        assert fake_run.write_report(run) == 0
        assert "Nothing was left out." in run.path("report.html").read_text()
        assert not run.path("tables/data_left_out.csv").exists()
    finally:
        run.path("left_out.csv").write_text(kept)
        assert fake_run.write_report(run) == 0


def test_a_leak_is_not_called_clean(run: FakeRun) -> None:
    clean = run.path("leaks.csv").read_text()
    run.path("leaks.csv").write_text(clean + "generator unet,0,0,fit,180,train,3,1,LEAK\n")
    try:
        assert fake_run.write_report(run) == 0
        leaky = run.path("report.html").read_text()
    finally:
        run.path("leaks.csv").write_text(clean)
        fake_run.write_report(run)
    assert '<p class="note bad">1 check LEAK, 12 checks clean.' in " ".join(leaky.split())
    assert 'class="alarm"' in leaky


def test_fidelity_stands_against_usefulness(run: FakeRun, text: str) -> None:
    words = " ".join(" ".join(Reader(text).words).split())
    assert words.index("Fidelity against usefulness") > words.index("How good are the generated images")
    with run.path("tables/usefulness.csv").open() as handle:
        rows = {row["arm"]: row for row in csv.DictReader(handle)}
    # Controls learn from no generated image.
    assert set(rows) == {"pool", "mix_loss", "synthetic_only"}
    found = run_tables.read(run.path("metrics.csv"), run.path("comparisons.csv"), run.path("analysis.json"))
    assert float(rows["mix_loss"]["difference_low"]) == pytest.approx(found.difference("mix_loss").low)
    assert (rows["pool"]["synthetic_set"], float(rows["pool"]["frechet"])) == ("as_train", 0.5), "mean of folds"
    assert float(rows["pool"]["frechet_real"]) == 1.5
    # No two arms here differ in their ratio: no section, and no link to one.
    assert "Ratio and guidance" not in words and 'href="#sweeps"' not in text


def test_failures_are_told_and_none_is_hidden(run: FakeRun, text: str) -> None:
    words = " ".join(" ".join(Reader(text).words).split())
    assert "2 jobs left a log. Failed at least once: 1. Without a known end at least once: none." in words
    with run.path("tables/failures.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["job"], row["started"], row["failed"], row["finished"]) for row in rows] == [
        ("train_ddpm/repeat0_fold0_unet", "2", "1", "1")
    ]
    assert rows[0]["said"] == "ValueError: <b>odd</b>"
    assert "<b>odd" not in text


DAY = fake_run.DAY


@pytest.mark.parametrize(
    ("lines", "counts", "said"),
    [
        (["INFO x, process 1", "INFO done in 3.1 s"], (1, 0, 0, 1), ""),
        (["INFO x, process 1", "INFO train 5/9", "INFO x, process 2", "INFO done in 3.1 s"], (2, 0, 1, 1), ""),
        (["INFO x, process 1", "ERROR no such file", "INFO x, process 1", "ERROR no such file"], (2, 2, 0, 0),
         "no such file (2 times)"),
        (["INFO x, process 1", "WARNING the memory does not suffice for sampling: going on with 8 images at a time",
          "WARNING 3 of 900 steps were skipped: their gradient was no number", "WARNING else", "INFO done in 1.0 s"],
         (1, 0, 0, 1), "the memory does not suffice for sampling: going on with 8 images at a time; 3 of 900 steps "
         "were skipped: their gradient was no number"),
        # Another process of the same job tells how it failed and nothing else.
        (["ERROR broken"], (1, 1, 0, 0), "broken"),
        ([], (0, 0, 0, 0), ""),
    ],
)  # fmt: skip
def test_attempts_of_a_job(lines: list[str], counts: tuple[int, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("".join(f"{DAY} {line}\n" for line in lines))
    job = failures_section.jobs(tmp_path)[0]
    assert (len(job.attempts), job.failed, job.cut_short, job.finished) == counts
    rows = failures_section.table([job]).rows
    assert bool(rows) == bool(said or job.cut_short)
    assert not rows or rows[0]["said"] == said


def test_the_page_does_not_call_itself_cut_short(tmp_path: Path) -> None:
    own = tmp_path / "report" / "report.log"
    own.parent.mkdir()
    own.write_text(f"{DAY} INFO report, process 4\n")
    assert failures_section.jobs(tmp_path, tmp_path)[0].cut_short == 1
    assert failures_section.jobs(tmp_path, own)[0].cut_short == 0
    assert failures_section.sentence([]).startswith("No log of a job was found")


def test_heavy_panels_become_links(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_figures, "PANEL_BYTES", 10)
    files = RunFiles(run.path("."), 1, 1, list(fake_run.SYNTHETIC_SETS))
    shown = page_figures.panels(files.panels("images"), run.path("report.html"), page_figures.PANEL_ALT)
    # The first synthetic set is shown whatever it weighs.
    assert [bool(panel["svg"]) for panel in shown] == [True, False]
    assert shown[1]["files"]["svg"] == "figures/images_repeat0_fold0_balanced.svg"


def test_missing_answer_is_the_users_to_mend(run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    whole = run.path("analysis.json").read_text()
    run.path("analysis.json").write_text("{}")
    try:
        assert fake_run.write_report(run) == 1
    finally:
        run.path("analysis.json").write_text(whole)
    assert "analysis.json holds no answer" in capsys.readouterr().err


def answer(verdict: str, difference: float, low: float, high: float, **more: object) -> dict:
    """An answer as the judge writes it down."""
    ends = {"difference": difference, "low": low, "high": high}
    ends |= {"low_single": low + 0.001, "high_single": high - 0.001}
    beside = {"difference": 0.01, "low": -0.01, "high": 0.03, "low_single": 0.0, "high_single": 0.02, "verdict": ""}
    return {
        "arm": "pool", "baseline": "real_only", "control": "resample_real", "metric": "macro_f1", "level": "image",
        "confidence": 0.95, **ends, "verdict": verdict, "beyond_control": beside, "control_against_baseline": beside,
        "smallest_effect": 0.02, "gain_not_excluded": max(0.0, high), "loss_not_excluded": max(0.0, -low),
        "training_luck": True,
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "confirmed", "said"),
    [
        (inference.HELPS, True, "helps"),
        (inference.HELPS, False, "helps (exploratory)"),
        (f"{inference.NO_DIFFERENCE} 0.012", False, "no difference larger than 0.012 (exploratory)"),
        (inference.INCONCLUSIVE, False, "inconclusive"),
        ("", False, "not in the family"),
    ],
)
def test_a_claim_that_the_order_of_testing_does_not_confirm_says_so(verdict: str, confirmed: bool, said: str) -> None:
    found = run_tables.Difference("real_only", 0.03, 0.01, 0.05, bool(verdict), verdict, confirmed)
    assert found.said == said
    assert figure_style.shade(found) == (figure_style.GAIN if said == "helps" else figure_style.INK)


SIZES = {"test_groups": 1048, "test_images": 2401}


BOTH = "a gain of up to 0.012 or a loss of up to 0.008"
VERDICTS = [
    (inference.HELPS, (0.031, 0.01, 0.052), "helped", "raised macro-F1 by 0.031", "any gain from 0.010 to 0.052"),
    (
        inference.NO_MORE,
        (0.031, 0.01, 0.052),
        "not provably more than the control",
        "not shown to exceed that of its control",
        "any gain",
    ),
    (inference.HURTS, (-0.031, -0.052, -0.01), "hurt", "lowered macro-F1 by 0.031", "any loss from 0.010 to 0.052"),
    (f"{inference.NO_DIFFERENCE} 0.012", (0.002, -0.008, 0.012), "no difference", "difference larger than 0.012", BOTH),
    (inference.INCONCLUSIVE, (0.01, -0.008, 0.012), "Inconclusive", "inconclusive", BOTH),
]


@pytest.mark.parametrize(("verdict", "ends", "headline", "meaning", "limits"), VERDICTS)
def test_sentence_of_every_verdict(
    verdict: str, ends: tuple[float, float, float], headline: str, meaning: str, limits: str
) -> None:
    said = page_opening.opening(answer(verdict, *ends), SIZES, judged=9)
    assert headline in said.headline
    assert said.sentence.startswith("On 1,048 unseen proteins (2,401 images; 9 classes judged), pool ")
    assert meaning in said.sentence
    assert "simultaneous 95 % interval" in said.sentence
    assert limits in said.limits
    assert "0.02" in said.limits
    assert "Its control, resample_real, raised macro-F1 by 0.010 against real_only" in said.control
    assert "pool minus resample_real is +0.010 (simultaneous 95 % interval −0.010 to +0.030)" in said.control


def test_sentences_of_the_judge_and_of_the_page_agree_on_kinds() -> None:
    """Whatever verdict the judge can reach has a headline of its own."""
    reached = {
        inference.verdict(0.01, 0.05, 0.02, (0.001, 0.02)): "helped",
        inference.verdict(0.01, 0.05, 0.02, (-0.001, 0.02)): "control",
        inference.verdict(-0.05, -0.01, 0.02): "hurt",
        inference.verdict(-0.01, 0.01, 0.02): "no difference",
        inference.verdict(-0.01, 0.05, 0.02): "Inconclusive",
    }
    assert len({page_opening.headline(said) for said in reached}) == len(reached)
    assert all(word in page_opening.headline(said) for said, word in reached.items())


def test_what_the_primary_arm_adds_is_called_what_it_is() -> None:
    facts = {"answer": {"arm": "a"}, "arms": {"a": {"method": "pool"}}}
    results = run_tables.Results(pd.DataFrame(), pd.DataFrame(), {}, facts)
    config = {"arms": [{"name": "a", "synthetic_set": "s"}], "synthetic_sets": [{"name": "s", "generator": "unet"}]}
    assert summary_section.primary_subject(results, config) == page_opening.GENERATED
    config["synthetic_sets"][0]["generator"] = "simulator"
    subject = summary_section.primary_subject(results, config)
    said = page_opening.opening(answer(inference.HELPS, 0.03, 0.01, 0.05), SIZES, 9, subject=subject)
    assert said.headline == "Images of a perfect generator helped"
    assert "No generator was trained for them." in said.sentence
    facts["arms"]["a"]["method"] = "resample_real"
    assert summary_section.primary_subject(results, config) == "The arm a"


def test_an_arm_of_real_images_is_not_called_generated() -> None:
    said = page_opening.opening(answer(inference.HELPS, 0.03, 0.01, 0.05), SIZES, 9, subject="The arm resample_real")
    assert said.headline == "The arm resample_real helped"


def test_a_loss_that_the_control_shares_is_not_laid_on_the_generated_images() -> None:
    lost = answer(inference.HURTS, -0.045, -0.078, -0.011)
    shared = lost | {"beyond_control": {"difference": 0.001, "low": -0.036, "high": 0.038}}
    own = lost | {"beyond_control": {"difference": -0.04, "low": -0.07, "high": -0.01}}
    assert page_opening.opening(shared, SIZES, 9).headline == "pool hurt, but not provably more than its control"
    assert page_opening.opening(own, SIZES, 9).headline == "Generated training images hurt"


def test_sentence_without_control_interval_or_repeats() -> None:
    bare = answer(inference.HELPS, 0.03, 0.01, 0.05, control=None, beyond_control=None, control_against_baseline=None)
    assert "No control was declared" in page_opening.opening(bare, SIZES, 1).control
    assert "no control was declared for it" in page_opening.opening(bare, SIZES, 1).sentence
    assert "1 class judged" in page_opening.opening(bare, SIZES, 1).sentence
    alone = answer(inference.INCONCLUSIVE, 0.0, -0.02, 0.02, training_luck=False)
    assert "left macro-F1 unchanged" in page_opening.opening(alone, SIZES, 9).sentence
    assert "do not contain the variance between repeats" in page_opening.opening(alone, SIZES, 9).limits
    outside = answer("", 0.01, 0.0, 0.0) | {"low": None, "high": None}
    assert "(95 % interval" in page_opening.opening(outside, SIZES, 9).sentence
    # What is tested first has the interval of a single comparison.
    first = answer(inference.HELPS, 0.03, 0.01, 0.05, low_single=0.01, high_single=0.05)
    assert "(95 % interval +0.010" in page_opening.opening(first, SIZES, 9).sentence
    assert "unseen groups" in page_opening.opening(alone, SIZES, 9, unit="group").sentence


def test_what_nobody_knows_of_a_generator_stands_beside_the_verdict(run) -> None:
    note = analysis_report.FROM_ELSEWHERE
    said = page_opening.opening(answer(inference.HELPS, 0.03, 0.01, 0.05) | {"note": note}, SIZES, 9)
    assert said.sentence.endswith(note)
    found = run_tables.read(run.path("metrics.csv"), run.path("comparisons.csv"), run.path("analysis.json"))
    assert arms_section.verdicts(found).note == ""
    found.facts["arms"]["pool"]["note"] = note
    table = arms_section.verdicts(found)
    assert table.note == f"pool: {note}"
    assert [row["arm"] for row in table.rows if row["verdict"].endswith("(see below)")] == ["pool"]


def test_cells_and_formulas_in_csv(tmp_path: Path) -> None:
    columns = [
        html_page.Column("name", "name", "name"),
        html_page.Column("d", "d", "difference"),
        html_page.Column("x", "x", "number"),
    ]
    table = html_page.PageTable("t", "caption", columns, [{"name": "=1+1", "d": (0.0001, -0.5, np.nan), "x": np.nan}])
    assert [cell[1:] for cell in table.cells(table.rows[0])] == [("=1+1", ""), ("0.000", ""), ("–", "")]
    html_page.write_tables(tmp_path / "tables", [table], "tables")
    with (tmp_path / "tables" / "t.csv").open() as handle:
        rows = list(csv.reader(handle))
    assert rows == [["name", "d", "d_low", "d_high", "x"], ["'=1+1", "0.0001", "-0.5", "", ""]]
    assert table.csv == "tables/t.csv"


def browser(page_path: Path, out: Path, *more: str) -> str:
    """Open the page in a browser without a window, take a picture, return what the browser logged."""
    command = [
        BROWSER,
        *FLAGS,
        f"--user-data-dir={out.parent / 'profile'}",
        *more,
        f"--screenshot={out}",
        page_path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


@pytest.mark.skipif(BROWSER is None, reason="no browser here")
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("light", ["--window-size=1100,1400", "--blink-settings=preferredColorScheme=1"]),
        ("dark", ["--window-size=1100,1400", "--blink-settings=preferredColorScheme=0"]),
        ("phone", ["--window-size=500,844"]),
    ],
)
def test_in_a_browser(run: FakeRun, tmp_path: Path, name: str, more: list[str]) -> None:
    from matplotlib.image import imread

    log = browser(run.path("report.html"), tmp_path / f"{name}.png", *more)
    assert "CONSOLE" not in log, log
    picture = imread(tmp_path / f"{name}.png")[..., :3]
    # The page is there: paper at the edge, and ink upon it.
    paper = picture[2, 2]
    assert (paper.mean() < 0.2) == (name == "dark")
    assert 0.02 < (np.abs(picture - paper).max(axis=-1) > 0.3).mean() < 0.5


@pytest.mark.skipif(BROWSER is None, reason="no browser here")
def test_page_never_scrolls_sideways_on_a_phone(run: FakeRun, tmp_path: Path) -> None:
    """The page inside a frame as wide as a phone reports its own width; a script in the outer page reads it."""
    probe = tmp_path / "probe.html"
    shutil.copy(run.path("report.html"), tmp_path / "report.html")
    probe.write_text(
        "<title>?</title><iframe src='report.html' style='width:390px;height:844px;border:0'></iframe><script>"
        "onload=()=>{const d=frames[0].document.documentElement;"
        "document.body.dataset.width=d.scrollWidth+' of '+d.clientWidth}</script>"
    )
    flags = [
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--allow-file-access-from-files",
        "--disable-web-security",
    ]
    command = [BROWSER, *flags, "--virtual-time-budget=4000", "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'data-width="(\d+) of (\d+)"', done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-1000:]
    assert int(found[1]) <= int(found[2]) == 390


@pytest.mark.skipif(BROWSER is None, reason="no browser here")
def test_wide_tables_use_the_space_beside_the_text_and_no_more(run: FakeRun, tmp_path: Path) -> None:
    probe = tmp_path / "probe.html"
    shutil.copy(run.path("report.html"), tmp_path / "report.html")
    probe.write_text(
        "<title>?</title><iframe src='report.html' style='width:1400px;height:844px;border:0'></iframe><script>"
        "onload=()=>{const d=frames[0].document,w=[...d.querySelectorAll('.scroll')].map(e=>e.offsetWidth);"
        "document.body.dataset.width=[d.documentElement.scrollWidth,d.querySelector('main').offsetWidth,"
        "Math.max(...w)].join(' ')}</script>"
    )
    flags = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files"]
    command = [BROWSER, *flags, "--window-size=1500,900", "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    page, text, widest = map(int, re.search(r'data-width="(\d+) (\d+) (\d+)"', done.stdout).groups())
    assert page == 1400 and text < widest < 1400


def test_png_size(run: FakeRun) -> None:
    """Figures for print are as wide as declared."""
    head = run.path("figures/arms_forest.png").read_bytes()[16:24]
    assert struct.unpack(">II", head)[0] == pytest.approx(5.4 * 200, abs=2)


def test_when_it_pays_is_shown_where_a_run_has_label_regimes(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    assert "When it pays" not in text
    run = fake_run.drawn(tmp_path_factory)
    facts = json.loads(run.path("analysis.json").read_text())
    run.path("analysis.json").write_text(json.dumps(facts | {"map": made().facts["map"]}), encoding="utf-8")
    assert fake_run.draw_arms(run) == 0
    assert fake_run.write_report(run) == 0
    page = run.path("report.html").read_text(encoding="utf-8")
    words = " ".join(" ".join(Reader(page).words).split())
    assert "generator that saw the labelled images alone help below about 60 labelled proteins" in words
    assert "never on the test part" in words and 'href="#when-it-pays"' in page
    assert len(pd.read_csv(run.path("tables/map.csv"))) == 20


def test_generators_that_draw_guide_or_serve_an_arm_are_counted_and_those_taken_over_are_not() -> None:
    names = ("unet", "small", "encoder", "theirs", "idle")
    config = {
        "generators": [{"name": name, "steps": 0 if name == "theirs" else 10} for name in names],
        "synthetic_sets": [
            {"name": "a", "generator": "unet", "guidance": {"weaker": "small"}},
            {"name": "b", "generator": "theirs", "guidance": {}},
            {"name": "c", "generator": "idle", "guidance": {}},
            {"name": "d", "generator": "simulator"},
        ],
        "arms": [{"name": "x", "generator": "encoder"}, {"name": "y", "synthetic_set": "a"}],
    }
    assert summary_section.generators(config, ["a", "b", "d"]) == {"unet", "small", "encoder"}


def test_the_rate_and_the_power_are_told_only_where_they_hold(run: FakeRun) -> None:
    told = SimpleNamespace(metric="macro_f1", facts={"answer": {"claim": "other_proteins"}, "sizes": {"repeats": 3}})
    told.analysis, told.confidence = {}, 0.95
    unknown = "not been measured for this metric and these settings"
    assert unknown in summary_section.judge_sentence(told, report.ROOT)
    told.facts["answer"] = {}
    assert unknown not in summary_section.judge_sentence(told, report.ROOT)
    for analysis, confidence in (({"refit_thresholds": False}, 0.95), ({"threshold_rule": "half"}, 0.95), ({}, 0.5)):
        told.analysis, told.confidence = analysis, confidence
        assert unknown in summary_section.judge_sentence(told, report.ROOT)
    about = {"claim": "these_proteins", "detectable": 0.04, "power": 0.8, "baseline": "real_only"}
    told.facts["answer"] = about | {"training_luck": True}
    assert "A true gain of 0.040 over real_only" in summary_section.judge_sentence(told, report.ROOT)
    told.facts["answer"] = about | {"training_luck": False}
    assert "A true gain" not in summary_section.judge_sentence(told, report.ROOT), "one repeat confirms nothing"
