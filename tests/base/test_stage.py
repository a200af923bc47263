"""lib.base.stage: the command line, the log, the progress and the failures that all stages share."""

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError


def parse(*words: str) -> argparse.Namespace:
    return arguments.parser("what: it does.\n\nMore.").parse_args(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--settings"),
        (["--settings", "{'a': 1}"], "not JSON"),
        (["--settings", "[1]"], "must be a JSON object"),
        (["--settings", "{}", "--unknown", "1"], "--unknown"),
        (["--set", "{}"], "--set"),
    ],
)
def test_argument_errors_name_the_flag(capsys, words, message):
    with pytest.raises(SystemExit) as failure:
        parse(*words)
    assert failure.value.code == 2
    assert message in capsys.readouterr().err


def fail_with(error: Exception, args: argparse.Namespace) -> int:
    def work() -> None:
        for number in range(30):
            stage.log.info("step %d", number)
        raise error

    return stage.run("train", args, work)


def test_success_is_logged_and_appended(tmp_path, capsys):
    args = parse("--settings", '{"a": 1}', "--log", str(tmp_path / "logs" / "train.log"))
    assert args.settings == {"a": 1}
    for _ in range(2):
        assert stage.run("train", args, lambda: stage.log.info("hello")) == 0
    text = args.log.read_text()
    assert text.count("hello") == text.count("done in") == 2
    assert str(os.getpid()) in text
    assert capsys.readouterr().err.count("train: hello") == 2


def test_a_user_error_is_one_sentence_and_the_last_lines(tmp_path, capsys):
    args = parse("--settings", "{}", "--log", str(tmp_path / "train.log"))
    assert fail_with(UserError("class 'Golgi' has no image; add some"), args) == 1
    lines = capsys.readouterr().err.splitlines()
    start = lines.index("train failed: class 'Golgi' has no image; add some")
    told = lines[start + 1 :]
    assert len(told) == stage.LAST_LINES + 1
    assert told[-2].endswith("step 29")
    assert told[-1] == f"  whole log: {args.log}"
    assert "Traceback" not in "\n".join(lines) + args.log.read_text()
    assert "class 'Golgi' has no image; add some" in args.log.read_text()


def test_any_other_error_has_its_traceback_in_the_log_file_only(tmp_path, capsys):
    args = parse("--settings", "{}", "--log", str(tmp_path / "train.log"))
    assert fail_with(KeyError("Golgi"), args) == 1
    shown = capsys.readouterr().err
    assert "train failed: KeyError: 'Golgi'" in shown
    assert "  | " in shown
    assert "step 29" in shown.splitlines()[-2]
    assert "Traceback" not in shown
    assert "Traceback (most recent call last)" in args.log.read_text()
    assert "raise error" in args.log.read_text()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_file_system_that_fails_is_told_in_one_line(tmp_path: Path, number: int) -> None:
    args = parse("--settings", "{}", "--log", str(tmp_path / "log"))

    def work() -> None:
        raise OSError(number, os.strerror(number), "results/x.h5")

    assert stage.run("train", args, work) == 1
    text = (tmp_path / "log").read_text()
    said = f"the file system failed: [Errno {number}] {os.strerror(number)}: 'results/x.h5'. Run again when it works"
    assert said in text and "Traceback" not in text


def test_without_a_log_file_the_traceback_is_not_lost(capsys):
    assert fail_with(KeyError("Golgi"), parse("--settings", "{}")) == 1
    assert "raise error" in capsys.readouterr().err


def test_one_argument_stands_for_the_files_of_all_folds() -> None:
    made = arguments.parser(__doc__)
    made.add_argument("--arms", nargs="*", type=Path)
    made.add_argument("--pairs", nargs="*")
    made.add_argument("--tables", nargs="*")
    argv = ["--arms", "r{repeat}/f{fold}/a.json", "one.json", "--pairs", "a/{repeat}/{fold}=r{repeat}f{fold}"]
    argv += ["--tables", "{repeat}.csv", "--places", "2x2", "--settings", '{"title": "{fold}"}']
    args = made.parse_args(argv)
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert args.arms == [*(Path(f"r{repeat}/f{fold}/a.json") for repeat, fold in places), Path("one.json")]
    assert args.pairs == [f"a/{repeat}/{fold}=r{repeat}f{fold}" for repeat, fold in places]
    assert args.tables == ["0.csv", "1.csv"], "a file of a repeat comes once"
    assert args.settings == {"title": "{fold}"}, "settings are left as they are"


def test_places_that_are_none_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ([], ["5"], ["2xb"]):
        with pytest.raises(SystemExit):
            arguments.parser(__doc__).parse_args(["--settings", "{}", "--places", *wrong])
        assert "repeats x folds" in capsys.readouterr().err


# Writes something larger than a file may grow, as a disk that is nearly full would have it.
WRITE = """
import argparse, resource, signal, sys
from pathlib import Path
import numpy, h5py, torch
from safetensors.numpy import save_file
from workflow_scripts.lib.base import stage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
many, path = numpy.random.default_rng(0).random(10**6), Path(sys.argv[2])
def hdf5():
    with h5py.File(path, "w") as file:
        file["a"] = many
        file.flush()
work = {
    "bytes": lambda: path.write_bytes(many.tobytes()),
    "safetensors": lambda: save_file({"a": many}, path),
    "torch": lambda: torch.save(torch.as_tensor(many), path),
    "hdf5": hdf5,
}[sys.argv[1]]
status = stage.run("writes", argparse.Namespace(log=None), work)
sys.stderr.flush()
import os
os._exit(status)
"""


@pytest.mark.parametrize("kind", ["bytes", "safetensors", "torch", "hdf5"])
def test_a_full_disk_is_told_as_such(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-c", WRITE, kind, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    assert "no room to write" in done.stderr, done.stderr[-2000:]
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_memory_is_that_of_the_stage_and_not_of_what_started_it():
    held = bytearray(400 * 2**20)
    held[::4096] = bytes([1]) * len(held[::4096])
    told = "from workflow_scripts.lib.base import stage; print(stage.memory_used())"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert 5 < int(done.stdout) < 200
    assert stage.memory_used() > 400
