"""User tables and image lists: tables as people write them, and what is wrong with one, by line and name."""

import gzip

import numpy as np
import pytest

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import image_list, known_datasets, user_tables

CLASSES = ["Nucleus", "Cytosol", "Golgi"]
DATA = {
    "columns": dict(known_datasets.COLUMNS), "columns_given": [], "labels": "numbers", "label_separator": None,
    "no_label": "keep",
}  # fmt: skip


@pytest.fixture
def table(tmp_path):
    """A function that writes a table: table(text or bytes) -> path."""

    def write(content: str | bytes, name: str = "train.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def listed(path, classes=CLASSES, **changes):
    return image_list.read_images(user_tables.read_table(path), DATA | changes, classes)


GOOD = [
    "Id,Target\na,2 0\nb,1\nc,\n",
    "\ufeffId,Target\r\na,2 0\r\nb,1\r\nc,\r\n",
    " Id , Target \n a , 0  2 \n\nb, 1\nc,",
    'Target,other,Id\n"2 0",x,a\n1,,b\n,y,c\n',
    "Id;Target\na;2,0\nb;1\nc;\n",
    "Id\tTarget\na\t2|0\nb\t1\nc\t\n",
    'Id,Target,note\na,"2\n0","of two\nlines"\nb,1,\nc,,\n',
    "id,TARGET\r" + "a,2 0\rb,1\rc,\r",
    "Id,Target,\na,2 0,\nb,1,\nc,,\n,,\n",
    "sep=;\r\nId;Target\r\na;2,0\r\nb;1\r\nc;\r\n",
]


@pytest.mark.parametrize(
    "content",
    [*GOOD, gzip.compress(GOOD[0].encode()), GOOD[1].lstrip("\ufeff").encode("utf-16")],
    ids=["plain", "BOM and CRLF", "spaces", "quotes and more columns", "semicolons", "tabs", "lines in quotes",
         "old line ends and other capitals", "empty columns and rows", "Excel's own first line", "gzip", "UTF-16"],
)  # fmt: skip
def test_good_tables(table, content):
    found = listed(table(content))
    assert found.ids == ["a", "b", "c"]
    np.testing.assert_array_equal(found.labels, [[1, 0, 1], [0, 1, 0], [0, 0, 0]])
    assert found.labels.dtype == np.uint8
    assert found.bad == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Id,Label\na,1\n", "no column 'Target'; its columns are: Id, Label"),
        ("", "no column 'Id'; its columns are: none"),
        ("Id,Target\n", "has no rows"),
        ("Id,Id,Target\na,b,1\n", "two columns 'Id'"),
        ('Id,Target\na,"1\nb,2\n', "cannot be read as a table"),
        ('Id,Target\nx,0\na"b,"1" 2\n', "line 3: "),
        ("Id,Target,note\na,1,0.5 µm\n".encode("cp1252"), "line 2: this is not UTF-8; save the table as 'CSV UTF-8'"),
        (b"PK\x03\x04" + bytes(100), "is a spreadsheet or an archive, no table: save it as 'CSV UTF-8'"),
        (b"\x1f\x8b\x08broken", "cannot be read as a table"),
    ],
)
def test_tables_that_cannot_be_read(table, content, message):
    path = table(content)
    with pytest.raises(UserError) as failure:
        listed(path)
    assert message in str(failure.value)
    assert str(path) in str(failure.value)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("Id,Target\na,1\nb,0\na,0\n", "conflicting rows", "'a' stands in lines 2, 4, and they disagree"),
        ("Id,Target\na,3\n", "unknown label", "'3' is no class number; there are 3 classes, numbered 0 to 2"),
        ("Id,Target\na,0/1\n", "unknown label", "'0/1' is no class number"),
        ("Id,Target\na,-1\n", "unknown label", "'-1'"),
        ("Id,Target\na,1.0\n", "unknown label", "'1.0'"),
        ("Id,Target\na,²\n", "unknown label", "'²'"),
        ("Id,Target\na,Golgi\n", "unknown label", "'Golgi'"),
        ("Id,Target\na,0,1\n", "broken row", "has 3 cells, the header 2"),
        ("Id,Target\n../../etc/passwd,1\n", "Id that is no file name", "'../../etc/passwd', which cannot be part"),
        ("Id,Target\n/etc/passwd,1\n", "Id that is no file name", "cannot be part"),
        ("Id,Target\na\\b,1\n", "Id that is no file name", "cannot be part"),
        ("Id,Target\n.hidden,1\n", "Id that is no file name", "cannot be part"),
        ('Id,Target\n"a\nb",1\n', "Id that is no file name", "cannot be part"),
        ("Id,Target\n,1\n", "Id that is no file name", "has no Id"),
        (f"Id,Target\n{'a' * 201},1\n", "Id that is no file name", "cannot be part"),
    ],
)
def test_bad_rows(table, content, kind, message):
    found = listed(table(content))
    (bad,) = found.bad
    assert bad.kind == kind
    assert message in bad.reason
    assert bad.file.startswith("train.csv, line ")
    assert "a" not in found.ids


