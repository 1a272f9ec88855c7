"""Nodes as they stand in xCAT's tables: who there is, in which groups, with which MAC, and what each is set to do.

A node exists when it has a row in nodelist. Its boot state is chain.currstate in xCAT's words: `boot`,
`image image-x86-golden` (a capture is ahead), `install image-x86-golden` (a restore is ahead). As xCAT does for such states,
chain.currchain is set to `boot`: what comes after them is the local disk. `netboot rhels5.4-x86_64-foo` and `statelite ...`
have no currchain: the node boots so until it is set to something else.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import NotFoundError, UsageError
from litho.messages import is_name
from litho.task import Action
from litho_controller.store.schema import xcat
from litho_controller.tables import rows
from litho_controller.tables.schema import NODE_TABLES

BOOT = "boot"
DEFAULT_ARCH = "x86"
"""What stands in a state's text when nodetype.arch is empty: VCL's images have this arch, whatever the machine."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", re.ASCII)


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One node."""

    name: str
    groups: tuple[str, ...] = ()
    mac: str = ""
    arch: str = ""
    os: str = ""
    profile: str = ""
    state: str = BOOT


def state_text(action: Action, *, arch: str, image: str) -> str:
    """What `nodeset` prints after the node's name: `<provmethod> <os>-<arch>-<profile>` with the os `image`."""
    word = {"capture": "image", "restore": "install", "verify": "verify"}[action]
    return f"{word} image-{arch or DEFAULT_ARCH}-{image}"


def parse_mac(text: str) -> str:
    """A MAC in the one form that is kept: lower case with colons. Raises UsageError."""
    flat = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(flat):
        raise UsageError(f"{text[:64]!r} is not a MAC address", hint="write it like 52:54:00:12:34:56", code="bad-mac")
    return flat


def check_word(text: str, what: str) -> str:
    """`text` if it may be a group or an arch. Raises UsageError."""
    if not _WORD.fullmatch(text):
        raise UsageError(
            f"{text[:64]!r} cannot be {what}",
            hint="use up to 64 letters, digits, '.', '_', '-', a letter, digit or '_' first",
            code="bad-name",
        )
    return text


def check_node(text: str) -> str:
    """`text` if it may be the name of a node. Raises UsageError."""
    if not is_name(text):
        raise UsageError(
            f"{text[:80]!r} cannot be the name of a node",
            hint="use up to 128 letters, digits, '.', '_', '-', a letter or digit first",
            code="bad-node-name",
        )
    return text


async def groups(conn: AsyncConnection) -> dict[str, list[str]]:
    """Every node with its groups: what a noderange is expanded over."""
    table = xcat["nodelist"]
    off = table.c.disable.in_(("yes", "1"))
    query = sa.select(table.c.node, table.c.groups).where(sa.or_(table.c.disable.is_(None), ~off))
    found = (await conn.execute(query)).all()
    return {node: [word.strip() for word in (text or "").split(",") if word.strip()] for node, text in found}


async def get(conn: AsyncConnection, names: Sequence[str]) -> list[Node]:
    """The nodes of these names that exist, in the order of `names`."""
    nodelist, mac, nodetype, chain = (xcat[name] for name in ("nodelist", "mac", "nodetype", "chain"))
    query = (
        sa.select(
            nodelist.c.node,
            nodelist.c.groups,
            mac.c.mac,
            nodetype.c.arch,
            nodetype.c.os,
            nodetype.c.profile,
            chain.c.currstate,
        )
        .outerjoin(mac, mac.c.node == nodelist.c.node)
        .outerjoin(nodetype, nodetype.c.node == nodelist.c.node)
        .outerjoin(chain, chain.c.node == nodelist.c.node)
    )
    if len(names) <= 500:
        query = query.where(nodelist.c.node.in_(names))
    rows_of_groups = await _group_types(conn)
    found = {}
    for row in (await conn.execute(query)).all():
        words = tuple(word.strip() for word in (row.groups or "").split(",") if word.strip())
        over = [rows_of_groups[word] for word in words if word in rows_of_groups] if rows_of_groups else []
        arch, os, profile = (
            next((value for value in (own, *(one[at] for one in over)) if value is not None), "")
            for at, own in enumerate((row.arch, row.os, row.profile))
        )
        found[row.node] = Node(
            name=row.node,
            groups=words,
            mac=row.mac or "",
            arch=arch,
            os=os,
            profile=profile,
            state=row.currstate or BOOT,
        )
    return [found[name] for name in names if name in found]


async def _group_types(conn: AsyncConnection) -> dict[str, tuple[str | None, ...]]:
    """Rows of nodetype that are called by a group: what its nodes inherit (arch, os, profile)."""
    nodetype, nodelist = xcat["nodetype"], xcat["nodelist"]
    query = sa.select(nodetype.c.node, nodetype.c.arch, nodetype.c.os, nodetype.c.profile).where(
        nodetype.c.node.not_in(sa.select(nodelist.c.node))
    )
    return {row[0]: tuple(row[1:]) for row in (await conn.execute(query)).all()}


async def require(conn: AsyncConnection, name: str) -> Node:
    """One node. Raises NotFoundError."""
    found = await get(conn, [name])
    if not found:
        raise NotFoundError(
            f"there is no node {name[:128]!r}", hint="define it with: litho node add NAME", code="node-missing"
        )
    return found[0]


async def define(
    conn: AsyncConnection, names: Sequence[str], *, mac: str = "", groups: Sequence[str] = (), arch: str = ""
) -> None:
    """Make nodes, or change what is named of those that exist. Every node is in the group `all`. Raises UsageError."""
    for name in names:
        check_node(name)
    if mac and len(names) != 1:
        raise UsageError("one MAC address cannot be given to several nodes", code="usage")
    words = [check_word(word, "the name of a group") for word in groups]
    known = {node.name for node in await get(conn, names)}
    if words:
        text = ",".join(dict.fromkeys([*words, "all"]))
        await rows.put_many(conn, "nodelist", [{"node": name, "groups": text} for name in names])
    else:
        fresh = [name for name in names if name not in known]
        await rows.put_many(conn, "nodelist", [{"node": name, "groups": "all"} for name in fresh])
    if mac:
        await rows.put(conn, "mac", names[0], {"mac": parse_mac(mac)})
    if arch:
        check_word(arch, "an arch")
        await rows.put_many(conn, "nodetype", [{"node": name, "arch": arch} for name in names])


async def remove(conn: AsyncConnection, names: Sequence[str]) -> None:
    """Take nodes out of every table."""
    for table in NODE_TABLES:
        await rows.remove(conn, table, names)


async def set_state(conn: AsyncConnection, states: Mapping[str, str], *, stays: bool = False) -> None:
    """Set the boot state of nodes; `stays`: for every boot from now on, and not for the next one alone."""
    chain = None if stays else BOOT
    await rows.put_many(
        conn,
        "chain",
        [{"node": node, "currstate": text, "currchain": chain} for node, text in states.items()],
    )


async def set_status(conn: AsyncConnection, name: str, status: str, *, now: float) -> None:
    """Write nodelist.status, one of xCAT's words, when it is another one."""
    if (await rows.get(conn, "nodelist", name)).get("status") != status:
        await rows.put(conn, "nodelist", name, {"status": status, "statustime": stamp(now)})


def stamp(now: float) -> str:
    """A moment as xCAT writes it: `MM-DD-YYYY hh:mm:ss`, local time."""
    return time.strftime("%m-%d-%Y %H:%M:%S", time.localtime(now))
