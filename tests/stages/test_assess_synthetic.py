"""assess_synthetic: held-out images are what nobody saw, every figure has its bracket, copies are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.blobs import blobs
from workflow_scripts import assess_synthetic as stage_program
from workflow_scripts.lib.base import pairwise
from workflow_scripts.lib.classify import backbones, classifier_file
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.fidelity import bracket, distances, encoder_choices, encoder_networks
from workflow_scripts.lib.fidelity.bracket import Answered, Scope
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.images.orientation import mirror_then_rotate
from workflow_scripts.lib.page.sections import fidelity_section
from workflow_scripts.lib.split import role_table

CLASSES, SIDE, COUNT = ["spots", "edge + rim", "rare"], 16, 240
SECTION = {
    "encoder": "baseline", "independent_encoder": None, "images": 100, "draws": 10, "confidence": 0.95,
    "smallest": {"images": 20, "groups": 8},
    "combinations": 2, "pairs": 4, "judge": "independent", "baseline": "real_only", "threads": 1,
}  # fmt: skip
ROLES = ("train", "train", "validation", "calibration", "test")


class World:
    """A fold on disk with a synthetic set, an untrained baseline and an untrained judge."""

    def __init__(self, folder: Path, channels: int = 2) -> None:
        self.folder, self.channels = folder, [f"c{index}" for index in range(channels)]
        rng = np.random.default_rng(1)
        self.groups = np.array([f"g{index // 4:02d}" for index in range(COUNT)])
        self.roles = np.array([ROLES[index // 4 % 5] for index in range(COUNT)], dtype=object)
        self.labels = (rng.random((COUNT, 3)) < [0.6, 0.5, 0.03]).astype(np.uint8)
        self.images = blobs(COUNT, channels, SIDE, 2)
        ids = np.array([f"i{index:03d}" for index in range(COUNT)], dtype=object)
        with write_images(folder / "images.h5", self.channels, CLASSES, SIDE, {}) as writer:
            writer.append(self.images, self.labels, list(ids), list(self.groups))
        role_table.write(folder / "folds.csv", ids, self.groups, self.roles[:, None])
        with ImageSet(folder / "images.h5") as source:
            self.digest = source.digest
        self.train = np.flatnonzero(self.roles == "train")
        baseline = folder / "arms" / "real_only" / "classifier.safetensors"
        self.classifier(baseline, 3, {"fit": self.train, "select": np.flatnonzero(self.roles == "validation")})
        listed = {"arms": [{"arm": "real_only", "classifier": "real_only/classifier.safetensors"}]}
        (folder / "arms" / "job0.json").write_text(json.dumps(listed))
        self.classifier(folder / "judge.safetensors", 4, None)

    def record(self, **rows: np.ndarray) -> str:
        made = AccessRecord(self.digest, COUNT)
        for purpose, chosen in rows.items():
            made.record(purpose, chosen)
        return made.to_json()

    def classifier(self, path: Path, seed: int, read: dict | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = len(self.channels)
        network = backbones.build("small", count, 3, SIDE, seed=seed)
        classifier_file.write(
            path,
            Classifier(
                arm="real_only", repeat=0, fold=0, classes=CLASSES, channels=self.channels, size=SIDE,
                settings={"backbone": "small"}, mean=torch.full((count,), 0.5), std=torch.full((count,), 0.2),
                weights=network.state_dict(), access_record=self.record(**read) if read else "",
            ),
        )  # fmt: skip

    def synthetic(self, images: np.ndarray, labels: np.ndarray, read: dict | None = None, **more) -> Path:
        path = self.folder / "synthetic set.h5"
        attrs = {"access_record": self.record(**(read or {"fit": self.train}))}
        attrs["synthetic_set"] = json.dumps({"name": "synthetic_set", **more.pop("synthetic_set", {})})
        with write_images(path, self.channels, CLASSES, SIDE, attrs) as writer:
            ids = [f"syn-{index:03d}" for index in range(len(images))]
            writer.append(images, labels, ids, ["synthetic"] * len(images), more)
        return path

    def run(self, synthetic: Path, **given) -> int:
        names = {"scores": "s.csv", "fidelity": "f.csv", "closest": "c.csv", "each": "e.csv", "about": "a.json"}
        words = ["--synthetic", str(synthetic), "--images", str(self.folder / "images.h5")]
        words += ["--folds", str(self.folder / "folds.csv"), "--repeat", "0", "--fold", "0", "--seed", "1"]
        words += ["--judge", str(self.folder / "judge.safetensors")]
        words += ["--baseline", str(self.folder / "arms" / "job0.json")]
        words += [word for flag, name in names.items() for word in (f"--{flag}", str(self.folder / name))]
        return stage_program.main(
            [*words, "--settings", json.dumps(SECTION | given), "--log", str(self.folder / "log")]
        )

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / name)

    def value(self, measure: str, contender: str, name: str = "all images", what: str = "value") -> float:
        table = self.table("f.csv")
        found = table[(table["measure"] == measure) & (table["contender"] == contender) & (table["name"] == name)]
        assert len(found) == 1, (measure, contender, name)
        return found[what].iloc[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("assess"))
    images = blobs(80, 2, SIDE, 5)
    # A copy of a training image, on its side and mirrored.
    images[11] = mirror_then_rotate(made.images[made.train[20]][None], 5)[0]
    assert made.run(made.synthetic(images, made.labels[:80])) == 0
    return made


def test_every_figure_stands_between_its_floor_and_its_ceilings(world: World) -> None:
    table = world.table("f.csv")
    whole = table[table["scope"] == "all"]
    for measure in distances.MEASURES:
        found = whole[whole["measure"] == measure].set_index("contender")
        assert list(found.index) == list(bracket.CONTENDERS)
        assert np.isfinite(found["value"]).all()
        assert ((found["low"] <= found["value"]) & (found["value"] <= found["high"])).all(), measure
    # Generated ones are drawn like real ones here, so they lie at the floor, and far below noise.
    for measure in ("frechet", "kid", "spectrum"):
        assert world.value(measure, "generated") < 0.2 * world.value(measure, "noise")
    assert world.value("coverage", "generated") > world.value("coverage", "noise") + 0.3
    assert world.value("links", "phase") < world.value("links", "noise")
    assert world.value("spectrum", "phase") < 0.5 * world.value("spectrum", "blurred")


def test_classes_and_combinations_have_figures_and_small_ones_a_mark(world: World) -> None:
    table = world.table("f.csv").set_index("name")
    assert set(table.loc[CLASSES[:2], "too_small"]) == {False}
    assert set(table.loc["rare", "too_small"]) == {True}
    assert table.loc["spots + edge + rim", "scope"].unique().tolist() == ["combination"]
    assert np.isnan(world.value("frechet", "generated", "rare"))
    assert np.isfinite(world.value("frechet", "generated", "spots"))
    assert world.value("frechet", "generated", "spots", "images") < world.value("frechet", "generated", what="images")
    assert set(world.table("s.csv")["class"]) == set(CLASSES)
    each = world.table("e.csv")
    assert each["agreement_baseline"].mean() == pytest.approx(world.value("agreement", "generated"), abs=1e-5)
    assert (each["agreement_judge"] != each["agreement_baseline"]).any(), "another network, another opinion"
    assert (world.table("s.csv")["judge"] == "independent").all()


def test_held_out_is_what_neither_generator_nor_networks_saw(world: World) -> None:
    about = json.loads((world.folder / "a.json").read_text())
    # The baseline has chosen its checkpoint on validation.
    assert about["images"]["held_out"] == np.isin(world.roles, ("calibration", "test")).sum()
    assert about["images"]["train"] == len(world.train)
    # A synthetic set that has looked at one calibration image takes its group with it.
    row = int(np.flatnonzero(world.roles == "calibration")[5])
    before = {path: path.read_bytes() for path in world.folder.iterdir() if path.is_file()}
    again = world.synthetic(blobs(40, 2, SIDE, 6), world.labels[:40], {"fit": world.train[:50], "select": [row]})
    assert world.run(again) == 0
    after = json.loads((world.folder / "a.json").read_text())
    assert after["images"]["held_out"] == about["images"]["held_out"] - 4
    assert after["images"]["train"] == 50, "what the generator was really fitted on"
    for path, content in before.items():  # other tests read them
        path.write_bytes(content)


def test_a_planted_copy_is_the_first_of_the_closest_pairs(tmp_path: Path) -> None:
    world = World(tmp_path)
    images = blobs(60, 2, SIDE, 5)
    images[11] = mirror_then_rotate(world.images[world.train[20]][None], 5)[0]
    assert world.run(world.synthetic(images, world.labels[:60])) == 0
    table = world.table("c.csv")
    assert len(table) == 8
    pixels = table[table["space"] == "pixels"].iloc[0]
    assert (pixels["generated"], pixels["train"]) == ("syn-011", f"i{world.train[20]:03d}")
    assert pixels["ratio"] < 1e-3 and not pixels["authentic"]
    features = table[table["space"] == "features"].iloc[0]
    assert features["generated"] == "syn-011" and features["ratio"] < 0.1
    assert world.value("authentic_pixels", "generated") < 1
    each = world.table("e.csv").set_index("generated")
    assert len(each) == 60 and each.loc["syn-011", "nearest"] == f"i{world.train[20]:03d}"
    assert each["ratio"].idxmin() == "syn-011" and not each.loc["syn-011", "authentic"]
    assert each["authentic"].mean() == pytest.approx(world.value("authentic_pixels", "generated"))
    # All of them copies: nothing is authentic.
    copied = np.stack([mirror_then_rotate(world.images[row][None], row % 8)[0] for row in world.train[:60]])
    assert world.run(world.synthetic(copied, world.labels[world.train[:60]])) == 0
    assert world.value("authentic_pixels", "generated") == 0
    assert world.value("authentic_pixels", "floor") > 0.3
    # 60 copies nearer than all 96 held-out images: the least that C_T can be.
    assert world.value("copying", "generated") == pytest.approx(-np.sqrt(3 * 60 * 96 / 157), rel=1e-3)


def test_c_t_is_near_zero_for_real_images_and_high_for_noise(tmp_path: Path) -> None:
    world = World(tmp_path)
    # Validation images are as real as held-out ones. They are none themselves, for the baseline has seen them.
    fresh = np.flatnonzero(world.roles == "validation")
    assert world.run(world.synthetic(world.images[fresh], world.labels[fresh])) == 0
    contenders = world.table("f.csv").query("measure == 'copying'")["contender"]
    assert list(contenders) == list(bracket.CONTENDERS)
    for name in ("generated", "floor"):
        assert world.value("copying", name, what="low") < 0 < world.value("copying", name, what="high"), name
    assert world.value("copying", "noise") > 5 and world.value("copying", "noise", what="low") > 0


def test_given_channels_are_left_out_of_the_search(tmp_path: Path) -> None:
    world = World(tmp_path)
    images, rows = blobs(40, 2, SIDE, 7), world.train[:40]
    images[:, 0] = world.images[rows, 0]
    names = [f"i{row:03d}" for row in rows]
    synthetic = world.synthetic(
        images, world.labels[:40], synthetic_set={"reference_channels": ["c0"]}, reference=names
    )
    assert world.run(synthetic) == 0
    with_given = world.table("c.csv")
    assert set(with_given["reference"]) <= set(names)
    assert json.loads((tmp_path / "a.json").read_text())["reference_channels"] == ["c0"]
    assert (with_given["train"] == with_given["reference"]).mean() < 0.5
    assert world.run(world.synthetic(images, world.labels[:40])) == 0
    blind = world.value("authentic_pixels", "generated")
    assert (
        world.run(
            world.synthetic(images, world.labels[:40], synthetic_set={"reference_channels": ["c0"]}, reference=names)
        )
        == 0
    )
    assert world.value("authentic_pixels", "generated") > blind


def test_images_from_real_ones_of_one_group_count_as_one_group(tmp_path: Path) -> None:
    world = World(tmp_path)
    rows = world.train[:40]
    images = np.clip(world.images[rows].astype(int) + 5, 0, 255).astype(np.uint8)
    each = [f"i{row:03d}" for row in rows]
    first = [f"i{row // 4 * 4:03d}" for row in rows]
    moved = [f"i{row:03d}" for row in np.roll(rows, 2)]
    tables = {}
    for name, references in (("each", each), ("first", first), ("moved", moved)):
        synthetic = world.synthetic(
            images, world.labels[rows], synthetic_set={"start_noise": 0.5}, reference=references
        )
        assert world.run(synthetic) == 0
        tables[name] = world.table("f.csv")
    assert json.loads((tmp_path / "a.json").read_text())["start_noise"] == 0.5
    assert tables["each"].equals(tables["first"]), "whichever image of the group"
    assert not tables["each"].equals(tables["moved"]), "groups cut elsewhere"
    assert world.run(world.synthetic(images, world.labels[rows], reference=["gone"] * 40)) == 1
    assert "gone" in (tmp_path / "log").read_text()


def test_same_inputs_same_files(tmp_path: Path) -> None:
    world = World(tmp_path, channels=1)
    synthetic = world.synthetic(blobs(30, 1, SIDE, 8), world.labels[:30])
    texts = []
    for _ in range(2):
        assert world.run(synthetic) == 0
        texts.append([(tmp_path / name).read_text() for name in ("s.csv", "f.csv", "c.csv", "e.csv", "a.json")])
    assert texts[0] == texts[1]
    assert np.isnan(world.value("links", "generated")), "one channel has no other to go with"


def test_an_independent_encoder_stands_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pooled(weights: dict[str, torch.Tensor]) -> tuple[torch.nn.Module, int]:
        return torch.nn.AdaptiveAvgPool2d(2), 2

    monkeypatch.setattr(encoder_networks, "pooled", pooled, raising=False)
    monkeypatch.setitem(encoder_choices.ARCHITECTURES, "pooled", encoder_choices.ArchitectureFacts("of a test"))
    save_file({"x": torch.zeros(1)}, tmp_path / "p.safetensors")
    world = World(tmp_path)
    made = blobs(80, 2, SIDE, 5)
    synthetic = world.synthetic(made // 4, world.labels[world.train[:80]])
    assert world.run(synthetic) == 0
    alone = (tmp_path / "f.csv").read_text()
    own = {"architecture": "pooled", "weights": str(tmp_path / "p.safetensors"), "channels": None, "size": None}
    assert world.run(synthetic, independent_encoder=own | {"normalise": None}) == 0
    both = (tmp_path / "f.csv").read_text()
    assert both.startswith(alone), "what the first encoder sees does not depend on the second"
    table = world.table("f.csv")
    second = table[table["encoder"].str.startswith("pooled")]
    seen = {name for name, kind in distances.MEASURES.items() if kind.needs_encoder}
    assert set(second["measure"]) == seen | {"copying"}
    whole = second[second["scope"] == "all"].set_index(["measure", "contender"])["value"]
    assert whole["frechet", "generated"] > whole["frechet", "floor"], "dark images are seen"
    assert whole["copying", "generated"] > 5, "and no copies"
    about = json.loads((tmp_path / "a.json").read_text())
    assert about["independent_encoder"]["overlap"] == "unknown"


def test_what_does_not_fit_is_said(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.h5"
    with write_images(other, world.channels, ["x"], SIDE, {}) as writer:
        writer.append(blobs(4, 2, SIDE, 1), np.ones((4, 1)), list("abcd"), ["s"] * 4)
    assert world.run(other) == 1
    assert "other channels or classes" in capsys.readouterr().err
    fine = world.synthetic(blobs(20, 2, SIDE, 6), world.labels[:20])
    assert world.run(fine, baseline="nobody") == 1
    assert "'nobody'" in capsys.readouterr().err


def test_agreement_is_half_by_chance_and_one_where_all_is_right() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 5)) < 0.4).astype(np.uint8)
    everything = Scope("all", "", np.zeros(5, dtype=np.uint8))
    by_chance = bracket.agreement(rng.standard_normal((2000, 5)), labels, everything)
    assert np.nanmean(by_chance) == pytest.approx(0.5, abs=0.02)
    assert np.nanmin(bracket.agreement(labels.astype(float), labels, everything)) == 1
    assert np.isnan(bracket.agreement(np.zeros((1, 5)), np.ones((1, 5), dtype=np.uint8), everything)).all()
    # Of one class only that class counts.
    third = Scope("class", "", np.eye(5, dtype=np.uint8)[2])
    logits = np.where(np.arange(5) == 2, 1.0, 0.0)[None]
    shown = bracket.agreement(logits, np.array([[1, 0, 1, 0, 0]], dtype=np.uint8), third)
    assert shown.tolist() == [1]


def test_common_classes_do_not_win_by_being_common() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((500, 2)) < [0.9, 0.1]).astype(np.uint8)
    logits = np.array([5.0, -5.0]) + (2.0 * labels - 1)
    groups = np.arange(500)
    plain = Answered(labels, groups, logits)
    fair = bracket.usual({"floor": plain})["floor"]
    only_rare = np.flatnonzero((labels == [0, 1]).all(axis=1))
    scope = Scope("class", "", np.array([0, 1], dtype=np.uint8))
    assert bracket.agreement(plain.logits, labels, scope)[only_rare].max() == 0
    assert bracket.agreement(fair.logits, labels, scope)[only_rare].min() == 1


def test_combinations_that_no_real_image_has_come_last() -> None:
    real = np.array([[1, 1, 0]] * 3 + [[1, 0, 0]] * 5)
    made = np.array([[0, 1, 1]] * 9 + [[1, 1, 0]] * 2)
    found = bracket.scopes(real, made, ["a", "b", "c"], 5)
    assert [scope.name for scope in found] == ["all images", "a", "b", "c", "a + b", "b + c"]
    assert len(bracket.scopes(real, made, ["a", "b", "c"], 1)) == 5


CONFIG = {
    "synthetic_sets": [
        {"name": "plain", "labels": "as_train", "guidance": {}},
        {"name": "steered", "labels": "feedback", "guidance": {}},
    ],
    "arms": [
        {"name": "pool", "method": "pool", "synthetic_set": "plain"},
        {"name": "choosy", "method": "filtered", "synthetic_set": "plain"},
    ],
}


def test_one_network_with_several_hands_is_named() -> None:
    said, grave = fidelity_section.same_network("plain", "baseline", "baseline", CONFIG)[0]
    assert grave
    for words in (
        "filters or relabels it for choosy",
        "scores it by its features",
        "judges its labels",
        "no independent",
    ):
        assert words in said
    said, grave = fidelity_section.same_network("steered", "own", "independent", CONFIG)[0]
    assert grave and "steers what the synthetic set generates" in said and "scores it" not in said
    innocent = CONFIG | {"arms": CONFIG["arms"][:1]}
    said, grave = fidelity_section.same_network("plain", "baseline", "independent", innocent)[0]
    assert not grave and "gives the label agreement" in said
    assert fidelity_section.same_network("plain", "own", "independent", innocent) == []


def test_agreement_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((50, 4)), (rng.random((50, 4)) < 0.4).astype(np.uint8)
    everything = Scope("all", "", np.zeros(4, dtype=np.uint8))
    whole = bracket.agreement(logits, labels, everything)
    monkeypatch.setattr(pairwise, "BLOCK", 7)
    np.testing.assert_array_equal(bracket.agreement(logits, labels, everything), whole)
