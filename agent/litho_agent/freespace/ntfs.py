"""What an NTFS uses, from its $Bitmap (record 6 of the master file table). Sources: linux/fs/ntfs3/ntfs.h, ntfs-3g's layout.h.

The boot sector is believed when its copy says the same, the bitmap when what the file system stands on is marked in it: the
boot sector, the master file table, its mirror, the log, and the bitmap itself. From the last whole cluster to the copy of the
boot sector in the sector behind the volume everything is used; the bitmap and partclone know nothing of that place.

Not read here: a volume whose $Bitmap is compressed, sparse or spread over several records, and one that is marked for a check.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import NamedTuple

from litho_agent.freespace.base import DoubtError, ReadAt, Runs, covered, exactly, joined, scaled, set_bits

_MFT, _MIRROR, _LOG, _VOLUME, _BITMAP = 0, 1, 2, 3, 6
_INFORMATION, _DATA, _END, _LIST = 0x70, 0x80, 0xFFFFFFFF, 0x20
_DIRTY = 0x0001
_FIXUP = 512
_FACTS = (slice(11, 14), slice(40, 65))
"""Of a boot sector: what is gone by here. Where the partition begins, for one, is often changed in the first copy only."""
_MOST_CLUSTERS = 2**48


class _Attribute(NamedTuple):
    resident: bytes
    runs: Runs
    """Clusters."""
    size: int
    """Bytes."""


def used(read_at: ReadAt, size: int) -> Runs:
    """The used runs. Raises DoubtError."""
    volume = _Volume(read_at, size)
    [(_, information)] = volume.attributes(_VOLUME, _INFORMATION)
    if len(information.resident) < 12 or struct.unpack_from("<H", information.resident, 10)[0] & _DIRTY:
        raise DoubtError("the NTFS is marked for a check")
    bitmap = volume.data(_BITMAP)
    clusters = volume.clusters
    if not clusters <= bitmap.size * 8 < clusters + 128:
        raise DoubtError("the NTFS's bitmap is not as long as its volume asks for")
    marked = set_bits(volume.content(bitmap), clusters)
    for record, what in ((_MFT, "the master file table"), (_MIRROR, "its mirror"), (_LOG, "the log")):
        covered(marked, volume.data(record).runs, what)
    covered(marked, bitmap.runs, "the bitmap")
    covered(marked, [(0, 1)], "the boot sector")
    end = clusters * volume.cluster
    return joined(chain(scaled(marked, volume.cluster), [(end, min(size, volume.end) - end)]))


class _Volume:
    """Where things lie."""

    def __init__(self, read_at: ReadAt, size: int) -> None:
        self._read_at = read_at
        boot = exactly(read_at, 0, 512)
        (sector,) = struct.unpack_from("<H", boot, 11)
        sectors, table, mirror = struct.unpack_from("<QQQ", boot, 40)
        if boot[3:11] != b"NTFS    " or boot[510:] != b"\x55\xaa" or sector not in (512, 1024, 2048, 4096):
            raise DoubtError("it is no NTFS")
        # Above 128 the byte is the negative exponent of two: clusters of more than 64 KiB.
        per = boot[13] if boot[13] <= 128 else 1 << min(64, 256 - boot[13])
        self.cluster = sector * per
        self.record = boot[64] * self.cluster if boot[64] < 128 else 1 << (256 - boot[64])
        powers = all(one > 0 and one & (one - 1) == 0 for one in (self.cluster, self.record))
        if not powers or self.cluster > 2**21 or not 512 <= self.record <= 65536:
            raise DoubtError("the NTFS's sizes cannot be")
        self.clusters = sectors // per if per else 0
        self.end = (sectors + 1) * sector
        """Bytes, with the copy of the boot sector."""
        if not 0 < self.clusters < _MOST_CLUSTERS or sectors * sector > size:
            raise DoubtError("the NTFS is larger than its partition")
        if not (0 < table < self.clusters and 0 < mirror < self.clusters):
            raise DoubtError("the NTFS's master file table lies outside of it")
        copy = exactly(read_at, sectors * sector, 512)
        if any(copy[place] != boot[place] for place in _FACTS):
            raise DoubtError("the copy of the NTFS's boot sector says something else")
        self._table = table * self.cluster
        [(_, first)] = self._found(self._record(_MFT), _DATA)
        needed = (_BITMAP + 1) * self.record
        # The first records lie together, so that a loader can find them; the code here relies on it.
        if not first.runs or first.runs[0][0] != table or first.runs[0][1] * self.cluster < needed:
            raise DoubtError("the NTFS's master file table does not begin with its own records")

    def _record(self, number: int) -> bytes:
        """A record with the ends of its sectors put back."""
        data = bytearray(exactly(self._read_at, self._table + number * self.record, self.record))
        offset, count = struct.unpack_from("<HH", data, 4)
        flags = struct.unpack_from("<H", data, 22)[0]
        if (
            data[:4] != b"FILE"
            or not flags & 1
            or count != self.record // _FIXUP + 1
            or offset + 2 * count > _FIXUP - 2
        ):
            raise DoubtError(f"record {number} of the NTFS's master file table is damaged")
        mark = data[offset : offset + 2]
        for place in range(1, count):
            end = place * _FIXUP
            if data[end - 2 : end] != mark:
                raise DoubtError(f"record {number} of the NTFS's master file table was not written whole")
            data[end - 2 : end] = data[offset + 2 * place : offset + 2 * place + 2]
        return bytes(data)

    def attributes(self, number: int, kind: int) -> list[tuple[int, _Attribute]]:
        """The one attribute of `kind` of record `number`, that has no name. Raises DoubtError when there is not exactly one."""
        return self._found(self._record(number), kind)

    def data(self, number: int) -> _Attribute:
        """The content of a file that is not in its record."""
        [(flag, found)] = self.attributes(number, _DATA)
        if not flag or not found.runs:
            raise DoubtError(
                f"the content of record {number} of the NTFS's master file table is not where it has to be"
            )
        return found

    def _found(self, record: bytes, kind: int) -> list[tuple[int, _Attribute]]:
        found = []
        at = struct.unpack_from("<H", record, 20)[0]
        while True:
            if at + 8 > len(record):
                raise DoubtError("a record of the NTFS has no end")
            code, length = struct.unpack_from("<II", record, at)
            if code == _END:
                break
            if length < 24 or length % 8 or at + length > len(record):
                raise DoubtError("a record of the NTFS is damaged")
            if code == _LIST:
                raise DoubtError("a system file of the NTFS is spread over several records")
            body = record[at : at + length]
            if code == kind and body[9] == 0:
                found.append((body[8], self._attribute(body)))
            at += length
        if len(found) != 1:
            raise DoubtError("a record of the NTFS does not have what it has to have")
        return found

    def _attribute(self, body: bytes) -> _Attribute:
        if not body[8]:
            size, offset = struct.unpack_from("<IH", body, 16)
            return _Attribute(body[offset : offset + size], [], size)
        if len(body) < 64:
            raise DoubtError("a record of the NTFS is damaged")
        lowest, highest, offset = struct.unpack_from("<QQH", body, 16)
        allocated, size, written = struct.unpack_from("<QQQ", body, 40)
        runs = self._runs(body[offset:])
        total = sum(length for _, length in runs)
        whole = lowest == 0 and highest + 1 == total and allocated == total * self.cluster and size <= allocated
        if struct.unpack_from("<H", body, 12)[0] or not whole or written != size:
            raise DoubtError("a system file of the NTFS is packed, sparse, or not whole")
        return _Attribute(b"", runs, size)

    def _runs(self, pairs: bytes) -> Runs:
        """The clusters that a list of mapping pairs names."""
        found: Runs = []
        at = place = 0
        while at < len(pairs) and pairs[at]:
            wide, far = pairs[at] & 15, pairs[at] >> 4
            end = at + 1 + wide + far
            if not 1 <= wide <= 8 or not 1 <= far <= 8 or end > len(pairs):
                raise DoubtError("a system file of the NTFS has holes, or its place is damaged")
            length = int.from_bytes(pairs[at + 1 : at + 1 + wide], "little")
            place += int.from_bytes(pairs[at + 1 + wide : end], "little", signed=True)
            if not 0 <= place < self.clusters or not 0 < length <= self.clusters - place:
                raise DoubtError("a system file of the NTFS lies outside of it")
            found.append((place, length))
            at = end
        return found

    def content(self, file: _Attribute) -> bytes:
        """All bytes of a file."""
        left, pieces = file.size, []
        for first, length in file.runs:
            take = min(left, length * self.cluster)
            pieces.append(exactly(self._read_at, first * self.cluster, take))
            left -= take
        return b"".join(pieces)
