"""xCAT's tables over HTTP: whole, single rows, and columns of nodes."""

from __future__ import annotations

from aiohttp import web

from litho.errors import UsageError
from litho_controller import api
from litho_controller.tables import conditions, edits, nodes, rows, values
from litho_controller.tables.conditions import Condition
from litho_controller.tables.schema import TABLES
from litho_controller.web.desk import DESK, Desk, answer, body_of, expand

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


@routes.put("/v1/tables/{name}")
async def fill_table(request: web.Request) -> web.Response:
    """Replace the rows of a table, or put some over what is there."""
    spec = rows.spec(request.match_info["name"])
    wanted = await body_of(request, api.TableFill)
    async with request.app[DESK].store.write() as conn:
        await edits.restore(conn, spec.name, wanted.columns, wanted.rows, append=wanted.append)
        await edits.keep_busy_nodes(conn)
    return answer(api.TableView(columns=spec.columns))


@routes.post("/v1/tables")
async def edit_tables(request: web.Request) -> web.Response:
    """Change or delete single rows."""
    wanted = await body_of(request, api.TableEdit)
    async with request.app[DESK].store.write() as conn:
        await edits.tabch(conn, wanted.keys, _assignments(wanted.assign))
        await edits.delete(conn, wanted.keys, wanted.delete)
        await edits.keep_busy_nodes(conn)
    changed = {one.column.partition(".")[0] for one in wanted.assign} | set(wanted.delete)
    return answer(api.TableList(tables=tuple(sorted(changed))))


@routes.post("/v1/nodech")
async def edit_nodes(request: web.Request) -> web.Response:
    """Change columns of nodes, or delete their rows."""
    wanted = await body_of(request, api.NodeEdit)
    if not wanted.range:
        raise UsageError("the range names no node", code="bad-noderange")
    async with request.app[DESK].store.write() as conn:
        names = await expand(conn, wanted.range)
        known = await nodes.groups(conn)
        tests = _tests(wanted.where)
        found = await values.by_column(conn, [one.name for one in tests], {name: known[name] for name in names})
        names = [name for name in names if conditions.holds(tests, found[name])]
        await edits.nodech(conn, names, _assignments(wanted.assign))
        for table in wanted.delete:
            if rows.spec(table).key != "node":
                raise UsageError(f"{table} has no rows of nodes", code="bad-column")
            await rows.remove(conn, table, names)
        await edits.keep_busy_nodes(conn)
    return answer(api.NodeNames(nodes=tuple(names)))


@routes.post("/v1/nodels")
async def show_columns(request: web.Request) -> web.Response:
    """Columns of nodes."""
    wanted = await body_of(request, api.ColumnsRequest)
    desk: Desk = request.app[DESK]
    async with desk.store.read() as conn:
        names = await expand(conn, wanted.range)
        if not wanted.columns and not wanted.where:
            return answer(api.ColumnsAnswer(nodes=tuple((name, ()) for name in names)))
        known = await nodes.groups(conn)
        tests = _tests(wanted.where)
        columns = [*wanted.columns, *(one.name for one in tests)]
        found = await values.by_column(conn, columns, {name: known[name] for name in names})
    return answer(
        api.ColumnsAnswer(
            nodes=tuple(
                (name, tuple(found[name].get(column, "") for column in wanted.columns))
                for name in names
                if conditions.holds(tests, found[name])
            )
        )
    )


def _tests(texts: tuple[str, ...]) -> list[Condition]:
    found = []
    for text in texts:
        one = conditions.parse(text)
        if one is None:
            raise UsageError(f"{text[:80]!r} is no condition", hint="write TABLE.COLUMN==VALUE", code="bad-column")
        found.append(one)
    return found


def _assignments(wanted: tuple[api.Assign, ...]) -> list[edits.Assignment]:
    return [edits.Assignment(one.column, one.op, one.value) for one in wanted]
