"""Power over HTTP, and machines that have shown themselves."""

from __future__ import annotations

import msgspec
from aiohttp import web

from litho.errors import UsageError
from litho_controller import api_schedule
from litho_controller.power.command import Power
from litho_controller.store import discovered
from litho_controller.web.desk import DESK, answer, body_of, expand

routes = web.RouteTableDef()
POWER: web.AppKey[Power] = web.AppKey("power", Power)


@routes.post("/v1/power")
async def switch(request: web.Request) -> web.Response:
    """Switch the nodes of a range, or ask how they are."""
    wanted = await body_of(request, api_schedule.PowerRequest)
    if not wanted.range:
        raise UsageError("the range names no node", code="bad-noderange")
    async with request.app[DESK].store.read() as conn:
        names = await expand(conn, wanted.range)
    lines = await request.app[POWER].ask(names, wanted.action)
    return answer(api_schedule.PowerAnswer(nodes=tuple(lines)))


@routes.get("/v1/discovered")
async def show_discovered(request: web.Request) -> web.Response:
    """Machines that have shown themselves and that no node is."""
    async with request.app[DESK].store.read() as conn:
        found = await discovered.find(conn)
    return answer(
        api_schedule.DiscoveredList(machines=tuple(msgspec.convert(one, api_schedule.DiscoveredView) for one in found))
    )
