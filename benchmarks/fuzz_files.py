"""Thousands of damaged files through their readers: images that people bring, and the files of a run.

    python -m benchmarks.fuzz_files                     10,000 images, 5,000 of further formats, 2,000 files of a run
    python -m benchmarks.fuzz_files --only images --seed 2 --from 4711 --count 1

An image is a sound PNG, JPEG, TIFF, OME-TIFF or NPY file of which bytes were changed, cut off or repeated, mostly in
its header. It goes the way of preprocess_images. Further formats are stacks, and, where their optional packages are
installed, CZI, OME-Zarr and Parquet. A file of a run is an image set, a table of folds, predictions, a network or a
ledger. Every file must be read, or refused in one line. No reader may crash, take more than ten seconds, or more memory
than the largest image that is allowed. Readers run in processes of their own, so that a crash is seen.

Ends with exit status 1 if anything else has come out."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
import pandas as pd
import tifffile
import torch
from PIL import Image

from benchmarks import fuzz
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import backbones, classifier_file
from workflow_scripts.lib.generate import generator_file, generator_training, networks
from workflow_scripts.lib.images import decode, user_tables
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.images.planes import Unusable, Wanted, to_array
from workflow_scripts.lib.judge import lockbox_ledger
from workflow_scripts.lib.scores.prediction_file import Predictions, Scored, read_predictions, write_predictions
from workflow_scripts.lib.split import role_table

LONGEST = 10  # seconds for a file, after which it counts as a hang
MOST = 4 << 30  # bytes that a reader may take beside what it started with: the planes of the largest image
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000, 65_000, 1 << 28)
CHANNELS, CLASSES, SIZE = ["red", "green"], ["Nucleus", "Cytosol", "Golgi"], 8
IDS = np.array([f"cell-{number:02d}" for number in range(24)], dtype=object)
GROUPS = np.array([f"gene-{number % 12:02d}" for number in range(24)], dtype=object)
Reader = Callable[[Path], object]


@dataclass
class Outcome(fuzz.Outcome):
    """What became of the files of one kind."""

    memory: int = 0  # bytes, the largest reader

    def line(self) -> str:
        """The result as it is printed."""
        return f"{super().line()}; the largest reader took {self.memory / 1e6:.0f} MB"


# Sound files


def images(folder: Path) -> dict[Path, Reader]:
    """Sound image files of all formats, small enough that most changes hit something that is read."""
    rng = np.random.default_rng(1)
    grey = rng.integers(0, 255, (12, 10), dtype=np.uint8)
    deep = rng.integers(0, 65535, (12, 10), dtype=np.uint16)
    stack = rng.integers(0, 65535, (3, 12, 10), dtype=np.uint16)
    for mode, pixels in (("grey", grey), ("deep", deep), ("colour", np.stack([grey] * 3, axis=-1))):
        Image.fromarray(pixels).save(folder / f"{mode}.png")
    Image.fromarray(grey).save(folder / "grey.jpg")
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(folder / "colour.jpg", progressive=True)
    Image.fromarray(grey).save(folder / "lzw.tif", compression="tiff_lzw")
    tifffile.imwrite(folder / "plain.tif", deep)
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack", compression="zlib")
    tifffile.imwrite(folder / "tiled.tif", np.tile(deep, (3, 4)), tile=(16, 16))
    tifffile.imwrite(folder / "big.tif", deep, bigtiff=True, byteorder=">")
    named = {"axes": "CYX", "Channel": {"Name": ["dapi", "gfp", "rfp"]}}
    tifffile.imwrite(folder / "cells.ome.tif", stack, metadata=named)
    np.save(folder / "stack.npy", stack)
    np.save(folder / "floats.npy", grey.astype(np.float32) / 255)
    return dict.fromkeys(sorted(folder.iterdir()), _pixels)


def _pixels(path: Path) -> object:
    """The planes of a file as arrays, as preprocess_images takes them."""
    try:
        return [np.array(to_array(plane)) for plane in decode.decode(path, Wanted(3, "maximum")).images]
    except Unusable as error:
        raise UserError(f"{path.name} {error}") from None


def formats(folder: Path) -> dict[Path, Reader]:
    """Sound files of stacks, and of those formats and tables whose optional packages are there."""
    rng = np.random.default_rng(1)
    stack = rng.integers(0, 65535, (3, 2, 12, 10), dtype=np.uint16)
    tifffile.imwrite(folder / "stack.ome.tif", stack, metadata={"axes": "ZCYX"}, photometric="minisblack")
    tifffile.imwrite(folder / "stack.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    with tifffile.TiffWriter(folder / "apart.tif") as writer:
        for plane in stack[0]:
            writer.write(plane, contiguous=False)
    if find_spec("pylibCZIrw"):
        _write_czi(folder / "stack.czi", stack)
    found = dict.fromkeys(sorted(folder.iterdir()), _pixels)
    if find_spec("pyarrow"):
        table = pd.DataFrame({"Id": list("abcdef") * 20, "Target": ["x", "y|x", None] * 40, "number": range(120)})
        table.to_parquet(folder / "table.parquet")
        found[folder / "table.parquet"] = user_tables.read_table
    if find_spec("zarr"):
        for name, form in (("two", 2), ("three", 3)):
            whole = folder / f"{name}.zarr"
            _write_zarr(whole, stack, form)
            members = [path for path in sorted(whole.rglob("*")) if path.is_file()]
            found |= {path: partial(_pixels_with, whole, path.relative_to(whole)) for path in members}
    return found


def _write_czi(path: Path, stack: np.ndarray) -> None:
    from pylibCZIrw import czi

    with czi.create_czi(str(path)) as file:
        for focus, channel in np.ndindex(stack.shape[:2]):
            file.write(stack[focus, channel][..., None], plane={"C": channel, "Z": focus, "T": 0})
        file.write_metadata("a", channel_names={0: "dapi", 1: "gfp"})


def _write_zarr(path: Path, stack: np.ndarray, form: Literal[2, 3]) -> None:
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=form)
    group.create_array("0", data=stack, chunks=(1, 1, 12, 10))
    about = {"multiscales": [{"axes": [{"name": axis} for axis in "zcyx"], "datasets": [{"path": "0"}]}]}
    group.attrs.update(about if form == 2 else {"ome": about})


def _pixels_with(whole: Path, member: Path, damaged_file: Path) -> object:
    """The planes of an image that is a folder, of which one file is damaged."""
    copy = damaged_file.parent / whole.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole, copy)
    shutil.copyfile(damaged_file, copy / member)
    return _pixels(copy)


def run_files(folder: Path) -> dict[Path, Reader]:
    """Sound files of a run, each with its reader."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (24, 3), dtype=np.uint8)
    made = folder / "images.h5"
    with write_images(made, CHANNELS, CLASSES, SIZE, {"grouped_by": "gene"}) as writer:
        writer.append(rng.integers(0, 256, (24, 2, SIZE, SIZE), dtype=np.uint8), labels, list(IDS), list(GROUPS))
    with ImageSet(made) as source:
        record = AccessRecord(source.digest, 24)
    record.record("fit", np.arange(12))
    roles = np.array(["train", "validation", "calibration", "test"] * 6, dtype=object)[:, None]
    role_table.write(folder / "folds.csv", IDS, GROUPS, roles)
    scored = Scored(IDS, GROUPS, labels.astype(float), rng.normal(size=(24, 3)))
    told = Predictions(CLASSES, "pool", 0, 0, {"test": scored}, images="0", access_record=record.to_json())
    write_predictions(folder / "predictions.h5", told)
    _write_networks(folder, record)
    lockbox_ledger.begin(folder / "lockbox.jsonl", dict.fromkeys(lockbox_ledger.FORM, "0"))
    cpu = torch.device("cpu")
    return {
        made: _image_set,
        folder / "folds.csv": lambda path: role_table.read(path, 0, IDS),
        folder / "predictions.h5": lambda path: read_predictions(path, ("test",)),
        folder / "classifier.safetensors": lambda path: classifier_file.read(path).network(cpu),
        folder / "generator.safetensors": lambda path: generator_file.read(path).network(cpu, torch.float32),
        folder / "lockbox.jsonl": lockbox_ledger.read_ledger,
    }


