"""Where the bytes of packs come from: the one small protocol between the reader of chunks and the world.

A `PackSource` knows packs by their identifier; a thread reads through `Spans` of its own. `PackFiles` is the library's directory.
A web server, and several sources together, are others (the agent's). What any of them hands over is hostile until
the reader has checked it: a pack's index by its own hash, each chunk by the hash that the image's index has of it.

Files are read past the page cache where that can be (`PackFile`).
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from litho.errors import IntegrityError
from litho.library import files
from litho.library.chunks import pack as packs

MAX_INDEX = packs.INDEX_HEADER + 8_000_000 * packs.RECORD
"""Bytes of a pack's index at most."""
INDEX_NAMES = ("idx", "idx.condemned", "idx")
"""Asked for twice under the first name: it may come back between the two looks."""
PAGE = 4096
"""Where a span begins and ends on these, and so does the memory that it goes to, it may come past this machine's page cache."""
_OPEN = 6

Blame = Callable[[IntegrityError], None]
"""Told that bytes are not what they should be. Returns when they may be read again from elsewhere; else raises what it was told,
or an error like it that says more. May be called from any thread."""
Watch = Callable[[int], None]
"""Told, while a span comes in, how many bytes of it are there; what it raises ends the reading."""


class PackMissingError(IntegrityError):
    """A pack's file is not there."""

    def __init__(self, pack: bytes, where: object) -> None:
        super().__init__(
            f"the pack {pack.hex()} is missing from {where}",
            hint="see which images need it with: litho image verify",
            code="pack-missing",
        )
        self.pack = pack


class Spans(Protocol):
    """One thread's way to the bytes of packs."""

    def read(self, pack: bytes, start: int, view: memoryview) -> None:
        """Fill `view` with the pack's bytes from `start` on. Raises PackMissingError, IntegrityError, LibraryError."""

    def blame(self) -> Blame:
        """Whom to tell when what was read last turns out to be wrong, also after something else was read."""

    def close(self) -> None:
        """Let go of files and connections."""


class PackSource(Protocol):
    """Something that has packs. Safe to use from several threads."""

    def index(self, pack: bytes) -> bytes:
        """The file of a pack's index. Raises PackMissingError, LibraryError."""

    def size(self, pack: bytes) -> int:
        """Bytes of the pack's file. Raises PackMissingError, LibraryError."""

    def spans(self, watch: Watch = lambda _: None) -> Spans:
        """A way to the bytes for one thread."""

    def gather(self) -> None:
        """A pack is missing: see to it that the library's directory says what others there are. Raises LibraryError."""


class PackFiles:
    """The packs in a directory."""

    def __init__(self, root: Path) -> None:
        """`root` is the directory `.chunks`."""
        self._root = root

    def __str__(self) -> str:
        return str(self._root.parent)

    def index(self, pack: bytes) -> bytes:
        """The file of a pack's index."""
        for kind in INDEX_NAMES:
            try:
                return files.read_small(self._root / f"{pack.hex()}.{kind}", MAX_INDEX)
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise files.library_error(exc, self._root) from exc
        raise PackMissingError(pack, self._root)

    def size(self, pack: bytes) -> int:
        """Bytes of the pack's file."""
        try:
            return (self._root / f"{pack.hex()}.pack").stat().st_size
        except FileNotFoundError as exc:
            raise PackMissingError(pack, self._root) from exc
        except OSError as exc:
            raise files.library_error(exc, self._root) from exc

    def gather(self) -> None:
        """It is the directory."""

    def spans(self, watch: Watch = lambda _: None) -> FileSpans:
        """A way to the bytes for one thread. A read of a file cannot be watched: it comes as a whole."""
        return FileSpans(self._root)


class FileSpans:
    """Packs that are read as files, a few of them open at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._packs: OrderedDict[bytes, PackFile] = OrderedDict()
        self._last = b""

    def read(self, pack: bytes, start: int, view: memoryview) -> None:
        """Fill `view`."""
        self._last = pack
        with files.telling(self._root):
            if self._open(pack).read(start, view) < len(view):
                self._doubt(pack)
                raise IntegrityError(f"the pack {pack.hex()} is shorter than its index says", code="corrupt-pack")

    def blame(self) -> Blame:
        """A file is not read twice in the hope that it says something else."""
        pack = self._last

        def wrong(problem: IntegrityError) -> None:
            self._doubt(pack)
            raise problem

        return wrong

    def _doubt(self, pack: bytes) -> None:
        """A pack is damaged: take the receipt away that says otherwise (`trust`), if the library can be written."""
        with contextlib.suppress(OSError):
            (self._root / f"{pack.hex()}.checked").unlink(missing_ok=True)

    def _open(self, pack: bytes) -> PackFile:
        found = self._packs.get(pack)
        if found is not None:
            self._packs.move_to_end(pack)
            return found
        try:
            found = PackFile(self._root / f"{pack.hex()}.pack", pack)
        except FileNotFoundError as exc:
            raise PackMissingError(pack, self._root) from exc
        try:
            found.check_header()
        except BaseException as exc:
            found.close()
            if isinstance(exc, IntegrityError):
                self._doubt(pack)
            raise
        self._packs[pack] = found
        if len(self._packs) > _OPEN:
            _, old = self._packs.popitem(last=False)
            old.close()
        return found

    def close(self) -> None:
        """Close the packs."""
        for file in self._packs.values():
            file.close()
        self._packs.clear()


class PackFile:
    """One pack's file, open for reading.

    Whole pages come past this machine's page cache, if the file system can do that: the cache has no use for a pack, which a
    node reads once, and the copy out of it takes a node's cores a seventh of a restore. What a server remembers is not touched
    by that. The rest, and small pieces, come through the cache.
    """

    def __init__(self, path: Path, pack: bytes) -> None:
        """Opens it. Raises OSError."""
        self._pack = pack
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._direct = -1
        with contextlib.suppress(OSError):
            # By its own name it may be gone already.
            self._direct = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)

    @property
    def size(self) -> int:
        """Bytes of the file. Raises OSError."""
        return os.fstat(self._fd).st_size

    def check_header(self) -> None:
        """Raises OSError; IntegrityError when it is not what its name says, LibraryError when it is of a newer format."""
        page = memoryview(mmap.mmap(-1, PAGE))
        packs.check_pack_header(bytes(page[: self.read(0, page)]), self._pack)

    def read(self, start: int, view: memoryview) -> int:
        """Fill `view` from `start` on, as far as the file goes; answers how many bytes that are. Raises OSError."""
        at = 0
        while at < len(view):
            left = len(view) - at
            whole = 0 if (start + at) % PAGE else left - left % PAGE
            count = self._read(start + at, view[at : at + (whole or left)], whole=bool(whole))
            if count == 0:
                break
            at += count
        return at

    def _read(self, start: int, view: memoryview, *, whole: bool) -> int:
        if whole and self._direct >= 0:
            try:
                return os.preadv(self._direct, [view], start)
            except OSError:
                # The memory does not suit it, or the file system. Or the bytes cannot be read: then the cache says so in
                # the words of files, and not in those of a disk.
                os.close(self._direct)
                self._direct = -1
        return os.preadv(self._fd, [view], start)

    def forget(self) -> None:
        """What the disk or the server has is to be read, not what this machine remembers of it. Raises OSError."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close it."""
        for fd in (self._fd, self._direct):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._fd = self._direct = -1
