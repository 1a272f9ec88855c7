"""The agent's pulse: a file that its event loop writes every few seconds, for the watchdog of the root image.

An agent whose loop hangs writes nothing; one that waits for its controller, or whose worker copies, does. The watchdog
(rootimg-build, `watch`) looks only at whether the content changes, so no clock is compared with another. Outside the root image
nobody looks, and nothing is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

FILE = Path("/run/lithograph/pulse")
EVERY_S = 5.0


@contextlib.asynccontextmanager
async def beating(file: Path | None, *, every_s: float = EVERY_S) -> AsyncIterator[None]:
    """While the block runs, `file` changes every `every_s` seconds. None: nothing happens."""
    if file is None:
        yield
        return
    heart = asyncio.create_task(_beat(file, every_s), name="pulse")
    try:
        yield
    finally:
        heart.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await heart


async def _beat(file: Path, every_s: float) -> None:
    while True:
        # A pulse that cannot be written is no reason to stop: the watchdog then ends what nobody can see.
        with contextlib.suppress(OSError):
            file.write_text(f"{time.monotonic():.1f}\n")  # noqa: ASYNC240 - in memory
        await asyncio.sleep(every_s)
