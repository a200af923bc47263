"""lib.images.image_set and lib.scores.prediction_file: what is written is read back, and what is read is recorded."""

import json

import h5py
import numpy as np
import pytest

from tests.helpers.peak import peak_bytes
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import MOMENTS_BLOCK, ImageSet, channel_moments, channel_statistics
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.scores.prediction_file import Predictions, Scored, read_predictions, write_predictions

IDS = [f"cell-é{number}" for number in range(50)]
GROUPS = [f"gene-{number // 3}" for number in range(50)]


@pytest.fixture
def made(tmp_path, write_set):
    return tmp_path / "images.h5", *write_set(tmp_path / "images.h5", IDS, GROUPS, licence="CC BY 4.0", credit="")


def test_round_trip(made):
    path, images, labels = made
    with ImageSet(path) as source:
        part = source.read(None, "inspect")
        assert (source.channels, source.classes) == (["red", "green"], ["Nucleus", "Cytosol", "Golgi"])
        assert (len(source), source.size) == (50, 8)
        assert source.attrs["licence"] == "CC BY 4.0"
        assert source.inherited() is None
    np.testing.assert_array_equal(part.images, images)
    np.testing.assert_array_equal(part.labels, labels)
    assert (list(part.ids), list(part.groups)) == (IDS, GROUPS)
    assert part.images.dtype == part.labels.dtype == np.uint8


@pytest.mark.parametrize(
    "rows", [[49, 0, 25, 0, 3], [7], [], list(range(49, -1, -1)), [0, 49]], ids=["twice", "one", "none", "back", "far"]
)
def test_rows_come_in_the_order_asked_for(made, rows):
    path, images, labels = made
    with ImageSet(path) as source:
        part = source.read(np.array(rows, dtype=np.int64), "fit")
    np.testing.assert_array_equal(part.images, images[rows])
    np.testing.assert_array_equal(part.labels, labels[rows])
    assert list(part.ids) == [IDS[row] for row in rows]
    assert list(part.rows) == rows


def test_scattered_rows_of_a_set_larger_than_a_block(tmp_path):
    # 3,000 rows out of 9,000 at random, some twice: every way of reading is taken.
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (9000, 1, 2, 2), dtype=np.uint8)
    with write_images(tmp_path / "big.h5", ["green"], ["a"], 2) as writer:
        writer.append(images, np.zeros((9000, 1)), [str(row) for row in range(9000)], ["g"] * 9000)
    with ImageSet(tmp_path / "big.h5") as source:
        for rows in (rng.integers(0, 9000, 3000), rng.integers(0, 9000, 40), rng.permutation(9000)):
            np.testing.assert_array_equal(source.read(rows, "fit").images, images[rows])


def test_what_was_read_is_recorded_by_purpose(made):
    with ImageSet(made[0]) as source:
        assert source.access_record().rows == {}
        source.read(np.array([5, 3]), "fit")
        source.labels(np.array([9]), "select")
        before = source.access_record()
        source.read(np.array([1]), "fit")
        assert list(source.access_record().of("fit")) == [1, 3, 5]
        assert list(before.of("fit")) == [3, 5]
        assert list(before.of("select")) == [9]
        assert (before.images, before.count) == (source.digest, 50)
        with pytest.raises(ValueError, match="unknown purpose"):
            source.read(None, "curiosity")


def test_a_synthetic_set_inherits_what_its_generator_was_fitted_on(world):
    with ImageSet(world.synthetic()) as source:
        assert list(source.inherited().of("fit")) == list(world.rows("train"))
        assert source.inherited().images == world.digest


def test_other_files_are_refused_by_name(tmp_path, world):
    (tmp_path / "text.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["format_version"] = 0
    world.arm()
    for path in ("missing.h5", "text.h5", "old.h5", "arms/real_only/predictions.h5"):
        with pytest.raises(UserError, match=path):
            ImageSet(tmp_path / path)
    for path in ("missing.h5", "text.h5", "images.h5"):
        with pytest.raises(UserError, match=path):
            read_predictions(tmp_path / path)


def test_records_longer_than_an_hdf5_header_are_stored(tmp_path):
    # A random third of 200,000 rows for three purposes: hardly compressible, and attributes were once limited to 64 KB.
    record = AccessRecord("digest", 200_000)
    for purpose in ("fit", "select", "threshold"):
        record.record(purpose, np.flatnonzero(np.random.default_rng(len(purpose)).random(200_000) < 1 / 3))
    text = record.to_json()
    assert len(text) > 2**16
    with write_images(tmp_path / "set.h5", ["green"], ["a"], 4, {"access_record": text}) as writer:
        writer.append(np.zeros((1, 1, 4, 4)), [[1]], ["a"], ["g"])
    blank = Scored(["a"], ["g"], [[1]], [[0.0]])
    arm = Predictions(["a"], "real_only", 0, 0, {"test": blank}, settings={"long": "x" * 70_000}, access_record=text)
    write_predictions(tmp_path / "predictions.h5", arm)
    with ImageSet(tmp_path / "set.h5") as source:
        found = source.inherited()
    assert found.to_json() == read_predictions(tmp_path / "predictions.h5", ("test",)).access_record == text
    assert all((found.rows[purpose] == record.rows[purpose]).all() for purpose in record.rows)
    assert json.loads(text)["count"] == 200_000


def test_labels_that_are_not_asked_for_are_not_read(world):
    with ImageSet(world.images) as source:
        part = source.read(np.array([3, 1]), "fit", labels=False)
        assert part.labels is None and len(part) == 2
        assert np.array_equal(part.images, source.read(np.array([3, 1]), "inspect").images)
        for record in (part.access_record, source.access_record().only("fit")):
            assert [(access.labels, list(access.rows)) for access in record.accesses()] == [(False, [1, 3])]


def test_statistics_of_channels_are_exact_and_need_a_block_of_floats():
    images = np.random.default_rng(0).integers(0, 256, (600, 2, 128, 128), dtype=np.uint8)
    images[:, 1] = 0
    mean, deviation = channel_moments(images)
    assert mean == pytest.approx([images[:, 0].mean(), 0], rel=1e-12)
    assert deviation == pytest.approx([images[:, 0].std(), 0], rel=1e-9)
    assert channel_statistics(images)[1][1] == 1, "an all-black channel can be divided by"
    assert peak_bytes(lambda: channel_moments(images)) < 2.2 * 8 * MOMENTS_BLOCK < images.size * 8 / 2


def test_scattered_rows_are_read_chunk_by_chunk(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (300, 2, 128, 128), dtype=np.uint8)
    with write_images(tmp_path / "large.h5", ["red", "green"], ["Nucleus"], 128, {}) as writer:
        names = [f"cell{number}" for number in range(300)]
        writer.append(images, np.ones((300, 1)), names, names)
    rows = np.array([299, 31, 32, 0, 150, 150, 33, 298, 64])
    with ImageSet(tmp_path / "large.h5") as source:
        assert 1 < source._file["images"].chunks[0] < 100, "the rows lie in several chunks"
        np.testing.assert_array_equal(source.read(rows, "fit").images, images[rows])
        few = rows[:2]
        assert peak_bytes(lambda: source.read(few, "fit")) < 6 * images[:1].nbytes
        sparse = np.arange(0, 300, 10)
        assert peak_bytes(lambda: source.read(sparse, "fit")) < images[sparse].nbytes + 3 * 2**20
