"""The library's way onto the node: a directory as it is, or an NFS export mounted for the time of the job.

`file:///srv/images` (or a plain path) is used where it lies. `nfs://server/export` is mounted, with NFS 4 and then 3, under
`/run/lithograph/library`, and unmounted at the end. Either way the marker file is looked for afterwards: a mount point on
which nothing is mounted has none, and writing there would fill the node's memory instead of the file server. Of an export the
kernel's table must also say that it is what is mounted there, and by NFS: a marker can lie on the node's own disk as well.
Whether there is room for what a capture will write is looked at when that is known (`capture.check_room`).

Mount options: `softerr` with 20 s and three repetitions, so a server that is away for a minute or two costs only that time, and
one that never comes back ends the job with a reason after about 200 s instead of hanging it for ever. One that is away when
it is to be mounted is waited for, too (`PATIENCE_S`); one that says no is not. A write
that failed so is an error of the write or of the fsync before publishing; nothing half-written is ever published.
`nolock`: the library needs no locks, and the root image runs no lock daemon. A restore mounts read-only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from litho import process
from litho.errors import EngineError, LibraryError, LithoError, MissingProgramError, UsageError
from litho.library import Library
from litho_agent.apart import apart

log = logging.getLogger("litho_agent.mount")

T = TypeVar("T")

TARGET = Path("/run/lithograph/library")
MOUNTS = Path("/proc/self/mounts")
MOUNT_S = 60.0
"""Seconds that one try to mount may take."""
ROUNDS = 3
"""How often each NFS version is tried: the network of a node that has just booted may need a moment."""
PATIENCE_S = 150.0
"""Seconds for which it is tried while nobody answers on the server at all: it may be starting anew."""
LOOK_S = 300.0
"""Seconds that the first look at the library may take: longer than the NFS client's own patience."""
_PAUSE_S = 3.0
_LEAVE_S = 5.0
"""Seconds that a mount or umount has to go once it was ended; it may hang in the kernel."""
_NOBODY = ("connection refused", "timed out", "no route to host", "unreachable", "host is down", "did not end within")
_OPTIONS = "softerr,timeo=200,retrans=3,proto=tcp,nolock,noatime,nosuid,nodev,noexec,retry=0"

_SERVER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]", re.ASCII)
_EXPORT = re.compile(r"(/[A-Za-z0-9._+@=-]+)+/?|/", re.ASCII)


class Directory(msgspec.Struct, frozen=True):
    """A library that is already there."""

    path: Path


class Export(msgspec.Struct, frozen=True):
    """A library on an NFS server."""

    server: str
    path: str
    port: int = 0
    """0: the protocol's own."""

    def __str__(self) -> str:
        return f"nfs://{self.server}{f':{self.port}' if self.port else ''}{self.path}"


def parse(text: str) -> Directory | Export:
    """Where a library is: `file:///path`, `/path` or `nfs://server[:port]/export`. Raises UsageError."""
    if text.startswith("/") and "\0" not in text:
        return Directory(Path(text))
    with contextlib.suppress(ValueError):
        # `urlsplit` drops line breaks and tabs in silence: what holds one is not what it seems.
        url = urllib.parse.urlsplit(text if text.isprintable() else "")
        if (
            url.scheme == "file"
            and url.netloc == ""
            and url.path.startswith("/")
            and not url.query
            and not url.fragment
        ):
            path = urllib.parse.unquote(url.path, errors="strict")
            if "\0" not in path:
                return Directory(Path(path))
        if url.scheme == "nfs" and not url.query and not url.fragment:
            server, port = url.netloc, url.port or 0
            if port:
                server = server[: server.rindex(":")]
            levels = url.path.split("/")
            if _SERVER.fullmatch(server) and _EXPORT.fullmatch(url.path) and not {".", ".."} & set(levels):
                return Export(server, url.path, port)
    raise UsageError(
        f"{text[:200]!r} does not name an image library",
        hint="write a directory, file:///directory or nfs://server/export",
        code="bad-library",
    )


def argv(export: Export, version: int, target: Path, *, read_only: bool) -> process.Argv:
    """The command that mounts `export` by NFS `version` (4 or 3)."""
    options = [f"vers={version}", _OPTIONS, "ro" if read_only else "rw"]
    if export.port:
        options.append(f"port={export.port}")
    return ["mount", "-t", "nfs", "-o", ",".join(options), f"{export.server}:{export.path}", target]


@contextlib.asynccontextmanager
async def library(text: str, *, read_only: bool, target: Path = TARGET) -> AsyncIterator[Path]:
    """The directory of the library that `text` names, for as long as the block lasts.

    Raises UsageError, LibraryError when it cannot be mounted or is no library, MissingProgramError.
    """
    named = parse(text)
    if isinstance(named, Directory):
        await _look(named.path)
        yield named.path
        return
    await _mount(named, target, read_only=read_only)
    try:
        require_mounted(named, target, MOUNTS.read_text(errors="replace"))  # noqa: ASYNC240 - the kernel's own memory
        try:
            await _look(target)
        except LibraryError as exc:
            raise LibraryError(
                f"{named} is mounted but is not an image library ({exc.message})",
                hint="check the export's path, or make a library there with: litho library init DIR",
                code=exc.code,
            ) from exc
        yield target
    finally:
        await _unmount(target)


