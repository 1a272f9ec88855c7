"""Columns of nodes as they hold, with what nodes inherit from their groups.

In xCAT a row of a node's table may be called by a group instead of a node, and then holds for all nodes of the group: what a
node's own row does not say, the first of its groups (in the order of nodelist.groups) says that does. `disable` set to `yes` or
`1` takes a row out. The empty text is a value: it ends the search, so that a node can have less than its groups.

Not followed: xCAT's regular expressions in values (`|node(\\d+)|10.0.0.($1)|`), which stay as they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import UsageError
from litho_controller.store.schema import xcat
from litho_controller.tables.schema import TABLES

DISABLED = ("yes", "1")
OWN = ("nodelist",)
"""Tables in which a row is always a node's own."""
_MOST_NAMES = 500

Values = dict[str, dict[str, str]]
"""Node -> column -> value, without columns that have none."""


async def of_nodes(
    conn: AsyncConnection, table: str, columns: Sequence[str], groups: Mapping[str, Iterable[str]]
) -> Values:
    """These columns of these nodes; `groups` are the nodes, each with its groups."""
    spec = TABLES[table]
    node = xcat[table].c[spec.key]
    wanted = [name for name in columns if name != spec.key]
    query = sa.select(node, *(xcat[table].c[name] for name in wanted)).where(
        sa.or_(xcat[table].c.disable.is_(None), xcat[table].c.disable.not_in(DISABLED))
    )
    names = set(groups)
    if len(names) <= _MOST_NAMES:
        keys = names if table in OWN else names.union(*groups.values())
        query = query.where(node.in_(keys))
    found = {row[0]: row[1:] for row in (await conn.execute(query)).all()}
    by_group = {} if table in OWN else {key: row for key, row in found.items() if key not in groups}
    values: Values = {}
    for name, words in groups.items():
        row = found.get(name)
        one = {} if row is None else {key: cell for key, cell in zip(wanted, row, strict=True) if cell is not None}
        # Nearly always there is no row of a group, and ten thousand nodes.
        for word in words if by_group else ():
            for key, cell in zip(wanted, by_group.get(word, ()), strict=False):
                if cell is not None:
                    one.setdefault(key, cell)
        if row is not None and spec.key in columns:
            one[spec.key] = name
        values[name] = one
    return values


async def by_column(conn: AsyncConnection, columns: Iterable[str], groups: Mapping[str, Iterable[str]]) -> Values:
    """The same for columns written `table.column`, which are also the names in the answer. Raises UsageError."""
    by_table: dict[str, list[str]] = {}
    for text in columns:
        table, _, column = text.partition(".")
        if table not in TABLES or column not in TABLES[table].columns or TABLES[table].key != "node":
            raise UsageError(f"{text[:80]} not a valid table.column description", code="bad-column")
        by_table.setdefault(table, []).append(column)
    found: Values = {name: {} for name in groups}
    for table, names in by_table.items():
        for node, row in (await of_nodes(conn, table, list(dict.fromkeys(names)), groups)).items():
            found[node].update({f"{table}.{column}": value for column, value in row.items()})
    return found
