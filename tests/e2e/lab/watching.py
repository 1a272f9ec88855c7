"""What all of a job's onlookers see while it runs: the command line, the node's own port 3001, and MQTT.

They are asked again and again until the task has ended, so no test has to be quick enough to see something at its moment.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from typing import Any

import msgspec

from .controller import ENDED, Controller
from .wire import Wire
from .world import PATIENCE

RUNNING = r"partimage-ng: partition [1-9]\d* of [1-9]\d*, \d{1,3}% complete"
"""The line that xCAT's nodestat and Apache VCL know."""
PAUSE_S = 0.5
"""Each look starts three commands, and a node's processor is the same as theirs."""


class Watched(msgspec.Struct, kw_only=True):
    """What was seen of one task, in order, each different thing once."""

    task: dict[str, Any] = msgspec.field(default_factory=dict)
    """As `litho task show --json` told it at the end."""
    port: list[bytes] = msgspec.field(default_factory=list)
    """Whole answers on port 3001."""
    nodestat: list[str] = msgspec.field(default_factory=list)
    percents: list[int] = msgspec.field(default_factory=list)
    """Of `litho task show --json` while it ran."""
    mqtt: list[int] = msgspec.field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the first byte that moved to the end."""
        return float(self.task["ended"] - self.task["started"])

    def check(self) -> None:
        """Everybody saw it run, in the words that they are to hear, and never backwards."""
        lines = [answer for answer in self.port if re.fullmatch(RUNNING.encode() + rb"\n", answer)]
        assert lines, f"port 3001 never said how far it is: {self.port}"
        for answer in self.port:
            assert answer.count(b"\n") == 1, answer
            assert answer.endswith(b"\n"), answer
            assert re.fullmatch(rb"partimage-ng: [\x20-\x7e]+\n", answer), answer
            assert b"boot" not in answer.lower(), answer
        told = [line for line in self.nodestat if re.fullmatch(rf"\S+: {RUNNING}", line)]
        assert told, f"nodestat never said how far it is: {self.nodestat}"
        for name, seen in (("task show", self.percents), ("MQTT", self.mqtt)):
            assert len(set(seen)) > 1, f"{name} showed no progress: {seen}"
            assert seen == sorted(seen), f"{name} went backwards: {seen}"


def stat(address: str) -> bytes:
    """Ask port 3001 as xCAT's nodestat does, and read to the end. Raises OSError when nobody answers."""
    with socket.create_connection((address, 3001), 3) as peer:
        peer.sendall(b"stat \n")
        answer = b""
        while piece := peer.recv(4096):
            answer += piece
        return answer


def watch(controller: Controller, wire: Wire, node: str, address: str, timeout_s: float) -> Watched:
    """Look at a node's youngest task from all sides until it has ended, as whatever."""
    seen = Watched()
    until = time.monotonic() + timeout_s * PATIENCE
    while True:
        with contextlib.suppress(OSError):
            _note(seen.port, stat(address))
        _note(seen.nodestat, controller.ask_text("nodestat", node).strip())
        number = controller.task(node)["id"]
        seen.task = controller.ask("task", "show", number)
        if seen.task["state"] == "running":
            _note(seen.percents, seen.task["percent"])
        if seen.task["state"] in ENDED:
            seen.mqtt = [report.progress.percent for report in wire.progress(node) if report.task == number]
            return seen
        assert time.monotonic() < until, f"{number} of {node} is still {seen.task['state']} after {timeout_s} s"
        time.sleep(PAUSE_S)


def _note(seen: list[Any], what: Any) -> None:
    if what and (not seen or seen[-1] != what):
        seen.append(what)
