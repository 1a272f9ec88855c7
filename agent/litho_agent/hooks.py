"""Hooks: a site's own programs, run before the disk is looked at and after the job has ended.

    /etc/lithograph/hooks/before.d/10-raid        in the root image
    /etc/lithograph/hooks/after.d/50-inventory
    LIBRARY/.hooks/{before,after}.d/...           in the library, only with litho.library-hooks

They run one after the other, in the order of their names, those of the root image first. They run as root on a machine whose disk
is about to be read or written, so what may run is narrow: a regular file (no link) that root owns, that nobody else may write and
whose folder nobody else may write. What is not so does not run, and that is told: silently skipping it would be worse. Hooks in
the library are off unless the kernel command line allows them, because whoever may write to the library could otherwise run
programs on every node; they are copied to the node before they are looked at again, and the copy runs.

A hook that fails before the job stops the job: it was put there because the job needs it. One that fails after it is a note: the
image is published, or the disk is written, whatever a hook says. Each has `LIMIT_S` seconds, then it is killed with all that it
started. What it prints is in the job's log, the last line of it in the sentence about a failure.
docs/reference/hooks.md tells the same for those who write them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from litho import process
from litho.errors import CancelledError, EngineError, LithoError
from litho.job import Job
from litho.messages import Failed, Stopped, clip
from litho_agent import mount
from litho_agent.mover import End

log = logging.getLogger("litho_agent.hooks")

FOLDER = Path("/etc/lithograph/hooks")
IN_LIBRARY = ".hooks"
LIMIT_S = 300.0
"""Seconds that one hook may take."""
MOST = 64
"""Hooks of one kind."""
LARGEST = 16 * 1024 * 1024
"""Bytes of a hook in the library."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_LAST_S = 1.0

When = Literal["before", "after"]
Say = Callable[[str], None]


class Found(msgspec.Struct, frozen=True):
    """The hooks of one folder that may run, in order, and why others may not."""

    programs: tuple[Path, ...] = ()
    refused: tuple[str, ...] = ()


def refusal(mode: int, uid: int, *, what: str) -> str:
    """Why a file or folder with this mode and owner is not trusted; empty when it is. Pure."""
    if uid != 0:
        return f"{what} is not owned by root"
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{what} may be written by others than root"
    return ""


def find(folder: Path) -> Found:
    """Look into a folder of hooks. One that is not there holds none. Files that cannot be executed are no hooks."""
    try:
        there = folder.lstat()
    except OSError:
        return Found()
    if not stat.S_ISDIR(there.st_mode):
        return Found(refused=(f"the hooks in {folder} do not run: it is not a directory",))
    if why := refusal(there.st_mode, there.st_uid, what="the folder"):
        return Found(refused=(f"the hooks in {folder} do not run: {why}",))
    programs: list[Path] = []
    refused: list[str] = []
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as exc:
        return Found(refused=(f"the hooks in {folder} do not run: it cannot be read ({exc.strerror})",))
    for name in names:
        path = folder / name
        try:
            found = path.lstat()
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode) and not found.st_mode & 0o111:
            continue
        if not stat.S_ISREG(found.st_mode):
            why = "it is not a regular file"
        elif not _NAME.fullmatch(name):
            why = "its name holds more than letters, digits and . _ -"
        elif len(programs) >= MOST:
            why = f"there are more than {MOST}"
        else:
            why = refusal(found.st_mode, found.st_uid, what="it")
        if why:
            refused.append(f"the hook {clip(ascii(str(path))[1:-1], 300)} does not run: {why}")
        else:
            programs.append(path)
    return Found(tuple(programs), tuple(refused))


def environment(
    when: When, job: Job, *, node: str, task: str, library: str, disk: str = "", end: End | None = None
) -> dict[str, str]:
    """What a hook is told. Pure. `disk` is the chosen disk's path, once there is one; before that what was asked for."""
    told = {
        "LITHO_HOOK": when,
        "LITHO_ACTION": job.action,
        "LITHO_IMAGE": job.image,
        "LITHO_VERSION": str(job.version) if job.version else "",
        "LITHO_DISK": disk or job.disk,
        "LITHO_NODE": node,
        "LITHO_TASK": task,
        "LITHO_LIBRARY": library,
    }
    if end is not None:
        state = "failed" if isinstance(end, Failed) else "cancelled" if isinstance(end, Stopped) else "succeeded"
        told["LITHO_STATE"] = state
        if isinstance(end, Failed | Stopped):
            told["LITHO_REASON"] = " ".join(end.reason.split())
            told["LITHO_TOUCHED"] = "yes" if end.touched else "no"
            told["LITHO_CODE"] = end.code if isinstance(end, Failed) else "cancelled"
        else:
            told["LITHO_VERSION"] = str(end.version)
            told["LITHO_DISK"] = end.disk.path
    return {name: value.replace("\0", " ") for name, value in told.items()}


