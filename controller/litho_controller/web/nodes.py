"""Nodes over HTTP: define, show, set, and what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import RefusedError, UsageError
from litho.library import ImageRef, parse_ref
from litho.task import Action
from litho_controller import api, noderange
from litho_controller.boot import netboot
from litho_controller.store import tasks as rows_of
from litho_controller.store.tasks import TaskRow
from litho_controller.tables import nodes, osimages, rows
from litho_controller.tasks import rules
from litho_controller.tasks.core import Tasks
from litho_controller.web import status
from litho_controller.web.desk import DESK, Desk, answer, body_of, expand, flag

routes = web.RouteTableDef()


def view(node: nodes.Node, latest: TaskRow | None, tasks: Tasks) -> api.NodeView:
    """A node as the API shows it."""
    return api.NodeView(
        node=node.name,
        groups=node.groups,
        mac=node.mac,
        arch=node.arch,
        state=node.state,
        task=latest.id if latest is not None and not latest.state.ended else "",
        online=node.name in tasks.online,
        status=rules.nodestat_text(node.state, latest),
        health=tasks.healths.of_node(node.name),
    )


async def _views(conn: AsyncConnection, desk: Desk, names: list[str]) -> api.NodeList:
    latest = await rows_of.latest(conn)
    found = await nodes.get(conn, names)
    return api.NodeList(nodes=tuple(view(node, latest.get(node.name), desk.tasks) for node in found))


@routes.get("/v1/nodes")
async def show_nodes(request: web.Request) -> web.Response:
    """The nodes of a range; all when none is given."""
    desk = request.app[DESK]
    async with desk.store.read() as conn:
        names = await expand(conn, request.query.get("range", ""))
        return answer(await _views(conn, desk, names))


@routes.get("/v1/nodes/{name}")
async def show_node(request: web.Request) -> web.Response:
    """One node."""
    desk = request.app[DESK]
    async with desk.store.read() as conn:
        node = await nodes.require(conn, request.match_info["name"])
        latest = await rows_of.find(conn, nodes=[node.name], limit=1)
        return answer(view(node, latest[0] if latest else None, desk.tasks))


@routes.post("/v1/nodes")
async def define_nodes(request: web.Request) -> web.Response:
    """Make nodes, or change those that exist."""
    desk = request.app[DESK]
    wanted = await body_of(request, api.NodeAdd)
    names = noderange.literal(wanted.range)
    if not names:
        raise UsageError("the range names no node", code="bad-noderange")
    async with desk.store.write() as conn:
        await nodes.define(conn, names, mac=wanted.mac, groups=wanted.groups, arch=wanted.arch)
        return answer(await _views(conn, desk, names))


@routes.delete("/v1/nodes")
async def remove_nodes(request: web.Request) -> web.Response:
    """Take nodes away; refused for all of them while one has a task."""
    desk = request.app[DESK]
    text = request.query.get("range", "")
    if not text:
        raise UsageError("name the nodes to remove with range=", code="bad-request")
    async with desk.store.write() as conn:
        names = await expand(conn, text)
        busy = [row for row in await rows_of.all_active(conn) if row.node in set(names)]
        if busy:
            raise RefusedError(
                f"{busy[0].node} has a task ({busy[0].id}, {busy[0].state}) and cannot be removed",
                hint=f"cancel it first: litho task cancel {busy[0].id}",
                code="node-busy",
            )
        shown = await _views(conn, desk, names)
        await nodes.remove(conn, names)
    for name in names:
        desk.tasks.healths.forget(name)
    return answer(shown)


_ACTIONS: dict[str, Action] = {"image": "capture", "verify": "verify"}


@routes.post("/v1/nodeset")
async def nodeset(request: web.Request) -> web.Response:
    """Set nodes to a state, or only say which they are in."""
    desk = request.app[DESK]
    wanted = await body_of(request, api.NodesetRequest)
    if not wanted.range:
        raise UsageError("the range names no node", code="bad-noderange")
    async with desk.store.read() as conn:
        names = await expand(conn, wanted.range)
        if wanted.state == "stat":
            latest = await rows_of.latest(conn)
            found = await nodes.get(conn, names)
            lines = [
                api.NodesetLine(node=node.name, text=rules.nodeset_text(node.state, latest.get(node.name)))
                for node in found
            ]
            return answer(api.NodesetAnswer(nodes=tuple(lines)))
        image = await osimages.row(conn, wanted.image) if wanted.state == "osimage" else {}
        linux = await rows.get(conn, "linuximage", str(image["imagename"])) if image else {}
    if wanted.state in ("boot", "offline"):
        lines = await desk.requests.set_boot(names, wanted.state)
        return answer(api.NodesetAnswer(nodes=tuple(lines)))
    action: Action = _ACTIONS.get(wanted.state, "restore")
    ref = parse_ref(wanted.image) if wanted.image else None
    if ref is not None and wanted.state == "osimage":
        captured = bool(await asyncio.to_thread(desk.library.versions, ref.name))
        if method := netboot.method_of(image, linux, captured=captured):
            _refuse_wishes(wanted, ref, method)
            lines = await desk.requests.set_osimage(names, ref.name)
            return answer(api.NodesetAnswer(nodes=tuple(lines)))
        action, ref = _meant(ref, image, captured=captured)
    lines = await desk.requests.create(names, action, ref, wanted.job, wanted.when)
    return answer(api.NodesetAnswer(nodes=tuple(lines)))


def _meant(ref: ImageRef, row: Mapping[str, str | None], *, captured: bool) -> tuple[Action, ImageRef]:
    """What `osimage=NAME` asks for: an image of the library under that name, else what the osimage table makes of it."""
    if captured and row.get("provmethod") != "image":
        return "restore", ref
    return osimages.meaning(ref, row)


def _refuse_wishes(wanted: api.NodesetRequest, ref: ImageRef, method: str) -> None:
    """Raise UsageError for what only a task could heed."""
    if ref.version:
        raise UsageError(f"{ref.name} is no captured disk and has no versions", hint=f"say osimage={ref.name}")
    if wanted.job != api.JobOptions() or wanted.when != type(wanted.when)():
        raise UsageError(
            f"{ref.name} is booted by the node itself ({method}), without a task that options could be for",
            hint="leave the options out",
            code="usage",
        )


@routes.get("/v1/nodestat")
async def nodestat(request: web.Request) -> web.Response:
    """What the nodes of a range do; `probe=1` looks at those that have an address and no task, `update=1` writes nodelist."""
    desk = request.app[DESK]
    probe, update = flag(request, "probe"), flag(request, "update")
    async with desk.store.read() as conn:
        names = await expand(conn, request.query.get("range", ""))
        latest = await rows_of.latest(conn)
        found = await nodes.get(conn, names)
        addresses = await rows.column(conn, "hosts", "ip") if probe else {}
    # Of a node with a task its agent is the one to tell, and it must not be asked twice.
    busy = {node for node, row in latest.items() if not row.state.ended or rules.went_wrong(row)}
    looked_at = {node.name: addresses[node.name] for node in found if node.name in addresses and node.name not in busy}
    seen = await desk.prober.look(looked_at) if looked_at else {}
    told = {
        node.name: status.told(
            node.state,
            latest.get(node.name),
            gone=node.name in desk.tasks.gone and node.name not in desk.tasks.online,
            seen=seen.get(node.name),
        )
        for node in found
    }
    if update:
        await _update(desk, told)
    lines = tuple(api.NodestatLine(node=name, text=one.text) for name, one in told.items())
    return answer(api.NodestatAnswer(nodes=lines))


async def _update(desk: Desk, told: Mapping[str, status.Told]) -> None:
    """Write what is known into nodelist, with xCAT's words and times."""
    now = status.stamp(desk.tasks.clock.now())
    written = [
        {
            "node": name,
            "status": one.status,
            "statustime": now,
            "appstatus": one.appstatus,
            "appstatustime": now,
        }
        for name, one in told.items()
        if one.status
    ]
    async with desk.store.write() as conn:
        # A node that was removed meanwhile must not come back by being told of.
        known = await nodes.groups(conn)
        await rows.put_many(conn, "nodelist", [row for row in written if row["node"] in known])
