"""fetch_weights: the published file lands once and checked, or not at all; what asks for it, and who waits."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from tests.helpers import fetch_run, misbehaving_server
from tests.helpers.checkout import Checkout
from tests.helpers.configs import DEFAULT, arm, checked, overlaid
from tests.helpers.misbehaving_server import Server
from workflow_scripts import fetch_weights as stage_program
from workflow_scripts.lib.classify import arm_checks, network_choices, pretrained
from workflow_scripts.lib.config import check
from workflow_scripts.lib.download.http_client import Policy
from workflow_scripts.lib.download.urls import check_url
from workflow_scripts.lib.page import run_tables
from workflow_scripts.lib.page.sections import arms_section

NAME = "resnet18-imagenet1k_v1.pth"
STATE = {"conv1.weight": torch.arange(2000.0)}


def saved(**options: bool) -> bytes:
    """A file as torch writes it."""
    out = io.BytesIO()
    torch.save(STATE, out, **options)
    return out.getvalue()


BODY = saved()
SHA256 = hashlib.sha256(BODY).hexdigest()


class Stage:
    """The stage in a folder of its own; torchvision publishes what the server has."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.place, self.record = folder / "weights" / NAME, folder / "record.csv"

    def __call__(self, mode: str = "fine", **changes: object) -> int:
        policy = {name: fetch_run.SETTINGS[name] for name in (*Policy.__dataclass_fields__, "total_gb")}
        given = policy | {"url": f"{self.server.url}/{mode}", "sha256": {}, "file_mb": 1} | changes
        return stage_program.main([
            "--backbone", "resnet18", "--folder", str(self.place.parent), "--record", str(self.record),
            "--settings", json.dumps(given), "--log", str(self.folder / "log.txt"),
        ])  # fmt: skip

    @property
    def log(self) -> str:
        """All that the log says."""
        return (self.folder / "log.txt").read_text()

    def recorded(self) -> list[dict[str, str]]:
        """The record of the run."""
        with self.record.open(newline="") as handle:
            return list(csv.DictReader(handle))

    def nothing_landed(self) -> bool:
        """Whether there is neither a file that somebody could take for the right one nor a record."""
        found = [path for path in self.place.parent.rglob("*.pth") if path.parent.name != "partial"]
        return not self.record.exists() and not found


