"""The lockbox: shut until it is asked for, scored by what stands, and every opening in the ledger, once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score

from tests.helpers import arms_data
from tests.helpers.checkout import ROOT, Checkout
from tests.helpers.worlds import ANALYSIS
from workflow_scripts import aggregate_metrics, certify_leaks, declare_analysis, open_lockbox, train_classifier
from workflow_scripts.lib.classify import classifier_file
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet, Part
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.judge import lockbox_ledger
from workflow_scripts.lib.judge import thresholds as thresholds_module
from workflow_scripts.lib.judge.analysis_choices import LEVELS, METRICS
from workflow_scripts.lib.scores import ranking_metrics
from workflow_scripts.lib.scores.prediction_file import PARTS, read_predictions
from workflow_scripts.lib.split import role_table

GROUPS, IMAGES = 60, 4  # of each group
ARMS = [
    {"name": "real_only", "method": "real_only"},
    {"name": "mix", "method": "mix_loss", "synthetic_set": "p", "control": "mix_real"},
    {"name": "mix_real", "method": "mix_loss_real", "synthetic_set": "p"},
    {"name": "bystander", "method": "balanced_real"},
]
OWN = ANALYSIS | {"draws": 60, "minimum_positive_groups": 4, "minimum_calibration_groups": 3}
NAMES = ("mix", "mix_real", "real_only")


class Run:
    """The files of a run, and the programs that end with the lockbox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / name

    def manifests(self) -> list[Path]:
        return [self.path(f"fold{fold}/job0.json") for fold in (0, 1)]

    def judge(self, **changes: object) -> dict:
        """Declare, aggregate and certify; the settings of the analysis."""
        analysis = OWN | changes
        settings = json.dumps(analysis | {"arms": ARMS})
        declared = json.dumps(analysis | {"arms": ARMS, "experiment": {}})
        words = ["--run-folder", str(self.folder), "--ledger", str(self.path("declarations.jsonl"))]
        declaration = ["--declaration", str(self.path("declaration.json"))]
        assert declare_analysis.main([*words, "--out", declaration[1], "--settings", declared]) == 0
        arms = ["--arms", *map(str, self.manifests())]
        for name in ("metrics.csv", "comparisons.csv", "thresholds.csv", "analysis.json"):
            arms += [f"--{name.split('.')[0]}", str(self.path(name))]
        assert aggregate_metrics.main([*arms, *declaration, "--seed", "1", "--settings", settings]) == 0
        words = ["--images", str(self.path("images.h5")), "--folds", f"0={self.path('folds.csv')}", "--artefacts"]
        words += [*map(str, self.manifests()), "--thresholds", str(self.path("analysis.json"))]
        words += ["--out", str(self.path("leaks.csv")), "--settings", '{"violations": []}']
        assert certify_leaks.main(words) == 0
        return analysis

    def open(self, analysis: dict = OWN, run: str = "first") -> int:
        """Run the stage; its exit status."""
        settings = {"run": run, "analysis": analysis, "arms": ARMS, "threads": 1}
        words = ["--images", str(self.path("images.h5")), "--folds", f"0={self.path('folds.csv')}"]
        words += ["--arms", *map(str, self.manifests()), "--ledger", str(self.path("ledger.jsonl"))]
        for name in ("declaration.json", "analysis.json", "thresholds.csv", "leaks.csv"):
            words += [f"--{name.split('.')[0]}", str(self.path(name))]
        words += ["--table", str(self.path("lockbox.csv")), "--out", str(self.path("lockbox.json"))]
        return open_lockbox.main([*words, "--seed", "1", "--settings", json.dumps(settings)])

    def ledger(self) -> list[dict]:
        path = self.path("ledger.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def locked(self) -> np.ndarray:
        """Row numbers of the lockbox."""
        return np.flatnonzero(pd.read_csv(self.path("folds.csv"))["fold0"] == "lockbox")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    """Two folds with a lockbox, four arms trained for a second or two, and judged."""
    run = Run(tmp_path_factory.mktemp("run"))
    images, labels = arms_data.cells(GROUPS * IMAGES, 1)
    ids = [f"i{index:03d}" for index in range(GROUPS * IMAGES)]
    owner = np.arange(GROUPS * IMAGES) // IMAGES
    cycle = ["lockbox", "train", "train", "validation", "calibration", "test"]
    other = ["lockbox", "test", "calibration", "train", "train", "validation"]
    roles = np.array([[cycle[group % 6], other[group % 6]] for group in owner], dtype=object)
    with write_images(run.path("images.h5"), arms_data.CHANNELS, arms_data.CLASSES, 16, {"grouped_by": "gene"}) as out:
        out.append(images, labels, ids, [f"g{group}" for group in owner])
    role_table.write(run.path("folds.csv"), np.array(ids), np.array([f"g{group}" for group in owner]), roles)
    settings = {"arms": ARMS, "train_classifier": arms_data.SECTION, "threads": 1}
    for fold in (0, 1):
        words = ["--images", str(run.path("images.h5")), "--folds", str(run.path("folds.csv")), "--repeat", "0"]
        made = run.path(f"syn{fold}.h5")
        with ImageSet(run.path("images.h5")) as source:
            record = AccessRecord(source.digest, len(source))
        record.record("fit", np.flatnonzero(roles[:, fold] == "train")[:9])
        with write_images(made, arms_data.CHANNELS, arms_data.CLASSES, 16, {"access_record": record.to_json()}) as out:
            out.append(*arms_data.cells(30, 2), [f"syn-{index}" for index in range(30)], ["synthetic"] * 30)
        words += ["--fold", str(fold), "--arms-dir", str(run.path(f"fold{fold}")), "--seed", "1"]
        words += ["--synthetic", f"p={made}"]
        words += ["--manifest", str(run.path(f"fold{fold}/job0.json")), "--settings", json.dumps(settings)]
        assert train_classifier.main(words) == 0
    run.judge()
    return run


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy that a test may do things to."""
    shutil.copytree(trained.folder, tmp_path / "run")
    return Run(tmp_path / "run")


def test_nobody_has_read_the_lockbox_before_it_is_opened(trained: Run) -> None:
    locked = trained.locked()
    assert len(locked) == 40
    with ImageSet(trained.path("images.h5")) as source:
        ids, groups = set(source.ids[locked]), set(source.groups[locked])
    for path in trained.folder.glob("fold*/*/predictions.h5"):
        found = read_predictions(path)
        for part in PARTS:
            assert not ids & set(found.parts[part].ids) and not groups & set(found.parts[part].groups)
        record = AccessRecord.from_json(found.access_record)
        for rows in record.rows.values():
            assert not rows[locked].any()
    assert not trained.path("lockbox.json").exists() and not trained.ledger()


def test_scores_are_those_of_every_classifier_at_its_own_thresholds(run: Run) -> None:
    assert run.open() == 0
    table = pd.read_csv(run.path("lockbox.csv"), keep_default_na=False)
    thresholds = pd.read_csv(run.path("thresholds.csv"))
    found = {}
    with ImageSet(run.path("images.h5")) as source:
        part = source.read(run.locked(), "score")
    for name in NAMES:
        truth, said, maps = [], [], []
        for fold in (0, 1):
            made = classifier_file.read(run.path(f"fold{fold}/{name}/classifier.safetensors"))
            logits = classifier_file.predict(
                made.network(open_lockbox.device.device()), part.images, made.mean, made.std
            )
            cuts = thresholds.query("arm == @name and fold == @fold and level == 'image'")
            said.append(1 / (1 + np.exp(-logits.astype(float))) >= cuts["threshold"].to_numpy())
            truth.append(part.labels)
            maps.append(average_precision_score(part.labels, logits, average="macro"))
        found[name] = f1_score(np.concatenate(truth), np.concatenate(said), average="macro"), np.mean(maps)
    image = table[table["level"] == "image"]
    scores = image[image["what"] == "score"]
    assert set(scores["arm"]) == set(NAMES), "no other arm is asked"
    for row in scores.to_dict("records"):
        expected = found[row["arm"]][METRICS.index(row["metric"])]
        assert row["value"] == pytest.approx(expected, abs=1e-6)
        assert float(row["low_single"]) < row["value"] < float(row["high_single"])
    differences = image[(image["what"] == "difference") & (image["metric"] == "macro_f1")].set_index(["arm", "against"])
    assert set(differences.index) == {("mix", "real_only"), ("mix_real", "real_only"), ("mix", "mix_real")}
    for (arm, against), row in differences.iterrows():
        assert row["value"] == pytest.approx(found[arm][0] - found[against][0], abs=1e-6)
        assert float(row["low"]) <= float(row["low_single"]) <= row["value"] <= float(row["high"])
        # The primary arm is tested first and by itself, as in the run.
        assert arm != "mix" or float(row["low"]) == float(row["low_single"])
    assert differences.loc[("mix", "real_only"), "standing"] == "exploratory", "a single repeat"
    assert [row["verdict"] != "" for _, row in differences.iterrows()] == [
        pair == ("mix", "real_only") for pair in differences.index
    ]
    about = json.loads(run.path("lockbox.json").read_text())
    assert about["answer"]["difference"] == pytest.approx(differences.loc[("mix", "real_only"), "value"])
    assert (about["images"], about["groups"], about["opening"]) == (40, 10, 1)
    assert "On 40 images of 10 unseen groups (3 judged classes), mix changed macro-F1" in about["answer"]["sentence"]


def test_thresholds_are_never_fitted_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    judge, read = open_lockbox.score_lockbox, ImageSet.read

    def watch(tables, *rest):
        seen.append(tables)
        return judge(tables, *rest)

    def refuse(*_: object) -> None:
        raise AssertionError("a threshold was fitted")

    monkeypatch.setattr(open_lockbox, "score_lockbox", watch)
    for module, name in (
        (thresholds_module, "fit_thresholds"),
        (thresholds_module, "choose_thresholds"),
        (ranking_metrics, "best_threshold"),
    ):
        monkeypatch.setattr(module, name, refuse)
    assert run.open() == 0

    # With every label of the lockbox turned round, the same is said by the same thresholds.
    def turned(source: ImageSet, rows: np.ndarray | None, purpose: str) -> Part:
        part = read(source, rows, purpose)
        return replace(part, labels=part.labels ^ (purpose == "score"))

    monkeypatch.setattr(ImageSet, "read", turned)
    assert run.open(run="second") == 0
    thresholds = pd.read_csv(run.path("thresholds.csv"))
    for level in LEVELS:
        for name in NAMES:
            for one, other in zip(seen[0][level][name], seen[1][level][name], strict=True):
                rows = thresholds.query("arm == @name and fold == @one.fold and level == @level")
                assert one.thresholds == pytest.approx(rows["threshold"].to_numpy())
                assert (one.thresholds == other.thresholds).all()
                said = [thresholds_module.decisions(cell.rows, cell.thresholds, "calibrated") for cell in (one, other)]
                assert (said[0] == said[1]).all()
    assert (seen[0]["image"]["mix"][0].rows.labels != seen[1]["image"]["mix"][0].rows.labels).all()


@pytest.mark.parametrize("where", ["predict", "score_lockbox", "conclude", "finish"])
def test_a_killed_opening_goes_on_with_its_own_line(run: Run, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lockbox_ledger if where == "finish" else open_lockbox, where, killed)
        with pytest.raises(KeyboardInterrupt):
            run.open()
    begun = run.ledger()
    assert [entry["result"] for entry in begun] == [None]
    assert run.open() == 0
    after = run.ledger()
    assert len(after) == 1 and after[0]["begun_at"] == begun[0]["begun_at"]
    assert after[0]["result"]["answer"]["arm"] == "mix" and after[0]["ended_at"]
    assert json.loads(run.path("lockbox.json").read_text())["opening"] == 1


def test_a_second_opening_is_allowed_recorded_and_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.open() == 0
    first = run.path("lockbox.csv").read_bytes()
    assert run.open() == 0
    assert run.path("lockbox.csv").read_bytes() == first, "the same classifiers say the same"
    assert run.open(run.judge(smallest_effect=0.5), run="another") == 0
    about = json.loads(run.path("lockbox.json").read_text())
    assert about["opening"] == 3
    told = " ".join(about["notes"])
    assert "opened 2 times before: this is not the first look" in told
    assert "another analysis was declared" in told and "Declared before it: " in told
    assert "opened 2 times before" in capsys.readouterr().err
    entries = run.ledger()
    assert [entry["run"] for entry in entries] == ["first", "first", "another"]
    assert len({entry["ids_digest"] for entry in entries}) == 1
    assert len({entry["declaration"] for entry in entries}) == 2


def test_a_generator_from_elsewhere_may_have_seen_the_lockbox(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run.path("fold0/mix/classifier.safetensors")
    known = classifier_file.read(path)
    record = replace(AccessRecord.from_json(known.access_record), unknown=frozenset({"theirs"}))
    classifier_file.write(path, replace(known, access_record=record.to_json()))
    assert run.open() == 0
    told = "A generator came from elsewhere; whether it saw the proteins of the lockbox is unknown."
    assert told in json.loads(run.path("lockbox.json").read_text())["notes"] and told in capsys.readouterr().err
    assert run.ledger()[-1]["result"]["answer"]["note"] == told, "the page reads the ledger"


def test_the_lockbox_claims_nothing_of_other_proteins(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    wide = run.judge(claim="other_proteins")
    capsys.readouterr()
    assert run.open(wide) == 0
    assert "Verdict, with these training groups:" in capsys.readouterr().err
    assert json.loads(run.path("lockbox.json").read_text())["answer"]["claim"] == "these_proteins"


def test_other_lockboxes_of_the_same_images_are_told(run: Run) -> None:
    assert run.open() == 0
    path = run.path("ledger.jsonl")
    entry = run.ledger()[0]
    path.write_text(json.dumps(entry | {"ids_digest": "of another seed", "run": "seed 2"}) + "\n")
    assert run.open() == 0
    about = json.loads(run.path("lockbox.json").read_text())
    assert about["opening"] == 1
    assert any("other lockboxes had been opened before: 1" in note for note in about["notes"])


def test_no_lockbox_is_told_in_one_sentence(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = run.path("folds.csv").read_text()
    run.path("folds.csv").write_text(text.replace("lockbox", "reserve"))
    assert run.open() == 1
    assert f"open_lockbox failed: {lockbox_ledger.NO_LOCKBOX}" in capsys.readouterr().err
    run.path("folds.csv").write_text(text.replace("lockbox,lockbox", "lockbox,reserve", 1))
    assert run.open() == 1
    assert "not the same in all folds" in capsys.readouterr().err
    assert not run.ledger()


@pytest.mark.workflow
def test_the_target_without_a_lockbox_says_so(tmp_path: Path) -> None:
    done = Checkout.fresh(tmp_path / "checkout").snakemake("--dry-run", "lockbox", check=False)
    assert done.returncode != 0
    assert "MixLoc: there is no lockbox: make_folds.fractions.lockbox is 0" in done.stdout
    assert "Job stats" not in done.stdout


def test_what_is_not_finished_or_not_clean_is_not_opened(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(name: str, old: str, new: str) -> str:
        path, whole = run.path(name), run.path(name).read_text()
        path.write_text(whole.replace(old, new))
        assert path.read_text() != whole and run.open() == 1
        path.write_text(whole)
        return capsys.readouterr().err

    assert run.open(OWN | {"smallest_effect": 0.5}) == 1
    assert "declaration.json has another analysis" in capsys.readouterr().err
    assert "is no certificate of a run without leaks" in refused("leaks.csv", "clean", "LEAK")
    assert "no threshold of arm 'mix' in repeat 0, fold 1" in refused("thresholds.csv", "mix,0,1,", "nix,0,1,")
    assert "no class that the run judged has 4 positive" in refused(
        "analysis.json", '"judged": [', '"judged": ["none"], "x": ['
    )
    assert "arm 'mix_real' has no classifier of repeat 0, fold 1" in refused("fold1/job0.json", '"mix_real"', '"old"')
    run.path("ledger.jsonl").write_text("{}\n")
    assert run.open() == 1
    assert "ledger.jsonl cannot be read (a line has no 'ids_digest')" in capsys.readouterr().err
    run.path("ledger.jsonl").unlink()
    path = run.path("fold0/mix/classifier.safetensors")
    made = classifier_file.read(path)
    record = AccessRecord.from_json(made.access_record)
    record.record("select", run.locked()[:3])
    made.access_record = record.to_json()
    classifier_file.write(path, made)
    assert run.open() == 1
    assert "knows 3 images of lockbox groups (purpose 'select')" in capsys.readouterr().err
    assert not run.ledger(), "refused before anything was predicted"


@pytest.mark.parametrize("kind", ["generator", "synthetic", "arm", "thresholds"])
def test_the_certificate_refuses_what_was_fitted_on_the_lockbox(world, kind: str) -> None:
    roles = world.roles.copy()
    # The group of a train image, in both folds.
    group = world.groups[world.rows("train")[0]]
    roles[world.groups == group] = "lockbox"
    role_table.write(world.folds, world.ids, world.groups, roles)
    row = int(np.flatnonzero(world.groups == group)[0])
    train = np.flatnonzero(roles[:, 0] == "train")
    fair = world.record(fit=train, select=world.rows("validation"))
    scored = np.flatnonzero(roles[:, 0] == "test")
    for leaky in (False, True):
        record = world.record(fit=np.append(train, row)) if leaky else fair
        rows = np.append(world.rows("calibration"), row) if leaky else None
        made = {
            "generator": world.generator(record if kind == "generator" else fair),
            "synthetic": world.synthetic(record if kind == "synthetic" else fair),
            "arm": world.arm(record if kind == "arm" else fair, scored),
        }
        words = ["--images", str(world.images), "--folds", f"0={world.folds}", "--artefacts", *map(str, made.values())]
        words += ["--thresholds", str(world.thresholds(rows if kind == "thresholds" else None))]
        out = world.folder / "leaks.csv"
        assert certify_leaks.main([*words, "--out", str(out), "--settings", '{"violations": []}']) == leaky
        table = pd.read_csv(out)
        found = table[table["status"] == "LEAK"]
        assert len(found) == leaky and (found["overlap_images"] == 1).all()


def test_the_lockbox_stands_apart_in_the_workflow() -> None:
    rules = {path.name: path.read_text() for path in (ROOT / "rules").glob("*.smk")}
    for name, text in rules.items():
        if name != "lockbox.smk":
            assert "lockbox.csv" not in text and 'lockbox.json"' not in text, f"{name} would open the lockbox unasked"
    outputs = rules["lockbox.smk"].split("    output:")[1].split("    params:")[0]
    assert "LEDGER" not in outputs and "jsonl" not in outputs, "Snakemake deletes declared outputs"