async def _look(path: Path) -> None:
    """See that a library lies at `path`. Raises LibraryError, also when nobody answers there."""
    await answered(path, lambda: Library.open(path))


async def answered(path: Path, call: Callable[[], T]) -> T:
    """What `call` reads of the library at `path`: for what is asked of it outside of the worker, which has its own keeper.
    Raises what `call` raises, LibraryError when nobody answers for `LOOK_S` seconds."""
    try:
        return await apart(call, name="library-look", limit_s=LOOK_S)
    except TimeoutError:
        raise LibraryError(
            f"the library {path} did not answer for {LOOK_S:.0f} s",
            hint="look at the file server behind it, then start again",
            code="library-gone",
        ) from None


async def _mount(export: Export, target: Path, *, read_only: bool) -> None:
    if process.which("mount.nfs") is None:
        raise MissingProgramError(
            f"{export} cannot be mounted: the program mount.nfs is not installed", hint="install the package nfs-common"
        )
    _make(target)
    # What an agent that was killed left mounted would hide under, or be, another library.
    for _ in range(mounts(target)):
        await _run(["umount", "-l", target])
    began = time.monotonic()
    rounds = 0
    while True:
        said: list[str] = []
        for version in (4, 3):
            try:
                await _run(argv(export, version, target, read_only=read_only))
            except EngineError as exc:
                said.append(f"NFS {version}: {exc.message}")
            else:
                return
        rounds += 1
        patience = PATIENCE_S if away(said[0]) else 0.0
        if rounds >= ROUNDS and time.monotonic() - began >= patience:
            raise mount_failed(export, said)
        if rounds == ROUNDS:
            log.warning("nobody answers at %s (%s); trying for %.0f s", export, said[0], patience)
        await asyncio.sleep(_PAUSE_S)


def away(said: str) -> bool:
    """True when what NFS 4's mount said means that no server is there, and not that this one says no. Pure.

    Of NFS 3 alone it would say little: without a port mapper a server that is well refuses the connection, too.
    """
    return any(words in said.lower() for words in _NOBODY)


def _make(target: Path) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise LibraryError(f"{target} cannot be made ({exc.strerror})", code="library-mount") from exc


def mounts(target: Path, table: Path = MOUNTS) -> int:
    """How many file systems are mounted on `target`. Read from the kernel's table: looking at a dead mount could hang."""
    lines = table.read_text(errors="replace").splitlines()
    return sum(1 for line in lines if line.split(" ")[1:2] == [str(target)])


def require_mounted(export: Export, target: Path, table: str) -> None:
    """Raise LibraryError unless `table`, the kernel's list of mounts, says that `export` is what is seen at `target`. Pure.

    Of several mounts on one place the last one is seen.
    """
    lines = [line.split(" ") for line in table.splitlines()]
    found = [(words[0], words[2]) for words in lines if len(words) > 2 and _unescaped(words[1]) == str(target)]
    if not found:
        raise LibraryError(
            f"mount said that {export} is mounted at {target}, and nothing is mounted there",
            hint="see the node's kernel log",
            code="library-mount",
        )
    source, kind = found[-1]
    wanted = f"{export.server}:{export.path.rstrip('/') or '/'}"
    seen = _unescaped(source)
    if kind not in ("nfs", "nfs4") or (seen.rstrip("/") if seen.count("/") > 1 else seen) != wanted:
        raise LibraryError(
            f"at {target} should be {export}, and the kernel says that {seen} is there ({kind})",
            hint="unmount it, or let the agent mount the library somewhere else",
            code="library-mount",
        )


def _unescaped(word: str) -> str:
    """A word of the mount table as it was: the kernel writes blanks and the like as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)


def mount_failed(export: Export, said: list[str]) -> LibraryError:
    """The error that tells why neither NFS version went."""
    return LibraryError(
        f"the library {export} cannot be mounted ({'; '.join(said)})",
        hint="check that the server runs, exports this path to this node, and can be reached",
        code="library-mount",
    )


async def _unmount(target: Path) -> None:
    """Unmount; where something still holds it, take it out of sight at least."""
    try:
        await _run(["umount", target])
    except LithoError:
        with contextlib.suppress(LithoError):
            await _run(["umount", "-l", target])


async def _run(words: process.Argv) -> None:
    """Run a program to its end from the event loop; ended with it when the caller is cancelled. Raises EngineError."""
    child = await process.start_async(words, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(MOUNT_S):
            _, err = await child.communicate()
    except TimeoutError:
        raise EngineError(f"{words[0]} did not end within {MOUNT_S:.0f} s") from None
    finally:
        if child.returncode is None:
            # One that hangs in the kernel with the server goes when that answers, and is not waited for.
            try:
                await asyncio.wait_for(process.end(child, grace_s=1.0), _LEAVE_S)
            except TimeoutError:
                process.leave(child)
    done = process.Done(tuple(str(word) for word in words), child.returncode or 0, "", err.decode(errors="replace"))
    if done.code != 0:
        raise process.failure(done)
