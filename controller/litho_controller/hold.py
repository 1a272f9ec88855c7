"""One controller to a library: the hold that says whose it is.

Two controllers on one library would each sweep away what the other's captures are making, and collect chunks that the other's
images are about to need. Each knows the other only by what lies in the library, so it lies there: `.lithograph-controller`, JSON
that says who holds it, padded to one size and written anew in place every `RENEW_S` seconds with a higher `beat`.

Nobody's clock is compared with anybody's, and no lock of the file system is needed (NFS may have none): whether a holder lives is
seen by whether its file changes while one looks. `judge` is the rule for the one that finds a hold when it starts:

| the hold that is there | what follows |
|---|---|
| made by this state directory on this host (which was locked first, so that controller is gone) | taken over at once |
| made on this host since it booted, by a process that is gone | taken over at once |
| made on this host since it booted, by a process that is alive | refused at once |
| anything else: another host, a container, a damaged file | watched for `STALE_S`: refused when it changes, else taken over |

Taking over renames the old file away, looks at what was renamed (of two that do this at once one finds the other's new file in
its hands and gives it back), and links the new one into place. A holder looks at the file before each renewal; one that finds
another's ends its controller: after `--take-over`, or when its library was away for so long that it was taken for dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import hmac
import logging
import os
import platform
import secrets
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from litho.errors import CancelledError, LibraryError, LithoError, RefusedError
from litho.library import Library, files

log = logging.getLogger("litho.daemon")

FILE = ".lithograph-controller"
BYTES = 2048
"""Length of the file: one write, the same for each beat."""
RENEW_S = 10.0
STALE_S = 45.0
"""Seconds without a beat after which a holder that cannot be asked is taken for dead."""

Word = Annotated[str, msgspec.Meta(max_length=256)]
Verdict = Literal["ours", "dead", "alive", "unknown"]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a library."""

    format: Literal[1] = 1
    state: Word
    """Made of the state directory's secret: the same after a restart, another one for each installation."""
    key: Word
    """Random, of this run."""
    host: Word
    machine: Word
    """The same for two processes that can see each other's process numbers."""
    pid: Count
    started: Count
    """When the process began, in ticks since its machine booted; with `pid` it names a process. 0: not known."""
    since: Word = ""
    """When it began to hold, by its own clock: for people."""
    beat: Count = 0

    def __str__(self) -> str:
        when = f", since {self.since}" if self.since else ""
        return f"on {self.host}, process {self.pid}{when}"


def judge(found: Holder | None, me: Holder, exists: Callable[[int, int], bool | None]) -> Verdict:
    """What is known of the holder that was found (None: a file that is damaged). Pure but for `exists`, which says of a process
    of this machine (number, start) whether it is there; None when it cannot tell."""
    if found is None:
        return "unknown"
    if (found.state, found.host) == (me.state, me.host):
        return "ours"
    there = exists(found.pid, found.started) if found.machine == me.machine else None
    return "unknown" if there is None else "alive" if there else "dead"


def encode(holder: Holder) -> bytes:
    """The file's content, of `BYTES` bytes."""
    return msgspec.json.encode(holder).ljust(BYTES - 1) + b"\n"


def parse(data: bytes) -> Holder | None:
    """Who the file names; None for one that is damaged."""
    try:
        return msgspec.json.decode(data, type=Holder)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def myself(secret: bytes) -> Holder:
    """This process, for the installation whose state directory has `secret`."""
    return Holder(
        state=hmac.new(secret, b"library hold", "sha256").hexdigest()[:32],
        key=secrets.token_hex(8),
        host=platform.node()[:256],
        machine=_machine(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _machine() -> str:
    parts = [platform.node()]
    for name in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        # A service may see of /proc the processes alone.
        with contextlib.suppress(OSError):
            parts.append(Path(name).read_text(encoding="ascii", errors="replace").strip())
            break
    with contextlib.suppress(OSError):
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))  # noqa: PTH116 - a link that leads nowhere
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _started(pid: int) -> int:
    """Start of a process in ticks since boot (proc(5), field 22 of stat); 0 when it cannot be seen."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(line.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def exists(pid: int, started: int) -> bool | None:
    """Is the process that began at `started` there? None when that cannot be seen."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # It is there, and another user's.
    now = _started(pid)
    return None if 0 in (started, now) else now == started


