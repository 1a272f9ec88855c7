"""Holding a disk for a whole job: an exclusive claim, and a lock that udev honours.

Two things are held while `held(disk)` lasts:

* `O_EXCL` on the whole disk. The kernel then refuses every other exclusive open of it and *of its partitions*: mount,
  swapon, LVM, md, mkfs, another agent. It does not refuse plain opens, so the engines still read and write the
  partitions.
* `flock(LOCK_EX)` on the same file. udevd does not look at a disk that is locked this way, and so does not sit on a
  partition while the table is written and read again.

The traps, each measured on Linux 6.18 with loop devices:

* A claim of the whole disk makes every exclusive open of a partition fail with EBUSY, and the other way round.
  partclone 0.3.23 (save and restore), partimage 0.6.9, ntfs-3g's tools, `e2fsck -n`, dumpe2fs, debugfs and blkid open
  plainly and work. `mkswap`, `e2fsck -p`, `resize2fs`, `mount` and mkfs open exclusively and fail: they run inside
  `lend(partition)`, which gives that one partition away and claims all its siblings meanwhile, so that nobody else
  gets at the disk.
* `sfdisk` and `wipefs` try an exclusive open too, for fear of what we are: they run with `--force`. `sfdisk --lock`
  would wait for our own lock for ever.
* BLKRRPART by another process (`blockdev --rereadpt`) claims the disk and gets EBUSY from our own claim; it must be
  the ioctl on the very descriptor that holds the claim: `Hold.fd`.
* A write-protected disk opens for writing without complaint; only the first write fails (EPERM). So the flag is asked for.
* A claim needs no write access: a capture opens its source read-only and holds it all the same."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from litho.errors import DiskError, RefusedError
from litho_agent.disks.disk import Disk

_PATIENCE_S = 5.0
"""How long a disk may be busy with something that passes, such as udev's look at it."""


class Hold:
    """A disk that is ours. Made by `held`."""

    def __init__(self, path: Path, fd: int, *, writable: bool) -> None:
        self.path = path
        self.fd = fd
        """Open on the whole disk, with the claim and the lock."""
        self._writable = writable
        self._identity = os.fstat(fd).st_rdev

    @contextlib.contextmanager
    def lend(self, partition: Path) -> Iterator[Path]:
        """Let a program open `partition` exclusively; its siblings stay claimed. The whole disk is claimed again afterwards.

        The lock stays throughout. Raises DiskError when somebody else got hold of the disk in between.
        """
        if partition == self.path:
            with self._unclaimed():
                yield partition
            return
        with self._unclaimed(), contextlib.ExitStack() as stack:
            for sibling in _partitions(self.path):
                if sibling != partition:
                    stack.callback(os.close, _claim(sibling, os.O_RDONLY, _PATIENCE_S))
            yield partition

    @contextlib.contextmanager
    def _unclaimed(self) -> Iterator[None]:
        """The disk locked but not claimed. The descriptor's number stays the same, so that nobody keeps a stale one."""
        flags = os.O_RDWR if self._writable else os.O_RDONLY
        # Trap: the claim ends with the open file, and the lock with it. So a plain open file takes the place of the claimed
        # one under the same descriptor number, and is locked at once.
        plain = os.open(self.path, flags | os.O_CLOEXEC)
        os.dup2(plain, self.fd, inheritable=False)
        os.close(plain)
        _lock(self.fd, self.path, _PATIENCE_S)
        try:
            yield
        finally:
            claimed = _claim(self.path, flags, _PATIENCE_S)
            try:
                if os.fstat(claimed).st_rdev != self._identity:
                    raise DiskError(f"{self.path} is another device than before", code="disk-gone")
                os.dup2(claimed, self.fd, inheritable=False)
            finally:
                os.close(claimed)
            _lock(self.fd, self.path, _PATIENCE_S)


@contextlib.contextmanager
def held(disk: Disk | Path, *, write: bool, patience_s: float = _PATIENCE_S) -> Iterator[Hold]:
    """Hold `disk` exclusively: `write` for a restore, read-only for a capture.

    Raises RefusedError (`disk-busy`) when something else has it or a partition of it, or it is write-protected;
    DiskError when it is gone or is no block device.
    """
    path = Path(disk.path) if isinstance(disk, Disk) else disk
    fd = _claim(path, os.O_RDWR if write else os.O_RDONLY, patience_s)
    try:
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            raise DiskError(f"{path} is not a block device", code="disk-missing")
        if write and _read_only(fd):
            raise RefusedError(
                f"{path} is write-protected", hint="lift the protection with `blockdev --setrw`", code="disk-read-only"
            )
        _lock(fd, path, patience_s)
        hold = Hold(path, fd, writable=write)
        yield hold
    finally:
        os.close(fd)


def _claim(path: Path, flags: int, patience_s: float) -> int:
    """Open `path` exclusively, waiting a little for what passes."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return os.open(path, flags | os.O_EXCL | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno == errno.EBUSY and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise _told(exc, path) from exc


def _lock(fd: int, path: Path, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if time.monotonic() >= deadline:
                raise RefusedError(
                    f"{path} is locked by another program",
                    hint="wait for it to end; `lslocks` shows it",
                    code="disk-busy",
                ) from exc
            time.sleep(0.1)
        else:
            return


def _told(exc: OSError, path: Path) -> DiskError | RefusedError:
    if exc.errno == errno.EBUSY:
        return RefusedError(
            f"{path} is in use: something has it, or a partition of it, mounted or open for itself",
            hint="`lsblk`, `findmnt`, `swapon --show` and `dmsetup ls` show what; stop that first",
            code="disk-busy",
        )
    if exc.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return RefusedError(
            f"{path} cannot be opened: {exc.strerror}", hint="is it write-protected?", code="disk-read-only"
        )
    code = "no-medium" if exc.errno == errno.ENOMEDIUM else "disk-missing"
    return DiskError(f"{path} cannot be opened: {exc.strerror}", code=code)


def _read_only(fd: int) -> bool:
    blkroget = 0x125E
    return int.from_bytes(fcntl.ioctl(fd, blkroget, bytes(4)), "little") != 0


def _partitions(path: Path) -> list[Path]:
    """The partition nodes that the kernel has of the disk `path`."""
    name = os.path.realpath(path).removeprefix("/dev/").replace("/", "!")
    found = sorted(entry.parent.name for entry in Path("/sys/block", name).glob("*/partition"))
    return [Path("/dev", part.replace("!", "/")) for part in found]