class Hooks:
    """The hooks of one job."""

    def __init__(self, folder: Path = FOLDER, *, in_library: bool = False, limit_s: float = LIMIT_S) -> None:
        self._folder = folder
        self._in_library = in_library
        self._limit_s = limit_s

    async def before(self, env: Mapping[str, str], library: Path | None, *, cancel: asyncio.Event, say: Say) -> None:
        """Run the hooks before the job; `library` is None when it is not mounted.

        Raises EngineError (code hook-failed) for the first that fails, CancelledError.
        """
        async with self._programs("before", library) as (found, refused):
            if refused:
                raise EngineError(
                    refused[0],
                    hint="give it to root and take the right to write from others, or take it away",
                    code="hook-refused",
                )
            for program in found:
                await self._run("before", program, env, cancel, say)

    async def after(
        self, env: Mapping[str, str], library: Path | None, *, cancel: asyncio.Event, say: Say
    ) -> list[str]:
        """Run the hooks after the job; answers a sentence for each that failed. A cancel ends the one that runs. Never raises."""
        notes: list[str] = []
        try:
            async with self._programs("after", library) as (found, refused):
                notes += refused
                for program in found:
                    try:
                        await self._run("after", program, env, cancel, say)
                    except LithoError as exc:
                        notes.append(str(exc))
        except LithoError as exc:
            notes.append(str(exc))
        return notes

    @contextlib.asynccontextmanager
    async def _programs(self, when: When, library: Path | None) -> AsyncIterator[tuple[list[Path], list[str]]]:
        found = await asyncio.to_thread(find, self._folder / f"{when}.d")
        programs, refused = list(found.programs), list(found.refused)
        with tempfile.TemporaryDirectory(prefix="litho-hooks-", ignore_cleanup_errors=True) as room:
            if self._in_library and library is None:
                raise EngineError(
                    "the hooks in the library are to run (litho.library-hooks), and the library is read over HTTP alone",
                    hint="add nfs to the sources, or take litho.library-hooks away",
                    code="hook-refused",
                )
            if self._in_library and library is not None:
                folder = library / IN_LIBRARY / f"{when}.d"
                theirs = await mount.answered(library, lambda: copied(folder, Path(room)))
                programs += theirs.programs
                refused += theirs.refused
            yield programs, refused

    async def _run(self, when: When, program: Path, env: Mapping[str, str], cancel: asyncio.Event, say: Say) -> None:
        """Run one hook to its end. Raises EngineError, CancelledError."""
        say(f"hook {when} the job: {program.name}")
        # A pipe of our own: of one of asyncio's the end is waited for, which something in the background may hold for hours.
        ours, theirs = os.pipe()
        try:
            child = await process.start_async([program], stdout=theirs, stderr=theirs, env=env, own_group=True)
        except LithoError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        words = asyncio.create_task(_listen(ours, program.name), name="hook-words")
        ended = asyncio.create_task(child.wait(), name="hook")
        called = asyncio.create_task(cancel.wait(), name="hook-cancel")
        try:
            await asyncio.wait({ended, called}, timeout=self._limit_s, return_when=asyncio.FIRST_COMPLETED)
            done = ended.done()
        finally:
            called.cancel()
            code = await process.end_group(child, grace_s=_LAST_S)
            # A pipe that something else still holds must not hold us.
            await asyncio.wait({words}, timeout=_LAST_S)
            words.cancel()
            await asyncio.gather(words, ended, called, return_exceptions=True)
        if not done and cancel.is_set():
            raise CancelledError(f"the hook {program.name} was ended because the task was cancelled")
        if not done:
            raise _failed(when, program, f"did not end within {self._limit_s:.0f} s", "")
        if code != 0:
            last = words.result() if words.done() and not words.cancelled() else ""
            raise _failed(when, program, process.told(["it"], code).removeprefix("it "), last)


def _failed(when: When, program: Path, how: str, last: str) -> EngineError:
    quoted = f" ({last})" if last else ""
    return EngineError(
        f"the hook {program.name} {when} the job {how}{quoted}",
        hint="see what it printed in the job's log",
        code="hook-failed",
    )


async def _listen(fd: int, name: str) -> str:
    """Log what a hook prints into the pipe `fd`, and close it; answers the last line that says something."""
    stream = asyncio.StreamReader()
    pipe = os.fdopen(fd, "rb", buffering=0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    last = ""
    try:
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                continue
            if not line:
                return last
            # A terminal must not obey it, wherever it is shown.
            said = "".join(char if char.isprintable() else " " for char in line.decode(errors="replace"))
            text = " ".join(said.split())[:300]
            if text:
                last = text
                log.info("%s: %s", name, text)
    finally:
        transport.close()


def copied(folder: Path, room: Path) -> Found:
    """Copies of the hooks in a library's folder, which the node alone can write to: the mount does not let programs run."""
    found = find(folder)
    programs: list[Path] = []
    refused = list(found.refused)
    for path in found.programs:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                # Of the file that is open now, not of the one that was looked at a moment ago.
                status = os.fstat(fd)
                why = refusal(status.st_mode, status.st_uid, what="it")
                data = file.read(LARGEST + 1) if not why and stat.S_ISREG(status.st_mode) else b""
            if len(data) > LARGEST:
                why = f"it has more than {LARGEST} bytes"
            if why:
                refused.append(f"the hook {path} does not run: {why}")
                continue
            copy = room / path.name
            copy.write_bytes(data)
            copy.chmod(0o500)
        except OSError as exc:
            refused.append(f"the hook {path} does not run: it cannot be copied ({exc.strerror})")
            continue
        programs.append(copy)
    return Found(tuple(programs), tuple(refused))
