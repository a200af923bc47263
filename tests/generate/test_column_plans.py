"""Conditioning on columns such as the cell line: values by hand, the network, what is read, and the stages."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.generating import CLASSES, MINIMAL, SYNTHETIC_SET, UNET, make_data, sample_line, train_line
from workflow_scripts import sample_ddpm, train_ddpm
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.generate import (
    column_plans,
    column_values,
    generator_checks,
    generator_file,
    networks,
    requests,
)
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.judge.fitted_artefacts import Artefact
from workflow_scripts.lib.judge.leak_checks import Rules, check_artefact
from workflow_scripts.lib.split import role_table

torch.set_num_threads(1)
LABELS = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.uint8)
VALUES = np.array([["A"], ["B"], ["A"], [""]], dtype=object)


def drawn(plan: str, wanted: list[list[int]], values: np.ndarray = VALUES) -> list[tuple]:
    """Label and value of each image of a set."""
    asked, rng = np.array(wanted, dtype=np.uint8), np.random.default_rng(0)
    material = column_plans.Material(LABELS, values, column_values.known_values(values))
    labels, found = column_plans.planned(plan, "p", material, asked, rng)
    return [(int(row.argmax()), *told) for row, told in zip(labels, found, strict=True)]


def test_values_as_real_are_those_of_images_with_the_labels() -> None:
    found = drawn("as_real", [[1, 0]] * 10 + [[0, 1]] * 10)
    assert set(found) == {(0, "A"), (0, "B"), (1, "A"), (1, "")}
    assert found.count((0, "A")) == 5, "evenly"


def test_uniform_values_do_not_depend_on_labels_and_are_known_ones() -> None:
    found = drawn("uniform", [[0, 1]] * 400)
    assert set(found) == {(1, "A"), (1, "B")}
    assert found.count((1, "B")) == pytest.approx(200, abs=40)


def test_unseen_combinations_are_those_that_no_train_image_has() -> None:
    """The first class was seen with both values, the second one with A: what is left is the second with B."""
    assert set(drawn("unseen", [[1, 0], [0, 1], [1, 0]])) == {(1, "B")}
    with pytest.raises(UserError, match="occurs with every value"):
        drawn("unseen", [[1, 0]])
    both = np.array([["A", "x"], ["B", "y"], ["A", "x"], ["B", "x"]], dtype=object)
    assert set(drawn("unseen", [[1, 0]] * 30, both)) == {(0, "A", "y"), (0, "B", "x")}, "of several columns together"


def test_values_are_told_a_block_a_column_and_unknown_ones_as_zeros() -> None:
    values = np.array([["B", "x"], ["", "y"], ["C", "x"]], dtype=object)
    found = column_values.one_hot(values, [["A", "B"], ["x", "y"]])
    assert found.tolist() == [[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]]


def test_a_network_hears_values_and_is_the_same_without_them() -> None:
    def made(columns: tuple[int, ...]) -> networks.UNet:
        torch.manual_seed(1)
        out = networks.UNet(2, 3, 16, [16, 16], [1, 1], columns=columns)
        # Gains start at zero, so that a fresh network says nothing.
        torch.nn.init.constant_(out.head_gain, 1 / networks.PACE)
        torch.nn.init.constant_(out.modulation.gains, 1 / networks.PACE)
        return out

    x, at = torch.randn(1, 2, 16, 16), torch.zeros(1)
    condition = Condition(torch.eye(3)[:1], torch.zeros(1, dtype=torch.bool))
    told = [Condition(condition.labels, condition.dropped, columns=torch.eye(2)[[row]]) for row in (0, 1)]
    network = made((2,))
    answers = [network(x, at, one) for one in (condition, *told)]
    assert all((answers[a] - answers[b]).abs().max() > 1e-3 for a, b in ((0, 1), (0, 2), (1, 2)))
    hidden = network(x, at, told[0].nothing())
    assert (hidden - network(x, at, told[1].nothing())).abs().max() > 1e-3, "values are said where labels are dropped"
    plain = made(())
    assert set(network.state_dict()) - set(plain.state_dict()) == {"embedding.columns.weight"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of two cell lines; the line of those that are not for training is one of its own."""
    folder = tmp_path_factory.mktemp("columns")
    images, labels = make_data(folder)
    ids = [f"im{row}" for row in range(len(images))]
    lines = ["test line" if row % 4 == 0 else "AB"[row % 2] for row in range(len(images))]
    with write_images(folder / "images.h5", [f"ch{c}" for c in range(4)], CLASSES, 16) as writer:
        writer.append(images, labels, ids, ids, {"line": lines})
    assert train_ddpm.main(train_line(folder, UNET | {"condition_on": ["line"], "steps": 3})) == 0
    return folder


def test_stages_read_the_column_of_train_images_alone(folder: Path) -> None:
    made = generator_file.read(folder / "g.safetensors")
    assert made.settings["column_values"] == {"line": ["A", "B"]}, "no word of other parts"
    with ImageSet(folder / "images.h5") as source:
        train = set(role_table.rows(folder / "folds.csv", 0, source.ids, "train"))
        known = {
            (tuple(row), line) for row, line in zip(source.labels(None, "inspect"), source.column("line"), strict=True)
        }
    assert set(made.access_record.of("fit")) == train
    assert sample_ddpm.main(sample_line(folder, SYNTHETIC_SET | {"columns": "unseen"}, out="unseen.h5")) == 0
    with ImageSet(folder / "unseen.h5") as source:
        lines, labels = source.column("line"), source.labels(None, "inspect")
        assert set(source.inherited().of("fit")) == train
    assert set(lines) <= {"A", "B"}
    assert not known & {(tuple(row), line) for row, line in zip(labels, lines, strict=True)}


