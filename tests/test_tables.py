"""lib.tables: tables as people really write them are read, and what is wrong with one is told by line and name."""

import numpy as np
import pytest

from workflow_scripts.lib import tables
from workflow_scripts.lib.stage import UserError

CLASSES = ["Nucleus", "Cytosol", "Golgi"]


@pytest.fixture
def table(tmp_path):
    """A function that writes a table: table(text or bytes) -> path."""

    def write(content: str | bytes):
        path = tmp_path / "train.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        "Id,Target\na,2 0\nb,1\nc,\n",
        "\ufeffId,Target\r\na,2 0\r\nb,1\r\nc,\r\n",
        " Id , Target \n a , 0  2 \n\nb, 1\nc,",
        'Target,other,Id\n"2 0",x,a\n1,,b\n,y,c\n',
    ],
    ids=["plain", "BOM and CRLF", "spaces", "quotes and more columns"],
)
def test_good_tables(table, content):
    found = tables.read_labels(table(content), CLASSES)
    assert found.ids == ["a", "b", "c"]
    np.testing.assert_array_equal(found.labels, [[1, 0, 1], [0, 1, 0], [0, 0, 0]])
    assert found.labels.dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Id,Label\na,1\n", "no column 'Target'; its columns are: Id, Label"),
        ("", "no column 'Id'; its columns are: none"),
        ("Id,Target\n", "has no rows"),
        ("Id,Target\na,1\nb,0\na,1\n", "'a' stands in lines 2 and 4"),
        ("Id,Target\na,3\n", "line 2: '3' is no class number; there are 3 classes, numbered 0 to 2"),
        ("Id,Target\na,0|1\n", "'0|1' is no class number"),
        ("Id,Target\na,-1\n", "'-1'"),
        ("Id,Target\na,1.0\n", "'1.0'"),
        ("Id,Target\na,²\n", "'²'"),
        ("Id,Target\na,Golgi\n", "'Golgi'"),
        ("Id,Target\n../../etc/passwd,1\n", "'../../etc/passwd' cannot be part of a file name"),
        ("Id,Target\n/etc/passwd,1\n", "cannot be part"),
        ("Id,Target\na\\b,1\n", "cannot be part"),
        ("Id,Target\n.hidden,1\n", "cannot be part"),
        ('Id,Target\n"a\nb",1\n', "cannot be part"),
        ("Id,Target\n,1\n", "cannot be part"),
        (f"Id,Target\n{'a' * 201},1\n", "cannot be part"),
        (b"Id,Target\n\xff\xfe,1\n", "cannot be read as a table"),
    ],
)
def test_bad_tables(table, content, message):
    path = table(content)
    with pytest.raises(UserError) as failure:
        tables.read_labels(path, CLASSES)
    assert message in str(failure.value)
    assert str(path) in str(failure.value)


def test_a_missing_table(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv cannot be read"):
        tables.read_labels(tmp_path / "none.csv", CLASSES)


def test_columns_come_in_the_order_of_the_images(table):
    path = table(",Id,gene,Target,plate\n0,b,B,1,\n1,a,A,2,p\n2,c,C,0,p\n")
    assert tables.read_columns(path, ["a", "b"], ["gene"]) == {"gene": ["A", "B"], "plate": ["p", ""]}
    with pytest.raises(UserError, match=r"no row for 2 of 3 images, the first is 'x'"):
        tables.read_columns(path, ["x", "a", "y"], ["gene"])
    with pytest.raises(UserError, match="no column 'antibody'"):
        tables.read_columns(path, ["a"], ["antibody"])


def test_two_rows_of_an_image_must_agree(table):
    assert tables.read_columns(table("Id,gene\na,A\na,A\n"), ["a"], ["gene"]) == {"gene": ["A"]}
    with pytest.raises(UserError, match="two rows for Id 'a'"):
        tables.read_columns(table("Id,gene\na,A\na,B\n"), ["a"], ["gene"])


def test_class_names(table):
    assert tables.read_classes(table("number,name\n0,Nucleus\n1,Golgi\n")) == ["Nucleus", "Golgi"]
    for content in ("number,name\n1,Nucleus\n", "number,name\n0,A\n1,A\n", "number,name\n0,\n", "number,name\n"):
        with pytest.raises(UserError, match=r"train\.csv"):
            tables.read_classes(table(content))
