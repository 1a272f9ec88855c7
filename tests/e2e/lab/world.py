"""Processes, logs and ports: what the lab's servers and machines share.

Every program's output goes to a file of its own in the lab's folder, with the lab's clock before each line, so a
failure can be read side by side.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from litho import process

PATIENCE = 2
"""Every limit of a wait is this many times what it says: a lab shares its cores with another lab and whoever else is there."""


class World:
    """One lab: its folder, its clock, its programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begun = time.monotonic()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._readers: list[threading.Thread] = []
        (folder / "log").mkdir(parents=True, exist_ok=True)

    @property
    def clock(self) -> float:
        """Seconds since the lab began."""
        return time.monotonic() - self.begun

    def note(self, text: str) -> None:
        """A line in the lab's own log."""
        with (self.folder / "log/lab.log").open("a") as log:
            log.write(f"[{self.clock:7.1f}] {text}\n")

    def start(self, name: str, *argv: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program that lives as long as the lab, or until `stop`."""
        child = process.start(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
        self._children[name] = child
        self.note(f"started {name}: {process.pasteable(argv)}")
        reader = threading.Thread(target=self._copy, args=(name, child), daemon=True)
        reader.start()
        self._readers.append(reader)
        return child

    def _copy(self, name: str, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        with child.stdout, (self.folder / f"log/{name}.log").open("a", buffering=1) as log:
            for line in child.stdout:
                log.write(f"[{self.clock:7.1f}] {line.decode(errors='replace').rstrip()}\n")

    def stop(self, name: str, *, kill: bool = False) -> None:
        """End a program, gently or by SIGKILL."""
        child = self._children.pop(name)
        if child.poll() is None:
            child.kill() if kill else child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.note(f"ended {name}: {child.returncode}")

    def wait(self, holds: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Wait until something holds."""
        until = time.monotonic() + timeout_s * PATIENCE
        while not holds():
            assert time.monotonic() < until, f"not within {timeout_s} s: {what}"
            time.sleep(0.1)
        self.note(what)

    def close(self) -> None:
        """End everything, the youngest first."""
        for name in reversed(list(self._children)):
            self.stop(name)
        for reader in self._readers:
            reader.join(5)


def wait_port(host: str, port: int, *, of: subprocess.Popen[bytes], timeout_s: float = 30) -> None:
    """Wait until the program `of` listens; fails at once when it has ended."""
    _wait(lambda: socket.create_connection((host, port), 0.5).close(), f"{host}:{port}", of, timeout_s)


def wait_socket(path: Path, *, of: subprocess.Popen[bytes], timeout_s: float = 30) -> None:
    """The same for a unix socket."""

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))

    _wait(connect, str(path), of, timeout_s)


def _wait(connect: Callable[[], None], where: str, of: subprocess.Popen[bytes], timeout_s: float) -> None:
    until = time.monotonic() + timeout_s * PATIENCE
    while True:
        with contextlib.suppress(OSError):
            connect()
            return
        assert of.poll() is None, f"{of.args} ended with {of.returncode}; its log says why"
        assert time.monotonic() < until, f"nothing listens on {where} after {timeout_s} s"
        time.sleep(0.05)


def plain(data: bytes) -> str:
    """Console output without escape sequences."""
    return re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00\x07]", b"", data).decode(errors="replace")
