"""make_folds: the table of roles of a repeat, from an image set."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workflow_scripts import make_folds as stage_program
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.split import assignment, role_table
from workflow_scripts.lib.split.regimes import Regime

LINES = ["A-431", "U-2 OS", "HeLa", "U-2 OS"]
FRACTIONS = {"test": 0.25, "calibration": 0.15, "validation": 0.15, "reserve": 0.0, "reserve_same": 0.0, "lockbox": 0.0}
WITH_RESERVES = FRACTIONS | {"test": 0.2, "calibration": 0.1, "validation": 0.1, "reserve": 0.15, "reserve_same": 0.1}


@pytest.fixture
def images(tmp_path):
    """120 images of 40 groups, scattered; labels belong to the group, the last class to one group only."""
    member = np.random.default_rng(0).permutation(np.arange(120) % 40)
    labels = np.stack([member % 2 == 0, member % 3 == 0, member == 7], axis=1)
    path = tmp_path / "images.h5"
    with write_images(path, ["green"], ["a", "b", "rare"], 4) as writer:
        ids, groups = [f"{row:03d}" for row in range(120)], [f"g{number}" for number in member]
        columns = {"cell_line": [LINES[number % 4] for number in member], "empty": [""] * 120}
        writer.append(np.zeros((120, 1, 4, 4)), labels, ids, groups, columns)
    return path


def run(
    images,
    repeat: int = 0,
    folds: int = 3,
    stratify_by: str | None = None,
    leave_out: str | None = None,
    roles_from: str | None = None,
    regimes: tuple[dict, ...] = (),
    **fractions,
) -> int:
    settings = {"folds": folds, "fractions": FRACTIONS | fractions, "stratify_by": stratify_by, "leave_out": leave_out}
    settings |= {"roles_from": roles_from} | ({"regimes": regimes} if regimes else {})
    return stage_program.main(
        ["--images", str(images), "--out", str(images.with_name("folds.csv")), "--repeat", str(repeat), "--seed", "1"]
        + ["--settings", json.dumps(settings)]
        + ["--log", str(images.with_name("log.txt"))]
    )


def test_roles_go_by_group_and_keep_the_order_of_the_images(images, capsys):
    assert run(images) == 0
    table = pd.read_csv(images.with_name("folds.csv"), dtype=str)
    assert list(table.columns) == ["id", "group", "fold0", "fold1", "fold2"]
    assert list(table["id"]) == [f"{row:03d}" for row in range(120)]
    for fold in ("fold0", "fold1", "fold2"):
        assert (table.groupby("group")[fold].nunique() == 1).all()
        assert set(table[fold]) == {"train", "validation", "calibration", "test"}
        assert (table[fold] == "test").sum() == pytest.approx(30, abs=3)
    assert ((table.filter(like="fold") == "test").sum(axis=1) <= 1).all()
    # A class that no split can put everywhere is told.
    said = capsys.readouterr().err
    assert "fewer groups than the 4 that every role of every fold takes: rare (1)" in said
    assert "class 'rare' has no image in" in said


def test_repeats_differ_and_runs_do_not(images):
    contents = []
    for repeat in (0, 0, 1):
        assert run(images, repeat) == 0
        contents.append(images.with_name("folds.csv").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_reserve_and_lockbox_on_request(images):
    found = []
    for repeat in (0, 1):
        assert run(images, repeat, folds=2, reserve=0.1, lockbox=0.1) == 0
        table = pd.read_csv(images.with_name("folds.csv"), dtype=str)
        found.append(set(table["id"][table["fold0"] == "lockbox"]))
        assert found[-1] == set(table["id"][table["fold1"] == "lockbox"])
        assert (table["fold0"] == "reserve").any()
    assert found[0] == found[1] != set()


def test_values_of_a_column_are_balanced_like_classes(images, capsys):
    assert run(images, folds=2, stratify_by="cell_line") == 0
    table = pd.read_csv(images.with_name("folds.csv"), dtype=str)
    with stage_program.ImageSet(images) as source:
        lines = source.column("cell_line")
    for fold in ("fold0", "fold1"):
        own = lines[table[fold] == "test"]
        assert [(own == line).sum() for line in ("A-431", "HeLa", "U-2 OS")] == pytest.approx([7.5, 7.5, 15], abs=2)
    assert "cell_line" not in capsys.readouterr().err


def test_one_cell_line_is_left_out(images, capsys):
    assert run(images, folds=3, leave_out="cell_line") == 0
    table = pd.read_csv(images.with_name("folds.csv"), dtype=str)
    with stage_program.ImageSet(images) as source:
        lines = source.column("cell_line")
    assert [set(lines[table[f"fold{fold}"] == "test"]) for fold in range(3)] == [{"U-2 OS"}, {"A-431"}, {"HeLa"}]
    assert (lines[table["fold0"] != "test"] != "U-2 OS").all()
    assert "fold 0: tests cell_line 'U-2 OS'" in capsys.readouterr().err


def marked(tmp_path, marks) -> Path:
    """80 images of 40 groups, two each; `marks` of images by the number of the group and of the image in it."""
    path = tmp_path / "marked.h5"
    member = np.arange(80) % 40
    labels = np.stack([member % 2 == 0, member % 3 == 0], axis=1)
    with write_images(path, ["green"], ["a", "b"], 4) as writer:
        ids, groups = [f"{row:03d}" for row in range(80)], [f"g{number:02d}" for number in member]
        columns = {"split": [marks(int(number), row // 40) for row, number in enumerate(member)]}
        writer.append(np.zeros((80, 1, 4, 4)), labels, ids, groups, columns)
    return path


def test_a_column_may_say_what_is_tested(tmp_path):
    # Ten groups are tested, of one by one of its images' marks alone; five are validation, one stands aside.
    kinds = dict.fromkeys(range(10), "Test") | dict.fromkeys(range(10, 15), "validation") | {15: "unused"}
    path = marked(tmp_path, lambda number, image: kinds.get(number, "train"))
    tables = []
    for repeat in range(2):
        assert run(path, repeat, folds=1, roles_from="split", lockbox=0.1) == 0
        tables.append(pd.read_csv(path.with_name("folds.csv"), dtype=str))
    for table in tables:
        roles = table.groupby("group")["fold0"].agg(["nunique", "first"])
        assert (roles["nunique"] == 1).all()
        assert list(roles["first"][:16]) == ["test"] * 10 + ["validation"] * 5 + ["unused"]
        counts = roles["first"][16:].value_counts()
        # 15 % and 10 % of all 40 groups.
        assert counts.to_dict() == {"train": 14, "calibration": 6, "lockbox": 4}
    first, second = (table["fold0"] for table in tables)
    assert (first == "lockbox").equals(second == "lockbox") and not first.equals(second)


def test_relatives_of_what_is_tested_stand_aside(tmp_path, capsys):
    path = marked(tmp_path, lambda number, image: "test" if number < 10 and image == 0 else "")
    assert run(path, folds=1, roles_from="split", reserve=0.1, reserve_same=0.05) == 0
    table = pd.read_csv(path.with_name("folds.csv"), dtype=str)
    parts = [set(table["fold0"][(table["group"] < "g10") & (table.index // 40 == image)]) for image in (0, 1)]
    assert parts == [{"test"}, {"unused"}] and (table["fold0"] == "test").sum() == 10
    assert {"reserve", "reserve_same", "train"} <= set(table["fold0"])
    assert "10 images that are not marked are unused" in capsys.readouterr().err


def test_no_part_is_left_empty(tmp_path, capsys):
    small = {"calibration": 0.02, "validation": 0.02, "lockbox": 0.02}
    # Four free groups for a lockbox, calibration, validation and training: by their shares one gets none.
    path = marked(tmp_path, lambda number, image: "unused" if number < 30 else "test" if number < 36 else "")
    assert run(path, folds=1, roles_from="split", **small) == 1
    assert "fold 0 has no group left for" in capsys.readouterr().err
    assert not path.with_name("folds.csv").exists()
    path = marked(tmp_path, lambda number, image: "unused" if number < 22 else "test" if number < 28 else "")
    assert run(path, folds=1, roles_from="split", calibration=0.05, validation=0.05, lockbox=0.05) == 0
    used = set(pd.read_csv(path.with_name("folds.csv"), dtype=str)["fold0"])
    assert used == {"unused", "test", "lockbox", "calibration", "validation", "train"}


@pytest.mark.parametrize(
    ("marks", "fractions", "said"),
    [
        (lambda number, image: "train", {}, "marks no image as test"),
        (lambda number, image: "tset" if number else "test", {}, "holds 'tset'; what it may say is test, validation"),
        (lambda number, image: ("test", "train")[image] if number == 7 else "test", {}, "the first is 'g07' (test)"),
        (lambda number, image: "test" if number < 36 else "", {}, "it leaves 10% of the images, in 4 groups"),
    ],
)
def test_marks_that_cannot_serve(tmp_path, capsys, marks, fractions, said):
    path = marked(tmp_path, marks)
    assert run(path, folds=1, roles_from="split", **fractions) == 1
    assert said in capsys.readouterr().err
    assert not path.with_name("folds.csv").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"roles_from": "gene"}, "make_folds.roles_from = 'gene'"),
        ({"stratify_by": "gene"}, "make_folds.stratify_by = 'gene'"),
        ({"leave_out": "gene"}, "has no such column; it has: cell_line, empty"),
        ({"leave_out": "empty"}, "make_folds.leave_out = 'empty': the column is empty"),
        ({"leave_out": "cell_line", "folds": 4}, "the column has 3 values, too few for 4 folds"),
    ],
)
def test_columns_that_cannot_serve(images, capsys, options, said):
    assert run(images, **options) == 1
    assert said in capsys.readouterr().err


def test_too_few_groups(images, capsys):
    assert run(images, folds=40, test=0.02) == 1
    assert "has 40 groups, too few for 40 folds of 4 parts" in capsys.readouterr().err
    assert not images.with_name("folds.csv").exists()


def test_a_table_is_read_only_for_its_own_image_set(world):
    np.testing.assert_array_equal(role_table.read(world.folds, 1, world.ids), world.roles[:, 1])
    np.testing.assert_array_equal(role_table.rows(world.folds, 0, world.ids, "test"), world.rows("test"))
    with pytest.raises(UserError, match="no fold 2"):
        role_table.read(world.folds, 2, world.ids)
    for other in (world.ids[::-1], world.ids[:-1]):
        with pytest.raises(UserError, match="another image set"):
            role_table.read(world.folds, 0, other)


def test_without_a_calibration_part_thresholds_come_from_validation(world):
    roles = np.where(world.roles == "calibration", "train", world.roles)
    role_table.write(world.folds, world.ids, world.groups, roles)
    np.testing.assert_array_equal(
        role_table.rows(world.folds, 0, world.ids, "calibration"), np.flatnonzero(roles[:, 0] == "validation")
    )


# --- reserves --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """300 images of 60 groups of different sizes."""
    path = tmp_path_factory.mktemp("labelled") / "images.h5"
    rng = np.random.default_rng(1)
    member = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 10, 60))[:300])
    labels = np.stack([member % 2 == 0, member % 3 == 0, member % 5 == 0], axis=1)
    with write_images(path, ["green"], ["a", "b", "c"], 4) as writer:
        count = len(member)
        groups = [f"g{number:02d}" for number in member]
        writer.append(np.zeros((count, 1, 4, 4)), labels, [f"i{row:03d}" for row in range(count)], groups)
    return path


def roles_of(images, tmp_path, name="folds.csv", **fractions) -> np.ndarray:
    given = {
        "folds": 2,
        "fractions": WITH_RESERVES | fractions,
        "stratify_by": None,
        "leave_out": None,
        "roles_from": None,
    }
    line = ["--images", str(images), "--out", str(tmp_path / name), "--repeat", "0", "--seed", "1"]
    assert stage_program.main([*line, "--settings", json.dumps(given), "--log", str(tmp_path / "log")]) == 0
    with ImageSet(images) as source:
        return np.stack([role_table.read(tmp_path / name, fold, source.ids) for fold in range(2)], axis=1)


def test_reserve_has_groups_of_its_own_and_reserve_same_images_of_train_groups(labelled, tmp_path) -> None:
    roles = roles_of(labelled, tmp_path)
    with ImageSet(labelled) as source:
        groups, count = source.groups, len(source)
    for own in roles.T:
        holders = {role: set(groups[own == role]) for role in np.unique(own.astype(str))}
        same = holders.pop("reserve_same")
        assert same < holders["train"], "every group that gives images keeps one"
        assert sum(map(len, holders.values())) == len(set(groups)), "no group has two other roles"
        assert (own == "reserve_same").sum() == round(0.1 * count)
        assert (own == "reserve").sum() == pytest.approx(0.15 * count, abs=8)
        # Groups give in proportion: none is emptied while another gives nothing of as many.
        left, given = (
            np.array([((own == role) & (groups == name)).sum() for name in same]) for role in ("train", "reserve_same")
        )
        assert (given / (given + left) < 0.75).all()
    without = roles_of(labelled, tmp_path, "without.csv", reserve_same=0.0)
    assert np.array_equal(np.where(roles == "reserve_same", "train", roles), without), "nobody else is moved"
    assert np.array_equal(roles, roles_of(labelled, tmp_path, "again.csv"))


def test_more_than_train_groups_can_spare_is_told(labelled, tmp_path, capsys) -> None:
    roles = roles_of(labelled, tmp_path, reserve_same=0.5)
    with ImageSet(labelled) as source:
        for own in roles.T:
            kept = own == "train"
            assert len(set(source.groups[kept])) == kept.sum(), "one image of each group is left"
    assert "make_folds.fractions.reserve_same" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no train group has an image to spare"):
        assignment.keep_aside(np.array(["train", "test"], dtype=object), np.array([0, 1]), 0.5, 1)


WIDE = {"folds": 2, "test": 0.15, "calibration": 0.3, "validation": 0.3}


def regime(labelled: float, selection: str = "same") -> dict:
    return {"name": "few", "labelled": labelled, "unlabelled": "seen", "selection": selection}


def test_regimes_rank_the_groups_and_change_no_role(images, capsys):
    assert run(images, **WIDE) == 0
    plain = pd.read_csv(images.with_name("folds.csv"), dtype=str)
    assert run(images, **WIDE, regimes=(regime(0.8),)) == 0
    ranked = pd.read_csv(images.with_name("folds.csv"), dtype=str)
    assert ranked[list(plain.columns)].equals(plain)
    assert [name for name in ranked if "rank" in name] == ["fold0_rank", "fold1_rank"]
    train = ranked[ranked["fold0"] == "train"].groupby("group")["fold0_rank"].first().astype(float)
    assert sorted(train) == pytest.approx(np.arange(1, len(train) + 1) / len(train))
    assert ranked.loc[ranked["fold0"] == "test", "fold0_rank"].isna().all()
    assert "fold 0, regime few: labelled groups: train " in capsys.readouterr().err


def test_too_small_a_regime_is_refused_and_what_would_do_is_named(images, capsys):
    assert run(images, **WIDE, regimes=(regime(0.3),)) == 1
    shown = capsys.readouterr().err
    told = re.search(r"regimes \(few\)\.labelled = 0\.3 leaves fewer than 4 .* with: (\S+) would do", shown)
    assert run(images, **WIDE, regimes=(regime(float(told[1])),)) == 0
    assert run(images, regimes=(regime(0.5, "full"),)) == 0, "where thresholds keep all of their groups"
    assert run(images, calibration=0.05, regimes=(regime(0.9),)) == 1
    assert "groups with labels in calibration, too few to leave some out" in capsys.readouterr().err


def test_a_table_that_is_older_than_a_regime_does_not_let_it_follow_single_proteins(images):
    """Another regime changes no role, so the table is not made again for it."""
    assert run(images, **WIDE, regimes=(regime(0.8),)) == 0
    with ImageSet(images) as source:
        ids, groups, table = source.ids, source.groups, images.with_name("folds.csv")
    role_table.refuse_few(table, 0, ids, groups, Regime(**regime(0.8)))
    with pytest.raises(UserError, match=r"\.labelled = 0\.1 leaves fewer than 4 labelled groups of train in fold 0"):
        role_table.refuse_few(table, 0, ids, groups, Regime(**regime(0.1)))


# --- what can be judged ----------------------------------------------------------------------------------------------


def few_groups(folder: Path, groups: int) -> Path:
    """Five images a group; class a in all groups, class b in every third."""
    path = folder / "few.h5"
    member = np.repeat(np.arange(groups), 5)
    labels = np.stack([member >= 0, member % 3 == 0], axis=1)
    with write_images(path, ["green"], ["a", "b"], 4) as writer:
        names = [f"g{number:02d}" for number in member]
        writer.append(np.zeros((len(member), 1, 4, 4)), labels, [f"{row:03d}" for row in range(len(member))], names)
    return path


def judged(images: Path, minimum: int, **options) -> int:
    settings = {"folds": 1, "fractions": FRACTIONS, "stratify_by": None, "leave_out": None, "roles_from": None}
    words = ["--images", str(images), "--out", str(images.with_name("folds.csv")), "--repeat", "0", "--seed", "1"]
    words += ["--minimum-positive-groups", str(minimum), "--settings", json.dumps(settings | options)]
    return stage_program.main(words)


def test_nothing_trains_where_nothing_can_be_judged(tmp_path, capsys):
    """The remedies that the line names are true: each lets the stage pass."""
    path = few_groups(tmp_path, 16)
    assert judged(path, 5) == 1
    said = capsys.readouterr().err
    assert "no class has 5 positive test groups" in said
    assert "a comes nearest with 3 (of its 16 groups; 16 groups in all)" in said
    assert not path.with_name("folds.csv").exists()
    folds = int(re.search(r"make_folds\.folds: (\d+)", said)[1])
    fraction = float(re.search(r"make_folds\.fractions\.test: ([\d.]+)", said)[1])
    minimum = int(re.search(r"analysis\.minimum_positive_groups: (\d+)", said)[1])
    assert judged(path, 5, folds=folds) == 0
    assert judged(path, 5, fractions=FRACTIONS | {"test": fraction}) == 0
    assert judged(path, minimum) == 0


def test_classes_that_cannot_be_judged_are_named_with_what_they_lack(tmp_path, capsys):
    assert judged(few_groups(tmp_path, 24), 5) == 0
    said = capsys.readouterr().err
    assert "cannot be judged, with fewer than 5 positive test groups: b (2, lacks 3)" in said


def test_a_marked_test_part_names_no_folds(tmp_path, capsys):
    path = marked(tmp_path, lambda number, image: "test" if number < 8 else "")
    assert judged(path, 9, roles_from="split") == 1
    said = capsys.readouterr().err
    assert "no class has 9 positive test groups" in said and "make_folds.folds:" not in said


def test_further_images_change_no_fold_and_are_shown_where_their_relatives_are_trained_on(images):
    assert run(images, **WIDE, regimes=(regime(0.8),)) == 0
    plain = pd.read_csv(images.with_name("folds.csv"), dtype=str, keep_default_na=False)
    with ImageSet(images) as source:
        part = source.read(None, "inspect")
        columns = {name: list(source.column(name)) for name in source.columns()}
    more = images.with_name("more.h5")
    with write_images(more, ["green"], ["a", "b", "rare"], 4, {"further": 3}) as writer:
        writer.append(part.images, part.labels, part.ids, part.groups, columns)
        own = {name: [""] * 3 for name in columns}
        writer.append(np.zeros((3, 1, 4, 4)), np.zeros((3, 3)), ["x", "y", "z"], ["g0", "new", "g1"], own)
    assert run(more, **WIDE, regimes=(regime(0.8),)) == 0
    table = pd.read_csv(more.with_name("folds.csv"), dtype=str, keep_default_na=False)
    assert table[:120].equals(plain)
    for fold in ("fold0", "fold1"):
        own = {group: set(table[:120].loc[table["group"][:120] == group, fold]) for group in ("g0", "g1")}
        wanted = {name: "unlabelled" if own[name] == {"train"} else "unused" for name in own}
        assert table[fold][120:].tolist() == [wanted["g0"], "unlabelled", wanted["g1"]]
        assert (table[f"{fold}_rank"][120:] == "").all()
    assert "unused" in set(table["fold0"][120:]) | set(table["fold1"][120:]), "one of them is tested or set aside"


def with_further(images, lines: list[str], own: list[str] | None = None) -> Path:
    """The same images, perhaps with other cell lines, and further ones of groups of their own and these cell lines."""
    with ImageSet(images) as source:
        part = source.read(None, "inspect")
        columns = {name: list(source.column(name)) for name in source.columns()}
    columns["cell_line"] = own or columns["cell_line"]
    more, count = images.with_name("more.h5"), len(lines)
    with write_images(more, ["green"], ["a", "b", "rare"], 4, {"further": count}) as writer:
        writer.append(part.images, part.labels, part.ids, part.groups, columns)
        names = [f"new{number}" for number in range(count)]
        writer.append(np.zeros((count, 1, 4, 4)), np.zeros((count, 3)), names, names,
                      {"cell_line": lines, "empty": [""] * count})  # fmt: skip
    return more


def test_further_images_of_what_a_fold_tests_are_not_shown_in_it(images, capsys):
    more = with_further(images, ["HeLa", "u-2 os", ""])
    assert run(more, folds=3, leave_out="cell_line") == 0
    table = pd.read_csv(more.with_name("folds.csv"), dtype=str, keep_default_na=False).tail(3)
    shown = table[["fold0", "fold1", "fold2"]].to_numpy().tolist()
    assert shown == [["unlabelled", "unlabelled", "unused"], ["unused", "unlabelled", "unlabelled"], ["unused"] * 3]
    assert "1 further images without a value of 'cell_line' are unused" in capsys.readouterr().err


def test_two_spellings_of_what_is_left_out_are_one(images):
    with ImageSet(images) as source:
        lines = source.column("cell_line")
    other = [line.lower() if row % 3 == 0 else line for row, line in enumerate(lines)]
    more = with_further(images, [], other)
    assert run(more, folds=3, leave_out="cell_line") == 0
    table = pd.read_csv(more.with_name("folds.csv"), dtype=str)
    for fold in range(3):
        tested = {line.lower() for line in lines[table[f"fold{fold}"] == "test"]}
        assert len(tested) == 1
        rest = lines[~table[f"fold{fold}"].isin(["test", "unused"])]
        assert tested.isdisjoint({line.lower() for line in rest})
