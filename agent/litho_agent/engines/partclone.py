"""partclone: knows most file systems of today. The rules were measured with partclone 0.3.23.

Its own checksums are off (`-a0`): they take half of its time, and the library has a SHA-256 of everything. Its log goes nowhere
(`-L /dev/null`): all that matters is also on standard error.

Traps, each with a test:

* An unknown option prints the usage and ends with exit code 0. So the line "Partclone successfully cloned" (or
  "restored") must have been said.
* While it saves it prints two runs of percents, the first for reading the bitmap. Only those of the copy have a rate
  behind them.
* With `-a0` a flipped byte restores with exit code 0: the pipeline's own hash finds it.
* It stops at a bad sector with a box that says so and no place. `--rescue` goes on, says the place of each 512 bytes that
  it lost, and writes the word BADSECTOR and question marks in their stead.
* NTFS keeps a backup of its boot sector in the last sector of the partition, outside what partclone copies: see `tail`."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from litho.errors import EngineError
from litho.process import Argv
from litho_agent.engines.base import Sign, Source, Verdict, fault, unproven
from litho_agent.engines.tail import TAIL_BYTES

PROGRAMS = {
    "apfs": "partclone.apfs",
    "btrfs": "partclone.btrfs",
    "exfat": "partclone.exfat",
    "ext2": "partclone.ext2",
    "ext3": "partclone.ext3",
    "ext4": "partclone.ext4",
    "f2fs": "partclone.f2fs",
    "hfsplus": "partclone.hfsplus",
    "minix": "partclone.minix",
    "ntfs": "partclone.ntfs",
    "reiser4": "partclone.reiser4",
    "vfat": "partclone.vfat",
    "xfs": "partclone.xfs",
}
"""The program for each file system, by blkid's name of it."""

_COPY = re.compile(r"Completed:\s*(\d{1,3}(?:\.\d+)?)%,\s*(?:Rate:)?\s*[0-9.]+")
_LOST = re.compile(r"Can't read sector at ([0-9]{1,19}), lost data")
_SECTOR = 512
"""What `--rescue` tries and gives up at a time, whatever the disk's own sectors are."""
_DONE = re.compile(r"Partclone successfully (?:cloned|restored) ")

SIGNS = (
    Sign(
        pattern=r"device \([^)]*\) is mounted at",
        code="mounted",
        cause="the partition is mounted",
        hint="unmount it",
    ),
    Sign(
        pattern=r"contains a file system with errors|FS contains .* errors",
        code="fs-errors",
        cause="the file system is marked as having errors",
        hint="repair it with fsck on the node, then capture again",
    ),
    Sign(
        pattern=r"bitmap free count err|run fsck|filesystem wasn't cleanly unmounted|not cleanly unmounted",
        code="fs-dirty",
        cause="the file system was not cleanly unmounted",
        hint="shut the node down properly or check it with fsck, or ask for the repair with on_dirty=repair",
    ),
    Sign(
        pattern=r"scheduled for (?:a )?check|shut ?down uncleanly|hibernat|Volume is dirty",
        code="fs-dirty",
        cause="Windows was not fully shut down (hibernated, fast start, or due for a check)",
        hint="start Windows, switch fast start off, shut it down fully, then capture again",
    ),
    Sign(
        pattern=r"NOT [A-Z0-9]+ partition|bad magic number|not a .* file ?system|is not a valid",
        code="wrong-fs",
        cause="the partition does not hold the file system that was expected",
        hint="look at it with blkid",
    ),
    Sign(
        pattern=r"Target partition size\([^)]*\) is smaller than source\([^)]*\)",
        code="target-too-small",
        cause="the partition is smaller than the one that was captured, and nothing was written",
        hint="use a disk that is at least as large",
    ),
    Sign(
        pattern=r"This is not partclone image|read image_hdr error|image_hdr|Partclone image version",
        code="bad-stream",
        cause="what it was given is not a partclone stream",
        hint="check the image with: litho image verify",
    ),
    Sign(
        pattern=r"The disk has bad sectors|Input/output error|[Rr]ead.*sector|read error",
        code="disk-io",
        cause="the disk did not read or write all of it (I/O error)",
        hint="look at the node's kernel log and the disk's SMART values",
    ),
    Sign(
        pattern=r"read ERROR:",
        code="bad-stream",
        cause="the stream ended early, and the target is half written",
        hint="check the image with: litho image verify",
    ),
    Sign(
        pattern=r"CRC error|checksum error|crc error",
        code="bad-stream",
        cause="the stream is damaged, and the target is half written",
        hint="check the image with: litho image verify",
    ),
    Sign(
        pattern=r"open \S+ error|No such (?:file or directory|device)",
        code="disk-missing",
        cause="the partition is not there",
        hint="look at the node's disks with lsblk",
    ),
    Sign(
        pattern=r"No space left",
        code="target-full",
        cause="there is no space left on the target",
    ),
)


def failed(doing: str, verdict: Verdict) -> EngineError:
    """The error of a partclone that failed while `doing`. Its closing line says only that it failed, so it is not quoted."""
    words = re.sub(r"Partclone fail, please check .*", "", verdict.words)
    return fault("partclone", doing, msgspec.structs.replace(verdict, words=words), SIGNS)


class Partclone:
    """The engine of choice for every file system that it knows."""

    name = "partclone"
    suffix = "partclone"
    rescues = True

    def knows(self, fs: str) -> bool:
        """See Engine."""
        return fs in PROGRAMS

    def tail(self, fs: str) -> int:
        """See Engine."""
        return TAIL_BYTES if fs == "ntfs" else 0

    def version(self) -> tuple[Argv, str]:
        """See Engine."""
        return ("partclone.restore", "-v"), r"\bv([0-9][0-9A-Za-z.+~-]*)"

    def save(self, source: Source) -> Argv:
        """See Engine."""
        program = PROGRAMS[source.fs]
        rescue = ("--rescue",) if source.may_lose else ()
        return (program, *rescue, "-c", "-a0", "-B", "-f", "1", "-s", source.device, "-o", "-", "-L", "/dev/null")

    def restore(self, device: Path, fs: str) -> Argv:
        """See Engine. The stream says itself which file system it is of."""
        return ("partclone.restore", "-B", "-f", "1", "-s", "-", "-O", device, "-L", "/dev/null")

    def fraction(self, words: str) -> float | None:
        """See Engine."""
        found = _COPY.findall(words)
        return min(1.0, float(found[-1]) / 100) if found else None

    def bad(self, words: str) -> tuple[tuple[int, int], ...]:
        """See Engine. The offsets are the partition's: it reads a partition, not a disk."""
        return tuple((int(at), _SECTOR) for at in _LOST.findall(words))

    def judge_save(self, source: Source, verdict: Verdict) -> None:
        """See Engine."""
        doing = f"save {source.device}"
        self._judge(doing, verdict)
        if verdict.stream_bytes < max(1, source.used):
            raise unproven(
                self.name,
                doing,
                f"its stream has {verdict.stream_bytes} bytes, fewer than the {source.used} bytes of used blocks",
            )

    def judge_restore(self, device: Path, verdict: Verdict) -> None:
        """See Engine."""
        self._judge(f"restore {device}", verdict)

    def _judge(self, doing: str, verdict: Verdict) -> None:
        if verdict.code != 0 or "Partclone fail" in verdict.words:
            raise failed(doing, verdict)
        if _DONE.search(verdict.words) is None:
            raise unproven(
                self.name, doing, f"never said that it had succeeded ({verdict.last_words or 'it said nothing'})"
            )
