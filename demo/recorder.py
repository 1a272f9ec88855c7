"""A site whose commands are written down as they are run: what `demo.session` makes its page with.

What no two runs share (times, ids of sessions, ports, rates, the folder, loop devices) is replaced by something fixed, so that a
renewed page differs from the old one only where the commands do.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from demo.site import Site
from litho import process
from litho.errors import UnreachableError

SHOWN = "/srv/site"
"""What the page calls the temporary folder."""
STRANGER = "52:54:00:00:00:06"
BOARD = """#!/bin/sh
state={root}/$1.power
case $2 in
stat) cat $state 2>/dev/null || echo on ;;
off) echo off >$state ;;
*) echo on >$state ;;
esac
"""
FIXED: tuple[tuple[str, str], ...] = (
    (r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d(?:[.,]\d+)?", r"2026-11-22\g<1>16:00:00"),
    (r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d", "11-22-2026 16:00:00"),
    (r"\b[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\b", "5f0c2a9e51d24c6b8a7e9d3c2b1a0f4e"),
    (r"(127\.0\.0\.1(?::| port ))\d+", r"\g<1>3080"),
    (r"\(process \d+\)", "(process 1234)"),
    (r"running: partition, .*", "running: partition, 42%, 100 MB/s, 2s left"),
    (r"\d+(\.\d+)? ([kMG])B/s", r"100 \g<2>B/s"),
    (r"\b\d+s ago\b", "1s ago"),
    (r" in \d+(\.\d+)?s\b", " in 2s"),
    (r"(?m)^(time +)\d+s$", r"\g<1>2s"),
    (r"\d+s  (succeeded|failed)", r"2s  \g<1>"),
    (r"(result.seconds +)\d+\.\d+", r"\g<1>2.0"),
    (r"(?m)^\d+\.\d s ", "0.1 s "),
    (r"\d+(\.\d+)? [GT]B free", "100 GB free"),
    (r"(?m)^(free +)\d.*", r"\g<1>100 GB"),
    (r"processors \d+%, load [0-9.]+, [0-9.]+ [MG]B of", "processors 50%, load 1.0, 20.0 GB of"),
)

_BETWEEN = re.compile(r"^\w+: \w+ \S+ (armed|claimed|planned|running: (?!partition).*)$")


def fixed(text: str, root: Path, disks: Sequence[Path] = ()) -> str:
    """`text` without what no two runs share; `disks` are called /dev/loop0, /dev/loop1, ... in their order. Pure."""
    numbers = {disk.name: f"loop{number}" for number, disk in enumerate(disks)}
    # In a list of disks stand other people's loop devices, too.
    text = re.sub(r"\bloop\d+ [\d.]+ [KMG]iB(, )?", "", text)
    host = socket.gethostname()
    text = re.sub(rf"  {re.escape(host)}( +)", lambda found: "  mgmt".ljust(len(found[0])), text)
    text = re.sub(r"\bloop\d+", lambda found: numbers.get(found[0], found[0]), text)
    text = (
        text.replace(str(root), SHOWN)
        .replace(str(Path(sys.executable).parent), "/usr/bin")
        .replace(f"[{host}]", "[mgmt]")
    )
    for pattern, put in FIXED:
        text = re.sub(pattern, put, text)
    return text


class Recorder(Site):
    """The site, and the page that grows."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.page: list[str] = []
        self.disks: list[Path] = []
        self._block = False

    def prepare(self) -> None:
        """A folder with configuration and the stand-in for a management board."""
        super().prepare()
        board = self.root / "board"
        board.write_text(BOARD.format(root=self.root))
        board.chmod(0o755)
        with self.config.open("a") as file:
            file.write(f'[power]\ncommand = ["{board}", "{{node}}", "{{action}}"]\n')

    # ------------------------------------------------------------ the page

    def tell(self, text: str, *, title: str = "") -> None:
        """A heading, and a paragraph before the next commands."""
        self.close()
        self.page += [f"\n## {title}\n"] if title else [""]
        self.page += [text, ""]

    def close(self) -> None:
        """End the block of commands."""
        if self._block:
            self.page.append("```")
        self._block = False

    def add(self, command: str, out: str, *, head: int = 0, last: int = 0) -> None:
        """Put a command and what it said onto the page; the first `head` and the `last` lines of it, if `head` is not 0."""
        if not self._block:
            self.page.append("```text")
        elif self.page[-1] != "":
            self.page.append("")
        self._block = True
        lines = [line.rstrip() for line in fixed(out, self.root, self.disks).splitlines()]
        # What a command that follows sees in between depends on the machine.
        lines = [line for line in lines if not _BETWEEN.search(line)]
        lines = [line for at, line in enumerate(lines) if at == 0 or line != lines[at - 1] or "running" not in line]
        if head and len(lines) > head + last:
            lines = [*lines[:head], "...", *lines[len(lines) - last :]]
        self.page += [f"$ {command}", *lines]

    def run(self, command: str, *, code: int = 0, head: int = 0, last: int = 0) -> str:
        """Run `litho ...` as it is written, and put it onto the page; answers its output. Raises EngineError when it ends
        otherwise than with `code`."""
        done = self.quiet(command)
        said = done.out + done.err
        if done.code != code:
            sys.stderr.write(said)
            raise process.failure(done)
        self.add(command, said + (f"(exit code {code})\n" if code else ""), head=head, last=last)
        return done.out

    def quiet(self, command: str) -> process.Done:
        """Run a command that is not shown."""
        program, *words = shlex.split(command.replace(SHOWN, str(self.root)))
        return process.run(self._argv(program, *words), ok=range(256), env=self._env)

    # ------------------------------------------------------------ nodes

    def armed(self, node: str) -> None:
        """Wait until the node may boot. Raises UnreachableError."""
        self.until((self.state / "boot" / f"{node}.cmdline").exists, f"{node} is armed")

    def works(self, node: str, disk: str | Path, command: str, *, code: int = 0) -> None:
        """Run `command`, which follows the node's task to its end, while the node's agent works on `disk`."""
        child = process.start(
            self._argv(*shlex.split(command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._env,
        )
        self.armed(node)
        with self.agent(node, Path(disk)) as agent:
            out, _ = child.communicate(timeout=120)
            agent.wait(60)
        text = out.decode()
        if child.returncode != code:
            raise process.failure(process.Done(tuple(shlex.split(command)), child.returncode, text, ""))
        self.add(command, text + (f"(exit code {code})\n" if code else ""))

    def broken_off(self, command: str, ready: Callable[[], object]) -> None:
        """Run a command that goes on until Ctrl-C, and give it that as soon as `ready` says so. Raises EngineError."""
        words = shlex.split(command.replace(SHOWN, str(self.root)))
        child = process.start(self._argv(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self._env)
        try:
            self.until(ready, f"{command} is ready")
        finally:
            child.send_signal(signal.SIGINT)
            out, _ = child.communicate(timeout=30)
        if child.returncode:
            raise process.failure(process.Done(tuple(words), child.returncode, out.decode(), ""))
        self.add(command, out.decode() + "^C\n")

    @contextlib.contextmanager
    def stranger(self, disk: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A machine that no node is, in the root image."""
        url = re.search(r"serves nodes at (\S+)", (self.root / "controller.log").read_text())
        line = self.root / "stranger.cmdline"
        mac = STRANGER.replace(":", "-")
        line.write_text(f"litho.controller={url[1] if url else ''} litho.discover BOOTIF=01-{mac} litho.disk={disk}\n")
        with (self.root / "stranger.log").open("wb") as log:
            child = process.start(self._argv("litho-agent", "run", "--cmdline", line), stdout=log, stderr=log)
            try:
                yield child
            finally:
                if child.poll() is None:
                    child.terminate()
                    child.wait(20)

    @staticmethod
    def until(true: Callable[[], object], what: str) -> None:
        """Wait until `true` says so. Raises UnreachableError after a minute."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if true():
                return
            time.sleep(0.1)
        raise UnreachableError(f"it did not come about that {what}", code="session")
