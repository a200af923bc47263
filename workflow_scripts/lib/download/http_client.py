"""HTTP downloads with retries, resumption and pacing, safe against faulty servers.

urllib3 keeps the connections. Retries, resuming by Range, pacing and redirects are done here. A file appears whole or
not at all. Plain http is for loopback addresses only, and no redirect leads from https to http. Secret headers never
follow a redirect to another host. `requests` is not used: it adds credentials from ~/.netrc, and it brings its own
certificates instead of those of the system."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import random
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import private_folder
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.download.connections import Connections, ReusedConnectionFailed
from workflow_scripts.lib.download.urls import Refused, check_url, origin, retry_after

AGENT = "MixLoc (research workflow)"
BLOCK = 1 << 16
# An attempt that received this many bytes does not count towards the retries.
PROGRESS = 1 << 20
HEAD = 16  # first bytes that show the type of a file
BINARY = ("application/octet-stream", "binary/octet-stream", "application/x-download")
PASSING = (408, 425, 429, 500, 502, 503, 504)
MOVED = (301, 302, 303, 307, 308)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@dataclass(frozen=True)
class Kind:
    """File type, recognised by content type, first bytes and last bytes."""

    types: tuple[str, ...]  # none: any
    begins: tuple[bytes, ...]
    ends: bytes = b""  # within its last bytes; looked for where the server did not say how long it is


ZIP = Kind(("application/zip", "application/x-zip-compressed", "application/x-zip", *BINARY), (b"PK\x03\x04",))
KINDS = {
    "jpg": Kind(("image/jpeg", "image/jpg", *BINARY), (b"\xff\xd8\xff",), b"\xff\xd9"),
    "png": Kind(("image/png", *BINARY), (b"\x89PNG\r\n\x1a\n",), b"IEND"),
    "zip": ZIP,
    # A table may be compressed.
    "csv": Kind(("text/csv", "text/plain", "application/csv", "application/vnd.ms-excel", *ZIP.types), ()),
    # Files of torch, today's and those of old; servers call them all sorts of things.
    "pth": Kind((), (*ZIP.begins, b"\x80\x02")),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One file to fetch."""

    name: str  # below the folder of downloads
    url: str
    kind: str  # a key of KINDS
    limit: int  # the most bytes it may have
    # Secret, so it is requested when needed and sent to the host of `url` only.
    headers: Callable[[], dict[str, str]] = field(default=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Policy:
    """Limits and retry policy; each field is a setting of fetch_images."""

    connections: int
    requests_per_second: float
    timeout: float
    slowest: float
    retries: int
    pause: float
    longest_pause: float
    redirects: int


class Unreachable(Refused):
    """Error of a file that failed after all retries."""


class Passing(Exception):
    """Temporary error of one attempt; `wait` is how long the server asks not to be contacted."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Stopped(Exception):
    """The work was cancelled."""


class Pace:
    """Rate limit shared by all connections."""

    def __init__(self, per_second: float, stop: threading.Event) -> None:
        self._gap, self._stop = 1.0 / per_second, stop
        self._lock, self._next = threading.Lock(), 0.0

    def wait(self) -> None:
        """Wait for the next turn."""
        with self._lock:
            turn = max(time.monotonic(), self._next)
            self._next = turn + self._gap
        self.sleep(turn - time.monotonic())

    def hold(self, seconds: float) -> None:
        """Pause all connections for some time."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Sleep, unless the work is cancelled."""
        if self._stop.wait(max(0.0, seconds)):
            raise Stopped


class Fetcher:
    """Downloader of files into a folder; safe to use from several threads, each with its own connections."""

    def __init__(self, folder: Path, policy: Policy, most_bytes: int) -> None:
        self.folder, self.policy = folder, policy
        self.stop = threading.Event()
        self.pace = Pace(policy.requests_per_second, self.stop)
        self.received = 0  # bytes over the network
        # Hears of each block: bytes at hand, and in all (0: unknown).
        self.told: Callable[[int, int], None] | None = None
        self._most, self._counted, self._counting = most_bytes, 0, threading.Lock()
        self._connections = Connections(policy.connections, policy.timeout)

    def count(self, size: int, received: bool = False) -> None:
        """Add to the bytes of this run; past the limit the work is cancelled."""
        with self._counting:
            self._counted += size
            self.received += size if received else 0
            if self._counted > self._most:
                self.stop.set()
        if self.stop.is_set():
            raise Stopped

    @property
    def full(self) -> bool:
        """Whether the limit on total bytes was reached."""
        return self._counted > self._most

    def fetch_shown(self, item: Item) -> str:
        """Like `fetch`, with a progress bar of bytes: for a file that everything else waits for."""
        with Progress(f"MB of {Path(item.name).name}", 1) as bar:

            def told(size: int, total: int) -> None:
                bar.total = max(1, round((total or size) / 1e6))
                bar.update(round(size / 1e6))

            self.told = told
            try:
                return self.fetch(item)
            finally:
                self.told = None

    def fetch(self, item: Item) -> str:
        """Download one file and return its sha256; raises Refused, with the reason, where retries cannot help."""
        check_url(item.url)
        failures = 0
        while True:
            before = _size(self._part(item))
            try:
                return self._attempt(item)
            except Passing as error:
                problem = error
            except HTTPError as error:
                problem = self._network_fault(error)
            except OSError as error:
                if error.errno in NO_ROOM:
                    self.stop.set()
                    raise UserError(f"{self.folder} cannot be written to: {os.strerror(error.errno)}") from None
                problem = Passing(f"{type(error).__name__}: {error}".removesuffix(": "))
            failures = 0 if _size(self._part(item)) - before >= PROGRESS else failures + 1
            if failures > self.policy.retries:
                raise Unreachable(f"{problem} (asked {failures} times)")
            if problem.wait > self.policy.longest_pause:
                raise Unreachable(f"{problem}; it wants to be left alone for {problem.wait:.0f} s")
            if problem.wait:
                self.pace.hold(problem.wait)
            # Jitter keeps connections that failed together from retrying together.
            pause = min(self.policy.longest_pause, self.policy.pause * 2 ** max(0, failures - 1))
            self.pace.sleep(max(problem.wait, pause * random.uniform(0.5, 1.0)))

    def _network_fault(self, error: HTTPError) -> Passing:
        """Description of an error of urllib3; raises Refused where retries cannot help."""
        cause = next((part for part in error.args if isinstance(part, Exception)), error.__cause__ or error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise Refused(f"the certificate of the server is not trusted: {cause.verify_message}") from None
        if isinstance(error, urllib3.exceptions.TimeoutError) or isinstance(cause, TimeoutError):
            return Passing(f"no answer within {self.policy.timeout:g} s")
        return Passing(f"{type(cause).__name__}: {cause}".removesuffix(": "))

    def _part(self, item: Item) -> Path:
        return self.folder / "partial" / item.name.replace("/", "_")

    def _attempt(self, item: Item) -> str:
        part = self._part(item)
        private_folder(part.parent)
        about = part.with_name(f"{part.name}.json")
        known = _read_json(about)
        have = _size(part) if known.get("url") == item.url and known.get("total") else 0
        headers: dict[str, str] = {}
        if have:
            headers["Range"] = f"bytes={have}-"
            if known["validator"]:
                headers["If-Range"] = known["validator"]
        response = self._ask(item, headers)
        try:
            if response.status == 206 and not _goes_on(response, have, known):
                part.unlink(missing_ok=True)
                raise Passing("has changed since its first part was fetched")
            if response.status == 200:
                have = 0  # the server knows no ranges, or the file is another by now
            total = known["total"] if have else _length(response)
            _check_answer(response, item, total)
            if not have:
                # In this order: a kill in between must not leave an old part with the marks of a new file.
                part.write_bytes(b"")
                about.write_text(json.dumps({"url": item.url, "total": total, "validator": _validator(response)}))
            self._receive(response, part, have, item, total)
        finally:
            # A connection whose answer was read to its end is back in the pool by now; any other one ends here.
            response.close()
        size = _size(part)
        if total and size != total:
            raise Passing(f"ended after {size} of {total} bytes")
        return self._land(item, part, about, bool(total))

    def _receive(self, response: urllib3.BaseHTTPResponse, part: Path, have: int, item: Item, total: int) -> None:
        size, since, arrived = have, time.monotonic(), 0
        with part.open("ab" if have else "wb") as out:
            while block := response.read1(BLOCK, decode_content=False):
                size += len(block)
                arrived += len(block)
                if size > item.limit:
                    self._discard(part, f"is larger than {item.limit / 1e6:g} MB")
                if size == len(block) >= HEAD:
                    _check_head(block, item)
                self.count(len(block), received=True)
                out.write(block)
                if self.told:
                    self.told(size, total)
                spent = time.monotonic() - since
                if spent > self.policy.timeout:
                    if arrived < self.policy.slowest * spent:
                        raise Passing(f"comes with less than {self.policy.slowest:g} bytes a second")
                    since, arrived = time.monotonic(), 0

    def _discard(self, part: Path, reason: str) -> None:
        part.unlink()
        raise Refused(reason)

    def _land(self, item: Item, part: Path, about: Path, length_known: bool) -> str:
        kind = KINDS[item.kind]
        if not _size(part):
            raise Passing("is empty")
        with part.open("rb+") as file:
            try:
                _check_head(file.read(HEAD), item)
            except Refused as error:
                self._discard(part, str(error))
            file.seek(max(0, _size(part) - 1024))
            if not length_known and kind.ends not in file.read():
                raise Passing("broke off before the end of the file")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        place = self.folder / item.name
        place.parent.mkdir(parents=True, exist_ok=True)
        part.replace(place)
        about.unlink(missing_ok=True)
        return digest

    def _ask(self, item: Item, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """The answer with a body, redirects followed."""
        start = here = check_url(item.url)
        seen = {item.url}
        for _ in range(self.policy.redirects + 1):
            own = item.headers() if origin(here) == origin(start) else {}
            response = self._request(here, {"User-Agent": AGENT, "Accept-Encoding": "identity", **headers, **own})
            if response.status not in MOVED:
                return self._judge(response, self._part(item))
            target = urljoin(here.geturl(), response.headers.get("Location") or "")
            response.close()
            if target in seen:
                raise Refused("redirects in a circle")
            seen.add(target)
            here = check_url(target, before=here)
        raise Refused(f"redirects more than {self.policy.redirects} times")

    def _judge(self, response: urllib3.BaseHTTPResponse, part: Path) -> urllib3.BaseHTTPResponse:
        if response.status in (200, 206):
            return response
        reason = f"{response.status} {http.client.responses.get(response.status, '')}".strip()
        wait = retry_after(response.headers.get("Retry-After"))
        response.close()
        if response.status == 416:
            part.unlink(missing_ok=True)
            raise Passing(f"{reason}: has changed since its first part was fetched")
        raise Passing(reason, wait) if response.status in PASSING else Refused(reason)

    def _request(self, parts: SplitResult, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """The answer to one request, its body still to be read."""
        while True:
            if self.stop.is_set():
                raise Stopped
            self.pace.wait()
            try:
                return self._connections.get(parts, headers)
            except ProtocolError as error:
                # A server may close an idle connection just when it is used again. Each try uses one of these up.
                if not isinstance(error.args[-1], ReusedConnectionFailed):
                    raise
            except urllib3.exceptions.LocationValueError:
                raise Refused("the address cannot be asked for") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _length(response: urllib3.BaseHTTPResponse) -> int:
    text = response.headers.get("Content-Length") or ""
    return int(text) if text.isdigit() else 0


def _validator(response: urllib3.BaseHTTPResponse) -> str:
    # A weak ETag may stay the same for other bytes.
    tag = response.headers.get("ETag") or ""
    return tag if tag.startswith('"') else response.headers.get("Last-Modified") or ""


def _goes_on(response: urllib3.BaseHTTPResponse, have: int, known: dict[str, Any]) -> bool:
    """Whether a partial answer begins where the part at hand ends, in the same version of the file."""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range") or "")
    if not have or not span or (int(span[1]), int(span[2])) != (have, known["total"]):
        return False
    return not (known["validator"] and _validator(response)) or known["validator"] == _validator(response)


def _check_answer(response: urllib3.BaseHTTPResponse, item: Item, total: int) -> None:
    kind = (response.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    known = KINDS[item.kind].types
    if kind and known and kind not in known:
        raise Refused(f"is {kind[:60]} and not {item.kind}")
    if total > item.limit:
        raise Refused(f"has {total / 1e6:.1f} MB, more than {item.limit / 1e6:g} MB")


def _check_head(head: bytes, item: Item) -> None:
    begins = KINDS[item.kind].begins
    if begins and not head.startswith(begins):
        looks = "HTML" if head.lstrip().lower().startswith((b"<!doc", b"<html")) else "something else"
        raise Refused(f"is called {item.kind} but begins like {looks}")
