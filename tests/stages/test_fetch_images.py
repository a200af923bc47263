"""fetch_images: through the command line, against a server on this machine that misbehaves in every way."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tests.helpers.checkout import Checkout, kill, wait_for
from tests.helpers.fetch_run import IDS, Run
from tests.helpers.misbehaving_server import Server
from workflow_scripts.lib.download import http_client
from workflow_scripts.lib.images.image_set import ImageSet


@pytest.fixture
def one(tmp_path, server) -> Run:
    """A run with a single image."""
    return Run(tmp_path, server, IDS[:1])


def test_images_land_with_checksums_and_are_not_fetched_twice(run, server, capsys):
    assert run() == 0
    for name in IDS:
        assert run.image(name).read_bytes() == run.served(name)
    assert "/fine/13_7_H12_4_cr57f7_green.jpg" in server.seen
    rows = run.rows("out/checksums.csv")
    assert [row["file"] for row in rows] == sorted(f"train/{name}_protein.jpg" for name in IDS)
    found = hashlib.sha256(run.served()).hexdigest()
    assert rows[0] == {"file": f"train/{IDS[0]}_protein.jpg", "bytes": str(len(run.served())), "sha256": found}
    assert run.rows("out/table.csv")[3] == {"Id": IDS[3], "Target": "0"}
    assert run.rows("data/public/failed.csv") == []
    assert all("MixLoc" in headers["User-Agent"] for _, _, headers in server.requests)
    assert "files 4/4 (100 %), MB 0.0" in capsys.readouterr().err
    asked = len(server.requests)
    assert run() == 0
    assert len(server.requests) == asked
    assert not list((run.home / "partial").iterdir())


def test_a_changed_file_is_told_and_fetched_again(run, server):
    assert run() == 0
    run.image().write_bytes(run.served()[:-5] + b"other")
    run.image(IDS[1]).unlink()
    asked = len(server.requests)
    assert run() == 0
    assert len(server.requests) == asked + 2
    assert run.image().read_bytes() == run.served()
    assert f"{IDS[0]}_protein.jpg has changed since it was fetched" in run.log


def test_another_file_on_the_server_is_told(run):
    assert run() == 0
    run.image().unlink()
    assert run("chain/1") == 0
    assert "another file" not in run.log
    records = run.home / "checksums.csv"
    records.write_text(records.read_text().replace(hashlib.sha256(run.served()).hexdigest(), "0" * 64))
    run.image().unlink()
    assert run() == 0
    assert f"{IDS[0]}_protein.jpg is another file than the one fetched before" in run.log


def test_one_address_is_asked_once_for_the_images_of_two_genes(tmp_path, server):
    run = Run(tmp_path, server, ["G1_11_1_A1_1", "G2_11_1_A1_1"])
    assert run() == 0
    assert len(server.requests) == 1
    assert run.image("G1_11_1_A1_1").read_bytes() == run.image("G2_11_1_A1_1").read_bytes()


@pytest.mark.parametrize(
    ("mode", "reason", "asked"),
    [
        ("missing", "404 Not Found", 1),
        ("broken", "500 Internal Server Error (asked 3 times)", 3),
        ("truncated", "ended after 500 of 3078 bytes (asked 3 times)", 3),
        ("silent", "no answer within 0.5 s (asked 3 times)", 3),
        ("drip", "comes with less than 2000 bytes a second (asked 3 times)", 3),
        ("stammering", "no answer within 0.5 s (asked 3 times)", 3),
        ("empty", "is empty (asked 3 times)", 3),
        ("html", "is text/html and not jpg", 1),
        ("disguised", "is called jpg but begins like HTML", 1),
        ("endless", "is larger than 1 MB", 1),
        ("huge", "has 1000000.0 MB, more than 1 MB", 1),
        ("chain/4", "redirects more than 3 times", 4),
        ("circle", "redirects in a circle", 2),
        ("abroad", "redirects to http://images.example.org: outside this machine https is required", 1),
        ("closed", "503 Service Unavailable; it wants to be left alone for 7200 s", 1),
    ],
)
def test_what_cannot_be_had_is_told_with_its_reason(one, server, capsys, mode, reason, asked):
    began = time.monotonic()
    assert one(mode, timeout=0.5 if mode in ("silent", "drip", "stammering") else 5, slowest=2000) == 1
    assert time.monotonic() - began < 30
    assert one.reasons() == {reason}
    assert len(server.requests) == asked
    shown = capsys.readouterr().err
    assert "fetch_images failed: 1 of 1 images cannot be used (1 × file that cannot be fetched)" in shown
    assert "Traceback" not in shown + one.log
    assert reason in one.log
    assert not one.image().exists()
    assert not (one.folder / "out" / "table.csv").exists()


@pytest.mark.parametrize(
    ("mode", "asked"),
    [("tired", 3), ("busy", 2), ("no-range", 2), ("breaks", 2), ("changes", 2), ("unmeasured", 3), ("chain/3", 4)],
)
def test_what_another_try_mends_is_mended(one, server, mode, asked):
    began = time.monotonic()
    assert one(mode) == 0
    assert one.image().read_bytes() == one.served()
    assert len(server.requests) == asked
    if mode == "busy":
        assert 0.95 < time.monotonic() - began < 5, "Retry-After is kept to"


def test_going_on_needs_only_the_missing_bytes(one, server):
    assert one("breaks") == 0
    path = "/breaks/11_1_A1_1_green.jpg"
    assert server.sent[path] == len(one.served())
    _, _, headers = server.requests[1]
    assert headers["Range"] == "bytes=1000-"
    assert headers["If-Range"].startswith('"')


def test_an_interrupted_run_goes_on_where_it_stopped(one, server):
    server.seen["/breaks/11_1_A1_1_green.jpg"] = 0
    assert one("breaks", retries=0) == 1
    part = one.home / "partial" / f"train_{IDS[0]}_protein.jpg"
    assert part.stat().st_size == 1000
    assert one("breaks", retries=0) == 0
    assert server.sent["/breaks/11_1_A1_1_green.jpg"] == len(one.served())
    assert one.image().read_bytes() == one.served()


def test_a_part_of_another_file_is_not_gone_on_from(one, server):
    assert one("changes", retries=0) == 1
    assert one("changes", retries=0) == 0
    assert one.image().read_bytes() == one.served()
    assert server.sent["/changes/11_1_A1_1_green.jpg"] == 1000 + len(one.served())


def test_a_killed_run_goes_on_with_what_it_had(tmp_path, server):
    ids = [f"G{number}_{number}_1_A1_1" for number in range(30)]
    run = Run(tmp_path, server, ids)
    process = subprocess.Popen([sys.executable, "-m", "workflow_scripts.fetch_images", *run.words("slowly")])
    wait_for(lambda: len(list((run.home / "train").glob("*.jpg"))) >= 8, 20)
    kill(process.pid)
    process.wait()
    there = {path.name: path.stat().st_mtime_ns for path in (run.home / "train").glob("*.jpg")}
    asked = len(server.requests)
    assert run("slowly") == 0
    assert len(server.requests) - asked == len(ids) - len(there)
    assert all((run.home / "train" / name).stat().st_mtime_ns == when for name, when in there.items())
    assert all(run.image(name).read_bytes() == run.served(name) for name in ids)
    assert len(run.rows("out/checksums.csv")) == len(ids)


def test_a_full_disk_is_one_sentence(one, capsys):
    part = one.home / "partial" / f"train_{IDS[0]}_protein.jpg"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    assert one() == 1
    shown = capsys.readouterr().err
    assert "cannot be written to: No space left on device" in shown
    assert "Traceback" not in shown


def test_a_certificate_that_nobody_vouches_for_is_refused(one, server, tmp_path):
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    try:
        subprocess.run([*command, *files], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("needs openssl to make a certificate")
    with Server(certificate=(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))) as safe:
        assert one(url=f"{safe.url}/fine/{{field}}_{{channel}}.jpg") == 1
        (reason,) = one.reasons()
        assert reason.startswith("the certificate of the server is not trusted: self")
        assert not safe.requests


def test_the_proxy_of_the_environment_is_used_for_what_lies_outside(one, server, monkeypatch):
    monkeypatch.setenv("https_proxy", server.url.replace("http://", "http://me:pw@"))
    assert one(url="https://images.example.org/{field}_{channel}.jpg", retries=0) == 1
    ((_, path, headers),) = server.requests
    assert path == "images.example.org:443"
    assert headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"me:pw").decode()
    assert "502" in "".join(one.reasons())
    assert one("fine") == 0


def test_half_a_line_of_the_record_does_no_harm(run, server):
    assert run() == 0
    records = run.home / "checksums.csv"
    records.write_text(records.read_text()[:-30])
    assert run() == 0
    assert len(server.requests) == 4
    assert len(run.rows("data/public/checksums.csv")) == 4


def test_skip_leaves_out_what_is_missing_up_to_a_share(run, server, capsys):
    for name in IDS[1:]:
        run.image(name).parent.mkdir(parents=True, exist_ok=True)
        run.image(name).write_bytes(run.served(name))
    assert run("missing", on_invalid="skip", invalid_limit=0.3) == 0
    assert [row["Id"] for row in run.rows("out/table.csv")] == IDS[1:]
    assert len(run.rows("out/checksums.csv")) == 3
    assert len(server.requests) == 1
    (failed,) = run.rows("data/public/failed.csv")
    assert failed["Id"] == IDS[0]
    assert failed["file"].endswith("/missing/11_1_A1_1_green.jpg")
    capsys.readouterr()
    assert run("missing", on_invalid="skip", invalid_limit=0.2) == 1
    assert "1 of 4 images cannot be used" in capsys.readouterr().err


def test_all_failures_are_listed_at_once(run, capsys):
    assert run("missing") == 1
    assert len(run.rows("data/public/failed.csv")) == 4
    assert "4 of 4 images cannot be used (4 × file that cannot be fetched)" in capsys.readouterr().err


def test_a_server_that_is_down_ends_the_stage_early(tmp_path, server, capsys):
    run = Run(tmp_path, server, [f"G{number}_{number}_1_A1_1" for number in range(200)])
    assert run("broken", retries=0) == 1
    assert "20 files in a row could not be fetched" in capsys.readouterr().err
    assert len(server.requests) < 40


def test_the_limit_on_all_bytes_stops_the_stage_and_keeps_what_is_there(run, server, capsys):
    assert run(total_gb=7e-6, connections=1) == 1
    assert "more than fetch_images.total_gb = 7e-06" in capsys.readouterr().err
    assert run.image(IDS[0]).exists()
    assert not run.image(IDS[3]).exists()
    assert run() == 0


def test_requests_keep_to_the_pace(tmp_path, server):
    run = Run(tmp_path, server, [f"G{number}_{number}_1_A1_1" for number in range(16)])
    assert run(requests_per_second=40, connections=8) == 0
    times = [when for when, _, _ in server.requests]
    assert max(times) - min(times) >= 14 / 40


def test_files_are_fetched_side_by_side_over_few_connections(tmp_path, server):
    run = Run(tmp_path, server, [f"G{number}_{number}_1_A1_1" for number in range(16)])
    assert run("slowly", connections=4) == 0
    assert server.most_at_once >= 2
    assert len(server.ports) <= 4


def test_limits_take_the_first_images(tmp_path, server):
    ids = [f"G{number}_{number}_1_A1_1" for number in range(12)]
    run = Run(tmp_path, server, ids)
    assert run(limit={"images": 5, "per_class": 0}) == 0
    assert [row["Id"] for row in run.rows("out/table.csv")] == ids[:5]
    assert run(limit={"images": 0, "per_class": 2}) == 0
    assert [row["Id"] for row in run.rows("out/table.csv")] == ids[:6]
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "G_1_2_A_..", "G_1_2_A1_1_../x", "G_1_2_A1", "G_1_2_A1_1/..",
             "G 1_1_1_1_1", "G_1_2_A1_" + "1" * 200, "G_1_2_A1_%2e%2e", "G_1_2_A1_1?x", "G_1_2_A1_1@host"]
)  # fmt: skip
def test_ids_that_could_lead_elsewhere_are_refused_before_anything_is_asked(run, server, capsys, name):
    run.list(f'Id,Target\n{IDS[0]},1\n"{name}",1\n')
    assert run() == 1
    assert "Id that is no file name" in capsys.readouterr().err
    assert not server.requests
    assert run(on_invalid="skip") == 0
    assert [row["Id"] for row in run.rows("out/table.csv")] == IDS[:1]


def test_labels_that_are_not_quoted_are_told(run, server, capsys):
    run.list(f"Id,Target\n{IDS[0]},1,2\n{IDS[1]},1\n")
    assert run() == 1
    assert "broken row" in capsys.readouterr().err and not server.requests


def test_rows_that_repeat_count_once_and_rows_that_disagree_are_told(run, server, capsys):
    run.list(f"Id,Target\r\n{IDS[0]},1 2\r\n{IDS[0]},2 1\r\n{IDS[1]},1\r\n")
    assert run() == 0
    assert len(server.requests) == 2
    run.list(f"Id;Target\n{IDS[0]};1\n{IDS[0]};2\n")
    assert run() == 1
    assert "conflicting rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://images.example.org/{field}_{channel}.jpg"}, "outside this machine https is required"),
        ({"url": "ftp://127.0.0.1/{field}_{channel}.jpg"}, "must begin with https://"),
        ({"url": "http://me:pw@127.0.0.1/{field}_{channel}.jpg"}, "holds a user name or password"),
        ({"url": "https://x/{plate}_{channel}.jpg"}, "lacks {field}"),
        ({"url": "https://x/{colour}_{field}.jpg"}, "the place {colour}"),
        ({"url": "https://x/{field}_{channel}.gif"}, "must end in .jpg or .png"),
    ],
)
def test_addresses_that_must_not_be_asked(one, server, capsys, settings, message):
    assert one(**settings) == 1
    assert message in capsys.readouterr().err + one.log
    assert not server.requests


def test_calling_off_ends_waiting_at_once(tmp_path, server):
    policy = http_client.Policy(1, 1000, 5, 0, 5, 30, 60, 3)
    fetcher = http_client.Fetcher(tmp_path, policy, 10**9)
    threading.Timer(0.2, fetcher.stop.set).start()
    began = time.monotonic()
    with pytest.raises(http_client.Stopped):
        fetcher.fetch(http_client.Item("x.jpg", f"{server.url}/broken/x.jpg", "jpg", 10**6))
    assert time.monotonic() - began < 10, "not after the 30 s between two tries"


def jpeg(level: int) -> bytes:
    """A green image as the Atlas shows a stain: the signal in one colour."""
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[..., 1] = np.random.default_rng(level).integers(0, 40, (64, 64)) + level
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.mark.workflow
def test_the_workflow_fetches_a_manifest_and_makes_an_image_set_of_it(tmp_path, server):
    checkout = Checkout.fresh(tmp_path / "mixloc")
    for place, name in enumerate(IDS):
        server.archive[name.partition("_")[2] + "_green.jpg"] = jpeg(50 * place)
    rows = "".join(f"{name},{number}\n" for number, name in enumerate(IDS))
    (checkout.folder / "list.csv.gz").write_bytes(gzip.compress(f"Id,Target\n{rows}".encode()))
    overlay = checkout.folder / "public.yaml"
    overlay.write_text(
        "data: {source: public, table: list.csv.gz}\n"
        "preprocess_images: {channels: [green], size: 32, duplicates: 0}\n"
        "simulate_cells: {size: 32}\n"
        "fetch_images:\n  requests_per_second: 100\n"
        f"  url: '{server.url}/stored/{{antibody}}_{{plate}}_{{well}}_{{field}}{{more}}_{{channel}}.jpg'\n"
    )

    def snakemake(*options: str) -> str:
        command = checkout.command(*options, overlays=("public.yaml",))
        done = subprocess.run(
            [*command, "--", "results/ci/images.h5"], cwd=checkout.folder, env=checkout.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    snakemake()
    with ImageSet(checkout.run / "images.h5") as made:
        part = made.read(None, "inspect")
        assert list(part.ids) == IDS
        assert [round(image.mean(), -1) for image in part.images] == [20, 70, 120, 170]
        # Two images of one antibody, and two of one gene each.
        assert [list(part.groups).index(group) for group in part.groups] == [0, 0, 2, 3]
    assert (checkout.folder / "data/public/train" / f"{IDS[3]}_green.jpg").exists()
    assert "Nothing to be done" in snakemake("--dry-run")
    asked = len(server.requests)
    shutil.rmtree(checkout.run)
    snakemake()
    assert len(server.requests) == asked
