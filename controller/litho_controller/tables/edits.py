"""Changes to rows as the table commands ask for them: `tabch`, `tabrestore`, `nodech`.

Every value passes `cells.check`. Whatever is done to nodelist, a node with a task that has not ended stays: `keep_busy_nodes` is
called before the transaction ends, and undoes it by raising.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import RefusedError, UsageError
from litho_controller.store import tasks as rows_of
from litho_controller.store.schema import xcat
from litho_controller.tables import nodes, rows, values
from litho_controller.tables.cells import check
from litho_controller.tables.schema import TABLES

Op = Literal["=", "+=", ",=", "^="]
"""Set; append (behind, before) to a list with commas; take out of it."""


class Assignment(msgspec.Struct, frozen=True):
    """One `table.column=value`."""

    column: str
    op: Op
    value: str


def column_of(text: str) -> tuple[str, str]:
    """`table.column` as the two that it names. Raises UsageError with xCAT's words."""
    table, _, name = text.partition(".")
    if table not in TABLES or name not in TABLES[table].columns:
        raise UsageError(f"{text[:80]} not a valid table.column description", code="bad-column")
    return table, name


def changed(old: str, op: Op, value: str) -> str:
    """A value after an assignment."""
    words = [word for word in old.split(",") if word]
    if op == "=":
        return value
    if op == "^=":
        return ",".join(word for word in words if word != value)
    if value in words:
        return old
    return ",".join([value, *words] if op == ",=" else [*words, value])


# ------------------------------------------------------------ nodech


async def nodech(conn: AsyncConnection, names: Sequence[str], assignments: Sequence[Assignment]) -> None:
    """Set columns of nodes. Raises UsageError."""
    by_table: dict[str, list[tuple[str, Assignment]]] = {}
    for one in assignments:
        table, column = column_of(one.column)
        if column == TABLES[table].key or TABLES[table].key != "node":
            raise UsageError(f"{one.column} is not a column that nodes have to be set", code="bad-column")
        by_table.setdefault(table, []).append((column, one))
    known = await nodes.groups(conn)
    for table, pairs in by_table.items():
        columns = list(dict.fromkeys(column for column, _ in pairs))
        present = await values.of_nodes(conn, table, columns, {name: known.get(name, []) for name in names})
        written = []
        for name in names:
            row = dict.fromkeys(columns, "") | {key: present[name].get(key, "") for key in columns}
            for column, one in pairs:
                row[column] = check(table, column, changed(row[column], one.op, one.value))
            written.append({"node": name, **row})
        await rows.put_many(conn, table, written)


# ------------------------------------------------------------ tabch


async def tabch(conn: AsyncConnection, keys: Mapping[str, str], assignments: Sequence[Assignment]) -> None:
    """Set columns of the rows that `keys` name; with the table's key among them, a row that is not there is made."""
    by_table: dict[str, list[tuple[str, Assignment]]] = {}
    for one in assignments:
        table, column = column_of(one.column)
        by_table.setdefault(table, []).append((column, one))
    for table, pairs in by_table.items():
        key = TABLES[table].key
        found = [
            dict(row._mapping) for row in (await conn.execute(sa.select(xcat[table]).where(*_where(table, keys)))).all()
        ]
        if not found and key in keys:
            found = [{name: check(table, name, value) for name, value in keys.items()}]
        if not found:
            raise UsageError(
                f"no row of {table} matches {_shown(keys)}", hint=f"name the key: {key}=VALUE", code="row-missing"
            )
        for row in found:
            new: dict[str, str | None] = {name: row[name] for name in keys}
            for column, one in pairs:
                before = new[column] if column in new else row.get(column)
                new[column] = check(table, column, changed(before or "", one.op, one.value))
            if new.pop(key, row[key]) != row[key]:
                raise UsageError(f"the key of a row of {table} cannot be changed", code="bad-key")
            await rows.put(conn, table, row[key], new)


async def delete(conn: AsyncConnection, keys: Mapping[str, str], tables: Sequence[str]) -> None:
    """Delete the rows that `keys` name from some tables. Raises NotFoundError, UsageError."""
    for table in tables:
        rows.spec(table)
        await conn.execute(sa.delete(xcat[table]).where(*_where(table, keys)))


def _where(table: str, keys: Mapping[str, str]) -> list[Any]:
    if not keys:
        raise UsageError("no key names the rows", hint="write KEY=VALUE first", code="bad-key")
    for name in keys:
        if name not in TABLES[table].columns:
            raise UsageError(f"Unkown key {name[:80]} to {table}", code="bad-column")
    return [xcat[table].c[name] == value for name, value in keys.items()]


def _shown(keys: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in keys.items())[:200]


# ------------------------------------------------------------ tabrestore


async def restore(
    conn: AsyncConnection,
    table: str,
    columns: Sequence[str],
    lines: Sequence[Sequence[str | None]],
    *,
    append: bool,
) -> None:
    """Replace all rows of a table, or with `append` put these over what is there. Raises NotFoundError, UsageError."""
    spec = rows.spec(table)
    for name in columns:
        if name not in spec.columns:
            raise UsageError(
                f"The header line indicates that column '{name[:80]}' should exist, which is not defined in the schema for "
                f"'{table}'",
                code="bad-column",
            )
    if spec.key not in columns or len(set(columns)) != len(columns):
        raise UsageError(f"the header must name each column once, and {spec.key} among them", code="bad-column")
    written: dict[str, dict[str, str | None]] = {}
    for number, line in enumerate(lines, 1):
        if len(line) != len(columns):
            raise UsageError(f"row {number} has {len(line)} values for {len(columns)} columns", code="bad-row")
        row = dict(zip(columns, line, strict=True))
        key = row[spec.key]
        if key is None or key in written:
            what = f"no {spec.key}" if key is None else f"the {spec.key} {key[:80]!r}, which an earlier row has"
            raise UsageError(f"row {number} has {what}", code="bad-row")
        written[key] = {name: None if value is None else check(table, name, value) for name, value in row.items()}
    if not append:
        await conn.execute(sa.delete(xcat[table]))
    await rows.put_many(conn, table, list(written.values()))


# ------------------------------------------------------------ the rule


async def keep_busy_nodes(conn: AsyncConnection) -> None:
    """Raises RefusedError when a node that has a task is not there any more."""
    left = await nodes.groups(conn)
    for row in await rows_of.all_active(conn):
        if row.node not in left:
            raise RefusedError(
                f"{row.node} has a task ({row.id}, {row.state}) and cannot be removed",
                hint=f"cancel it first: litho task cancel {row.id}",
                code="node-busy",
            )
