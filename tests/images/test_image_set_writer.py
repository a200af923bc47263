"""lib.images.image_set_writer: sets are whole or absent, their columns fit, and the digest follows the content."""

import numpy as np
import pytest

from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images


def test_the_digest_follows_content_and_not_blocks(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4), dtype=np.uint8)
    changed = images.copy()
    changed[5, 0, 3, 3] ^= 1

    def digest(pixels: np.ndarray, block: int, group: str = "g", hot: int = 0) -> str:
        with write_images(tmp_path / "set.h5", ["green"], ["a"], 4) as writer:
            for start in range(0, 6, block):
                rows = range(start, start + block)
                labels = np.full((block, 1), hot)
                writer.append(pixels[list(rows)], labels, [f"i{row}" for row in rows], [group] * block)
        with ImageSet(tmp_path / "set.h5") as source:
            return source.digest

    first = digest(images, 6)
    assert first == digest(images, 2)
    assert len({first, digest(changed, 6), digest(images, 6, group="h"), digest(images, 6, hot=1)}) == 4


def test_text_columns_are_kept(tmp_path):
    with write_images(tmp_path / "set.h5", ["green"], ["a"], 4) as writer:
        for name in ("one", "two"):
            writer.append(np.zeros((1, 1, 4, 4)), [[1]], [name], ["g"], {"gene": [f"gene {name}"]})
    with ImageSet(tmp_path / "set.h5") as source:
        assert source.columns() == ["gene"]
        assert list(source.column("gene")) == ["gene one", "gene two"]


def test_columns_must_fit_the_images(tmp_path):
    blank = np.zeros((2, 1, 4, 4))
    bad = [
        (blank, [[1], [1]], ["only one"], ["g", "g"], {}),
        (blank, [[1], [1]], ["only one"], ["g"], {}),
        (blank, [[1], [1]], ["a", "b"], ["g", "g"], {"gene": ["x"]}),
        (np.zeros((2, 1, 4, 1)), [[1], [1]], ["a", "b"], ["g", "g"], {}),
    ]
    for images, labels, ids, groups, columns in bad:
        with pytest.raises(ValueError), write_images(tmp_path / "set.h5", ["green"], ["a"], 4) as writer:
            writer.append(images, labels, ids, groups, columns)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_writing_leaves_nothing(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        write_images(tmp_path / "set.h5", ["green"], ["a"], 4) as writer,
    ):
        writer.append(np.zeros((1, 1, 4, 4)), [[1]], ["a"], ["g"])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
