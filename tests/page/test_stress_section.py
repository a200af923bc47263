"""The page's section on the stress test and its figure, from tables whose numbers are known."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.judge import stress_scores
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.page import figure_style, stress_figures
from workflow_scripts.lib.page.run_files import RunFiles
from workflow_scripts.lib.page.sections import arms_section, stress_section

ARMS = [
    {"name": "real_only", "method": "real_only"},
    {"name": "mix", "method": "pool", "control": "resampled"},
    {"name": "resampled", "method": "resample_real"},
]
ANALYSIS = {"metric": "map", "baseline": "real_only", "primary_arm": "mix", "confidence": 0.95}
CONFIG = {"stress_test": {"corruptions": ["defocus"], "declared": False, "draws": 100}}
FOUND = SimpleNamespace(metric="map", primary="mix")


def scores() -> pd.DataFrame:
    """Scores of three arms: 0.9, 0.8, 0.7 on clean images and a tenth less at each strength."""
    rows = []
    for place, arm in enumerate(ARMS):
        for metric in ("map", "macro_f1"):
            about = {"arm": arm["name"], "metric": metric, "level": "image", "repeat": "mean", "fold": "mean"}
            for strength in range(6):
                value = 0.9 - 0.1 * place - 0.1 * strength
                where = {"corruption": "defocus" if strength else "none", "strength": strength}
                rows.append(about | where | {"value": value, "low": value - 0.05, "high": value + 0.05})
            for corruption in ("all", "defocus"):
                area = {"corruption": corruption, "strength": "area", "value": 0.65 - 0.1 * place}
                rows.append(about | area | {"low": 0.1, "high": 0.7})
    return pd.DataFrame(rows, columns=stress_scores.COLUMNS)


def areas() -> pd.DataFrame:
    rows = []
    for arm, against, relation in (("mix", "real_only", "baseline"), ("mix", "resampled", "control")):
        for corruption in ("all", "defocus"):
            for metric in ("map", "macro_f1"):
                about = {"arm": arm, "against": against, "relation": relation, "metric": metric, "verdict": "hurts"}
                ends = {"difference": -0.1, "low": -0.2, "high": -0.05, "low_single": -0.15, "high_single": -0.06}
                rows.append(about | ends | {"corruption": corruption})
    return pd.DataFrame(rows, columns=stress_scores.AREA_COLUMNS)


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    (tmp_path / "figures").mkdir()
    scores().to_csv(tmp_path / "stress.csv", index=False)
    areas().to_csv(tmp_path / "stress_areas.csv", index=False)
    (tmp_path / "figures" / "stress.svg").write_text("<svg/>")
    return RunFiles(tmp_path, 1, 1, [])


def test_a_run_without_a_stress_test_has_no_section(files):
    off = {"stress_test": CONFIG["stress_test"] | {"corruptions": []}}
    assert stress_section.read(files, FOUND, off, files.folder / "report.html") is None
    assert stress_section.read(files, FOUND, {}, files.folder / "report.html") is None, "a run of an earlier version"


def test_the_table_puts_the_area_beside_the_clean_score(files):
    found = stress_section.read(files, FOUND, CONFIG, files.folder / "report.html")
    rows = found["tables"]["stress_areas"].rows
    assert [row["arm"] for row in rows] == ["real_only", "mix", "resampled"] * 2
    assert rows[0]["metric"] == "mAP", "the primary metric first"
    mix = rows[1]
    assert (mix["clean"], mix["area"][0]) == pytest.approx((0.8, 0.55))
    assert (
        mix["baseline"] == mix["control"] == pytest.approx((-0.1, -0.2, -0.05))
        and mix["verdict"] == "hurts (exploratory)"
    )
    assert "baseline" not in rows[0]
    [single] = found["tables"]["stress_corruptions"].rows
    assert single["defocus"] == pytest.approx((-0.1, -0.15, -0.06)), "each corruption by itself has single intervals"
    [setting] = found["tables"]["stress_settings"].rows
    assert setting["strengths"].startswith("0.01, 0.02")


def test_an_arm_may_be_called_none(files, tmp_path):
    for name in ("stress.csv", "stress_areas.csv"):
        path = tmp_path / name
        path.write_text(path.read_text().replace("real_only", "None"))
    shown = stress_section.read(files, FOUND, CONFIG, tmp_path / "report.html")
    assert [row["arm"] for row in shown["tables"]["stress_areas"].rows][:1] == ["None"]


def test_tables_of_another_kind_are_refused(files):
    (files.folder / "stress.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="cannot be read"):
        stress_section.read(files, FOUND, CONFIG, files.folder / "report.html")


def test_the_figure_has_a_line_for_each_arm_from_strength_0_on():
    with figure_style.style():
        fig = stress_figures.draw(scores(), Question(ANALYSIS, ARMS, 1))
    [axes] = fig.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 6]
    assert len(lines) == 3
    assert sorted(line.get_ydata()[0] for line in lines) == pytest.approx([0.7, 0.8, 0.9])
    assert axes.get_title(loc="left") == "defocus"
    assert [text.get_text() for text in fig.legends[0].texts][:3] == ["real_only", "mix", "resampled"]


def test_many_arms_stay_grey_behind_those_of_the_question():
    many = [*ARMS, *({"name": f"arm{number}", "method": "mixup"} for number in range(9))]
    looks = stress_figures.arm_looks(Question(ANALYSIS, many, 1))
    assert {looks[f"arm{number}"]["color"] for number in range(9)} == {figure_style.GRID}
    few = stress_figures.arm_looks(Question(ANALYSIS, many[:5], 1))
    assert few["arm0"]["color"] != few["arm1"]["color"] != figure_style.GRID


def test_arms_without_steps_are_named():
    arms = [{"name": "a", "backbone": "classical"}, {"name": "b"}]
    assert arms_section.fitted_at_once({"train_classifier": {"backbone": "small"}, "arms": arms}) == ["a"]
    assert arms_section.fitted_at_once({"train_classifier": {"backbone": "classical"}, "arms": arms}) == ["a", "b"]
