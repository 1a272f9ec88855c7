"""Writing files so that they are there after a power cut, and telling what went wrong with a library in words.

NFS is the usual home of a library: `rename` within a directory is atomic there and `O_EXCL` works from version 3 on; locks may
not. So everything here is made of those two and fsync.
"""

from __future__ import annotations

import contextlib
import errno
import os
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
    """A new file with `data`, synced. Raises FileExistsError when the name is taken."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, data: bytes) -> None:
    """`path` holds `data` after this, or what it held before: never a mixture, never nothing."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    beside.unlink(missing_ok=True)
    try:
        create(beside, data)
        beside.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)
