"""What nodes fetch of osimages, on the nodes' door: `GET /install/...`, as from an xCAT management node's web server.

    /install/netboot/<os>/<arch>/<profile>/NAME     kernel, initrd, packed root image of an osimage
    /install/<os>/<arch>/...                        the media of an osimage that is installed from them
    /install/autoinst/<node>                        the answers for a node's installer, while the node is set to install;
                                                    POST: it is installed, and boots its own disk from now on

`/install` is installdir, whatever it is. Nothing else of it is given out: a file must be one that an osimage names, by a plain
path, and must lie in that image's own directory (or in the media's) after all links are followed. Everybody on the installation
network may read them; there are no other secrets in an image than those that its nodes boot with.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from aiohttp import hdrs, web

from litho.errors import LithoError, NotFoundError, UsageError
from litho_controller.boot import netboot
from litho_controller.bundle import site as site_of
from litho_controller.tables import rows
from litho_controller.tables.schema import TABLES
from litho_controller.tasks import autoinst
from litho_controller.tasks.core import Tasks
from litho_controller.tasks.osboot import Known

_PATH = re.compile(r"[A-Za-z0-9_+~-][A-Za-z0-9_.+~-]*(/[A-Za-z0-9_+~-][A-Za-z0-9_.+~-]*)*", re.ASCII)
"""Below installdir: no level begins with a dot, so none is `.`, `..` or hidden (an import's room is)."""
MAX_PATH = 1024


class OsFiles:
    """The handler."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get(f"/{netboot.ROOT}/autoinst/{{node}}", self.answers)
        app.router.add_post(f"/{netboot.ROOT}/autoinst/{{node}}", self.done)
        app.router.add_get(f"/{netboot.ROOT}/{{path:.+}}", self.file)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A file of an osimage, whole or a range of it."""
        path = request.match_info["path"]
        if len(path) > MAX_PATH or not _PATH.fullmatch(path):
            raise UsageError(f"{path[:80]!r} cannot be a path below {netboot.ROOT}", code="bad-request")
        known = await self._known()
        found = await asyncio.to_thread(find, known, path)
        return web.FileResponse(found, headers={hdrs.CONTENT_TYPE: "application/octet-stream"})

    async def answers(self, request: web.Request) -> web.Response:
        """What a node's installer is told."""
        text = await autoinst.answers(self._tasks, request.match_info["node"])
        return web.Response(text=text, headers={hdrs.CACHE_CONTROL: "no-store"})

    async def done(self, request: web.Request) -> web.Response:
        """A node says that it is installed."""
        await autoinst.done(self._tasks, request.match_info["node"])
        return web.Response(status=204)

    async def _known(self) -> Known:
        """All osimages."""
        async with self._tasks.store.read() as conn:
            keys = await rows.column(conn, "site", "value")
            tables = {}
            for table in ("osimage", "linuximage"):
                columns = TABLES[table].columns
                found = (dict(zip(columns, row, strict=True)) for row in await rows.dump(conn, table))
                tables[table] = {str(row["imagename"]): row for row in found}
        return Known(
            site=site_of.parse(keys),
            keys=keys,
            rows={name: (row, tables["linuximage"].get(name, {})) for name, row in tables["osimage"].items()},
        )


def find(known: Known, path: str) -> Path:
    """The file at `path` below installdir that one of these osimages names. Blocks. Raises NotFoundError."""
    wanted = f"{known.site.install}/{path}"
    for name, (osimage, linuximage) in known.rows.items():
        method = netboot.method_of(osimage, linuximage, captured=False)
        home = netboot.home_of(osimage, linuximage, known.site) if method else ""
        if not home or not wanted.startswith(home + "/"):
            continue
        rest = wanted[len(home) + 1 :]
        try:
            image = known.locate(name)
            if method != "install" and rest not in image.files:
                continue
            top = Path(home).resolve(strict=True)
            found = Path(wanted).resolve(strict=True)
        except (LithoError, OSError):
            continue
        if found.is_relative_to(top) and found.is_file():
            return found
    raise NotFoundError(
        f"no osimage has a file {path[:200]} that a node could fetch",
        hint="kernel, initrd and packed root image are given out, and the media of images that are installed",
        code="boot-file-missing",
    )
