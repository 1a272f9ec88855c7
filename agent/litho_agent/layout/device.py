"""Partition tables on real disks: reading one, and making one so that a disk that is half printed does not pretend to boot.

A restore calls, with the disk held (`litho_agent.disks.hold`):

1. `write_table(hold, table)`: old signatures and both ends of the disk are wiped (an old GPT keeps a backup at the
very end, which outlives a new MBR), the table is written *without* boot code, active flag and EFI type, the kernel
reads it, the partition nodes are waited for, and stale signatures on the new partitions are wiped. 2. ... the
partitions are filled and verified ... 3. `write_head(hold, head, table)`: the final table, then the gap before the
first partition (GRUB's core image), then the boot code, last of all.

Trap: sfdisk and wipefs want the disk for themselves, so they are forced (the hold is the real guard). How the kernel
learns of a table is told in `kernel`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from litho import process
from litho.errors import DiskError, LithoError
from litho_agent.disks.hold import Hold
from litho_agent.filesystems import probe_all
from litho_agent.layout import sectors
from litho_agent.layout.kernel import forget, reread
from litho_agent.layout.table import Table, parse_dump, partition_path

log = logging.getLogger("litho_agent.layout")

HEAD_CAP = 1024 * 1024
"""Bytes of gap that are kept at most, besides what the table itself takes."""
_ENDS = 1024 * 1024
"""Bytes wiped at either end of the target: both GPT copies at any sector size, md, LVM and ZFS labels."""

_SFDISK = (
    "sfdisk",
    "--force",
    "--no-reread",
    "--no-tell-kernel",
    "--wipe=never",
    "--wipe-partitions=never",
    "--quiet",
)
"""Without --lock: it would wait for our own lock for ever."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What a disk's first sectors and table hold."""

    table: Table
    dump: str = ""
    """What `sfdisk --dump` said, for the library; empty without a table."""
    head: bytes = b""
    """The sectors from 0 up to the first partition (at most `HEAD_CAP` more than the table takes); empty without a table."""
    size: int = 0
    """Bytes of the disk."""
    hybrid: bool = False
    """The GPT has an MBR in front that names partitions, too."""
    notes: tuple[str, ...] = ()


