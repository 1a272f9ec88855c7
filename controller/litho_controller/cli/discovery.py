"""Machines that have shown themselves, as a table, and the one that a person means. Pure.

Their inventories are their own word: what is not of the expected shape is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litho.errors import NotFoundError, UsageError
from litho_controller.api_schedule import DiscoveredList, DiscoveredView
from litho_controller.boot import macs
from litho_controller.cli import render

HEADERS = ("MAC", "ADDRESS", "SEEN", "BOARD", "CPUS", "MEMORY", "DISKS")


def table(machines: Sequence[DiscoveredView], *, now: float) -> render.Grid:
    """One row a machine; `now` is the time, for how long ago it was seen."""
    rows = [
        (
            one.mac,
            one.address,
            f"{render.duration(now - one.last)} ago",
            _text(one.inventory.get("board")),
            _cpus(one.inventory.get("cpu")),
            _size(one.inventory.get("memory")),
            ", ".join(_disks(one.inventory.get("disks"))),
        )
        for one in machines
    ]
    return render.Grid(headers=HEADERS, rows=rows)


def pick(found: DiscoveredList, text: str) -> tuple[str, str]:
    """Address of the booting card, and arch, of the machine that has a card with the address `text`. Raises UsageError,
    NotFoundError."""
    mac = macs.normal(text)
    if not mac:
        raise UsageError(f"{text[:64]!r} is not a MAC address", hint="write it like 52:54:00:12:34:56", code="bad-mac")
    for one in found.machines:
        if mac in (one.mac, *one.macs):
            return one.mac, _text(one.inventory.get("arch"))
    raise NotFoundError(
        f"no machine with the address {mac} has shown itself",
        hint="see: litho node ls --discovered; or name the address with --mac",
        code="machine-missing",
    )


def _text(value: Any) -> str:
    return render.clean(value)[:64] if isinstance(value, str) else ""


def _cpus(value: Any) -> str:
    count = value.get("count") if isinstance(value, dict) else None
    return str(count) if isinstance(count, int) else ""


def _size(value: Any) -> str:
    return render.size(value) if isinstance(value, int) and value > 0 else ""


def _disks(value: Any) -> list[str]:
    """Those that have a medium: `sda 480 GB`."""
    found = []
    for one in value if isinstance(value, list) else []:
        size = _size(one.get("size")) if isinstance(one, dict) else ""
        if size:
            found.append(f"{_text(one.get('name'))} {size}".strip())
    return found[:8]
