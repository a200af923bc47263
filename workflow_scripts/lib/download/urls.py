"""URL policy: https outside this machine, and no redirect from https to http."""

from __future__ import annotations

import email.utils
import ipaddress
import time
from urllib.parse import SplitResult, urlsplit


class Refused(Exception):
    """Permanent error of a file, for which retries cannot help."""


def is_loopback(host: str) -> bool:
    """Whether a host name can only mean this machine."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address == ipaddress.ip_address("::1") or address in ipaddress.ip_network("127.0.0.0/8")


def check_url(url: str, before: SplitResult | None = None) -> SplitResult:
    """Parts of a permitted URL; `before` is the URL that redirected to it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise Refused("the address cannot be understood") from None
    if parts.scheme not in ("http", "https") or not host:
        raise Refused(f"the address must begin with https:// and a host, not with {parts.scheme or 'nothing'}://{host}")
    if parts.username is not None or parts.password is not None:
        raise Refused(f"the address of {host} holds a user name or password")
    if any(char <= " " or char >= "\x7f" for char in url):
        raise Refused(f"the address at {host} holds blanks or letters outside ASCII")
    if before is not None and before.scheme == "https" and parts.scheme == "http":
        raise Refused(f"redirects from https to http ({host})")
    if before is not None and is_loopback(host) and not is_loopback(before.hostname or ""):
        raise Refused(f"redirects to this machine ({host})")
    if parts.scheme == "http" and not is_loopback(host):
        raise Refused(f"{'redirects to' if before else 'is at'} http://{host}: outside this machine https is required")
    return parts


def retry_after(text: str | None) -> float:
    """Seconds to wait as the server asks, from a number or a date; 0 where it does not say."""
    if not text:
        return 0.0
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def origin(parts: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port, to which a secret may be sent."""
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
