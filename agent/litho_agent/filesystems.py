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
import subprocess
import time
from pathlib import Path

import msgspec

from litho import process
from litho.errors import DiskError
from litho.process import Argv
from litho_agent.disks.hold import Hold

SWAP = "swap"
_MAX_VALUE = 256
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
        # The same code is given for a device that cannot be opened.
        try:
            with device.open("rb") as file:
                file.read(512)
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


def prove(device: Path, fs: str, *, hold: Hold | None = None) -> bool:
    """Check the file system `fs` on `device`. True when it is clean, False when there is no program to ask for it.

    `hold` is what holds its disk, if anything does. Raises DiskError when the program found something.
    """
    check = checker(device, fs)
    if check is None or process.which(check.argv[0]) is None:
        return False
    with hold.lend(device) if check.claims and hold is not None else contextlib.nullcontext():
        done = process.run(check.argv, ok=range(256), timeout_s=3600, doing=f"checking {device}")
    if done.code not in check.ok:
        raise DiskError(
            f"the {fs} on {device} is not clean: {process.told(check.argv, done.code)} ({done.last_words})",
            hint="the image holds it like this; check the source and capture it again",
            code="not-clean",
        )
    return True
