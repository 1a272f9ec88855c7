"""What lies on a partition: how it is recognised, checked, and (swap) made anew.

Recognition is blkid's low-level probe (`blkid -p`), which reads the device and no cache. It says a type as the kernel names
it, and for a whole disk also the kind of its partition table. Two signatures that contradict each other (the remains of an old
file system beside a new one) make blkid refuse; that is an error here too, because a guess would decide how data is copied.

Commands are returned as argument lists with the exit codes that count as good, so that whoever runs them can also show them.
`condition` says whether a file system may be copied as it is; `osfacts` reads what operating system it holds.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from litho import process
from litho.errors import CancelledError, DiskError, EngineError
from litho.process import Argv
from litho_agent.disks.hold import Hold

SWAP = "swap"
_MAX_VALUE = 256
_PROBED = 128 * 1024
"""Bytes from the start in which the signatures of file systems and volumes lie."""
_BLKID_NOTHING = 2
_BLKID_AMBIVALENT = 8
_KEYS = re.compile(r"[A-Z][A-Z0-9_]{0,31}", re.ASCII)


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What blkid says of a device. Every field is empty when it knows nothing."""

    type: str = ""
    """`ext4`, `vfat`, `ntfs`, `swap`, `LVM2_member`, `crypto_LUKS`, `BitLocker`, ..."""
    uuid: str = ""
    label: str = ""
    version: str = ""
    usage: str = ""
    """`filesystem`, `raid`, `crypto` or `other` (swap)."""
    table: str = ""
    """Kind of the partition table that the device carries: `dos`, `gpt`, ..."""
    table_uuid: str = ""
    block_size: int = 0

    @property
    def empty(self) -> bool:
        """True when nothing known lies there."""
        return not (self.type or self.table)


def probe(device: Path) -> Probe:
    """What lies on `device`, read from the device itself. Raises DiskError, EngineError."""
    done = process.run(
        ["blkid", "-p", "-o", "export", device],
        ok=(0, _BLKID_NOTHING, _BLKID_AMBIVALENT),
        timeout_s=60,
        doing=f"looking at {device}",
    )
    if done.code == _BLKID_AMBIVALENT:
        raise DiskError(
            f"{device} carries the signatures of several file systems ({done.last_words})",
            hint=f"look with `wipefs {device}` and remove the one that is stale",
            code="ambivalent",
        )
    if done.code == _BLKID_NOTHING:
        # The same code is given for a device that cannot be opened, and when a sector that it looks at cannot be read.
        try:
            with device.open("rb", buffering=0) as file:
                # A read ends before a sector that cannot be read; only the next one says so.
                while file.tell() < _PROBED and file.read(_PROBED):
                    pass
        except OSError as exc:
            raise DiskError(f"{device} cannot be read: {exc.strerror}", code="unreadable") from exc
        return Probe()
    return parse_blkid(done.out)


def probe_all(device: Path) -> tuple[Probe, ...]:
    """Every signature on `device`, also when they contradict each other. Raises DiskError, EngineError.

    A target may well carry the remains of several lives; each must be known before it is written to.
    """
    try:
        one = probe(device)
    except DiskError as exc:
        if exc.code != "ambivalent":
            raise
        done = process.run(["wipefs", "--json", "--no-act", device], timeout_s=60, doing=f"looking at {device}")
        return parse_wipefs(done.out)
    return () if one.empty else (one,)


_TABLES = frozenset({"dos", "gpt", "PMBR", "mac", "sun", "sgi", "bsd", "atari"})


class _Wiped(msgspec.Struct, frozen=True):
    type: str = ""
    uuid: str | None = None
    label: str | None = None


class _Wipefs(msgspec.Struct, frozen=True):
    signatures: list[_Wiped] = []


def parse_wipefs(text: str) -> tuple[Probe, ...]:
    """The signatures in the output of `wipefs --json`, each type once. Raises DiskError."""
    try:
        found = msgspec.json.decode(text or "{}", type=_Wipefs)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise DiskError(f"wipefs said something that is not understood ({exc})", code="bad-output") from exc
    probes: dict[str, Probe] = {}
    for one in found.signatures:
        kind, uuid = one.type[:_MAX_VALUE], (one.uuid or "")[:_MAX_VALUE]
        if kind in _TABLES:
            probes.setdefault(kind, Probe(table=kind, table_uuid=uuid))
        elif kind:
            probes.setdefault(kind, Probe(type=kind, uuid=uuid, label=_unescape(one.label or "")[:_MAX_VALUE]))
    return tuple(probes.values())


