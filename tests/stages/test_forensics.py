"""Designs, attribution and the stages of the replay: planted effects are found, and what is aliased is said."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.arms_data import SECTION
from tests.helpers.generating import MINIMAL, SYNTHETIC_SET, UNET
from workflow_scripts import certify_leaks, forensics, replay_study
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.page import html_page
from workflow_scripts.lib.page.sections import forensics_section
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.study import designs, effect_estimates, switches

TEN = list("abcdefghij")


# Designs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "runs", "notation", "resolution"),
    [(10, 32, "2^(10-5)", 4), (8, 16, "2^(8-4)", 4), (6, 32, "2^(6-1)", 4), (4, 8, "2^(4-1)", 4), (3, 8, "2^3", None),
     (16, 32, "2^(16-11)", 4), (2, 32, "2^2", None)],
)  # fmt: skip
def test_a_fraction_is_orthogonal_and_has_the_resolution_it_states(count, runs, notation, resolution):
    design = designs.fraction([f"f{number}" for number in range(count)], runs)
    assert (design.notation, design.resolution) == (notation, resolution)
    size = len(design.signs)
    assert np.array_equal(design.signs.T @ design.signs, size * np.eye(count))
    assert (design.signs.sum(axis=0) == 0).all()
    assert (design.signs[0] == 1).all() and (design.signs[-1] == -1).all(), "both ends are runs"
    # No main effect is aliased with an interaction of two: the resolution, found without the generators.
    pairs = [design.signs[:, a] * design.signs[:, b] for a, b in itertools.combinations(range(count), 2)]
    assert all(abs(column @ design.signs).max() == 0 for column in pairs)


def test_aliases_are_the_columns_that_are_equal():
    design = designs.fraction(TEN, 32)
    place = {name: number for number, name in enumerate(TEN)}

    def column(word):
        return np.prod([design.signs[:, place[name]] for name in word], axis=0)

    for word in design.words:
        assert (column(word) == 1).all()
    for name in TEN:
        told = set(design.aliases(frozenset(name)))
        equal = {
            frozenset(word)
            for size in (2, 3)
            for word in itertools.combinations(TEN, size)
            if (column(word) == column(name)).all()
        }
        assert told == equal and equal
    for found in design.interaction_sets():
        assert all((column(word) == column(found[0])).all() for word in found)
    assert sum(map(len, design.interaction_sets())) == 45, "all pairs of ten are aliased with another in 32 runs"


def test_a_restricted_design_forgets_what_does_not_act():
    design = designs.fraction(TEN, 32)
    some = design.restricted(["a", "b", "d", "f"])  # f = a × b × c, and c does not act
    assert some.notation == "2^4" and len(some.signs) == 16 and not some.aliases(frozenset("f"))
    word = design.restricted(["a", "b", "c", "f"])
    assert word.resolution == 4 and len(word.signs) == 8
    assert [designs.said(found, word.factors) for found in word.aliases(frozenset("f"))] == ["a × b × c"]


def test_too_many_factors_for_the_runs_are_refused():
    with pytest.raises(ValueError, match="8 factors at resolution IV, not 10"):
        designs.fraction(TEN, 16)


def test_shapley_shares_add_up_and_find_who_did_it():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 16))
    fractions = designs.shapley(values)
    assert np.allclose(fractions.sum(axis=-1), values[:, -1] - values[:, 0])
    on = np.array([list(levels.values()) for levels in designs.combinations_of(list("abcd"))], dtype=float)
    # Additive: each its own. A product of two: half each.
    assert np.allclose(designs.shapley(on @ [1.0, -2.0, 0.5, 0.0]), [1.0, -2.0, 0.5, 0.0])
    assert np.allclose(designs.shapley(on[:, 0] * on[:, 3]), [0.5, 0, 0, 0.5])
    assert np.allclose(designs.main_effects(on @ [1.0, -2.0, 0.5, 0.0]), [1.0, -2.0, 0.5, 0.0])
    assert designs.combinations_of([]) == [{}] and designs.shapley(np.ones((3, 1))).shape == (3, 0)


# Attribution ----------------------------------------------------------------------------------------------------------

AFTER = ["p", "q"]


def planted(rng, places: int = 4, noise: float = 0.02, spread: float = 0.0) -> tuple[pd.DataFrame, designs.Design]:
    """Scores in which a moves validation by 0.1, b test by -0.06, p test by -0.2, and b × c (aliased) both by 0.03."""
    design = designs.fraction(TEN, 32)
    lines = []
    for place, (row, signs) in itertools.product(range(places), enumerate(design.signs)):
        level = dict(zip(TEN, signs, strict=True))
        luck = rng.normal(0, noise)
        own = 0.1 + (spread * np.random.default_rng(place).normal() if spread else 0.0)
        for state in designs.combinations_of(AFTER):
            both = 0.5 + 0.02 * place + luck + 0.015 * level["b"] * level["c"]
            values = {
                "validation": both + own / 2 * level["a"],
                "test": both - 0.03 * level["b"] - 0.2 * state["p"] - 0.1 * state["p"] * (level["d"] > 0),
            }
            for part, value in values.items():
                lines.append(
                    {"repeat": place, "fold": 0, "row": row, "model": "m", "part": part, "metric": "map"}
                    | {"value": value} | {name: int(sign > 0) for name, sign in level.items()}
                    | {name: int(on) for name, on in state.items()}
                )  # fmt: skip
    return pd.DataFrame(lines), design


def taken(table: pd.DataFrame, design: designs.Design) -> pd.DataFrame:
    found = effect_estimates.response(table.sample(frac=1, random_state=1), design, "m", "map", TEN, AFTER)
    return effect_estimates.table_of(list(effect_estimates.effects(found, 0.95)))


def one(lines: pd.DataFrame, switch: str, outcome: str, kind: str = "main", at: str = "mean") -> pd.Series:
    chosen = lines[(lines["switch"] == switch) & (lines["outcome"] == outcome) & (lines["kind"] == kind)]
    chosen = chosen[chosen["at"] == at]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_planted_effects_are_found_with_sign_and_size():
    lines = taken(*planted(np.random.default_rng(2)))
    wanted = {
        ("a", "validation"): 0.1, ("a", "test"): 0.0, ("a", "gap"): 0.1, ("b", "test"): -0.06, ("b", "gap"): 0.06,
        ("p", "validation"): 0.0, ("p", "test"): -0.25, ("p", "gap"): 0.25, ("d", "test"): -0.05,
    }  # fmt: skip
    for (switch, outcome), value in wanted.items():
        row = one(lines, switch, outcome)
        assert row["effect"] == pytest.approx(value, abs=0.02), (switch, outcome)
        assert row["low"] <= row["effect"] <= row["high"]
        assert (row["low"] > 0 or row["high"] < 0) == (value != 0), (switch, outcome)
    assert one(lines, "d × p", "test", "interaction")["effect"] == pytest.approx(-0.1, abs=0.01)
    assert one(lines, "d", "test", at="mixloc")["effect"] == pytest.approx(0.0, abs=0.02)
    assert one(lines, "d", "test", at="study")["effect"] == pytest.approx(-0.1, abs=0.02)
    assert one(lines, "q", "gap")["effect"] == pytest.approx(0, abs=1e-9)
    assert one(lines, "p", "test", "shapley")["effect"] == pytest.approx(-0.25, abs=1e-6)
    total = one(lines, "all after training", "test", "total")["effect"]
    assert total == pytest.approx(-0.25, abs=1e-6)
    # Ends: a, b, p with d on, whatever the aliased interaction does.
    assert one(lines, "all", "test", "ends", "study")["effect"] == pytest.approx(-0.06 - 0.3, abs=0.05)
    said = effect_estimates.sentence(lines, "m", "map")
    assert "; test: p (−0.2" in said and "holding zero: validation: a (+0." in said
    # f = a × b × c: it is told that they cannot be kept apart.
    assert "a × b × c" in one(lines, "f", "gap")["aliases"] and one(lines, "p", "gap")["aliases"] == "none"


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    design = designs.fraction(TEN, 32)
    for between in (0.0, 0.05):
        held, count = 0, 0
        for _ in range(150):
            effects = np.zeros((4, 10)) + between * rng.normal(size=(4, 10))
            response = 0.1 * np.arange(4)[:, None] + effects @ design.signs.T + rng.normal(0, 0.05, (4, 32))
            for found in effect_estimates.estimates(response, design.signs, 0.95)[1:]:
                held, count = held + (found.low <= 0 <= found.high), count + 1
        assert held / count > 0.93, between


def test_few_places_rest_on_residuals_and_a_single_run_on_nothing():
    design = designs.fraction(TEN, 32)
    response = np.random.default_rng(4).normal(size=(2, 32))
    assert {found.interval for found in effect_estimates.estimates(response, design.signs, 0.95)} == {"residual"}
    lonely = effect_estimates.estimates(response[:1, :1], np.zeros((1, 0)), 0.95)[0]
    assert lonely.interval == "none" and np.isnan(lonely.low)


def test_missing_scores_are_told():
    table, design = planted(np.random.default_rng(5), places=2)
    broken = table[~((table["repeat"] == 1) & (table["row"] == 3) & (table["part"] == "test"))]
    with pytest.raises(effect_estimates.UserError, match="model m on test are not complete: 4 are missing of 256"):
        taken(broken, design)


# The stages -----------------------------------------------------------------------------------------------------------

SWITCHES = ["no_time", "shown_larger", "image_split", "uniform_prior", *switches.SWITCHES][:4]
SWITCHES += ["test_in_training_mode", "test_batch_of_one", "last_epoch", "thresholds_on_reported"]
SMALL = {"widths": [8, 8], "steps": 2, "batch": 4}
STUDY = {
    "forensics": {
        "models": [
            {"name": "mix", "method": "mix_loss", "backbone": "small"},
            {"name": "plain", "method": "real_only", "backbone": "small"},
        ],
        "switches": SWITCHES, "runs": 8, "repeats": 1, "shards": 1, "count": 8, "shown_from": 16,
        "training": {"steps": 4, "batch": 8, "checkpoints": 2}, "synthetic_sets": {"study": "s", "mixloc": "m"},
        "plateau": {"factor": 0.1, "patience": 1}, "metric": "map", "confidence": 0.9,
    },
    "replay": dict.fromkeys(switches.SWITCHES, True) | {"premultiplied_alpha": False},
    "train_classifier": SECTION,
    "synthetic_sets": {
        "study": SYNTHETIC_SET | {"sampler": "ancestral", "evaluations": 3, "batch": 8,
                         "guidance": {"scale": 1, "interval": [0, 1000]}},
        "mixloc": SYNTHETIC_SET | {"evaluations": 2, "batch": 8},
    },
    "generators": {"study": MINIMAL | SMALL, "mixloc": UNET | SMALL},
    "minimum_calibration_groups": 2,
    "threads": 1,
}  # fmt: skip
ROLES = ("train", "train", "train", "validation", "calibration", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set of 120 images of 30 proteins, and the replay of its only fold, made by the stages."""
    out = tmp_path_factory.mktemp("replay")
    rng = np.random.default_rng(6)
    labels = (rng.random((120, 3)) < 0.5).astype(np.uint8)
    images = rng.integers(0, 90, (120, 4, 32, 32)) + 90 * labels[:, [0, 1, 2, 0], None, None]
    groups = [f"g{number // 4:02d}" for number in range(120)]
    ids = [f"i{number:03d}" for number in range(120)]
    with write_images(out / "images.h5", list("rgby"), list("abc"), 32, {"grouped_by": "gene"}) as writer:
        writer.append(images.astype(np.uint8), labels, ids, groups)
    roles = np.array([[ROLES[number // 4 % 6]] for number in range(120)], dtype=object)
    role_table.write(out / "folds.csv", np.array(ids), np.array(groups), roles)
    assert replayed(out) == 0
    return out


def replayed(folder, name: str = "0", shard: int = 0, **changes) -> int:
    settings = STUDY | {"forensics": STUDY["forensics"] | changes}
    return replay_study.main(
        ["--images", str(folder / "images.h5"), "--folds", str(folder / "folds.csv"), "--repeat", "0", "--fold", "0"]
        + ["--shard", str(shard), "--seed", "4", "--work", str(folder / "work"), "--settings", json.dumps(settings)]
        + ["--scores", str(folder / f"{name}.csv"), "--record", str(folder / f"{name}.fitted.json")]
        + ["--log", str(folder / "log.txt")]
    )


def certified(folder, violations: list[str]) -> int:
    return certify_leaks.main(
        ["--images", str(folder / "images.h5"), "--folds", f"0={folder / 'folds.csv'}", "--thresholds"]
        + ["--artefacts", str(folder / "0.fitted.json"), "--out", str(folder / "leaks.csv")]
        + ["--settings", json.dumps({"violations": violations, "encoder": "baseline"}), "--log", str(folder / "l.txt")]
    )


def declared() -> list[str]:
    return switches.violations(STUDY)


def test_every_row_has_every_combination_for_every_model(folder):
    table = pd.read_csv(folder / "0.csv")
    # 8 rows, 16 combinations after training, two models, two parts, three metrics.
    assert len(table) == 8 * 16 * 2 * 2 * 3
    keys = ["row", "model", "part", "metric", *SWITCHES[4:]]
    assert not table.duplicated(keys).any() and table["value"].between(0, 1).all()
    assert (table["lambda_averaged"] == 1).all(), "what is not varied rests where the config says"
    # What acts at the test leaves validation alone.
    seen = table[(table["part"] == "validation") & (table["metric"] == "map")]
    assert (seen.groupby(["row", "model", "last_epoch"])["value"].nunique() == 1).all()
    # The plain model knows of the split alone: two trainings, which the rows share.
    plain = table[(table["model"] == "plain") & (table["metric"] == "map") & (table["part"] == "test")]
    assert (plain.groupby(["image_split", *SWITCHES[4:]])["value"].nunique() == 1).all()
    units = list((folder / "work" / "units").glob("*.json"))
    assert len(units) == 8 + 2
    # no_time, shown_larger and image_split make 8 generators; uniform_prior is their product here.
    assert len(list((folder / "work" / "generators").glob("*.safetensors"))) == 8


def test_finished_units_are_found_again_and_shares_add_up(folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.*")}
    for shard in range(2):
        assert replayed(folder, f"shard{shard}", shard, shards=2) == 0
    parts = pd.concat([pd.read_csv(folder / f"shard{shard}.csv") for shard in range(2)])
    whole = pd.read_csv(folder / "0.csv")
    keys = ["row", "model", "part", "metric", *SWITCHES[4:]]
    assert parts.sort_values(keys).reset_index(drop=True).equals(whole.sort_values(keys).reset_index(drop=True))
    assert {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.*")} == before


def test_a_unit_that_cannot_be_read_is_made_again(folder):
    path = sorted((folder / "work" / "units").glob("*.json"))[0]
    before = path.read_text()
    path.write_text(before[:50])
    assert replayed(folder, "again") == 0
    assert path.read_text() == before and (folder / "again.csv").read_bytes() == (folder / "0.csv").read_bytes()


def test_the_certificate_finds_what_is_declared_and_nothing_else(folder, capsys):
    assert certified(folder, declared()) == 0
    table = pd.read_csv(folder / "leaks.csv")
    found = table[table["status"] == "declared"]
    assert {f"{row.artefact}:{row.purpose}" for row in found.itertuples()} == set(declared())
    split = found[found["purpose"] == "fit"]
    # One protein on both sides: groups of the validation part among those that were fitted on.
    assert len(split) == 2 and (split["overlap_groups"] >= 3).all()
    with ImageSet(folder / "images.h5") as source:
        tested = len(role_table.rows(folder / "folds.csv", 0, source.ids, "test"))
    scored = table[table["purpose"] == "scored"]
    assert len(scored) == 4 and (scored["images"] == tested).all() and (scored["status"] == "clean").all()
    # Undeclared it is a leak; declared but absent it is a mistake.
    assert certified(folder, [name for name in declared() if "mix image_split" not in name]) == 1
    assert "LEAK: replay mix image_split" in capsys.readouterr().err
    assert certified(folder, [*declared(), "replay mix:fit"]) == 1


def test_a_replay_that_read_a_test_image_fails(folder, tmp_path):
    record = json.loads((folder / "0.fitted.json").read_text())
    clean = next(entry for entry in record["fitted"] if entry["name"] == "replay plain")
    own = AccessRecord.from_json(clean["access_record"])
    own.record("fit", own.of("score")[:1])
    clean["access_record"] = own.to_json()
    before = (folder / "0.fitted.json").read_text()
    try:
        (folder / "0.fitted.json").write_text(json.dumps(record))
        assert certified(folder, declared()) == 1
    finally:
        (folder / "0.fitted.json").write_text(before)


@pytest.fixture(scope="module")
def taken_apart(folder):
    assert certified(folder, declared()) == 0
    status = forensics.main(
        ["--scores", str(folder / "0.csv"), "--leaks", str(folder / "leaks.csv"), "--seed", "4"]
        + ["--table", str(folder / "forensics.csv"), "--facts", str(folder / "forensics.json")]
        + ["--figure", str(folder / "figures" / "forensics.svg"), "--settings", json.dumps(STUDY)]
        + ["--log", str(folder / "log.txt")]
    )
    assert status == 0
    return folder


def test_forensics_states_its_design_and_draws(taken_apart):
    facts = json.loads((taken_apart / "forensics.json").read_text())
    assert facts["design"]["notation"] == "2^(4-1)" and facts["design"]["resolution"] == 4
    assert facts["models"]["plain"]["notation"] == "2^1" and facts["models"]["plain"]["trainings"] == 2
    assert facts["design"]["generators"] == {"uniform_prior": "no_time × shown_larger × image_split"}
    assert facts["design"]["rows"][0] == SWITCHES[:4] and facts["design"]["rows"][-1] == []
    assert facts["settings"]["synthetic_sets"]["study"]["evaluations"] == 3
    assert facts["violations"] == sorted(declared()) and "Choices that moved mix" in facts["sentence"]
    table = pd.read_csv(taken_apart / "forensics.csv", keep_default_na=True)
    assert set(table["outcome"]) == set(effect_estimates.OUTCOMES) and set(table["metric"]) == set(forensics.METRICS)
    own = table[(table["model"] == "mix") & (table["kind"] == "main") & (table["at"] == "mean")]
    assert set(own["switch"]) == set(SWITCHES)
    by_hand = pd.read_csv(taken_apart / "0.csv").query("model == 'mix' and metric == 'map' and part == 'test'")
    for name in ("shown_larger", "test_in_training_mode"):
        means = by_hand.groupby(name)["value"].mean()
        row = own[(own["switch"] == name) & (own["outcome"] == "test") & (own["metric"] == "map")].iloc[0]
        assert row["effect"] == pytest.approx(means[1] - means[0], abs=2e-6)
    for kind in ("svg", "pdf", "png"):
        assert (taken_apart / "figures" / f"forensics.{kind}").stat().st_size > 1000


TEMPLATE = Path(forensics_section.__file__).parents[1] / "report.html"


def rendered(shown: dict | None) -> str:
    """The section of the page by itself: the template's macros, and what stands between its marks."""
    text = TEMPLATE.read_text(encoding="utf-8")
    start = text.index("{% if replayed %}\n<section")
    section = text[start : text.index("</section>", start)] + "</section>{% endif %}"
    return html_page.render(text[: text.index("{{ head }}")] + section, {"replayed": shown})


def test_the_page_has_a_section_where_the_files_are(taken_apart, tmp_path):
    assert forensics_section.read(None, tmp_path) is None
    assert forensics_section.read(tmp_path / "forensics.json", tmp_path) is None
    shown = forensics_section.read(taken_apart / "forensics.json", taken_apart / "report.html")
    assert shown["models"] == ["forensics_mix", "forensics_plain"] and shown["csv"] == "forensics.csv"
    html_page.write_tables(taken_apart / "tables", list(shown["tables"].values()), "tables")
    cells = [
        text
        for row in shown["tables"]["forensics_mix"].rows
        for _, text, _ in shown["tables"]["forensics_mix"].cells(row)
    ]
    assert "image_split" in cells and len(shown["tables"]["forensics_fractions"].rows) == 2 * (4 + 2)
    shown["facts"]["sentence"] = "mix <script>alert(1)</script>"
    shown["figure"] = {"svg": "", "files": {"svg": "figures/forensics.svg"}}
    text = rendered(shown)
    assert "2^(4-1), in 8 runs of resolution 4, at 1 place " in text
    assert "uniform_prior = no_time × shown_larger × image_split" in text
    assert "&lt;script&gt;alert(1)" in text and "<script>" not in text
    assert "replay mix image_split:fit" in text and rendered(None) == ""
