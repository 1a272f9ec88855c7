"""One connection to a web server, kept open between requests; it belongs to one thread.

Everything has a limit: connecting, the head of an answer, the time without a byte, and the mean rate of a body, so that a server
which sends one byte in ten seconds holds nobody. While it waits, a connection asks twice a second whether the job was
cancelled. What is read goes straight into the buffer that it is for. Neither redirects nor the environment's proxies are
followed.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import msgspec

from litho import __version__
from litho.errors import CancelledError, ConfigError
from litho.library.chunks.spans import Watch
from litho.library.sources import Place
from litho_agent.remote import answers
from litho_agent.remote.answers import Body, SourceError

EXTRA_CA = Path("/etc/lithograph/ca.pem")
"""Certificates that are trusted besides the system's, where this file is there."""
_BLOCK = 1024 * 1024
_POLL_S = 0.5


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long a server may take, in seconds."""

    connect_s: float = 10.0
    head_s: float = 20.0
    """From the request to the end of the answer's fields."""
    silent_s: float = 20.0
    """Without any byte."""
    drip_s: float = 60.0
    """After this time a body must have come at `drip_rate` at least."""
    drip_rate: float = 16 * 1024
    """Bytes a second."""


def context(ca: Path | None = None) -> ssl.SSLContext:
    """What is trusted: the system's certificates, and those in `ca`, or in `EXTRA_CA` if that is there. Raises ConfigError."""
    made = ssl.create_default_context()
    path = ca or (EXTRA_CA if EXTRA_CA.exists() else None)
    if path is not None:
        try:
            made.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(
                f"the certificates in {path} cannot be read ({_words(exc)})", hint="give a file in PEM", code="bad-ca"
            ) from exc
    return made


class _ClosedError(SourceError):
    """The connection is gone, which it may have been before the request: worth a new one at once."""


class Connection:
    """To one server. Use by one thread."""

    def __init__(
        self,
        place: Place,
        *,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._place = place
        self._token = token
        self._tls = tls
        self._limits = limits
        self._cancelled = cancelled
        self._socket: socket.socket | None = None
        self._lasts = False

    def whole(self, name: str, limit: int) -> bytes:
        """A file of at most `limit` bytes. Raises SourceError, CancelledError."""
        body, early = self._ask(name, limit, None)
        data = bytearray(body.length)
        self._receive(memoryview(data), early, lambda _: None)
        return bytes(data)

    def span(self, name: str, start: int, view: memoryview, watch: Watch = lambda _: None) -> int:
        """Fill `view` with the file's bytes from `start` on; answers the file's length. Raises SourceError, CancelledError,
        and what `watch` raises."""
        body, early = self._ask(name, len(view), start)
        self._receive(view, early, watch)
        return body.total

    def _ask(self, name: str, limit: int, start: int | None) -> tuple[Body, bytes]:
        """Send the request and read the head; also answers what came behind it. A connection that the server has closed since
        it was used last is made anew, once."""
        request = self._request(name, limit, start)
        kept = self._socket is not None
        while True:
            try:
                data, early = self._exchange(request)
                break
            except _ClosedError:
                self.close()
                if not kept:
                    raise
                kept = False
            except BaseException:
                self.close()
                raise
        try:
            head = answers.read_head(data)
            body = answers.body(head, limit=limit, start=start)
            if len(early) > body.length:
                raise SourceError("it sends more than it announced", lasting=True)
        except BaseException:
            # What else it sends is not waited for.
            self.close()
            raise
        self._lasts = head.lasts
        return body, early

    def _request(self, name: str, limit: int, start: int | None) -> bytes:
        place = self._place
        host = f"[{place.host}]" if ":" in place.host else place.host
        lines = [
            f"GET {place.path}/{urllib.parse.quote(name)} HTTP/1.1",
            f"Host: {host}:{place.port}",
            f"User-Agent: litho-agent/{__version__}",
            "Accept-Encoding: identity",
        ]
        if start is not None:
            lines.append(f"Range: bytes={start}-{start + limit - 1}")
        if self._token:
            lines.append(f"Authorization: Bearer {self._token}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def _exchange(self, request: bytes) -> tuple[bytes, bytes]:
        if self._socket is None:
            self._socket = self._connect()
        until = time.monotonic() + self._limits.head_s
        try:
            self._socket.settimeout(self._limits.head_s)
            self._socket.sendall(request)
        except (OSError, ValueError) as exc:
            raise _ClosedError(f"it does not take a request ({_words(exc)})") from exc
        data = bytearray()
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > answers.MAX_HEAD:
                raise answers.too_long()
            if time.monotonic() >= until:
                raise SourceError("it did not answer in time")
            part = bytearray(answers.MAX_HEAD)
            count = self._some(memoryview(part), until, "it did not answer")
            if count == 0:
                raise _ClosedError("it closed the connection without an answer")
            data += part[:count]
        return bytes(data[:end]), bytes(data[end + 4 :])

    def _connect(self) -> socket.socket:
        where = self._place
        made: socket.socket | None = None
        try:
            made = socket.create_connection((where.host, where.port), timeout=self._limits.connect_s)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if where.tls:
                made = (self._tls or context()).wrap_socket(made, server_hostname=where.host)
        except ssl.SSLCertVerificationError as exc:
            _shut(made)
            raise SourceError(f"its certificate is not trusted ({exc.verify_message})", lasting=True) from exc
        except (OSError, ValueError) as exc:
            _shut(made)
            raise SourceError(f"it cannot be reached ({_words(exc)})") from exc
        return made

    def _receive(self, view: memoryview, early: bytes, watch: Watch) -> None:
        """Fill `view`, of which `early` came already."""
        limits = self._limits
        view[: len(early)] = early
        at = len(early)
        begun = time.monotonic()

        def tell() -> None:
            watch(at)

        try:
            while at < len(view):
                until = time.monotonic() + limits.silent_s
                count = self._some(view[at : at + _BLOCK], until, "it fell silent in the middle", tell)
                if count == 0:
                    raise SourceError(f"it closed the connection after {at} of {len(view)} bytes")
                at += count
                took = time.monotonic() - begun
                if took > limits.drip_s and at < took * limits.drip_rate:
                    raise SourceError(f"it sent {at} bytes in {took:.0f} s")
                tell()
        except BaseException:
            self.close()
            raise
        if not self._lasts:
            self.close()

    def _some(self, view: memoryview, until: float, what: str, meanwhile: Callable[[], None] = lambda: None) -> int:
        """At least one byte into `view`; 0 at the end. Raises SourceError when there is none before `until`."""
        assert self._socket is not None  # noqa: S101 - a request was sent on it
        self._socket.settimeout(_POLL_S)
        while True:
            if self._cancelled():
                raise CancelledError("the task was cancelled on request")
            try:
                return self._socket.recv_into(view)
            except TimeoutError:
                meanwhile()
                if time.monotonic() >= until:
                    raise SourceError(f"{what} (timed out)") from None
            except ConnectionError as exc:
                raise _ClosedError(f"{what} ({_words(exc)})") from exc
            except (OSError, ValueError) as exc:
                raise SourceError(f"{what} ({_words(exc)})") from exc

    def close(self) -> None:
        """End the connection; the next request makes a new one."""
        _shut(self._socket)
        self._socket = None


def _shut(made: socket.socket | None) -> None:
    if made is not None:
        with contextlib.suppress(OSError):
            made.close()


def _words(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "timed out"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return str(exc)[:200] or type(exc).__name__
