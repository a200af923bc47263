"""HTTP connection pools on urllib3, with the environment's proxy and a deadline for response headers."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from workflow_scripts.lib.download.urls import is_loopback


class ReusedConnectionFailed(ConnectionError):
    """Error of a reused connection that gave no response, probably because the server had closed it."""


class _Watched:
    """Connection with a deadline for the response headers.

    urllib3 lacks one: its time-out is for each piece that arrives, so a server could send its headers byte by byte for
    ever."""

    answers = 0  # since it was connected

    def connect(self) -> None:
        self.answers = 0
        with self._deadline():
            super().connect()

    def getresponse(self) -> Any:
        try:
            with self._deadline():
                response = super().getresponse()
        except TimeoutError:
            raise
        except (ConnectionError, http.client.HTTPException) as error:
            if self.answers:
                raise ReusedConnectionFailed(str(error)) from error
            raise
        self.answers += 1
        return response

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[None]:
        late = threading.Event()

        def hang_up() -> None:
            late.set()
            with contextlib.suppress(OSError, AttributeError):
                self.sock.shutdown(socket.SHUT_RDWR)

        watch = threading.Timer(2 * self.timeout, hang_up)
        watch.daemon = True
        watch.start()
        try:
            yield
        except Exception as error:
            if late.is_set():
                raise TimeoutError from error
            raise
        finally:
            watch.cancel()
        if late.is_set():
            raise TimeoutError


class _Plain(_Watched, HTTPConnection):
    pass


class _Secure(_Watched, HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


class Connections:
    """Pool of reusable connections; safe to share between threads."""

    def __init__(self, most: int, timeout: float) -> None:
        own = {
            "maxsize": most,  # connections kept for each host
            "timeout": urllib3.Timeout(connect=timeout, read=timeout),
            "ssl_context": ssl.create_default_context(),
        }
        self._direct = _with_deadlines(urllib3.PoolManager(**own))
        self._outside = self._direct
        proxy = urllib.request.getproxies().get("https", "")
        if proxy:
            parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
            user = "" if parts.username is None else f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers = {"Proxy-Authorization": "Basic " + base64.b64encode(user.encode()).decode()} if user else {}
            where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            self._outside = _with_deadlines(urllib3.ProxyManager(where, proxy_headers=headers, **own))

    def get(self, parts: SplitResult, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Send one GET request, without redirects or retries; the body is still to be read."""
        host = parts.hostname or ""
        direct = parts.scheme == "http" or is_loopback(host) or urllib.request.proxy_bypass(host)
        pool = (self._direct if direct else self._outside).connection_from_host(host, parts.port, parts.scheme)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # Whether all bytes came is checked by whoever reads them, who keeps those that did.
        return pool.urlopen(
            "GET", path, headers=headers, retries=False, redirect=False, preload_content=False,
            enforce_content_length=False,
        )  # fmt: skip


def _with_deadlines(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return manager
