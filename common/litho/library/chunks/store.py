"""The directory `.chunks` of a library: which packs there are, and the renames that move a pack from one state to the next.

    <id>.pack.part        being written
    <id>.pack             whole and synced, and counted as soon as it has an index:
    <id>.idx              live: new captures may refer to its chunks
    <id>.idx.condemned    nothing needed it when the collector looked; new captures do not refer to it, old references still work
    <id>.idx.doomed       being deleted
    <id>.checked          receipt: the whole pack was read and right (`trust`)

Only renames move a pack: `condemn` idx to condemned, `hold` condemned back to idx, `doom` condemned to doomed. Where a capture
and the collector want the same pack at the same time, both rename the same name and one of them wins. `gc` tells why nothing is
lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import msgspec

from litho.errors import LibraryError
from litho.library import files
from litho.library.chunks import pack as packs
from litho.library.chunks.pack import PackIndex
from litho.library.chunks.spans import PackFiles, PackSource
from litho.library.shelf import Library

DIRECTORY = ".chunks"
MAX_CATALOG = 4 * 1024**3
_CACHED = 128
"""Pack indexes held in memory: of packs with 256 MB, about 25 MB."""
_NAME = re.compile(
    r"(?P<id>[0-9a-f]{32})\.(?P<kind>pack|pack\.part|idx|idx\.condemned|idx\.doomed|checked|catalog)", re.ASCII
)


class Listing(msgspec.Struct, frozen=True):
    """The names in the directory at one moment, by kind, as identifiers."""

    pack: frozenset[bytes]
    unfinished: frozenset[bytes]
    live: frozenset[bytes]
    condemned: frozenset[bytes]
    doomed: frozenset[bytes]
    catalogs: frozenset[bytes]
    other: frozenset[str]
    """Names of none of these kinds, temporary files among them."""
    checked: frozenset[bytes] = frozenset()


def sort_names(names: Iterable[str]) -> Listing:
    """Names of `.chunks` by kind. Pure."""
    kinds: dict[str, set[bytes]] = {}
    other: set[str] = set()
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            other.add(name)
        else:
            kinds.setdefault(match["kind"], set()).add(bytes.fromhex(match["id"]))

    def of(kind: str) -> frozenset[bytes]:
        return frozenset(kinds.get(kind, ()))

    return Listing(
        pack=of("pack"),
        unfinished=of("pack.part"),
        live=of("idx"),
        condemned=of("idx.condemned"),
        doomed=of("idx.doomed"),
        catalogs=of("catalog"),
        other=frozenset(other),
        checked=of("checked"),
    )


class ChunkStore:
    """The chunks of an opened library. Safe to use from several threads."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.root = library.root / DIRECTORY
        self.packs: PackSource = library.packs or PackFiles(self.root)
        """Where the bytes of packs are read from; all that changes a pack works on `root`."""
        self._cache: OrderedDict[bytes, PackIndex] = OrderedDict()
        self._last: PackIndex | None = None
        """The index that was asked for last: what lies side by side on a disk does so in a pack, nearly."""
        self._lock = threading.Lock()

    def make(self) -> None:
        """Make the directory if there is none. Raises LibraryError."""
        with files.telling(self.library.root):
            if not self.root.is_dir():
                self.root.mkdir(exist_ok=True)
                files.fsync_dir(self.library.root)

    def listing(self) -> Listing:
        """What is there; nothing when no chunk was ever stored. Raises LibraryError."""
        try:
            return sort_names([path.name for path in self.root.iterdir()])
        except FileNotFoundError:
            return sort_names(())
        except OSError as exc:
            raise files.library_error(exc, self.root) from exc

    def path(self, pack: bytes, kind: str) -> Path:
        """`<id>.<kind>`."""
        return self.root / f"{pack.hex()}.{kind}"

    def index(self, pack: bytes) -> PackIndex:
        """The index of a pack that is live or condemned, from memory if it was read before.

        Raises IntegrityError (code pack-missing) when there is none or its bytes are wrong, LibraryError.
        """
        last = self._last
        if last is not None and last.pack == pack:
            return last
        with self._lock:
            found = self._cache.get(pack)
            if found is not None:
                self._cache.move_to_end(pack)
                self._last = found
                return found
        found = packs.parse_index(self.packs.index(pack), pack)
        with self._lock:
            self._cache[pack] = found
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return found

    def forget(self, pack: bytes) -> None:
        """Drop what is remembered of a pack."""
        with self._lock:
            self._last = None
            self._cache.pop(pack, None)

    # ------------------------------------------------------------ a pack's states

    def publish(self, pack: bytes, size: int, records: list[packs.Record]) -> PackIndex:
        """Make the written and synced `<id>.pack.part` count. Raises OSError."""
        self.path(pack, "pack.part").rename(self.path(pack, "pack"))
        files.fsync_dir(self.root)
        data = packs.dump_index(pack, size, records)
        files.replace(self.path(pack, "idx"), data)
        return packs.parse_index(data, pack)

    def hold(self, wanted: Iterable[bytes]) -> set[bytes]:
        """Make sure that these packs are live, bringing back what is condemned; answers those that are gone.

        A pack whose file is gone counts as gone, whatever its index says.

        Raises LibraryError.
        """
        listing = self.listing()
        gone: set[bytes] = set()
        with files.telling(self.root):
            for pack in wanted:
                if pack not in listing.pack or (pack not in listing.live and not self._bring_back(pack)):
                    gone.add(pack)
            files.fsync_dir(self.root)
        return gone

    def _bring_back(self, pack: bytes) -> bool:
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):
                self.path(pack, "idx.condemned").rename(self.path(pack, "idx"))
                return True
            if self.path(pack, "idx").exists():
                return True
        return False

    def condemn(self, pack: bytes) -> None:
        """New captures shall not refer to it any more. Raises OSError."""
        path = self.path(pack, "idx")
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
            path.rename(self.path(pack, "idx.condemned"))

    def doom(self, pack: bytes) -> bool:
        """Delete a condemned pack; False when it was brought back before. Raises OSError."""
        try:
            self.path(pack, "idx.condemned").rename(self.path(pack, "idx.doomed"))
        except FileNotFoundError:
            return False
        self.finish_dooming(pack)
        return True

    def finish_dooming(self, pack: bytes) -> None:
        """The second half of `doom`, also after a crash. Raises OSError."""
        self.forget(pack)
        self.path(pack, "pack").unlink(missing_ok=True)
        self.path(pack, "checked").unlink(missing_ok=True)
        self.path(pack, "idx.doomed").unlink(missing_ok=True)

    def now(self) -> float:
        """The file server's clock, in seconds: the one that made the files' times. Raises LibraryError."""
        probe = self.root / f".clock.{secrets.token_hex(6)}.part"
        with files.telling(self.root):
            files.create(probe, b"")
            try:
                return probe.stat().st_mtime
            finally:
                probe.unlink(missing_ok=True)


def fresh_id() -> bytes:
    """A new pack's identifier."""
    return secrets.token_bytes(packs.ID)


def missing(gone: set[bytes]) -> LibraryError:
    """The error of a capture that refers to packs which were deleted meanwhile."""
    return LibraryError(
        f"{len(gone)} packs of chunks that this capture relied on were deleted while it ran",
        hint="start it again; what it stored is kept",
        code="chunks-gone",
    )
