"""What boot loaders and the root image's initrd fetch, on the nodes' door. No account is needed, as a firmware has none.

    GET /boot/ipxe                  the script that DHCP points to: it goes on to the next one
    GET /boot/ipxe?mac=MAC          the script of the node with that card
    GET /boot/MAC.ipxe              the same
    POST /v1/discover               a machine that no node is shows itself, and asks what to do
    GET /install/...                files of osimages (`litho_controller.web.osfiles`)
    GET /boot/files/NAME            vmlinuz, initrd.img, rootimg.squashfs, agent.tar.gz: from boot.dir

A file is sent by the kernel (sendfile), whole or a range of it, with an ETag; many nodes at once cost no memory. Files are those
that lie in boot.dir itself: no name leads out of it, neither by dots nor by a link.
"""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

from aiohttp import hdrs, web

from litho.discovery import Discovery
from litho.errors import NotFoundError, UsageError
from litho.messages import decode, encode
from litho_controller.tasks.booting import Booting
from litho_controller.tasks.discovering import Discovering

log = logging.getLogger("litho.web")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}", re.ASCII)


class BootDoor:
    """The handlers."""

    def __init__(self, booting: Booting, discovering: Discovering, directory: Path) -> None:
        self._booting = booting
        self._discovering = discovering
        self._directory = directory

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/boot/ipxe", self.ipxe)
        app.router.add_get("/boot/files/{name}", self.file)
        app.router.add_get("/boot/{mac}.ipxe", self.script)
        app.router.add_post("/v1/discover", self.discover)

    async def ipxe(self, request: web.Request) -> web.Response:
        """The first script, or that of a card."""
        if "mac" not in request.query:
            return _script(self._booting.first())
        return await self._answer(request, request.query["mac"])

    async def script(self, request: web.Request) -> web.Response:
        """The script of a card."""
        return await self._answer(request, request.match_info["mac"])

    async def _answer(self, request: web.Request, mac: str) -> web.Response:
        return _script(await self._booting.script(mac, peer=request.remote or "somewhere"))

    async def discover(self, request: web.Request) -> web.Response:
        """A machine that no node is shows itself, and is told what to do."""
        wanted = decode(await request.read(), Discovery)
        told = await self._discovering.shown(wanted, peer=request.remote or "")
        # It may hold a token.
        headers = {hdrs.CACHE_CONTROL: "no-store"}
        return web.Response(body=encode(told), content_type="application/json", headers=headers)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A file of the root image."""
        name = request.match_info["name"]
        path = await asyncio.to_thread(find, self._directory, name)
        # The type is said, or aiohttp would call the agent's archive a tar file that is packed on its way.
        return web.FileResponse(path, headers={hdrs.CONTENT_TYPE: "application/octet-stream"})


def find(directory: Path, name: str) -> Path:
    """The file `name` in `directory`. Blocks. Raises NotFoundError, UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:80]!r} cannot be the name of a boot file", code="bad-request")
    try:
        root = directory.resolve(strict=True)
        path = (root / name).resolve(strict=True)
        inside = path.parent == root and path.is_file()
    except OSError:
        inside = False
    if not inside:
        raise NotFoundError(
            f"there is no boot file {name}",
            hint=f"make the root image (litho rootimg build) and put its http/ files into {directory}",
            code="boot-file-missing",
        )
    return path


def _script(text: str) -> web.Response:
    # What a node boots changes with its task: nobody between it and us may keep it.
    return web.Response(text=text, headers={hdrs.CACHE_CONTROL: "no-store"})
