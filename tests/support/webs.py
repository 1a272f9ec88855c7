"""Web servers for tests: a real nginx on loopback with its own settings, and one that says what a test wants it to say."""

import contextlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from litho import process
from support.site import until

NGINX = Path("/usr/sbin/nginx")
_HEAD = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log {folder}/access.log; keepalive_requests 1000; default_type application/octet-stream;
  sendfile on; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
"""


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Nginx:
    """A running nginx with one server a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: list[int] = []
        self._child = None

    def url(self, number: int = 0) -> str:
        """The address of one of its servers."""
        return f"http://127.0.0.1:{self.ports[number]}"

    def asked(self) -> list[str]:
        """The requests so far, one line each."""
        return (self.folder / "access.log").read_text().splitlines()

    def start(self, *servers: tuple[Path, str]) -> None:
        """Start it; each server is a directory and settings of its own, such as `limit_rate 100k;`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = _HEAD.format(folder=self.folder)
        for root, settings in servers:
            port = free_port()
            self.ports.append(port)
            tls = " ssl" if "ssl_certificate" in settings else ""
            text += f"  server {{ listen 127.0.0.1:{port}{tls}; root {root}; {settings} }}\n"
        (self.folder / "nginx.conf").write_text(text + "}\n")
        self._child = process.start(
            [NGINX, "-p", self.folder, "-c", self.folder / "nginx.conf", "-g", "user root;"],
            stdout=None,
            stderr=None,
        )
        until(lambda: all(_answers(port) for port in self.ports), within_s=60, what="nginx listens")

    @property
    def runs(self) -> bool:
        """It was not killed."""
        return self._child is not None

    def kill(self) -> None:
        """As a machine that loses its power."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def nginx(folder: Path, *servers: tuple[Path, str]) -> Iterator[Nginx]:
    """A running nginx, ended in the end."""
    made = Nginx(folder)
    try:
        made.start(*servers)
        yield made
    finally:
        made.kill()


def mirror(root: Path, copy: Path) -> Path:
    """A copy of a library's directory."""
    shutil.copytree(root, copy)
    return copy


Script = Callable[[socket.socket, str], None]


class Scripted:
    """A server that hands each request's first line to a script, which answers in its own way on the socket."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.requests: list[str] = []
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def connections(self) -> int:
        """How many there were."""
        return len(self._open)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                made, _ = self._listener.accept()
                self._open.append(made)
                threading.Thread(target=self._talk, args=(made,), daemon=True).start()

    def _talk(self, made: socket.socket) -> None:
        with made, contextlib.suppress(OSError):
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    part = made.recv(65536)
                    if not part:
                        return
                    data += part
                head, _, data = data.partition(b"\r\n\r\n")
                self.requests.append(head.decode())
                self._script(made, head.decode())

    def close(self) -> None:
        """End it and all its connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join()


@contextlib.contextmanager
def scripted(script: Script) -> Iterator[Scripted]:
    """A scripted server, ended in the end."""
    made = Scripted(script)
    try:
        yield made
    finally:
        made.close()
