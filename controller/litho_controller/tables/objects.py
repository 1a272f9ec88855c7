"""xCAT's objects over its tables: what `lsdef` shows and `mkdef`, `chdef` and `rmdef` change.

An object is rows of several tables under one name. A node exists when it is in nodelist, an osimage when it is in osimage, a
group when a node is in it or nodegroup has it, and there is one `site`. Every function works inside the caller's transaction: a
change is there as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import NotFoundError, UsageError
from litho_controller.store.schema import xcat
from litho_controller.tables import conditions as where
from litho_controller.tables import nodes, rows, values
from litho_controller.tables.attributes import ATTRIBUTES, SITE, Attribute, attribute
from litho_controller.tables.cells import check
from litho_controller.tables.schema import NODE_TABLES

Objects = dict[str, dict[str, str]]
"""Name -> attribute -> value, without attributes that have none."""
Mode = Literal["set", "add", "take"]
"""`set` replaces; `add` and `take` change the members of a value that is a list with commas."""


# ------------------------------------------------------------ reading


async def names(conn: AsyncConnection, kind: str) -> list[str]:
    """All objects of a kind, sorted."""
    if kind == "node":
        return sorted(await nodes.groups(conn))
    if kind == "osimage":
        return sorted((await conn.execute(sa.select(xcat["osimage"].c.imagename))).scalars())
    if kind == "site":
        return [SITE]
    used = {word for words in (await nodes.groups(conn)).values() for word in words}
    return sorted(used.union((await conn.execute(sa.select(xcat["nodegroup"].c.groupname))).scalars()))


async def read(
    conn: AsyncConnection, kind: str, wanted: Collection[str], *, only: Iterable[str] | None = None
) -> Objects:
    """Those of the objects that exist, in the order of `wanted`; with `only` no more than these attributes."""
    if kind == "site":
        keys = await rows.column(conn, "site", "value")
        return {SITE: {key: value for key, value in keys.items() if only is None or key in set(only)}} if wanted else {}
    chosen = list(ATTRIBUTES[kind].values()) if only is None else [attribute(kind, name) for name in only]
    if kind == "node":
        return await _nodes(conn, wanted, chosen)
    if kind == "group":
        return await _groups(conn, wanted, {one.name for one in chosen})
    return await _images(conn, wanted, chosen)


def _by_table(chosen: Iterable[Attribute]) -> dict[str, list[Attribute]]:
    found: dict[str, list[Attribute]] = {}
    for one in chosen:
        found.setdefault(one.table, []).append(one)
    return found


async def _nodes(conn: AsyncConnection, wanted: Collection[str], chosen: Sequence[Attribute]) -> Objects:
    known = await nodes.groups(conn)
    groups = {name: known[name] for name in wanted if name in known}
    objects: Objects = {name: {} for name in groups}
    for table, attributes in _by_table(chosen).items():
        found = await values.of_nodes(conn, table, [one.column for one in attributes], groups)
        names_of = {one.column: one.name for one in attributes}
        for name, row in found.items():
            if row:
                objects[name].update({names_of[column]: value for column, value in row.items() if value})
    return objects


async def _images(conn: AsyncConnection, wanted: Collection[str], chosen: Sequence[Attribute]) -> Objects:
    there = set(await names(conn, "osimage"))
    objects: Objects = {name: {} for name in wanted if name in there}
    for table, attributes in _by_table(chosen).items():
        key = xcat[table].c.imagename
        query = sa.select(key, *(xcat[table].c[one.column] for one in attributes))
        for name, *row in (await conn.execute(query)).all():
            if name in objects:
                pairs = zip(attributes, row, strict=True)
                objects[name].update({one.name: value for one, value in pairs if value})
    return objects


async def _groups(conn: AsyncConnection, wanted: Collection[str], chosen: Collection[str]) -> Objects:
    members: dict[str, list[str]] = {}
    for node, words in sorted((await nodes.groups(conn)).items()):
        for word in words:
            members.setdefault(word, []).append(node)
    defined = {row["groupname"]: row for row in await _defined_groups(conn)}
    objects: Objects = {}
    for name in wanted:
        row = defined.get(name)
        if row is None and name not in members:
            continue
        one = {"grouptype": "static"}
        if row is not None:
            specs = ATTRIBUTES["group"].values()
            one.update({spec.name: value for spec in specs if (value := row.get(spec.column))})
        if one["grouptype"] != "dynamic":
            one["members"] = ",".join(members.get(name, []))
        objects[name] = {key: value for key, value in one.items() if value and key in chosen}
    return objects


async def _defined_groups(conn: AsyncConnection) -> list[dict[str, str]]:
    query = sa.select(xcat["nodegroup"])
    return [
        {key: value or "" for key, value in row._mapping.items()}
        for row in (await conn.execute(query)).all()
        if (row.disable or "") not in values.DISABLED
    ]


async def dynamic_groups(conn: AsyncConnection, text: str) -> dict[str, list[str]]:
    """Members of the dynamic groups, and of groups made of groups, that the noderange `text` may name."""
    found: dict[str, list[str]] = {}
    rows_now = [row for row in await _defined_groups(conn) if row["groupname"] in text]
    known = await nodes.groups(conn) if rows_now else {}
    for row in rows_now:
        if row["grouptype"] == "dynamic":
            conditions = where.wherevals(row["wherevals"])
            attributes = {one.name for one in conditions}
            objects = await read(conn, "node", known, only=attributes)
            found[row["groupname"]] = [name for name, one in objects.items() if where.holds(conditions, one)]
        elif row["membergroups"]:
            within = {row["groupname"], *(word.strip() for word in row["membergroups"].split(","))}
            found[row["groupname"]] = [name for name, words in known.items() if within.intersection(words)]
    return found


# ------------------------------------------------------------ changing


async def change(
    conn: AsyncConnection, kind: str, objects: Mapping[str, Mapping[str, str]], *, mode: Mode = "set"
) -> None:
    """Change or make objects. An empty value takes the attribute away (with `set`). Raises UsageError, NotFoundError."""
    if kind == "site":
        await _change_site(conn, objects)
    elif kind == "group":
        await _change_groups(conn, objects, mode)
    else:
        await _change_rows(conn, kind, objects, mode)


async def _change_site(conn: AsyncConnection, objects: Mapping[str, Mapping[str, str]]) -> None:
    for name, pairs in objects.items():
        if name != SITE:
            raise NotFoundError(f"Could not find an object named '{name[:80]}' of type 'site'.", code="object-missing")
        for key, value in pairs.items():
            check("site", "key", key)
            if value:
                await rows.put(conn, "site", key, {"value": check("site", "value", value)})
            else:
                await rows.remove(conn, "site", [key])


async def _change_rows(conn: AsyncConnection, kind: str, objects: Mapping[str, Mapping[str, str]], mode: Mode) -> None:
    first = "nodelist" if kind == "node" else "osimage"
    key = "node" if kind == "node" else "imagename"
    known = set(await names(conn, kind))
    present = await read(conn, kind, objects)
    batches: dict[tuple[str, tuple[str, ...]], list[dict[str, str | None]]] = {}
    for name, pairs in objects.items():
        check(first, key, name)
        old = present.get(name, {})
        new = {attribute(kind, word).name: _joined(old.get(word, ""), value, mode) for word, value in pairs.items()}
        _conditions(kind, {**old, **new}, new)
        written: dict[str, dict[str, str | None]] = {first: {}}
        if kind == "node" and name not in known:
            written[first]["groups"] = "all"
        if kind == "osimage":
            written["linuximage"] = {}
        for word, value in new.items():
            spec = attribute(kind, word)
            row = written.setdefault(spec.table, {})
            row[spec.column] = check(spec.table, spec.column, value) if value else None
        for table, row in written.items():
            batches.setdefault((table, tuple(sorted(row))), []).append({key: name, **row})
    for (table, _), batch in batches.items():
        await rows.put_many(conn, table, batch)


def _conditions(kind: str, whole: Mapping[str, str], new: Mapping[str, str]) -> None:
    for word, value in new.items():
        only_if = attribute(kind, word).only_if
        if value and only_if is not None and whole.get(only_if[0], "") not in only_if[1]:
            raise UsageError(
                f"Cannot set the attr='{word}' attribute unless {only_if[0]} value is {' or '.join(only_if[1])}.",
                code="bad-attribute",
            )


def _joined(old: str, value: str, mode: Mode) -> str:
    """A value after adding to or taking from the list that it is."""
    if mode == "set":
        return value
    before = [word for word in old.split(",") if word]
    words = [word for word in value.split(",") if word]
    if mode == "take":
        return ",".join(word for word in before if word not in words)
    return ",".join(dict.fromkeys([*before, *words]))


async def _change_groups(conn: AsyncConnection, objects: Mapping[str, Mapping[str, str]], mode: Mode) -> None:
    known = await nodes.groups(conn)
    for name, pairs in objects.items():
        check("nodegroup", "groupname", name)
        members = pairs.get("members")
        present = (await read(conn, "group", [name])).get(name, {})
        if members is not None and {**present, **pairs}.get("grouptype") != "dynamic":
            await _change_members(conn, name, [word for word in members.split(",") if word], known, mode)
        row: dict[str, str | None] = {}
        for word, value in pairs.items():
            spec = attribute("group", word)
            row[spec.column] = check("nodegroup", spec.column, value) if value else None
        if row.get("grouptype") == "dynamic":
            where.wherevals(row.get("wherevals") or present.get("wherevals", ""))
            row["members"] = "dynamic"
        elif "members" in row:
            row["members"] = "static"
        await rows.put(conn, "nodegroup", name, row)


async def _change_members(
    conn: AsyncConnection, group: str, members: Sequence[str], known: Mapping[str, list[str]], mode: Mode
) -> None:
    for member in members:
        if member not in known:
            raise NotFoundError(f"Could not find a node named '{member[:80]}'.", code="node-missing")
    for node, words in known.items():
        wanted = node in members if mode == "set" else (group in words or node in members)
        if mode == "take":
            wanted = group in words and node not in members
        if wanted != (group in words):
            changed = [*words, group] if wanted else [word for word in words if word != group]
            await rows.put(conn, "nodelist", node, {"groups": ",".join(changed)})


async def remove(conn: AsyncConnection, kind: str, doomed: Sequence[str]) -> None:
    """Take objects away; of a node every row, of a group its definition and its name at every node. Raises UsageError."""
    if kind == "node":
        await nodes.remove(conn, doomed)
    elif kind == "osimage":
        await rows.remove(conn, "osimage", doomed)
        await rows.remove(conn, "linuximage", doomed)
    elif kind == "group":
        await rows.remove(conn, "nodegroup", doomed)
        for node, words in (await nodes.groups(conn)).items():
            left = [word for word in words if word not in doomed]
            if left != words:
                await rows.put(conn, "nodelist", node, {"groups": ",".join(left)})
        known = await nodes.groups(conn)
        for table in NODE_TABLES:
            await rows.remove(conn, table, [name for name in doomed if name not in known])
    else:
        raise UsageError("the site cannot be removed", hint="take single keys away: chdef -t site KEY=", code="usage")
