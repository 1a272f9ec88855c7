"""What every handler of the API works with, and the few things that they all do: read a body, expand a range, answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import UsageError
from litho.library import Library
from litho_controller import noderange
from litho_controller.bundle.importing import Importer
from litho_controller.probe import Prober, TcpProber
from litho_controller.store import Store
from litho_controller.tables import nodes, objects, rows, values
from litho_controller.tables.schema import TABLES
from litho_controller.tasks.core import Tasks
from litho_controller.tasks.requests import Requests

MAX_BODY = 4 * 1024 * 1024
"""Bytes of a request; a noderange that lists 10,000 nodes has about 100 KiB."""

T = TypeVar("T")
_COLUMN = re.compile(r"([a-z]+)\.([a-z_]+)(?=[=!])")


class Desk(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that handlers work with."""

    store: Store
    tasks: Tasks
    requests: Requests
    bundles: Importer | None = None
    """None where nothing can be imported."""
    prober: Prober = msgspec.field(default_factory=TcpProber)

    @property
    def library(self) -> Library:
        """The image library."""
        return self.tasks.library


DESK: web.AppKey[Desk] = web.AppKey("desk", Desk)


def answer(body: msgspec.Struct) -> web.Response:
    """`body` as JSON."""
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


async def body_of(request: web.Request, shape: type[T]) -> T:
    """The request's JSON body. Raises UsageError for one that is not exactly such a thing."""
    try:
        return msgspec.json.decode(await request.read(), type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise UsageError(f"the request is no {shape.__name__}: {exc}", code="bad-request") from exc


async def expand(conn: AsyncConnection, text: str) -> list[str]:
    """The nodes that a range means; all nodes for an empty one. Raises NotFoundError, UsageError."""
    if not text:
        return sorted(await nodes.groups(conn))
    return noderange.expand(text, await universe(conn, text))


async def universe(conn: AsyncConnection, text: str) -> noderange.Universe:
    """What the range `text` is asked about: nodes, static and dynamic groups, and the columns that it selects by."""
    groups = await nodes.groups(conn)
    site = await rows.get(conn, "site", "excludenodes")
    excluded = site.get("value") or ""
    columns = await _columns(conn, f"{text},{excluded}", groups)
    dynamic = await objects.dynamic_groups(conn, f"{text},{excluded}")

    def column(table: str, name: str) -> dict[str, str] | None:
        return columns.get((table, name))

    return noderange.Universe(
        groups,
        dynamic=dynamic.get,
        # xCAT's own words for all nodes; it is no mistake to use them while there is none.
        empty_groups=("all",),
        column=column,
        excluded=excluded,
    )


async def _columns(
    conn: AsyncConnection, text: str, groups: Mapping[str, list[str]]
) -> dict[tuple[str, str], dict[str, str]]:
    """The table columns that a range selects by, read before it is expanded."""
    asked = set(_COLUMN.findall(text))
    if "mgt" in text:
        asked.add(("nodehm", "mgt"))
    known: dict[tuple[str, str], dict[str, str]] = {}
    for table, name in asked:
        spec = TABLES.get(table)
        if spec is not None and spec.key == "node" and name in spec.columns:
            found = await values.of_nodes(conn, table, [name], groups)
            known[table, name] = {node: one.get(name, "") for node, one in found.items()}
    return known


def flag(request: web.Request, name: str) -> bool:
    """True for `?name=1`. Raises UsageError for anything else than 0 and 1."""
    text = request.query.get(name, "")
    if text not in ("", "0", "1"):
        raise UsageError(f"{name} is 0 or 1, not {text[:40]!r}", code="bad-request")
    return text == "1"


def number(request: web.Request, name: str, *, default: int, highest: int, lowest: int = 1) -> int:
    """`?name=N`. Raises UsageError."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not lowest <= int(text) <= highest:
        raise UsageError(f"{name} is a number from {lowest} to {highest}, not {text[:40]!r}", code="bad-request")
    return int(text)


def json_of(text: str | None) -> dict[str, Any] | None:
    """A JSON column as values; None where nothing is."""
    if not text:
        return None
    found = msgspec.json.decode(text)
    return found if isinstance(found, dict) else None
