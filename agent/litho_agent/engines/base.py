"""What an engine is: the rules of one imaging program, without any I/O.

An engine copies the used blocks of one partition. It knows the command whose standard output is the stream (save) or
whose standard input takes it (restore), how to read the program's progress, and how to tell success from failure. The
pipeline runs the command and joins it with compressor, hashes and file; an engine never starts a process itself, so every
rule here can be tested with recorded words.

No single sign of success is believed. A save or restore went well when *all* of these hold: every process of the pipe ended with
exit code 0, the program said its word of success where it has one, and at least as many bytes moved as there were used blocks.
`facts` of how each program fails stand beside its engine's rules, each with a test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from litho.process import Argv


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A partition that is to be saved."""

    device: Path
    fs: str
    """File system as blkid names it."""
    size: int
    """Bytes."""
    used: int = 0
    """Bytes of used blocks, 0 when it cannot be told before."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine's process left behind."""

    code: int
    """Exit code, or minus the signal's number."""
    words: str
    """All that it wrote to standard error (and, on restore, to standard output), decoded leniently."""
    stream_bytes: int
    """Bytes that came out of it (save) or went into it (restore)."""


class Engine(Protocol):
    """One imaging program."""

    name: str
    """As in manifests and on the kernel command line: `partclone`."""
    suffix: str
    """What stands in file names: `golden.v1-sda1.<suffix>.zst`."""

    def knows(self, fs: str) -> bool:
        """True when the engine can save file system `fs` (as blkid names it)."""

    def version(self) -> tuple[Argv, str]:
        """The command that tells the program's version, and the regex whose first group is it."""

    def save(self, source: Source) -> Argv:
        """The command whose standard output is the stream."""

    def restore(self, device: Path, fs: str) -> Argv:
        """The command whose standard input takes the stream."""

    def fraction(self, words: str) -> float | None:
        """How far it is, 0.0 to 1.0, from one piece of its output; None when the piece says nothing about it."""

    def judge_save(self, source: Source, verdict: Verdict) -> None:
        """Raise EngineError unless the save surely succeeded."""

    def judge_restore(self, device: Path, verdict: Verdict) -> None:
        """Raise EngineError unless the restore surely succeeded."""
