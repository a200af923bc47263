"""Fetching of files into a download folder: whole files are kept, missing or changed ones fetched, faults listed.

It knows files and addresses. Which images a source has, and where, is lib/download/image_sources.py's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.download import download_store, http_client, kaggle_api
from workflow_scripts.lib.download.download_store import Store
from workflow_scripts.lib.download.http_client import Fetcher, Item, Refused, Unreachable
from workflow_scripts.lib.download.manifest import Entry
from workflow_scripts.lib.images import invalid_input
from workflow_scripts.lib.images.invalid_input import Fault

# So many files in a row that could not be fetched, despite retries, mean that the server or the network is down.
HOPELESS = 20
MB, GB = 1e6, 1e9
Wanted = tuple[Entry, Item]  # an image, and the file of one of its channels


@dataclass
class Session:
    """One run of fetch_images: its download folder, its HTTP client, and the faults found so far."""

    source: str
    settings: dict[str, Any]
    store: Store
    fetcher: Fetcher
    bad: list[Fault] = field(default_factory=list)
    _headers: dict[str, str] | None = None

    def headers(self) -> dict[str, str]:
        """HTTP headers with the user's credentials, where the server wants them."""
        if self._headers is None:
            self._headers = {} if self.source == "public" else kaggle_api.authorization(self.source)
        return self._headers

    def item(self, name: str, url: str, kind: str, most: float) -> Item:
        """A file to fetch, of at most `most` bytes."""
        return Item(name, url, kind, int(most), self.headers)

    def kaggle_item(self, name: str, file: str, kind: str, most: float) -> Item:
        """A file of the competition."""
        return self.item(name, kaggle_api.address(self.settings["kaggle"]["api"], self.source, file), kind, most)

    def settle(self, count: int) -> None:
        """Fail on the faults, or go on without these images, as the settings ask; `count` images were named."""
        settings, listed = self.settings, self.store.folder / "failed.csv"
        invalid_input.settle(self.bad, count, settings["on_invalid"], settings["invalid_limit"], listed)

    def whole(self, name: str, kind: str) -> bool:
        """Whether a file is there as it was when it arrived; logs a change since."""
        known, place = self.store.records.get(name), self.store.folder / name
        if known and not self.settings["verify"] and place.is_file() and place.stat().st_size == known.bytes:
            return True
        sha256 = self.store.digest(name)
        if sha256 is None:
            return False
        if known and known.sha256 != sha256:
            stage.log.warning("%s has changed since it was fetched: fetching it again", name)
            return False
        with place.open("rb") as file:
            begins = http_client.KINDS[kind].begins
            if not known and begins and not file.read(http_client.HEAD).startswith(begins):
                return False
        self.store.add(name, sha256)
        return True

    def landed(self, name: str, sha256: str) -> None:
        """Record a file that has arrived; logs when an earlier run fetched another one."""
        before = self.store.add(name, sha256)
        if before is not None:
            stage.log.warning(
                "%s is another file than the one fetched before (sha256 %s, was %s)", name, sha256, before.sha256
            )

    def fetch_all(self, wanted: list[Wanted]) -> None:
        """Fetch what is missing. Images with one address, because two genes share an antibody, are fetched once."""
        jobs: dict[str, list[Wanted]] = {}
        for entry, item in wanted:
            jobs.setdefault(item.url, []).append((entry, item))
        done = in_a_row = 0
        with Progress("files", len(wanted)) as bar:
            for count, error, missing in download_store.in_threads(
                self._fetch_shared, jobs.values(), self.fetcher.policy.connections
            ):
                done += count
                bar.update(done, MB=self.fetcher.received / MB)
                in_a_row = in_a_row + 1 if isinstance(error, Unreachable) else 0
                for entry, item in missing:
                    reason = str(error) if self.source == "public" else kaggle_api.explained(str(error), self.source)
                    self.bad.append(Fault(entry.id, item.url, "file that cannot be fetched", reason))
                if in_a_row >= HOPELESS:
                    raise UserError(
                        f"{in_a_row} files in a row could not be fetched, the last is {missing[0][1].url}: {error}. "
                        "Run again when the server can be reached; what is there is kept"
                    )

    def _fetch_shared(self, job: list[Wanted]) -> tuple[int, Refused | None, list[Wanted]]:
        """Fetch files that have one address; returns their number, the error, and which are missing for it."""
        missing = [pair for pair in job if not self.whole(pair[1].name, pair[1].kind)]
        there = [item for entry, item in job if (entry, item) not in missing]
        for item in there:
            self.fetcher.count(self.store.records[item.name].bytes)
        try:
            for number, (_, item) in enumerate(missing):
                if there or number:
                    source = (there or [missing[0][1]])[0].name
                    self.store.copy(source, item.name)
                    self.landed(item.name, self.store.records[source].sha256)
                else:
                    self.landed(item.name, self.fetcher.fetch(item))
        except Refused as error:
            return len(job), error, missing
        return len(job), None, []

    def fetch_large(self, item: Item) -> None:
        """Fetch one file that everything else waits for, and show its progress."""
        name = Path(item.name).name
        stage.log.info("fetching %s", name)
        try:
            self.fetcher.fetch_shown(item)
        except Refused as error:
            raise UserError(f"{name}: {kaggle_api.explained(str(error), self.source)}") from None
