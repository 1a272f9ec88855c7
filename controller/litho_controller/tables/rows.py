"""Any row of any of xCAT's tables: read, put, remove, and the whole table as `tabdump` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import NotFoundError
from litho_controller.store.schema import xcat
from litho_controller.tables.schema import TABLES, TableSpec


def spec(name: str) -> TableSpec:
    """The table of that name. Raises NotFoundError."""
    try:
        return TABLES[name]
    except KeyError:
        raise NotFoundError(
            f"there is no table {name[:80]!r}", hint=f"there are: {', '.join(TABLES)}", code="table-missing"
        ) from None


async def get(conn: AsyncConnection, table: str, key: str) -> dict[str, str | None]:
    """One row; empty when there is none."""
    which = spec(table)
    found = (await conn.execute(sa.select(xcat[table]).where(xcat[table].c[which.key] == key))).one_or_none()
    return {} if found is None else dict(found._mapping)


async def put(conn: AsyncConnection, table: str, key: str, values: Mapping[str, str | None]) -> None:
    """Set columns of one row, which is made when it is not there; columns not named stay as they are."""
    await put_many(conn, table, [{spec(table).key: key, **values}])


async def put_many(conn: AsyncConnection, table: str, rows: Sequence[Mapping[str, str | None]]) -> None:
    """The same for many rows, which must all name the same columns, the key among them."""
    if not rows:
        return
    key = spec(table).key
    insert: Any = _upsert(conn.dialect.name)(xcat[table])
    named = [name for name in rows[0] if name != key]
    if named:
        insert = insert.on_conflict_do_update(
            index_elements=[key], set_={name: insert.excluded[name] for name in named}
        )
    else:
        insert = insert.on_conflict_do_nothing(index_elements=[key])
    await conn.execute(insert, [dict(row) for row in rows])


async def remove(conn: AsyncConnection, table: str, keys: Sequence[str]) -> None:
    """Delete the rows of these keys, where there are any."""
    which = spec(table)
    for start in range(0, len(keys), 500):
        await conn.execute(sa.delete(xcat[table]).where(xcat[table].c[which.key].in_(keys[start : start + 500])))


async def dump(conn: AsyncConnection, table: str) -> list[tuple[str | None, ...]]:
    """Every row in the order of its key, columns in the order of the table."""
    which = spec(table)
    query = sa.select(*(xcat[table].c[name] for name in which.columns)).order_by(xcat[table].c[which.key])
    return [tuple(row) for row in (await conn.execute(query)).all()]


async def column(conn: AsyncConnection, table: str, name: str) -> dict[str, str]:
    """One column as key -> value, without the rows that have none or are disabled."""
    which = spec(table)
    off = xcat[table].c.disable.in_(("yes", "1"))
    query = sa.select(xcat[table].c[which.key], xcat[table].c[name]).where(
        xcat[table].c[name].is_not(None), sa.or_(xcat[table].c.disable.is_(None), ~off)
    )
    return {row[0]: row[1] for row in (await conn.execute(query)).all()}


def _upsert(dialect: str) -> Any:
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert  # noqa: PLC0415 - only where it is used

        return postgresql_insert
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert  # noqa: PLC0415 - only where it is used

    return sqlite_insert
