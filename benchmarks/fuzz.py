"""Thousands of damaged configs and tables through their readers: what comes out is a result or one line for the user.

    python -m benchmarks.fuzz                     10,000 of each; one part alone: --only configs, --only tables
    python -m benchmarks.fuzz --seed 2 --from 4711 --count 1

A config goes the way of a run: what Snakemake makes of the files (of some of them by their text), `check.check`, and
what the Snakefile then asks. A table goes the way of preprocess_images and fetch_images. A fraction of the tables goes
to the end: an image set with the columns that were read. Every input follows from seed and number alone, so one can be
had again.

Ends with exit status 1 if anything but a ConfigError or a UserError of one line has come out."""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import gzip
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.config import check, stage_views, views
from workflow_scripts.lib.download import manifest
from workflow_scripts.lib.images import grouping, image_list, invalid_input, known_datasets, user_tables
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images

ROOT = Path(__file__).resolve().parent.parent
OWN = {
    "run": "yeast",
    "preprocess_images": {"channels": ["dic", "gfp"]},
    "report": {"demonstration": False, "panels": {"protein_channel": "gfp"}},
}  # as in the README
TEXTS = [
    "", " ", "x" * 5000, "a\nb", "name\n", "\0", "a\x1b[31mb", "\ud800", "\u202eevil", "\ufeffa", "é\u0301", "名前",
    "$(touch here)", "`touch here`", "; touch here", "'\"", "{run}", "{", "{id}", "%s%n", "../..", "/", "~nobody/x",
    "${UNSET}/x", "$", "null", "true", "1e5", "<script>", "\u2028", "*", "-", "--out", "a" * 300 + "/b",
]  # fmt: skip
NUMBERS = [
    0, -1, 1, 2, 3.0, 0.5, -0.0, 1e-300, 1e300, 10**20, -(10**400), float("nan"), float("inf"), float("-inf"), True,
]  # fmt: skip
ODD = [
    None, [], {}, [None], [[]], {"": ""}, {"a": {"b": []}}, {1: 2}, {None: 1}, {True: 1}, {(1, 2): 3}, (1, 2), {1, 2},
    b"bytes", datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), complex(1, 2), object,
]  # fmt: skip
YAML = [
    "&a [*a]", "*nobody", "!!python/object/apply:os.system ['touch here']", "!!binary aGVsbG8=", "!!set {a, b}",
    ".nan", "-.inf", "0x1F", "1_000", "1:30", "2020-01-01", "2020-99-99", "~", "yes", "|\n  text", "\t", "---\n",
    "...\n", "? [a]", "<<: {run: x}", "{a: {b: [", "'", '"', "\0", "\ufeff", "#", ": ", "- ", "  ", "\r", "!!int x",
    "!!float", "@", "`", "%",
]  # fmt: skip
PIECES = [
    b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b'"', b"'", b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n",
    b"\x1b[2J", b"\xc3\x28", b"\xed\xa0\x80", b"\x1f\x8b", b"\xe2\x80\xa8", b"../../etc/passwd", b"/etc/passwd",
    b"$(touch here)", b"{id}", b"{channel}", b"=cmd|' /C calc'!A0", b"-1", b"1e999", b"9" * 400, b"\xd9\xa1", b"0x1",
    b"nan", b"None", b"NA", b"Id", b"Target", b"gene", b"x" * 300, b'"' + b"y" * 200_000 + b'"', b"a,b,c\n",
    b",,,,\n", b"#", b"\\", b" ",
]  # fmt: skip


@dataclass
class Outcome:
    """What became of the inputs of one kind."""

    what: str
    taken: int = 0
    refused: int = 0
    escaped: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def line(self) -> str:
        """The result as it is printed."""
        return (
            f"{self.what}: {self.taken + self.refused + len(self.escaped)} inputs, {self.taken} taken, {self.refused} "
            f"refused in one line, {len(self.escaped)} escaped; the slowest took {self.slowest:.2f} s"
        )


def tried(what: str, numbers: range, seed: int, once: Callable[[random.Random], None]) -> Outcome:
    """Call `once` for each number with random numbers that follow from seed and number."""
    out = Outcome(what)
    for number in numbers:
        started = time.monotonic()
        try:
            once(random.Random(f"{what} {seed} {number}"))
            out.taken += 1
        except (check.ConfigError, UserError) as error:
            if str(error) and str(error).isprintable():
                out.refused += 1
            else:
                out.escaped.append(f"{what} {seed} {number}: of more than one line: {str(error)!r}")
        except Exception:
            out.escaped.append(f"{what} {seed} {number}: {traceback.format_exc()}")
        out.slowest = max(out.slowest, time.monotonic() - started)
    return out


