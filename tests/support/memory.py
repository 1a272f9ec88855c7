"""A folder in memory, for tests that write and sync thousands of files."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_SHARED = Path("/dev/shm")  # noqa: S108 - only a faster place


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """A new folder in memory, or where temporary files go on a machine that has none there; deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="litho-", dir=_SHARED if os.access(_SHARED, os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
