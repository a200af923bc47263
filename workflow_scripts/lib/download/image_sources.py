"""Images of the public sources: the Human Protein Atlas by a manifest, and two Kaggle competitions.

Each source gives the rows of the label table whose images are complete, and the names of their files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.download import download_store, manifest, zip_files
from workflow_scripts.lib.download.fetch_session import GB, MB, Session
from workflow_scripts.lib.download.http_client import Item, Refused
from workflow_scripts.lib.download.manifest import Entry
from workflow_scripts.lib.download.urls import check_url
from workflow_scripts.lib.images import user_tables
from workflow_scripts.lib.images.invalid_input import Fault

IMAGES = "train"
TEST = "test"
SAMPLE = "sample_submission.csv"


def fetch_source(session: Session, listed: Path | None) -> tuple[str, list[str]]:
    """Fetch the session's source; returns the label table's text and the names of all its files.

    `listed` is the manifest of the source `public`."""
    return _public(session, listed) if session.source == "public" else _kaggle(session)


def _public(session: Session, listed: Path | None) -> tuple[str, list[str]]:
    settings = session.settings
    problem = manifest.template_problem(settings["url"])
    if problem:
        raise UserError(problem)
    if listed is None:
        raise UserError("no manifest is given: data.table must name a CSV with Id and Target")
    kind = settings["url"].rpartition(".")[2].lower().replace("jpeg", "jpg")
    try:
        check_url(Entry("x", "", 0, *"xxxxx").address(settings["url"], "x"))
    except Refused as error:
        raise UserError(f"fetch_images.url = {settings['url']!r}: {error}") from None

    def item(entry: Entry, channel: str) -> Item:
        url = entry.address(settings["url"], settings["colours"].get(channel, channel))
        return session.item(_name(IMAGES, entry, channel, kind), url, kind, settings["file_mb"] * MB)

    return _images(session, user_tables.read_table(listed), item, kind)


def _kaggle(session: Session) -> tuple[str, list[str]]:
    settings = session.settings
    labels = user_tables.read_table(_kaggle_table(session, "train.csv"))
    if session.source == "kaggle2018":
        described = _images(session, labels, None, "png")
        if settings["kaggle"]["test_images"]:
            train, session.bad = session.bad, []
            sample = user_tables.read_table(_kaggle_table(session, SAMPLE))
            entries, _ = manifest.read(sample, ("Id", "Predicted"), addressed=False)
            _archived(session, TEST, entries)
            session.settle(len(entries))
            session.bad = train + session.bad
        return described

    def item(entry: Entry, channel: str) -> Item:
        name = _name(IMAGES, entry, channel, "png")
        return session.kaggle_item(name, name, "png", settings["file_mb"] * MB)

    return _images(session, labels, item, "png")


def _name(folder: str, entry: Entry, channel: str, suffix: str) -> str:
    return f"{folder}/{entry.id}_{channel}.{suffix}"


def _images(
    session: Session, table: user_tables.UserTable, item: Callable[[Entry, str], Item] | None, suffix: str
) -> tuple[str, list[str]]:
    """Fetch the images of a table; returns its complete rows as text, and the names of their files."""
    settings = session.settings
    entries, session.bad[:] = manifest.read(
        table, (settings["columns"]["id"], settings["columns"]["labels"]), addressed=session.source == "public"
    )
    faulty = len({entry.id for entry in session.bad})
    if len(table) > len(entries) + len(session.bad):
        stage.log.info("%d rows say again what another one says", len(table) - len(entries) - len(session.bad))
    if settings["on_invalid"] == "fail":
        # Before hours are spent on the others.
        session.settle(len(entries) + faulty)
    entries = manifest.limited(entries, settings["limit"]["images"], settings["limit"]["per_class"])
    stage.log.info("%d images of %d channels", len(entries), len(settings["channels"]))
    if item is None:
        _archived(session, IMAGES, entries)
    else:
        session.fetch_all([(entry, item(entry, channel)) for entry in entries for channel in settings["channels"]])
    session.settle(len(entries) + faulty)
    lost = {entry.id for entry in session.bad}
    kept = [entry for entry in entries if entry.id not in lost]
    names = [_name(IMAGES, entry, channel, suffix) for entry in kept for channel in settings["channels"]]
    out = [",".join(_quoted(name) for name in table.columns)]
    out += [",".join(_quoted(values[entry.row]) for values in table.columns.values()) for entry in kept]
    return "\n".join(out) + "\n", names


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(char in cell for char in '",\n\r') else cell


def _kaggle_table(session: Session, name: str) -> Path:
    """A table of the competition, which may arrive as a ZIP archive."""
    place = session.store.folder / name
    if not session.whole(name, "csv"):
        item = session.kaggle_item(f"received/{name}", name, "csv", 100 * MB)
        received = session.store.folder / item.name
        session.fetch_large(item)
        if zipfile.is_zipfile(received):
            lacking = zip_files.unpack(received, place.parent, {name}, int(1 * GB), session.landed)
            if lacking:
                raise UserError(f"{received} does not hold {name}: delete it and run again")
            received.unlink()
        else:
            received.replace(place)
            session.landed(name, session.store.digest(name) or "")
    return place


def _archived(session: Session, part: str, entries: list[Entry]) -> None:
    """The images of a part of Kaggle 2018, which is one archive; only missing files are unpacked."""
    wanted = {
        _name(part, entry, channel, "png"): entry for entry in entries for channel in session.settings["channels"]
    }
    stage.log.info("comparing %d files with their checksums", len(wanted))
    checked = download_store.in_threads(
        lambda name: (name, session.whole(name, "png")), wanted, session.fetcher.policy.connections
    )
    missing = {Path(name).name for name, whole in checked if not whole}
    if not missing:
        return
    limits = session.settings["kaggle"]["archive_gb"] * GB
    item = session.kaggle_item(f"received/{part}.zip", f"{part}.zip", "zip", limits)
    archive = session.store.folder / item.name
    if not archive.exists():
        session.fetch_large(item)
    with Progress(f"unpack {archive.name}", len(missing)) as bar:
        done = 0

        def landed(name: str, sha256: str) -> None:
            nonlocal done
            done += 1
            bar.update(done)
            session.landed(f"{part}/{name}", sha256)

        most = int(session.settings["total_gb"] * GB)
        lacking = zip_files.unpack(archive, session.store.folder / part, missing, most, landed)
    for name in sorted(lacking):
        entry = wanted[f"{part}/{name}"]
        session.bad.append(Fault(entry.id, name, "file that cannot be fetched", f"is not in {archive.name}"))
    if not lacking:
        # Its images lie there now, each with its checksum.
        archive.unlink()