def _write_networks(folder: Path, record: AccessRecord) -> None:
    """A classifier and a generator of two channels, untrained."""
    text, mean, std = record.to_json(), torch.zeros(2), torch.ones(2)
    weights = backbones.build("small", 2, 3, 32, 0).state_dict()
    settings: dict[str, object] = {"backbone": "small", "loss": "bce"}
    classifier_file.write(
        folder / "classifier.safetensors",
        classifier_file.Classifier("pool", 0, 0, CLASSES, CHANNELS, 32, settings, mean, std, weights, text, "0"),
    )
    settings = {"name": "unet", "network": "unet", "widths": [16, 32], "blocks": [1, 1], "objective": "edm"}
    network = networks.make_network(settings, 2, 3, 32, torch.float32)
    pixels = generator_training.Pixels(torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1))
    generator_file.write(
        folder / "generator.safetensors",
        generator_file.Generator(
            0, 0, settings, CHANNELS, CLASSES, 32, pixels, record, "0", 1.0, dict(network.state_dict())
        ),
    )


def _image_set(path: Path) -> object:
    """All of an image set."""
    with ImageSet(path) as source:
        return source.read(None, "fit"), [source.column(name) for name in source.columns()]


# Damage


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file with one to four changes, three quarters of them in its first kilobyte."""
    out = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if not out:
            return bytes(out)
        at = rng.randrange(min(len(out), 1024) if rng.random() < 0.75 else len(out))
        kind = rng.randrange(8)
        if kind < 3:
            out[at] = rng.choice((rng.randrange(256), out[at] ^ 1 << rng.randrange(8)))
        elif kind < 5:
            # A number of two, four or eight bytes that a header might hold: a length, a place, a count.
            form = rng.choice("<>") + rng.choice("HIQ")
            most = 1 << 8 * struct.calcsize(form)
            number = struct.pack(form, rng.choice(EXTREMES) % most)
            out[at : at + len(number)] = number
        elif kind == 5:
            del out[at : at + rng.choice((1, 4, 64, len(out)))]
        elif kind == 6:
            out[at:at] = out[at : at + rng.choice((1, 8, 200))] * rng.choice((1, 2, 50))
        else:
            out[at : at + 16] = rng.randbytes(16)
    return bytes(out)


# Readers in processes of their own


def fuzz_all(what: str, sound: Callable[[Path], dict[Path, Reader]], numbers: range, seed: int) -> Outcome:
    """Read a damaged copy of a sound file for each number."""
    out = Outcome(what)
    with tempfile.TemporaryDirectory(prefix="mixloc-fuzz-") as folder:
        place = Path(folder)
        (place / "sound").mkdir()
        (place / "damaged").mkdir()
        readers = list(sound(place / "sound").items())
        contents = [path.read_bytes() for path, _ in readers]
        left = numbers
        while left:
            # The process goes on until the numbers end, or until a file ends it.
            reached = left.start
            for found in _batch(place / "damaged", readers, contents, left, what, seed):
                _count(out, found, seed)
                reached = found["number"] + 1
            if reached == left.start:
                raise RuntimeError(f"the process that reads {what} ended before its first file")
            left = range(reached, left.stop)
    return out


def _count(out: Outcome, found: dict[str, Any], seed: int) -> None:
    out.slowest, out.memory = max(out.slowest, found["seconds"]), max(out.memory, found["memory"])
    if found["result"] == "read":
        out.taken += 1
    elif found["result"] == "refused":
        out.refused += 1
    else:
        out.escaped.append(f"{out.what} {seed} {found['number']} ({found['file']}): {found['result']}")


def _batch(
    folder: Path, readers: list[tuple[Path, Reader]], contents: list[bytes], numbers: range, what: str, seed: int
) -> Iterator[dict[str, Any]]:
    """What a process says of each file; of the file that ends it, this says it."""
    begun, ended = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(begun)
        with os.fdopen(ended, "w", encoding="utf-8") as told, contextlib.suppress(BrokenPipeError):
            _read_all(folder, readers, contents, numbers, what, seed, told)
        os._exit(0)
    os.close(ended)
    open_file = None
    with os.fdopen(begun, encoding="utf-8") as told:
        for line in told:
            found = json.loads(line)
            if "result" in found:
                open_file = None
                yield found
            else:
                open_file = found
    status = os.waitpid(child, 0)[1]
    if open_file is not None:
        name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status}"
        result = f"took more than {LONGEST} s" if name == "SIGALRM" else f"the reader died: {name}"
        yield open_file | {"result": result, "seconds": 0.0, "memory": 0}


def _read_all(
    folder: Path, readers: list[tuple[Path, Reader]], contents: list[bytes], numbers: range, what: str, seed: int,
    told: TextIO,
) -> None:  # fmt: skip
    """Read damaged files one after the other; say which one before, and what came of it after."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # decoders write warnings there
    own = _memory()
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MOST, resource.RLIM_INFINITY))
    for number in numbers:
        rng = random.Random(f"{what} {seed} {number}")
        kind = rng.randrange(len(readers))
        path, read = readers[kind]
        copy = folder / path.name
        copy.write_bytes(damaged(contents[kind], rng))
        about = {"number": number, "file": path.name}
        print(json.dumps(about), file=told, flush=True)
        signal.alarm(LONGEST)
        started = time.monotonic()
        result = _result(read, copy)
        signal.alarm(0)
        about |= {"result": result, "seconds": time.monotonic() - started, "memory": _memory() - own}
        print(json.dumps(about), file=told, flush=True)


def _result(read: Reader, path: Path) -> str:
    try:
        read(path)
    except UserError as error:
        text = str(error)
        return "refused" if text and text.isprintable() else f"of more than one line: {text!r}"
    except BaseException:
        return traceback.format_exc()
    return "read"


def _memory() -> int:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _address_space() -> int:
    """Bytes of address space that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main(argv: list[str] | None = None) -> int:
    """The program."""
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--count", type=int, help="files of each kind")
    out.add_argument("--from", dest="first", type=int, default=0, help="number of the first file")
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--only", choices=["images", "formats", "run_files"], help="one kind alone")
    args = out.parse_args(argv)
    escaped = 0
    for kind, usual in ((images, 10_000), (formats, 5_000), (run_files, 2_000)):
        if args.only and kind.__name__ != args.only:
            continue
        numbers = range(args.first, args.first + (args.count or usual))
        found = fuzz_all(kind.__name__, kind, numbers, args.seed)
        print(found.line())
        for text in found.escaped[:20]:
            print(text)
        escaped += len(found.escaped)
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
