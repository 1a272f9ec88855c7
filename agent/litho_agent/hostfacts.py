"""What the machine is: processor, memory, network cards, disks, as `/proc` and `/sys` tell. Sent with the claim, for people.

Nothing here decides anything, so nothing here fails: what cannot be read is left out. Each figure is a plain function of
a directory, so that a test can show it another machine's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litho.errors import LithoError
from litho_agent.disks import Disk
from litho_agent.disks import inventory as disk_inventory
from litho_agent.lanes import lanes

log = logging.getLogger("litho_agent.hostfacts")

_CARDS = 64
"""Network cards that are listed at most."""
_DISKS = 64


def inventory(root: Path = Path("/"), disks: Sequence[Disk] = ()) -> dict[str, Any]:
    """The machine's facts as JSON-able values; `root` is where `proc` and `sys` lie.

    Loop devices are no part of a machine: the root image itself lies on one, and eight empty ones would hide the disks.
    """
    real = [disk for disk in disks if disk.transport != "loop"]
    return {
        "arch": platform.machine(),
        "kernel": platform.release(),
        "cpu": {"model": cpu_model(root), "count": os.cpu_count() or 0},
        "memory": memory_bytes(root),
        "nics": nics(root),
        "board": board(root),
        "disks": [disk_facts(disk) for disk in real[:_DISKS]],
    }


def read_disks() -> tuple[Disk, ...]:
    """The machine's disks; none when they cannot be read, because a claim does not fail for want of a list."""
    try:
        return tuple(disk_inventory.read())
    except (LithoError, OSError) as exc:
        log.warning("the disks cannot be listed: %s", exc)
        return ()


def disk_facts(disk: Disk) -> dict[str, Any]:
    """What a person wants to know of a disk."""
    return {
        "name": disk.name,
        "size": disk.size,
        "model": disk.model,
        "serial": disk.serial,
        "wwn": disk.wwn,
        "transport": disk.transport,
        "rotational": disk.rotational,
        "removable": disk.removable,
        "by_path": disk.by_path[0] if disk.by_path else "",
        "content": disk.has_content,
    }


def cpu_model(root: Path) -> str:
    """The processor's name; empty when it has none."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            return value.strip()[:200]
    return ""


def memory_bytes(root: Path) -> int:
    """Bytes of memory; 0 when unknown."""
    return _meminfo(root, "MemTotal:")


def available_bytes(root: Path = Path("/")) -> int:
    """Bytes of memory that programs may still have; 0 when unknown."""
    return _meminfo(root, "MemAvailable:")


def lanes_for(asked: int, *, rotational: bool) -> int:
    """How many partitions move at once on this machine (`lanes`)."""
    return lanes(asked, rotational=rotational, cores=os.cpu_count() or 1, available=available_bytes())


def _meminfo(root: Path, name: str) -> int:
    for line in _read(root / "proc/meminfo").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == name and words[1].isdigit():
            return int(words[1]) * 1024
    return 0


def nics(root: Path) -> list[dict[str, Any]]:
    """Network cards of hardware (those with a device), by name, with MAC, state and speed in Mbit/s."""
    found: list[dict[str, Any]] = []
    with contextlib.suppress(OSError):
        for card in sorted((root / "sys/class/net").iterdir()):
            if not (card / "device").exists() or len(found) >= _CARDS:
                continue
            speed = _read(card / "speed")
            found.append(
                {
                    "name": card.name,
                    "mac": _read(card / "address"),
                    "state": _read(card / "operstate"),
                    "speed": int(speed) if speed.isdigit() else 0,
                }
            )
    return found


def board(root: Path) -> str:
    """Maker and model of the machine."""
    dmi = root / "sys/class/dmi/id"
    return " ".join(filter(None, (_read(dmi / "sys_vendor"), _read(dmi / "product_name"))))[:200]


def _read(path: Path) -> str:
    """The first 64 KiB of a file as printable text; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(65536).decode("ascii", errors="replace").strip()
    except OSError:
        return ""
