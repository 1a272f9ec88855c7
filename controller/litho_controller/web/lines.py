"""Answers that come line by line (NDJSON) while work goes on: how far it is, twice a second, and at last what became of it.

The work stops when its caller goes away: `stop` is called then, and the handler ends when the work has.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from litho.errors import CancelledError, LithoError

LINE_EVERY_S = 0.5

T = TypeVar("T")


async def follow(
    request: web.Request,
    work: asyncio.Task[T],
    *,
    now: Callable[[], msgspec.Struct],
    last: Callable[[T], msgspec.Struct],
    failed: Callable[[LithoError], msgspec.Struct],
    stop: Callable[[], None],
) -> web.StreamResponse:
    """Answer `request` with what `now` says until `work` is done, then with `last` of its result or `failed` of its error."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    try:
        await response.prepare(request)
        while not work.done():
            await _line(response, now())
            await asyncio.wait({work}, timeout=LINE_EVERY_S)
        try:
            end = last(work.result())
        except LithoError as exc:
            end = failed(exc)
        await _line(response, end)
        await response.write_eof()
    finally:
        stop()
        await asyncio.gather(work, return_exceptions=True)
    return response


async def _line(response: web.StreamResponse, line: msgspec.Struct) -> None:
    await response.write(msgspec.json.encode(line) + b"\n")


class Count:
    """Bytes read so far, counted in a thread; ends the thread's work with CancelledError when it is told to stop."""

    def __init__(self) -> None:
        self.bytes = 0
        self.stop = threading.Event()

    def __call__(self, more: int) -> None:
        """Count. Raises CancelledError."""
        if self.stop.is_set():
            raise CancelledError("the check was broken off")
        self.bytes += more
