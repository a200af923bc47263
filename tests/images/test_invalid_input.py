"""Bad input through the command line: every fault is told by file and reason, and nothing comes through."""

import csv
import errno
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.helpers.image_folders import arguments, noise, run, save, settings
from workflow_scripts.lib.images import chunks, reading_plan
from workflow_scripts.lib.images.image_set import ImageSet

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["Nucleus", "Cytosol"]
# Id -> kind and a piece of the reason, of the images whose files are at fault; what makes them so stands in `folder`.
FILES = {
    "channel_missing": ("missing file", "is missing"),
    "files_missing": ("Id without files", "none of these files is there"),
    "truncated": ("damaged file", "is damaged or incomplete"),
    "zero_bytes": ("empty file", "is empty (0 bytes)"),
    "deep": ("wrong bit depth", "is 16 bits deep; expected is 8 bits deep"),
    "colour": ("colour file", "one plane of grey is expected"),
    "palette": ("colour file", "mode P"),
    "sizes": ("channels of different size", "red 16 × 16, green 8 × 8"),
    "oblong": ("not square", "16 × 12 pixels"),
    "small": ("too small", "4 pixels wide, less than preprocess_images.size = 8"),
    "linked": ("link out of the folder", "is a link to a place outside"),
    "dangling": ("missing file", "is a link to nothing"),
    "bomb": ("decompression bomb", "unpacks to more than"),
    "black": ("blank image", "all black"),
    "white": ("blank image", "every pixel is the same"),
    "text": ("not an image", "is no PNG file"),
    "other_format": ("not an image", "is no PNG file"),
    "a_folder": ("cannot be read", "Is a directory"),
}
ROWS = {
    "twice": ("conflicting rows", "and they disagree"),
    "unknown": ("unknown label", "'7' is no class number"),
    "unlabelled": ("no label", "has no label"),
    "broken": ("broken row", "has 3 cells"),
    "../../etc/passwd": ("Id that is no file name", "cannot be part of a file name"),
    "/etc/passwd": ("Id that is no file name", "cannot be part of a file name"),
}
GOOD = ["fine", "again"]


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.fixture
def raw(tmp_path):
    """All faults in one folder, between two good images."""
    folder = tmp_path / "train"
    folder.mkdir()
    for number, name in enumerate([*GOOD, *FILES, *(name for name in ROWS if "/" not in name), "extra"]):
        if name != "files_missing":
            for channel in ("red", "green"):
                save(folder / f"{name}_{channel}.png", noise(number + ord(channel[0])))
    (folder / "channel_missing_green.png").unlink()
    whole = (folder / "truncated_red.png").read_bytes()
    (folder / "truncated_red.png").write_bytes(whole[: len(whole) // 2])
    (folder / "zero_bytes_red.png").write_bytes(b"")
    save(folder / "deep_red.png", noise(1).astype(np.uint16) * 200)
    save(folder / "colour_red.png", np.stack([noise(1)] * 3, axis=2))
    Image.fromarray(noise(1)).convert("P").save(folder / "palette_red.png")
    save(folder / "sizes_green.png", noise(1, 8))
    for channel in ("red", "green"):
        save(folder / f"oblong_{channel}.png", noise(1)[:12])
        save(folder / f"small_{channel}.png", noise(1, 4))
        save(folder / f"black_{channel}.png", np.zeros((16, 16), np.uint8))
        save(folder / f"white_{channel}.png", np.full((16, 16), 255, np.uint8))
    save(tmp_path / "elsewhere.png", noise(1))
    (folder / "linked_red.png").unlink()
    (folder / "linked_red.png").symlink_to(tmp_path / "elsewhere.png")
    (folder / "dangling_red.png").unlink()
    (folder / "dangling_red.png").symlink_to(folder / "nothing.png")
    (folder / "bomb_red.png").write_bytes(png_of(60_000, 60_000))
    (folder / "text_red.png").write_text("no picture")
    Image.fromarray(noise(1)).save(folder / "other_format_red.png", format="BMP")
    (folder / "a_folder_red.png").unlink()
    (folder / "a_folder_red.png").mkdir()
    rows = [f"{name};0" for name in [*GOOD, *FILES]]
    rows += ["twice;0", "twice;1", "unknown;0 7", "unlabelled;", "broken;0;1", "../../etc/passwd;0", "/etc/passwd;1"]
    # With all that spreadsheets do: a byte order mark, CRLF, semicolons, blanks, lines in quotes, a row twice.
    rows += ["fine; 0 ", '"again";"0"']
    (tmp_path / "train.csv").write_bytes(("\ufeff Id ;Target\r\n" + "\r\n".join(rows) + "\r\n").encode())
    return tmp_path


def command(raw: Path, given: dict, **more) -> subprocess.CompletedProcess:
    """The stage as a program of its own."""
    return subprocess.run(
        [sys.executable, "-m", "workflow_scripts.preprocess_images", *arguments(raw, given)],
        cwd=ROOT, text=True, capture_output=True, timeout=120, **more,
    )  # fmt: skip


def listed(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as handle:
        return {row["Id"]: row for row in csv.DictReader(handle)}


def check_list(found: dict[str, dict[str, str]], log: str) -> None:
    assert sorted(found) == sorted([*FILES, *ROWS])
    for name, (kind, reason) in (FILES | ROWS).items():
        row = found[name]
        assert row["kind"] == kind, row
        assert reason in row["reason"], row
        assert name in row["file"] or row["file"].startswith("train.csv, line "), row
        assert f"{row['file']}: {row['reason']}" in log
    assert "\0" not in log


def test_all_faults_at_once_stop_the_run_and_are_all_listed(raw):
    done = command(raw, settings(data={"class_names": NAMES, "bits": [8]}))
    assert done.returncode == 1
    log = (raw / "log.txt").read_text()
    assert "Traceback" not in done.stderr + log
    total = len(FILES) + len(ROWS)
    last = next(line for line in done.stderr.splitlines() if line.startswith("preprocess_images failed: "))
    assert f"{total} of {total + 2} images cannot be used (" in last
    assert str(raw / "log.bad_input.csv") in last
    check_list(listed(raw / "log.bad_input.csv"), log)
    check_list(listed(raw / "log.bad_input.csv"), done.stderr)
    assert "2 rows of train.csv repeat another one and count once" in log
    assert "files of 1 Ids have no row in the table and are not used: extra" in log
    assert not (raw / "out" / "images.h5").exists()
    assert not (raw / "out" / "left_out.csv").exists()


def test_all_faults_at_once_are_left_out(raw):
    given = {"class_names": NAMES, "bits": [8], "on_invalid": "skip", "invalid_limit": 0.95}
    done = command(raw, settings(data=given))
    assert done.returncode == 0, done.stderr
    check_list(listed(raw / "out" / "left_out.csv"), done.stderr)
    with ImageSet(raw / "out" / "images.h5") as made:
        part = made.read(None, "inspect")
        assert made.attrs["left_out"] == len(FILES) + len(ROWS)
    assert list(part.ids) == GOOD
    means = noise(ord("r")).reshape(8, 2, 8, 2).mean((1, 3))
    assert np.abs(part.images[0, 0] - means).max() <= 0.51


def test_too_much_to_leave_out(raw, capsys):
    given = {"class_names": NAMES, "bits": [8], "on_invalid": "skip", "invalid_limit": 0.5}
    assert run(raw, settings(data=given)) == 1
    assert "more than data.invalid_limit = 0.5 allows to leave out" in capsys.readouterr().err
    assert listed(raw / "log.bad_input.csv")


def test_an_odd_depth_is_noticed_without_being_told_what_to_expect(raw, capsys):
    (raw / "train.csv").write_text("Id,Target\nfine,0\nagain,1\nsmall,0\ndeep,0\n")
    assert run(raw, settings(data={"class_names": NAMES, "on_invalid": "skip", "invalid_limit": 1})) == 0
    assert "expected is 8 bits deep, as most images are" in listed(raw / "out" / "left_out.csv")["deep"]["reason"]


ARRAYS = {
    "nan.tif": (np.where(np.eye(16), np.nan, 0.5).astype(np.float32), "NaN or infinity"),
    "inf.npy": (np.where(np.eye(16), np.inf, 0.5).astype(np.float32), "NaN or infinity"),
    "bright.tif": (np.linspace(0, 4095, 256, dtype=np.float32).reshape(16, 16), "above preprocess_images.white_level"),
    "whole.npy": (noise(1).astype(np.int64), "values of type int64"),
    "stack.tif": (np.stack([noise(1)] * 5), "5 along Z"),
    "pickle.npy": (np.array([{"a": 1}], dtype=object), "damaged"),
    "three.npy": (np.stack([noise(1)] * 3), "one plane of grey is expected"),
    "last.npy": (np.stack([noise(1)] * 3, axis=2), "one plane of grey is expected"),
    "line.npy": (np.arange(16, dtype=np.uint8), "array of shape (16,)"),
}


@pytest.mark.parametrize("file", ARRAYS)
def test_arrays_that_are_no_images(tmp_path, file):
    values, reason = ARRAYS[file]
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / file
    if path.suffix == ".npy":
        np.save(path, values, allow_pickle=True)
    else:
        tifffile.imwrite(path, values, photometric="minisblack", metadata={"axes": "ZYX" if values.ndim == 3 else "YX"})
    (tmp_path / "train.csv").write_text(f"Id,Target\n{path.stem},x\n")
    assert run(tmp_path, settings(data={"files": "{id}" + path.suffix}, channels=["gfp"])) == 1
    assert reason in listed(tmp_path / "log.bad_input.csv")[path.stem]["reason"]


def test_a_file_that_may_not_be_read_is_told(raw, monkeypatch):
    (raw / "train.csv").write_text("Id,Target\nfine,0\nagain,1\n")
    opened = Image.open

    def refusing(path, *more, **named):
        if Path(path).name == "fine_red.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *more, **named)

    monkeypatch.setattr(Image, "open", refusing)
    assert run(raw, settings(data={"class_names": NAMES})) == 1
    row = listed(raw / "log.bad_input.csv")["fine"]
    assert (row["kind"], row["reason"]) == ("cannot be read", "cannot be read: Permission denied")


def test_a_full_disk_is_told_and_nothing_half_written_remains(raw, monkeypatch, capsys):
    (raw / "train.csv").write_text("Id,Target\nfine,0\nagain,1\n")
    given = settings(data={"class_names": NAMES})

    def full(*args, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(chunks, "_write", full)
        assert run(raw, given) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not (raw / "out" / "images.h5").exists()
    assert run(raw, given) == 0


def test_too_little_room_is_told_before_anything_is_read(raw, monkeypatch, capsys):
    (raw / "train.csv").write_text("Id,Target\nfine,0\nagain,1\n")
    left = type("Usage", (), {"free": 255})()
    monkeypatch.setattr(reading_plan.shutil, "disk_usage", lambda path: left)
    assert run(raw, settings(data={"class_names": NAMES})) == 1
    assert "no room to write" in capsys.readouterr().err


@pytest.mark.parametrize("room", [20_000, 265_000])
def test_a_real_limit_on_what_can_be_written(raw, room):
    """The pixels do not fit; they do, and what is written around them does not."""
    for name in GOOD:
        for channel in ("red", "green"):
            save(raw / "train" / f"{name}_{channel}.png", noise(1 if name == "fine" else 2, 256))
    (raw / "train.csv").write_text("Id,Target\nfine,0\nagain,1\n")
    given = settings(data={"class_names": NAMES}, size=256)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # noqa: E731
    done = command(raw, given, preexec_fn=limit, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 1, done
    assert "preprocess_images failed: no room to write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (raw / "out" / "images.h5").exists()
    assert not [path for path in (raw / "out").iterdir() if path.name.endswith(".h5")]
    assert command(raw, given).returncode == 0
