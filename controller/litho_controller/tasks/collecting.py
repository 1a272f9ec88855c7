"""Takes away chunks that no image needs any more, now and then, beside everything else.

The collector is made for that (`litho.library.chunks.gc`): it may run beside captures, be broken off anywhere, and meet another.
So a failure here is a line in the log, and the next run does what this one did not.
"""

from __future__ import annotations

import asyncio
import logging
import threading

from litho.errors import LithoError
from litho.library import Library
from litho.library.chunks import ChunkStore, gc

log = logging.getLogger("litho.tasks")

FIRST_S = 600.0
"""Seconds from the start to the first run: whoever starts a controller wants other things first."""


async def collect_now_and_then(library: Library, *, every_s: float, first_s: float = FIRST_S) -> None:
    """Collect for ever; at once return when `every_s` is 0."""
    if not every_s:
        return
    await asyncio.sleep(min(first_s, every_s))
    while True:
        await _collect(library)
        await asyncio.sleep(every_s)


async def _collect(library: Library) -> None:
    stop = threading.Event()
    try:
        swept = await asyncio.to_thread(gc.collect, ChunkStore(library), cancelled=stop.is_set)
    except LithoError as exc:
        log.warning("chunks were not collected: %s", exc)
    else:
        log.info("chunks: %d packs deleted, %d bytes freed, %d packs stay", swept.deleted, swept.freed, swept.packs)
    finally:
        # When this is cancelled the thread goes on to its next look at the flag.
        stop.set()
