"""One web server that gives out a library's directory, as a source of packs and of an image's small files."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable

import msgspec

from litho.errors import IntegrityError
from litho.library import sources
from litho.library.chunks import pack as packs
from litho.library.chunks.spans import INDEX_NAMES, MAX_INDEX, Blame, PackMissingError, Watch
from litho.library.chunks.store import DIRECTORY
from litho_agent.remote.answers import SourceError
from litho_agent.remote.wire import Connection, Limits


class Web(msgspec.Struct, frozen=True):
    """An address of the library, as the worker is handed it."""

    url: str
    token: str = ""
    """What the controller wants to see; never shown."""

    def __repr__(self) -> str:
        """Without the token, so that it can be logged."""
        return f"Web({self.url!r})"


class WebSource:
    """The library's directory on one server. Safe to use from several threads."""

    def __init__(
        self,
        web: Web,
        *,
        tls: ssl.SSLContext | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Raises UsageError for an address that is none."""
        self._place = sources.place(web.url)
        self._token = web.token
        self._tls = tls
        self._limits = limits
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._small = self.connect()
        self._sizes: dict[bytes, int] = {}

    def __str__(self) -> str:
        return str(self._place)

    def connect(self) -> Connection:
        """A new connection, for one thread."""
        return Connection(self._place, token=self._token, tls=self._tls, limits=self._limits, cancelled=self._cancelled)

    def whole(self, name: str, limit: int) -> bytes:
        """A file of the library of at most `limit` bytes. Raises SourceError, CancelledError."""
        with self._lock:
            return self._small.whole(name, limit)

    def index(self, pack: bytes) -> bytes:
        """The file of a pack's index. Raises PackMissingError, SourceError, CancelledError."""
        for kind in INDEX_NAMES:
            try:
                return self.whole(f"{DIRECTORY}/{pack.hex()}.{kind}", MAX_INDEX)
            except SourceError as exc:
                if not exc.missing:
                    raise
        raise PackMissingError(pack, self)

    def size(self, pack: bytes) -> int:
        """Bytes of the pack's file, whose beginning is read and checked. Raises PackMissingError, IntegrityError, SourceError,
        CancelledError."""
        if pack not in self._sizes:
            head = bytearray(packs.PACK_HEADER)
            with self._lock:
                size = _span(self, self._small, pack, 0, view=memoryview(head), watch=lambda _: None)
            packs.check_pack_header(bytes(head), pack)
            self._sizes[pack] = size
        return self._sizes[pack]

    def gather(self) -> None:
        """Done for all sources together (`several`)."""

    def spans(self, watch: Watch = lambda _: None) -> WebSpans:
        """A way to the bytes for one thread."""
        return WebSpans(self, self.connect(), watch)

    def close(self) -> None:
        """Close the connection for small files."""
        with self._lock:
            self._small.close()


class WebSpans:
    """The packs of one server, read over one connection."""

    def __init__(self, source: WebSource, connection: Connection, watch: Watch) -> None:
        self._source = source
        self._connection = connection
        self._watch = watch

    def read(self, pack: bytes, start: int, view: memoryview) -> None:
        """Fill `view`. Raises PackMissingError, SourceError, CancelledError, and what the watch raises."""
        _span(self._source, self._connection, pack, start, view=view, watch=self._watch)

    def blame(self) -> Blame:
        """One server says the same again."""

        def wrong(problem: IntegrityError) -> None:
            raise IntegrityError(
                f"{self._source}: {problem.message}", hint=problem.hint, code=problem.code
            ) from problem

        return wrong

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def _span(source: WebSource, connection: Connection, pack: bytes, start: int, *, view: memoryview, watch: Watch) -> int:
    try:
        return connection.span(f"{DIRECTORY}/{pack.hex()}.pack", start, view, watch)
    except SourceError as exc:
        if exc.missing:
            raise PackMissingError(pack, source) from exc
        raise
