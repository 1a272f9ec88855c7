"""How much of a disk changed, at a grain of 64 KiB: what a second capture and a delta restore are measured against."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import zstandard

from bench.clock import device_size
from litho.library.chunks.usedmap import UsedMap
from litho_agent.chunk.usage import used_map

GRAIN = 64 * 1024


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes."""

    used: int
    """Of version 2."""
    new: int
    """Pieces of version 2 that version 1 has nowhere."""
    packed: int
    """The same, each by zstd -1."""
    here: int
    """Pieces that differ from what version 1 has in the same place."""


def measured(first: Path, second: Path, fs: str) -> Change:
    """What the disk `second` has and the disk `first` does not."""
    old, old_at = _pieces(first, fs)
    zstd = zstandard.ZstdCompressor(level=1)
    size = device_size(second)
    used = used_map(second, fs, size)
    seen: set[bytes] = set()
    new = packed = here = 0
    with second.open("rb") as file:
        for number in used.chunks(GRAIN):
            data = _piece(file.fileno(), used, number, size)
            digest = hashlib.blake2b(data, digest_size=16).digest()
            if old_at.get(number) != digest:
                here += len(data)
            if digest not in old and digest not in seen and any(data):
                seen.add(digest)
                new += len(data)
                packed += len(zstd.compress(data))
    return Change(used=used.used, new=new, packed=packed, here=here)


def _pieces(device: Path, fs: str) -> tuple[set[bytes], dict[int, bytes]]:
    """Hashes of a disk's used pieces, and by place."""
    size = device_size(device)
    used = used_map(device, fs, size)
    with device.open("rb") as file:
        at = {
            number: hashlib.blake2b(_piece(file.fileno(), used, number, size), digest_size=16).digest()
            for number in used.chunks(GRAIN)
        }
    return set(at.values()), at


def _piece(fd: int, used: UsedMap, number: int, size: int) -> bytes:
    """One piece of a disk, unused bytes as zeros."""
    low = number * GRAIN
    data = bytearray(min(GRAIN, size - low))
    for extent in used.within(low, low + len(data)):
        data[extent.start - low : extent.end - low] = os.pread(fd, extent.size, extent.start)
    return bytes(data)
