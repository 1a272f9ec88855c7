"""xCAT's tables over HTTP, whole."""

from __future__ import annotations

from aiohttp import web

from litho_controller import api
from litho_controller.tables import rows
from litho_controller.tables.schema import TABLES
from litho_controller.web.desk import DESK, answer

routes = web.RouteTableDef()


@routes.get("/v1/tables")
async def show_tables(_request: web.Request) -> web.Response:
    """Which tables there are."""
    return answer(api.TableList(tables=tuple(sorted(TABLES))))


@routes.get("/v1/tables/{name}")
async def show_table(request: web.Request) -> web.Response:
    """One table."""
    spec = rows.spec(request.match_info["name"])
    async with request.app[DESK].store.read() as conn:
        found = await rows.dump(conn, spec.name)
    return answer(api.TableView(columns=spec.columns, rows=tuple(found)))