# Configs


def overlaid(base: Any, overlay: Any) -> Any:
    """As Snakemake lays one config over another: mappings merge, everything else is replaced."""
    if isinstance(base, dict) and isinstance(overlay, dict):
        return base | {key: overlaid(base.get(key), value) for key, value in overlay.items()}
    return copy.deepcopy(overlay)


def sound_configs(folder: Path) -> list[dict[str, Any]]:
    """Configs with nothing wrong: the default, presets, and images of one's own below `folder`."""
    default = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    given = {"source": "folder", "images": str(folder / "images"), "table": str(folder / "labels.csv")}
    (folder / "images").mkdir(exist_ok=True)
    (folder / "labels.csv").write_text("Id,Target\na,x\n", encoding="utf-8")
    public = {"data": {"source": "public", "table": str(folder / "labels.csv")}}
    small = yaml.safe_load((ROOT / "presets" / "ci.yaml").read_text(encoding="utf-8"))
    return [overlaid(default, overlay) for overlay in ({}, small, OWN | {"data": given}, public)]


def used(config: dict[str, Any]) -> None:
    """What a run does with a config before its first job: rules/common.smk."""
    config = check.check(config)
    views.job_lists(config)
    views.used_sets(config)
    stage_views.reading(config)
    stage_views.judge_settings(config)
    list(range(config["make_folds"]["repeats"]))
    list(range(config["make_folds"]["folds"]))


def at(config: Any, path: tuple[Any, ...]) -> Any:
    """The value at a place."""
    for key in path:
        config = config[key]
    return config


def damage_config(config: dict[str, Any], sound: list[dict[str, Any]], rng: random.Random) -> None:
    """Change one thing about a config, in place; half of the changes are such that a person could mean them."""
    # What other changes have left may be anything.
    known = [path for path in places(config) if path]
    path = rng.choice(known)
    holder, key = at(config, path[:-1]), path[-1]
    value = holder[key]
    kind = rng.randrange(18)
    if kind > 8:
        _meant(holder, key, path, sound, rng)
    elif kind == 0 and isinstance(holder, dict):
        del holder[key]
    elif kind == 1:
        target = value if isinstance(value, dict) else config
        target[rng.choice([*TEXTS, 1, None, True, "seed", "name", "extends"])] = copy.copy(rng.choice(ODD))
    elif kind == 2:
        # A reference or a setting that belongs elsewhere.
        holder[key] = at(config, rng.choice(known))
    elif kind == 3 and isinstance(value, list):
        holder[key] = rng.choice([[], value * 2, value[:1], value[::-1], value * 300, [value], [*value, None]])
    elif kind == 4:
        for _ in range(rng.choice([1, 3, 50, 3000])):
            value = rng.choice([[value], {"a": value}])
        holder[key] = value
    elif kind == 5:
        # As an anchor of YAML that names itself.
        holder[key] = config if rng.random() < 0.5 else [holder]
    elif kind == 6 and isinstance(value, str):
        holder[key] = rng.choice([value + "\n", value.upper(), value + rng.choice(TEXTS), rng.choice(TEXTS) + value])
    elif kind == 7 and isinstance(value, int | float) and value is not None:
        changes = [-value, value * 10**9, float(value), str(value), value / 3, value + 1]
        holder[key] = rng.choice([*changes, *NUMBERS])
    else:
        holder[key] = rng.choice([*TEXTS, *NUMBERS, *ODD])


def _meant(holder: Any, key: Any, path: tuple[Any, ...], sound: list[dict[str, Any]], rng: random.Random) -> None:
    value = holder[key]
    if isinstance(value, bool):
        holder[key] = not value
    elif isinstance(value, int) and rng.random() < 0.7:
        holder[key] = rng.choice([value - 1, value + 1, 2 * value, 8 * value])
    elif isinstance(value, float) and rng.random() < 0.7:
        holder[key] = rng.choice([value / 2, value * 1.1, min(1.0, value * 4)])
    elif isinstance(value, list) and value and rng.random() < 0.7:
        del value[rng.randrange(len(value))]
    else:
        # What another config has there, or beside it.
        with contextlib.suppress(KeyError, IndexError, TypeError):
            beside = at(rng.choice(sound), path[:-1])
            holder[key] = copy.deepcopy(beside[key if rng.random() < 0.5 else rng.choice(list(beside))])


