"""What `litho-agent disks` prints: the inventory and, when asked, why each disk would be taken or passed over."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from litho.amounts import size
from litho_agent.disks.choose import Choice
from litho_agent.disks.disk import Disk

_COLUMNS = ("NAME", "SIZE", "SECTOR", "TRANSPORT", "MODEL", "SERIAL", "WWN", "ON IT")


def as_json(inventory: Sequence[Disk], choice: Choice | None = None) -> str:
    """The inventory as JSON: `{"disks": [...]}`, and with a choice `"chosen"`, `"verdicts"` and `"error"`."""
    found: dict[str, object] = {"disks": list(inventory)}
    if choice is not None:
        error = choice.error
        found["chosen"] = choice.disk.name if choice.disk else None
        found["verdicts"] = choice.verdicts
        found["error"] = None if error is None else {"code": error.code, "message": error.message, "hint": error.hint}
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"


def as_text(inventory: Sequence[Disk], choice: Choice | None = None) -> str:
    """The inventory as a table, and with a choice one line a disk with its reason."""
    if not inventory:
        return "this machine has no disks\n"
    rows = [_COLUMNS, *(_row(disk) for disk in inventory)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if choice is not None:
        lines.append("")
        width = max(len(verdict.name) for verdict in choice.verdicts)
        for verdict in choice.verdicts:
            mark = "chosen" if verdict.chosen else "not   "
            lines.append(f"{mark}  {verdict.name.ljust(width)}  {verdict.reason}")
        if choice.error is not None:
            lines += ["", str(choice.error)]
    return "\n".join(lines) + "\n"


def _row(disk: Disk) -> tuple[str, ...]:
    return (
        disk.name,
        size(disk.size) if disk.size else "-",
        f"{disk.logical}/{disk.physical}",
        disk.transport + (" removable" if disk.removable else "") + (" ro" if disk.read_only else ""),
        disk.model or "-",
        disk.serial or "-",
        disk.wwn or "-",
        _content(disk),
    )


def _content(disk: Disk) -> str:
    words = [f"{signature.device}:{signature.type}" for signature in disk.signatures]
    words += [f"{holder.device} held by {holder.name or holder.by} ({holder.kind})" for holder in disk.holders]
    words += [
        f"{mount.device} swap in use" if mount.swap else f"{mount.device} on {mount.where}" for mount in disk.mounts
    ]
    return ", ".join(words) or disk.note or "-"
