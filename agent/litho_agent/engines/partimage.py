"""partimage 0.6: the program that the seeds name, for ReiserFS, for old images, and when it is asked for.

The rules were measured with partimage 0.6.9 as Debian builds it.

* `-B x=y` is full batch: no terminal, and a question that is left ends the program (exit code 8) instead of hanging.
  The pattern matches no question, so none is answered: "continue" would also go on over damaged data.
* `-z0 -V0`: no compression of its own, one stream; `-M` no MBR in it (the job keeps the boot sectors itself); `-d` no
  description; `-c` no fsck before (the job looks at the file system before it starts an engine); `-f3` quit at the end.
* `-y`: no sync() at its end. That one waits for every file system of the machine, the library's server too; the pipeline syncs
  what has to be, the device.
* `stdin` must be given the unpacked stream: gzip on stdin crashes it.

Traps, each with a test: ext4 and XFS v5 are refused by `choose` because partimage fails on the one without a word and
crashes on the other. It writes `P: 99%` also when it fails, so `P:100%` is needed, and a stream must end with the magic
of the tail."""

from __future__ import annotations

import re
from pathlib import Path

from litho.process import Argv
from litho_agent.engines.base import Sign, Source, Verdict, fault, unproven
from litho_agent.engines.tail import TAIL_BYTES

KNOWN = frozenset({"ext2", "ext3", "vfat", "ntfs", "xfs", "reiserfs", "jfs", "hfs", "hpfs", "ufs"})
"""By blkid's names. xfs means version 4 only; JFS it can save sometimes (an empty one failed)."""

_PROGRESS = re.compile(r"T:\d+:\d\d:\d\d/\d+:\d\d:\d\d\s+R:\s*[0-9.]+ \S+/min\s+P:\s*(\d{1,3})%")
_TAIL_MAGIC = b"MAGIC-BEGIN-TAIL"
_TAIL_SIZE = 16384

_COMMON = (
    Sign(
        pattern=r"partition is mounted|is (?:currently )?mounted",
        code="mounted",
        cause="the partition is mounted, or /etc/mtab is missing (partimage then believes that everything is)",
        hint="unmount it; let /etc/mtab be a link to ../proc/mounts",
    ),
    Sign(
        pattern=r"is \[-unknown-\], and is not supported",
        code="wrong-fs",
        cause="it does not know the file system on it",
        hint="let the engine be chosen by file system",
    ),
    Sign(
        pattern=r"must be a valid device",
        code="disk-missing",
        cause="the partition is not there",
        hint="look at the node's disks with lsblk",
    ),
    Sign(
        pattern=r"Input/output error|[Cc]an'?t read block|cannot read block",
        code="disk-io",
        cause="the disk did not read or write all of it (I/O error)",
        hint="look at the node's kernel log and the disk's SMART values",
    ),
)

SAVE_SIGNS = (
    *_COMMON,
    Sign(
        pattern="",
        codes=(-11,),
        code="engine-crashed",
        cause="it crashed (SIGSEGV), as it does on an XFS of version 5",
        hint="use partclone for this partition",
    ),
    Sign(
        pattern="",
        codes=(1,),
        code="engine-failed",
        cause="it gave up and says no reason, as it does for a journal that was not replayed or for a feature newer than it",
        hint="check the file system with fsck, or use partclone for this partition",
    ),
)

RESTORE_SIGNS = (
    *_COMMON,
    Sign(
        pattern=r"CRC error",
        code="bad-stream",
        cause="the stream is damaged (its CRC differs), and the target is half written",
        hint="check the image with: litho image verify",
    ),
    Sign(
        pattern=r"stdin\.\d{3}|another full path|Volume not found",
        code="bad-stream",
        cause="the stream ended early, and the target is half written",
        hint="check the image with: litho image verify",
    ),
    Sign(
        pattern="",
        codes=(-11, 1),
        code="engine-failed",
        cause="it gave up and says no reason, as it does when the partition is smaller than the one that was captured "
        "or when the stream is not one of its own",
        hint="compare the sizes, and check the image with: litho image verify",
    ),
)


class Partimage:
    """The engine that the first users had."""

    name = "partimage"
    suffix = "partimage"
    rescues = False

    def knows(self, fs: str) -> bool:
        """See Engine. XFS must be of version 4: `choose` asks."""
        return fs in KNOWN

    def tail(self, fs: str) -> int:
        """See Engine."""
        return TAIL_BYTES if fs == "ntfs" else 0

    def version(self) -> tuple[Argv, str]:
        """See Engine."""
        return ("partimage", "-v"), r"version ([0-9][0-9A-Za-z.]*)"

    def save(self, source: Source) -> Argv:
        """See Engine."""
        return (
            "partimage",
            "-B",
            "x=y",
            "-y",
            "-z0",
            "-V0",
            "-f3",
            "-o",
            "-d",
            "-M",
            "-c",
            "save",
            source.device,
            "stdout",
        )

    def restore(self, device: Path, fs: str) -> Argv:
        """See Engine."""
        return ("partimage", "-B", "x=y", "-y", "-f3", "restore", device, "stdin")

    def fraction(self, words: str) -> float | None:
        """See Engine. Whole percents."""
        found = _PROGRESS.findall(words)
        return min(1.0, int(found[-1]) / 100) if found else None

    def bad(self, words: str) -> tuple[tuple[int, int], ...]:
        """See Engine: it ends at the first."""
        return ()

    def judge_save(self, source: Source, verdict: Verdict) -> None:
        """See Engine."""
        doing = f"save {source.device}"
        if verdict.code != 0:
            raise fault(self.name, doing, verdict, SAVE_SIGNS)
        self._finished(doing, verdict)
        if verdict.stream_bytes < source.used:
            raise unproven(
                self.name,
                doing,
                f"its stream has {verdict.stream_bytes} bytes, fewer than the {source.used} bytes of used blocks",
            )
        tail = len(_TAIL_MAGIC) + _TAIL_SIZE
        if verdict.end[-tail:][: len(_TAIL_MAGIC)] != _TAIL_MAGIC:
            raise unproven(self.name, doing, "its stream does not end as a partimage stream ends")

    def judge_restore(self, device: Path, verdict: Verdict) -> None:
        """See Engine."""
        doing = f"restore {device}"
        if verdict.code != 0:
            raise fault(self.name, doing, verdict, RESTORE_SIGNS)
        self._finished(doing, verdict)

    def _finished(self, doing: str, verdict: Verdict) -> None:
        reached = self.fraction(verdict.words)
        if reached != 1.0:
            at = "no progress" if reached is None else f"{reached:.0%}"
            raise unproven(self.name, doing, f"its last word was {at} instead of 100%")
