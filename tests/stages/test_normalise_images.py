"""Intensities normalised by the train part of a fold, plate by plate: what is fitted on what, and what reads it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.arms_data import ENTRIES, SECTION
from tests.helpers.generating import UNET, train_line
from tests.helpers.image_folders import run, settings
from workflow_scripts import certify_leaks, normalise_images, train_classifier, train_ddpm
from workflow_scripts.lib.generate import generator_file
from workflow_scripts.lib.images import intensity_limits
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.intensity_limits import Limits
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role

COUNT, SIDE = 60, 16
GAIN = {"dim": 1, "bright": 60, "new": 7}  # plates; `new` has no image in the train part
NAMES = {"class_names": ["a", "b", "c"], "group_by": ["well"], "files": "{id}.npy", "bits": [16]}
PARTS = ("train", "train", "validation", "calibration", "test")

pytestmark = pytest.mark.usefixtures("one_thread")


def plate(number: int) -> str:
    """The plate of an image."""
    return "new" if number % 10 == 9 else ("dim", "bright")[number % 2]


def pixels(number: int) -> np.ndarray:
    """Raw values (2, 16, 16): the same distribution on all plates but for their gain; one test image is blinding."""
    draws = np.random.default_rng(number).integers(100, 1000, (2, SIDE, SIDE)).astype(np.uint16)
    return draws * np.uint16(GAIN[plate(number)]) if number != 4 else np.full_like(draws, 65_535) - draws


def role(number: int) -> str:
    return "test" if plate(number) == "new" else PARTS[number % 5]


def write_folds(out: Path, first: int = 0) -> None:
    with ImageSet(out / "images.h5") as source:
        table = np.array([[role(row + first)] for row in range(len(source))], dtype=object)
        role_table.write(out / "folds.csv", source.ids, source.groups, table)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with raw values, its folds, and the fold's view of it, plate by plate."""
    folder = tmp_path_factory.mktemp("plates")
    (folder / "train").mkdir()
    rows = ["Id,Target,well,plate"]
    for number in range(COUNT):
        np.save(folder / "train" / f"i{number:02d}.npy", pixels(number))
        rows.append(f"i{number:02d},{number % 3},W{number},{plate(number)}")
    (folder / "train.csv").write_text("\n".join(rows))
    assert run(folder, settings(data=NAMES, size=SIDE, intensity="train_part")) == 0
    write_folds(folder / "out")
    assert normalised(folder / "out", "plate", "fold0") == 0
    return folder / "out"


def normalised(out: Path, column: str | None, name: str, regimes: tuple[dict, ...] = ()) -> int:
    """Run the stage; the view goes to a folder of this name."""
    return normalise_images.main([
        "--images", str(out / "images.h5"), "--folds", str(out / "folds.csv"), "--repeat", "0", "--fold", "0",
        "--out", str(out / name / "images.h5"), "--settings", json.dumps({"column": column, "regimes": list(regimes)}),
        "--log", str(out / f"{name}.txt"),
    ])  # fmt: skip


def rows_of(part: str) -> list[int]:
    return [number for number in range(COUNT) if role(number) == part]


def test_the_set_keeps_values_as_they_are_in_the_files(made: Path) -> None:
    with ImageSet(made / "images.h5") as source:
        raw = source.raw(np.array([7, 2]), "inspect")
        np.testing.assert_array_equal(raw, [pixels(7), pixels(2)])
        assert source.limits is None and source.read(None, "inspect").images.dtype == np.uint8
    assert list(made.glob(".*pieces")) == []


def test_each_plate_is_spread_between_percentiles_of_its_train_images(made: Path) -> None:
    with ImageSet(made / "fold0" / "images.h5") as view:
        images, channel = view.read(None, "inspect").images, 1
        for name in ("dim", "bright"):
            train = np.stack([pixels(n)[channel] for n in rows_of("train") if plate(n) == name])
            low, high = np.percentile(train, [0.1, 99.9], method="inverted_cdf").astype(float)
            for number in (n for n in range(COUNT) if plate(n) == name and n != 4):
                expected = np.rint(np.clip((pixels(number)[channel] - low) / (high - low), 0, 1) * 255)
                assert np.abs(images[number, channel] - expected).max() <= 1, number
        # Plates of 60-fold brightness look alike, at full depth.
        dim, bright = (images[[n for n in rows_of("validation") if plate(n) == name]] for name in ("dim", "bright"))
        assert abs(dim.mean() - bright.mean()) < 4 and len(np.unique(dim)) == 256


def test_test_images_change_no_limit(made: Path) -> None:
    with ImageSet(made / "fold0" / "images.h5") as view:
        images = view.read(np.array([4]), "inspect").images
        assert (images == 255).all(), "the blinding test image is clipped, and has moved nothing"
        assert view.access_record().of("fit").tolist() == rows_of("train")
        assert view.access_record().labelled("fit") == 0, "limits are fitted on images alone"


