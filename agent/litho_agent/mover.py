"""The agent's side of the worker: a child process of its own moves the bytes of one disk's job.

    agent (asyncio) ── order: one JSON line on stdin ──> worker (threads, engines, pipes)
                    <── events, ticks, notes: JSON lines on stdout ──

So the agent stays able to answer, report and cancel whatever the job does, and a crash of an engine, an out-of-memory kill or a
system call that hangs takes nothing with it. The worker dies with the agent, and the engines with the worker.

A job's failure is an answer here, not an exception: `run` always returns how it ended. A worker that dies without saying so is
answered for: what it left in the library is swept up, and the reason names how it died. What it had published before it died is
published all the same, so that is the answer then: "failed" or "stopped" would be a lie that a later restore finds out. A worker
that hangs in the kernel and cannot be ended is left behind after a while, and the task has failed (`litho_agent.keeper`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from litho import process
from litho.errors import LithoError, NotFoundError
from litho.job import Job
from litho.library import ImageRef, Library, Manifest, Owner, care, files
from litho.library.stage import read_owner
from litho.messages import Failed, Planned, Started, Stopped, Succeeded, clip
from litho.progress import Progress
from litho_agent.apart import apart
from litho_agent.keeper import Keeper, Patience
from litho_agent.remote.web import Web

log = logging.getLogger("litho_agent.mover")

LONGEST_LINE = 4 * 1024 * 1024
"""Bytes of one line of the worker; a plan of 128 partitions is about 30 KiB."""
MEMORY = {"MALLOC_MMAP_THRESHOLD_": "16777216", "MALLOC_TRIM_THRESHOLD_": "134217728"}
"""Of the worker: glibc keeps what a job frees for what it asks for next. Left to itself it gives every packed chunk's memory back
to the kernel and faults it in again page by page: a fifth of a capture's processor time."""
_TEAR_DOWN_S = 1.0
"""Seconds that a worker has to go when the agent itself is being torn down."""
_SWEEP_S = 30.0
_SWEEP_CANCELLED_S = 0.4
"""Seconds that the sweep after a dead worker may take. It then goes on by itself; the controller's sweep does the same work."""


class WorkOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker is handed."""

    job: Job
    library: str
    """The library's directory, already mounted; empty for a job that reads from `sources` alone."""
    owner: Owner
    sources: tuple[Web, ...] = ()
    """Web servers to read chunks from, besides `library` if there is one."""
    ca: str = ""
    """A file of certificates that are trusted besides the system's; empty: the root image's, if it has one."""
    node: str = ""


class Tick(msgspec.Struct, frozen=True, kw_only=True, tag="tick"):
    """How far the job is; a few times a second."""

    progress: Progress


class Note(msgspec.Struct, frozen=True, kw_only=True, tag="note"):
    """Something a person should know although the job goes on."""

    text: str


class Touching(msgspec.Struct, frozen=True, kw_only=True, tag="touching"):
    """The target disk is written to from now on; remembered so that a dead worker's answer tells the truth."""


End = Succeeded | Failed | Stopped
News = Planned | Started | Tick | Note
_Line = Planned | Started | Succeeded | Failed | Stopped | Tick | Note | Touching


def encode_line(message: _Line) -> bytes:
    """One line of the worker's output."""
    return msgspec.json.encode(message) + b"\n"


