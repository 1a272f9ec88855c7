"""The answers of a node that is set to an installer (`litho_controller.boot.autoinst`), and the word that it is done."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import LithoError, NotFoundError, RefusedError
from litho.messages import is_name
from litho_controller.boot import autoinst, netboot, plan
from litho_controller.boot import facts as facts_of
from litho_controller.boot.autoinst import Answers
from litho_controller.boot.netboot import OsImage
from litho_controller.boot.plan import Facts
from litho_controller.bundle.rows import XCAT_SHARE
from litho_controller.store import tasks as rows_of
from litho_controller.tables import nodes, rows
from litho_controller.tables.schema import TABLES
from litho_controller.tasks import osboot
from litho_controller.tasks.core import Tasks
from litho_controller.tasks.osboot import Known

log = logging.getLogger("litho.boot")

Cells = dict[str, dict[str, dict[str, str | None]]]


async def answers(tasks: Tasks, name: str) -> str:
    """The text for a node that is set to install. Raises NotFoundError for any other, RefusedError, LithoError."""
    async with tasks.store.read() as conn:
        state, facts = await _set_to_install(conn, name)
        known = await osboot.read(conn, [facts.provmethod])
        cells = await _cells(conn, name)
    made = await asyncio.to_thread(_render, known, facts, state, cells, tasks.installation.url)
    log.info("%s fetched the answers of its installer (%s)", name, facts.provmethod)
    return made


async def check(tasks: Tasks, name: str, image: str) -> None:
    """Raise when the template of this osimage could not be filled in for the node `name`: better now than in the installer.
    Nothing is asked of images that have none. Raises LithoError."""
    async with tasks.store.read() as conn:
        known = await osboot.read(conn, [image])
        facts = (await facts_of.of_nodes(conn, [name]))[name]
        cells = await _cells(conn, name)
    found = await asyncio.to_thread(known.locate, image)
    if found.template:
        facts = msgspec.structs.replace(facts, provmethod=image)
        await asyncio.to_thread(_render, known, facts, found.state, cells, tasks.installation.url)


async def _cells(conn: AsyncConnection, name: str) -> Cells:
    """What a node's template may read: the site table, and the node's own rows."""
    cells: Cells = {}
    for table in autoinst.TABLES:
        columns, key = TABLES[table].columns, TABLES[table].key
        if table != "site":
            cells[table] = {name: await rows.get(conn, table, name)}
            continue
        found = [dict(zip(columns, row, strict=True)) for row in await rows.dump(conn, table)]
        cells[table] = {str(row[key]): row for row in found}
    return cells


async def done(tasks: Tasks, name: str) -> None:
    """The node is installed: from now on it boots its own disk. Raises NotFoundError for a node that was not installing."""
    async with tasks.store.write() as conn:
        await _set_to_install(conn, name)
        await nodes.set_state(conn, {name: nodes.BOOT})
        await nodes.set_status(conn, name, "installed", now=tasks.clock.now())
    tasks.to_turn.add(name)
    tasks.turned.set()
    log.info("%s says that it is installed, and boots its own disk", name)


async def _set_to_install(conn: AsyncConnection, name: str) -> tuple[str, Facts]:
    found = await nodes.get(conn, [name]) if is_name(name) else []
    if found and await rows_of.active(conn, name) is None:
        facts = (await facts_of.of_nodes(conn, [name]))[name]
        if found[0].state.startswith("install ") and osboot.is_set(facts, found[0].state):
            return found[0].state, facts
    raise NotFoundError(f"{name[:80]!r} is no node that is set to be installed", code="boot-file-missing")


def _render(known: Known, facts: Facts, state: str, cells: Cells, url: str) -> str:
    """Blocks."""
    image = known.locate(facts.provmethod)
    if image.state != state:
        raise RefusedError(f"{facts.node} is set to {state[:120]}, and {image.name} is another image by now")
    base = plan.for_host(url, facts.xcatmaster)
    where = urlsplit(base)
    path = image.template
    variables = {
        "XCATMASTER": where.hostname or "",
        "XCATHTTPPORT": str(where.port or 80),
        "INSTALLDIR": known.site.install,
        "OSVERS": image.os,
        "ARCH": image.arch,
        "PROFILE": image.profile,
        "LITHODONE": f"{base}/{netboot.ROOT}/autoinst/{facts.node}",
    }
    made = Answers(
        node=facts.node,
        media=f"{base}{image.path}",
        variables=variables,
        cell=lambda table, key, column: cells[table].get(key, {}).get(column),
        include=lambda wanted: _read(Path(wanted), _roots(image)),
    )
    return autoinst.render(_read(Path(path), (Path(path).parent,)), path, made)


def _roots(image: OsImage) -> tuple[Path, ...]:
    return (Path(image.template).parent, Path(XCAT_SHARE))


def _read(path: Path, roots: tuple[Path, ...]) -> str:
    """A template's text, from one of these directories. Raises RefusedError, LithoError."""
    try:
        real = path.resolve(strict=True)
        if not any(real.is_relative_to(root.resolve()) for root in roots):
            raise RefusedError(
                f"the template includes {str(path)[:200]}, which is not beside it",
                hint=f"templates include files from their own directory and from {XCAT_SHARE}",
                code="bad-template",
            )
        with real.open("rb") as file:
            data = file.read(autoinst.MAX_BYTES + 1)
    except OSError as exc:
        raise LithoError(f"the template {str(path)[:200]} cannot be read ({exc.strerror or exc})") from exc
    if len(data) > autoinst.MAX_BYTES:
        raise RefusedError(
            f"the template {str(path)[:200]} is longer than {autoinst.MAX_BYTES} bytes", code="bad-template"
        )
    return data.decode("utf-8", "replace")
