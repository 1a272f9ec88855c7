"""raw: every byte of the partition, for what no other engine knows. The program is `dd` of GNU coreutils.

Zeros cost next to nothing in the library (zstd packs a gigabyte of them into some tens of kilobytes), so free space
that was never written is cheap. On restore every byte is written, zeros too: what lies on the target is unknown, and a
hole that is left out would keep it.

A source that may lose sectors is read by `rescue`, a program of our own: `dd conv=noerror,sync` would lose a whole block
for one bad sector, and not say which.

`dd` stays a process of its own, so that a disk which hangs in the kernel hangs that process and not the agent. It ends
with a count of bytes; it must be the partition's size, to the byte."""

from __future__ import annotations

import re
from pathlib import Path

from litho.process import Argv
from litho_agent.engines import rescue
from litho_agent.engines.base import Sign, Source, Verdict, fault, unproven

_BAD = re.compile(r"^bad ([0-9]{1,19}) ([0-9]{1,19})$", re.MULTILINE)
_COPIED = re.compile(r"^(\d+) bytes?\b.* copied, ", re.MULTILINE)

SIGNS = (
    Sign(
        pattern=r"error reading",
        code="disk-io",
        cause="the disk has sectors that cannot be read",
        hint="look at the node's kernel log and the disk's SMART values",
    ),
    Sign(
        pattern=r"No space left on device",
        code="target-too-small",
        cause="the partition is smaller than the one that was captured, and it is half written",
        hint="use a disk that is at least as large",
    ),
    Sign(
        pattern=r"error writing|fsync failed",
        code="disk-io",
        cause="the disk did not take all that was written to it",
        hint="look at the node's kernel log and the disk's SMART values",
    ),
    Sign(
        pattern=r"failed to open .*: No such|No such device",
        code="disk-missing",
        cause="the partition is not there",
        hint="look at the node's disks with lsblk",
    ),
)


class Raw:
    """The engine for the rest."""

    name = "raw"
    suffix = "raw"
    rescues = True

    def knows(self, fs: str) -> bool:
        """See Engine: anything."""
        return True

    def tail(self, fs: str) -> int:
        """See Engine: nothing is left out."""
        return 0

    def version(self) -> tuple[Argv, str]:
        """See Engine."""
        return ("dd", "--version"), r"\(coreutils\) ([0-9][0-9A-Za-z.]*)"

    def save(self, source: Source) -> Argv:
        """See Engine."""
        if source.may_lose:
            return rescue.copy_command(source.device, source.size, source.may_lose)
        return ("dd", f"if={source.device}", "bs=1M")

    def restore(self, device: Path, fs: str) -> Argv:
        """See Engine."""
        return ("dd", f"of={device}", "bs=1M", "iflag=fullblock", "conv=notrunc,nocreat,fsync")

    def fraction(self, words: str) -> float | None:
        """See Engine: it says nothing on its way."""
        return None

    def bad(self, words: str) -> tuple[tuple[int, int], ...]:
        """See Engine."""
        return tuple((int(start), int(size)) for start, size in _BAD.findall(words))

    def judge_save(self, source: Source, verdict: Verdict) -> None:
        """See Engine."""
        doing = f"save {source.device}"
        self._judge(doing, verdict)
        if verdict.stream_bytes != source.size:
            raise unproven(
                self.name, doing, f"its stream has {verdict.stream_bytes} bytes, and the partition {source.size}"
            )

    def judge_restore(self, device: Path, verdict: Verdict) -> None:
        """See Engine."""
        self._judge(f"restore {device}", verdict)

    def _judge(self, doing: str, verdict: Verdict) -> None:
        if verdict.code != 0:
            raise fault("dd", doing, verdict, SIGNS)
        copied = _COPIED.search(verdict.words)
        if copied is None or int(copied[1]) != verdict.stream_bytes:
            said = f"{copied[1]} bytes" if copied else "nothing"
            raise unproven("dd", doing, f"says that it copied {said} where {verdict.stream_bytes} bytes moved")
