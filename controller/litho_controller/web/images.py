"""Images over HTTP: list, show, verify, delete.

The library may be slow, and it may hang: everything that touches it runs in a thread. A verification answers line by line
(NDJSON) as it goes on, and stops when its caller goes away.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
from aiohttp import web

from litho.errors import LithoError, RefusedError
from litho.library import ImageRef, Library, care, parse_ref, verify, whole
from litho.library.chunks import ChunkStore
from litho.library.chunks import health as healths
from litho_controller import api
from litho_controller.store import tasks as rows_of
from litho_controller.tables import osimages
from litho_controller.tasks import rules
from litho_controller.web.desk import DESK, answer, flag
from litho_controller.web.lines import Count, follow

routes = web.RouteTableDef()

_USES = {"restore": "restores it to", "verify": "compares it with"}


@routes.get("/v1/images")
async def show_images(request: web.Request) -> web.Response:
    """Every version of every image."""
    return answer(await asyncio.to_thread(listed, request.app[DESK].library))


def listed(library: Library, only: str = "") -> api.ImageList:
    """Every version of every image, or of the one named `only`. Raises LibraryError."""
    health = healths.read(ChunkStore(library))
    return api.ImageList(
        images=tuple(
            msgspec.structs.replace(
                _view(library, ImageRef(name, version), current=version == _current(library, name)),
                damage=health.of(name, version),
            )
            for name in ([only] if only else library.images())
            for version in library.versions(name)
        )
    )


def _current(library: Library, name: str) -> int:
    with contextlib.suppress(LithoError):
        return library.current(name)
    return 0


def _view(library: Library, ref: ImageRef, *, current: bool) -> api.ImageView:
    try:
        manifest = library.manifest(ref)
    except LithoError as exc:
        return api.ImageView(image=ref.name, version=ref.version, current=current, error=str(exc))
    return api.ImageView(
        image=ref.name,
        version=ref.version,
        current=current,
        created=manifest.created,
        used=manifest.used,
        stored=manifest.stored,
        parent=f"{manifest.parent_image}:{manifest.parent}" if manifest.parent else "",
        shared=manifest.shared,
        parts=len(manifest.parts),
        node=manifest.node,
        os=" ".join(word for word in (manifest.os.vers or manifest.os.name, manifest.os.arch) if word),
        labels=manifest.labels,
    )


@routes.get("/v1/images/{ref}")
async def show_image(request: web.Request) -> web.Response:
    """The manifest of a version."""
    ref = parse_ref(request.match_info["ref"])
    return answer(await asyncio.to_thread(request.app[DESK].library.manifest, ref))


@routes.delete("/v1/images/{ref}")
async def remove_image(request: web.Request) -> web.Response:
    """Delete one version, or all of them; refused while a task restores it."""
    desk = request.app[DESK]
    ref = parse_ref(request.match_info["ref"])
    async with desk.tasks.images:
        async with desk.store.read() as conn:
            user = rules.in_use(await rows_of.all_active(conn), ref.name, ref.version)
        if user is not None:
            raise RefusedError(
                f"the image {ref} is in use: {user.id} {_USES[user.action]} {user.node}",
                hint=f"wait for its end, or: litho task cancel {user.id}",
                code="image-in-use",
            )
        gone = await asyncio.to_thread(_remove, desk.library, ref)
        if not await asyncio.to_thread(desk.library.versions, ref.name):
            async with desk.store.write() as conn:
                await osimages.forget(conn, ref.name)
    return answer(gone)


def _remove(library: Library, ref: ImageRef) -> api.ImageList:
    doomed = [ref.version] if ref.version else library.versions(ref.name)
    known = library.versions(ref.name)
    shown = {
        number: _view(library, ImageRef(ref.name, number), current=number == _current(library, ref.name))
        for number in doomed
        if number in known
    }
    return api.ImageList(
        images=tuple(shown[gone.version] for gone in care.remove(library, ref) if gone.version in shown)
    )


@routes.post("/v1/images/{ref}/verify")
async def verify_image(request: web.Request) -> web.StreamResponse:
    """Read every byte of a version; with deep=1 unpack every stream as well."""
    library = request.app[DESK].library
    deep = flag(request, "deep")
    ref = parse_ref(request.match_info["ref"])
    manifest = await asyncio.to_thread(library.manifest, ref)
    total = whole.total(manifest, deep=deep)
    count = Count()
    work = asyncio.create_task(
        asyncio.to_thread(whole.check, library, manifest, count, deep=deep), name=f"verify {ref}"
    )
    return await follow(
        request,
        work,
        now=lambda: api.VerifyLine(done=min(count.bytes, total), total=total),
        last=lambda problems: _verified(problems, total),
        failed=lambda exc: api.VerifyLine(error=api.problem_of(exc), status=api.status_of(exc)),
        stop=count.stop.set,
    )


def _verified(problems: list[verify.Problem], total: int) -> api.VerifyLine:
    told = [api.VerifyProblem(problem.file, problem.sentence) for problem in problems]
    return api.VerifyLine(done=total, total=total, problems=told)