def test_rows_that_repeat_are_merged_with_a_note(table):
    found = listed(table("Id,Target,gene\na,1,G\nb,0,H\na,1,G\na,1,G\n"))
    assert found.ids == ["a", "b"]
    assert found.columns == {"gene": ["G", "H"]}
    assert found.notes == ["2 rows of train.csv repeat another one and count once"]


def test_labels_by_name(table):
    content = "Id,Target\na,bud neck|nucleus\nb,Nucleus\nc,7\n"
    found = listed(table(content), ["Nucleus", "Bud neck"], labels=None)
    np.testing.assert_array_equal(found.labels, [[1, 1], [1, 0]])
    assert found.bad[0].reason == "'7' is no class name; the classes are Nucleus, Bud neck"
    found = listed(table("Id,Target\na,bud neck|nucleus\nb,vacuole\n"), [], labels=None)
    assert found.classes == ["bud neck", "nucleus", "vacuole"]
    found = listed(table("Id,Target\na,1 0\nb,x\n"), labels=None)
    assert found.bad[0].reason.startswith("'x' is no class number")


def test_an_empty_label_is_bad_unless_it_is_meant(table):
    path = table("Id,Target\na,\nb,1\n")
    assert listed(path).ids == ["a", "b"]
    found = listed(path, no_label="invalid")
    assert found.ids == ["b"]
    assert found.bad[0].kind == "no label"


def test_a_second_table_is_joined_in_the_order_of_the_images(table):
    second = table(",Id,gene,Target,plate\n0,b,B,1,\n1,a,A,2,p\n2,c,C,0,p\n", "groups.csv")
    found = listed(table("Id,Target\na,1\nb,1\nx,1\n"))
    image_list.join(found, user_tables.read_table(second), DATA)
    assert found.ids == ["a", "b"]
    assert found.columns == {"gene": ["A", "B"], "plate": ["p", ""]}
    assert [bad.reason for bad in found.bad] == ["has no row for Id 'x'"]


def test_two_rows_of_an_image_must_agree(table):
    found = listed(table("Id,Target\na,1\nb,1\n"))
    again = user_tables.read_table(table("Id,gene\na,A\na,A\nb,A\nb,B\n", "groups.csv"))
    image_list.join(found, again, DATA)
    assert found.ids == ["a"]
    assert found.bad[0].kind == "conflicting rows"


def test_columns_get_the_names_that_are_known(table):
    path = table("Id,Target,Group,ensembl,Well/Row\na,1,g,E,W\n")
    found = listed(path, columns=known_datasets.COLUMNS | {"gene": "ensembl"})
    assert found.columns == {"group": ["g"], "gene": ["E"], "Well_Row": ["W"]}


def test_parts_of_an_id(table):
    names = "ENSG1_10_2_A1_1\nENSG1_11_2_A1_2_cr5\n", "nothing_of_this\n"
    found = listed(table("Id,Target\n" + "".join(names).replace("\n", ",1\n")))
    image_list.add_id_parts(found, "{gene}_{antibody}_{plate}_{well}_{field}")
    assert found.columns["antibody"] == ["10", "11"]
    assert found.columns["field"] == ["1", "2"]
    assert [bad.kind for bad in found.bad] == ["Id of another form"]


def test_class_names(table):
    assert user_tables.read_classes(table("number,name\n0,Nucleus\n1,Golgi\n")) == ["Nucleus", "Golgi"]
    for content in ("number,name\n1,Nucleus\n", "number,name\n0,A\n1,A\n", "number,name\n0,\n", "number,name\n"):
        with pytest.raises(UserError, match=r"train\.csv"):
            user_tables.read_classes(table(content))


def test_a_missing_table(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv cannot be read"):
        user_tables.read_table(tmp_path / "none.csv")


def test_labels_with_commas_between_them_are_not_taken_for_classes_of_their_own(table):
    path = table("Id;Target\na;nucleus\nb;cytosol\nc;nucleus, cytosol\n")
    with pytest.raises(UserError, match=r"'nucleus, cytosol' is made of other labels: set data\.label_separator"):
        listed(path, (), labels="names")
    assert listed(path, (), labels="names", label_separator=",").classes == ["cytosol", "nucleus"]
    assert len(listed(path, (), labels="names", label_separator="|").classes) == 3
    assert listed(table("Id;Target\na;tubulin, alpha\nb;other\n"), (), labels="names").classes == [
        "other",
        "tubulin, alpha",
    ]


def test_lines_are_counted_as_in_the_file_below_excels_own_first_line(table):
    (bad,) = listed(table("sep=;\nId;Target\na;0\nb;9\n")).bad
    assert bad.file == "train.csv, line 4"
