"""start: from a folder and a table to a config that a run could start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from tests.helpers import fields, image_folders
from tests.helpers.image_folders import noise, save
from workflow_scripts import start
from workflow_scripts.lib.config import first_questions
from workflow_scripts.lib.images import column_guess, folder_guess, image_list, known_datasets

CLASSES = ("nucleus", "bud neck", "cytosol", "ER", "vacuole")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(name: str) -> dict:
    return yaml.safe_load(Path(name).read_text(encoding="utf-8"))


def yeast() -> None:
    """400 images' kind of folder: TIFFs of two channels, a table with byte order mark and semicolons, 20 wells."""
    Path("yeast/images").mkdir(parents=True)
    rows = ["Bild;Lokalisation;Well"]
    for number in range(40):
        for channel in ("dic", "gfp"):
            tifffile.imwrite(f"yeast/images/p{number:02d}_{channel}.tif", noise(number, 32).astype(np.uint16) * 9)
        rows.append(f"p{number:02d};{CLASSES[number % 5]};W{number % 20:02d}")
    Path("yeast/labels.csv").write_bytes("\ufeff".encode() + "\r\n".join(rows).encode())


@pytest.mark.parametrize("folder", ["yeast", "yeast/images"])
def test_yeast_with_semicolons_and_a_byte_order_mark_needs_no_answer(folder, capsys):
    yeast()
    assert start.main([folder, "--yes"]) == 0
    assert "snakemake --configfile yeast.yaml --cores 2 check" in capsys.readouterr().out
    assert written("yeast.yaml") == {
        "run": "yeast",
        "data": {
            "source": "folder",
            "images": "yeast/images",
            "table": "yeast/labels.csv",
            "files": "{id}_{channel}.tif",
            "columns": {"id": "Bild", "labels": "Lokalisation"},
            "labels": "names",
            "group_by": ["Well"],
        },
        "preprocess_images": {"channels": ["dic", "gfp"], "size": 32, "intensity": "percentile"},
        "report": {"demonstration": False, "panels": {"protein_channel": "gfp"}},
    }


def test_nothing_is_overwritten_unless_it_is_said(capsys):
    yeast()
    Path("yeast.yaml").write_text("mine")
    assert start.main(["yeast", "--yes"]) == 1
    assert "start: yeast.yaml is there already: name another by --out or --run" in capsys.readouterr().err
    assert Path("yeast.yaml").read_text() == "mine"
    assert start.main(["yeast", "--yes", "--out", "other.yaml"]) == 0 and Path("other.yaml").is_file()
    assert start.main(["yeast", "--yes", "--force"]) == 0 and written("yeast.yaml")["run"] == "yeast"


def test_at_most_five_questions_are_asked_and_flags_answer_them(monkeypatch, capsys):
    fields.folder(Path("raw"))
    Path("raw/plates.csv").write_text("Id;plate\nf0;1\nf1;1\nf2;2\n")
    Path("raw/more.csv").write_text("Id;Target\nf0;a\nf1;b\nf2;a\n")
    asked = []
    monkeypatch.setattr(first_questions, "_asks", lambda args: not args.yes)
    monkeypatch.setattr(
        "builtins.input", lambda text: asked.append(text) or ("raw/fields.csv" if len(asked) == 1 else "")
    )
    assert start.main(["raw", "--run", "raw"]) == 0
    assert len(asked) == 4 and asked[2].endswith("[gene]: ")
    config = written("raw.yaml")
    assert config["data"]["table"] == "raw/fields.csv" and "group_by" not in config["data"]
    monkeypatch.setattr("builtins.input", lambda text: pytest.fail(text))
    flags = [
        "--table",
        "raw/fields.csv",
        "--labels",
        "Target",
        "--groups",
        "plate",
        "--protein",
        "dna",
        "--cells",
        "yes",
    ]
    assert start.main(["raw", *flags, "--run", "b"]) == 0
    assert written("b.yaml")["data"]["cells"] == {"nucleus_channel": "dna"}
    assert written("b.yaml")["data"]["group_by"] == ["plate"]
    assert "snakemake --configfile b.yaml --cores 2 cells" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("columns", "answer", "written_as"),
    [
        ("gene,antibody", "none", []),
        ("gene,antibody", "gene", ["gene"]),
        ("gene,antibody", "antibody,gene", None),
        ("gene,antibody", None, None),
        ("Gene,ANTIBODY", "Gene", ["gene"]),
        ("gene,Group", "gene", ["gene"]),
    ],
)
def test_the_answer_about_groups_is_obeyed(columns, answer, written_as):
    # Unless the config says otherwise, a run joins images by both columns.
    Path("own").mkdir()
    rows = [f"Id,Target,{columns}"]
    for number in range(12):
        save(Path(f"own/p{number}_red.png"), noise(number, 32))
        save(Path(f"own/p{number}_green.png"), noise(number, 32))
        rows.append(f"p{number},{CLASSES[number % 2]},G{number // 2},{'one' if 'Group' in columns else number // 4}")
    Path("own.csv").write_text("\n".join(rows))
    flags = [] if answer is None else ["--groups", answer]
    assert start.main(["own", "--yes", "--table", "own.csv", "--labels", "Target", *flags]) == 0
    assert written("own.yaml")["data"].get("group_by") == written_as
    settings = written("own.yaml")["data"] | {"files": "{id}_{channel}.png"}
    known = known_datasets.described(image_folders.DEFAULT["data"] | settings)
    listed = image_list.from_tables(Path("own.csv"), None, None, known)
    asked = ("gene", "antibody", "group") if written_as is None else written_as
    assert set(image_list.group_columns(listed, known["group_by"])) == set(asked) & set(columns.lower().split(","))


