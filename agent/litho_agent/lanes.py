"""Several partitions at once: as many lanes as the disk and the memory like.

A disk with a moving head reads two partitions at once slower than one after the other; one without answers two askers
better than one, and while one engine computes another can read. But a compressor uses all cores already: measured on 2 cores
with partclone and zstd, two captures at once took a tenth longer than one after the other, two restores a tenth less. So: one
lane on rotating disks and where there are two cores, two elsewhere, unless the task says how many (`parallel=`). Each
lane needs memory for an engine, its compressor's threads and its buffers.

The first partition that fails stops the others; its error is the one that counts, and what the others say on their way out is
a consequence. A lane is a thread that lives longer than the engine it starts, because a child dies with its thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from litho.errors import CancelledError
from litho_agent.transfer import Cancelled

T = TypeVar("T")
R = TypeVar("R")

MOST = 8
USUAL = 2
"""Lanes on a disk without a moving head, when nobody asked for a number and there are more than `FEW_CORES`."""
FEW_CORES = 2
LANE_BYTES = 256 * 1024 * 1024
"""Memory that must be there for each lane beyond the first."""


def lanes(asked: int, *, rotational: bool, cores: int, available: int) -> int:
    """How many partitions move at once. `asked` is `Job.parallel`, `available` bytes of free memory (0: unknown). Pure."""
    wanted = min(MOST, asked) if asked else (1 if rotational or cores <= FEW_CORES else USUAL)
    if available:
        wanted = min(wanted, max(1, available // LANE_BYTES))
    return max(1, wanted)


def each(items: Sequence[T], work: Callable[[T, Cancelled], R], *, count: int, cancelled: Cancelled) -> list[R]:
    """What `work` answers for each of `items`, in their order, `count` at a time.

    `work` is handed a `cancelled` that is also true when another one failed. Raises the first error, when all have ended.
    """
    if count <= 1 or len(items) <= 1:
        return [work(item, cancelled) for item in items]
    failing = threading.Lock()
    errors: list[BaseException] = []

    def stopped() -> bool:
        return bool(errors) or cancelled()

    def one(item: T) -> R | None:
        if errors:
            return None
        try:
            if cancelled():
                raise CancelledError("the task was cancelled on request")
            return work(item, stopped)
        except BaseException as exc:
            # The thread that waits below raises it; nothing may be raised before the other lanes have ended.
            with failing:
                errors.append(exc)
            return None

    with ThreadPoolExecutor(min(count, len(items)), thread_name_prefix="lane") as pool:
        found = list(pool.map(one, items))
    if errors:
        raise errors[0]
    return found  # type: ignore[return-value]  # a None of a lane came with an error
