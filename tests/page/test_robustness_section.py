"""What the page says of folds and repeats, of strata and of the lockbox."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers import fake_run
from tests.helpers.fake_run import FakeRun
from tests.helpers.html_reader import Reader
from workflow_scripts.lib.judge import lockbox_ledger, strata
from workflow_scripts.lib.page import run_tables
from workflow_scripts.lib.page.sections import robustness_section
from workflow_scripts.lib.split import role_table

EVIL = "<img src=x onerror=alert(7)>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    """A fake run with empty figures: only its tables matter here."""
    made = FakeRun(tmp_path_factory.mktemp("run"))
    fake_run.stub_figures(made)
    return made


def page(run: FakeRun) -> str:
    """The page of the run as it is now."""
    assert fake_run.write_report(run) == 0
    return run.path("report.html").read_text(encoding="utf-8")


def words(text: str) -> str:
    return " ".join(" ".join(Reader(text).words).split())


def rows(run: FakeRun, name: str) -> list[dict[str, str]]:
    with run.path(f"tables/{name}.csv").open() as handle:
        return list(csv.DictReader(handle))


def test_spread_over_folds_and_worst_fold(run: FakeRun) -> None:
    page(run)
    metrics = pd.read_csv(run.path("metrics.csv"), dtype=str, keep_default_na=False)
    chosen = metrics.query("part == 'test' and level == 'image' and metric == 'map' and fold in ['0', '1']")
    values = chosen[chosen["class"] == ""].set_index(["arm", "fold"])["value"].astype(float)
    found = {row["arm"]: row for row in rows(run, "spread") if row["metric"] == "mAP"}
    assert set(found) == {name for name, _, _ in fake_run.ARMS}
    for arm, row in found.items():
        own = [values[arm, fold] for fold in ("0", "1")]
        assert float(row["sd_folds"]) == pytest.approx(np.std(own, ddof=1), abs=1e-7)
        assert float(row["worst"]) == pytest.approx(min(own), abs=1e-7)
        assert row["worst_at"] == f"repeat 0, fold {np.argmin(own)}"
        assert row["sd_repeats"] == ""
        beside = [values[arm, fold] - values["real_only", fold] for fold in ("0", "1")]
        if arm == "real_only":
            assert row["worst_difference"] == ""
        else:
            assert float(row["worst_difference"]) == pytest.approx(min(beside), abs=1e-7)
            assert row["worst_difference_at"] == f"repeat 0, fold {np.argmin(beside)}"


def test_spread_over_repeats() -> None:
    lines = [
        {"arm": arm, "repeat": str(repeat), "fold": fold, "part": "test", "level": "image", "metric": metric,
         "class": "", "value": value}
        for arm, gain in (("base", 0.0), ("mix", 0.1)) for metric in ("macro_f1", "map")
        for repeat, fold, value in (
            (0, "0", 0.4 + gain), (0, "1", 0.6), (0, "pooled", 0.5), (1, "0", 0.7), (1, "1", 0.8 + gain),
            (1, "pooled", 0.75), ("mean", "pooled", 0.625),
        )
    ]  # fmt: skip
    said = {"arm": "mix", "against": "base", "relation": "baseline", "metric": "macro_f1", "level": "image"}
    said |= {"class": "", "difference": 0.05, "low": 0, "high": 1, "low_single": 0, "high_single": 1, "verdict": ""}
    said |= {"standing": "confirmed"}
    analysis = {"baseline": "base", "metric": "macro_f1", "primary_arm": "mix"}
    found = run_tables.Results(pd.DataFrame(lines), pd.DataFrame([said]), analysis, {"sizes": {"repeats": 2}})
    base, mix = robustness_section.spread(found).rows[:2]
    assert base["sd_folds"] == pytest.approx(np.sqrt((0.02 + 0.005) / 2))
    assert base["sd_repeats"] == pytest.approx(np.std([0.5, 0.75], ddof=1)) and base["mean"] == 0.625
    assert (base["worst"], base["worst_at"]) == (0.4, "repeat 0, fold 0")
    assert mix["worst_difference"] == pytest.approx(0) and mix["worst_difference_at"] == "repeat 0, fold 1"


def test_what_more_repeats_would_tell(run: FakeRun) -> None:
    text = page(run)
    assert "A run of more repeats" not in words(text) and not run.path("tables/longer_runs.csv").exists()
    whole = run.path("analysis.json").read_text()
    facts = json.loads(whole)
    run_of = {"repeats": 4, "half_width": 0.08, "low": 0.06, "high": 0.1234, "detectable": 0.1111}
    facts["longer_runs"] = {"runs": [run_of, run_of | {"repeats": 8, "detectable": 0.09}], "least_half_width": 0.05}
    facts["answer"] |= {"training_luck": True, "detectable": 0.2, "power": 0.8}
    run.path("analysis.json").write_text(json.dumps(facts))
    try:
        text = words(page(run))
        found = rows(run, "longer_runs")
    finally:
        run.path("analysis.json").write_text(whole)
    first = text[: text.index("The arms")]
    assert "would be found with a power of 80 %. In a run of 4 repeats that would be a gain of about 0.111." in first
    assert [row["repeats"] for row in found] == ["1 (this run)", "4", "8", "any number"]
    assert found[1]["half_width_high"] == "0.1234" and found[3]["half_width"] == "0.05"
    assert float(found[0]["detectable"]) == 0.2 and found[3]["detectable"] == ""
    assert "0.060 to 0.123" in text and "gain found with a power of 80 %" in text


def test_strata_stand_on_the_page_and_their_names_are_text(run: FakeRun) -> None:
    whole = run.path("strata.csv").read_text()
    table = pd.read_csv(run.path("strata.csv"), keep_default_na=False)
    assert list(dict.fromkeys(table["stratum"])) == ["A", "B", "C"]
    table["stratum"] = table["stratum"].map({"A": EVIL, "B": "B", "C": "=1+1"})
    table.loc[table["stratum"] == "=1+1", ["judged", "reason"]] = [False, "at most 1 positive <test> groups"]
    table.to_csv(run.path("strata.csv"), index=False)
    try:
        text = page(run)
        found = rows(run, "strata")
    finally:
        run.path("strata.csv").write_text(whole)
    assert EVIL not in text and not [tag for tag, attrs in Reader(text).tags if "onerror" in attrs]
    assert "cell line: <img src=x onerror=alert(7)>" in words(text)
    assert "not judged: at most 1 positive <test> groups" in words(text)
    row = next(row for row in found if row["stratum"] == "cell line: B" and row["metric"] == "mAP")
    given = table.query("stratum == 'B' and metric == 'map' and arm == 'pool'").set_index("relation")
    assert float(row["arm"]) - float(row["baseline"]) == pytest.approx(float(given.loc["baseline", "difference"]))
    assert float(row["beyond_low"]) == pytest.approx(float(given.loc["control", "low"]))
    assert float(row["q"]) == pytest.approx(float(given.loc["baseline", "q"]))
    assert "Exploratory: the primary arm within each cell line" in words(text)
    run.path("strata.csv").write_text(whole.splitlines()[0] + "\n")
    try:
        assert "These images have neither cell lines nor reliability tiers." in words(page(run))
        assert not run.path("tables/strata.csv").exists()
    finally:
        run.path("strata.csv").write_text(whole)


def test_the_lockbox_on_the_first_screen(run: FakeRun) -> None:
    ledger, table = run.path("lockbox_openings.jsonl"), run.path("repeat0/folds.csv")
    before = words(page(run))
    assert "Lockbox: none." in before[: before.index("The arms")]
    roles = run.roles.copy()
    some = np.isin(run.groups, np.unique(run.groups)[:7])
    roles[some] = "lockbox"
    role_table.write(table, run.ids, run.groups, roles)
    facts = json.loads(run.path("analysis.json").read_text())
    box = lockbox_ledger.find(run.ids, run.groups, {0: roles[:, 0]})
    assert box is not None and (len(box.rows), box.groups) == (21, 7)
    result = {"answer": facts["answer"], "sizes": {"test_images": 21, "test_groups": 7, "repeats": 1}}
    entry = {"run": "tiny", "ids_digest": box.digest, "images_digest": "x", "declaration": facts["hash"], "task": "t"}
    try:
        shut = words(page(run))
        assert "Lockbox: closed. 21 images of 7 proteins are set aside" in shut[: shut.index("The arms")]
        lockbox_ledger.finish(ledger, lockbox_ledger.begin(ledger, entry), result | {"judged_classes": 3})
        once = words(page(run))
        first = once[: once.index("The arms")]
        assert (
            "Lockbox (21 images of 7 proteins, on which nothing was fitted or chosen): opened once. The result, of"
            in first
        )
        assert "On 7 unseen proteins (21 images; 3 classes judged), pool" in first
        other = entry | {"run": EVIL, "declaration": "another", "task": "u"}
        lockbox_ledger.finish(ledger, lockbox_ledger.begin(ledger, other), result | {"judged_classes": 3})
        lockbox_ledger.begin(ledger, entry | {"task": "killed"})
        text = page(run)
        twice = words(text)
        assert "opened 2 times." in twice and "begun and have no result: 1." in twice
        assert EVIL not in text and EVIL in twice
        assert [row["run"] for row in rows(run, "lockbox_openings")] == ["tiny", EVIL]
    finally:
        ledger.unlink(missing_ok=True)
        role_table.write(table, run.ids, run.groups, run.roles)


NEW = {"hash": "new", "experiment": "e"}


def test_openings_by_others_are_told() -> None:
    box = lockbox_ledger.Box(np.arange(5), 2, "d")
    ends = {"difference": 0.1, "low": 0.05, "high": 0.2, "verdict": "helps"}
    answer = ends | {"arm": "mix", "baseline": "real", "control": None, "metric": "map", "level": "image"}
    answer |= {"confidence": 0.95, "smallest_effect": 0.01, "gain_not_excluded": 0.2, "loss_not_excluded": 0.0}
    answer |= {"beyond_control": None, "control_against_baseline": None}
    sizes = {"test_images": 5, "test_groups": 2}
    entry = {"run": "a", "ids_digest": "d", "declaration": "old", "begun_at": "1", "ended_at": "2026-01-02"}
    entry |= {"result": {"answer": answer, "sizes": sizes, "judged_classes": 1}}
    found = lockbox_ledger.Openings([entry, entry | {"run": "b"}], [], 1)
    text, table = robustness_section.of_lockbox(box, found, "c", NEW, "group", "Images")
    assert "on which nothing was fitted or chosen): opened 2 times. Not by this run, but by a, b." in text
    assert "Other lockboxes of these images were opened before, 1 in number." in text and len(table.rows) == 2
    text, _ = robustness_section.of_lockbox(box, found, "b", NEW, "group", "Images")
    assert "raised mean average precision by 0.100" in text
    assert "not the first look" in text and "another analysis was declared (hash old)" in text
    found = lockbox_ledger.Openings([entry | {"declaration": "new", "experiment": "e"}], [], 0)
    for experiment, otherwise in (("e", False), ("f", True)):
        text, _ = robustness_section.of_lockbox(box, found, "a", NEW | {"experiment": experiment}, "group", "Images")
        assert ("with other settings than those on this page" in text) == otherwise


def test_a_ledger_that_is_none_is_the_users_to_mend(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    assert lockbox_ledger.read_ledger(path) == []
    for text in ("not json\n", "[]\n", '{"ids_digest": 1}\n'):
        path.write_text(text)
        with pytest.raises(lockbox_ledger.UserError, match="so mend it"):
            lockbox_ledger.read_ledger(path)
    path.write_text("")
    begun = lockbox_ledger.begin(path, {"ids_digest": "d", "run": "a", "task": "t", "declaration": "h"})
    path.write_text("")
    with pytest.raises(lockbox_ledger.UserError, match="has lost the line"):
        lockbox_ledger.finish(path, begun, {})


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_stratum_that_one_repeat_alone_tests_is_told(tmp_path: Path, repeats: int) -> None:
    row = dict.fromkeys(strata.COLUMNS, "") | {"column": "cell_line", "stratum": "A", "images": 9, "groups": 9}
    row |= {"classes": 1, "arm": "mix", "against": "real", "relation": "baseline", "judged": True, "verdict": "helps"}
    row |= dict.fromkeys(("score", "score_against", "difference", "low", "high", "q"), 0.1) | {"repeats": repeats}
    table = pd.DataFrame([row | {"metric": metric} for metric in ("macro_f1", "map")], columns=strata.COLUMNS)
    table.to_csv(tmp_path / "strata.csv", index=False)
    comparisons = pd.DataFrame(columns=["arm", "against", "relation"])
    about = {"primary_arm": "mix", "baseline": "real"}
    results = run_tables.Results(pd.DataFrame({"arm": ["real", "mix"], "class": ""}), comparisons, about, {})
    shown = robustness_section.strata(tmp_path / "strata.csv", results)
    assert ("variance between repeats" in shown.note) == (repeats == 1)
    assert shown.rows[0]["repeats"] == repeats
