"""Whether a file system may be captured as it is.

A copy of used blocks is only as good as the file system's own idea of what is used, and that is not settled while a
journal waits to be replayed, while Windows sleeps on the volume, or when nobody without a key can read it. So this is
looked at before anything is written anywhere, and `on_dirty` decides: `refuse` (the default) says why and stops;
`repair` lets the file system's own program settle it on the source; `raw` copies every block as it stands.

How each is told (measured with e2fsprogs 1.47, xfsprogs 6.1, ntfs-3g 2022.10, blkid 2.38):

* ext: `dumpe2fs -h`, feature `needs_recovery` or a state other than `clean`. partimage 0.6.9 captures a file system
  "with errors" and says success, so this is not left to the engine.
* XFS: `xfs_logprint -t` says `state: <DIRTY>` or `<CLEAN>` in its first lines.
* NTFS: `ntfs-3g.probe --readwrite` ends with 14 for a hibernated Windows (also fast start-up) and 15 for an unclean
  journal, and writes nothing; the flag 0x0001 that `ntfsinfo -m` shows asks for a check.
* FAT, exFAT, F2FS: the marks in their own sectors, see `dirtybits`. fsck.fat and fsck.exfat settle the first two; an F2FS
  rolls forward when it is mounted.
* BitLocker and LUKS, and swap in which a hibernated Linux lies (`swsuspend`): blkid's type.
* btrfs: its superblock says how many devices it lies on; one of several is no image of it.
* A physical volume of LVM: see `volumes`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from litho import process
from litho.errors import DiskError, RefusedError
from litho.job import OnDirty
from litho.process import Argv
from litho_agent import dirtybits
from litho_agent.dirtybits import Mark, ReadAt
from litho_agent.disks.hold import Hold
from litho_agent.filesystems import first_words
from litho_agent.mounting import mounted

State = Literal["clean", "dirty", "errors", "hibernated", "encrypted", "incomplete", "unknown"]
Way = Literal["as-is", "repair", "raw"]
Found = TypeVar("Found")

_EXT = frozenset({"ext2", "ext3", "ext4"})
_MARKS: dict[str, Callable[[ReadAt], Mark]] = {
    "vfat": dirtybits.fat,
    "exfat": dirtybits.exfat,
    "f2fs": dirtybits.f2fs,
}
_ARTICLES = {"vfat": "a FAT", "exfat": "an exFAT", "f2fs": "an F2FS", "xfs": "an XFS", "ntfs": "an NTFS"}
_PROBES = {
    "xfs": (("xfs_logprint", "xfsprogs"),),
    "ntfs": (("ntfs-3g.probe", "ntfs-3g"), ("ntfsinfo", "ntfs-3g")),
}
"""The programs that tell, and the Debian packages that have them. (dumpe2fs is part of every system; without it is an error.)"""
_SHUT_DOWN = "shut its system down cleanly, or say litho.on-dirty=repair or raw"
_ENCRYPTED = {"crypto_LUKS": "LUKS", "BitLocker": "BitLocker"}
_NTFS_HIBERNATED = 14
_NTFS_UNCLEAN = 15
_NTFS_DIRTY_FLAG = 0x0001


class Condition(msgspec.Struct, frozen=True):
    """What state a file system is in."""

    state: State = "clean"
    reason: str = ""
    """A clause that follows the device's name: `has a journal that waits to be replayed`."""
    repairable: bool = False
    way_out: str = ""


CLEAN = Condition()


