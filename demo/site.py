"""A site of its own for the demonstration: a folder with configuration, library and disks, and the programs that run in it.

Everything lies under one directory (`.demo/` in the checkout) and is reached through the same commands that a person types;
they are shown as they are typed. The controller is a child that ends with the demonstration.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from litho import process
from litho.errors import NotFoundError, RefusedError, UnreachableError

READY_S = 30.0
"""Seconds that the controller may take to answer."""


class Site:
    """The folder, and the commands."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.library = root / "library"
        self.config = root / "lithograph.toml"
        self._bin = Path(sys.executable).parent

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """The folder is ours for as long as this lasts. Raises RefusedError when another demonstration runs there."""
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with self.root.with_name(self.root.name + ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise RefusedError(
                    f"another demonstration runs in {self.root}", hint="wait for it, or give --directory DIR"
                ) from exc
            yield

    def prepare(self) -> None:
        """An empty folder with a configuration whose ports are free ones."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True, mode=0o755)
        self.config.write_text(
            f'site = "demo"\nstate_dir = "{self.state}"\nlibrary = "{self.library}"\nsocket = "{self.root}/litho.sock"\n'
            "[http]\nport = 0\n[broker]\nport = 0\n"
        )

    def _argv(self, program: str, *words: str | Path) -> list[str | Path]:
        return [self._bin / program, *words]

    @property
    def _env(self) -> dict[str, str]:
        env = {"LITHO_CONFIG": str(self.config)}
        # The terminal is the one thing that a shown command needs from its surroundings.
        env.update({key: os.environ[key] for key in ("TERM", "COLUMNS", "COLORTERM", "NO_COLOR") if key in os.environ})
        return env

    def ask(self, *words: str) -> str:
        """Output of a `litho` command that is not shown."""
        return process.run(self._argv("litho", *words), env=self._env, doing="litho " + words[0]).out

    def task_of(self, node: str) -> str:
        """Identifier of the node's active task. Raises NotFoundError."""
        tasks = json.loads(self.ask("task", "ls", "--node", node, "--active", "--json"))
        if not tasks:
            raise NotFoundError(f"{node} has no task that runs")
        return str(tasks[0]["id"])

    def show(self, *words: str) -> None:
        """Run a `litho` command as a person would, its output going where the demonstration's goes. Raises EngineError."""
        print(
            f"\n\x1b[1m$ litho {process.pasteable(words)}\x1b[0m"
            if sys.stdout.isatty()
            else f"\n$ litho {process.pasteable(words)}"
        )
        sys.stdout.flush()
        child = process.start(
            self._argv("litho", *words), stdout=sys.stdout.buffer, stderr=sys.stderr.buffer, env=self._env
        )
        code = child.wait()
        if code:
            raise process.failure(process.Done(("litho", *words), code, "", ""))

    @contextlib.contextmanager
    def controller(self) -> Iterator[None]:
        """`litho serve` as a child, ready to be asked; ended in the end."""
        log = (self.root / "controller.log").open("wb")
        with log:
            child = process.start(self._argv("litho", "serve"), stdout=log, stderr=log, env=self._env)
            try:
                self._await(child)
                yield
            finally:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def _await(self, child: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + READY_S
        while time.monotonic() < until and child.poll() is None:
            done = process.run(self._argv("litho", "node", "ls", "--json"), ok=range(256), env=self._env)
            if done.code == 0:
                return
            time.sleep(0.1)
        raise UnreachableError(
            "the controller did not become ready", hint=f"see {self.root}/controller.log", code="controller-not-ready"
        )

    @contextlib.contextmanager
    def agent(self, node: str, disk: Path) -> Iterator[subprocess.Popen[bytes]]:
        """The agent of `node` as a process of its own, as if `node` had booted with `disk`."""
        armed = self.state / "boot" / f"{node}.cmdline"
        cmdline = self.root / f"{node}.cmdline"
        with open(cmdline, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(f"{armed.read_text().strip()} litho.disk={disk}\n")
        with (self.root / f"agent-{node}.log").open("wb") as log:
            child = process.start(self._argv("litho-agent", "run", "--cmdline", cmdline), stdout=log, stderr=log)
            try:
                yield child
            finally:
                if child.poll() is None:
                    child.terminate()
                    child.wait(10)
