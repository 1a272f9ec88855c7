"""A stand-in for the daemon: a real HTTP server on a real unix socket that gives canned answers.

It knows no rule of the controller. What it is for: that the client and the command line send what the API says, and understand
what the API answers, without a database and a broker beside them. It keeps every request that it got.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from litho.errors import LithoError
from litho_controller import api

Answer = Any
"""A struct or JSON value, an exception of ours, an `aiohttp.web.Response`, a list of NDJSON lines as `Lines`, or a function of
the request that answers one of these."""


class Lines(list[Any]):
    """Answers that are sent as NDJSON."""


class Request(msgspec.Struct, frozen=True):
    """What was asked."""

    method: str
    path: str
    query: dict[str, str]
    body: Any


class CannedDaemon:
    """The server, in a thread of its own while it is entered."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.answers: dict[str, Answer] = {}
        self.requests: list[Request] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __setitem__(self, request: str, answer: Answer) -> None:
        """`daemon["GET /v1/nodes"] = answer`."""
        self.answers[request] = answer

    def __enter__(self) -> CannedDaemon:
        self._thread.start()
        self._runner = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    async def _start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.UnixSite(runner, str(self.socket)).start()
        return runner

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        asked = Request(
            request.method,
            request.raw_path.partition("?")[0],
            dict(request.query),
            msgspec.json.decode(body) if body else None,
        )
        self.requests.append(asked)
        answer = self.answers.get(f"{asked.method} {asked.path}", web.Response(status=404, text="404: Not Found"))
        if isinstance(answer, Callable):
            answer = answer(asked)
        if isinstance(answer, LithoError):
            return web.Response(status=api.status_of(answer), body=msgspec.json.encode(api.problem_of(answer)))
        if isinstance(answer, web.Response):
            return answer
        if isinstance(answer, Lines):
            stream = web.StreamResponse()
            await stream.prepare(request)
            for line in answer:
                await stream.write(msgspec.json.encode(line) + b"\n")
            await stream.write_eof()
            return stream
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")
