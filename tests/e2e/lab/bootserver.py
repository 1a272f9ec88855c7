"""What a node's firmware and initrd fetch over HTTP: an iPXE script of its own, the kernel, the root image, the agent.

The script sends a node with an armed task into the root image, with the words that the controller wrote for it
(`<state_dir>/boot/<node>.cmdline`), and any other node to its own disk. It tells which by the address of the
network card that asks.
"""

from __future__ import annotations

import functools
import http.server
import threading
import time
from pathlib import Path

from .network import ADDRESS, BOOT_PORT
from .world import World

CONSOLES = "console=tty0 console=ttyS0,115200"


class BootServer:
    """The server: `nodes` maps addresses to names."""

    def __init__(self, world: World, rootimg: Path, cmdlines: Path) -> None:
        self.nodes: dict[str, str] = {}
        self.extra = ""
        """Words that every node gets besides."""
        self.asked: list[tuple[float, str, str]] = []
        """Who asked for a script: time (monotonic), address of the card, what it was sent to (`rootimg` or `disk`)."""
        self._world = world
        self._cmdlines = cmdlines
        handler = functools.partial(_Handler, self, directory=str(rootimg))
        self._server = http.server.ThreadingHTTPServer((ADDRESS, BOOT_PORT), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def script_url(self) -> str:
        """What DHCP hands to iPXE; `${mac:hexhyp}` is iPXE's own word."""
        return f"http://{ADDRESS}:{BOOT_PORT}/boot/${{mac:hexhyp}}.ipxe"

    def script(self, address: str) -> str:
        """The iPXE script of the network card with this address."""
        node = self.nodes.get(address, "")
        armed = self._cmdlines / f"{node}.cmdline"
        there = bool(node) and armed.is_file()
        self.asked.append((time.monotonic(), address, "rootimg" if there else "disk"))
        if not there:
            return f"#!ipxe\necho LAB {node or address} boots from its disk\nexit\n"
        base = f"http://{ADDRESS}:{BOOT_PORT}"
        words = (
            f"{CONSOLES} quiet panic=10 BOOTIF=01-${{mac:hexhyp}} litho.rootimg={base}/rootimg.squashfs {self.extra}"
        )
        return (
            f"#!ipxe\necho LAB {node} boots the root image\n"
            f"kernel {base}/vmlinuz initrd=initrd.img {words} {armed.read_text().strip()}\n"
            f"initrd --name initrd.img {base}/initrd.img\nboot\n"
        )

    def wait_asked(self, address: str, sent_to: str, since: float, timeout_s: float) -> float:
        """Wait until the card with this address has asked after `since`; answers how many seconds after."""
        until = time.monotonic() + timeout_s
        while True:
            for when, who, what in list(self.asked):
                if who == address and when > since:
                    assert what == sent_to, f"{address} was sent to its {what}"
                    self._world.note(f"{address} was sent to its {what} {when - since:.1f} s after it began")
                    return when - since
            assert time.monotonic() < until, f"{address} did not ask for its boot script within {timeout_s} s"
            time.sleep(0.1)

    def log(self, text: str) -> None:
        """A request, for the lab's log."""
        self._world.note(f"http: {text}")

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, owner: BootServer, *args: object, **kwargs: object) -> None:
        self._owner = owner
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path.startswith("/boot/"):
            address = self.path.removeprefix("/boot/").removesuffix(".ipxe").replace("-", ":").lower()
            body = self._owner.script(address).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        self._owner.log(f"{self.client_address[0]} {format % args}")