def test_the_commands_name_the_file_that_is_written(capsys):
    yeast()
    Path("my cfg").mkdir()
    assert start.main(["yeast", "--yes", "--run", "y2", "--out", "my cfg/y 2.yaml"]) == 0
    command = "snakemake --configfile 'my cfg/y 2.yaml' --cores 2 check"
    assert command in capsys.readouterr().out
    assert f"#   {command}" in Path("my cfg/y 2.yaml").read_text()


def test_the_form_of_the_atlas_is_known_with_its_table_of_groups():
    Path("hpa/train").mkdir(parents=True)
    rows, groups = ["Id,Target"], ["Id,Group"]
    for number in range(12):
        name = f"0{number:03x}ab-{number}"
        for channel in ("red", "green", "blue", "yellow"):
            save(Path(f"hpa/train/{name}_{channel}.png"), noise(number, 64))
        rows.append(f"{name},{number % 4} 25")
        groups.append(f"{name},g{number // 2}")
    Path("hpa/train.csv").write_text("\n".join(rows))
    Path("hpa/groups.csv").write_text("\n".join(groups))
    assert start.main(["hpa", "--yes"]) == 0
    data = written("hpa.yaml")["data"]
    assert data["class_names"] == "kaggle_2018" and data["groups"] == "hpa/groups.csv"
    assert "files" not in data and "columns" not in data and "group_by" not in data
    assert written("hpa.yaml")["report"]["panels"] == {"protein_channel": "green"}


@pytest.mark.parametrize(
    ("named", "channels", "protein"),
    [(["DNA", "my protein"], ["DNA", "my_protein"], "my_protein"), (None, ["c1", "c2"], "c2")],
)
def test_one_file_holds_all_channels_of_an_image(named, channels, protein):
    Path("set/tifs").mkdir(parents=True)
    rows = ["file\tclass\tstrain"]
    for number in range(8):
        stack = np.stack([noise(number, 40), noise(number + 9, 40)])
        about = {"axes": "CYX"} | ({"Channel": {"Name": named}} if named else {})
        tifffile.imwrite(f"set/tifs/cell-{number}.ome.tif" if named else f"set/tifs/cell-{number}.tif", stack,
                         ome=bool(named), metadata=about if named else None, photometric="minisblack")  # fmt: skip
        rows.append(f"cell-{number}.{'ome.' if named else ''}tif\t{number % 2 + 1}\ts{number // 2}")
    Path("set/cells.tsv").write_text("\n".join(rows))
    assert start.main(["set", "--yes"]) == 0
    config = written("set.yaml")
    assert config["data"]["files"] == "{id}" and config["preprocess_images"]["channels"] == channels
    assert config["report"]["panels"]["protein_channel"] == protein
    assert config["data"]["class_names"] == ["class 0", "class 1", "class 2"]
    assert config["data"]["group_by"] == ["strain"]
    assert named or "nothing names them" in Path("set.yaml").read_text()


