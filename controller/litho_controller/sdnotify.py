"""Telling systemd how the daemon is: ready, alive, stopping. One datagram to the socket that systemd names; without one, nothing.

The protocol is sd_notify(3). A watchdog's word is sent by the event loop itself, every half of the time that systemd gives
(WATCHDOG_USEC), so that a loop that stands still is noticed and the service started anew.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping


def notify(text: str, environ: Mapping[str, str] | None = None) -> bool:
    """Say it; false when nobody listens."""
    path = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path[0] == "@" else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        try:
            out.sendto(text.encode(), address)
        except OSError:
            return False
    return True


def interval_s(environ: Mapping[str, str] | None = None) -> float | None:
    """Seconds between two signs of life; None when systemd wants none of this process."""
    known = os.environ if environ is None else environ
    text, pid = known.get("WATCHDOG_USEC", ""), known.get("WATCHDOG_PID", "")
    if not text.isascii() or not text.isdigit() or int(text) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(text) / 1_000_000 / 2


async def watchdog() -> None:
    """Say that the event loop turns, for ever; ends at once when nobody wants to know."""
    every = interval_s()
    while every is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(every)
