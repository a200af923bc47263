"""lib.images.preview: all headers are looked at, and as many pixels are read as seconds allow."""

from collections import Counter

from tests.helpers.image_folders import noise, save, settings
from workflow_scripts.lib.images import preview
from workflow_scripts.lib.images.read_image import Reader


def test_small_images_are_all_read_and_large_ones_in_part():
    assert len(preview.sample(400, Counter({(64, 64): 800}), 2)) == 400
    assert len(preview.sample(30_000, Counter({(512, 512): 9}), 4)) == 286
    assert len(preview.sample(30_000, Counter({(4096, 4096): 9}), 4)) == preview.FEWEST
    assert preview.sample(30_000, Counter({(512, 512): 9}), 4)[-1] == 29_999
    assert not len(preview.sample(0, Counter(), 1))


def test_faults_of_images_that_are_not_read_are_found_by_their_headers(tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "FEWEST", 2)
    monkeypatch.setattr(preview, "PIXELS", 0)
    names = ["first", "gone", "empty", "last"]
    for name in names:
        for channel in ("red", "green"):
            save(tmp_path / f"{name}_{channel}.png", noise(len(name), 16))
    (tmp_path / "gone_red.png").unlink()
    (tmp_path / "empty_green.png").write_bytes(b"")
    seen = preview.look(Reader(tmp_path, settings()), names, [""] * 4, 1)
    assert {(fault.id, fault.kind) for fault in seen.bad} == {("gone", "missing file"), ("empty", "empty file")}
    assert seen.rows.tolist() == [0, 3] and seen.images.shape == (2, 2, 8, 8)
    assert seen.sizes == {(16, 16): 6}