def parse_blkid(text: str) -> Probe:
    """The probe in the output of `blkid -o export`. Unknown keys and lines that are none are left out, values are cut to 256."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and _KEYS.fullmatch(key) and key not in found:
            found[key] = _unescape(value)[:_MAX_VALUE]
    size = found.get("BLOCK_SIZE", "")
    return Probe(
        type=found.get("TYPE", ""),
        uuid=found.get("UUID", ""),
        label=found.get("LABEL", ""),
        version=found.get("VERSION", ""),
        usage=found.get("USAGE", ""),
        table=found.get("PTTYPE", ""),
        table_uuid=found.get("PTUUID", ""),
        block_size=int(size) if re.fullmatch(r"[0-9]{1,8}", size, re.ASCII) else 0,
    )


def _unescape(value: str) -> str:
    """blkid's export format puts a backslash before blanks and quotes; control characters become a dot here."""
    plain = re.sub(r"\\(.)", r"\1", value)
    return "".join(c if c.isprintable() else "." for c in plain)


def first_words(argv: Argv, *, limit: int, timeout_s: float = 30.0) -> bytes:
    """The first `limit` bytes that a program says, and no more: the program is ended then. Empty when it says nothing.

    For programs that print what a disk from outside holds, which may be gigabytes. Raises MissingProgramError.
    """
    child = process.start(argv, stdout=subprocess.PIPE)
    found = b""
    try:
        assert child.stdout is not None  # noqa: S101 - asked for above
        deadline = time.monotonic() + timeout_s
        while len(found) < limit:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([child.stdout], [], [], left)[0]:
                break
            piece = os.read(child.stdout.fileno(), limit - len(found))
            if not piece:
                break
            found += piece
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    return found


# ---------------------------------------------------------------- swap


def make_swap(device: Path, *, uuid: str = "", label: str = "") -> Argv:
    """The command that makes swap on `device` with the UUID and label that it had. Raises DiskError for ones that are none.

    Trap: mkswap opens the device exclusively; run it within `Hold.lend(device)`.
    """
    if uuid and not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", uuid, re.ASCII):
        raise DiskError(f"{uuid!r} is not the UUID of a swap area", code="bad-uuid")
    if label.startswith("-") or len(label.encode()) > 16 or not label.isprintable():
        # mkswap cuts a longer one silently; 16 bytes is what the header holds.
        raise DiskError(f"{label!r} is not the label of a swap area", code="bad-label")
    words: list[str | Path] = ["mkswap", "--force"]
    words += ["--uuid", uuid] if uuid else []
    words += ["--label", label] if label else []
    return [*words, device]


# ---------------------------------------------------------------- proofs


class Check(msgspec.Struct, frozen=True):
    """A command that only looks at a file system, and the exit codes that mean clean."""

    argv: tuple[str, ...]
    ok: tuple[int, ...] = (0,)
    claims: bool = False
    """It insists on opening the device exclusively; on a held disk it has to be lent."""


def checker(device: Path, fs: str) -> Check | None:
    """The command that proves that a restored file system is sound without writing to it; None when there is none to ask."""
    node = str(device)
    checks = {
        "ext2": ("e2fsck", "-f", "-n", node),
        "ext3": ("e2fsck", "-f", "-n", node),
        "ext4": ("e2fsck", "-f", "-n", node),
        "xfs": ("xfs_repair", "-n", node),
        # --force: no exclusive open, which the hold on the disk would forbid; it still only reads.
        "btrfs": ("btrfs", "check", "--readonly", "--force", node),
        "vfat": ("fsck.fat", "-n", node),
        "exfat": ("fsck.exfat", "-n", node),
        "ntfs": ("ntfsfix", "--no-action", node),
        "f2fs": ("fsck.f2fs", "--dry-run", node),
        "swap": ("swaplabel", node),
    }
    argv = checks.get(fs)
    return Check(argv, claims=fs == "f2fs") if argv else None


