"""The care of the library over HTTP: what it holds, what differs, old versions, chunks that nobody needs, damage.

Reading a library whole takes minutes to hours, so those answers come line by line, and the work ends when its caller goes away:
each of them can be broken off at any moment and begun again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from litho.errors import LithoError
from litho.library import ImageRef, care, parse_ref
from litho.library.chunks import ChunkStore, gc, scrub
from litho.library.chunks import health as healths
from litho.library.chunks.compare import compare
from litho.library.chunks.usage import usage
from litho.library.names import check_name
from litho_controller import api
from litho_controller.api_care import CareLine, DiffView
from litho_controller.store import tasks as rows_of
from litho_controller.tasks import rules
from litho_controller.web.desk import DESK, answer, flag, number
from litho_controller.web.images import listed
from litho_controller.web.lines import Count, follow

routes = web.RouteTableDef()

MOST_KEPT = 1_000_000
LONGEST_GRACE_S = 10 * 365 * 86400


@routes.get("/v1/diff")
async def show_diff(request: web.Request) -> web.Response:
    """What differs between two versions."""
    first, second = (parse_ref(request.query.get(name, "")) for name in ("first", "second"))
    library = request.app[DESK].library

    def work() -> DiffView:
        one, other = library.manifest(first), library.manifest(second)
        found = compare(library, one, other)
        names = [str(ImageRef(each.image, each.version)) for each in (one, other)]
        return DiffView(first=names[0], second=names[1], equal=found.equal, table=found.table, parts=found.parts)

    return answer(await asyncio.to_thread(work))


@routes.post("/v1/images/{name}/prune")
async def prune_image(request: web.Request) -> web.Response:
    """Delete all but the newest versions, and spare those in use; with dry=1 only say which."""
    desk = request.app[DESK]
    name = request.match_info["name"]
    check_name(name)
    keep = max(1, number(request, "keep", default=5, highest=MOST_KEPT))
    async with desk.tasks.images:
        async with desk.store.read() as conn:
            active = await rows_of.all_active(conn)

        def used(ref: ImageRef) -> bool:
            return rules.in_use(active, ref.name, ref.version) is not None

        before = await asyncio.to_thread(listed, desk.library, name)
        if flag(request, "dry"):
            gone = {ref.version for ref in care.doomed(desk.library, name, keep=keep, used=used)}
        else:
            pruned = await asyncio.to_thread(care.prune, desk.library, name, keep=keep, used=used)
            gone = {ref.version for ref in pruned}
    return answer(api.ImageList(images=tuple(one for one in before.images if one.version in gone)))


@routes.get("/v1/library/health")
async def show_health(request: web.Request) -> web.Response:
    """What the last scrubs found."""
    return answer(await asyncio.to_thread(healths.read, ChunkStore(request.app[DESK].library)))


@routes.post("/v1/library/usage")
async def count_library(request: web.Request) -> web.StreamResponse:
    """What each version costs."""
    library = request.app[DESK].library
    return await _told(request, lambda _: CareLine(usage=usage(library)))


@routes.post("/v1/library/gc")
async def collect_chunks(request: web.Request) -> web.StreamResponse:
    """Delete chunks that no image needs."""
    store = ChunkStore(request.app[DESK].library)
    grace = float(number(request, "grace_s", default=int(gc.GRACE_S), highest=LONGEST_GRACE_S, lowest=0))
    return await _told(
        request, lambda count: CareLine(swept=gc.collect(store, grace_s=grace, cancelled=count.stop.is_set))
    )


@routes.post("/v1/library/scrub")
async def scrub_chunks(request: web.Request) -> web.StreamResponse:
    """Read every chunk there is."""
    store = ChunkStore(request.app[DESK].library)
    mend = flag(request, "mend")
    total = await asyncio.to_thread(_pack_bytes, store)
    return await _told(request, lambda count: CareLine(damaged=scrub.scrub(store, mend=mend, tick=count)), total)


def _pack_bytes(store: ChunkStore) -> int:
    listing = store.listing()
    return sum(store.index(pack).size for pack in listing.live | listing.condemned)


async def _told(request: web.Request, work: Callable[[Count], CareLine], total: int = 0) -> web.StreamResponse:
    count = Count()
    return await follow(
        request,
        asyncio.create_task(asyncio.to_thread(work, count), name=request.path),
        now=lambda: CareLine(done=min(count.bytes, total), total=total),
        last=lambda line: line,
        failed=_failed,
        stop=count.stop.set,
    )


def _failed(error: LithoError) -> CareLine:
    return CareLine(error=api.problem_of(error), status=api.status_of(error))
