"""RO-Crate of a run: entities that refer to each other, settings without places of this machine, checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.helpers.configs import SHIPPED, checked, overlaid
from workflow_scripts.lib.config import check, stage_views
from workflow_scripts.lib.crate import parameters, run_record
from workflow_scripts.lib.crate.entities import Graph


def test_a_file_has_size_media_type_and_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a table" / "metrics.csv"
    path.parent.mkdir()
    path.write_bytes(b"arm,value\n")
    found = Graph().add_file(tmp_path, path, name="metrics")
    assert found["@id"] == "a%20table/metrics.csv"
    assert (found["encodingFormat"], found["contentSize"]) == ("text/csv", "10")
    assert found["sha256"] == hashlib.sha256(b"arm,value\n").hexdigest()


def test_two_entities_of_one_id_must_be_the_same() -> None:
    graph = Graph()
    assert graph.add("#one", "Thing", name="a") == graph.add("#one", "Thing", name="a", url=None)
    with pytest.raises(ValueError, match="#one"):
        graph.add("#one", "Thing", name="b")


def test_settings_name_no_place_of_this_machine() -> None:
    given = {"data": {"images": "/home/me/yeast", "table": "../tables/labels.csv"}, "arms": [{"weights": "~/a/b.pt"}]}
    assert parameters.without_places(given) == {
        "data": {"images": "yeast", "table": "labels.csv"},
        "arms": [{"weights": "b.pt"}],
    }
    assert parameters.without_places({"report": {"title": "train/test"}}) == {"report": {"title": "train/test"}}


def test_each_setting_is_a_parameter_with_its_description_and_type() -> None:
    graph = Graph()
    formal, given = parameters.add(graph, {"seed": 3, "analysis": {"smallest_effect": 0.02}, "arms": [{"name": "a"}]})
    assert [entry["additionalType"] for entry in formal] == ["Integer", "Float", "Text"]
    assert [entry["value"] for entry in given] == ["3", "0.02", '[{"name": "a"}]']
    assert "Smallest difference" in formal[1]["description"]
    assert given[1]["exampleOfWork"] == {"@id": formal[1]["@id"]}


def test_the_period_of_a_run_ends_with_its_report(tmp_path: Path) -> None:
    for name, text in (
        ("predict_images", "2026-03-04 10:00:00 INFO begin\n"),
        ("report", "2026-03-01 10:00:00 INFO begin\n2026-03-01 12:30:00 INFO done in 9 s\n"),
        ("early", "no time\n2026-02-28 23:59:59 INFO begin\n2026-03-01 09:00:00 INFO done\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.log").write_text(text)
    began, ended = run_record.period(tmp_path)
    assert began.startswith("2026-02-28T23:59:59") and ended.startswith("2026-03-01T12:30:00")


def test_the_settings_in_a_crate_make_the_same_run() -> None:
    config = checked({})
    told = parameters.without_places(stage_views.of_run(config))
    assert check.check(overlaid(SHIPPED, told)) == config
