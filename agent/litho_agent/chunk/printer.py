"""What a restore does with partitions that are stored in chunks, in the terms of its gauges, notes and receipts."""

from __future__ import annotations

from pathlib import Path

import msgspec

from litho import amounts
from litho.errors import RefusedError
from litho.job import Job
from litho.library import Library, Manifest, Part
from litho.library.chunks import Index
from litho.library.chunks.scrub import ENGINE
from litho.messages import Receipt
from litho_agent.chunk import adapter
from litho_agent.gauges import Gauge
from litho_agent.telling import Teller, check_cancelled
from litho_agent.transfer import Cancelled, Watch

_WORTH_TELLING = 100
"""On a blank disk some chunks are right by chance, because zeros are: below this part of all it is no news."""


class ChunkPrinter:
    """The chunk engine for the partitions of one image that it made; does nothing when there are none."""

    def __init__(self, library: Library, manifest: Manifest, job: Job) -> None:
        self._library = library
        self._job = job
        self._indexes: dict[int, Index] = {}
        self.parts = tuple(part for part in manifest.parts if part.engine == ENGINE and part.data is not None)
        self._streams = tuple(part for part in manifest.parts if part.kind == "stream" and part not in self.parts)
        self._unfreed: list[int] = []
        self.receipts: list[Receipt] = []

    def ready(self) -> None:
        """Find what is wrong before the first write: with the indexes, with packs that are missing, with the wishes of the job.

        Raises IntegrityError, LibraryError, RefusedError.
        """
        wishes = {
            "--verify-target": self._job.verify_target,
            "--discard": self._job.free == "discard",
            "--zero-free": self._job.free == "zero",
        }
        for wish, wanted in wishes.items():
            if wanted and self._streams:
                raise RefusedError(
                    f"{wish} was asked for, and partition {self._streams[0].number} of the image is a stream of "
                    f"{self._streams[0].engine}: only chunks can tell what lies where",
                    hint="leave it out, or capture the image with --engine chunk",
                    code="not-chunks",
                )
        for part in self.parts:
            self._indexes[part.number] = adapter.ready(self._library, part)

    def print(self, part: Part, device: Path, gauge: Gauge, cancelled: Cancelled) -> None:
        """Make `device` hold what `part` says. Raises IntegrityError, LibraryError, DiskError, CancelledError."""
        index = self._indexes[part.number]
        done = adapter.restore_part(
            self._library,
            part,
            device,
            index=index,
            free=self._job.free,
            tick=gauge.tick,
            cancelled=cancelled,
            watcher=lambda stages: gauge.watch(Watch(stages, None)),
        )
        gauge.finish(done.fetched)
        if not done.freed:
            self._unfreed.append(part.number)
        self.receipts.append(Receipt(part=part.number, root=done.root, moved=done.written, right=done.right))

    def read_back(self, devices: dict[int, Path], teller: Teller) -> None:
        """Read all that was written from the disk and compare, if the job wants that. Raises IntegrityError (code
        target-differs), DiskError, CancelledError.
        """
        if not self._job.verify_target:
            return
        teller.enter("read-back")
        total = sum(part.used for part in self.parts)
        before = 0

        def tick(done: int, _: int) -> None:
            teller.checked(before + done, total)

        for place, part in enumerate(self.parts):
            root = adapter.verify_part(
                self._library,
                part,
                devices[part.number],
                index=self._indexes[part.number],
                tick=tick,
                cancelled=teller.cancelled,
            )
            before += part.used
            self.receipts[place] = msgspec.structs.replace(self.receipts[place], root=root, read_back=True)
        check_cancelled(teller)

    def notes(self) -> list[str]:
        """What a person should know of it."""
        found: list[str] = []
        right = sum(receipt.right for receipt in self.receipts)
        total = right + sum(receipt.moved for receipt in self.receipts)
        if right * _WORTH_TELLING > total:
            found.append(f"{amounts.of(right, total)} were already right")
        if self._job.verify_target and self.parts:
            found.append(f"all of it was read back from the disk and is what {self._job.image} holds")
        if self._unfreed:
            numbers = ", ".join(str(number) for number in self._unfreed)
            found.append(f"the disk cannot {self._job.free} what is unused: it was left on partition {numbers}")
        return found