async def run(
    order: WorkOrder,
    hear: Callable[[News], None],
    cancel: asyncio.Event,
    *,
    argv: process.Argv = (sys.executable, "-m", "litho_agent.worker"),
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> End:
    """Let a worker do `order`; `hear` is called with its news. Answers how it ended; never raises for a failed job.

    After `cancel` is set it ends within two seconds, or fails after `patience.leave_s` when the worker hangs in the kernel.
    `argv` is the worker's command.
    """
    env = {key: os.environ[key] for key in ("PYTHONPATH",) if key in os.environ} | MEMORY
    try:
        child = await process.start_async(
            argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            limit=LONGEST_LINE,
        )
    except (LithoError, OSError) as exc:
        return Failed(code="worker-died", reason=f"the worker process could not be started ({exc})", exit_code=8)
    assert child.stderr  # noqa: S101 - the pipe was asked for
    begun = time.monotonic()
    keeper = Keeper(child, cancel, patience)
    ear = _Ear(hear, keeper)
    # Reading goes on while the worker is ended: what it says last counts.
    reading = asyncio.create_task(_converse(child, order, ear), name="worker-lines")
    overseer = asyncio.create_task(keeper.oversee(), name="worker-keeper")
    words = asyncio.create_task(_last_words(child.stderr), name="worker-stderr")
    try:
        await asyncio.wait({reading, overseer}, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            await keeper.settle(kill=bool(reading.result()))
        elif child.returncode is not None:
            # What it said last is still in the pipe.
            await asyncio.wait({reading}, timeout=_TEAR_DOWN_S)
        broken = reading.result() if reading.done() else ""
    finally:
        # Also when the agent itself is being torn down: no worker outlives the task that asked for it.
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await keeper.gone(_TEAR_DOWN_S)
        stuck = keeper.left_behind() if child.returncode is None else ""
        if stuck:
            keeper.abandon()
        for task in (reading, overseer):
            task.cancel()
        await asyncio.gather(reading, overseer, return_exceptions=True)
        # Something that the worker started may hold the pipe; what matters has been said by now.
        await asyncio.wait({words}, timeout=_TEAR_DOWN_S)
        last = words.result() if words.done() else ""
        words.cancel()
    if ear.end is not None:
        # Its very last line, said when all was done and proven: what happens to the process after that changes nothing.
        return ear.end
    if stuck:
        log.error("%s", stuck)
        return Failed(code="worker-hangs", reason=clip(stuck), touched=ear.touched, exit_code=8)
    published = await _swept(order, _SWEEP_CANCELLED_S if cancel.is_set() else _SWEEP_S)
    if published is not None:
        return _answer_for(published, seconds=time.monotonic() - begun)
    if cancel.is_set():
        return Stopped(touched=ear.touched)
    how = broken or keeper.why_killed or process.told(["the worker process"], child.returncode or 0)
    reason = f"{how}{f' ({last})' if last else ''}"
    return Failed(code=keeper.code, reason=clip(reason), touched=ear.touched, exit_code=8)


async def _converse(child: asyncio.subprocess.Process, order: WorkOrder, ear: _Ear) -> str:
    """Hand the order over, and hear the worker until it says no more; answers what was wrong with its words, if anything."""
    assert child.stdin and child.stdout  # noqa: S101 - the pipes were asked for
    with contextlib.suppress(ConnectionError):
        child.stdin.write(msgspec.json.encode(order) + b"\n")
        await child.stdin.drain()
        child.stdin.close()
    while True:
        try:
            line = await child.stdout.readline()
        except ValueError:
            broken = f"the worker process was ended because it wrote a line of more than {LONGEST_LINE} bytes"
            log.error("%s", broken)
            return broken
        if not line:
            return ""
        ear.take(line)


class _Ear:
    """Takes the worker's lines apart and keeps what matters at the end."""

    def __init__(self, hear: Callable[[News], None], keeper: Keeper) -> None:
        """`hear` is told the news, `keeper` that there was any line at all, and how far the worker is."""
        self._hear = hear
        self._keeper = keeper
        self.end: End | None = None
        self.touched = False

    def take(self, line: bytes) -> None:
        """One line of the worker's output."""
        self._keeper.heard()
        try:
            message = msgspec.json.decode(line, type=_Line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            log.error("the worker wrote what is no message: %r", line[:200])
            return
        if isinstance(message, Touching):
            self.touched = True
        elif isinstance(message, (Succeeded, Failed, Stopped)):
            self.end = message
        else:
            if isinstance(message, Tick):
                self._keeper.told(message.progress)
            self._hear(message)


async def _last_words(stream: asyncio.StreamReader) -> str:
    """Read to the end, keep the last line that says something; every line goes to the log."""
    last = ""
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue
        if not line:
            return last[:300]
        text = line.decode(errors="replace").strip()
        if text:
            # Which program was started last does not tell why the worker died.
            last = last if text.startswith("litho.process: ") else text
            log.info("worker: %s", text)


async def _swept(order: WorkOrder, limit_s: float) -> Manifest | None:
    """Sweep in a thread, waiting for it at most `limit_s` seconds: a file server that does not answer must not delay the end."""
    with contextlib.suppress(TimeoutError):
        return await apart(lambda: sweep(order), name="worker-sweep", limit_s=limit_s)
    log.warning("the library %s does not answer; what the dead worker left there is swept later", order.library)
    return None


def sweep(order: WorkOrder) -> Manifest | None:
    """Delete what a dead worker left in the library; answers the version that it had published all the same, if it had.

    What fails here is left to the controller's sweep.
    """
    if order.job.action != "capture":
        return None
    try:
        library = Library.open(Path(order.library))
        published = _published(library, order)
        care.sweep(library, dead=lambda owner: owner is not None and owner.session == order.owner.session)
    except LithoError as exc:
        log.warning("what the dead worker left was not swept: %s", exc)
        return None
    return published


def _published(library: Library, order: WorkOrder) -> Manifest | None:
    """The version whose reservation is still the dead worker's own and whose manifest is there. Raises LibraryError."""
    with files.telling(library.root):
        for file, parsed in list(library.entries()):
            if parsed.suffix or not parsed.part or parsed.image != order.job.image:
                continue
            with contextlib.suppress(FileNotFoundError, NotFoundError):
                owner = read_owner(library.root / file)
                if owner is not None and owner.session == order.owner.session:
                    return library.manifest(ImageRef(parsed.image, parsed.version))
    return None


def _answer_for(manifest: Manifest, *, seconds: float) -> Succeeded:
    """What the worker would have said of the version that it published."""
    return Succeeded(
        image=manifest.image,
        version=manifest.version,
        used=manifest.used,
        stored=manifest.stored,
        seconds=seconds,
        disk=manifest.disk,
        os=manifest.os,
        notes=(*manifest.notes[:255], "the worker process was ended after it had published the image"),
    )
