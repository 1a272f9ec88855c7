"""The one gateway to child processes.

Nothing else in the project starts a program. What the gateway promises:

* Argument lists only; no shell, ever.
* A built environment: `LC_ALL=C` (the words that programs say are parsed), a plain PATH, no TERM, nothing inherited but what is
  named. Standard input is closed unless the caller hands one in.
* A child dies with its parent. `setpriv --pdeathsig` arms that before the program starts, without running Python between
  fork and exec. Trap: the kernel ties it to the *thread* that forked, so children are started from a thread
  that lives as long as they should, in practice the main thread.
* The log shows what could be pasted into a terminal.
* A failure tells a missing program from a signal from an exit code, as an `EngineError` whose sentence names the program and
  quotes its last words.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from litho.errors import EngineError, MissingProgramError

log = logging.getLogger("litho.process")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Argv = Sequence[str | Path]

PACKAGES = {
    "blkid": "util-linux",
    "blockdev": "util-linux",
    "btrfs": "btrfs-progs",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "fsck.exfat": "exfatprogs",
    "fsck.fat": "dosfstools",
    "losetup": "mount",
    "mkswap": "util-linux",
    "mosquitto": "mosquitto",
    "nbdfuse": "libnbd-bin",
    "nbdkit": "nbdkit",
    "ntfsresize": "ntfs-3g",
    "openssl": "openssl",
    "partimage": "partimage",
    "partx": "util-linux",
    "resize2fs": "e2fsprogs",
    "sfdisk": "fdisk",
    "swaplabel": "util-linux",
    "unsquashfs": "squashfs-tools",
    "xfs_db": "xfsprogs",
    "zstd": "zstd",
}
"""Which Debian package brings a program, for the hint of MissingProgramError."""


class Done(msgspec.Struct, frozen=True):
    """A child that ended. Output is bytes decoded as UTF-8 with replacement: programs say what they like."""

    argv: tuple[str, ...]
    code: int
    """Exit code, or minus the number of the signal that ended it."""
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line that is not blank of what it said, errors before output."""
        for text in (self.err, self.out):
            lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
            if lines:
                return lines[-1][:300]
        return ""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment that every child gets."""
    env = {"LC_ALL": "C", "PATH": PATH, "HOME": "/root"}
    # Coverage of worker processes: the tests' own hook, absent in the field.
    if "COVERAGE_PROCESS_START" in os.environ:
        env["COVERAGE_PROCESS_START"] = os.environ["COVERAGE_PROCESS_START"]
    env.update(extra or {})
    return env


def pasteable(argv: Argv) -> str:
    """The command as a person would type it."""
    return shlex.join(str(word) for word in argv)


def which(program: str) -> str | None:
    """Where a program is on the gateway's PATH; None when it is not installed."""
    return shutil.which(program, path=PATH)


def require(program: str) -> str:
    """Where a program is on the gateway's PATH. Raises MissingProgramError with the package that brings it."""
    found = which(program)
    if found is None:
        name = Path(program).name
        package = PACKAGES.get(name) or ("partclone" if name.startswith("partclone.") else "")
        raise MissingProgramError(
            f"the program {program} is not installed",
            hint=f"install the package {package}" if package else "",
        )
    return found


def _resolve(argv: Argv) -> list[str]:
    words = [str(word) for word in argv]
    if any("\0" in word for word in words):
        # A label from a disk or a manifest may hold one; the kernel would cut the argument there.
        raise EngineError(f"an argument of {Path(words[0]).name} holds a zero byte", code="bad-argument")
    return [require(words[0]), *words[1:]]


def _armed(argv: Argv) -> list[str]:
    """`argv` so that the child is killed when the thread that starts it dies."""
    return ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--", *_resolve(argv)]


def _not_started(argv: Argv, exc: OSError) -> EngineError:
    """The kernel would not even start it: no memory, too many processes, an argument list that is too long."""
    return EngineError(f"{Path(str(argv[0])).name} could not be started ({exc.strerror or exc})", code="not-started")


