"""What a capture does with partitions that are saved in chunks, in the terms of its gauges, notes and receipts.

One partition goes after the other: the workers of one use all cores and the whole disk already.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec

from litho.errors import LithoError
from litho.job import Job
from litho.library import Library, Manifest, Part, Stage
from litho.library.chunks import parent
from litho.messages import Receipt
from litho_agent.chunk.adapter import ChunkCapture
from litho_agent.gauges import Gauge
from litho_agent.survey import Piece
from litho_agent.telling import Teller, check_cancelled
from litho_agent.transfer import Cancelled, Watch

log = logging.getLogger("litho_agent.chunk")


class ChunkSaver:
    """The chunk engine for the pieces of one capture that it saves; does nothing when there are none."""

    def __init__(self, stage: Stage, job: Job, pieces: Sequence[Piece]) -> None:
        """Reads what the library has. Raises LibraryError."""
        self._level = 0 if job.compress == "none" else job.level
        self._job = job
        self._chunks = (
            ChunkCapture(stage, trust_s=job.trust_h * 3600)
            if any(piece.used_map is not None for piece in pieces)
            else None
        )
        self.receipts: list[Receipt] = []
        self.notes: list[str] = []
        """After `finish`: damage that was met in the library, in words."""

    def save(self, piece: Piece, part: Part, gauge: Gauge, cancelled: Cancelled) -> Part:
        """Save `piece`; answers its entry in the manifest. Raises DiskError, LibraryError, CancelledError."""
        assert self._chunks is not None and piece.used_map is not None  # noqa: S101 - asked for such a piece only
        saved = self._chunks.save(
            piece.device,
            piece.used_map,
            suffix=piece.name,
            level=self._level,
            on_bad_sector=self._job.on_bad_sector,
            tick=gauge.tick,
            cancelled=cancelled,
            watcher=lambda stages: gauge.watch(Watch(stages, None)),
        )
        gauge.finish(saved.data.bytes + saved.chunk_stored)
        done = saved.saved
        total = done.index.total
        self.receipts.append(
            Receipt(part=piece.number, root=saved.chunk_root, moved=done.new, right=total - done.new - done.zeros)
        )
        return msgspec.structs.replace(part, **saved.fields())

    def finish(self, teller: Teller) -> None:
        """Make what was stored count, and read it back. Raises IntegrityError, LibraryError, CancelledError."""
        if self._chunks is None:
            return

        def tick(done: int, total: int) -> None:
            check_cancelled(teller)
            teller.checked(done, total)

        self._chunks.finish()
        for sentence in self._chunks.damaged:
            self.notes.append(sentence)
            teller.note(sentence)
        self._chunks.check(tick)

    def with_parent(self, library: Library, manifest: Manifest) -> Manifest:
        """`manifest`, whose indexes are written and which is not published yet, with the version that it came from, if any.

        It is a fact for people: a capture does not fail for want of it.
        """
        if not any(receipt.right for receipt in self.receipts):
            # The library had nothing of it, so no version has.
            return manifest
        try:
            found = parent.find(library, manifest)
        except LithoError as exc:
            log.info("no parent was looked for: %s", exc.message)
            return manifest
        if found is None:
            return manifest
        return msgspec.structs.replace(
            manifest, parent=found.version, parent_image=found.image, shared=min(found.shared, manifest.used)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._chunks is not None:
            self._chunks.__exit__(kind, exc, trace)
