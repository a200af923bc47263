"""fetch_images: the images of a public source, fetched once into a folder that all runs share.

Sources: `public` (the Human Protein Atlas, by a manifest of Ids and an address template), `kaggle2018` and
`kaggle2021` (with the user's own Kaggle credentials). Under --folder, in a folder named like the source:

    train/{Id}_{channel}.jpg or .png   the images            (kaggle2018, if asked for, also test/ and its sample table)
    checksums.csv                      size and sha256 of every file, compared whenever the stage runs
    failed.csv                         what could not be had, and why
    partial/                           what an interruption left, to go on from

As outputs: --table, the rows of the label table whose images are all there, and --checksums, those of their files.

Example:
    python -m workflow_scripts.fetch_images --source public --manifest HPAv18.csv.gz --folder data \\
        --table fetched/table.csv --checksums fetched/checksums.csv --settings '{"url": "https://...", ...}'
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.download import download_store, http_client, kaggle_api, manifest, zip_files
from workflow_scripts.lib.download.download_store import Store
from workflow_scripts.lib.download.http_client import Fetcher, Item, Policy, Refused, Unreachable
from workflow_scripts.lib.download.manifest import Entry
from workflow_scripts.lib.download.urls import check_url
from workflow_scripts.lib.images import invalid_input, user_tables
from workflow_scripts.lib.images.invalid_input import Fault

IMAGES = "train"
TEST = "test"
SAMPLE = "sample_submission.csv"
# So many files in a row that could not be had, however often asked for, mean that the server or the network is down.
HOPELESS = 20
MB, GB = 1e6, 1e9


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument(
        "--source", choices=["public", *kaggle_api.COMPETITIONS], required=True, help="where the images come from"
    )
    out.add_argument("--manifest", type=Path, help="CSV or CSV.gz with Id and Target (source public)")
    out.add_argument("--folder", type=Path, required=True, help="folder of all downloads, kept between runs")
    out.add_argument("--table", type=Path, required=True, help="label table to write")
    out.add_argument("--checksums", type=Path, required=True, help="table of checksums to write")
    return out.parse_args(argv)


@dataclass
class Session:
    """One run of the stage: the folder, how it is filled, and what went wrong so far."""

    source: str
    settings: dict[str, Any]
    store: Store
    fetcher: Fetcher
    bad: list[Fault] = field(default_factory=list)
    _headers: dict[str, str] | None = None

    def headers(self) -> dict[str, str]:
        """Who asks, where the server wants to know."""
        if self._headers is None:
            self._headers = {} if self.source == "public" else kaggle_api.authorization(self.source)
        return self._headers

    def item(self, name: str, url: str, kind: str, most: float) -> Item:
        """A file to fetch; `most` bytes at the most."""
        return Item(name, url, kind, int(most), self.headers)

    def kaggle_item(self, name: str, file: str, kind: str, most: float) -> Item:
        """A file of the competition."""
        return self.item(name, kaggle_api.address(self.settings["kaggle"]["api"], self.source, file), kind, most)


def fetch_images(
    source: str, listed: Path | None, folder: Path, table: Path, checksums: Path, settings: dict[str, Any]
) -> None:
    """Fetch what is not there yet, compare what is, and write the table of complete images."""
    home = folder / source
    policy = Policy(**{name: settings[name] for name in Policy.__dataclass_fields__})
    fetcher = Fetcher(home, policy, int(settings["total_gb"] * GB))

    def waiting(holder: str) -> None:
        stage.log.info("waiting for process %s, which fetches into %s", holder, home)

    with files.lock(home, waiting), Store(home) as store:
        session = Session(source, settings, store, fetcher)
        if store.records:
            stage.log.info("going on from %d files that were fetched before", len(store.records))
        try:
            rows, names = (_public if source == "public" else _kaggle)(session, listed)
        except http_client.Stopped:
            if not fetcher.full:
                raise
            raise UserError(
                f"the images have more than fetch_images.total_gb = {settings['total_gb']:g}: raise it, or take fewer "
                "(fetch_images.limit); what is there is kept"
            ) from None
        except OSError as error:
            if error.errno not in http_client.NO_ROOM:
                raise
            raise UserError(f"{home} cannot be written to: {error.strerror}; what is there is kept") from None
        finally:
            fetcher.stop.set()
            invalid_input.write_list(home / "failed.csv", session.bad)
        files.write_text(table, rows)
        with files.atomic(checksums) as part, part.open("w", encoding="utf-8", newline="") as out:
            download_store.write(out, {name: store.records[name] for name in names})
    stage.log.info("%d files, %.1f MB of them fetched now", len(names), fetcher.received / MB)


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


def _kaggle(session: Session, listed: Path | None) -> tuple[str, list[str]]:
    settings = session.settings
    labels = user_tables.read_table(_kaggle_table(session, "train.csv"))
    if session.source == "kaggle2018":
        found = _images(session, labels, None, "png")
        if settings["kaggle"]["test_images"]:
            train, session.bad = session.bad, []
            sample = user_tables.read_table(_kaggle_table(session, SAMPLE))
            entries, _ = manifest.read(sample, ("Id", "Predicted"), addressed=False)
            _archived(session, TEST, entries)
            _settle(session, len(entries))
            session.bad = train + session.bad
        return found

    def item(entry: Entry, channel: str) -> Item:
        name = _name(IMAGES, entry, channel, "png")
        return session.kaggle_item(name, name, "png", settings["file_mb"] * MB)

    return _images(session, labels, item, "png")


def _name(folder: str, entry: Entry, channel: str, suffix: str) -> str:
    return f"{folder}/{entry.id}_{channel}.{suffix}"


def _images(
    session: Session, table: user_tables.UserTable, item: Callable[[Entry, str], Item] | None, suffix: str
) -> tuple[str, list[str]]:
    """Fetch the images of a table, and return it with the rows that are complete, and the names of their files."""
    settings = session.settings
    entries, session.bad[:] = manifest.read(
        table, (settings["columns"]["id"], settings["columns"]["labels"]), addressed=session.source == "public"
    )
    faulty = len({entry.id for entry in session.bad})
    if len(table) > len(entries) + len(session.bad):
        stage.log.info("%d rows say again what another one says", len(table) - len(entries) - len(session.bad))
    if settings["on_invalid"] == "fail":
        # Before hours are spent on the others.
        _settle(session, len(entries) + faulty)
    entries = manifest.limited(entries, settings["limit"]["images"], settings["limit"]["per_class"])
    stage.log.info("%d images of %d channels", len(entries), len(settings["channels"]))
    if item is None:
        _archived(session, IMAGES, entries)
    else:
        _fetch_all(session, [(entry, item(entry, channel)) for entry in entries for channel in settings["channels"]])
    _settle(session, len(entries) + faulty)
    lost = {entry.id for entry in session.bad}
    kept = [entry for entry in entries if entry.id not in lost]
    names = [_name(IMAGES, entry, channel, suffix) for entry in kept for channel in settings["channels"]]
    out = [",".join(_quoted(name) for name in table.columns)]
    out += [",".join(_quoted(values[entry.row]) for values in table.columns.values()) for entry in kept]
    return "\n".join(out) + "\n", names


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(char in cell for char in '",\n\r') else cell


def _settle(session: Session, count: int) -> None:
    settings = session.settings
    invalid_input.settle(
        session.bad, count, settings["on_invalid"], settings["invalid_limit"], session.store.folder / "failed.csv"
    )


def _whole(session: Session, name: str, kind: str) -> bool:
    """Whether a file is there as it was when it landed; tells what has changed since."""
    known, place = session.store.records.get(name), session.store.folder / name
    if known and not session.settings["verify"] and place.is_file() and place.stat().st_size == known.bytes:
        return True
    found = session.store.digest(name)
    if found is None:
        return False
    if known and known.sha256 != found:
        stage.log.warning("%s has changed since it was fetched: fetching it again", name)
        return False
    with place.open("rb") as file:
        begins = http_client.KINDS[kind].begins
        if not known and begins and not file.read(http_client.HEAD).startswith(begins):
            return False
    session.store.add(name, found)
    return True


def _landed(session: Session, name: str, sha256: str) -> None:
    before = session.store.add(name, sha256)
    if before is not None:
        stage.log.warning(
            "%s is another file than the one fetched before (sha256 %s, was %s)", name, sha256, before.sha256
        )


def _fetch_one(session: Session, item: Item) -> None:
    _landed(session, item.name, session.fetcher.fetch(item))


def _fetch_all(session: Session, wanted: list[tuple[Entry, Item]]) -> None:
    """Fetch what is not there. Images that have one address, because two genes share an antibody, are fetched once."""
    jobs: dict[str, list[tuple[Entry, Item]]] = {}
    for entry, item in wanted:
        jobs.setdefault(item.url, []).append((entry, item))
    in_a_row = 0

    def work(job: list[tuple[Entry, Item]]) -> tuple[int, Refused | None, list[tuple[Entry, Item]]]:
        missing = [pair for pair in job if not _whole(session, pair[1].name, pair[1].kind)]
        there = [item for entry, item in job if (entry, item) not in missing]
        for item in there:
            session.fetcher.count(session.store.records[item.name].bytes)
        try:
            for number, (_, item) in enumerate(missing):
                if there or number:
                    source = (there or [missing[0][1]])[0].name
                    session.store.copy(source, item.name)
                    _landed(session, item.name, session.store.records[source].sha256)
                else:
                    _fetch_one(session, item)
        except Refused as error:
            return len(job), error, missing
        return len(job), None, []

    done = 0
    with Progress("files", len(wanted)) as bar:
        for count, error, missing in download_store.in_threads(work, jobs.values(), session.fetcher.policy.connections):
            done += count
            bar.update(done, MB=session.fetcher.received / MB)
            in_a_row = in_a_row + 1 if isinstance(error, Unreachable) else 0
            for entry, item in missing:
                reason = str(error) if session.source == "public" else kaggle_api.explained(str(error), session.source)
                session.bad.append(Fault(entry.id, item.url, "file that cannot be fetched", reason))
            if in_a_row >= HOPELESS:
                raise UserError(
                    f"{in_a_row} files in a row could not be fetched, the last is {missing[0][1].url}: {error}. Run "
                    "again when the server can be reached; what is there is kept"
                )


def _kaggle_table(session: Session, name: str) -> Path:
    """A table of the competition; it may come packed."""
    place = session.store.folder / name
    if not _whole(session, name, "csv"):
        item = session.kaggle_item(f"received/{name}", name, "csv", 100 * MB)
        received = session.store.folder / item.name
        _fetch_large(session, item)
        if zipfile.is_zipfile(received):
            lacking = zip_files.unpack(
                received, place.parent, {name}, int(1 * GB), lambda found, sha256: _landed(session, found, sha256)
            )
            if lacking:
                raise UserError(f"{received} does not hold {name}: delete it and run again")
            received.unlink()
        else:
            received.replace(place)
            _landed(session, name, session.store.digest(name) or "")
    return place


def _archived(session: Session, part: str, entries: list[Entry]) -> None:
    """The images of a part of Kaggle 2018, which comes as one archive; only those that are not there are unpacked."""
    wanted = {
        _name(part, entry, channel, "png"): entry for entry in entries for channel in session.settings["channels"]
    }
    stage.log.info("comparing %d files with their checksums", len(wanted))
    checked = download_store.in_threads(
        lambda name: (name, _whole(session, name, "png")), wanted, session.fetcher.policy.connections
    )
    missing = {Path(name).name for name, whole in checked if not whole}
    if not missing:
        return
    limits = session.settings["kaggle"]["archive_gb"] * GB
    item = session.kaggle_item(f"received/{part}.zip", f"{part}.zip", "zip", limits)
    archive = session.store.folder / item.name
    if not archive.exists():
        _fetch_large(session, item)
    with Progress(f"unpack {archive.name}", len(missing)) as bar:
        done = 0

        def landed(name: str, sha256: str) -> None:
            nonlocal done
            done += 1
            bar.update(done)
            _landed(session, f"{part}/{name}", sha256)

        most = int(session.settings["total_gb"] * GB)
        lacking = zip_files.unpack(archive, session.store.folder / part, missing, most, landed)
    for name in sorted(lacking):
        entry = wanted[f"{part}/{name}"]
        session.bad.append(Fault(entry.id, name, "file that cannot be fetched", f"is not in {archive.name}"))
    if not lacking:
        # Its images lie there now, each with its checksum.
        archive.unlink()


def _fetch_large(session: Session, item: Item) -> None:
    """Fetch one file that everything else waits for, and tell how far it is."""
    name = Path(item.name).name
    stage.log.info("fetching %s", name)
    try:
        session.fetcher.fetch_shown(item)
    except Refused as error:
        raise UserError(f"{name}: {kaggle_api.explained(str(error), session.source)}") from None


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "fetch_images",
        args,
        lambda: fetch_images(args.source, args.manifest, args.folder, args.table, args.checksums, args.settings),
    )


if __name__ == "__main__":
    sys.exit(main())
