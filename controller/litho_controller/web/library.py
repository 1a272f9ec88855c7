"""The library for nodes that restore over HTTP, on the nodes' door: `GET /v1/library/...`, whole files or ranges of them.

    .lithograph                              the marker
    <image>.json, <image>.v<n>.json          pointer and manifest
    <image>.v<n>-*.sfdisk, .head, .chunks,   what a manifest in chunks names
        -job.log
    .chunks/<id>.pack, .idx, .idx.condemned  packs and their indexes
    .chunks/roll, <id>.catalog               where chunks are that moved

Whoever asks must show the token that came with the claim of a task which restores or compares, and which has not ended (or is
lost: its node may still be at work). It opens the packs, and the files of that task's one version; nothing is listed. A name is
opened below the library without following any link, so nothing outside of it can be read, whatever nodes that may write to
the library have put there. Files are sent by the kernel (sendfile).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import os
import re
import stat
from pathlib import Path

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from litho.errors import NotFoundError
from litho.library import files, names, shelf
from litho.library.chunks import roll
from litho.library.chunks.store import DIRECTORY
from litho.library.sources import DOOR
from litho.task import State
from litho_controller.store import tasks as rows_of
from litho_controller.store.tasks import TaskRow
from litho_controller.tasks import accounts
from litho_controller.tasks.core import Tasks

_BEARER = re.compile(r"Bearer (?P<task>t-[0-9]{1,15})\.(?P<proof>[A-Za-z0-9_-]{20,100})", re.ASCII)
_PACK = re.compile(rf"{roll.NAME}|[0-9a-f]{{32}}\.(pack|idx|idx\.condemned|catalog)", re.ASCII)
_LINKS = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENAMETOOLONG)
"""What a link in the place of a file or directory says, a socket, and a name that can be none."""
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_SUFFIX = re.compile(r"job\.log|[a-z0-9._-]*\.(sfdisk|head|chunks)", re.ASCII)


class LibraryDoor:
    """The handlers."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get(DOOR + "/{name}", self.file)
        app.router.add_get(DOOR + "/" + DIRECTORY + "/{name}", self.pack)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A small file of the task's version."""
        row = await self._task(request)
        name = request.match_info["name"]
        if not may_read(name, row.image, row.version):
            raise _missing(name)
        return await self._send(name)

    async def pack(self, request: web.Request) -> web.StreamResponse:
        """A pack or its index."""
        await self._task(request)
        name = request.match_info["name"]
        if not _PACK.fullmatch(name):
            raise _missing(name)
        return await self._send(name, DIRECTORY)

    async def _task(self, request: web.Request) -> TaskRow:
        """The task whose token the request shows. Raises HTTPForbidden."""
        match = _BEARER.fullmatch(request.headers.get(hdrs.AUTHORIZATION, ""))
        number = rows_of.parse_id(match["task"]) if match else None
        row = None
        if number is not None:
            async with self._tasks.store.read() as conn:
                row = await rows_of.get(conn, number)
        if match is None or row is None or not self._opens(row, match["proof"]):
            raise web.HTTPForbidden(reason="the library is given out against the token of a task's claim")
        return row

    def _opens(self, row: TaskRow, proof: str) -> bool:
        wanted = accounts.library_proof(self._tasks.installation.secret, task=row.id, session=row.task.session)
        known = hmac.compare_digest(wanted, proof) and bool(row.task.session)
        return known and row.action != "capture" and (not row.state.ended or row.state is State.LOST)

    async def _send(self, name: str, *inside: str) -> web.StreamResponse:
        return _Sending(await asyncio.to_thread(opened, self._tasks.library.root, name, *inside))


class _Sending(web.FileResponse):
    """A file by its descriptor, so that what is sent is what was looked at."""

    def __init__(self, file: Opened) -> None:
        kind = {hdrs.CONTENT_TYPE: "application/octet-stream"}
        super().__init__(Path(f"/proc/self/fd/{file.fd}"), headers=kind)
        self._file = file

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send it; called once."""
        try:
            return await super().prepare(request)
        finally:
            self._file.close()


def may_read(name: str, image: str, version: int) -> bool:
    """True for the names of small files that a task for this version of this image needs. Pure."""
    if name in (shelf.MARKER, names.pointer_file(image)):
        return True
    parsed = names.parse_file(name)
    if parsed is None or parsed.part or (parsed.image, parsed.version) != (image, version):
        return False
    return not parsed.suffix or _SUFFIX.fullmatch(parsed.suffix) is not None


class Opened:
    """A descriptor that is closed, whatever becomes of the answer that it is for."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close it, once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def opened(root: Path, name: str, *inside: str) -> Opened:
    """The regular file `name` in the directory `inside` of `root`, no link followed. Blocks.

    Raises NotFoundError, LibraryError.
    """
    with contextlib.ExitStack() as held:
        try:
            at = os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
            held.callback(os.close, at)
            for level in inside:
                at = os.open(level, _FLAGS | os.O_DIRECTORY, dir_fd=at)
                held.callback(os.close, at)
            file = Opened(os.open(name, _FLAGS, dir_fd=at))
        except FileNotFoundError:
            raise _missing(name) from None
        except OSError as exc:
            if exc.errno in _LINKS:
                raise _missing(name) from None
            raise files.library_error(exc, root) from exc
    if not stat.S_ISREG(os.fstat(file.fd).st_mode):
        file.close()
        raise _missing(name)
    return file


def _missing(name: str) -> NotFoundError:
    return NotFoundError(
        f"there is no file {name[:120]!r} that a node could fetch from the library", code="library-file-missing"
    )
