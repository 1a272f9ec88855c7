"""Nodes that are set to an osimage of xCAT's methods (netboot, statelite, install): there is no task, the node boots it.

The state is chain.currstate (`netboot rhels5.4-x86_64-foo`), and nodetype has the image's name in provmethod, with its os,
arch and profile, as xCAT writes them. Both stay until somebody sets the node to something else; which files that means is
looked up whenever the node boots, so an image that is built anew is booted as it is then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import LithoError, NotFoundError, RefusedError
from litho.task import Expire, State
from litho_controller.api import NodesetLine
from litho_controller.boot import facts as facts_of
from litho_controller.boot import netboot
from litho_controller.boot.netboot import OsImage, Row
from litho_controller.boot.plan import Boot, Facts
from litho_controller.bundle import site as site_of
from litho_controller.bundle.site import Site
from litho_controller.store import tasks as rows_of
from litho_controller.store.tasks import TaskRow
from litho_controller.tables import nodes, rows
from litho_controller.tasks import rules, safety
from litho_controller.tasks.core import Tasks

log = logging.getLogger("litho.tasks")

BATCH = 250
_ACTIVE = tuple(state for state in State if not state.ended)


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the tables say of some osimages."""

    site: Site
    keys: dict[str, str]
    """The site table."""
    rows: dict[str, tuple[Row, Row]]
    """Name -> its rows of osimage and linuximage."""

    def locate(self, name: str) -> OsImage:
        """The image with its files. Blocks. Raises NotFoundError, RefusedError."""
        osimage, linuximage = self.rows.get(name, ({}, {}))
        if not osimage:
            raise NotFoundError(
                f"there is no osimage {name[:120]!r}", hint="see: lsdef -t osimage", code="osimage-missing"
            )
        return netboot.locate(name, osimage, linuximage, self.site)


async def read(conn: AsyncConnection, names: Iterable[str]) -> Known:
    """What the tables say of these osimages. Raises ConfigError for a site table that cannot be."""
    keys = await rows.column(conn, "site", "value")
    found: dict[str, tuple[Row, Row]] = {}
    for name in dict.fromkeys(names):
        osimage = await rows.get(conn, "osimage", name)
        if osimage:
            found[name] = (osimage, await rows.get(conn, "linuximage", name))
    return Known(site=site_of.parse(keys), keys=keys, rows=found)


def is_set(facts: Facts, state: str) -> bool:
    """True for a node whose boot state is that of an osimage: the word is one of xCAT's methods, and nodetype names the image."""
    method, _, what = state.partition(" ")
    # `install image-x86-golden` is a captured disk, and belongs to a task.
    return method in netboot.STATUS and bool(facts.provmethod) and not what.startswith("image-")


def boot_of(known: Known, facts: Facts, state: str, *, url: str) -> Boot:
    """What such a node boots now. Blocks. Raises LithoError when it cannot."""
    image = known.locate(facts.provmethod)
    if image.state != state:
        raise RefusedError(
            f"{facts.node} is set to {state[:120]}, and the osimage {image.name} is {image.state} by now",
            hint=f"nodeset {facts.node} osimage={image.name}",
            code="osimage-changed",
        )
    return netboot.boot(image, facts, url=url, keys=known.keys)


async def set_osimage(tasks: Tasks, names: Sequence[str], name: str, *, require_mac: bool) -> list[NodesetLine]:
    """Let nodes boot an osimage from now on. One node's refusal does not stop the others.

    Raises NotFoundError or RefusedError when the image is at fault.
    """
    async with tasks.store.read() as conn:
        known = await read(conn, [name])
    image = await asyncio.to_thread(known.locate, name)
    lines: list[NodesetLine] = []
    names = list(dict.fromkeys(names))
    for start in range(0, len(names), BATCH):
        some = names[start : start + BATCH]
        async with tasks.store.write() as conn:
            made, superseded = await _set(tasks, conn, some, image, known, require_mac=require_mac)
        lines += made
        for row in superseded:
            tasks.after(row)
        tasks.to_turn.update(line.node for line in made if not line.error)
        tasks.turned.set()
    return lines


async def _set(
    tasks: Tasks, conn: AsyncConnection, some: Sequence[str], image: OsImage, known: Known, *, require_mac: bool
) -> tuple[list[NodesetLine], list[TaskRow]]:
    url = tasks.installation.url
    there = {node.name for node in await nodes.get(conn, some)}
    busy = {row.node: row for row in await rows_of.find(conn, nodes=some, states=_ACTIVE)}
    facts = await facts_of.of_nodes(conn, some)
    refused = await safety.refusals(conn, [*there], url=url, require_mac=require_mac)
    lines, done, superseded = [], [], []
    for name in some:
        try:
            _may(name, there, busy)
            if name in refused:
                raise refused[name]
            netboot.boot(image, facts[name], url=url, keys=known.keys)
        except LithoError as exc:
            lines.append(NodesetLine(node=name, error=str(exc), code=exc.code))
            continue
        if name in busy:
            superseded.append((await tasks.move(conn, busy[name], Expire(reason=rules.SUPERSEDED)))[0])
        done.append(name)
        lines.append(NodesetLine(node=name, text=image.state))
    await nodes.set_state(conn, dict.fromkeys(done, image.state), stays=image.method != "install")
    types = {"os": image.os, "arch": image.arch, "profile": image.profile, "provmethod": image.name}
    await rows.put_many(conn, "nodetype", [{"node": name, **types} for name in done])
    await rows_of.settle(conn, done)
    log.info("%d nodes are set to %s (osimage %s)", len(done), image.state, image.name)
    return lines, superseded


def _may(name: str, there: set[str], busy: dict[str, TaskRow]) -> None:
    """Raise NotFoundError, or RefusedError for a node with a task that nobody has asked to stop."""
    if name not in there:
        raise NotFoundError(f"there is no node {name}", hint="define it with: litho node add NAME", code="node-missing")
    if name in busy and not busy[name].task.cancel_requested:
        other = busy[name]
        raise RefusedError(
            f"{name} has a task already: {other.id}, {other.action} of {other.image}, {other.state}",
            hint=f"wait for its end, or: litho task cancel {other.id}",
            code="node-busy",
        )
