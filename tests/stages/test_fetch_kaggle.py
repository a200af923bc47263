"""fetch_images: the Kaggle sets, with credentials that nobody gets to see and archives that cannot be trusted."""

from __future__ import annotations

import base64
import io
import json
import stat
import zipfile

import pytest

from tests.helpers.fetch_run import COLUMNS, Run
from tests.helpers.misbehaving_server import PNG, Server
from workflow_scripts.lib.download import http_client, kaggle_api, zip_files

SECRET = "0123456789abcdefSECRET"


def packed(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.fixture
def kaggle(run, server, monkeypatch):
    """A run of kaggle2018 with credentials; the files lie on a second server, as Kaggle's do."""
    with Server() as store:
        server.elsewhere = store.url
        store.archive = {
            "train.csv": packed({"train.csv": b"Id,Target\na,0 1\nb,2\n"}),
            "train.zip": packed({f"{name}_protein.png": PNG + name.encode() for name in "abc"}),
        }
        monkeypatch.setenv("KAGGLE_USERNAME", "me")
        monkeypatch.setenv("KAGGLE_KEY", SECRET)
        run.store = store
        run.kaggle = lambda source="kaggle2018", **more: run(
            source=source,
            columns=COLUMNS[source],
            kaggle={"api": f"{server.url}/api/v1", "test_images": False, "archive_gb": 1} | more,
        )
        yield run


def told(run: Run, capsys: pytest.CaptureFixture) -> str:
    """Everything that was shown or written, beside the images."""
    texts = [
        path.read_text(errors="replace") for path in run.folder.rglob("*") if path.suffix in (".csv", ".txt", ".json")
    ]
    return capsys.readouterr().err + "".join(texts)


def test_kaggle_2018_is_fetched_unpacked_and_not_fetched_twice(kaggle, server, capsys):
    assert kaggle.kaggle() == 0
    home = kaggle.folder / "data" / "kaggle2018"
    assert sorted(path.name for path in (home / "train").iterdir()) == ["a_protein.png", "b_protein.png"]
    assert kaggle.rows("out/table.csv") == [{"Id": "a", "Target": "0 1"}, {"Id": "b", "Target": "2"}]
    assert [row["file"] for row in kaggle.rows("out/checksums.csv")] == ["train/a_protein.png", "train/b_protein.png"]
    assert not (home / "received" / "train.zip").exists()
    _, path, headers = server.requests[0]
    assert path == "/api/v1/competitions/data/download/human-protein-atlas-image-classification/train.csv"
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == f"me:{SECRET}"
    # The host that the files really lie on must not learn the key.
    assert kaggle.store.requests
    assert not any("Authorization" in headers for _, _, headers in kaggle.store.requests)
    asked = len(server.requests)
    assert kaggle.kaggle() == 0
    assert len(server.requests) == asked
    (home / "train" / "a_protein.png").write_bytes(PNG)
    assert kaggle.kaggle() == 0
    assert (home / "train" / "a_protein.png").read_bytes() == PNG + b"a"
    assert SECRET not in told(kaggle, capsys)


def test_kaggle_test_images_and_sample(kaggle):
    kaggle.store.archive |= {
        "sample_submission.csv": b"Id,Predicted\nt1,0\n",
        "test.zip": packed({"t1_protein.png": PNG, "other_protein.png": PNG}),
    }
    assert kaggle.kaggle(test_images=True) == 0
    home = kaggle.folder / "data" / "kaggle2018"
    assert [path.name for path in (home / "test").iterdir()] == ["t1_protein.png"]
    assert (home / "sample_submission.csv").read_text() == "Id,Predicted\nt1,0\n"


def test_an_image_that_the_archive_lacks_is_told_without_fetching_it_again(kaggle, capsys):
    kaggle.store.archive["train.zip"] = packed({"a_protein.png": PNG})
    for _ in range(2):
        assert kaggle.kaggle() == 1
        assert "1 of 2 images cannot be used" in capsys.readouterr().err
        assert "b_protein.png: is not in train.zip" in kaggle.log
    assert kaggle.store.seen["/stored/train.zip"] == 1


def test_a_test_image_that_the_archive_lacks_is_told(kaggle, capsys):
    kaggle.store.archive |= {"sample_submission.csv": b"Id,Predicted\nt1,0\n", "test.zip": packed({"x.png": PNG})}
    assert kaggle.kaggle(test_images=True) == 1
    assert "1 of 1 images cannot be used" in capsys.readouterr().err


def test_kaggle_2021_is_fetched_file_by_file(kaggle, server):
    kaggle.store.archive |= {"train.csv": b"ID,Label\nu,8|5\n", "train/u_protein.png": PNG}
    assert kaggle.kaggle("kaggle2021") == 0
    # train/ and the name of the file are one part of the address.
    assert server.requests[-1][1].endswith("/hpa-single-cell-image-classification/train%2Fu_protein.png")
    assert kaggle.rows("out/table.csv") == [{"ID": "u", "Label": "8|5"}]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"KAGGLE_KEY": ""},
            "Kaggle needs to know who asks: set KAGGLE_USERNAME and KAGGLE_KEY, or put the kaggle.json",
        ),
        ({"KAGGLE_USERNAME": "wrong"}, "train.csv: 403 Forbidden: accept the rules of the competition human-protein"),
        ({"KAGGLE_KEY": "line\nbreak"}, "hold a line break"),
    ],
)
def test_without_good_credentials_there_is_one_clear_sentence(kaggle, monkeypatch, capsys, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert kaggle.kaggle() == 1
    shown = capsys.readouterr().err
    assert f"fetch_images failed: {message}" in shown or message in shown
    assert "Traceback" not in shown + kaggle.log
    assert SECRET not in shown + kaggle.log


def test_credentials_come_from_a_file_that_others_should_not_read(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(kaggle_api.log, "propagate", True)
    place = tmp_path / "kaggle.json"
    place.write_text(json.dumps({"username": "me", "key": SECRET}))
    place.chmod(0o644)
    environment = {"KAGGLE_CONFIG_DIR": str(tmp_path)}
    header = kaggle_api.authorization("kaggle2018", environment)["Authorization"]
    assert base64.b64decode(header.removeprefix("Basic ")).decode() == f"me:{SECRET}"
    assert "can be read by others" in caplog.text
    assert SECRET not in caplog.text
    caplog.clear()
    place.chmod(0o600)
    kaggle_api.authorization("kaggle2018", environment)
    assert not caplog.text
    place.write_text(json.dumps({"key": SECRET}))
    with pytest.raises(Exception, match=r"is not a kaggle\.json") as failure:
        kaggle_api.authorization("kaggle2018", environment)
    assert SECRET not in str(failure.value)
    token = {"KAGGLE_API_TOKEN": SECRET}
    assert kaggle_api.authorization("kaggle2018", token) == {"Authorization": f"Bearer {SECRET}"}


def test_a_key_is_not_part_of_what_an_item_shows():
    item = http_client.Item("x", "https://x/", "jpg", 1, lambda: {"Authorization": SECRET})
    assert SECRET not in repr(item)


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("c_protein.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../../a_protein.png", "leads out of the folder"),
        ("/etc/a_protein.png", "leads out of the folder"),
        ("..\\a_protein.png", "leads out of the folder"),
        ("C:a_protein.png", "leads out of the folder"),
        (link(), "is a link or a device"),
        ("sub/a_protein.png", "holds 'a_protein.png' twice"),
    ],
)
def test_archives_that_lead_elsewhere_are_refused_whole(kaggle, capsys, member, message):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a_protein.png", PNG)
        archive.writestr(member, b"/etc/passwd")
    kaggle.store.archive["train.zip"] = out.getvalue()
    assert kaggle.kaggle() == 1
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert not list((kaggle.folder / "data" / "kaggle2018").glob("train/*"))
    assert not list(kaggle.folder.rglob("passwd"))


def test_an_archive_that_unpacks_to_too_much_or_is_damaged_is_refused(tmp_path):
    bomb = tmp_path / "x.zip"
    bomb.write_bytes(packed({"a.png": bytes(10**7)}))
    with pytest.raises(Exception, match=r"would unpack to 0\.0 GB"):
        zip_files.unpack(bomb, tmp_path / "out", {"a.png"}, 10**6, lambda name, sha256: None)
    damaged = packed({"a.png": bytes(range(256)) * 100})
    bomb.write_bytes(damaged[:60] + b"XX" + damaged[62:])
    with pytest.raises(Exception, match="damaged archive"):
        zip_files.unpack(bomb, tmp_path / "out", {"a.png"}, 10**6, lambda name, sha256: None)
    assert not list((tmp_path / "out").glob("*"))
