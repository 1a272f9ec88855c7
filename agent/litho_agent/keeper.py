"""Bringing a worker process to its end, also one that cannot be ended.

A process that hangs in the kernel (state D: a disk or a file server that does not answer) takes no signal, not even
SIGKILL; it goes when the kernel call returns, which may be never. Nobody may wait for that without limit, and nobody may
say "cancelled" or "ended" while it may still write. So there are four times, all in `Patience`:

* after a cancel the worker has `grace_s` to stop by itself; then it is killed;
* a worker that says nothing at all for `silent_s` is killed: its ticker speaks twice a second whatever the disk does, so
  silence means that the whole process stands still;
* a worker that talks and does nothing at all for `still_s` is killed (`litho_agent.still` says what counts): its disk, its
  engine or the library does not answer any more. An NFS mount of ours gives up long before that; a directory that somebody
  else mounted, or a disk, may never;
* a killed worker has `leave_s` to go. One that is still there is left behind, and the answer says so: the task has
  failed, what it wrote keeps its `.part` names, and the node has to be restarted before anything on it is trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from litho import process
from litho.progress import Progress
from litho_agent.still import Stillness

CANCEL_GRACE_S = 1.5
"""Seconds that a worker has to stop by itself after a cancel; then it is killed."""
LEAVE_S = 30.0
SILENT_S = 300.0
STILL_S = 1800.0
"""Longer than a node with much memory takes to bring it to a slow disk."""
_LOOK_S = 10.0


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a worker is waited for, in seconds."""

    grace_s: float = CANCEL_GRACE_S
    leave_s: float = LEAVE_S
    silent_s: float = SILENT_S
    still_s: float = STILL_S


class Keeper:
    """Watches one worker from its start."""

    def __init__(self, child: asyncio.subprocess.Process, cancel: asyncio.Event, patience: Patience) -> None:
        self._child = child
        self._cancel = cancel
        self._patience = patience
        self._heard = time.monotonic()
        self._stillness = Stillness(child.pid)
        self.why_killed = ""
        """Why the worker was killed without anybody asking for it; empty when it was not."""
        self.code = "worker-died"
        """The word for that."""

    def heard(self) -> None:
        """The worker said something."""
        self._heard = time.monotonic()

    def told(self, progress: Progress) -> None:
        """The worker said how far it is."""
        self._stillness.told(progress)

    async def oversee(self) -> None:
        """Watch it, and end it when that is asked for. Returns when it has ended, or has to be left behind."""
        await self._called()
        if self._cancel.is_set():
            self._signal(self._child.terminate)
            if await self.gone(self._patience.grace_s):
                return
        self._signal(self._child.kill)
        await self.gone(self._patience.leave_s)

    async def settle(self, *, kill: bool) -> None:
        """It has said all, or (`kill`) nonsense. Returns when it has ended, or has to be left behind."""
        if not kill and await self.gone(self._patience.leave_s):
            return
        self._signal(self._child.kill)
        await self.gone(self._patience.leave_s)

    async def gone(self, within_s: float) -> bool:
        """True when the worker ended within `within_s` seconds."""
        try:
            async with asyncio.timeout(within_s):
                await self._child.wait()
        except TimeoutError:
            return False
        return True

    async def _called(self) -> None:
        """Returns when the worker is to be ended: it was cancelled, or has been silent or still for too long."""
        patience = self._patience
        every_s = min(_LOOK_S, patience.still_s / 4)
        while not self._cancel.is_set():
            left = self._heard + patience.silent_s - time.monotonic()
            if left <= 0:
                self.why_killed = f"the worker process said nothing for {patience.silent_s:.0f} s and was ended"
                return
            if self._stillness.look() >= patience.still_s:
                self.code = "stalled"
                self.why_killed = self._stalled()
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._cancel.wait(), min(left, every_s))

    def _stalled(self) -> str:
        phase = f" in phase {self._stillness.phase}" if self._stillness.phase else ""
        return (
            f"nothing moved for {self._patience.still_s:.0f} s{phase}{where_it_waits(self._child.pid)}: the disk, the engine or "
            "the library does not answer any more, and the worker process was ended"
        )

    @staticmethod
    def _signal(send: Callable[[], None]) -> None:
        with contextlib.suppress(ProcessLookupError):
            send()

    def left_behind(self) -> str:
        """The sentence about a worker that could not be ended, for a task's reason."""
        where = where_it_waits(self._child.pid)
        lead = (
            "the task was cancelled, but "
            if self._cancel.is_set()
            else f"{self.why_killed}, but "
            if self.why_killed
            else ""
        )
        return (
            f"{lead}the worker process (process {self._child.pid}) hangs in the kernel{where} and was still there "
            f"{self._patience.leave_s:.0f} s after it was killed, because a disk or the library does not answer: restart "
            "the node, and look at its kernel log and at the file server"
        )

    def abandon(self) -> None:
        """Let go of it; the kernel ends it when its call returns."""
        process.leave(self._child)


def where_it_waits(pid: int) -> str:
    """`, in nfs_wait_bit_killable`: what the threads of `pid` that are in state D wait for; empty when none is or nobody says."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for thread in sorted(Path(f"/proc/{pid}/task").iterdir()):
            with contextlib.suppress(OSError):
                state = (thread / "stat").read_text(errors="replace").rpartition(")")[2].split()[:1]
                if state == ["D"]:
                    found.append((thread / "wchan").read_text(errors="replace").strip())
    named = [name for name in found if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]{0,80}", name, re.ASCII)]
    return f", in {named[0]}" if named else ""
