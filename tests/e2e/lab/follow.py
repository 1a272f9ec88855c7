"""What the controller says of tasks and nodes, followed from beside it: every change with its time, in the lab's log.

A test waits for a change (a state, a percentage) instead of for a time, and looks afterwards at all that was said on the way:
`said` has every state and every line of nodestat that anybody could have read. A controller that is away says nothing; it is
asked again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from litho.errors import LithoError
from litho_controller.client import Client

from .world import PATIENCE, World

SOCKET = Path("/run/litho.sock")
PAUSE_S = 0.3
ENDED = ("succeeded", "failed", "cancelled", "lost")


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What could be read of one task and its node at one time."""

    at: float
    """The lab's clock, seconds."""
    task: str
    node: str
    state: str
    percent: int
    phase: str
    reason: str
    line: str
    """Of nodestat."""
    attempt: int


class Follower:
    """Asks for ever, in a thread of its own."""

    def __init__(self, world: World) -> None:
        self.said: list[Said] = []
        self._world = world
        self._client = Client(SOCKET, timeout=5)
        self._last: dict[str, Said] = {}
        self._trouble = ""
        self._end = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(PAUSE_S):
            try:
                lines = {one.node: one.status for one in self._client.nodes("").nodes}
                tasks = sorted(self._client.tasks().tasks, key=lambda task: task.id)
            except LithoError as exc:
                if str(exc) != self._trouble:
                    self._world.note(f"the controller says nothing: {exc}")
                self._trouble = str(exc)
                continue
            self._trouble = ""
            for task in tasks:
                said = Said(
                    at=round(self._world.clock, 1),
                    task=task.id,
                    node=task.node,
                    state=str(task.state),
                    percent=task.percent,
                    phase=task.phase,
                    reason=task.reason,
                    line=lines.get(task.node, ""),
                    attempt=task.attempt,
                )
                before = self._last.get(task.id)
                if before is None or msgspec.structs.replace(before, at=said.at) != said:
                    self._world.note(
                        f"{said.task} {said.node} {said.state} {said.phase} {said.percent}% {said.reason} | {said.line}"
                    )
                    with self._changed:
                        self._last[task.id] = said
                        self.said.append(said)
                        self._changed.notify_all()

    def of(self, node: str) -> list[Said]:
        """All that was said of a node, in order."""
        return [said for said in self.said if said.node == node]

    def now(self, node: str) -> Said | None:
        """The last that was said of a node's youngest task."""
        with self._changed:
            return max(
                (said for said in self._last.values() if said.node == node), key=lambda said: said.task, default=None
            )

    def wait(
        self, node: str, what: str, holds: Callable[[Said], bool], timeout_s: float, *, may_end: bool = False
    ) -> Said:
        """Wait until `holds` is true of what is said of a node's youngest task.

        Fails when the task ends before, unless it may.
        """
        until = time.monotonic() + timeout_s * PATIENCE
        while True:
            said = self.now(node)
            if said is not None and holds(said):
                self._world.note(f"{node}: {what}")
                return said
            ended = said is not None and said.state in ENDED
            assert may_end or not ended, f"before {what}, {said}"
            left = until - time.monotonic()
            assert left > 0, f"{node} is not yet {what} after {timeout_s} s, but {said}"
            with self._changed:
                self._changed.wait(min(left, 1.0))

    def moving(self, node: str, percent: int, timeout_s: float) -> Said:
        """Wait until a node's task runs and has come to `percent`.

        Fails when it is nearly over: then it moved too fast for a test.
        """
        said = self.wait(
            node, f"at {percent}%", lambda one: one.state == "running" and one.percent >= percent, timeout_s
        )
        assert said.percent < 90, f"{said} is past its middle"
        return said

    def ended(self, node: str, state: str, timeout_s: float) -> Said:
        """Wait until a node's youngest task has ended as `state`."""
        return self.wait(node, state, lambda said: said.state == state, timeout_s)

    def close(self) -> None:
        """Ask no more."""
        self._end.set()
        self._thread.join(10)


@contextlib.contextmanager
def following(world: World):
    """A follower for as long as the block lasts."""
    follower = Follower(world)
    try:
        yield follower
    finally:
        follower.close()
