"""The last sectors of an NTFS partition, which partclone and partimage both leave out.

NTFS keeps a copy of its boot sector in the last sector of the partition, behind its last cluster. It belongs to no
cluster, so no engine that copies used clusters copies it (measured with partclone 0.3.23 and partimage 0.6.9: `ntfsfix`
complains after a restore). So the capture keeps the last `TAIL_BYTES` of such a partition in the manifest's
`Part.extra`, and the restore writes them back before it syncs: at the place where they were, counted from the
partition's start. When what it lies on has become larger without it (an NTFS on a whole disk), the copy is looked for at the
new end: there `repeat` puts it, too.

In `extra` they are zlib-packed base64 in pieces `tail.0`, `tail.1`, ... of at most 256 characters; a boot sector
between zeros makes two of them. The manifest's own hash guards them."""

from __future__ import annotations

import base64
import binascii
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from litho.errors import DiskError, IntegrityError

TAIL_BYTES = 4096
"""One sector of a disk with 4096-byte sectors, eight of one with 512."""

_PIECE = 256
_KEY = "tail."


def to_extra(data: bytes) -> dict[str, str]:
    """`data` as entries of `Part.extra`. Pure."""
    text = base64.b64encode(zlib.compress(data, 9)).decode("ascii")
    return {f"{_KEY}{i // _PIECE}": text[i : i + _PIECE] for i in range(0, len(text), _PIECE)}


def from_extra(extra: Mapping[str, str]) -> bytes:
    """The bytes that `to_extra` packed; empty when there are none. Pure. Raises IntegrityError."""
    pieces: list[str] = []
    while (piece := extra.get(f"{_KEY}{len(pieces)}")) is not None:
        pieces.append(piece)
    if len(pieces) != sum(key.startswith(_KEY) for key in extra):
        raise IntegrityError("a piece of a partition's last sectors is missing from the manifest")
    if not pieces:
        return b""
    try:
        packed = base64.b64decode("".join(pieces), validate=True)
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(packed, TAIL_BYTES + 1)
    except (binascii.Error, zlib.error, ValueError) as exc:
        raise IntegrityError(f"a partition's last sectors cannot be read from the manifest ({exc})") from exc
    if not unpacker.eof or len(data) > TAIL_BYTES:
        raise IntegrityError("a partition's last sectors in the manifest are cut, or longer than they can be")
    return data


def read(device: Path, size: int, count: int) -> bytes:
    """The last `count` of the `size` bytes of `device`. Raises DiskError."""
    count = min(count, size)
    try:
        with device.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), count, size - count)
    except OSError as exc:
        raise DiskError(f"cannot read the last sectors of {device} ({exc.strerror})", code="disk-io") from exc
    if len(data) != count:
        raise DiskError(f"cannot read the last sectors of {device}: it is shorter than {size} bytes", code="disk-io")
    return data


def write(device: Path, size: int, data: bytes) -> None:
    """Write `data` so that it ends at byte `size` of `device` (`Part.size`, the source's), and sync. Raises DiskError."""
    try:
        with device.open("r+b", buffering=0) as file:
            written = os.pwrite(file.fileno(), data, size - len(data))
            os.fsync(file.fileno())
    except OSError as exc:
        raise DiskError(f"cannot write the last sectors of {device} ({exc.strerror})", code="disk-io") from exc
    if written != len(data):
        raise DiskError(f"cannot write the last sectors of {device}: it is shorter than {size} bytes", code="disk-io")


def repeat(device: Path, size: int) -> None:
    """Put the copy of an NTFS's boot sector, at the end of the first `size` bytes, also at the end of a `device` that is larger.

    Nothing is written where there is no such copy, or the device ends there. Raises DiskError.
    """
    try:
        with device.open("r+b", buffering=0) as file:
            fd = file.fileno()
            first = os.pread(fd, 512, 0)
            sector = int.from_bytes(first[11:13], "little")
            end = os.lseek(fd, 0, os.SEEK_END)
            if sector not in (512, 1024, 2048, 4096) or end < size + sector:
                return
            copy = os.pread(fd, sector, size - sector)
            if copy[3:11] != b"NTFS    ":
                return
            written = os.pwrite(fd, copy, end - sector)
            os.fsync(fd)
    except OSError as exc:
        raise DiskError(f"cannot write the last sectors of {device} ({exc.strerror})", code="disk-io") from exc
    if written != sector:
        raise DiskError(f"cannot write the last sectors of {device}", code="disk-io")
