"""`litho-agent capture` and `litho-agent restore`: one job on this machine, without any controller.

The disk is chosen here, and told with its serial, path and size, before anything else happens; the worker is then handed
that very disk. A restore destroys what lies on it: at a terminal the person is asked to type the disk's name, elsewhere
`--yes` must be said.
The machine is never rebooted or switched off by a local job.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import platform
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO

import msgspec

from litho.errors import CancelledError, RefusedError, UsageError
from litho.job import Job
from litho.library import ImageRef, Library, Owner, sources
from litho_agent import finish, mount, mover
from litho_agent.apart import apart
from litho_agent.disks import Disk, choose, inventory
from litho_agent.disks.disk import described
from litho_agent.errand import Move, unless
from litho_agent.mover import WorkOrder
from litho_agent.remote import opened
from litho_agent.remote.chosen import Chosen, chosen
from litho_agent.report import Reporter

Ask = Callable[[str], Awaitable[str]]
"""Shows a question and answers what the person typed."""


async def run(
    job: Job,
    library: str,
    *,
    show: Reporter,
    terminate: asyncio.Event,
    ask: Ask | None,
    yes: bool = False,
    more: Sequence[str] = (),
    ca: str = "",
    move: Move = mover.run,
    disks: Callable[[], Sequence[Disk]] = inventory.read,
) -> int:
    """Do `job` with the library that `library` names; answers the exit code.

    `library` may be a web server's address, and `more` other sources of a restore (`litho.library.sources`); `ca` is a file of
    certificates that are trusted, too. `ask` is None where nobody can be asked. `terminate` cancels the job. Raises LithoError
    for what is wrong before the worker starts.
    """
    job, reads = read_from(job, library, more)
    async with contextlib.AsyncExitStack() as held:
        path: Path | None = None
        if reads.library:
            path = await held.enter_async_context(mount.library(reads.library, read_only=job.action != "capture"))
        owner = Owner(session=uuid.uuid4().hex, node=platform.node()[:256], host=platform.node()[:256], pid=os.getpid())
        order = WorkOrder(
            job=job, library=str(path or ""), owner=owner, node=platform.node()[:128], sources=reads.webs, ca=ca
        )
        job = await _pinned(order, path, show.say, terminate)
        disk = choose(
            await asyncio.to_thread(disks), job.disk, "restore" if job.action == "restore" else "capture", job.allow
        ).require()
        show.say(intention(job, disk, str(path or reads.webs[0].url)))
        if job.action == "restore" and not yes:
            await _confirm(disk, ask)
        if terminate.is_set():
            raise CancelledError("stopped before anything was done")
        order = msgspec.structs.replace(order, job=msgspec.structs.replace(job, disk=disk.path))
        end = await move(order, show.hear, terminate)
        show.hear(end)
        return finish.exit_code(end)


def read_from(job: Job, library: str, more: Sequence[str]) -> tuple[Job, Chosen]:
    """Where a job's library is, when a person named `library` and for a restore `more`. Pure. Raises UsageError."""
    if job.action == "capture" and library.startswith(("http://", "https://")):
        raise UsageError(
            f"a capture writes to the library, and {library[:200]} can only be read",
            hint="name a directory or nfs://server/export",
            code="bad-library",
        )
    if job.action == "capture":
        return job, Chosen(library=library)
    first = library if library.startswith(("http://", "https://")) else sources.NFS
    job = msgspec.structs.replace(job, sources=(first, *more))
    return job, chosen(job, (), library=library)


async def _pinned(order: WorkOrder, path: Path | None, say: Callable[[str], None], terminate: asyncio.Event) -> Job:
    """`_pinned_version`, for as long as a library may take to answer. Raises LibraryError, CancelledError, NotFoundError."""

    def ask() -> Job:
        return _pinned_version(order, say, terminate)

    # What is read over HTTP has limits of its own; whoever stops it does not wait for them.
    asked = apart(ask, name="sources-look", limit_s=math.inf) if path is None else mount.answered(path, ask)
    job = await unless(terminate, asked)
    if job is None:
        raise CancelledError("stopped before anything was done")
    return job


def _pinned_version(order: WorkOrder, say: Callable[[str], None], terminate: asyncio.Event) -> Job:
    """A restore takes the version that is current now, so that what was shown is what is done. Raises NotFoundError."""
    job = order.job
    if job.action == "capture":
        return job
    if not order.library:
        return msgspec.structs.replace(job, version=opened.current(order, note=say, cancelled=terminate.is_set))
    found = Library.open(Path(order.library)).resolve(ImageRef(job.image, job.version))
    return msgspec.structs.replace(job, version=found.version)


def intention(job: Job, disk: Disk, path: str) -> str:
    """What is about to be done, before anything is."""
    if job.action == "capture":
        return f"capture {described(disk)} as {job.image} into the library {path}"
    return f"restore {job.image}:{job.version} from the library {path} onto {described(disk)}"


async def _confirm(disk: Disk, ask: Ask | None) -> None:
    """Let the person say the disk's name. Raises RefusedError when it is not said."""
    if ask is None:
        raise RefusedError(
            f"everything on {disk.path} would be overwritten, and nobody is here to be asked",
            hint="say --yes if that is meant",
            code="not-confirmed",
        )
    said = await ask(f"Everything on {disk.path} will be overwritten. Type {disk.name} to go on: ")
    if said.strip() not in (disk.name, disk.path):
        raise RefusedError("the disk's name was not typed: nothing was written", code="not-confirmed")


def asker(terminal: IO[str], screen: IO[str], terminate: asyncio.Event) -> Ask:
    """Asks at a terminal, from the event loop, so that a signal still ends the waiting. Raises CancelledError then."""

    async def ask(question: str) -> str:
        screen.write(question)
        screen.flush()
        loop = asyncio.get_running_loop()
        typed = asyncio.Event()
        loop.add_reader(terminal.fileno(), typed.set)
        waits = [asyncio.create_task(event.wait()) for event in (typed, terminate)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(terminal.fileno())
            for wait in waits:
                wait.cancel()
        if terminate.is_set():
            screen.write("\n")
            raise CancelledError("stopped before anything was done")
        # A terminal hands over whole lines: what can be read is one.
        return terminal.readline()

    return ask
