"""Several sources of one library, read as one: each span is asked from one of them, and from another one when that fails.

Which one is asked, and which one is left, is `standing`'s rule; here the requests are made, watched while they come in, and told
to it. A source is met before it is read: its marker must be that of the same library. Bytes that turn out to be wrong are
blamed on the source that gave them, and asked for elsewhere; a pack that one source does not have may be at another.

Safe to use from several threads. Each reads through `Spans` of its own, with a connection for each source.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from litho.errors import CancelledError, IntegrityError, LibraryError
from litho.library import files, shelf
from litho.library.chunks import catalog, roll
from litho.library.chunks import pack as packs
from litho.library.chunks.spans import Blame, PackFiles, PackMissingError, PackSource, Spans, Watch
from litho.library.chunks.store import DIRECTORY, MAX_CATALOG
from litho_agent.remote.answers import SourceError
from litho_agent.remote.standing import PATIENCE_S, Standings

T = TypeVar("T")
Note = Callable[[str], None]
Tell = Callable[[Standings, float], str]
_NAP_S = 0.2


class Source(PackSource, Protocol):
    """A library's directory, wherever it is; its text is its name."""

    def whole(self, name: str, limit: int) -> bytes:
        """A file of at most `limit` bytes. Raises SourceError, LibraryError."""


class Mounted(PackFiles):
    """The library's directory on this machine, as one source among others."""

    def __init__(self, root: Path, directory: Path) -> None:
        """`root` is the library, `directory` its `.chunks`."""
        super().__init__(directory)
        self._library = root

    def __str__(self) -> str:
        return "nfs"

    def whole(self, name: str, limit: int) -> bytes:
        """A file of at most `limit` bytes."""
        try:
            return files.read_small(self._library / name, limit)
        except FileNotFoundError as exc:
            raise SourceError("it does not have the file", missing=True) from exc
        except OSError as exc:
            raise files.library_error(exc, self._library) from exc


class _DragsError(Exception):
    """A span comes in too slowly to be waited for."""


