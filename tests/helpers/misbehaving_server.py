"""A web server on this machine that misbehaves as told: what it does depends on the first folder of the path.

    /fine/x.jpg          the file, whole, with ETag and ranges         /no-range/  ignores Range
    /missing/            404                                           /busy/      429 with Retry-After, then the file
    /tired/              500 twice, then the file                      /broken/    500 for ever
    /truncated/          breaks off in the middle, again and again     /breaks/    breaks off once, then serves ranges
    /silent/             accepts and says nothing                      /drip/      a few bytes a second, for ever
    /html/  /disguised/  a web page, called so, or called an image     /endless/   bytes for ever, without a length
    /huge/               says that it is too large                     /changes/   another file once a part was fetched
    /chain/N/            N redirects, then the file                    /circle/    redirects in a circle
    /abroad/             redirects to http outside this machine        /api/       a competition: asks for credentials
    /unmeasured/         no length, breaks off twice
    /stammering/         headers letter by letter, for ever             /closed/    503, to come back in two hours
    /empty/              nothing, called an image
    /slowly/             after a moment                                 /stored/    a file of `archive`

All is bounded in time: whatever it does for ever ends with `close`."""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 12 + b"\xff\xd9"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4 + b"IEND\xaeB`\x82"
TYPES = {"jpg": "image/jpeg", "png": "image/png", "zip": "application/zip", "csv": "text/csv", "pth": "x-odd/name"}


def content(name: str) -> bytes:
    """What an image of this name holds: each name its own bytes."""
    mark = hashlib.sha256(name.encode()).digest()
    whole = JPEG if name.endswith("jpg") else PNG
    return whole[:16] + mark + whole[48:]