class Hold:
    """This controller's hold on a library."""

    def __init__(self, library: Library, me: Holder, *, renew_s: float = RENEW_S, stale_s: float = STALE_S) -> None:
        self._root = library.root
        self._file = library.root / FILE
        self._me = me
        self._renew_s = renew_s
        self._stale_s = stale_s

    async def take(self, stop: asyncio.Event, *, by_force: bool = False) -> None:
        """Take the library, from nobody or from the dead. Raises RefusedError when somebody holds it, CancelledError when `stop`
        is set while it is watched, LibraryError."""
        while not await asyncio.to_thread(self._begin):
            data = await asyncio.to_thread(self._read)
            if data is None:
                continue  # Given up just now.
            found = parse(data)
            verdict = judge(found, self._me, exists)
            if by_force:
                log.warning(
                    "the library %s is taken over from the controller %s", self._root, found or "of a damaged hold"
                )
            elif verdict == "alive" or (verdict == "unknown" and await self._changes(data, found, stop)):
                raise self._held(found)
            elif verdict != "ours":
                log.warning("the library %s is taken over from a controller that is gone (%s)", self._root, found)
            await asyncio.to_thread(self._remove, data)

    async def _changes(self, data: bytes, found: Holder | None, stop: asyncio.Event) -> bool:
        """Look at the hold for a while: does somebody renew it?"""
        log.warning(
            "the library %s is held by a controller %s; it is watched for %.0f s for a sign of life",
            self._root,
            found or "(its hold is damaged)",
            self._stale_s,
        )
        until = time.monotonic() + self._stale_s
        while time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(self._renew_s, self._stale_s) / 5)
                raise CancelledError("the controller was ended before it had its library")
            if await asyncio.to_thread(self._read) != data:
                return True
        return False

    def _held(self, found: Holder | None) -> RefusedError:
        return RefusedError(
            f"another controller works with the library {self._root} ({found or 'it does not say which'})",
            hint="end it there, or give this one another library; when it is gone for good: litho serve --take-over",
            code="library-held",
        )

    def _begin(self) -> bool:
        with files.telling(self._root):
            try:
                files.create_whole(self._file, encode(self._me))
            except FileExistsError:
                return False
            except OSError as exc:
                # Full for both: one that is held already is not for a second controller.
                if exc.errno in (errno.ENOSPC, errno.EDQUOT) and os.path.lexists(self._file):
                    return False
                raise
        return True

    def _read(self) -> bytes | None:
        with files.telling(self._root):
            try:
                return files.read_small(self._file, BYTES)
            except FileNotFoundError:
                # A link that leads nowhere is there all the same, as a damaged file is.
                return b"" if self._file.is_symlink() else None

    def _remove(self, seen: bytes) -> None:
        """Take the file away that has been seen, and no other one: a holder's next beat is no other one."""
        aside = self._file.with_name(f".{FILE}.{secrets.token_hex(6)}.part")
        with files.telling(self._root), contextlib.suppress(FileNotFoundError):
            self._file.rename(aside)
            now, then = parse(files.read_small(aside, BYTES)), parse(seen)
            if now is not None and (then is None or now.key != then.key):
                with contextlib.suppress(FileExistsError):
                    files.create_whole(self._file, encode(now))
            aside.unlink()

    def renew(self) -> None:
        """Say that we are alive. Blocks. Raises RefusedError when another controller has taken the library, LibraryError."""
        with files.telling(self._root):
            try:
                # Nodes may write to the library: a link in the file's place would have us write to what it leads to.
                fd = os.open(self._file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                # Removed by hand: there is no other holder, so we still are.
                if not self._begin():
                    raise self._lost(parse(self._read() or b"")) from None
                return
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise OSError(errno.EINVAL, f"{FILE} is not a regular file")
                found = parse(os.read(fd, BYTES))
                if found is not None and found.key != self._me.key:
                    raise self._lost(found)
                self._me = msgspec.structs.replace(self._me, beat=self._me.beat + 1)
                os.pwrite(fd, encode(self._me), 0)
                os.fsync(fd)
            finally:
                os.close(fd)

    def _lost(self, found: Holder | None) -> RefusedError:
        return RefusedError(
            f"another controller has taken the library {self._root} ({found or 'it does not say which'}), so this one ends",
            hint="only one controller works with a library",
            code="library-held",
        )

    async def keep(self) -> None:
        """Renew the hold for ever. A library that fails is waited for. Raises RefusedError when the hold is lost."""
        while True:
            await asyncio.sleep(self._renew_s)
            try:
                await asyncio.to_thread(self.renew)
            except LibraryError as exc:
                log.warning("the hold on the library is not renewed: %s", exc)

    def give_up(self) -> None:
        """Let the next one have the library at once. Blocks. Raises LibraryError."""
        data = self._read()
        found = parse(data) if data is not None else None
        if data is not None and found is not None and found.key == self._me.key:
            self._remove(data)


@contextlib.asynccontextmanager
async def holding(
    library: Library, secret: bytes, stop: asyncio.Event, *, take_over: bool = False
) -> AsyncIterator[Hold | None]:
    """Hold `library` in the block; None for a library that we cannot write, in which we can do no harm either.

    Raises RefusedError when another controller has it, CancelledError, LibraryError.
    """
    hold = Hold(library, myself(secret))
    try:
        await hold.take(stop, by_force=take_over)
    except LibraryError as exc:
        if exc.code not in ("library-read-only", "library-denied", "library-full"):
            raise
        log.warning("the library is not guarded against a second controller: %s", exc)
        yield None
        return
    try:
        yield hold
    finally:
        with contextlib.suppress(LithoError):
            await asyncio.to_thread(hold.give_up)
