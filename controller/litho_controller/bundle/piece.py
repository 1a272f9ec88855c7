"""A file that goes into a bundle, wherever its bytes come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec


class Piece(msgspec.Struct, kw_only=True):
    """A file that goes into the tarball: from disk, made here, or put together while it is read."""

    member: str
    path: Path | None = None
    data: bytes = b""
    source: Callable[[], Iterator[bytes]] | None = None
    """Gives its `size` bytes, the same ones each time."""
    size: int = 0
    sha256: str = ""
    """Empty until it has been hashed."""
    executable: bool = False
    seen: tuple[int, ...] = ()
    """What the file's inode said when it was found."""
    hashed: bool = False
    """The hash is of what was read here, not somebody's promise."""


def made(member: str, data: bytes) -> Piece:
    """A file made here."""
    return Piece(member=member, data=data, size=len(data), sha256=hashlib.sha256(data).hexdigest())
