"""lib.images.access_record: records of what was read survive the way through files, and forged ones are refused."""

import base64
import json
import zlib

import numpy as np
import pytest

from workflow_scripts.lib.images.access_record import ACCESS_PURPOSES, Provenance


def record(**rows: list[int]) -> Provenance:
    out = Provenance("digest", 13)
    for purpose, chosen in rows.items():
        out.record(purpose, chosen)
    return out


def test_round_trip():
    given = record(fit=[12, 0, 7], select=[3], score=[])
    found = Provenance.from_json(given.to_json())
    assert (found.images, found.count) == ("digest", 13)
    assert {purpose: list(found.of(purpose)) for purpose in ACCESS_PURPOSES} == {
        "fit": [0, 7, 12], "select": [3], "threshold": [], "score": [], "inspect": [],
    }  # fmt: skip
    assert found.to_json() == given.to_json()
    assert "\n" not in given.to_json()


def test_rows_add_up_and_must_exist():
    given = record(fit=[1])
    given.record("fit", np.array([2, 2]))
    assert list(given.of("fit")) == [1, 2]
    with pytest.raises(ValueError, match="unknown purpose 'peek'"):
        given.record("peek", [1])
    with pytest.raises(IndexError):
        given.record("fit", [13])


def test_merging_unites_purposes_and_changes_neither():
    one, other = record(fit=[1], select=[4]), record(fit=[2], threshold=[5])
    both = one.merged(other)
    assert {purpose: list(both.of(purpose)) for purpose in both.rows} == {
        "fit": [1, 2], "select": [4], "threshold": [5],
    }  # fmt: skip
    assert list(one.of("fit")) == [1]
    assert list(other.of("fit")) == [2]


@pytest.mark.parametrize("other", [Provenance("another", 13), Provenance("digest", 14)], ids=["digest", "count"])
def test_records_of_different_sets_do_not_merge(other):
    with pytest.raises(ValueError, match="different image sets"):
        record(fit=[1]).merged(other)


def packed(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw)).decode()


@pytest.mark.parametrize(
    "forged",
    [
        {"rows": {"fit": packed(b"\x00")}},
        {"rows": {"fit": packed(bytes(50_000_000))}},
        {"rows": {"peek": packed(b"\x00\x00")}},
        {"rows": {"fit": "AAAA"}},
        {"rows": {"fit": "%%%"}},
        {"rows": {"fit": 3}},
        {"rows": None},
        {"count": -13},
        {"count": "many"},
        {"images": None, "rows": []},
    ],
    ids=["short", "bomb", "purpose", "not zlib", "not base64", "number", "no rows", "negative", "words", "list"],
)
def test_forged_records_are_refused(forged):
    good = {"images": "digest", "count": 13, "rows": {"fit": packed(b"\x00\x01")}}
    assert Provenance.from_json(json.dumps(good)).count == 13
    if forged.get("rows") == []:
        del good["images"]
        forged = {}
    with pytest.raises(ValueError):
        Provenance.from_json(json.dumps(good | forged))


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "3", '"text"', "null"])
def test_what_is_no_record_at_all_is_refused(text):
    with pytest.raises(ValueError):
        Provenance.from_json(text)