def test_a_plate_without_train_images_takes_the_limits_of_all(made: Path) -> None:
    assert "values without a train image, which take the limits of all: new" in (made / "fold0.txt").read_text()
    assert normalised(made, None, "whole") == 0
    new = np.array([n for n in range(COUNT) if plate(n) == "new"])
    with ImageSet(made / "fold0" / "images.h5") as view, ImageSet(made / "whole" / "images.h5") as whole:
        assert json.loads(view.attrs["borrowed"]) == ["new"]
        np.testing.assert_array_equal(view.read(new, "inspect").images, whole.read(new, "inspect").images)
        assert (view.digest, view.limits_digest) != (whole.digest, whole.limits_digest) and view.digest == whole.digest


def test_where_labels_are_few_what_no_regime_hides_decides(made: Path, tmp_path: Path) -> None:
    with ImageSet(made / "images.h5") as source:
        roles = np.array([[role(row)] for row in range(COUNT)], dtype=object)
        ranks = np.where(np.arange(COUNT) < 30, 0.4, 0.9)[:, None]
        role_table.write(tmp_path / "folds.csv", source.ids, source.groups, roles, ranks)
    few = {"name": "few", "labelled": 0.5, "unlabelled": "unused", "selection": "same"}
    assert normalise_images.main([
        "--images", str(made / "images.h5"), "--folds", str(tmp_path / "folds.csv"), "--repeat", "0", "--fold", "0",
        "--out", str(tmp_path / "view.h5"), "--settings", json.dumps({"column": "plate", "regimes": [few]}),
    ]) == 0  # fmt: skip
    with ImageSet(tmp_path / "view.h5") as view:
        assert view.access_record().of("fit").tolist() == [row for row in rows_of("train") if row < 30]


def test_a_column_that_is_not_there_is_named(made: Path, capsys: pytest.CaptureFixture) -> None:
    assert normalised(made, "plates", "wrong") == 1
    assert "preprocess_images.intensity_column = 'plates': there is no such column" in capsys.readouterr().err


def trained(made: Path) -> Path:
    """The list with an arm that was trained on the fold's view."""
    about = {"arms": [ENTRIES["real_only"]], "train_classifier": SECTION | {"steps": 2, "checkpoints": 1}, "threads": 1}
    manifest = made / "arms" / "job0.json"
    assert train_classifier.main([
        "--images", str(made / "fold0" / "images.h5"), "--folds", str(made / "folds.csv"), "--repeat", "0",
        "--fold", "0", "--arms-dir", str(made / "arms"), "--manifest", str(manifest), "--seed", "1",
        "--settings", json.dumps(about), "--log", str(made / "log.txt"),
    ]) == 0  # fmt: skip
    return manifest


def certified(made: Path, *artefacts: Path) -> tuple[int, list[dict[str, str]]]:
    """Exit status of the certificate, and its lines."""
    status = certify_leaks.main([
        "--images", str(made / "images.h5"), "--folds", f"0={made / 'folds.csv'}",
        "--artefacts", *map(str, artefacts), "--out", str(made / "leaks.csv"),
        "--settings", json.dumps({"violations": [], "encoders": []}), "--log", str(made / "log.txt"),
    ])  # fmt: skip
    with (made / "leaks.csv").open() as handle:
        return status, list(csv.DictReader(handle))


def test_the_certificate_knows_what_limits_were_fitted_on(made: Path, capsys: pytest.CaptureFixture) -> None:
    manifest, view = trained(made), made / "fold0" / "images.h5"
    status, lines = certified(made, view, manifest)
    assert status == 0
    fits = {line["artefact"]: line for line in lines if line["purpose"] == "fit"}
    assert fits["intensity limits"]["images"] == str(len(rows_of("train")))
    assert {line["status"] for line in lines} == {"clean"}
    # Limits that were fitted on test images too are a leak of the limits, and of what read images through them.
    with ImageSet(made / "images.h5") as source:
        source.raw(np.flatnonzero([role(row) in (Role.TRAIN, Role.TEST) for row in range(COUNT)]), "fit")
        record = source.access_record()
    with ImageSet(view) as kept:
        limits = Limits(kept.limits.limits, kept.limits.value)
    intensity_limits.write(made / "leaky" / "images.h5", made / "images.h5", limits, record, {"repeat": 0, "fold": 0})
    status, lines = certified(made, made / "leaky" / "images.h5")
    assert status == 1 and "LEAK: intensity limits (repeat 0, fold 0), purpose 'fit'" in capsys.readouterr().err
    with ImageSet(made / "leaky" / "images.h5") as leaky:
        part = leaky.read(np.array(rows_of("train")), "fit")
        assert set(rows_of("test")) <= set(part.access_record.of("fit"))


def test_a_generator_inherits_the_record_and_other_limits_are_another_task(made: Path) -> None:
    line = train_line(made, UNET | {"steps": 1})
    digests = []
    for name in ("fold0", "whole"):
        assert normalised(made, "plate" if name == "fold0" else None, name) == 0
        line[1] = str(made / name / "images.h5")
        assert train_ddpm.main(line) == 0
        written = generator_file.read(made / "g.safetensors")
        assert written.access_record.of("fit").tolist() == rows_of("train")
        digests.append(written.digest)
    assert digests[0] != digests[1]
