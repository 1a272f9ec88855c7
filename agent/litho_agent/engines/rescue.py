"""Reading a partition that has bad sectors: a small program of its own, run as a child like every other engine.

    rescue.py copy DEVICE SIZE MOST     SIZE bytes of DEVICE to standard output, zeros where it cannot be read
    rescue.py find DEVICE               the first place that cannot be read, in the ranges on standard input

Both say `bad START SIZE` on standard error, in bytes from the device's start, for each run of sectors that cannot be read;
`copy` ends with a count of its bytes as `dd` does. It gives up (exit code 1) once more than MOST bytes are lost: a disk that has
vanished fails every read, and a stream of zeros is no image of it. `find` stops at the first place.

A read that fails is halved until one sector is left, so a single bad sector costs some twenty short reads, and what lies beside
it is kept. Reads go past the page cache where the device allows: the cache knows pages of 4 KiB only, and would lose eight
sectors for one.

A process of its own, because a disk that hangs in the kernel hangs whoever reads it. It uses the standard library only, so that
it runs wherever the agent's interpreter does.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import stat
import sys
from pathlib import Path

BLOCK = 1024 * 1024
UNREADABLE = frozenset({errno.EIO, errno.EILSEQ, errno.EREMOTEIO, errno.ENODATA, errno.EBADMSG})
"""What the kernel answers for sectors that cannot be read. ENODATA is its word for a medium error past the page cache."""
_BLKSSZGET = 0x1268


def copy_command(device: Path, size: int, most: int) -> tuple[str | Path, ...]:
    """The command that streams `size` bytes of `device` and goes on past bad sectors until more than `most` bytes are lost."""
    return (sys.executable, "-I", __file__, "copy", device, str(size), str(most))


def find_command(device: Path) -> tuple[str | Path, ...]:
    """The command that looks for the first bad sectors of `device` in the ranges that it is told."""
    return (sys.executable, "-I", __file__, "find", device)


class TooMuchError(Exception):
    """More is lost than may be."""


class Reader:
    """A device, read in blocks; what cannot be read is zeros, and is told."""

    def __init__(self, path: str, most: int, *, first_only: bool = False) -> None:
        """Raises OSError. At most `most` bytes may be lost; `first_only` gives up at the end of the first run."""
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        block = stat.S_ISBLK(os.fstat(self._fd).st_mode)
        self.sector = int.from_bytes(fcntl.ioctl(self._fd, _BLKSSZGET, bytes(4)), sys.byteorder) if block else 512
        try:
            self._direct = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError:
            self._direct = self._fd
        self._most = most
        self._first_only = first_only
        self._run: tuple[int, int] | None = None
        self.lost = 0

    def fill(self, offset: int, view: memoryview) -> None:
        """Fill `view` from byte `offset`. Raises OSError for what is no bad sector, TooMuchError."""
        try:
            self._read(offset, view)
        except OSError as exc:
            if exc.errno not in UNREADABLE:
                raise
        else:
            return
        if len(view) <= self.sector:
            view[:] = bytes(len(view))
            self._bad(offset, len(view))
            return
        half = max(self.sector, len(view) // 2 // self.sector * self.sector)
        self.fill(offset, view[:half])
        self.fill(offset + half, view[half:])

    def _read(self, offset: int, view: memoryview) -> None:
        at = 0
        while at < len(view):
            left = len(view) - at
            aligned = not (offset + at) % self.sector and not left % self.sector
            count = os.preadv(self._direct if aligned else self._fd, [view[at:]], offset + at)
            if count == 0:
                raise OSError(errno.ENXIO, f"it ends at byte {offset + at}")
            at += count

    def _bad(self, offset: int, size: int) -> None:
        if self._run is not None and self._run[1] != offset:
            self.tell()
            if self._first_only:
                raise TooMuchError
        self._run = (self._run[0] if self._run else offset, offset + size)
        self.lost += size
        if self.lost > self._most:
            self.tell()
            raise TooMuchError

    def tell(self) -> None:
        """Say the run of bad sectors that has ended, if there is one."""
        if self._run is not None:
            start, end = self._run
            self._run = None
            sys.stderr.write(f"bad {start} {end - start}\n")
            sys.stderr.flush()


def copy(path: str, size: int, most: int) -> int:
    """Stream `size` bytes of `path`. Returns the exit code. Raises OSError."""
    reader = Reader(path, most)
    buffer = memoryview(mmap.mmap(-1, BLOCK))
    out = sys.stdout.fileno()
    at = 0
    while at < size:
        view = buffer[: min(BLOCK, size - at)]
        try:
            reader.fill(at, view)
        except TooMuchError:
            sys.stderr.write(f"error reading '{path}': more than {most} bytes cannot be read\n")
            return 1
        at += len(view)
        while view:
            view = view[os.write(out, view) :]
    reader.tell()
    sys.stderr.write(f"{at} bytes copied, {reader.lost} of them could not be read\n")
    return 0


def find(path: str, ranges: list[tuple[int, int]]) -> int:
    """Look for the first run of bad sectors in `ranges` of (start, size). Returns the exit code. Raises OSError."""
    reader = Reader(path, BLOCK, first_only=True)
    buffer = memoryview(mmap.mmap(-1, BLOCK))
    for start, size in ranges:
        at, end = start // reader.sector * reader.sector, start + size
        while at < end:
            view = buffer[: min(BLOCK, end - at + -(end - at) % reader.sector)]
            try:
                reader.fill(at, view)
            except TooMuchError:
                return 0
            at += len(view)
            if reader.lost:
                reader.tell()
                return 0
    return 0


def main(words: list[str]) -> int:
    """The program. Returns its exit code."""
    # The reader of the stream may go away: then there is nothing to say.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    path = words[1]
    try:
        if words[0] == "copy":
            return copy(path, int(words[2]), int(words[3]))
        lines = [line.split() for line in sys.stdin if line.strip()]
        return find(path, [(int(start), int(size)) for start, size in lines])
    except OSError as exc:
        sys.stderr.write(f"error reading '{path}': {exc.strerror}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
