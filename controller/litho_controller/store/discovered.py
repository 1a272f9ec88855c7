"""Machines that have booted here, shown what they are, and that no node is.

Anybody on the installation network can say that he is one, so there are at most `MOST` of them; the ones that were not seen
for the longest time make room. Each asks every few seconds, so what it says is written only when it is new, or when the last
time is `FRESH_S` ago.
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
FRESH_S = 30.0


class Note(msgspec.Struct, frozen=True):
    """What a machine says, as it is kept."""

    macs: str
    """Of its cards in their normal form, the one that booted first, joined by commas."""
    address: str
    """Where it asks from."""
    inventory: str
    """JSON."""

    @classmethod
    def of(cls, addresses: Sequence[str], *, peer: str, inventory: dict[str, Any]) -> Note:
        """`addresses` in their normal form, the one that booted first."""
        return cls(",".join(dict.fromkeys(addresses)), peer[:64], msgspec.json.encode(inventory).decode())

    @property
    def mac(self) -> str:
        """By which it is known."""
        return self.macs.partition(",")[0]


async def is_fresh(conn: AsyncConnection, note: Note, *, now: float) -> bool:
    """True when just this was noted a moment ago."""
    query = sa.select(discovered).where(discovered.c.mac == note.mac)
    row = (await conn.execute(query)).one_or_none()
    same = row is not None and (row.macs, row.address, row.inventory) == (note.macs, note.address, note.inventory)
    return same and row is not None and 0 <= now - row.last < FRESH_S


async def put(conn: AsyncConnection, note: Note, *, now: float) -> bool:
    """A machine shows itself; True when it was not known."""
    values = {**msgspec.structs.asdict(note), "last": now}
    done = await conn.execute(sa.update(discovered).where(discovered.c.mac == note.mac).values(values))
    if done.rowcount:
        return False
    await conn.execute(sa.insert(discovered).values(mac=note.mac, first=now, **values))
    kept = sa.select(discovered.c.mac).order_by(discovered.c.last.desc()).limit(MOST)
    await conn.execute(sa.delete(discovered).where(discovered.c.mac.not_in(kept)))
    return True


async def find(conn: AsyncConnection) -> list[dict[str, Any]]:
    """Those that no node is by now, the one that was seen last first."""
    owned = macs.owners(await facts.addresses(conn))
    found = []
    for row in (await conn.execute(sa.select(discovered).order_by(discovered.c.last.desc()))).all():
        # SQLAlchemy calls a column that is a word of SQL by a str of its own kind.
        one = {str(name): value for name, value in row._mapping.items()}
        one["macs"] = tuple(one["macs"].split(","))
        one["inventory"] = msgspec.json.decode(one["inventory"])
        if one["mac"] not in owned:
            found.append(one)
    return found
