"""Which bytes of a partition a capture reads.

The file system's own map and what lies outside of it and belongs to the partition all the same: boot code before the file
system's first block, and the last sector of an NTFS, which holds the copy of its boot sector. The map is read here where that
is quick (`freespace`), else partclone or dumpe2fs tells it (`engines.used`). What has no map is taken whole; chunks of zeros
cost nothing there.
"""

from __future__ import annotations

import logging
from pathlib import Path

from litho.library.chunks.usedmap import UsedMap
from litho_agent import freespace
from litho_agent.engines.used import used_extents

log = logging.getLogger("litho_agent.chunk")

_HEAD = 4096
_HEAD_OF = {"btrfs": 64 * 1024}
"""btrfs leaves its first 64 KiB to boot loaders."""
_TAIL_OF = {"ntfs": 4096}


def used_map(device: Path, fs: str, size: int) -> UsedMap:
    """The used bytes of the partition `device` of `size` bytes; `fs` as blkid names it. Raises EngineError."""
    return whole_map(_extents(device, fs, size), fs, size)


def _extents(device: Path, fs: str, size: int) -> freespace.Runs | None:
    if fs in freespace.READERS:
        try:
            return freespace.used_runs(device, fs, size)
        except freespace.WholeError as known:
            log.info("%s: %s; all of it is taken", device, known.message)
            return None
        except freespace.DoubtError as doubt:
            log.info("%s: %s; partclone is asked for the used blocks", device, doubt.message)
    found = used_extents(device, fs)
    return [(one.start, one.size) for one in found] if found else None


def whole_map(extents: list[tuple[int, int]] | None, fs: str, size: int) -> UsedMap:
    """The file system's extents (None: it has no map) and what belongs to the partition beside them. Pure."""
    if not extents:
        return UsedMap([(0, size)], size)
    tail = _TAIL_OF.get(fs, 0)
    return UsedMap([*extents, (0, _HEAD_OF.get(fs, _HEAD)), (size - tail, tail)], size)
