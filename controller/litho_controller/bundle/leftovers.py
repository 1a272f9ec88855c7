"""What an export that was killed left beside its tarball: a half-written one, and a directory for packing.

Whoever writes one holds a lock on it (flock), which ends with the process whatever ends that. So a thing with one of our names
whose lock is free, and that is older than the moment between making and locking it, belongs to nobody. Where a file system knows
no locks nothing is taken away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from litho_controller.bundle.tarwrite import ENDINGS

YOUNG_S = 60.0
"""Seconds for which a thing without a lock may still get one."""
_ENDS = "|".join(re.escape(ending) for ending in ENDINGS)
_FILE = re.compile(rf"\..+(?:{_ENDS})\.[0-9a-f]{{12}}\.part", re.ASCII)
_FOLDER = re.compile(r"\.litho-export-[A-Za-z0-9_]{8}", re.ASCII)


def write_beside(path: Path) -> tuple[Path, IO[bytes]]:
    """A new file, locked, that is to become `path` by rename. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}.part")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    _lock(fd)
    return beside, os.fdopen(fd, "wb", buffering=0)


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new directory in `folder`, locked, and gone afterwards. Raises OSError."""
    made = Path(tempfile.mkdtemp(prefix=".litho-export-", dir=folder))
    fd = -1
    try:
        fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _lock(fd)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if fd >= 0:
            os.close(fd)


def sweep(folder: Path, *, now: float | None = None) -> list[Path]:
    """Take away what dead exports left in `folder`; answers what went. What cannot be looked at stays. Raises nothing."""
    gone: list[Path] = []
    before = (time.time() if now is None else now) - YOUNG_S
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in list(entries):
            ours = _FOLDER if entry.is_dir(follow_symlinks=False) else _FILE
            if not entry.is_symlink() and ours.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < before and _is_dead(Path(entry.path)):
                        gone.append(Path(entry.path))
    return gone


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise


def _is_dead(path: Path) -> bool:
    """Take the thing's lock; with it, take the thing away. Raises OSError, also for one that somebody holds."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(fd)
    return True
