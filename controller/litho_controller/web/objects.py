"""xCAT's objects over HTTP: what lsdef, mkdef, chdef and rmdef ask for.

A name of a node is a noderange. `mkdef` and `chdef` also take names that are no node yet, as xCAT's do: an element of the range
that is neither node nor group is spelled out (`n[01-10]`).
"""

from __future__ import annotations

from typing import get_args

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import NotFoundError, UsageError
from litho_controller import api, noderange
from litho_controller.noderange.text import cleaned, split
from litho_controller.tables import edits, objects
from litho_controller.tables.attributes import SITE
from litho_controller.web.desk import DESK, answer, body_of, expand, flag, universe

routes = web.RouteTableDef()


@routes.get("/v1/objects/{kind}")
async def show_objects(request: web.Request) -> web.Response:
    """Objects of one kind: those that are named, or all."""
    kind = request.match_info["kind"]
    if kind not in get_args(api.ObjectKind):
        raise NotFoundError(f"there is no object type {kind[:40]!r}", code="object-type")
    text = request.query.get("names", "")
    only = {word for word in request.query.get("only", "").split(",") if word}
    async with request.app[DESK].store.read() as conn:
        names, missing = await _named(conn, kind, text)
        wanted = () if flag(request, "brief") else (sorted(only) or None)
        found = await objects.read(conn, kind, names, only=wanted)
    missing += [name for name in names if name not in found]
    return answer(api.ObjectList(objects=found, missing=tuple(missing)))


async def _named(conn: AsyncConnection, kind: str, text: str) -> tuple[list[str], list[str]]:
    if not text:
        return await objects.names(conn, kind), []
    if kind == "node":
        return noderange.partial(text, await universe(conn, text))
    return list(dict.fromkeys(word for word in text.split(",") if word)), []


@routes.post("/v1/objects")
async def edit_objects(request: web.Request) -> web.Response:
    """Make, change or remove objects, in one transaction."""
    wanted = await body_of(request, api.ObjectEdit)
    async with request.app[DESK].store.write() as conn:
        edited = await (_remove(conn, wanted) if wanted.verb == "rmdef" else _write(conn, wanted))
        await edits.keep_busy_nodes(conn)
    return answer(edited)


async def _write(conn: AsyncConnection, wanted: api.ObjectEdit) -> api.ObjectEdited:
    there = set(await objects.names(conn, wanted.kind))
    pairs: dict[str, dict[str, str]] = {}
    for text, attributes in wanted.objects.items():
        for name in await _spelled(conn, text) if wanted.kind == "node" else [text]:
            pairs.setdefault(name, {}).update(attributes)
    if wanted.kind == "group":
        # The members are written as a noderange, and kept as the nodes that it means now.
        for attributes in pairs.values():
            if attributes.get("members") and attributes.get("grouptype") != "dynamic":
                attributes["members"] = ",".join(await expand(conn, attributes["members"]))
    existed = [name for name in pairs if name in there]
    if wanted.verb == "mkdef" and wanted.kind != "site":
        if wanted.force:
            await objects.remove(conn, wanted.kind, existed)
            # A node that is made anew would forget what its task has set it to.
            await edits.keep_busy_nodes(conn)
            existed = []
        for name in existed:
            del pairs[name]
    else:
        existed = []
    if wanted.mode == "take" and (strange := sorted(set(pairs) - there)):
        raise UsageError(
            f"The '-m' option is not valid since the '{strange[0][:80]}' definition does not exist.", code="usage"
        )
    await objects.change(conn, wanted.kind, pairs, mode=wanted.mode)
    done = sorted(pairs)
    created = [name for name in done if name not in there]
    return api.ObjectEdited(done=tuple(done), created=tuple(created), existed=tuple(sorted(existed)))


async def _spelled(conn: AsyncConnection, text: str) -> list[str]:
    """The nodes of a range some of which may not exist yet."""
    names, missing = noderange.partial(text, await universe(conn, text))
    if not missing:
        return names
    found: set[str] = set()
    excluded: set[str] = set()
    for element in split(cleaned(text), ","):
        target, term = (excluded, element[1:]) if element.startswith("-") else (found, element)
        known, unknown = noderange.partial(term, await universe(conn, term))
        target.update(noderange.literal(term) if unknown else known)
    return sorted(found - excluded)


async def _remove(conn: AsyncConnection, wanted: api.ObjectEdit) -> api.ObjectEdited:
    there = set(await objects.names(conn, wanted.kind))
    doomed: dict[str, None] = {}
    missing: list[str] = []
    for text in wanted.objects:
        names: list[str] = [text]
        strange: list[str] = []
        if wanted.kind == "node":
            names, strange = noderange.partial(text, await universe(conn, text))
        missing += strange + [name for name in names if name not in there]
        doomed.update(dict.fromkeys(name for name in names if name in there))
    if wanted.kind == "site" and SITE in doomed:
        raise UsageError("the site cannot be removed", hint="take single keys away: chdef -t site KEY=", code="usage")
    await objects.remove(conn, wanted.kind, list(doomed))
    return api.ObjectEdited(done=tuple(sorted(doomed)), missing=tuple(missing))