def read_layout(disk: Path) -> Layout:
    """The table and head of `disk`. Raises DiskError for a damaged table or one of an unknown kind, EngineError."""
    with _opened(disk) as fd:
        size, sector_size = disk_size(fd)
        kind = _kind(disk, fd, size, sector_size)
        if kind == "none":
            return Layout(table=Table(label="none", sector_size=sector_size), size=size)
        done = process.run(["sfdisk", "--dump", disk], ok=range(256), timeout_s=60)
        if done.code != 0:
            raise DiskError(f"the partition table of {disk} cannot be read ({done.last_words})", code="bad-table")
        table = parse_dump(done.out)
        if table.label != kind or table.sector_size != sector_size:
            raise DiskError(
                f"the partition table of {disk} is not told in one voice: its sectors look like {kind} with {sector_size} "
                f"bytes a sector, and sfdisk reads {table.label} with {table.sector_size}",
                hint="look at it with `sfdisk --dump` and `wipefs`, and repair it first",
                code="bad-table",
            )
        head = _read(fd, 0, head_size(table, size))
        notes: list[str] = []
        hybrid = table.label == "gpt" and sectors.is_hybrid(head[:512])
        if hybrid:
            notes.append("the disk has a hybrid MBR; its entries are kept")
        if table.label == "gpt":
            state = sectors.gpt_state(_reader(fd), size=size, sector_size=sector_size)
            notes += state.notes(size // sector_size - 1)
        return Layout(table=table, dump=done.out, head=head, size=size, hybrid=hybrid, notes=tuple(notes))


def head_size(table: Table, disk_size: int) -> int:
    """Bytes from 0 to the first partition, at most `HEAD_CAP` more than the table takes; 0 without a table."""
    if table.label == "none":
        return 0
    first = min((part.start for part in table.partitions), default=disk_size // table.sector_size)
    return min(first * table.sector_size, table.reserved * table.sector_size + HEAD_CAP, disk_size)


def write_table(hold: Hold, table: Table) -> None:
    """Wipe the disk's old table and signatures and lay out `table`, not bootable yet. See the module's text.

    When it returns, every partition's node is there and empty of old signatures. Raises DiskError, EngineError.
    """
    size, sector_size = disk_size(hold.fd)
    if sector_size != table.sector_size:
        raise DiskError(
            f"{hold.path} has {sector_size} bytes a sector and the table counts in {table.sector_size}",
            code="sector-size",
        )
    forget(hold)
    wipe(hold.path)
    _zero(hold.fd, 0, min(_ENDS, size))
    _zero(hold.fd, max(0, size - _ENDS), min(_ENDS, size))
    _sync(hold)
    if table.label == "none":
        reread(hold, table)
        return
    _apply(hold, table.unbootable())
    reread(hold, table)
    for part in table.partitions:
        # An extended partition is the chain of logical entries itself.
        if not table.is_extended(part):
            wipe(partition_path(hold.path, part.number))


def write_head(hold: Hold, head: bytes, table: Table) -> None:
    """Make the disk what it is to be: the final table, the gap before the first partition, and the boot code last.

    `head` begins at sector 0 of the source; of it the boot code (440 bytes), a hybrid MBR's entries and the gap are taken,
    never the table. Raises DiskError when it does not fit in front of the first partition, or is not on the disk afterwards.
    """
    if table.label == "none":
        return
    size, _ = disk_size(hold.fd)
    if len(head) > head_size(table, size):
        raise DiskError(
            f"the {len(head)} bytes before the first partition do not fit in front of it on {hold.path}",
            code="bad-head",
        )
    _forget_pages(hold, table)
    _apply(hold, table)
    gap = table.reserved * table.sector_size
    if len(head) > gap:
        _write(hold, gap, head[gap:])
    hybrid = table.label == "gpt" and sectors.is_hybrid(head[:512])
    _sync(hold)
    sector = bytearray(_read(hold.fd, 0, table.sector_size))
    if hybrid:
        sizes = {part.start: part.size for part in table.partitions}
        sector[sectors.ENTRIES : 510] = sectors.hybrid_entries(
            head[sectors.ENTRIES : 510], sizes, size // table.sector_size
        )
    code = head[: sectors.BOOT_CODE]
    sector[: len(code)] = code
    _write(hold, 0, bytes(sector))
    _sync(hold)
    _prove(hold, table, head, gap)


def _forget_pages(hold: Hold, table: Table) -> None:
    """Let the kernel forget what it remembers of the whole disk, after what was written to its partitions has reached it.

    Trap: a disk and its partitions have page caches of their own, and pages of 4 KiB. A partition that starts in the middle of
    one (sector 63, or one sector behind its EBR) shares it with what lies in front. Written through the disk, such a page
    would put back what the partition's first sectors held before they were filled (measured on Linux 6.18: what was restored
    to sector 63 lost its first sector).
    """
    for part in table.partitions:
        if not table.is_extended(part):
            path = partition_path(hold.path, part.number)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError as exc:
                raise DiskError(f"{path} does not keep what is written: {exc.strerror}", code="write-error") from exc
    _sync(hold)
    blkflsbuf = 0x1261
    try:
        fcntl.ioctl(hold.fd, blkflsbuf)
    except OSError as exc:
        raise DiskError(f"{hold.path} cannot be flushed: {exc.strerror}", code="write-error") from exc


def _prove(hold: Hold, table: Table, head: bytes, gap: int) -> None:
    """What was just written is read back from the device and must be the same."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(hold.fd, 0, max(len(head), gap), os.POSIX_FADV_DONTNEED)
    found = _read(hold.fd, 0, max(len(head), gap))
    code = min(len(head), sectors.BOOT_CODE)
    if found[:code] != head[:code] or found[gap : len(head)] != head[gap:]:
        raise DiskError(f"the boot code on {hold.path} is not what was written", code="write-lost")
    if not table.same(read_layout(hold.path).table):
        raise DiskError(f"the partition table on {hold.path} is not what was written", code="write-lost")


def rehearse(hold: Hold, table: Table) -> None:
    """Let sfdisk try `table` on the disk without writing a byte: what it would not take is refused with the disk untouched.

    Raises DiskError (`bad-table`), EngineError.
    """
    if table.label == "none":
        return
    logical = [part.number for part in table.partitions if table.is_logical(part)]
    if logical != list(range(5, 5 + len(logical))):
        raise DiskError("the image's logical partitions are not numbered one after the other", code="bad-table")
    for one in (table.unbootable(), table):
        done = process.run([*_SFDISK, "--no-act", hold.path], stdin=one.script().encode(), ok=range(256), timeout_s=60)
        if done.code != 0:
            raise DiskError(
                f"the image's partition table cannot be made on {hold.path} ({done.last_words})",
                hint="nothing was written; check the image with `litho image verify`, or choose another disk",
                code="bad-table",
            )


def _apply(hold: Hold, table: Table) -> None:
    process.run(
        [*_SFDISK, hold.path],
        stdin=table.script().encode(),
        timeout_s=60,
        doing=f"writing the partition table of {hold.path}",
    )
    _sync(hold)
    found = read_layout(hold.path).table
    if not table.same(found):
        log.error("wanted:\n%sfound:\n%s", table.script(), found.script())
        raise DiskError(
            f"sfdisk did not write the partition table of {hold.path} as it was asked to",
            hint="the log has both tables",
            code="table-differs",
        )


def wipe(device: Path) -> None:
    """Remove every signature that blkid knows from `device`. Raises EngineError."""
    # --force: no exclusive open, which our own claim of the disk would forbid.
    process.run(
        ["wipefs", "--all", "--force", "--quiet", device], timeout_s=60, doing=f"wiping old signatures from {device}"
    )


def _kind(disk: Path, fd: int, size: int, sector_size: int) -> str:
    """Which kind of table the disk has. blkid tells an MBR from the boot sector of a file system; the GPT is looked at here."""
    first = _read(fd, 0, 512)
    state = sectors.gpt_state(_reader(fd), size=size, sector_size=sector_size)
    if sectors.is_protective(first):
        if state.primary is None and state.backup is None:
            raise DiskError(
                f"the GPT of {disk} is damaged, and so is its backup",
                hint="try to repair it with `gdisk`; or capture the disk with engine raw",
                code="bad-table",
            )
        return "gpt"
    try:
        found = probe_all(disk)
    except LithoError as exc:
        raise DiskError(f"what lies on {disk} cannot be told: {exc.message}", code="unreadable") from exc
    tables = {one.table for one in found if one.table}
    # Trap: blkid 2.38 takes the boot sector of an exFAT on the whole disk for an MBR without partitions. And whatever has put a
    # file system behind an MBR that names no partition: as a table nothing of it would be saved.
    if sectors.is_exfat(first) or (
        "dos" in tables and not sectors.mbr_entries(first) and any(one.type for one in found)
    ):
        tables.discard("dos")
        first = b""
    if "dos" in tables or (sectors.is_dos(first) and not found):
        return "dos"
    other = sorted(tables - {"gpt", "PMBR"})
    if other:
        raise DiskError(
            f"{disk} has a partition table of the kind {other[0]!r}, which is not supported",
            hint="MBR (dos), GPT and disks without a table are; capture it with engine raw",
            code="table-kind",
        )
    if "gpt" in tables:
        raise DiskError(
            f"{disk} has a GPT without its protective MBR",
            hint="repair it with `gdisk` (it writes a new protective MBR), or wipe what is stale with `wipefs`",
            code="bad-table",
        )
    return "none"


# ---------------------------------------------------------------- bytes


def disk_size(fd: int) -> tuple[int, int]:
    """(size, logical sector size) in bytes of the disk that is open as `fd`. Raises DiskError."""
    blkgetsize64, blksszget = 0x80081272, 0x1268
    try:
        size = int.from_bytes(fcntl.ioctl(fd, blkgetsize64, bytes(8)), "little")
        sector = int.from_bytes(fcntl.ioctl(fd, blksszget, bytes(4)), "little")
    except OSError as exc:
        raise DiskError(f"the size of the disk cannot be told: {exc.strerror}", code="not-a-disk") from exc
    return size, sector


@contextlib.contextmanager
def _opened(disk: Path) -> Iterator[int]:
    try:
        fd = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise DiskError(f"{disk} cannot be opened: {exc.strerror}", code="disk-missing") from exc
    try:
        yield fd
    except OSError as exc:
        raise DiskError(f"{disk} cannot be read: {exc.strerror}", code="read-error") from exc
    finally:
        os.close(fd)


def _reader(fd: int) -> sectors.ReadAt:
    return lambda offset, length: _read(fd, offset, length)


def _read(fd: int, offset: int, length: int) -> bytes:
    pieces = []
    while length > 0:
        piece = os.pread(fd, length, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)


def _write(hold: Hold, offset: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            count = os.pwrite(hold.fd, view, offset)
            offset += count
            view = view[count:]
    except OSError as exc:
        raise DiskError(f"{hold.path} cannot be written: {exc.strerror}", code="write-error") from exc


def _zero(fd: int, offset: int, length: int) -> None:
    try:
        while length > 0:
            count = os.pwrite(fd, bytes(min(length, _ENDS)), offset)
            offset += count
            length -= count
    except OSError as exc:
        raise DiskError(f"the disk cannot be written: {exc.strerror}", code="write-error") from exc


def _sync(hold: Hold) -> None:
    try:
        os.fsync(hold.fd)
    except OSError as exc:
        raise DiskError(f"{hold.path} does not keep what is written: {exc.strerror}", code="write-error") from exc