def test_without_a_table_folders_are_classes_and_no_file_is_moved():
    for place in ("bud neck", "nucleus"):
        Path("plate", place).mkdir(parents=True)
        for number in range(4):
            for channel in ("dic", "gfp"):
                save(Path(f"plate/{place}/{number}_{channel}.png"), noise(number, 32))
    assert start.main(["plate", "--yes"]) == 0
    table = Path("plate-labels.csv").read_text().splitlines()
    assert table[:2] == ["Id,Target", "bud-neck_0,bud neck"] and len(table) == 9
    first = Path("plate-images/bud-neck_0_gfp.png")
    assert first.stat().st_ino == Path("plate/bud neck/0_gfp.png").stat().st_ino
    data = written("plate.yaml")["data"]
    assert data["images"] == "plate-images" and "files" not in data
    assert "No column says which images belong together" in Path("plate.yaml").read_text()


def test_images_that_are_not_square_are_cut_at_their_centre():
    Path("a").mkdir()
    for number in range(4):
        save(Path(f"a/x{number}.png"), np.zeros((48, 64), np.uint8) + noise(number, 64)[:48])
    Path("a/t.csv").write_text("Id,Target,gene\n" + "".join(f"x{n},{'ab'[n % 2]},G{n}\n" for n in range(4)))
    assert start.main(["a", "--yes"]) == 0
    config = written("a.yaml")
    assert config["data"]["pixel_size"] == 1 and config["preprocess_images"]["pixel_size"] == 1.5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["yeast", "--labels", "Lokalization"], "there are Bild, Lokalisation, Well (did you mean Lokalisation?)"),
        (["yeast", "--groups", "gene"], "--groups gene: there is no such column; there are Well, none"),
        (["yeast", "--protein", "GFP"], "there are dic, gfp (did you mean gfp?)"),
        (["yeast", "--id", "Well"], "no column of yeast/labels.csv names the files of yeast/images"),
        (["empty"], "no table lies in empty or beside it: name one by --table"),
        (["yeast", "--run", "a b"], "no config was written, because it would not pass: run"),
    ],
)
def test_what_cannot_be_guessed_is_told_in_a_line(flags, message, capsys):
    yeast()
    Path("empty").mkdir()
    assert start.main([*flags, "--yes"]) == 1
    told = capsys.readouterr().err
    assert message in told and told.startswith("start: ") and told.count("\n") == 1
    assert not list(Path().glob("*.yaml"))


@pytest.mark.parametrize(
    ("values", "sign"),
    [(["a+b", "a", "b"], "+"), (["a/b", "a", "c"], None), (["a|b", "a"], None), (["G1/S", "M"], None)],
)
def test_a_separator_is_told_where_its_parts_are_labels_by_themselves(values, sign):
    assert column_guess.separator(values) == sign


def test_class_folders_of_links_and_of_many_files_are_gathered_whole(monkeypatch):
    monkeypatch.setattr(folder_guess, "MOST", 6)
    Path("raw").mkdir()
    for place in ("bud neck", "nucleus"):
        Path("plate", place).mkdir(parents=True)
        for number in range(10):
            save(Path(f"raw/{place[0]}{number}.png"), noise(number, 32))
            Path(f"plate/{place}/{number}.png").symlink_to(Path("..", "..", "raw", f"{place[0]}{number}.png"))
    assert start.main(["plate", "--yes"]) == 0
    assert len(Path("plate-labels.csv").read_text().splitlines()) == 21
    images = sorted(Path("plate-images").iterdir())
    assert len(images) == 20 and not any(path.is_symlink() for path in images)


@pytest.mark.parametrize("sizes", [{"er": 30, "nucleus": 12}, {"er": 12, "nucleus": 12}])
def test_wells_of_a_plate_are_no_channels(sizes):
    for place, count in sizes.items():
        Path("plate", place).mkdir(parents=True)
        for number in range(count):
            save(Path("plate", place, f"p1_{'ABC'[number // 12]}{number % 12 + 1:02d}.png"), noise(number, 32))
    assert start.main(["plate", "--yes"]) == 0
    assert len(Path("plate-labels.csv").read_text().splitlines()) == 1 + sum(sizes.values())


def test_a_folder_of_more_files_than_are_looked_at_is_understood(monkeypatch):
    yeast()
    monkeypatch.setattr(folder_guess, "MOST", 10)
    assert start.main(["yeast", "--yes"]) == 0
    assert written("yeast.yaml")["data"]["columns"]["id"] == "Bild"


@pytest.mark.parametrize(("folder", "name"), [("2023_yeast", "run_2023_yeast"), ("yeast 1", "yeast_1"), ("__", "own")])
def test_a_guessed_name_is_one_that_a_run_may_have(tmp_path: Path, folder: str, name: str) -> None:
    assert start._run_name(tmp_path / folder) == name
