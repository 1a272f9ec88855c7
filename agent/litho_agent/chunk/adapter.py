"""What the agent's two jobs call: the chunk engine in terms of stages, manifests and parts.

A capture:

    with ChunkCapture(stage) as chunks:
        for ...:
            saved = chunks.save(device, used_map(device, fs, size), suffix="sda1", ...)      # one a partition
            parts.append(Part(number=..., start=..., size=..., fs=..., **saved.fields()))
        chunks.finish()                                                            # then
        chunks.check(...)                                                          # and
        stage.publish(manifest)

A restore:

    index = ready(library, part)                             # before the first write
    restored = restore_part(library, part, device, index=index, ...)
    root = verify_part(library, part, device, index=index)   # when it was asked for

The order `save`, `finish`, `publish` is what keeps a collector from taking packs away that the new version needs (see
`litho.library.chunks.gc`).
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from litho.job import Free
from litho.library import files
from litho.library.chunks import index as indexes
from litho.library.chunks.gc import SUFFIX
from litho.library.chunks.index import Index
from litho.library.chunks.pack import PackIndex
from litho.library.chunks.reader import Locator, check_pack
from litho.library.chunks.scrub import ENGINE, read_index
from litho.library.chunks.store import ChunkStore
from litho.library.chunks.trust import TRUST_S, sign
from litho.library.chunks.usedmap import UsedMap
from litho.library.chunks.writer import PACK_BYTES, ChunkWriter
from litho.library.manifest import BadRange, FileRef, Part
from litho.library.shelf import Library
from litho.library.stage import Stage
from litho_agent.chunk.capture import Saved, save_partition
from litho_agent.chunk.crew import Cancelled, Count, Crew, Tick, Watcher
from litho_agent.chunk.delta import Mode
from litho_agent.chunk.readback import read_back, require_same
from litho_agent.chunk.restore import Restored, restore_partition
from litho_agent.flow import Stopped

VERSION = "1"
"""Of the engine, for the manifest."""
CHECKS = 3
"""Packs that are read back at once: a server has one ready while another is looked at."""


class SavedPart(msgspec.Struct, frozen=True, kw_only=True):
    """A saved partition, as the manifest tells of it."""

    data: FileRef
    used: int
    chunk_root: str
    chunk_stored: int
    bad: tuple[BadRange, ...]
    saved: Saved

    def fields(self) -> dict[str, Any]:
        """The arguments of `Part` that are the engine's to say."""
        return {
            "kind": "stream",
            "engine": ENGINE,
            "engine_version": VERSION,
            "compression": "none",
            "data": self.data,
            "used": self.used,
            "stream_bytes": self.data.bytes,
            "stream_sha256": self.data.sha256,
            "chunk_root": self.chunk_root,
            "chunk_stored": self.chunk_stored,
            "bad": self.bad,
        }


