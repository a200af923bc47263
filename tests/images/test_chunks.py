"""lib.images.chunks: pieces cover all images once, come back as they were, and follow their inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.image_folders import noise, save, settings
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import chunks, read_image

IDS = ["a", "b", "c", "d"]
NAMES = {"class_names": ["Nucleus", "Cytosol"], "no_label": "keep"}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Four images of 16 × 16, two channels each; c lacks one."""
    (tmp_path / "train").mkdir()
    (tmp_path / "kept").mkdir()
    for number, name in enumerate(IDS):
        for place, channel in enumerate(["red", "green"]):
            save(tmp_path / "train" / f"{name}_{channel}.png", noise(10 * number + place))
    (tmp_path / "train" / "c_green.png").unlink()
    return tmp_path


def tasks(raw: Path, **given: object) -> list[chunks.Task]:
    reader = read_image.Reader(raw / "train", settings(data=NAMES, **given))
    return chunks.tasks(reader, IDS, [""] * 4, raw / "kept")


def test_pieces_are_runs_of_images_of_a_given_size(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An image of 8 × 8 in two channels takes 128 bytes: three fit, and the fourth has a piece of its own.
    monkeypatch.setattr(chunks, "PIECE_BYTES", 3 * 128 + 127)
    first, second = tasks(raw)
    assert (first.ids, first.first, first.path.name) == (["a", "b", "c"], 0, "000000.piece")
    assert (second.ids, second.first, second.path.name) == (["d"], 3, "000001.piece")
    monkeypatch.setattr(chunks, "PIECE_BYTES", 1)
    assert [task.ids for task in tasks(raw)] == [["a"], ["b"], ["c"], ["d"]], "an image is never cut"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_piece_holds_the_usable_images_and_the_faults_of_the_others(
    raw: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(chunks, "PIECE_BYTES", 2 * 128)
    first, second = chunks.made(tasks(raw), processes)
    assert first.rows.tolist() == [0, 1] and first.bad == []
    assert second.rows.tolist() == [3], "rows count over all pieces"
    assert [(fault.id, fault.file, fault.kind) for fault in second.bad] == [("c", "c_green.png", "missing file")]
    means = noise(30).reshape(8, 2, 8, 2).mean((1, 3))
    assert np.abs(second.images[0, 0] - means).max() <= 0.5
    assert second.images.shape == (1, 2, 8, 8) and second.grids.shape[:2] == (1, 2)


def test_a_piece_that_is_there_is_not_read_again(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = tasks(raw)
    made = chunks.make(task)
    monkeypatch.setattr(read_image.Reader, "look", lambda *_: pytest.fail("was read before"))
    again = chunks.make(task)
    np.testing.assert_array_equal(again.images, made.images)
    assert again.bad == made.bad and [path.name for path in (raw / "kept").iterdir()] == ["000000.piece"]


def test_the_digest_follows_the_pixels_and_nothing_else(raw: Path) -> None:
    def digest(**given: object) -> str:
        return chunks.digest(tasks(raw, **given)[0])

    first = digest()
    assert digest(threads=7, duplicates=0.9) == first, "neither changes a pixel"
    assert digest(intensity="percentile") != first and digest(size=4) != first
    save(raw / "train" / "a_red.png", noise(99, 32))
    assert digest() != first


@pytest.mark.parametrize("count", [0, 3])
def test_a_piece_comes_back_as_it_was_or_not_at_all(raw, count):
    reader = read_image.Reader(raw / "train", settings(data=NAMES))
    (task,) = chunks.tasks(reader, ["a", "b", "c"], [""] * 3, raw / "kept")
    shape = (len(reader.channels), reader.size, reader.size)
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    present = np.ones((count, len(reader.channels)), dtype=np.uint8)
    raw = np.zeros((count, 0, *shape[1:]), dtype=np.uint16)
    fault = chunks.Fault("b", "b_red.png", "missing file", "is missing\nor was")
    whole = chunks.Piece(images, chunks.duplicates.grid_means(images), present, raw, np.arange(count), [fault])
    chunks._save(task, whole, "digest")
    kept = chunks.load(task, "digest")
    for name in ("images", "grids", "rows"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(whole, name))
    assert kept.bad == [fault]
    assert chunks.load(task, "another") is None
    content = task.path.read_bytes()
    for place in (1, -1, -whole.images.nbytes, -whole.images.nbytes - whole.rows.nbytes) if count else (1,):
        spoilt = bytearray(content)
        spoilt[place] ^= 1
        task.path.write_bytes(spoilt)
        assert chunks.load(task, "digest") is None, place
    task.path.write_bytes(content)
    assert chunks.load(task, "digest") is not None
    task.path.write_bytes(content[:20])
    assert chunks.load(task, "digest") is None


def test_a_job_whose_pieces_were_cleared_away_says_so(raw):
    reader = read_image.Reader(raw / "train", settings(data=NAMES))
    (task,) = chunks.tasks(reader, ["a"], [""], raw / "gone")
    with pytest.raises(UserError, match="was cleared away"):
        chunks.make(task)
    assert not (raw / "gone").exists()


def test_single_images_of_a_piece_are_read_from_its_file(raw, monkeypatch):
    for keeps in (False, True):
        (task,) = tasks(raw)
        task.reader.keeps_raw = keeps
        piece = chunks.make(task)
        assert piece.rows.tolist() == [0, 1, 3]
        monkeypatch.setattr(chunks, "make", lambda task: pytest.fail("the whole piece was read"))
        np.testing.assert_array_equal(chunks.images_of(task, np.array([1, 3, 1])), piece.images[[1, 2, 1]])
        monkeypatch.undo()
        task.path.write_bytes(task.path.read_bytes()[:-1])
        np.testing.assert_array_equal(chunks.images_of(task, np.array([0, 3])), piece.images[[0, 2]])
        task.path.unlink()
