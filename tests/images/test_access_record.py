"""lib.images.access_record: records of what was read survive the way through files, and forged ones are refused."""

import base64
import json
import zlib

import numpy as np
import pytest

from workflow_scripts.lib.images.access_record import ACCESS_PURPOSES, AccessRecord


def record(**rows: list[int]) -> AccessRecord:
    out = AccessRecord("digest", 13)
    for purpose, chosen in rows.items():
        out.record(purpose, chosen)
    return out


def test_round_trip():
    given = record(fit=[12, 0, 7], select=[3], score=[])
    found = AccessRecord.from_json(given.to_json())
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


@pytest.mark.parametrize("other", [AccessRecord("another", 13), AccessRecord("digest", 14)], ids=["digest", "count"])
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
    assert AccessRecord.from_json(json.dumps(good)).count == 13
    if forged.get("rows") == []:
        del good["images"]
        forged = {}
    with pytest.raises(ValueError):
        AccessRecord.from_json(json.dumps(good | forged))


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "3", '"text"', "null"])
def test_what_is_no_record_at_all_is_refused(text):
    with pytest.raises(ValueError):
        AccessRecord.from_json(text)


def test_images_read_without_labels_are_told_apart():
    record = AccessRecord("digest", 6)
    record.record("fit", [1, 2])
    record.record("fit", [2, 3], labels=False)
    assert list(record.of("fit")) == [1, 2, 3] and record.labelled("fit") == 2
    found = AccessRecord.from_json(record.to_json())
    told = [(access.purpose, access.labels, access.regime, list(access.rows)) for access in found.accesses()]
    assert told == [("fit", True, None, [1, 2]), ("fit", False, None, [2, 3])]


def test_what_is_inherited_from_another_regime_says_so_for_ever():
    whole, own = AccessRecord("digest", 6), AccessRecord("digest", 6)
    whole.record("fit", [0, 1, 2])
    whole.record("score", [5])
    own.record("fit", [0])
    record = AccessRecord.from_json(own.merged(whole.inherited_from("all")).to_json())
    again = record.inherited_from("few")
    told = {(access.purpose, access.regime): list(access.rows) for access in again.accesses()}
    assert told == {("fit", "all"): [0, 1, 2], ("fit", "few"): [0], ("score", "all"): [5]}
    assert list(record.of("fit")) == [0, 1, 2] and list(record.only("fit").rows) == ["fit", "fit@all"]
    assert list(own.of("fit")) == [0], "the record itself is as it was"


@pytest.mark.parametrize("name", ["guess", "fit:pixels", "@few"])
def test_forged_names_are_refused(name):
    text = AccessRecord("digest", 6, {name: np.zeros(6, dtype=bool)}).to_json()
    with pytest.raises(ValueError, match="unknown purpose"):
        AccessRecord.from_json(text)


def test_what_is_unknown_goes_on_to_all_that_is_made_from_it():
    given = AccessRecord("digest", 13, unknown=frozenset({"theirs", "others"}))
    found = AccessRecord.from_json(given.to_json())
    assert found.unknown == {"theirs", "others"}
    assert record(fit=[1]).merged(found).unknown == found.only("fit").unknown == found.unknown
    assert found.inherited_from("few").unknown == found.unknown
    assert "unknown" not in record(fit=[1]).to_json(), "records as they always were"
    with pytest.raises(ValueError, match="TypeError"):
        AccessRecord.from_json(given.to_json().replace('["others", "theirs"]', "7"))
