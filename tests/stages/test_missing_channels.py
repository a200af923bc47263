"""Images that lack a channel: refused, filled with zeros or left out; networks, certificate and pages are told."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.arms_data import ENTRIES, SECTION
from tests.helpers.generating import SYNTHETIC_SET, UNET, role_of, sample_line, train_line
from tests.helpers.image_folders import noise, run, save, settings
from workflow_scripts import sample_ddpm, train_classifier, train_ddpm
from workflow_scripts.lib.classify import backbones, classifier_file
from workflow_scripts.lib.generate import generator_file
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.page.sections import data_section
from workflow_scripts.lib.split import missing_channels, role_table

COUNT = 40
WITHOUT = range(0, COUNT, 4)  # images without green; they carry the first class, as the others do not
NAMES = {"class_names": ["a", "b", "c"], "no_label": "keep", "group_by": ["well"]}
ROLES = ("train", "train", "train", "validation", "calibration", "test")

pytestmark = pytest.mark.usefixtures("one_thread")


def write_raw(folder: Path, lost: str = "green") -> Path:
    """Forty images in two channels, of which every fourth lacks one, and only these are of class a."""
    (folder / "train").mkdir(parents=True)
    rows = ["Id,Target,well"]
    for number in range(COUNT):
        for place, channel in enumerate(("red", "green")):
            if channel != lost or number not in WITHOUT:
                save(folder / "train" / f"i{number}_{channel}.png", noise(2 * number + place))
        rows.append(f"i{number},{0 if number in WITHOUT else 1 + number % 2},W{number}")
    (folder / "train.csv").write_text("\n".join(rows))
    return folder


def reading(policy: str, **more: str) -> dict:
    """Settings of the stage with a policy for missing channels."""
    return settings(data=NAMES | {"missing_channel": policy} | more, size=16)


def left_out(folder: Path) -> list[dict[str, str]]:
    """Rows of left_out.csv."""
    with (folder / "out" / "left_out.csv").open() as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set whose missing channels are zeros, its folds, and a generator trained on it."""
    folder = write_raw(tmp_path_factory.mktemp("missing"))
    assert run(folder, reading("zero")) == 0
    out = folder / "out"
    with ImageSet(out / "images.h5") as source:
        table = np.array([[role_of(row + row // 4)] for row in range(COUNT)], dtype=object)
        table[np.flatnonzero(table[:, 0] == "test")[::2]] = "calibration"
        role_table.write(out / "folds.csv", source.ids, source.groups, table)
    assert train_ddpm.main(train_line(out, UNET)) == 0
    return out


def test_zeros_and_a_mask_take_the_place_of_a_missing_channel(filled: Path) -> None:
    with ImageSet(filled / "images.h5") as made:
        part = made.read(None, "inspect")
        expected = np.ones((COUNT, 2), dtype=bool)
        expected[list(WITHOUT), 1] = False
        np.testing.assert_array_equal(made.present, expected)
        np.testing.assert_array_equal(part.images.any(axis=(2, 3)), expected)
        assert made.column("missing_channels")[:2].tolist() == ["green", "none"]
    assert not left_out(filled.parent)


def test_the_log_says_what_is_missing_and_that_it_goes_with_the_labels(filled: Path) -> None:
    log = (filled.parent / "log.txt").read_text()
    assert "10 of 40 images lack a channel (green in 10), filled with zeros" in log
    assert "missing channels go with the labels (Cramér's V 0.99)" in log


def test_the_report_shows_missing_channels_by_class(filled: Path) -> None:
    data = data_section.read(filled / "images.h5", [(0, filled / "folds.csv")])
    rows = data_section.missing_table(data).rows
    assert rows[:3] == [
        {"class": "all", "images": 40, "c0": 0, "c1": 10},
        {"class": "a", "images": 10, "c0": 0, "c1": 10},
        {"class": "b", "images": 10, "c0": 0, "c1": 0},
    ]
    assert "Cramér's V 0.99" in data_section.missing_told(data)["warning"]


def test_missing_channels_that_have_nothing_to_do_with_the_labels_are_no_warning() -> None:
    rng = np.random.default_rng(0)
    labels, names = np.eye(2, dtype=np.uint8)[rng.integers(2, size=200)], rng.choice(["none", "red"], 200)
    found = missing_channels.association(labels, np.arange(200).astype(str), names)
    assert found is not None and missing_channels.warning(found) is None


def test_images_without_a_channel_are_left_out_and_do_not_count_as_invalid(tmp_path: Path) -> None:
    folder = write_raw(tmp_path)
    # on_invalid: fail, and no image may be invalid.
    assert run(folder, reading("drop_image", on_invalid="fail", invalid_limit=0)) == 0
    with ImageSet(folder / "out" / "images.h5") as made:
        assert len(made) == 30 and made.present.all() and "missing_channels" not in made.columns()
    rows = left_out(folder)
    assert [row["Id"] for row in rows] == [f"i{number}" for number in WITHOUT]
    assert {row["kind"] for row in rows} == {"missing channel, left out"}
    assert rows[0]["file"] == "i0_green.png" and "data.missing_channel: drop_image" in rows[0]["reason"]


def test_refused_by_default_and_where_every_image_lacks_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_raw(tmp_path)
    assert run(folder, reading("refuse")) == 1
    assert "10 of 40 images cannot be used (10 × missing file)" in capsys.readouterr().err
    for path in (folder / "train").glob("*_green.png"):
        path.unlink()
    assert run(folder, reading("zero")) == 1
    assert "every image lacks the channel 'green'" in capsys.readouterr().err
    assert run(folder, reading("drop_image")) == 1
    assert "every image lacks a channel" in capsys.readouterr().err


def test_a_damaged_file_is_no_missing_channel(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_raw(tmp_path)
    (folder / "train" / "i1_green.png").write_bytes(b"")
    for policy in ("zero", "drop_image"):
        assert run(folder, reading(policy)) == 1
        assert "1 of 40 images cannot be used (1 × empty file)" in capsys.readouterr().err


def test_marks_tell_the_network_which_channels_show_something() -> None:
    images = torch.rand(2, 3, 4, 4)
    images[0, 1] = -0.7  # a missing channel, standardised
    marks = backbones.with_marks(images)
    assert torch.equal(marks[:, :3], images)
    assert torch.equal(marks[:, 3:].amin((2, 3)), marks[:, 3:].amax((2, 3)))
    assert marks[:, 3:, 0, 0].tolist() == [[1, 0, 1], [1, 1, 1]]


def test_a_classifier_has_input_planes_that_tell_it(filled: Path) -> None:
    section = SECTION | {"steps": 2, "checkpoints": 1}
    arms = [ENTRIES["real_only"], ENTRIES["real_only"] | {"name": "red", "channels": ["red"]}]
    about = {"arms": arms, "train_classifier": section, "threads": 1}
    assert train_classifier.main([
        "--images", str(filled / "images.h5"), "--folds", str(filled / "folds.csv"), "--repeat", "0", "--fold", "0",
        "--arms-dir", str(filled / "arms"), "--manifest", str(filled / "arms" / "job0.json"), "--seed", "1",
        "--settings", json.dumps(about), "--log", str(filled / "log.txt"),
    ]) == 0  # fmt: skip
    made = classifier_file.read(filled / "arms" / "real_only" / "classifier.safetensors")
    network = made.network(torch.device("cpu"))
    assert network.channel_marks and made.settings["channel_marks"]
    assert network.trunk.layers[0].weight.shape[1] == 4 * 4, "two channels and two marks, four pixels each"
    # Every image has red, so that arm needs no marks.
    red = classifier_file.read(filled / "arms" / "red" / "classifier.safetensors")
    assert not red.network(torch.device("cpu")).channel_marks and "channel_marks" not in red.settings


def test_a_generator_is_told_and_its_images_lack_channels_as_real_ones_do(filled: Path) -> None:
    made = generator_file.read(filled / "g.safetensors")
    assert made.settings["condition_on"] == ["missing_channels"]
    assert made.settings["column_values"] == {"missing_channels": ["green", "none"]}
    assert sample_ddpm.main(sample_line(filled, SYNTHETIC_SET | {"count": 12})) == 0
    with ImageSet(filled / "s.h5") as synthetic:
        part, missing = synthetic.read(None, "inspect"), synthetic.column("missing_channels")
    # As among the real images, class a alone lacks green.
    assert set(missing) == {"green", "none"}
    np.testing.assert_array_equal(missing == "green", part.labels[:, 0] == 1)
    np.testing.assert_array_equal(part.images[:, 1].any(axis=(1, 2)), missing == "none")
    assert part.images[:, 0].any(axis=(1, 2)).all()


def test_where_no_image_lacks_a_channel_all_are_whole(filled: Path, tmp_path: Path) -> None:
    assert run(write_raw(tmp_path, lost=""), reading("zero")) == 0
    with ImageSet(tmp_path / "out" / "images.h5") as source:
        assert set(source.values(["missing_channels"], np.arange(5), "fit").ravel()) == {"none"}
