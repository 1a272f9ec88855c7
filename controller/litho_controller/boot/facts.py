"""What xCAT's tables say of the boot of nodes, with what they inherit from their groups; and which node a MAC address means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from litho_controller.boot import macs, plan
from litho_controller.boot.plan import Facts
from litho_controller.store.schema import xcat
from litho_controller.tables import rows, values

_COLUMNS = {
    "bootparams": ("addkcmdline",),
    "noderes": ("installnic", "primarynic", "xcatmaster", "nfsserver", "nfsdir", "tftpserver", "netboot"),
    "nodetype": ("provmethod",),
    "nodehm": ("serialport", "serialspeed", "serialflow"),
    "hosts": ("ip",),
}
_MOST_NAMES = 500


async def of_nodes(conn: AsyncConnection, names: Sequence[str]) -> dict[str, Facts]:
    """The facts of these nodes; a name that is no node has none but its name."""
    groups = await _groups(conn, names)
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    for table, columns in _COLUMNS.items():
        for node, row in (await values.of_nodes(conn, table, columns, groups)).items():
            found[node].update(row)
    cells = await addresses(conn)
    return {
        name: msgspec.convert({**row, "node": name, "mac": cells.get(name, "")}, Facts) for name, row in found.items()
    }


async def nfsserver(conn: AsyncConnection, name: str, url: str) -> str:
    """noderes.nfsserver of one node; empty when neither it nor a group of it has one. `url` is the controller's: where the
    cell says `<xcatmaster>`, its host is meant, or noderes.xcatmaster. Raises UsageError."""
    groups = await _groups(conn, [name])
    found = (await values.of_nodes(conn, "noderes", ("nfsserver", "xcatmaster"), groups)).get(name, {})
    return plan.server(found.get("nfsserver", ""), url, found.get("xcatmaster", ""))


async def addresses(conn: AsyncConnection) -> dict[str, str]:
    """Node -> its cell of mac.mac. A row that a group is called by says nothing of any one machine."""
    cells = await rows.column(conn, "mac", "mac")
    nodelist = xcat["nodelist"]
    known = {row[0] for row in (await conn.execute(sa.select(nodelist.c.node))).all()}
    return {node: cell for node, cell in cells.items() if node in known}


async def nodes_of(conn: AsyncConnection, mac: str) -> tuple[str, ...]:
    """The nodes that claim an address in its normal form: none, one, or by mistake more."""
    table, nodelist = xcat["mac"], xcat["nodelist"]
    off = table.c.disable.in_(values.DISABLED)
    flat = sa.func.replace(sa.func.replace(sa.func.lower(table.c.mac), "-", ""), ":", "")
    query = (
        sa.select(table.c.node, table.c.mac)
        .join(nodelist, nodelist.c.node == table.c.node)
        .where(flat.like(f"%{mac.replace(':', '')}%"), sa.or_(table.c.disable.is_(None), ~off))
    )
    cells: Mapping[str, str] = {row[0]: row[1] for row in (await conn.execute(query)).all()}
    return macs.owners(cells).get(mac, ())


async def _groups(conn: AsyncConnection, names: Sequence[str]) -> dict[str, list[str]]:
    nodelist = xcat["nodelist"]
    query = sa.select(nodelist.c.node, nodelist.c.groups)
    if len(names) <= _MOST_NAMES:
        query = query.where(nodelist.c.node.in_(names))
    found = {node: text or "" for node, text in (await conn.execute(query)).all()}
    return {name: [word.strip() for word in found.get(name, "").split(",") if word.strip()] for name in names}
