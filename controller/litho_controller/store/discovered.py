"""Machines that have booted here, shown what they are, and that no node is.

Anybody on the installation network can say that he is one, so there are at most `MOST` of them; the ones that were not seen
for the longest time make room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from litho_controller.boot import facts, macs
from litho_controller.store.schema import discovered

MOST = 2000


async def note(
    conn: AsyncConnection, *, addresses: Sequence[str], peer: str, inventory: dict[str, Any], now: float
) -> None:
    """A machine shows itself; `addresses` are its cards in their normal form, the one that booted first."""
    text = msgspec.json.encode(inventory).decode()
    values = {"macs": ",".join(addresses), "address": peer, "inventory": text, "last": now}
    done = await conn.execute(sa.update(discovered).where(discovered.c.mac == addresses[0]).values(values))
    if done.rowcount == 0:
        await conn.execute(sa.insert(discovered).values(mac=addresses[0], first=now, **values))
        kept = sa.select(discovered.c.mac).order_by(discovered.c.last.desc()).limit(MOST)
        await conn.execute(sa.delete(discovered).where(discovered.c.mac.not_in(kept)))


async def find(conn: AsyncConnection) -> list[dict[str, Any]]:
    """Those that no node is by now, the one that was seen last first."""
    owned = macs.owners(await facts.addresses(conn))
    found = []
    for row in (await conn.execute(sa.select(discovered).order_by(discovered.c.last.desc()))).all():
        one = dict(row._mapping)
        one["macs"] = tuple(one["macs"].split(","))
        one["inventory"] = msgspec.json.decode(one["inventory"])
        if not any(mac in owned for mac in one["macs"]):
            found.append(one)
    return found