def prove(device: Path, fs: str, *, hold: Hold | None = None, cancelled: Callable[[], bool] = lambda: False) -> bool:
    """Check the file system `fs` on `device`. True when it is clean, False when there is no program to ask for it.

    `hold` is what holds its disk, if anything does. `cancelled` is asked all the while: a large file system takes long.
    Raises DiskError when the program found something, EngineError (`no-check`) when it had too little memory to say,
    CancelledError.
    """
    check = checker(device, fs)
    if check is None or process.which(check.argv[0]) is None:
        return False
    with hold.lend(device) if check.claims and hold is not None else contextlib.nullcontext():
        code, words = _asked(check.argv, cancelled)
    if starved(code, words):
        raise EngineError(
            f"the {fs} on {device} could not be checked: {process.told(check.argv, code)} for want of memory",
            code="no-check",
        )
    found = complaint(check, code, words)
    if found:
        raise DiskError(
            f"the {fs} on {device} is not sound: {Path(check.argv[0]).name} says: {found}",
            hint="if its source is not sound either, repair it there and capture it again, or say litho.on-dirty=raw; else "
            "check this disk",
            code="not-clean",
        )
    return True


_NOISE = re.compile(
    r"e2fsck \d.*|Warning!  .* is in use\.|Pass \d.*|.*: \d+/\d+ files \(.*"
    r"|.*\*{5} WARNING: Filesystem still has errors.*|Fix\? no|Clear\? no"
    r"|fsck\.fat \d.*|Leaving filesystem unchanged\.|.*: \d+ files, \d+/\d+ clusters"
    r"|Phase \d.*|- .*|No modify flag set.*"
    r"|Opening filesystem to check\.\.\.|Checking filesystem on .*|UUID: .*|\[\d/\d\] .*"
    r"|Info: .*|\"?Linux version.*|(?:from|to) \"Linux version.*|\[FSCK\] .*\[Ok\.\.\].*|\[FSCK\] Max image size.*"
    r"|exfatprogs version.*|Mounting volume\.\.\..*|Attempting to correct errors\.\.\..*|Processing of \$MFT.*"
)
"""What the checkers say in any case: their names, phases and sums. What is left over is what they complain of."""
_FAT_SUMMARY = re.compile(r"Free cluster summary wrong.*|Auto-correcting\.")
_WORDS_KEPT = 64 * 1024


def starved(code: int, words: str) -> bool:
    """True when a checker ended for want of memory, which is no word about the file system. Pure."""
    # SIGKILL is the kernel's way; the others are e2fsck's and the C library's.
    return code == -signal.SIGKILL or (
        code != 0 and bool(re.search(r"(?i)memory allocation failed|out of memory|cannot allocate memory", words))
    )


def complaint(check: Check, code: int, words: str) -> str:
    """What the program that was asked complains of, in its own words; empty when the file system is clean. Pure.

    A FAT's count of free clusters is only a hint to itself (Microsoft's FAT specification, FSInfo), and systems that were
    switched off leave a wrong one behind: that alone is no damage.
    """
    lines = [line.strip() for line in re.split(r"[\r\n]+", words)]
    told = [line for line in lines if line and not _NOISE.fullmatch(line)]
    if check.argv[0] == "fsck.fat":
        told = [line for line in told if not _FAT_SUMMARY.fullmatch(line)]
        if code == 1 and not told:
            return ""
    if code in check.ok:
        return ""
    return "".join(c if c.isprintable() else "." for c in told[0][:200]) if told else process.told(check.argv, code)


def _asked(argv: tuple[str, ...], cancelled: Callable[[], bool]) -> tuple[int, str]:
    """Exit code and the first words of a program that may take long and say much. Raises EngineError, CancelledError."""
    child = process.start(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    kept = b""
    try:
        assert child.stdout is not None  # noqa: S101 - asked for above
        while True:
            if cancelled():
                raise CancelledError("the task was cancelled on request")
            if not select.select([child.stdout], [], [], 0.2)[0]:
                continue
            piece = os.read(child.stdout.fileno(), 64 * 1024)
            if not piece:
                return child.wait(), kept.decode(errors="replace")
            # A damaged file system can make it say gigabytes; the first complaint is the one that counts.
            kept += piece[: _WORDS_KEPT - len(kept)]
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