class Several:
    """The sources of one job, as one source of packs and small files."""

    def __init__(
        self,
        members: Sequence[Source],
        *,
        note: Note,
        cancelled: Callable[[], bool] = lambda: False,
        identity: str = "",
        room: Path | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`note` is told which source is left, and why. `identity` is the library's; empty: the first that answers says it.
        `room` is a directory `.chunks` of our own, for what tells where chunks are; None: there is a real one."""
        self.room = room
        self._members = tuple(members)
        self._standings = Standings([str(one) for one in members], now=time.monotonic(), patience_s=patience_s)
        self._note = note
        self._cancelled = cancelled
        self.identity = identity
        """The library's; empty until a source has answered."""
        self._met: set[int] = set()
        self._lacks: set[tuple[int, bytes]] = set()
        self._sizes: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return ", ".join(str(one) for one in self._members)

    def index(self, pack: bytes) -> bytes:
        """The file of a pack's index, whole. Raises PackMissingError, LibraryError, CancelledError."""

        def read(i: int) -> tuple[bytes, int]:
            data = self._members[i].index(pack)
            self._sizes[pack] = packs.parse_index(data, pack).size
            return data, 0

        return self.ask(read, pack)

    def size(self, pack: bytes) -> int:
        """Bytes of the pack's file; a source where it is not as long as its index says is left."""

        def read(i: int) -> tuple[int, int]:
            size = self._members[i].size(pack)
            if size != self._sizes.get(pack, size):
                raise IntegrityError(f"the pack {pack.hex()} has {size} bytes instead of {self._sizes[pack]}")
            return size, 0

        return self.ask(read, pack)

    def whole(self, name: str, limit: int, check: Callable[[bytes], T]) -> T:
        """What `check` makes of a small file; it raises IntegrityError for wrong bytes. Raises SourceError (missing) when no
        source has it, LibraryError, CancelledError."""
        return self.ask(lambda i: (check(self._members[i].whole(name, limit)), 0), b"")

    def gather(self) -> None:
        """Fetch the roll and the catalogs into the room, once. A library that was never collected has no roll."""
        room, self.room = self.room, None
        if room is None:
            return
        try:
            listing = self.whole(f"{DIRECTORY}/{roll.NAME}", roll.MAX_BYTES, roll.parse)
        except SourceError as exc:
            if not exc.missing:
                raise
            return
        with files.telling(room):
            for pack in listing.live:
                # Only their names count: their indexes are read from the sources.
                (room / f"{pack.hex()}.idx").touch()
                (room / f"{pack.hex()}.pack").touch()
            for name in listing.catalogs:
                file = f"{name.hex()}.catalog"
                try:
                    (room / file).write_bytes(self.whole(f"{DIRECTORY}/{file}", MAX_CATALOG, _catalog))
                except SourceError as exc:
                    if not exc.missing:
                        raise

    def spans(self, watch: Watch = lambda _: None) -> SeveralSpans:
        """A way to the bytes for one thread."""
        return SeveralSpans(self, watch)

    def told(self) -> str:
        """How much came from where, for the log."""
        shares = [f"{one.bytes / 1e6:.1f} MB from {one.name}" for one in self._standings.all]
        return f"read {', '.join(shares)}"

    def blame(self, i: int, problem: IntegrityError) -> None:
        """The source in place `i` gave wrong bytes. Raises IntegrityError when none is left."""
        with self._lock:
            said = self._standings.wrong(i, problem.message)
            over = self._standings.over(time.monotonic())
        self._say(said)
        if over:
            raise self._gone() from problem

    def member(self, i: int) -> Source:
        """The source in place `i`."""
        return self._members[i]

    def drags(self, i: int, count: int, seconds: float) -> bool:
        """True when a request that has given `count` bytes in `seconds` is not worth waiting for."""
        with self._lock:
            return self._standings.drags(i, count, seconds)

    def ask(self, read: Callable[[int], tuple[T, int]], pack: bytes) -> T:
        """What `read`, which is told a source's place, answers, and how many bytes it was; asked until one has answered."""
        with self._lock:
            lacking = {i for i, one in self._lacks if one == pack}
        asked = time.monotonic()
        while True:
            i = self._next(lacking, pack, asked)
            since = time.monotonic()
            try:
                self._meet(i)
                answer, count = read(i)
            except (PackMissingError, SourceError) as exc:
                if isinstance(exc, PackMissingError) or exc.missing:
                    lacking.add(i)
                    self._end(i, self._lacking(i, pack))
                else:
                    self._end(i, _failed(i, exc, lasting=exc.lasting))
            except _DragsError as exc:
                self._end(i, _slow(i, int(exc.args[0]), time.monotonic() - since))
            except IntegrityError as exc:
                self._end(i, _nothing)
                self.blame(i, exc)
            except LibraryError as exc:
                if exc.code == "newer-format":
                    self._end(i, _nothing)
                    raise
                self._end(i, _failed(i, exc))
            except BaseException:
                self._end(i, _nothing)
                raise
            else:
                self._end(i, _gave(i, count, time.monotonic() - since))
                return answer

    def _next(self, lacking: set[int], pack: bytes, since: float) -> int:
        """The source to ask for what is wanted since `since`, as soon as one may be asked."""
        while True:
            if self._cancelled():
                raise CancelledError("the task was cancelled on request")
            now = time.monotonic()
            with self._lock:
                if self._standings.over(now):
                    raise self._gone()
                if lacking and self._standings.vain(now, since, lacking):
                    raise self._unanswered(lacking, pack)
                i = self._standings.choose(now, lacking)
                if i is not None:
                    self._standings.begun(i)
                    return i
                wait = self._standings.wait(now, lacking)
            if wait is None:
                if pack:
                    raise PackMissingError(pack, self)
                raise SourceError(f"no source has the file ({self})", missing=True)
            time.sleep(min(max(wait, 0.01), _NAP_S))

    def _end(self, i: int, tell: Tell) -> None:
        with self._lock:
            self._standings.ended(i)
            said = tell(self._standings, time.monotonic())
        self._say(said)

    def _lacking(self, i: int, pack: bytes) -> Tell:
        def tell(standings: Standings, _: float) -> str:
            if not pack:
                return ""
            known = any(one == i for one, _ in self._lacks)
            self._lacks.add((i, pack))
            if known:
                return ""
            return f"the source {standings.all[i].name} does not have the pack {pack.hex()}: it is read elsewhere"

        return tell

    def _meet(self, i: int) -> None:
        """See that it is the same library. Raises SourceError."""
        if i in self._met:
            return
        try:
            data = self._members[i].whole(shelf.MARKER, shelf.SMALL)
        except SourceError as exc:
            if exc.missing:
                raise SourceError("there is no image library: it has no file .lithograph", lasting=True) from exc
            raise
        try:
            identity = msgspec.json.decode(data, type=shelf.Marker).library
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise SourceError("its file .lithograph is none", lasting=True) from exc
        with self._lock:
            self.identity = self.identity or identity
            if identity != self.identity:
                raise SourceError("it is another library than the first source", lasting=True)
            self._met.add(i)

    def _gone(self) -> LibraryError:
        causes = self._standings.causes()
        wrong = any("other bytes" in one.why for one in self._standings.all)
        kind = IntegrityError if wrong else LibraryError
        return kind(
            f"no source of the image is left ({causes})",
            hint="look at these servers, then start again; what was written need not be written again",
            code="sources-gone",
        )

    def _unanswered(self, lacking: set[int], pack: bytes) -> LibraryError:
        """What some do not have, and the others do not answer for."""
        causes = self._standings.causes(lacking)
        if pack:
            # Another pack may have its chunks.
            return PackMissingError(pack, causes)
        return LibraryError(
            f"no source of the image is left ({causes})",
            hint="look at these servers, then start again",
            code="sources-gone",
        )

    def _say(self, text: str) -> None:
        if text:
            self._note(text)


def _catalog(data: bytes) -> bytes:
    catalog.parse(data)
    return data


def _failed(i: int, exc: LibraryError, *, lasting: bool = False) -> Tell:
    spread = random.uniform(0.7, 1.3)  # noqa: S311 - spreads load, guards nothing
    return lambda standings, now: standings.failed(i, exc.message, now, lasting=lasting, spread=spread)


def _slow(i: int, count: int, seconds: float) -> Tell:
    return lambda standings, _: standings.slow(i, count, seconds)


def _gave(i: int, count: int, seconds: float) -> Tell:
    return lambda standings, now: standings.gave(i, count, seconds, now)


def _nothing(_standings: Standings, _now: float) -> str:
    return ""


class SeveralSpans:
    """One thread's way to the packs of several sources."""

    def __init__(self, several: Several, watch: Watch) -> None:
        self._several = several
        self._watch = watch
        self._spans: dict[int, Spans] = {}
        self._last = -1
        self._since = 0.0

    def read(self, pack: bytes, start: int, view: memoryview) -> None:
        """Fill `view` from the source that should be done first. Raises PackMissingError, LibraryError, CancelledError."""

        def one(i: int) -> tuple[None, int]:
            if i not in self._spans:
                self._spans[i] = self._several.member(i).spans(lambda got: self._watched(i, got))
            self._since = time.monotonic()
            self._spans[i].read(pack, start, view)
            self._last = i
            return None, len(view)

        self._several.ask(one, pack)

    def blame(self) -> Blame:
        """Leave the source that gave it; raises IntegrityError when none is left."""
        last, tell = self._last, self._spans[self._last].blame()

        def wrong(problem: IntegrityError) -> None:
            with contextlib.suppress(IntegrityError):
                # It may want to know.
                tell(problem)
            self._several.blame(last, problem)

        return wrong

    def _watched(self, i: int, got: int) -> None:
        self._watch(got)
        if self._several.drags(i, got, time.monotonic() - self._since):
            raise _DragsError(got)

    def close(self) -> None:
        """End all connections."""
        for one in self._spans.values():
            one.close()
        self._spans.clear()