def inspect(device: Path, fs: str) -> Condition:
    """The state of the file system `fs` (as blkid names it) on `device`; clean where there is nothing to know against it, unknown
    where the program that would know is missing or does not say.

    Only reads. Raises EngineError when a program that is there cannot be run, DiskError when the device cannot be read.
    """
    if fs in _ENCRYPTED:
        return Condition(
            "encrypted",
            f"is encrypted with {_ENCRYPTED[fs]}",
            way_out="say litho.on-dirty=raw to copy every block, or decrypt it first",
        )
    if fs == "swsuspend":
        return Condition(
            "hibernated",
            "is swap in which a hibernated Linux lies, whose file systems are not settled",
            way_out="start that Linux and shut it down, or say litho.on-dirty=raw",
        )
    if fs in _MARKS:
        return judge_mark(fs, _asked(device, _MARKS[fs]))
    if fs == "btrfs":
        return judge_btrfs(_asked(device, dirtybits.btrfs_devices))
    if fs in _EXT:
        return parse_dumpe2fs(process.run(["dumpe2fs", "-h", device], ok=range(256), timeout_s=60).out)
    missing = [program for program, _ in _PROBES.get(fs, ()) if process.which(program) is None]
    if missing:
        return unknown(fs, f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed here")
    if fs == "xfs":
        return parse_logprint(first_words(["xfs_logprint", "-t", device], limit=4096).decode(errors="replace"))
    if fs == "ntfs":
        code = process.run(["ntfs-3g.probe", "--readwrite", device], ok=range(256), timeout_s=60).code
        info = first_words(["ntfsinfo", "-m", "-f", device], limit=8192).decode(errors="replace")
        return judge_ntfs(code, info)
    return CLEAN


def unknown(fs: str, why: str) -> Condition:
    """The condition of a file system about which nobody here can say more. Pure."""
    packages = ", ".join(sorted({package for _, package in _PROBES[fs]}))
    return Condition(
        "unknown",
        f"holds {_ARTICLES[fs]} of which nobody can say whether it is clean ({why})",
        way_out=f"install {packages} where the agent runs, or say litho.on-dirty=raw to copy every block",
    )


def _asked(device: Path, ask: Callable[[ReadAt], Found]) -> Found:
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return ask(lambda offset, length: os.pread(fd, length, offset))
        finally:
            os.close(fd)
    except OSError as exc:
        raise DiskError(f"{device} cannot be read: {exc.strerror}", code="unreadable") from exc


def judge_btrfs(devices: int) -> Condition:
    """The condition of a btrfs on so many devices. partclone 0.3.23 saves one of two, warns, and says success. Pure."""
    if devices <= 1:
        return CLEAN
    return Condition(
        "incomplete",
        f"is one of the {devices} devices of a btrfs, and no image of it",
        way_out="move it to one device (`btrfs device remove`), or say litho.on-dirty=raw to copy every block of this one",
    )


def judge_mark(fs: str, mark: Mark) -> Condition:
    """The condition from the mark that a file system carries (`dirtybits`). Pure."""
    if mark == "dirty":
        what = "waits to be rolled forward" if fs == "f2fs" else "is marked as not cleanly unmounted"
        return Condition("dirty", f"holds {_ARTICLES[fs]} that {what}", repairable=True, way_out=_SHUT_DOWN)
    if mark == "unreadable" and fs == "f2fs":
        return Condition(
            "errors",
            "holds an F2FS neither of whose checkpoints is whole",
            way_out="look at it with `fsck.f2fs`, or say litho.on-dirty=raw",
        )
    # What is odd about a FAT that blkid knows is the engine's to tell.
    return CLEAN


def parse_dumpe2fs(text: str) -> Condition:
    """The condition in the output of `dumpe2fs -h`."""
    fields = dict(re.findall(r"^(Filesystem features|Filesystem state):\s*(.*)$", text, re.MULTILINE))
    state = fields.get("Filesystem state", "").strip()
    if "error" in state:
        return Condition(
            "errors",
            f"is marked as {state!r} by its own file system",
            repairable=True,
            way_out="run `e2fsck -f` on it, or say litho.on-dirty=repair or raw",
        )
    if "needs_recovery" in fields.get("Filesystem features", "").split():
        return Condition(
            "dirty",
            "has a journal that waits to be replayed",
            repairable=True,
            way_out=_SHUT_DOWN,
        )
    if state and state != "clean":
        return Condition(
            "dirty",
            f"was not cleanly unmounted ({state})",
            repairable=True,
            way_out=_SHUT_DOWN,
        )
    return CLEAN


def parse_logprint(text: str) -> Condition:
    """The condition in the first lines of `xfs_logprint -t`."""
    if re.search(r"state:\s*<DIRTY>", text):
        return Condition(
            "dirty",
            "has an XFS log that waits to be replayed",
            repairable=True,
            way_out=_SHUT_DOWN,
        )
    if not re.search(r"state:\s*<CLEAN>", text):
        return unknown("xfs", "xfs_logprint does not say")
    return CLEAN


def judge_ntfs(code: int, info: str) -> Condition:
    """The condition from the exit code of `ntfs-3g.probe --readwrite` and the output of `ntfsinfo -m`."""
    if code == _NTFS_HIBERNATED:
        return Condition(
            "hibernated",
            "holds a Windows that is hibernated (or was shut down with fast start-up)",
            way_out="start Windows and shut it down with `shutdown /s /t 0`, or say litho.on-dirty=raw",
        )
    if code == _NTFS_UNCLEAN:
        return Condition(
            "dirty",
            "has an NTFS journal that was not closed",
            repairable=True,
            way_out="start Windows and shut it down cleanly, or say litho.on-dirty=repair or raw",
        )
    flags = re.search(r"Volume Flags:\s*0x([0-9A-Fa-f]{4})", info)
    if flags and int(flags[1], 16) & _NTFS_DIRTY_FLAG:
        return Condition(
            "dirty",
            "is marked for a check by Windows",
            repairable=True,
            way_out="let Windows check it (`chkdsk /f`), or say litho.on-dirty=repair or raw",
        )
    if code or not flags:
        return unknown("ntfs", f"ntfs-3g.probe ended with {code}" if code else "ntfsinfo does not say")
    return CLEAN


def decide(device: Path | str, found: Condition, on_dirty: OnDirty) -> Way:
    """What to do with a file system in that condition. Pure. Raises RefusedError that says why and the way out."""
    if found.state == "clean":
        return "as-is"
    if on_dirty == "raw":
        return "raw"
    if on_dirty == "repair" and found.repairable:
        return "repair"
    unrepairable = "; it cannot be repaired from here" if on_dirty == "repair" else ""
    raise RefusedError(f"{device} {found.reason}{unrepairable}", hint=found.way_out, code=f"source-{found.state}")


def repair(hold: Hold, device: Path, fs: str) -> Condition:
    """Let the file system's own program settle it, on the source, and look again. Raises EngineError, RefusedError.

    The hold must be a writable one.
    """
    commands: dict[str, tuple[Argv, tuple[int, ...]]] = {
        "ext2": (["e2fsck", "-f", "-p", device], (0, 1)),
        "ext3": (["e2fsck", "-f", "-p", device], (0, 1)),
        "ext4": (["e2fsck", "-f", "-p", device], (0, 1)),
        "ntfs": (["ntfsfix", "--clear-dirty", device], (0,)),
        # 1: it found something and corrected it.
        "vfat": (["fsck.fat", "-a", device], (0, 1)),
        "exfat": (["fsck.exfat", "-p", device], (0, 1)),
    }
    with hold.lend(device):
        if fs in ("xfs", "f2fs"):
            _replay(device, fs)
        elif fs in commands:
            argv, ok = commands[fs]
            process.run(argv, ok=ok, timeout_s=3600, doing=f"repairing {device}")
    found = inspect(device, fs)
    if found.state != "clean":
        raise RefusedError(
            f"{device} {found.reason}, and repairing it did not help", hint=found.way_out, code=f"source-{found.state}"
        )
    return found


def _replay(device: Path, fs: str) -> None:
    """Mounting and unmounting is how XFS replays its log, and F2FS rolls forward."""
    with mounted(device, fs, read_only=False):
        pass
