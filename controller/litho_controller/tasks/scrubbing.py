"""Reads what lies in the library in chunks, pack by pack, so that every pack was read whole within a week; tells what is damaged.

It goes on where it was (`litho.library.chunks.patrol`), so a controller may be stopped at any moment. It never takes more than
half of the time for reading, and a tenth while tasks are at work: it rests after each pack. What it finds is a warning in the
log, and stands in `litho image ls`, `show` and `stats`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from litho.errors import LithoError
from litho.library import Library
from litho.library.chunks import ChunkStore
from litho.library.chunks.health import Damage, Health
from litho.library.chunks.patrol import Stopped, patrol

log = logging.getLogger("litho.tasks")

FIRST_S = 900.0
"""Seconds from the start to the first look: whoever starts a controller wants other things first."""
LOOK_S = 3600.0
"""Seconds between two looks whether a pack is due."""
REST = 1.0
REST_BUSY = 9.0
"""Seconds of rest for each second of reading, while nothing is at work and while tasks are."""
_TOLD = 3


async def scrub_now_and_then(
    library: Library, *, every_s: float, busy: Callable[[], bool], first_s: float = FIRST_S, look_s: float = LOOK_S
) -> None:
    """Look after the packs for ever; at once return when `every_s` is 0."""
    if not every_s:
        return
    await asyncio.sleep(min(first_s, every_s))
    said: set[str] = set()
    while True:
        health = await _patrol(library, every_s, busy)
        if health is not None:
            for name, why in sorted(health.lacking.items()):
                if name not in said:
                    log.warning("the image of %s cannot be restored: %s; capture it again", name, why)
            said = set(health.lacking)
        await asyncio.sleep(min(look_s, every_s))


async def _patrol(library: Library, every_s: float, busy: Callable[[], bool]) -> Health | None:
    stop = threading.Event()

    def rest(took: float) -> None:
        stop.wait(took * (REST_BUSY if busy() else REST))

    def work() -> Health | None:
        try:
            return patrol(ChunkStore(library), every_s=every_s, cancelled=stop.is_set, rest=rest, found=_warn)
        except Stopped:
            return None

    try:
        return await asyncio.to_thread(work)
    except LithoError as exc:
        log.warning("the chunks of the library were not read through: %s; it goes on in an hour", exc)
        return None
    finally:
        # When this is cancelled the thread goes on to its next look at the flag.
        stop.set()


def _warn(damage: Damage) -> None:
    more = len(damage.sentences) - _TOLD
    log.warning(
        "%s%s; needed by %s; restore it from a backup, or capture these again after litho image scrub --mend",
        "; ".join(damage.sentences[:_TOLD]),
        f"; and {more} more" if more > 0 else "",
        ", ".join(damage.images) or "no image",
    )
