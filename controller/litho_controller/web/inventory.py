"""What the machines said of themselves when their agents last claimed a task: for `rinv`.

The inventory is a node's own word, so nothing in it is taken for granted: what is not of the expected shape is left out.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from litho import amounts, nodestat
from litho_controller import api
from litho_controller.store import tasks as rows_of
from litho_controller.web.desk import DESK, answer, expand, json_of

routes = web.RouteTableDef()

MOST_CARDS = 16


def facts(inventory: dict[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """(what, value) in the order in which rinv prints them. Pure."""
    if not inventory:
        return ()
    found = [("System Description", _text(inventory.get("board")))]
    cpu = inventory.get("cpu")
    if isinstance(cpu, dict):
        count = cpu.get("count")
        found.append(("CPU", f"{count if isinstance(count, int) else '?'} x {_text(cpu.get('model'))}"))
    memory = inventory.get("memory")
    if isinstance(memory, int) and memory > 0:
        found.append(("Memory", amounts.size(memory)))
    found.append(("Architecture", _text(inventory.get("arch"))))
    cards = inventory.get("nics")
    if isinstance(cards, list):
        macs = [_text(card.get("mac")) for card in cards[:MOST_CARDS] if isinstance(card, dict)]
        found.extend((f"MAC Address {number}", mac) for number, mac in enumerate(filter(None, macs), 1))
    return tuple((name, value) for name, value in found if value)


def _text(value: Any) -> str:
    return nodestat.clean(value) if isinstance(value, str) else ""


@routes.get("/v1/inventory")
async def show_inventory(request: web.Request) -> web.Response:
    """The inventories of a range."""
    async with request.app[DESK].store.read() as conn:
        names = await expand(conn, request.query.get("range", ""))
        claimed = {row.node: row for row in await rows_of.claimed_latest(conn)}
    lines = (
        api.InventoryLine(node=name, facts=facts(json_of(claimed[name].inventory)) if name in claimed else ())
        for name in names
    )
    return answer(api.InventoryAnswer(nodes=tuple(lines)))
