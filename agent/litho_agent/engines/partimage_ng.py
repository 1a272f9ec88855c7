"""partimage-ng: driven by the command lines that are attested, everything else about it taken as unknown.

No binary and no source of it is to be had any more. What is known comes from GPartimage-ng's source, the graphical
front end that drove it:

* save is `partimage-ng save DEVICE stdout`, restore is `partimage-ng -u 1 restore stdin DEVICE`: source first in both;
* on restore it writes progress to *standard output*; a progress line has at least six fields between single spaces (or
  tabs), and the third is the percent with a decimal point. `-u 1` is believed to be the interval in seconds.

Its stream is opaque: no magic, no length, no checksum of it is known. So success is exit code 0, bytes that moved, and
the pipeline's own hashes; its words are never needed for it. The tests run it against a stand-in program whose name
says that it is one."""

from __future__ import annotations

import re
from pathlib import Path

from litho.process import Argv
from litho_agent.engines.base import Source, Verdict, fault, unproven

_NOT_A_FILE_SYSTEM = frozenset(
    {"", "swap", "LVM2_member", "linux_raid_member", "crypto_LUKS", "BitLocker", "zfs_member"}
)
_PERCENT = re.compile(r"\d{1,3}(?:\.\d+)?", re.ASCII)


class PartimageNg:
    """The engine whose name `nodestat` keeps alive."""

    name = "partimage-ng"
    suffix = "partimage-ng"
    rescues = False

    def knows(self, fs: str) -> bool:
        """See Engine. Which file systems it can save is not known: it is offered each, and its exit code decides."""
        return fs not in _NOT_A_FILE_SYSTEM

    def tail(self, fs: str) -> int:
        """See Engine. What it does with NTFS is not known; the boot sector's backup is kept to be sure."""
        return 4096 if fs == "ntfs" else 0

    def version(self) -> None:
        """See Engine. How to ask it is not known."""

    def save(self, source: Source) -> Argv:
        """See Engine."""
        return ("partimage-ng", "save", source.device, "stdout")

    def restore(self, device: Path, fs: str) -> Argv:
        """See Engine."""
        return ("partimage-ng", "-u", "1", "restore", "stdin", device)

    def fraction(self, words: str) -> float | None:
        """See Engine. Every line that is no progress line is passed over."""
        found: float | None = None
        for line in re.split(r"[\r\n]+", words):
            fields = line.split(" ")
            if len(fields) < 6:
                fields = line.split("\t")
            if len(fields) >= 6 and _PERCENT.fullmatch(fields[2]) and float(fields[2]) <= 100:
                found = float(fields[2]) / 100
        return found

    def bad(self, words: str) -> tuple[tuple[int, int], ...]:
        """See Engine: it ends at the first."""
        return ()

    def judge_save(self, source: Source, verdict: Verdict) -> None:
        """See Engine. Its stream may be packed in a way that nobody knows, so any length but none is believed."""
        doing = f"save {source.device}"
        if verdict.code != 0:
            raise fault(self.name, doing, verdict, ())
        if verdict.stream_bytes == 0:
            raise unproven(self.name, doing, "its stream is empty")

    def judge_restore(self, device: Path, verdict: Verdict) -> None:
        """See Engine."""
        if verdict.code != 0:
            raise fault(self.name, f"restore {device}", verdict, ())
