"""Opening the doors: a TCP socket for nodes, a unix socket for the command line.

The sockets are opened before anything is served, so that the address is known (port 0 takes a free one) and a second controller
is found out early. Connections wait in the kernel until `serve` is called.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from aiohttp import web

from litho.errors import LithoError, RefusedError

ORDINARY_LINE = 8190
"""Bytes of a request's first line."""
LONGEST_RANGE = 4 * 1024 * 1024
"""The same for commands: the longest noderange, each character written as %XX at most."""


def open_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises RefusedError when the port is taken, LithoError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as exc:
        raise RefusedError(
            f"cannot listen on {host} port {port} ({exc.strerror or exc})",
            hint="end the program that uses it, or set http.host and http.port",
            code="port-taken",
        ) from exc


def open_unix(path: Path) -> socket.socket:
    """A listening unix socket that only its owner may open. Raises RefusedError when somebody answers there, LithoError."""
    if _answers(path):
        raise RefusedError(
            f"another controller answers on {path}",
            hint="end it, or set socket to another path",
            code="already-running",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        # The rights must be there from the first moment on, not a moment later.
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(128)
    except OSError as exc:
        listener.close()
        raise LithoError(
            f"cannot listen on the socket {path} ({exc.strerror or exc})",
            hint="check the rights of its directory, or set socket to another path",
            code="socket",
        ) from exc
    return listener


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2.0)
            probe.connect(str(path))
    except OSError:
        return False
    return True


async def serve(app: web.Application, listener: socket.socket) -> web.AppRunner:
    """Answer on `listener` until the runner that is returned is cleaned up."""
    # A noderange travels in the request's first line, and may name every node there is; from nodes nothing long comes.
    longest = LONGEST_RANGE if listener.family == socket.AF_UNIX else ORDINARY_LINE
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0, max_line_size=longest)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner
