"""What is up to date: a stamp beside a result holds the hash of everything that the result was made from.

A result whose stamp says the same hash is not made again. The stamp is removed before work on the result begins and
written when it is whole, so a build that was interrupted is never taken for a finished one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

Piece = str | bytes | Path


def digest(pieces: Iterable[Piece]) -> str:
    """One hash over words, bytes, files and trees.

    For a path its names, modes, link targets and contents count, its times do not.
    """
    total = hashlib.sha256()

    def add(kind: str, data: bytes) -> None:
        # The length in front keeps ("ab", "c") and ("a", "bc") apart.
        total.update(f"{kind} {len(data)} ".encode())
        total.update(data)

    for piece in pieces:
        if isinstance(piece, str):
            add("word", piece.encode())
        elif isinstance(piece, bytes):
            add("bytes", piece)
        else:
            for path in tree(piece):
                name = str(path.relative_to(piece)).encode()
                if path.is_symlink():
                    add("link", name + b"\0" + os.fsencode(path.readlink()))
                elif path.is_file():
                    mode = b"x" if path.stat().st_mode & 0o100 else b"-"
                    add("file", name + b"\0" + mode + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def tree(root: Path) -> list[Path]:
    """`root` and all below it in a stable order, without what Python leaves behind when it runs."""
    if not root.is_dir() or root.is_symlink():
        return [root]
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        found += [Path(folder, name) for name in sorted([*folders, *names])]
    return sorted(found)


class Stamp:
    """The stamp of one result."""

    def __init__(self, path: Path, wanted: str) -> None:
        self._path = path
        self._wanted = wanted

    def fresh(self, *results: Path) -> bool:
        """True when every result is there and was made from the same."""
        try:
            same = self._path.read_text() == self._wanted
        except OSError:
            return False
        return same and all(result.exists() for result in results)

    def begin(self) -> None:
        """The result is about to change."""
        self._path.unlink(missing_ok=True)

    def done(self) -> None:
        """The result is whole."""
        self._path.write_text(self._wanted)
