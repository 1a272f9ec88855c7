"""What an engine is: the rules of one imaging program, without any I/O.

An engine copies the used blocks of one partition. It knows the command whose standard output is the stream (save) or
whose standard input takes it (restore), how to read the program's progress, and how to tell success from failure. The
pipeline runs the command and joins it with compressor, hashes and file; an engine never starts a process itself, so every
rule here can be tested with recorded words.

No single sign of success is believed. A save or restore went well when *all* of these hold: every process of the pipe
ended with exit code 0, the program said its word of success where it has one, at least as many bytes moved as there
were used blocks, and the stream ends as such a stream ends where that can be told. How each program fails stands beside
its engine's rules as a table of `Sign`s, each with a test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

import msgspec

from litho.errors import EngineError
from litho.process import Argv, told

END_BYTES = 32 * 1024
"""How much of a stream's end a verdict holds at most."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A partition that is to be saved."""

    device: Path
    fs: str
    """File system as blkid names it."""
    size: int
    """Bytes."""
    used: int = 0
    """Bytes of used blocks, 0 when it cannot be told before."""
    may_lose: int = 0
    """How many bytes may be left out because they cannot be read; 0 ends the save at the first bad sector."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine's process left behind."""

    code: int
    """Exit code, or minus the signal's number."""
    words: str
    """All that it wrote to standard error (and, on restore, to standard output), decoded leniently."""
    stream_bytes: int
    """Bytes that came out of it (save) or went into it (restore)."""
    end: bytes = b""
    """Save: the last bytes of the stream, at most `END_BYTES`."""

    @property
    def last_words(self) -> str:
        """The last line that is not blank of what it said."""
        lines = [line.strip() for line in re.split(r"[\r\n]+", self.words) if line.strip()]
        return lines[-1][:300] if lines else ""


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a program fails, and what a person is told about it."""

    pattern: str
    """Regular expression that its words match; empty: the exit code alone tells."""
    codes: tuple[int, ...] = ()
    """Exit codes that it comes with; empty: any."""
    code: str
    """The stable word of the error."""
    cause: str
    """Ends the sentence `<program> could not save <device>: ...`."""
    hint: str = ""


class Engine(Protocol):
    """One imaging program."""

    name: str
    """As in manifests and on the kernel command line: `partclone`."""
    suffix: str
    """What stands in file names: `golden.v1-sda1.<suffix>.zst`."""
    rescues: bool
    """True when it can go on past sectors that cannot be read, and says where they are."""

    def knows(self, fs: str) -> bool:
        """True when the engine can save file system `fs` (as blkid names it)."""

    def tail(self, fs: str) -> int:
        """How many bytes at the end of a partition with `fs` the stream leaves out and the file system needs; see `tail`."""

    def version(self) -> tuple[Argv, str] | None:
        """The command that tells the program's version, and the regex whose first group is it; None when it has none."""

    def save(self, source: Source) -> Argv:
        """The command whose standard output is the stream."""

    def restore(self, device: Path, fs: str) -> Argv:
        """The command whose standard input takes the stream."""

    def fraction(self, words: str) -> float | None:
        """How far it is, 0.0 to 1.0, from one piece of its output; None when the piece says nothing about it."""

    def bad(self, words: str) -> tuple[tuple[int, int], ...]:
        """(start, size) in bytes of the partition of what could not be read, from one piece of its output, in ascending order."""

    def judge_save(self, source: Source, verdict: Verdict) -> None:
        """Raise EngineError unless the save surely succeeded."""

    def judge_restore(self, device: Path, verdict: Verdict) -> None:
        """Raise EngineError unless the restore surely succeeded."""


def fault(program: str, doing: str, verdict: Verdict, signs: tuple[Sign, ...]) -> EngineError:
    """The error of a program that failed while `doing` ("save /dev/sda1"): the first sign that fits, else its last words."""
    for sign in signs:
        fits = not sign.codes or verdict.code in sign.codes
        if fits and re.search(sign.pattern, verdict.words):
            return EngineError(f"{program} could not {doing}: {sign.cause}", hint=sign.hint, code=sign.code)
    words = f" ({verdict.last_words})" if verdict.last_words else ""
    crashed = verdict.code < 0
    return EngineError(
        f"could not {doing}: {told([program], verdict.code)}{words}",
        code="engine-crashed" if crashed else "engine-failed",
    )


def unproven(program: str, doing: str, why: str) -> EngineError:
    """The error of a program that ended as if all were well, and something says otherwise."""
    return EngineError(
        f"{program} ended without an error while it had to {doing}, and {why}",
        hint="the result is not trusted; look at the log of the job and start it again",
        code="engine-unproven",
    )