def told(argv: Argv, code: int) -> str:
    """How a program ended, in words."""
    name = Path(str(argv[0])).name
    if code < 0:
        try:
            what = signal.Signals(-code).name
        except ValueError:
            what = f"signal {-code}"
        return f"{name} was ended by {what}"
    return f"{name} ended with exit code {code}"


def failure(done: Done, *, doing: str = "") -> EngineError:
    """The error that tells how `done` went wrong."""
    words = f" ({done.last_words})" if done.last_words else ""
    lead = f"{doing}: " if doing else ""
    return EngineError(f"{lead}{told(done.argv, done.code)}{words}")


def run(
    argv: Argv,
    *,
    stdin: bytes | None = None,
    ok: Sequence[int] = (0,),
    timeout_s: float | None = 300.0,
    doing: str = "",
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Done:
    """Run a program to its end and return what it said.

    Raises MissingProgramError, or EngineError when the exit code is not in `ok` or `timeout_s` seconds are over.
    """
    words = _armed(argv)
    log.debug("run %s", pasteable(argv))
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=environment(env),
            timeout=timeout_s,
            check=False,
            pass_fds=pass_fds,
        )
    except OSError as exc:
        raise _not_started(argv, exc) from exc
    except subprocess.TimeoutExpired as exc:
        name = Path(str(argv[0])).name
        raise EngineError(f"{doing + ': ' if doing else ''}{name} did not end within {timeout_s:.0f} s") from exc
    result = Done(
        tuple(str(word) for word in argv),
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )
    if result.code not in ok:
        raise failure(result, doing=doing)
    return result


def start(
    argv: Argv,
    *,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program that the caller joins to pipes and waits for; None closes a stream.

    Raises MissingProgramError.
    """
    words = _armed(argv)
    log.debug("start %s", pasteable(argv))
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=subprocess.DEVNULL if stderr is None else stderr,
            env=environment(env),
            pass_fds=pass_fds,
            bufsize=0,
        )
    except OSError as exc:
        raise _not_started(argv, exc) from exc


async def start_async(
    argv: Argv,
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    env: Mapping[str, str] | None = None,
    limit: int = 1024 * 1024,
    own_group: bool = False,
) -> asyncio.subprocess.Process:
    """The same for a program that an event loop talks to; `limit` is the longest line in bytes.

    With `own_group` it leads a process group, so that `end_group` also reaches what it starts. Raises MissingProgramError.
    """
    words = _armed(argv)
    log.debug("start %s", pasteable(argv))
    try:
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
            stdout=asyncio.subprocess.DEVNULL if stdout is None else stdout,
            stderr=asyncio.subprocess.DEVNULL if stderr is None else stderr,
            env=environment(env),
            limit=limit,
            start_new_session=own_group,
        )
    except OSError as exc:
        raise _not_started(argv, exc) from exc


async def end(child: asyncio.subprocess.Process, *, grace_s: float = 5.0) -> int:
    """Ask a child to stop (SIGTERM), insist after `grace_s` seconds (SIGKILL), and return its exit code."""
    if child.returncode is None:
        child.terminate()
        try:
            async with asyncio.timeout(grace_s):
                await child.wait()
        except TimeoutError:
            child.kill()
    return await child.wait()


_LEFT: list[asyncio.subprocess.Process] = []
"""Children that could not be ended. A reference is kept: one that is collected while its process lives is called a leak."""


def leave(child: asyncio.subprocess.Process) -> None:
    """Let go of a child that hangs in the kernel and takes no signal: its pipes are closed, nobody waits for it any more."""
    _LEFT.append(child)
    child._transport.close()  # type: ignore[attr-defined]  # there is no public way


async def end_group(child: asyncio.subprocess.Process, *, grace_s: float = 1.0) -> int:
    """The same for a child that leads its own group (`own_group`), and everything that it started and left behind."""
    _signal_group(child, signal.SIGTERM)
    try:
        async with asyncio.timeout(grace_s):
            await child.wait()
        return await child.wait()
    except TimeoutError:
        return await _killed(child)
    finally:
        _signal_group(child, signal.SIGKILL)


async def _killed(child: asyncio.subprocess.Process) -> int:
    _signal_group(child, signal.SIGKILL)
    return await child.wait()


def _signal_group(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