class Server:
    """The server, what it was asked and what it sent."""

    def __init__(self, certificate: tuple[str, str] | None = None) -> None:
        self.closing = threading.Event()
        self.requests: list[tuple[float, str, dict[str, str]]] = []  # time, path, headers
        self.sent: Counter[str] = Counter()  # path -> bytes of bodies
        self.seen: Counter[str] = Counter()  # path -> requests
        self.ports: set[int] = set()  # of those who asked: one for each connection
        self.at_once = self.most_at_once = 0
        self.archive: dict[str, bytes] = {}  # file of the competition -> bytes
        self.elsewhere = ""  # another server, which holds what /api/ leads to
        self.lock = threading.Lock()
        self._server = Quiet(("127.0.0.1", 0), type("Bound", (Handler,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        if certificate:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(*certificate)
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self.url = f"https://localhost:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=lambda: self._server.serve_forever(0.02), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class Quiet(ThreadingHTTPServer):
    """Does not mind clients that hang up."""

    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        """Silence."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    owner: Server

    def log_message(self, *args: Any) -> None:
        """Silence: the tests look at what was recorded."""

    def do_GET(self) -> None:
        """Record the request and do what its folder says."""
        owner, path = self.owner, urlsplit(self.path).path
        with owner.lock:
            owner.requests.append((time.monotonic(), path, dict(self.headers.items())))
            owner.seen[path] += 1
            owner.ports.add(self.client_address[1])
            owner.at_once += 1
            owner.most_at_once = max(owner.most_at_once, owner.at_once)
        mode = path.split("/")[1].replace("-", "_")
        try:
            getattr(self, f"mode_{mode}")(path)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with owner.lock:
                owner.at_once -= 1

    def do_CONNECT(self) -> None:
        """A proxy that records where it should lead, and leads nowhere."""
        self.owner.requests.append((time.monotonic(), self.path, dict(self.headers.items())))
        self.head(502, 0)

    def name(self, path: str) -> str:
        """The file that is asked for."""
        return unquote(path.rsplit("/", 1)[1])

    def put(self, data: bytes) -> None:
        """Send and count."""
        self.wfile.write(data)
        self.wfile.flush()
        with self.owner.lock:
            self.owner.sent[urlsplit(self.path).path] += len(data)

    def head(self, status: int, length: int | None, **headers: str) -> None:
        """Status and headers; without a length the end of the connection ends the body."""
        self.send_response(status)
        if length is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def serve(self, body: bytes, stop: int | None = None, ranges: bool = True) -> None:
        """A file, from where the request wants it; `stop` breaks off after so many bytes."""
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        kind = TYPES[self.name(urlsplit(self.path).path).rpartition(".")[2]]
        asked = self.headers.get("Range", "")
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if ranges and asked else 0
        if begin and self.headers.get("If-Range", tag) != tag:
            begin = 0
        if begin >= len(body):
            self.head(416, 0, Content_Range=f"bytes */{len(body)}")
            return
        more = {"Content_Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"} if begin else {}
        self.head(206 if begin else 200, len(body) - begin, Content_Type=kind, ETag=tag, **more)
        if stop is None:
            self.put(body[begin:])
        else:
            self.put(body[begin : begin + stop])
            self.close_connection = True

    def mode_fine(self, path: str) -> None:
        """As it should be."""
        self.serve(content(self.name(path)))

    def mode_slowly(self, path: str) -> None:
        """As it should be, after a moment."""
        self.owner.closing.wait(0.1)
        self.serve(content(self.name(path)))

    def mode_no_range(self, path: str) -> None:
        """Breaks off once, and knows no ranges."""
        self.serve(content(self.name(path)), stop=1000 if self.owner.seen[path] == 1 else None, ranges=False)

    def mode_missing(self, path: str) -> None:
        """Not there."""
        self.head(404, 0)

    def mode_busy(self, path: str) -> None:
        """Once too many requests."""
        if self.owner.seen[path] == 1:
            self.head(429, 0, Retry_After="1")
        else:
            self.mode_fine(path)

    def mode_closed(self, path: str) -> None:
        """Wants to be left alone for long."""
        self.head(503, 0, Retry_After="7200")

    def mode_tired(self, path: str) -> None:
        """Fails twice."""
        if self.owner.seen[path] < 3:
            self.head(500, 0)
        else:
            self.mode_fine(path)

    def mode_broken(self, path: str) -> None:
        """Fails always."""
        self.head(500, 0)

    def mode_truncated(self, path: str) -> None:
        """Never sends more than the first part."""
        self.serve(content(self.name(path)), stop=500, ranges=False)

    def mode_breaks(self, path: str) -> None:
        """Breaks off once."""
        self.serve(content(self.name(path)), stop=1000 if self.owner.seen[path] == 1 else None)

    def mode_changes(self, path: str) -> None:
        """Breaks off once, and has another file afterwards."""
        first = self.owner.seen[path] == 1
        self.serve(content(("old " if first else "") + self.name(path)), stop=1000 if first else None)

    def mode_unmeasured(self, path: str) -> None:
        """No length; whole at the third time."""
        body = content(self.name(path))
        self.head(200, None, Content_Type="image/jpeg")
        self.put(body if self.owner.seen[path] == 3 else body[:700])

    def mode_silent(self, path: str) -> None:
        """Says nothing."""
        self.owner.closing.wait(20)
        self.close_connection = True

    def mode_drip(self, path: str) -> None:
        """Too slow to wait for, too fast for the time-out."""
        self.head(200, 10**6, Content_Type="image/jpeg")
        self.put(JPEG[:16])
        while not self.owner.closing.wait(0.05):
            self.put(b"x")

    def mode_stammering(self, path: str) -> None:
        """Headers, letter by letter, for ever."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not self.owner.closing.wait(0.05):
            self.wfile.write(b"x")

    def mode_endless(self, path: str) -> None:
        """Bytes without end."""
        self.head(200, None, Content_Type="image/jpeg")
        self.put(JPEG)
        while not self.owner.closing.is_set():
            self.put(b"x" * 65536)

    def mode_huge(self, path: str) -> None:
        """Says how large it is."""
        self.head(200, 10**12, Content_Type="image/jpeg")
        self.close_connection = True

    def mode_empty(self, path: str) -> None:
        """Nothing."""
        self.head(200, 0, Content_Type="image/jpeg")

    def mode_html(self, path: str) -> None:
        """A friendly page that says that there is nothing."""
        self.head(200, 15, Content_Type="text/html; charset=utf-8")
        self.put(b"<html>404</html"[:15])

    def mode_disguised(self, path: str) -> None:
        """The same page, called an image."""
        self.head(200, 30, Content_Type="image/jpeg")
        self.put(b"<!DOCTYPE html><p>not found</p"[:30])

    def mode_chain(self, path: str) -> None:
        """Redirects, one after the other."""
        _, _, left, name = path.split("/")
        self.head(302, 0, Location=f"/chain/{int(left) - 1}/{name}" if int(left) > 1 else f"/fine/{name}")

    def mode_circle(self, path: str) -> None:
        """Redirects to where it came from."""
        name = self.name(path)
        self.head(301, 0, Location=f"/circle/b/{name}" if "/b/" not in path else f"/circle/{name}")

    def mode_abroad(self, path: str) -> None:
        """Redirects to where nothing is encrypted."""
        self.head(302, 0, Location="http://images.example.org/x.jpg")

    def mode_api(self, path: str) -> None:
        """A competition's files, for those who say who they are; redirects to the file as Kaggle does."""
        given = self.headers.get("Authorization", "")
        if not given:
            self.head(401, 0)
        elif "d3Jvbmc" in given:
            self.head(403, 0)
        else:
            self.head(302, 0, Location=f"{self.owner.elsewhere}/stored/{path.rsplit('/', 1)[1]}")

    def mode_stored(self, path: str) -> None:
        """A file of the competition."""
        body = self.owner.archive.get(self.name(path))
        if body is None:
            self.head(404, 0)
        else:
            self.serve(body)
