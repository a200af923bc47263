"""The stage fetch_images in a folder of its own, against a server on this machine."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.misbehaving_server import Server, content
from workflow_scripts import fetch_images as stage_program

SETTINGS = {
    "columns": {"id": "Id", "labels": "Target"},
    "colours": {"protein": "green"}, "channels": ["protein"], "limit": {"images": 0, "per_class": 0}, "connections": 4,
    "requests_per_second": 1000, "timeout": 5, "slowest": 0, "retries": 2, "pause": 0.01, "longest_pause": 3,
    "redirects": 3, "file_mb": 1, "total_gb": 1, "verify": True, "on_invalid": "fail", "invalid_limit": 0.5,
    "kaggle": {"api": "", "test_images": False, "archive_gb": 1},
}  # fmt: skip
COLUMNS = {"kaggle2018": SETTINGS["columns"], "kaggle2021": {"id": "ID", "labels": "Label"}}
IDS = ["G1_11_1_A1_1", "G1_11_1_A1_2", "G2_12_2_B3_1", "G3_13_7_H12_4_cr57f7"]


class Run:
    """The stage in a folder of its own."""

    def __init__(self, folder: Path, server: Server, ids: list[str] = IDS) -> None:
        self.folder, self.server = folder, server
        self.manifest = folder / "list.csv"
        self.list("\n".join(["Id,Target", *(f"{name},{number % 3}" for number, name in enumerate(ids))]) + "\n")
        self.home = folder / "data" / "public"

    def list(self, text: str) -> None:
        """Replace the manifest."""
        self.manifest.write_text(text)

    def __call__(self, mode: str = "fine", source: str = "public", **settings: object) -> int:
        return stage_program.main(self.words(mode, source, **settings))

    def words(self, mode: str, source: str = "public", **settings: object) -> list[str]:
        """The command line."""
        url = f"{self.server.url}/{mode}/{{antibody}}_{{plate}}_{{well}}_{{field}}{{more}}_{{channel}}.jpg"
        settings = SETTINGS | {"url": url} | settings
        out = self.folder / "out"
        return [
            "--source", source, "--folder", str(self.folder / "data"), "--table", str(out / "table.csv"),
            "--checksums", str(out / "checksums.csv"), "--settings", json.dumps(settings),
            "--log", str(self.folder / "log.txt"), *(["--manifest", str(self.manifest)] if source == "public" else []),
        ]  # fmt: skip

    def rows(self, path: str) -> list[dict[str, str]]:
        """A table that the stage wrote."""
        with (self.folder / path).open(newline="") as handle:
            return list(csv.DictReader(handle))

    def reasons(self) -> set[str]:
        """Why files failed."""
        return {row["reason"] for row in self.rows("data/public/failed.csv")}

    @property
    def log(self) -> str:
        """All that the log says."""
        return (self.folder / "log.txt").read_text()

    def image(self, name: str = IDS[0]) -> Path:
        """Where an image lands."""
        return self.home / "train" / f"{name}_protein.jpg"

    def served(self, name: str = IDS[0]) -> bytes:
        """What the server has for an image."""
        return content(name.partition("_")[2] + "_green.jpg")


@contextlib.contextmanager
def alone(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Server]:
    """A server that misbehaves, and no credentials and no proxy of the machine that runs the tests."""
    kaggle = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR")
    for name in (*kaggle, "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    with Server() as made:
        yield made