def test_values_of_unlabelled_images_alone_are_those_of_a_new_line(folder: Path, tmp_path: Path) -> None:
    """As where a fold leaves out a cell line and some of its groups are shown: half of its images here."""
    with ImageSet(folder / "images.h5") as source:
        roles = role_table.read(folder / "folds.csv", 0, source.ids)
        shown = np.flatnonzero(source.column("line") == "test line")[::2]
        roles[shown] = "unlabelled"
        role_table.write(tmp_path / "folds.csv", source.ids, source.groups, roles[:, None])
        train = set(np.flatnonzero(roles == "train"))
    shutil.copyfile(folder / "images.h5", tmp_path / "images.h5")
    regime = {"name": "shown", "labelled": 1, "unlabelled": "seen", "selection": "same"}
    told = UNET | {"condition_on": ["line"], "steps": 3, "regime": regime, "sees": "unlabelled"}
    assert train_ddpm.main(train_line(tmp_path, told)) == 0
    made = generator_file.read(tmp_path / "g.safetensors")
    assert made.settings["column_values"] == {"line": ["A", "B", "test line"]}
    assert made.access_record.labelled("fit") == len(train), "none of their labels was read"
    assert set(made.access_record.of("fit")) == train | set(shown)
    asked = SYNTHETIC_SET | {"columns": "unlabelled", "regime": regime}
    assert sample_ddpm.main(sample_line(tmp_path, asked)) == 0
    with ImageSet(tmp_path / "s.h5") as source:
        assert set(source.column("line")) == {"test line"}
    assert sample_ddpm.main(sample_line(folder, SYNTHETIC_SET | {"columns": "unlabelled"}, out="none.h5")) == 1


def test_a_column_that_is_read_of_a_test_image_is_a_leak(folder: Path) -> None:
    with ImageSet(folder / "images.h5") as source:
        roles, rules = (
            role_table.read(folder / "folds.csv", 0, source.ids),
            Rules(source.groups, set(), np.ones(len(source), dtype=bool), source.further),
        )
        test = np.flatnonzero(roles == "test")
        assert source.values(["line"], test[:1], "fit").tolist() == [["test line"]]
        artefact = Artefact("generator g", 0, 0, source.access_record())
        with pytest.raises(UserError, match="has no column 'plate'; its columns are: line"):
            source.values(["plate"], test, "fit")
    checks = {check.purpose: check for check in check_artefact(artefact, roles, rules)}
    assert checks["fit"].status == "LEAK" and checks["fit"].overlap_images == 1


def test_what_does_not_go_together_is_refused() -> None:
    told = UNET | {"condition_on": ["line"]}
    assert "no input for columns" in str(
        generator_checks.generator_problem(MINIMAL | {"condition_on": ["l"]}, 16, ["a"])
    )
    both = generator_checks.generator_problem(told | {"ema_widths": [0.05, 0.1]}, 16, ["a", "b"])
    assert "condition_on and ema_widths exclude each other" in str(both)
    assert "asked without columns" in str(generator_checks.encoder_problem(told, False))
    problem = generator_checks.set_problem(SYNTHETIC_SET | {"columns": "uniform"}, UNET, ["a"])
    assert "columns needs a generator with condition_on" in str(problem)
    assert generator_checks.set_problem(SYNTHETIC_SET | {"columns": "uniform"}, told, ["a"]) is None


class Table:
    """Stands in for an image set: its columns alone."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def values(self, names: list[str], rows: np.ndarray, purpose: str) -> np.ndarray:
        return self._values[rows]


def asked(plan: str, values: np.ndarray, known: dict[str, list[str]]) -> dict[str, list[str]]:
    labels = np.eye(2, dtype=np.uint8)[np.arange(len(values)) % 2]
    made = {"condition_on": list(known), "column_values": known}
    settings = {"name": "s", "columns": plan}
    return requests._column_values(settings, made, Table(values), np.arange(len(values)), labels, labels, 1)[1]


def test_missing_channels_are_as_in_real_images_whatever_is_asked_of_other_columns() -> None:
    values = np.array([["AB"[row % 3 // 2], "green" if row < 2 else "none"] for row in range(200)], dtype=object)
    known = {"line": ["A", "B"], "missing_channels": ["green", "none"]}
    drawn = asked("uniform", values, known)
    assert 80 < drawn["line"].count("A") < 120 and drawn["missing_channels"].count("green") < 10
    alone = asked("uniform", values[:, 1:], {"missing_channels": known["missing_channels"]})
    assert alone["missing_channels"].count("green") < 10
    with pytest.raises(UserError, match="its generator does not know 'B' of line"):
        asked("as_real", values, known | {"line": ["A"]})
    assert asked("as_real", values, known | {"missing_channels": ["none"]})["missing_channels"].count("green") < 10


def test_the_values_of_a_variation_are_those_of_its_image(folder: Path) -> None:
    made = generator_file.read(folder / "g.safetensors")
    with ImageSet(folder / "images.h5") as source:
        rows = role_table.rows(folder / "folds.csv", 0, source.ids, "train")
        found = requests.make_requests(SYNTHETIC_SET | {"start_noise": 1.0, "count": 40}, made, source, rows, None, 1)
        lines = dict(zip(source.ids.astype(str), source.column("line"), strict=True))
    assert found.values["line"] == [lines[str(name)] for name in found.references]
    np.testing.assert_array_equal(found.told.argmax(axis=1), [["A", "B"].index(line) for line in found.values["line"]])
