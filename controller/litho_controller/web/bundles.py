"""Bundles over HTTP: export and import, told line by line (NDJSON) as they go on.

Whoever goes away in the middle ends the work: an export leaves nothing, an import what had arrived, for a second try. Once
an import has begun to place files it goes to its end whether somebody listens or not.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from litho.errors import RefusedError, UsageError
from litho.library import parse_ref
from litho_controller import api
from litho_controller.bundle import exporting, faults
from litho_controller.bundle import site as site_of
from litho_controller.bundle.requests import BundleLine, Exported, ExportRequest, Imported, ImportRequest
from litho_controller.tables import rows
from litho_controller.web.desk import DESK, Desk, body_of
from litho_controller.web.lines import follow

routes = web.RouteTableDef()


class _Count:
    """How far the work is, counted in its thread."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self.cancelled = threading.Event()

    def __call__(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def stop(self) -> None:
        """Ends the thread's work when somebody has asked for it."""
        if self.cancelled.is_set():
            raise faults.cancelled()


@routes.post("/v1/export")
async def export_bundle(request: web.Request) -> web.StreamResponse:
    """Write an image into a tarball on this machine."""
    wanted = await body_of(request, ExportRequest)
    _need_absolute(wanted.tarball, *([wanted.sign] if wanted.sign else []))
    count = _Count()
    return await _told(request, _export(request.app[DESK], wanted, count), count)


async def _export(desk: Desk, wanted: ExportRequest, count: _Count) -> Exported:
    name = parse_ref(wanted.name).name
    async with desk.store.read() as conn:
        site = site_of.parse(await rows.column(conn, "site", "value"))
        osimage = await rows.get(conn, "osimage", name)
        linuximage = await rows.get(conn, "linuximage", name)
    return await asyncio.to_thread(
        exporting.export, wanted, osimage, linuximage, site=site, library=desk.library, tick=count, stop=count.stop
    )


@routes.post("/v1/import")
async def import_bundle(request: web.Request) -> web.StreamResponse:
    """Take an image from a tarball on this machine."""
    wanted = await body_of(request, ImportRequest)
    _need_absolute(wanted.tarball, *wanted.verify)
    count = _Count()
    importer = request.app[DESK].bundles
    if importer is None:
        raise RefusedError("this controller imports no bundles", code="not-supported")
    return await _told(request, importer.run(wanted, tick=count, cancelled=count.cancelled), count)


async def _told(
    request: web.Request, doing: Coroutine[Any, Any, Exported | Imported], count: _Count
) -> web.StreamResponse:
    work = asyncio.create_task(doing, name=request.path)
    return await follow(
        request,
        work,
        now=lambda: BundleLine(done=count.done, total=count.total),
        last=lambda done: _last(done, count),
        failed=lambda exc: BundleLine(error=api.problem_of(exc), status=api.status_of(exc)),
        stop=count.cancelled.set,
    )


def _last(done: Exported | Imported, count: _Count) -> BundleLine:
    if isinstance(done, Exported):
        return BundleLine(done=count.total, total=count.total, exported=done)
    return BundleLine(done=count.total, total=count.total, imported=done)


def _need_absolute(*paths: str) -> None:
    """The daemon has a directory of its own; a relative path would mean another one here than there."""
    for path in paths:
        if not Path(path).is_absolute() or "\0" in path:
            raise UsageError(f"{path[:120]!r} is not an absolute path", code="bad-request")