class ChunkCapture:
    """The chunk engine for one capture. Use as a context manager; what was stored when it fails stays for the next attempt."""

    def __init__(self, stage: Stage, *, pack_bytes: int = PACK_BYTES, trust_s: float = TRUST_S) -> None:
        """Reads what the library has. A pack that was read whole within `trust_s` seconds is believed. Raises LibraryError."""
        self._stage = stage
        self._writer = ChunkWriter(ChunkStore(stage.library), pack_bytes=pack_bytes, trust_s=trust_s)
        self._packs: set[bytes] = set()

    def save(
        self,
        device: Path,
        used: UsedMap,
        *,
        suffix: str,
        level: int = 1,
        on_bad_sector: Literal["stop", "continue"] = "stop",
        tick: Tick = lambda *_: None,
        cancelled: Cancelled = lambda: False,
        watcher: Watcher = lambda _: None,
    ) -> SavedPart:
        """Save the used bytes of a partition and write its index, `<image>.v<n>-<suffix>.chunks`.

        `tick` is told used bytes and bytes written to packs, both of this partition. `level` is zstd's, 0 stores without packing.
        Raises DiskError, LibraryError, CancelledError.
        """
        before = self._writer.stored
        saved = save_partition(
            device,
            used,
            self._writer,
            level=level,
            on_bad_sector=on_bad_sector,
            tick=lambda done, stored: tick(done, stored - before),
            cancelled=cancelled,
            watcher=watcher,
        )
        name = f"{suffix}{SUFFIX}"
        sha256, size = hashlib.sha256(), 0
        with self._stage.create(name) as file, files.telling(self._stage.library.root):
            for piece in indexes.dump_pieces(saved.index):
                sha256.update(piece)
                size += len(piece)
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
        self._packs.update(saved.index.packs)
        return SavedPart(
            data=FileRef(file=self._stage.file_name(name), bytes=size, sha256=sha256.hexdigest()),
            used=used.used,
            chunk_root=saved.index.root.hex(),
            chunk_stored=saved.stored,
            bad=saved.bad,
            saved=saved,
        )

    def finish(self) -> None:
        """All partitions are saved: make every pack count, and stay. Raises LibraryError."""
        self._writer.finish(list(self._packs))

    def check(self, tick: Callable[[int, int], None] = lambda *_: None) -> None:
        """Read back what this capture stored, as it lies in the library now. Call after `finish`.

        Chunks that were there already were looked at when the capture met them (`litho.library.chunks.trust`). `tick` is told
        the bytes read so far and in all; what it raises ends the check. Raises IntegrityError, LibraryError.
        """
        check_packs(self._writer.store, self._writer.sealed, tick)

    @property
    def damaged(self) -> tuple[str, ...]:
        """After `finish`: what was found damaged in the packs of other captures, one sentence each. This capture does without."""
        return tuple(self._writer.damaged)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def check_packs(store: ChunkStore, packs: Sequence[bytes], tick: Callable[[int, int], None] = lambda *_: None) -> int:
    """Read these packs from their first byte to their last, a few at once, and write their receipts; answers the bytes.

    `tick` is told the bytes read so far and in all; what it raises ends it. Raises IntegrityError, LibraryError.
    """
    found = [store.index(pack) for pack in packs]
    total, done, crew, over = sum(one.size for one in found), Count(), Crew(), threading.Event()

    def look(one: PackIndex) -> None:
        with files.telling(store.root):
            seen = store.path(one.pack, "pack").stat()
        for count in check_pack(store, one):
            done.add(count)
            if crew.stopping or over.is_set():
                raise Stopped
        sign(store, one.pack, seen)

    def tell() -> None:
        try:
            tick(done.value, total)
        except BaseException:
            over.set()
            raise

    crew.step("check", CHECKS, crew.pieces(found), lambda: contextlib.nullcontext(look))
    crew.follow(tell=tell, cancelled=lambda: False, stuck=lambda: None)
    return done.value


def ready(library: Library, part: Part) -> Index:
    """The index of a part that is to be restored, and the certainty that every pack which it needs is there.

    Raises IntegrityError, LibraryError.
    """
    index = read_index(library, part)
    Locator(ChunkStore(library)).require(index)
    return index


def restore_part(
    library: Library,
    part: Part,
    device: Path,
    *,
    index: Index | None = None,
    mode: Mode = "auto",
    free: Free = "keep",
    verify_target: bool = False,
    tick: Tick = lambda *_: None,
    cancelled: Cancelled = lambda: False,
    watcher: Watcher = lambda _: None,
) -> Restored:
    """Restore a partition that the chunk engine saved; `Restored.root` is for the task's receipt.

    `index` is the part's, where it was read already. With `verify_target` all of it is read back from the disk and compared.
    Starts at a random place, so that many nodes at once do not all read the same pack. Raises IntegrityError, LibraryError,
    DiskError, CancelledError.
    """
    index = index or read_index(library, part)
    restored = restore_partition(
        device,
        index,
        ChunkStore(library),
        mode=mode,
        free=free,
        begin=random.random(),  # noqa: S311 - spreads load, guards nothing
        tick=tick,
        cancelled=cancelled,
        watcher=watcher,
    )
    if verify_target:
        require_same(device, index, read_back(device, index, cancelled=cancelled))
    return restored


def verify_part(
    library: Library,
    part: Part,
    device: Path,
    *,
    index: Index | None = None,
    tick: Tick = lambda *_: None,
    cancelled: Cancelled = lambda: False,
) -> str:
    """The root hash of what lies on `device`, if it is what the image holds. Raises IntegrityError (code target-differs)."""
    index = index or read_index(library, part)
    found = read_back(device, index, tick=tick, cancelled=cancelled)
    require_same(device, index, found)
    return found.root
