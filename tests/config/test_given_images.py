"""Where raw images and their tables lie: simulated, found or fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.configs import checked, own_images
from workflow_scripts.lib.config import given_images
from workflow_scripts.lib.config.problems import ConfigError


def test_raw_images_are_simulated_found_or_fetched(tmp_path: Path) -> None:
    simulated = given_images.raw_images(checked({}))
    assert simulated["table"] == "results/demo/simulated/train.csv" and len(simulated) == 4
    assert given_images.known_tables(checked({})) == {}, "nobody has counted cells that are not drawn yet"
    own = own_images(tmp_path)
    assert given_images.raw_images(own) == {"images": str(tmp_path), "table": str(tmp_path / "labels.csv")}
    assert given_images.known_tables(own) == {"table": str(tmp_path / "labels.csv")}
    public = own_images(tmp_path, source="public", images=None)
    assert given_images.is_fetched(public) and not given_images.is_fetched(own)
    assert given_images.raw_images(public)["checksums"] == "results/demo/fetched/checksums.csv"
    assert given_images.raw_images(public)["table"] == "results/demo/fetched/table.csv", "that of complete images"
    assert given_images.image_manifest(public) == {"manifest": str(tmp_path / "labels.csv")}
    assert given_images.fetched_folder(public, "test") == "data/public/test"
    assert given_images.raw_flags(public, {"table": "a b.csv"}) == "--images-dir data/public/train --table 'a b.csv'"
    assert (
        given_images.raw_flags(own, {"images": "i", "table": "t", "groups": "g"})
        == "--images-dir i --table t --groups g"
    )


def test_test_images_are_named_or_fetched(tmp_path: Path) -> None:
    own = own_images(tmp_path)
    with pytest.raises(ConfigError, match=r"write_submission\.images and write_submission\.sample"):
        given_images.test_images(own)
    named = own | {"write_submission": {"images": "i", "sample": "s"}}
    assert given_images.test_images(named) == {"images": "i", "sample": "s"}
    plain = {"data": {"source": "kaggle2018"}, "write_submission": {"sample": "s"}}
    with pytest.raises(ConfigError, match=r"set fetch_images\.kaggle\.test_images: true"):
        given_images.test_images(checked(plain))
    kaggle = checked(plain | {"fetch_images": {"kaggle": {"test_images": True}}})
    assert given_images.test_images(kaggle) == {"sample": "s", "checksums": "results/demo/fetched/checksums.csv"}


def test_new_images_that_are_not_there_are_refused_before_old_predictions_pass_for_theirs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no 'nowhere'"):
        given_images.predicted(checked({"predict": {"images": "nowhere"}}))
    found = given_images.predicted(checked({"predict": {"images": str(tmp_path), "name": "late"}}))
    assert found == "results/demo/predicted/late"
    with pytest.raises(ConfigError, match=r"needs predict\.images"):
        given_images.predicted(checked({}))
