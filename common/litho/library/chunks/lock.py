"""One at a time: whoever moves packs between their states, or rewrites the index of a pack that counts.

A lock file keeps two apart; it counts as abandoned when it was not touched for `LOCK_S` seconds of the server's clock.
"""

from __future__ import annotations

import contextlib
import os
import secrets

from litho.errors import RefusedError
from litho.library import files
from litho.library.chunks.store import ChunkStore

LOCK_S = 900.0
_LOCK = "gc.lock"


class Lock:
    """The right to change what packs there are. Use as a context manager. Raises RefusedError (code gc-runs), LibraryError."""

    def __init__(self, store: ChunkStore) -> None:
        self._path = store.root / _LOCK
        self._word = secrets.token_hex(16).encode()
        self._store = store
        self.now = 0.0
        """The server's clock when the lock was taken."""
        self._beaten = 0

    def __enter__(self) -> Lock:
        self.now = self._store.now()
        with files.telling(self._store.root):
            for _ in range(2):
                try:
                    files.create_whole(self._path, self._word)
                    return self
                except FileExistsError:
                    self._remove_abandoned()
        raise RefusedError(
            f"another collection runs in {self._store.root}",
            hint=f"wait for it; if it died, its lock is taken over after {LOCK_S / 60:.0f} minutes",
            code="gc-runs",
        )

    def _remove_abandoned(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_mtime < self.now - LOCK_S:
                # By rename: of two that find it abandoned one gets it.
                aside = self._path.with_name(f".{_LOCK}.{self._word[:12].decode()}.part")
                self._path.rename(aside)
                aside.unlink()

    def beat(self) -> None:
        """Still here. Raises RefusedError when the lock was taken over, LibraryError."""
        self._beaten += 1
        if self._beaten % 64 != 1:
            return
        with files.telling(self._store.root):
            if files.read_small(self._path, 64) != self._word:
                raise RefusedError("another collection took over", hint="nothing is lost", code="gc-runs")
            os.utime(self._path)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            if files.read_small(self._path, 64) == self._word:
                self._path.unlink()
