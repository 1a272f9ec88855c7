"""The two ends of a transfer that are not the engine: the file in the library and the device under the engine.

Their failures are turned into the project's errors here: the library's into LibraryError and IntegrityError, the
device's into DiskError."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from litho.errors import CancelledError, DiskError, IntegrityError
from litho.library import files
from litho.library.manifest import FileRef
from litho.library.unpack import BLOCK
from litho_agent.flow import Stage


class Target:
    """The device, held open from before the first write, so that the final sync reports every write that failed."""

    def __init__(self, device: Path) -> None:
        self._device = device
        self._fd = -1

    def __enter__(self) -> Target:
        try:
            self._fd = os.open(self._device, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise _no_disk(self._device, exc.strerror or "no reason given") from exc
        if not stat.S_ISBLK(os.fstat(self._fd).st_mode):
            # partclone would fill an ordinary file of that name, in the memory of the root image.
            os.close(self._fd)
            raise _no_disk(self._device, "it is not a block device")
        return self

    def sync(self, stage: Stage) -> None:
        """Wait until all lies on the device. Raises DiskError."""
        since = time.perf_counter()
        # A descriptor of its own: the thread may have to be left behind in here.
        fd = os.dup(self._fd)
        try:
            os.fsync(fd)
        except OSError as exc:
            raise DiskError(
                f"{self._device} did not take all that was written to it ({exc.strerror})",
                hint="look at the node's kernel log and the disk's SMART values",
                code="disk-io",
            ) from exc
        finally:
            os.close(fd)
        stage.worked(since, 0)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _no_disk(device: Path, why: str) -> DiskError:
    return DiskError(f"cannot open {device} ({why})", hint="look at the node's disks with lsblk", code="disk-missing")


def opened(path: Path, expected: FileRef) -> IO[bytes]:
    """The stored file, which has the expected length. Raises LibraryError, IntegrityError."""
    with files.telling(path.parent):
        file = path.open("rb", buffering=0)
        size = os.fstat(file.fileno()).st_size
    if size != expected.bytes:
        file.close()
        raise IntegrityError(f"the file {path.name} has {size} bytes instead of {expected.bytes}")
    return file


def require_same(path: Path, expected: FileRef, size: int, digest: str) -> None:
    """Raise IntegrityError unless `size` and `digest` of a file that was read are the expected ones."""
    if size != expected.bytes or digest != expected.sha256:
        raise IntegrityError(
            f"the file {path.name} is damaged: its SHA-256 is not what the manifest says",
            hint="the target is half written; restore another version, or capture again",
        )


def require_whole(path: Path, expected: FileRef, cancelled: Callable[[], bool]) -> None:
    """Read the file once more, from its start. Raises IntegrityError when it is damaged, LibraryError, CancelledError."""
    digest = hashlib.sha256()
    size = 0
    with files.telling(path.parent), path.open("rb", buffering=0) as file:
        while piece := file.read(BLOCK):
            if cancelled():
                raise CancelledError("the transfer was cancelled")
            digest.update(piece)
            size += len(piece)
    require_same(path, expected, size, digest.hexdigest())


def write_all(fd: int, piece: bytes | memoryview) -> None:
    """Write all of `piece`. Raises OSError."""
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


def directory_of(fd: int) -> Path:
    """The directory of an open file, for the sentence about it."""
    return Path(f"/proc/self/fd/{fd}").readlink().parent
