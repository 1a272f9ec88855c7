"""Where a restore may read an image from, in words. Pure.

    nfs                    the library as it is mounted, or lies on this machine: what holds when nobody says anything
    controller             the controller, over HTTP
    http://host/path       any web server that gives out the library's directory and answers ranges; https the same

A list is written with commas: `nfs,http://10.0.0.5/lib`. The words stand in boot files, tables and logs, so an address
must not carry an account; it has no query and no fragment, because file names are put behind it.
"""

from __future__ import annotations

import re
import socket
import urllib.parse
from collections.abc import Iterable

import msgspec

from litho.errors import UsageError

NFS = "nfs"
CONTROLLER = "controller"
MOST = 8
"""Sources of one job."""
MAX_URL = 256
"""Characters."""
DOOR = "/v1/library"
"""Where the controller gives out its library, below its base address."""

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})", re.ASCII)
_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", re.ASCII)
_HINT = "write nfs, controller, http://host/path or https://host/path, joined by commas"


class Place(msgspec.Struct, frozen=True):
    """A directory of a web server."""

    tls: bool
    host: str
    port: int
    path: str
    """Without a slash at its end; empty for the server's root."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.tls else 80
        port = "" if self.port == usual else f":{self.port}"
        return f"{'https' if self.tls else 'http'}://{host}{port}{self.path}"


def parse(text: str) -> tuple[str, ...]:
    """The words of a list. Raises UsageError (code bad-source) for one that is none."""
    return check(word.strip() for word in text.split(","))


def check(words: Iterable[str]) -> tuple[str, ...]:
    """`words`, each once and as it is told to people. Raises UsageError (code bad-source)."""
    found = tuple(dict.fromkeys(word if word in (NFS, CONTROLLER) else str(place(word)) for word in words))
    if not 0 < len(found) <= MOST:
        raise UsageError(f"there are {len(found)} sources instead of 1 to {MOST}", hint=_HINT, code="bad-source")
    return found


def place(text: str) -> Place:
    """The directory that an address names. Raises UsageError (code bad-source)."""
    try:
        # `urlsplit` drops line breaks and tabs in silence: what holds one is not what it seems.
        url = urllib.parse.urlsplit(text if text.isprintable() and len(text) <= MAX_URL else "")
        if url.scheme not in ("http", "https"):
            raise ValueError
        if "@" in url.netloc:
            raise UsageError(
                "the address of a source must not hold an account: it would stand in boot files and logs",
                hint="give the library's directory to the nodes' network without one, or use the source controller",
                code="bad-source",
            )
        host, port = url.hostname or "", url.port
        named = _HOST.fullmatch(host) is not None or (":" in host and _is_ipv6(host))
        path = url.path.rstrip("/")
        if not named or port == 0 or url.query or url.fragment or not _PATH.fullmatch(path):
            raise ValueError
    except ValueError:
        raise UsageError(f"{text[:200]!r} is no source of images", hint=_HINT, code="bad-source") from None
    tls = url.scheme == "https"
    return Place(tls, host, port or (443 if tls else 80), path)


def _is_ipv6(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, host)
    except OSError:
        return False
    return True
