"""What one capture does about bad sectors: how much it may lose, where it ended, what it lost, and the sentences about that.

The rules and words are in `engines.bad`; here they meet the job, its disk and its pieces. For a save that failed the disk is
read once more around the place where the stream broke off, because most programs say that they failed and not where:
partimage ends without a word, partclone with a box of stars.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from litho.errors import DiskError, EngineError, LithoError, MissingProgramError
from litho.job import Job
from litho.library import Part
from litho.messages import DiskFacts
from litho_agent.engines import bad
from litho_agent.engines.bad import BadMap, Place
from litho_agent.engines.base import Engine
from litho_agent.engines.choose import CHUNK
from litho_agent.engines.used import Extent, used_extents
from litho_agent.survey import Piece
from litho_agent.telling import Teller

_SUSPECT = ("disk-io", "engine-failed", "engine-crashed", "engine-unproven")
"""Codes of failures that a bad sector may be behind."""


_TABLE_SUSPECT = ("read-error", "bad-table", "unreadable", "disk-io")
"""The same of failures to read a partition table."""
_ENDS = 2 * 1024 * 1024
"""Bytes at either end of a disk in which tables lie, and what is stored beside them."""


@contextlib.contextmanager
def table_read(disk: DiskFacts) -> Iterator[None]:
    """A failure in here to read the table of `disk` that a bad sector is behind becomes an error that says where it is.

    Raises DiskError (`bad-sector`, `disk-gone`) then, what was raised otherwise.
    """
    try:
        yield
    except (EngineError, DiskError) as exc:
        path = Path(disk.path)
        if exc.code not in _TABLE_SUSPECT:
            raise
        if bad.silent(path):
            raise bad.gone(Place(disk=disk, name=path.name, start=0)) from exc
        ends = (Extent(0, min(_ENDS, disk.size)), Extent(max(0, disk.size - _ENDS), min(_ENDS, disk.size)))
        found = bad.find(path, ends)
        if found is None:
            raise
        raise bad.tableless(disk, found) from exc


class Losses:
    """The bad sectors of one capture. May be used by several threads."""

    def __init__(self, job: Job, disk: DiskFacts, teller: Teller) -> None:
        self._job = job
        self._disk = disk
        self._teller = teller
        self._lock = threading.Lock()
        self._notes: dict[int, str] = {}

    def may_lose(self, piece: Piece, engine: Engine) -> int:
        """How many bytes of `piece` its engine may leave out; 0 ends it at the first bad sector."""
        return bad.may_lose(piece.used) if self._job.on_bad_sector == "continue" and engine.rescues else 0

    def careful(self, pieces: Sequence[Piece]) -> contextlib.AbstractContextManager[None]:
        """While it lasts, a bad sector costs as little as can be of what lies beside it; reading is slower."""
        going_on = [piece.device for piece in pieces if piece.engine is not None and self.may_lose(piece, piece.engine)]
        return bad.without_readahead(going_on)

    @contextlib.contextmanager
    def placed(self, piece: Piece, done: Callable[[], int]) -> Iterator[None]:
        """A failure in here that a bad sector is behind becomes an error that says where it is.

        `done` tells how many used bytes had moved. Raises DiskError (`bad-sector`, `disk-gone`) then, what was raised otherwise.
        """
        try:
            yield
        except (EngineError, DiskError) as exc:
            if isinstance(exc, MissingProgramError) or exc.code not in _SUSPECT:
                raise
            if bad.silent(piece.device):
                raise bad.gone(self._place(piece)) from exc
            found = bad.find(piece.device, bad.near(_extents(piece), done()))
            if found is None:
                raise
            engine = piece.engine.name if piece.engine else CHUNK
            rescues = piece.engine is None or piece.engine.rescues
            going_on = rescues and self._job.on_bad_sector == "continue"
            if going_on:
                # It was told to go on and ended all the same: the sector is no news, the reason is.
                raise
            raise bad.stopped(self._place(piece), found, engine=engine, rescues=rescues) from exc

    def keep(self, piece: Piece, part: Part, lost: BadMap | None = None) -> Part:
        """`part` with what could not be read of it, which is noted. `lost` is what a stream's engine said.

        Raises DiskError when so much is lost that there is no image.
        """
        if lost is not None and lost.bytes:
            part = msgspec.structs.replace(part, bad=lost.ranges, bad_bytes=lost.bytes, bad_places=lost.places)
        elif part.bad:
            count, places = part.lost
            part = msgspec.structs.replace(part, bad=part.bad[: bad.MOST_PLACES], bad_bytes=count, bad_places=places)
        if part.bad_bytes > bad.may_lose(piece.used):
            raise bad.too_many(piece.device, part.bad_bytes)
        if part.bad:
            text = bad.told(self._place(piece), part)
            with self._lock:
                self._notes[piece.number] = text
            self._teller.note(text)
        return part

    def cannot(self, pieces: Sequence[Piece]) -> list[str]:
        """What a person should know before: partitions whose engine ends at the first bad sector although it was to go on."""
        if self._job.on_bad_sector == "stop":
            return []
        return [
            f"{piece.name}: {piece.engine.name} cannot go on past a bad sector and ends at the first; other engines can"
            for piece in pieces
            if piece.engine is not None and not piece.engine.rescues
        ]

    @property
    def notes(self) -> list[str]:
        """What a person should know, partition by partition."""
        return [self._notes[number] for number in sorted(self._notes)]

    def _place(self, piece: Piece) -> Place:
        return Place(disk=self._disk, name=piece.name, start=piece.start)


def _extents(piece: Piece) -> tuple[Extent, ...]:
    """The used bytes of `piece`, as far as they can be told from a disk that fails."""
    try:
        found = used_extents(piece.device, piece.probe.type)
    except LithoError:
        found = None
    return found or (Extent(0, piece.size),)