def places(config: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Places of a config that may hold itself: those that a few steps lead to."""
    out: list[tuple[Any, ...]] = []
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), config)]
    while waiting and len(out) < 3000:
        path, value = waiting.pop()
        out.append(path)
        if len(path) < 7:
            inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            waiting += [((*path, key), item) for key, item in inner]
    return out


def loaded(text: str, folder: Path) -> dict[str, Any] | None:
    """A config file as Snakemake reads it; None where Snakemake itself refuses it."""
    from snakemake.common.configfile import load_configfile

    path = folder / "overlay.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        return load_configfile(path)
    except Exception:
        return None


def damaged_text(text: str, rng: random.Random) -> str:
    """A text of YAML with one thing changed."""
    lines = text.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, rng.choice(lines))
    elif kind == 2:
        lines[place] = " " * rng.randrange(6) + lines[place].lstrip()
    elif kind == 3:
        head, _, _ = lines[place].partition(":")
        lines[place] = f"{head}: {rng.choice([*YAML, *TEXTS])}\n"
    else:
        at_letter = rng.randrange(len(lines[place]))
        lines[place] = lines[place][:at_letter] + rng.choice(YAML) + lines[place][at_letter + rng.randrange(3) :]
    return "".join(lines)


def fuzz_configs(numbers: range, seed: int, folder: Path, fraction_of_texts: float = 0.05) -> Outcome:
    """Damaged configs, a fraction of them damaged as text."""
    sound = sound_configs(folder)
    for config in sound:
        used(copy.deepcopy(config))
    text = (ROOT / "presets" / "ci.yaml").read_text(encoding="utf-8")

    def once(rng: random.Random) -> None:
        if rng.random() < fraction_of_texts:
            changed = text
            for _ in range(rng.choice([1, 1, 2, 5])):
                changed = damaged_text(changed, rng)
            overlay = loaded(changed, folder)
            if overlay is None:
                raise check.ConfigError("refused by Snakemake")
            used(overlaid(sound[0], overlay))
            return
        config = copy.deepcopy(rng.choice(sound))
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            damage_config(config, sound, rng)
        used(config)

    return tried("configs", numbers, seed, once)


# Tables

# Tables of labels, each with the description that it needs.
LABELS: list[tuple[str, dict[str, Any]]] = [
    ("Id,Target,gene\na,2 0,G1\nb,1,G1\nc,,G2\nd,2,\n", {"class_names": ["Nucleus", "Cytosol", "Golgi"]}),
    ("Id;Target;Well/Row\na;Nucleus|Golgi;W1\nb;Cytosol;W2\nc;;W3\n", {}),
    (
        'ID\tLabel\tcell_line\tnote\na\t0|1\tU2OS\t"of two\nlines"\nb\t2\tA549\t\n',
        {"source": "kaggle2021"},
    ),
    ('\ufeffId,Target\r\n"G1_10_2_A1_1","1"\r\n"G1_11_2_A1_2_cr5","0 2"\r\n', {"source": "public"}),
]
GROUPS = ["Id,gene,antibody\na,G1,10\nb,G1,11\nc,G2,12\nd,,\n", "Id;plate\na;p\nb;q\nc;r\n"]
CLASSES = "number,name\n0,Nucleus\n1,Cytosol\n2,Golgi\n"
NAMES = ["Nucleus", "Cytosol", "Golgi"]
MAPS = [None, "coarse", {"inside": ["Nucleus"], "outside": ["Cytosol", "Golgi"]}, {"one": ["nobody"]}]


def damaged_table(text: str, rng: random.Random) -> bytes:
    """The bytes of a table with a few things changed."""
    content = text.encode()
    for _ in range(rng.choice([0, 1, 1, 2, 4, 12])):
        content = _changed(content, rng)
    how = rng.randrange(12)
    if how == 0:
        code = rng.choice(["utf-16", "utf-16-le", "utf-32", "cp037", "utf-7"])
        content = content.decode(errors="replace").encode(code, "replace")
    elif how in (1, 2):
        content = gzip.compress(content, mtime=0)
        content = content[: rng.randrange(len(content))] if how == 2 else _changed(content, rng)
    elif how == 3:
        content = rng.randbytes(rng.randrange(200))
    return content


def _changed(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    stop = min(len(content), start + rng.choice([0, 1, 1, 5, 40]))
    piece = content[start:stop]
    kind = rng.randrange(5)
    if kind == 0:
        piece = bytes(byte ^ (1 << rng.randrange(8)) for byte in piece)
    elif kind == 1:
        piece = b""
    elif kind == 2:
        piece = piece * rng.choice([2, 3, 400])
    else:
        piece = (piece if kind == 3 else b"") + rng.choice(PIECES)
    return content[:start] + piece + content[stop:]


def fuzz_tables(numbers: range, seed: int, folder: Path, fraction_of_sets: float = 0.02) -> Outcome:
    """Damaged tables of labels, groups and classes; a fraction of those that are taken becomes an image set."""
    default = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["data"]

    def write(name: str, text: str, rng: random.Random, chance: float) -> Path:
        path = folder / f"{name}.csv"
        path.write_bytes(damaged_table(text, rng) if rng.random() < chance else text.encode())
        return path

    def once(rng: random.Random) -> None:
        text, said = rng.choice(LABELS)
        table = write("table", text, rng, 0.9)
        second = write("groups", rng.choice(GROUPS), rng, 0.7) if rng.random() < 0.3 else None
        classes = write("classes", CLASSES, rng, 0.7) if rng.random() < 0.2 else None
        other = {
            "source": rng.choice(["folder", "kaggle2018", "kaggle2021", "public"]),
            "labels": rng.choice([None, "numbers", "names"]),
            "unlabelled": rng.choice(["invalid", "keep"]),
            "label_separator": rng.choice([None, "|", " ", ","]),
            "class_names": rng.choice([None, NAMES]),
            "label_map": rng.choice(MAPS),
            "unmapped": rng.choice(["refuse", "drop"]),
            "emptied": rng.choice(["keep", "drop"]),
            "group_by": rng.choice([[], ["gene"]]),
        }
        said = {"source": "folder"} | said | {key: value for key, value in other.items() if rng.random() < 0.12}
        data = known_datasets.described(default | said)
        if rng.random() < 0.2:
            found = user_tables.read_table(table)
            manifest.read(found, (data["columns"]["id"], data["columns"]["labels"]), rng.random() < 0.5)
        listed = image_list.from_tables(table, second, classes, data)
        by = image_list.group_columns(listed, data["group_by"])
        names = grouping.connected([listed.columns[name] for name in by], len(listed.ids), [])
        if rng.random() < fraction_of_sets:
            _whole(listed, names, folder)

    return tried("tables", numbers, seed, once)


def _whole(listed: Any, names: list[str], folder: Path) -> None:
    """An image set of black images with what was read, written, read back, and the list of what is wrong."""
    count, path = len(listed.ids), folder / "images.h5"
    with write_images(path, ["green"], listed.classes, 8, {"source": "fuzz"}) as writer:
        writer.append(np.zeros((count, 1, 8, 8), np.uint8), listed.labels, listed.ids, names, listed.columns)
    with ImageSet(path) as back:
        if list(back.ids) != listed.ids or back.classes != listed.classes:
            raise AssertionError("the set does not say what the table said")
        for name in back.columns():
            back.column(name)
    invalid_input.write_list(folder / "bad.csv", listed.bad + listed.dropped)
    files.write_json(folder / "notes.json", listed.notes)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--count", type=int, default=10_000, help="inputs of each kind")
    out.add_argument("--from", dest="first", type=int, default=0, help="number of the first input")
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--only", choices=["configs", "tables"], help="one kind alone")
    args = out.parse_args(argv)
    numbers, escaped = range(args.first, args.first + args.count), 0
    for kind in (fuzz_configs, fuzz_tables):
        if args.only and not kind.__name__.endswith(args.only):
            continue
        with tempfile.TemporaryDirectory(prefix="mixloc-fuzz-") as folder:
            started = time.process_time()
            found = kind(numbers, args.seed, Path(folder))
        print(f"{found.line()}; {time.process_time() - started:.0f} s of CPU in all")
        for text in found.escaped[:20]:
            print(text)
        escaped += len(found.escaped)
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
