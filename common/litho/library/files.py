"""Writing files so that they are there after a power cut, and telling what went wrong with a library in words.

NFS is the usual home of a library: `rename` within a directory is atomic there and `O_EXCL` works from version 3 on; locks may
not. So everything here is made of those two, `link` where there is one, and fsync.

Temporary files are called `.<name>.<random>.part`. The dot keeps them out of the patterns by which other programs look at a
library; `litho.library.care.sweep` removes those that a crash left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from litho.errors import LibraryError

_WORDS = {
    errno.ENOSPC: (
        "library-full",
        "the library {path} is full",
        "free some space or prune old versions, then start again",
    ),
    errno.EDQUOT: (
        "library-full",
        "the quota of the library {path} is used up",
        "raise the quota, then start again",
    ),
    errno.EROFS: (
        "library-read-only",
        "the library {path} is mounted read-only",
        "export and mount it writable",
    ),
    errno.EACCES: (
        "library-denied",
        "the library {path} may not be written",
        "check its owner, or no_root_squash of the export",
    ),
    errno.EPERM: (
        "library-denied",
        "the library {path} may not be written",
        "check its owner, or no_root_squash of the export",
    ),
    errno.ESTALE: (
        "library-gone",
        "the library {path} is gone (stale file handle)",
        "bring the file server back, then start again",
    ),
    errno.ETIMEDOUT: (
        # What an NFS mount with `softerr` says when its time is over.
        "library-gone",
        "the library {path} does not answer (its file server was away for too long)",
        "bring the file server back, then start again",
    ),
    errno.EIO: (
        "library-gone",
        "the library {path} does not answer (I/O error)",
        "check the file server and its disk",
    ),
    errno.EFBIG: (
        "library-full",
        "a file of the library {path} would grow beyond what its file system allows",
        "",
    ),
    errno.ENOTDIR: (
        "library-missing",
        "the library {path} is not a directory",
        "check the name of the export",
    ),
    errno.ENOENT: (
        "library-missing",
        "something in the library {path} is missing",
        "check that the library is mounted",
    ),
}

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a file system without hard links says (FAT, some CIFS servers)."""
_TEMPORARY = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{12}\.part", re.ASCII)


def library_error(exc: OSError, path: Path) -> LibraryError:
    """`exc`, which a library's file met, in words."""
    code, message, hint = _WORDS.get(
        exc.errno or 0, ("library", f"the library {{path}} failed ({exc.strerror or exc})", "")
    )
    return LibraryError(message.format(path=path), hint=hint, code=code)


@contextlib.contextmanager
def telling(path: Path) -> Iterator[None]:
    """Any OSError inside becomes a LibraryError about `path`."""
    try:
        yield
    except OSError as exc:
        raise library_error(exc, path) from exc


def fsync_dir(path: Path) -> None:
    """Make renames in `path` last."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def create(path: Path, data: bytes) -> None:
    """A new file with `data`, synced, or none at all. Raises FileExistsError when the name is taken."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def create_whole(path: Path, data: bytes) -> None:
    """A new file that nobody ever sees without its `data`. Raises FileExistsError when the name is taken."""
    beside = write_beside(path, data)
    try:
        os.link(beside, path)
    except FileExistsError:
        # Over NFS an answer may be lost and the call be sent again; the second name tells that the first one came through.
        if beside.stat().st_nlink != 2:
            raise
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        create(path, data)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def write_beside(path: Path, data: bytes) -> Path:
    """A synced temporary file with `data`, in the same directory, to be renamed to `path`.

    Its name is random and not made of the process number: two nodes that booted the same root image have the same numbers.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    create(beside, data)
    return beside


def replace(path: Path, data: bytes) -> None:
    """`path` holds `data` after this, or what it held before: never a mixture, never nothing."""
    beside = write_beside(path, data)
    try:
        beside.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def temporaries(root: Path) -> list[tuple[Path, str]]:
    """Every temporary file that a crash left in `root`, and the name that it was to have. Raises OSError."""
    with os.scandir(root) as entries:
        matches = [(entry.name, _TEMPORARY.fullmatch(entry.name)) for entry in entries]
    return [(root / name, match["target"]) for name, match in matches if match is not None]


def read_small(path: Path, limit: int) -> bytes:
    """What stands in a small regular file, cut after `limit` bytes. Raises OSError.

    A pipe or a device under a file's name would hang the reader, a huge file fill its memory. So would a large `limit`, if it
    were asked for as it is: memory is taken for all of it at once, and a node has little.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, f"{path.name} is not a regular file")
        return file.read(min(limit, max(info.st_size + 1, 64 * 1024)))