@pytest.fixture
def run(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(stage_program, "published", lambda name: f"https://example.org/{name}-{SHA256[:8]}.pth")
    monkeypatch.setattr(misbehaving_server, "content", lambda name: BODY)
    return Stage(tmp_path, server)


@pytest.mark.parametrize("backbone", network_choices.PUBLISHED)
def test_torchvision_tells_address_and_checksum(backbone: str) -> None:
    address = stage_program.published(backbone)
    assert check_url(address).scheme == "https"
    file = address.rpartition("/")[2]
    assert re.fullmatch("[0-9a-f]{8}", stage_program.digits_in(file)) and file.startswith(f"{backbone}-")


def test_the_file_lands_is_recorded_and_fetched_once(run: Stage) -> None:
    assert run() == 0
    assert run.place.read_bytes() == BODY
    assert run.recorded() == [{"file": NAME, "bytes": str(len(BODY)), "sha256": SHA256}]
    assert torch.equal(pretrained._read(run.place)["conv1.weight"], STATE["conv1.weight"])
    assert SHA256 in run.log and list(run.server.seen) == [f"/fine/resnet18-{SHA256[:8]}.pth"]
    run.record.unlink()
    # Another run, and no server.
    assert run("missing") == 0
    assert run.recorded()[0]["sha256"] == SHA256 and sum(run.server.seen.values()) == 1


def test_a_file_of_an_older_torch_is_one_too(run: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    old = saved(_use_new_zipfile_serialization=False)
    monkeypatch.setattr(misbehaving_server, "content", lambda name: old)
    assert run(sha256={"resnet18": hashlib.sha256(old).hexdigest()}) == 0
    assert torch.equal(pretrained._read(run.place)["conv1.weight"], STATE["conv1.weight"])


def test_a_file_that_changed_on_disk_is_fetched_again(run: Stage) -> None:
    assert run() == 0
    run.place.write_bytes(b"x" + BODY[1:])
    assert run() == 0
    assert run.place.read_bytes() == BODY and "is not the published file" in run.log


def test_another_file_than_the_published_one_is_deleted(
    run: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(misbehaving_server, "content", lambda name: BODY + b"x")
    assert run() == 1
    assert run.nothing_landed()
    told = capsys.readouterr().err
    assert "another file than the published one" in told and SHA256[:8] in told and "fetch_weights.url" in told


def test_a_whole_checksum_from_the_config_decides(run: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    # The same first digits, and yet another file.
    assert run(sha256={"resnet18": SHA256[:8] + 56 * "0"}) == 1
    assert run.nothing_landed() and "another file" in capsys.readouterr().err
    assert run(sha256={"resnet18": SHA256}) == 0


def test_a_name_without_checksum_is_refused_unless_one_is_given(run: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_program, "published", lambda name: f"https://example.org/{name}.pth")
    assert run() == 1
    assert run.nothing_landed() and "fetch_weights.sha256" in run.log and not run.server.seen
    assert run(sha256={"resnet18": SHA256}) == 0


def test_what_breaks_off_is_resumed(run: Stage) -> None:
    assert run("breaks") == 0
    assert run.place.read_bytes() == BODY
    assert run.server.requests[1][2]["Range"] == "bytes=1000-"
    # No byte twice.
    assert sum(run.server.sent.values()) == len(BODY)


@pytest.mark.parametrize(
    ("mode", "changes", "told"),
    [
        ("truncated", {}, "ended after 500 of"),
        ("missing", {}, "404 Not Found"),
        ("disguised", {}, "begins like HTML"),
        ("fine", {"file_mb": 0.001}, "more than 0.001 MB"),
        ("huge", {}, "more than 1 MB"),
        ("endless", {}, "begins like something else"),
        ("circle", {}, "redirects in a circle"),
        ("abroad", {}, "redirects to http://images.example.org"),
        ("fine", {"url": "http://example.org"}, "https is required"),
        ("truncated", {"total_gb": 1e-6}, "fetch_images.total_gb"),
    ],
)
def test_what_cannot_be_had_is_told_and_leaves_nothing(run: Stage, mode: str, changes: dict, told: str) -> None:
    assert run(mode, **changes) == 1
    assert run.nothing_landed() and told in run.log
    assert "fetch_weights.url" in run.log, "what to do"


# Settings and rules ---------------------------------------------------------------------------------------------------

LARGE = {"preprocess_images": {"size": 32}, "simulate_cells": {"size": 32}}


def test_imagenet_stands_for_the_file_of_the_arms_own_backbone() -> None:
    entries = arm("real_only", backbone="resnet50")
    found = checked(LARGE | entries | {"train_classifier": {"backbone": "resnet18", "weights": "imagenet"}})
    named = {arm["name"]: arm["weights"] for arm in found["arms"]}
    assert named["real_only"] == "data/weights/resnet50-imagenet1k_v1.pth"
    assert {path for arm, path in named.items() if arm != "real_only"} == {f"data/weights/{NAME}"}
    # From there on it is a file like any other; where somebody removed it, the job that needs it says what to do.
    problem = arm_checks.problem(found["arms"][0], found["train_classifier"], ["red"], 32)
    assert problem and "there is no such file" in problem and "--forcerun fetch_weights" in problem


@pytest.mark.parametrize(
    ("overlay", "told"),
    [
        ({"train_classifier": {"weights": "imagenet"}}, "published any of the backbone 'small'"),
        ({"fetch_weights": {"url": "http://example.org"}}, "fetch_weights.url"),
        ({"fetch_weights": {"url": "ftp://example.org"}}, "fetch_weights.url"),
        ({"fetch_weights": {"sha256": {"resnet18": "f37072fd"}}}, "64 hexadecimal digits"),
        ({"fetch_weights": {"sha256": {"small": SHA256}}}, "fetch_weights.sha256.small is not a known key"),
        ({"fetch_weights": {"folder": "w/{run}"}}, "fetch_weights.folder"),
        ({"fetch_weights": {"file_mb": 0}}, "fetch_weights.file_mb"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_fetched(overlay: dict, told: str) -> None:
    with pytest.raises(check.ConfigError, match=re.escape(told)) as caught:
        checked(overlay)
    assert "\n" not in str(caught.value)


def test_the_page_says_what_arms_start_from() -> None:
    config = checked(overlaid(LARGE, arm("pool", backbone="resnet18", weights="imagenet", control=None)))
    facts = {"arms": {name: {"method": name, "numbers": {}} for name in ("real_only", "pool")}}
    found = run_tables.Results(
        *2 * [arms_section.pd.DataFrame({"arm": ["real_only", "pool"]})], DEFAULT["analysis"], facts
    )
    found.groups = lambda: [["pool"]]  # type: ignore[method-assign]
    table = arms_section.costs(found, config)
    assert {row["arm"]: row["start"] for row in table.rows} == {"real_only": "scratch", "pool": NAME}
    assert "start" in [column.key for column in table.columns]


@pytest.mark.workflow
def test_training_waits_for_the_weights_that_its_arms_name(tmp_path: Path) -> None:
    checkout = Checkout.fresh(tmp_path / "checkout")
    preset = yaml.safe_load((checkout.folder / "presets" / "ci.yaml").read_text(encoding="utf-8"))
    arm = {"name": "started", "method": "real_only", "backbone": "resnet18", "weights": "imagenet"}
    overlay = LARGE | {"arms": [*preset["arms"], arm], "compute": {"arms_per_job": 1}}
    (checkout.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    done = checkout.snakemake("-n", "-p", "--configfile", "presets/ci.yaml", "overlay.yaml")
    blocks = done.stdout.split("\n\n")
    fetching = [block for block in blocks if "rule fetch_weights:" in block]
    assert len(fetching) == 1 and "--backbone resnet18 --folder data/weights" in fetching[0]
    record = "results/ci/fetched/weights/resnet18.csv"
    waiting = [re.findall(r'"name": "(\w+)"', block) for block in blocks if re.search(f"input: .*{record}", block)]
    assert waiting and all("started" in names for names in waiting), "and no other arm waits"
