"""What comes from outside is data: nothing in it is unpickled, none of it reaches a shell, and drafts are private."""

from __future__ import annotations

import ast
import copy
import io
import json
import os
import pickle
import re
import shutil
import stat
import tokenize
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml

from tests.helpers.arms_data import ENTRIES, SECTION, write_fold
from tests.helpers.checkout import Checkout
from tests.helpers.generating import SYNTHETIC_SET, UNET
from tests.helpers.image_folders import arguments, noise, save, settings
from workflow_scripts import certify_leaks, make_folds, preprocess_images, sample_ddpm, train_classifier, train_ddpm
from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import classifier_file, pretrained
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.config import check as run_settings
from workflow_scripts.lib.fidelity import encoders
from workflow_scripts.lib.generate import generator_file
from workflow_scripts.lib.images import decode, image_list, user_tables
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.planes import Unusable, Wanted
from workflow_scripts.lib.judge import fitted_artefacts
from workflow_scripts.lib.scores import arm_list, prediction_file
from workflow_scripts.lib.split import role_table

ROOT = Path(__file__).resolve().parents[2]


class Trap:
    """Makes a folder when it is unpickled by a loader that trusts it."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.marker,)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """The folder that a sprung trap makes."""
    place = tmp_path / "sprung"
    yield place
    assert not place.exists(), "something was unpickled"


def set_trap(path: Path, how: str, marker: Path) -> None:
    """A file that springs the trap of whoever unpickles it, as plain pickle or in torch's archive."""
    if how == "torch":
        torch.save({"digest": "task", "state": Trap(marker), "conv1.weight": Trap(marker)}, path)
    elif how == "numpy":
        with path.open("wb") as out:
            np.save(out, np.array([Trap(marker)], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(Trap(marker), protocol=2))


@pytest.mark.parametrize("how", ["pickle", "torch", "numpy"])
def test_the_traps_work(tmp_path: Path, how: str) -> None:
    path, marker = tmp_path / "trap", tmp_path / "sprung"
    set_trap(path, how, marker)
    if how == "torch":
        with pytest.raises(FileExistsError):  # by the second of them
            torch.load(path, weights_only=False)
    elif how == "numpy":
        np.load(path, allow_pickle=True)
    else:
        pickle.loads(path.read_bytes())
    assert marker.is_dir()


READERS: dict[str, Callable[[Path], Any]] = {
    "generator.safetensors": generator_file.read,
    "classifier.safetensors": classifier_file.read,
    "encoder.safetensors": lambda path: encoders._build(
        path, {"architecture": "resnet18", "weights": str(path)}, "encoder"
    ),
    "weights.safetensors": pretrained._read,
    "weights.pth": pretrained._read,
    "images.h5": ImageSet,
    "predictions.h5": prediction_file.read_predictions,
    "folds.csv": lambda path: role_table.read(path, 0, np.array(["a"], dtype=object)),
    "job0.json": arm_list.read,
    "analysis.json": fitted_artefacts.read_threshold_record,
    "train.csv": user_tables.read_table,
    "image.npy": lambda path: decode.decode(path, Wanted(1)),
    "image.png": lambda path: decode.decode(path, Wanted(1)),
    "image.tif": lambda path: decode.decode(path, Wanted(1)),
}


@pytest.mark.parametrize("how", ["pickle", "torch", "numpy"])
@pytest.mark.parametrize("name", READERS)
def test_no_reader_unpickles(tmp_path: Path, marker: Path, name: str, how: str) -> None:
    path = tmp_path / name
    set_trap(path, how, marker)
    with pytest.raises((UserError, Unusable)) as caught:
        READERS[name](path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_no_digest_is_believed_of_a_pickle(tmp_path: Path, marker: Path, how: str) -> None:
    set_trap(tmp_path / "trap", how, marker)
    for module in (generator_file, classifier_file, prediction_file):
        assert module.read_digest(tmp_path / "trap") == ""


# HDF5 has types for values that other programs take for objects, and ways to lead to other files.


def replaced(file: h5py.File, name: str, **how: Any) -> h5py.Dataset:
    """Another dataset in the place of one."""
    shape = file[name].shape
    del file[name]
    return file.create_dataset(name, **({"shape": shape} | how))


def pickled(marker: Path) -> bytes:
    return pickle.dumps(Trap(marker), protocol=2)


def as_opaque(file: h5py.File, name: str, marker: Path) -> None:
    value = np.void(pickled(marker))
    replaced(file, name, dtype=h5py.opaque_dtype(value.dtype))[...] = value


def as_vlen_bytes(file: h5py.File, name: str, marker: Path) -> None:
    data = replaced(file, name, dtype=h5py.vlen_dtype(np.uint8))
    data[(0,) * data.ndim] = np.frombuffer(pickled(marker), np.uint8)


def as_references(file: h5py.File, name: str, marker: Path) -> None:
    replaced(file, name, dtype=h5py.ref_dtype)[...] = file.ref


def as_records(file: h5py.File, name: str, marker: Path) -> None:
    replaced(file, name, dtype=np.dtype([("a", "u1"), ("b", "S200")]))


def as_group(file: h5py.File, name: str, marker: Path) -> None:
    del file[name]
    file.create_group(name).attrs["pickle"] = np.void(pickled(marker))


def as_other_numbers(file: h5py.File, name: str, marker: Path) -> None:
    replaced(file, name, dtype=np.complex64)


def as_scalar(file: h5py.File, name: str, marker: Path) -> None:
    replaced(file, name, shape=(), dtype=h5py.string_dtype())


def as_nothing(file: h5py.File, name: str, marker: Path) -> None:
    del file[name]


def as_other_length(file: h5py.File, name: str, marker: Path) -> None:
    first, *rest = file[name].shape
    replaced(file, name, shape=(first + 1, *rest), dtype=file[name].dtype)


KINDS = [
    as_opaque, as_vlen_bytes, as_references, as_records, as_group, as_other_numbers, as_scalar, as_nothing,
    as_other_length,
]  # fmt: skip


def in_another_file(file: h5py.File, name: str, kind: str) -> None:
    """A dataset whose bytes lie elsewhere on this machine."""
    shape, dtype = file[name].shape, file[name].dtype
    other = Path(file.filename).with_name("elsewhere.h5")
    if kind == "raw":
        replaced(file, name, dtype=np.uint8, external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])
        return
    with h5py.File(other, "w") as source:
        source.create_dataset("secret", shape, dtype)
    del file[name]
    if kind == "link":
        file[name] = h5py.ExternalLink(str(other), "secret")
    else:
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(str(other), "secret", shape)
        file.create_virtual_dataset(name, layout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each artefact, trained for two steps."""
    folder = tmp_path_factory.mktemp("made")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    paths = write_fold(folder)
    for path in paths.values():
        assert path.parent == folder
    assert train_ddpm.main(train_words(folder)) == 0
    assert sample_ddpm.main(sample_words(folder)) == 0
    assert train_classifier.main(classify_words(folder)) == 0
    torch.set_num_threads(before)
    return folder


PLACE = ("--repeat", "0", "--fold", "0", "--seed", "1")
GENERATOR = UNET | {"steps": 2}


def given(folder: Path) -> list[str]:
    return ["--images", str(folder / "images.h5"), "--folds", str(folder / "folds.csv"), *PLACE]


def told(value: dict[str, Any], folder: Path) -> list[str]:
    return ["--settings", json.dumps({"threads": 1} | value), "--log", str(folder / "log.txt")]


def train_words(folder: Path, steps: int = 2) -> list[str]:
    out = folder / "unet.safetensors"
    return [*given(folder), "--out", str(out), "--history", f"{out}.csv", *told(UNET | {"steps": steps}, folder)]


def sample_words(folder: Path) -> list[str]:
    words = ["--generator", str(folder / "unet.safetensors"), "--out", str(folder / "made.h5")]
    return [*given(folder), *words, *told(SYNTHETIC_SET | {"count": 4, "reference_channels": []}, folder)]


def classify_words(folder: Path, *more: str, name: str = "pool", steps: int = 2) -> list[str]:
    value = {"arms": [ENTRIES[name]], "train_classifier": SECTION | {"steps": steps, "checkpoints": 1}}
    words = ["--synthetic", f"p={folder / 'made.h5'}", "--arms-dir", str(folder / "arms")]
    return [*given(folder), *words, "--manifest", str(folder / "arms" / "job0.json"), *more, *told(value, folder)]


def fold_words(folder: Path) -> list[str]:
    fractions = {"test": 0.25, "calibration": 0.1, "validation": 0.1, "reserve": 0, "lockbox": 0}
    value = {"folds": 2, "fractions": fractions, "stratify_by": None, "leave_out": None, "roles_from": None}
    words = ["--images", str(folder / "images.h5"), "--out", str(folder / "new.csv"), "--repeat", "0", "--seed", "1"]
    return [*words, *told(value, folder)]


def certify_words(folder: Path) -> list[str]:
    artefacts = [folder / "unet.safetensors", folder / "made.h5", folder / "arms" / "job0.json"]
    words = ["--images", str(folder / "images.h5"), "--folds", f"0={folder / 'folds.csv'}", "--artefacts"]
    value = {"violations": [], "encoders": []}
    return [*words, *map(str, artefacts), "--out", str(folder / "leaks.csv"), *told(value, folder)]


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """The artefacts in a folder of the test's own."""
    return Path(shutil.copytree(made, tmp_path / "made"))


def refusal(main: Callable[[list[str]], int], words: list[str], log: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which a stage refuses what it is given."""
    log.unlink(missing_ok=True)
    assert main(words) == 1
    shown = capsys.readouterr().err
    sentences = [line for line in shown.splitlines() if re.match(r"\w+ failed: ", line)]
    assert len(sentences) == 1, shown
    assert "Traceback" not in shown + log.read_text(encoding="utf-8"), log.read_text(encoding="utf-8")
    return sentences[0]


BY_STAGE = [
    (make_folds.main, fold_words, "images.h5"),
    (train_ddpm.main, train_words, "images.h5"),
    (train_ddpm.main, train_words, "folds.csv"),
    (sample_ddpm.main, sample_words, "unet.safetensors"),
    (sample_ddpm.main, sample_words, "images.h5"),
    (train_classifier.main, classify_words, "images.h5"),
    (train_classifier.main, classify_words, "made.h5"),
    (train_classifier.main, classify_words, "folds.csv"),
    (certify_leaks.main, certify_words, "images.h5"),
    (certify_leaks.main, certify_words, "unet.safetensors"),
    (certify_leaks.main, certify_words, "made.h5"),
    (certify_leaks.main, certify_words, "arms/job0.json"),
    (certify_leaks.main, certify_words, "arms/pool/predictions.h5"),
]


@pytest.mark.parametrize("how", ["pickle", "torch"])
@pytest.mark.parametrize(("main", "words", "name"), BY_STAGE, ids=[f"{m.__module__}-{n}" for m, _, n in BY_STAGE])
def test_a_stage_refuses_a_pickle_in_one_sentence(
    copied: Path, marker: Path, capsys: pytest.CaptureFixture[str], main: Any, words: Any, name: str, how: str
) -> None:
    set_trap(copied / name, how, marker)
    for out in ("new.csv", "leaks.csv", "arms/pool/classifier.safetensors"):
        (copied / out).unlink(missing_ok=True)
    sentence = refusal(main, words(copied), copied / "log.txt", capsys)
    assert Path(name).name in sentence


@pytest.mark.parametrize("name", ["job0.json", "pool/classifier.safetensors"])
def test_a_pickle_in_the_place_of_the_baseline_is_refused(
    copied: Path, marker: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    shutil.copytree(copied / "arms", copied / "asked")
    set_trap(copied / "asked" / name, "pickle", marker)
    words = classify_words(copied, "--baseline", str(copied / "asked" / "job0.json"), name="filtered")
    assert Path(name).name in refusal(train_classifier.main, words, copied / "log.txt", capsys)


@pytest.mark.parametrize("how", ["pickle", "torch"])
@pytest.mark.parametrize(
    ("main", "words", "resume", "out"),
    [
        (train_ddpm.main, train_words, "unet.resume.pt", "unet.safetensors"),
        (sample_ddpm.main, sample_words, "made.resume.pt", "made.h5"),
        (train_classifier.main, classify_words, "arms/pool/resume.pt", "arms/pool/classifier.safetensors"),
    ],
    ids=["train_ddpm", "sample_ddpm", "train_classifier"],
)
@pytest.mark.usefixtures("one_thread")
def test_a_malicious_resume_point_is_told_and_left_aside(
    copied: Path, marker: Path, main: Any, words: Any, resume: str, out: str, how: str
) -> None:
    (copied / out).unlink()
    set_trap(copied / resume, how, marker)
    (copied / "log.txt").unlink(missing_ok=True)
    assert main(words(copied)) == 0
    assert f"{Path(resume).name} cannot be read" in (copied / "log.txt").read_text(encoding="utf-8")
    assert (copied / out).exists() and not (copied / resume).exists()


@pytest.mark.parametrize("name", ["images", "labels", "ids", "groups"])
def test_image_sets_of_other_types_are_refused(copied: Path, marker: Path, name: str) -> None:
    whole = (copied / "images.h5").read_bytes()
    for change in KINDS:
        (copied / "images.h5").write_bytes(whole)
        with h5py.File(copied / "images.h5", "r+") as file:
            change(file, name, marker)
        with pytest.raises(UserError, match=r"images\.h5 is an HDF5 file, but no image set") as caught:
            ImageSet(copied / "images.h5")
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["raw", "link", "virtual"])
def test_image_sets_that_lead_to_other_files_are_refused(copied: Path, kind: str) -> None:
    with h5py.File(copied / "images.h5", "r+") as file:
        in_another_file(file, "images", kind)
    with pytest.raises(UserError, match="images lies in another file"):
        ImageSet(copied / "images.h5")


@pytest.mark.parametrize("name", ["channels", "classes", "digest", "source", "format_version"])
def test_attributes_of_other_types_are_refused(copied: Path, marker: Path, name: str) -> None:
    values = [np.void(pickled(marker)), np.bytes_(b"gASV"), np.arange(3), h5py.Empty("f4"), "[", "{}"]
    for value in values[: 4 if name in ("digest", "source", "format_version") else None]:
        with h5py.File(copied / "images.h5", "r+") as file:
            file.attrs[name] = value
        with pytest.raises(UserError, match=r"images\.h5 is an HDF5 file, but no image set"):
            ImageSet(copied / "images.h5")


def test_a_synthetic_set_without_a_sound_record_is_refused(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(copied / "made.h5", "r+") as file:
        file.attrs["access_record"] = "gASVHgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu"
    for main, words in ((train_classifier.main, classify_words), (certify_leaks.main, certify_words)):
        assert "made.h5" in refusal(main, words(copied), copied / "log.txt", capsys)


@pytest.mark.parametrize("name", ["ids", "labels", "logits"])
def test_predictions_of_other_types_are_refused(copied: Path, marker: Path, name: str) -> None:
    path = copied / "arms" / "pool" / "predictions.h5"
    whole = path.read_bytes()
    for change in KINDS:
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            change(file, f"test/{name}", marker)
        with pytest.raises(UserError, match=r"predictions\.h5 is not a predictions file"):
            prediction_file.read_predictions(path)
    path.write_bytes(whole)
    for attribute in ("classes", "settings", "numbers"):
        with h5py.File(path, "r+") as file:
            file.attrs[attribute] = np.void(pickled(marker))
        with pytest.raises(UserError, match=r"predictions\.h5 is not a predictions file"):
            prediction_file.read_predictions(path)


def test_damaged_artefacts_are_refused_wherever_they_end(copied: Path) -> None:
    for name, reader in (
        ("images.h5", ImageSet),
        ("arms/pool/predictions.h5", prediction_file.read_predictions),
        ("unet.safetensors", generator_file.read),
        ("arms/pool/classifier.safetensors", classifier_file.read),
    ):
        whole = (copied / name).read_bytes()
        for fraction in range(10):
            (copied / name).write_bytes(whole[: len(whole) * fraction // 10])
            with pytest.raises(UserError, match=re.escape(Path(name).name)):
                reader(copied / name)


def test_pieces_that_are_pickles_are_made_again(tmp_path: Path, marker: Path) -> None:
    (tmp_path / "train").mkdir()
    names = [f"a{number}" for number in range(3)]
    for number, name in enumerate(names):
        for channel in ("red", "green"):
            save(tmp_path / "train" / f"{name}_{channel}.png", noise(number))
    (tmp_path / "train.csv").write_text("Id,Target\n" + "".join(f"{name},x\n" for name in names))
    words = arguments(tmp_path, settings())
    folder = tmp_path / "out" / ".images.h5.pieces"
    for how in ("pickle", "torch"):
        folder.mkdir(parents=True, exist_ok=True)
        set_trap(folder / "000000.piece", how, marker)
        assert preprocess_images.main(words) == 0
        with ImageSet(tmp_path / "out" / "images.h5") as found:
            assert list(found.ids) == names


# What the code may not do at all.

UNPICKLERS = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle", "jsonpickle"}
RUNNERS = {"os.system", "os.popen", "pty.spawn", "commands.getoutput"}
CALLS = {"eval", "exec", "compile", "__import__"}
UNPICKLING = {
    "pd.read_pickle", "pandas.read_pickle", "pd.read_hdf", "pandas.read_hdf", "torch.jit.load", "torch.hub.load",
    "yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "shutil.unpack_archive", "tempfile.mktemp",
    "np.lib.format.read_array",
}  # fmt: skip


def faults(text: str, path: str = "code") -> list[str]:
    """What a program does that could run what it reads."""
    out = []
    for node in ast.walk(ast.parse(text, path)):
        if isinstance(node, ast.Import):
            out += [f"imports {alias.name}" for alias in node.names if alias.name.split(".")[0] in UNPICKLERS]
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            if (node.module or "").split(".")[0] in UNPICKLERS or names & (RUNNERS | UNPICKLING | {"torch.load"}):
                out.append(f"imports from {node.module}")
        elif isinstance(node, ast.Call):
            called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in CALLS | RUNNERS | UNPICKLING or called.endswith((".extractall", "_create_unverified_context")):
                out.append(f"calls {called}")
            if called == "torch.load" and given.get("weights_only") != "True":
                out.append("torch.load without weights_only=True")
            if called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
                out.append("np.load without allow_pickle=False")
            if given.get("allow_pickle") == "True" or given.get("shell") == "True":
                out.append(f"{called} with a pickle or a shell")
    return out


def test_faults_are_seen() -> None:
    for text in (
        "import pickle", "from joblib import load", "import torch\ntorch.load(p)", "torch.load(p, weights_only=False)",
        "np.load(p)", "np.load(p, allow_pickle=True)", "yaml.load(t, L)", "eval(t)", "os.system(t)",
        "subprocess.run(t, shell=True)", "from torch import load", "zipfile.ZipFile(p).extractall()",
        "def f():\n    import dill.source",
    ):  # fmt: skip
        assert faults(text), text
    assert not faults("network.eval()\ntorch.load(p, weights_only=True)\nnp.load(p, allow_pickle=False)\nre.compile(p)")


def test_no_stage_could_run_what_it_reads() -> None:
    sources = sorted((ROOT / "workflow_scripts").rglob("*.py"))
    assert len(sources) > 60
    found = {str(path.relative_to(ROOT)): faults(path.read_text(encoding="utf-8")) for path in sources}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("path", [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))], ids=lambda p: p.name)
def test_no_rule_could_run_what_it_reads(path: Path) -> None:
    # Rules are not Python, but their words are.
    text = path.read_text(encoding="utf-8")
    words = {token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == 1}
    assert not words & (UNPICKLERS | CALLS | {"system", "popen", "subprocess"})
    assert not re.search(r"\bshell\(|^\s*run:", text, re.MULTILINE)


# Drafts and locks.


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_drafts_are_private_and_beside_their_output(tmp_path: Path) -> None:
    names = set()
    for kind in ("file", "file", "folder"):
        out = tmp_path / "results" / ("a.csv" if kind == "file" else "tables")
        with files.atomic(out) as part:
            (own,) = [path for path in out.parent.iterdir() if path.name.startswith(".")]
            names.add(own.name)
            assert own in part.parents and mode(own) == 0o700
            assert str(os.getpid()) in own.name and re.search(r"-[0-9a-f]{8}\.part", own.name)
            if kind == "file":
                part.write_text("draft")
            else:
                part.mkdir()
        assert mode(out) == (0o666 if kind == "file" else 0o777) & ~files._UMASK
    assert len(names) == 3, "nobody can guess the next one"
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["a.csv", "tables"]


def test_a_lock_is_private_and_follows_no_link(tmp_path: Path) -> None:
    with files.lock(tmp_path / "a.h5"):
        assert mode(tmp_path / ".a.h5.lock") == 0o600
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / ".b.h5.lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"), files.lock(tmp_path / "b.h5"):
        pass
    assert precious.read_text() == "kept"


def test_a_private_folder_is_ours_alone(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    for name in ("new", "open"):
        assert mode(files.private_folder(tmp_path / name)) == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(UserError, match="link"):
        files.private_folder(tmp_path / "link")


def test_what_a_kill_left_of_a_resume_point_goes_with_it(tmp_path: Path) -> None:
    resume = Resume(tmp_path / "unet.resume.pt", "task")
    gone = 2**22 + 1  # above the largest number of a process
    (tmp_path / f".unet.resume.{files._HOST}-{gone}-0123abcd.part.pt").mkdir()
    resume.clear()
    assert list(tmp_path.iterdir()) == []


# Texts that a shell, Snakemake, a format or a page could take for something else.

NASTY = [
    "$(touch marker)", "`touch marker`", "; touch marker;", "| touch marker", "&& touch marker", "{run}", "{", "}}",
    "%s %(x)s", "it's", 'a "b"', "--out", "a b  c", "$HOME", "*", "~", "é名", "<b>&amp;", "#", "\\n", "!x", "$x$y_{",
]  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout and images in folders, and with ids, classes and words, that hold such texts."""
    base = tmp_path_factory.mktemp("hostile")
    checkout = Checkout.fresh(base / 'it\'s a "b" $(touch marker) `touch marker`; touch marker #')
    raw = base / 'raw $(touch marker) `touch marker` it\'s "b" %s; & | * é'
    (raw / "images").mkdir(parents=True)
    rows = ["Id;Target;gene;batch $(touch marker)"]
    for number in range(60):
        # An id names files: no slash, and nothing invisible.
        name = f"{number} {NASTY[number % len(NASTY)]}".replace("\\", "")
        for channel in ("red", "green"):
            save(raw / "images" / f"{name}_{channel}.png", noise(2 * number + (channel == "red")))
        kinds = {NASTY[number % 5], NASTY[(number // 3) % 7]}
        cells = [name, "|".join(sorted(kind.replace("|", "") for kind in kinds)), f"{NASTY[number % 4]}{number // 2}"]
        rows.append(";".join('"{}"'.format(cell.replace('"', '""')) for cell in [*cells, NASTY[number % 6]]))
    (raw / "table; touch marker.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    words = " ".join(NASTY) + "\n" + NASTY[0]
    overlay = {
        "data": {
            "source": "folder", "images": str(raw / "images"), "table": str(raw / "table; touch marker.csv"),
            "origin": words, "release": words, "licence": words, "credit": words, "label_separator": "|",
            "label_map": {f"new {text}": [text.strip("| ")] for text in NASTY[:7]},
        },
        "preprocess_images": {"channels": ["red", "green"], "size": 16, "duplicates": 0},
        "make_folds": {"stratify_by": "batch $(touch marker)"},
        "report": {"title": " ".join(NASTY)[:200], "demonstration_text": words, "panels": {"protein_channel": "green"}},
        "write_submission": {"images": str(raw / "images"), "sample": str(raw / "table; touch marker.csv")},
    }  # fmt: skip
    (checkout.folder / "overlay $(touch marker).yaml").write_text(
        yaml.safe_dump(overlay, allow_unicode=True), encoding="utf-8"
    )
    return checkout


def commands(printed: str) -> list[str]:
    """The shell commands of a run, which may hold line breaks."""
    command = r"(?:\w+=\S+ )*python .*?"
    return re.findall(rf"^\s*Shell command: ({command})(?=\n\n|\n\[|\Z)", printed, re.MULTILINE | re.DOTALL)


@pytest.mark.workflow
def test_no_text_reaches_a_shell_or_snakemake(hostile: Checkout) -> None:
    run = hostile.folder / "results" / "ci"
    overlay = "overlay $(touch marker).yaml"
    wanted = [
        str((run / name).relative_to(hostile.folder)) for name in ("figures/data_classes.svg", "repeat0/folds.csv")
    ]
    hostile.snakemake("--configfile", "presets/ci.yaml", overlay, "--", *wanted)
    with ImageSet(run / "images.h5") as found:
        assert len(found) == 60
        assert "$(touch marker)" in str(found.ids[0]) and "new $(touch marker)" in found.classes
    done = hostile.snakemake("--configfile", "presets/ci.yaml", overlay, "-n", "-p", "--", "all", "submission")
    planned = commands(done.stdout)
    assert len(planned) >= 15
    for command in planned:
        # What is left outside of quotes are flags, paths of the run, and numbers.
        bare = re.sub(r"'[^']*'|\"'\"", "", command)
        assert re.fullmatch(r"[\w\s./=-]*", bare), bare
    assert not list(hostile.folder.parent.rglob("marker*"))


DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("section", "said", "named"),
    [
        ("data", {"source": "folder", "images": "{here}/raw {run}", "table": "{here}/a.csv"}, "data.images"),
        ("data", {"source": "folder", "images": "{here}", "table": "{here}/a\nb.csv"}, "data.table"),
        ("write_submission", {"sample": "{here}/{id}.csv"}, "write_submission.sample"),
        ("fetch_images", {"folder": "data/{run}"}, "fetch_images.folder"),
        ("data", {"source": "folder", "images": "{here}/" + "x" * 300, "table": "{here}"}, "data.images"),
        ("data", {"source": "folder", "images": "{here}", "table": "{here}", "id_parts": "{a}_{a}"}, "data.id_parts"),
        ("data", {"release": date(2020, 1, 1)}, "data.release is of the type date"),
        ("data", {"origin": "a\0b"}, "data.origin holds the character U+0000"),
        ("make_folds", {"folds": 2.0}, "make_folds.folds = 2.0"),
        ("compute", {"threads": float("nan")}, "compute.threads must be a finite number"),
        ("compute", {1: 2}, "compute has the key 1"),
        ("train_classifier", {"backbone": "resnet18", "weights": "~nobody/w.pth"}, "weights = '~nobody/w.pth'"),
    ],
)
def test_what_yaml_paths_and_numbers_can_hide_is_refused(
    tmp_path: Path, section: str, said: dict[Any, Any], named: str
) -> None:
    for name in ("raw {run}", "a\nb.csv", "a.csv"):
        (tmp_path / name).touch()
    here = str(tmp_path)
    said = {key: value.replace("{here}", here) if isinstance(value, str) else value for key, value in said.items()}
    with pytest.raises(run_settings.ConfigError, match=re.escape(named)) as caught:
        run_settings.check(DEFAULT | {section: DEFAULT[section] | said})
    assert str(caught.value).isprintable()


def test_a_line_break_at_the_end_of_a_name_is_no_end(tmp_path: Path) -> None:
    for text in ("demo\n", "demo\n\n"):
        with pytest.raises(run_settings.ConfigError, match="run = "):
            run_settings.check(DEFAULT | {"run": text})
    # Whatever stands between, the folder of images is not left.
    with pytest.raises(run_settings.ConfigError, match=r"data\.files = "):
        run_settings.check(DEFAULT | {"data": DEFAULT["data"] | {"files": "a\n/../{id}.png"}})


def test_a_config_that_holds_itself_is_refused() -> None:
    config = copy.deepcopy(DEFAULT)
    config["data"]["label_map"] = {"a": config["data"]}
    with pytest.raises(run_settings.ConfigError, match="nested more than 32 deep"):
        run_settings.check(config)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('Id,"Tar\nget"\na,x\n', "has no column 'Target'; its columns are: Id, Tar get"),
        ("Id,Target\na,x\0y\n", "holds zero bytes"),
        ("Id,Target\na,x\n".encode("utf-16-le").decode("latin-1"), "holds zero bytes"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "train.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=re.escape(told)) as caught:
        user_tables.read_table(tmp_path / "train.csv").need("Target")
    assert str(caught.value).isprintable()


def test_control_characters_make_a_row_bad_in_either_table(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("Id,Target\na,x\nb,x\x1b[31m\nc,x\n")
    (tmp_path / "groups.csv").write_text("Id,gene\na,G\x01\nc,G\n")
    data = settings()["data"]
    listed = image_list.from_tables(tmp_path / "train.csv", tmp_path / "groups.csv", None, data)
    assert listed.ids == ["c"]
    assert [(bad.id, bad.kind, bad.reason) for bad in listed.bad] == [
        ("b", "broken row", "holds control characters"), ("a", "broken row", "holds control characters"),
    ]  # fmt: skip
    (tmp_path / "classes.csv").write_text("number,name\n0,Nucleus,extra\n")
    with pytest.raises(UserError, match=r"classes\.csv, line 2: has 3 cells"):
        user_tables.read_classes(tmp_path / "classes.csv")
