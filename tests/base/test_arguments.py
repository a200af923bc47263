"""lib.base.arguments: values of the form name=path, and one word for the files of all folds."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from workflow_scripts.lib.base import arguments
from workflow_scripts.lib.base.errors import UserError


def test_pairs_are_split_at_the_first_sign() -> None:
    assert arguments.pairs(["a=b.csv", "c=d=e.csv"], "--sets") == [("a", Path("b.csv")), ("c", Path("d=e.csv"))]
    for text in ("a", "a=", ""):
        with pytest.raises(UserError, match=r"--sets .* must be a name and a path"):
            arguments.pairs([text], "--sets")


def test_a_place_is_a_set_a_repeat_and_a_fold() -> None:
    assert arguments.place("as_train/0/1") == ["as_train", "0", "1"]
    assert arguments.place("a/b/0/1") == ["a/b", "0", "1"]
    with pytest.raises(UserError, match="'as_train/0' must read set/repeat/fold"):
        arguments.place("as_train/0")
    assert arguments.of_sets(["as_train/0/1=x.csv"], "--sets") == [("as_train", Path("x.csv"))]


def test_tables_of_roles_need_their_repeat() -> None:
    assert [arguments.repeat_table(text) for text in ("0=a.csv", "12=b=c.csv")] == [
        (0, Path("a.csv")),
        (12, Path("b=c.csv")),
    ]
    for text in ("folds.csv", "x=folds.csv", "0="):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a repeat and its table"):
            arguments.repeat_table(text)


def test_a_pattern_stands_for_the_files_of_all_folds() -> None:
    parser = arguments.parser("A stage.")
    parser.add_argument("--files", nargs="+")
    parser.add_argument("--tables", nargs="+")
    words = ["--places", "2x3", "--settings", '{"a": "{fold}"}', "--files", "r{repeat}/f{fold}.h5"]
    args = parser.parse_args([*words, "--tables", "r{repeat}.csv", "other.csv"])
    assert args.files == ["r0/f0.h5", "r0/f1.h5", "r0/f2.h5", "r1/f0.h5", "r1/f1.h5", "r1/f2.h5"]
    assert args.tables == ["r0.csv", "r1.csv", "other.csv"], "a file of a repeat comes once"
    assert args.settings == {"a": "{fold}"}, "settings are taken as they are"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--places", "2", "--settings", "{}"], "such as 5x3"),
        (["--settings", "[]"], "must be a JSON object"),
        (["--settings", "{"], "not JSON"),
    ],
)
def test_words_that_do_not_parse_end_with_the_usage(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments.parser("A stage.").parse_args(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
