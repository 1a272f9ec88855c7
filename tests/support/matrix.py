"""The matrix of what disks hold and what they are restored onto, as data: table kind x file systems x sector size x target.

A `Source` is a disk that the matrix makes (`matrix_disks`): its kind of table, its sector size, and the file systems on it, in
the order in which they lie on the disk. A `Case` is one restore of it. `cases(full=True)` is all of it and takes minutes; the
few of `cases(full=False)` stand for it in `make test`.
"""

from typing import Literal

import msgspec

MIB = 1024 * 1024

Kind = Literal["MBR", "hybrid MBR", "GPT", "GPT without its backup", "no table"]
Target = Literal[
    "same size", "larger, keep", "larger, grow", "smaller, fits", "smaller, does not fit", "other sector size"
]

Engine = Literal["chunk", "auto"]
"""In chunks, or one stream a partition by the program that knows its file system."""

KINDS: tuple[Kind, ...] = ("MBR", "hybrid MBR", "GPT", "GPT without its backup", "no table")
TARGETS: tuple[Target, ...] = (
    "same size",
    "larger, keep",
    "larger, grow",
    "smaller, fits",
    "smaller, does not fit",
    "other sector size",
)
REFUSED: dict[Target, str] = {"smaller, does not fit": "disk-too-small", "other sector size": "sector-size"}
"""Targets onto which nothing may be written, and the code of the refusal."""
GROWABLE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "ntfs", "swap")
EVERYTHING = ("fat32", "exfat", "ext2", "ext3", "ext4", "xfs", "btrfs", "ntfs", "f2fs", "swap", "raw", "empty")
"""Besides the file systems: `raw` is bytes that nobody knows, `empty` is zeros."""
SECTORS = (512, 4096)


class Source(msgspec.Struct, frozen=True):
    """A disk to be captured."""

    kind: Kind
    sector: int
    """Logical sector size in bytes."""
    holds: tuple[str, ...]
    """Variants of file systems (`support.filesystems.MAKE`), `raw`, `empty`; in their order on the disk."""
    last_logical: bool = False
    """MBR: the last one is a logical partition; otherwise the table has only primary ones."""

    @property
    def words(self) -> str:
        """For a person and for names of tests."""
        logical = " (logical)" if self.last_logical and len(self.holds) < 4 else ""
        held = "everything" if set(self.holds) >= set(EVERYTHING) else "+".join(self.holds)
        return f"{self.kind}{logical}, {self.sector}, {held}"


class Case(msgspec.Struct, frozen=True):
    """One restore."""

    source: Source
    target: Target
    engine: Engine = "chunk"

    @property
    def words(self) -> str:
        """For a person and for names of tests."""
        return f"{self.source.words}, {self.engine}, {self.target}"


def size_mib(variant: str, sector: int) -> int:
    """MiB of the partition that holds a variant: as small as its maker allows."""
    large = {"xfs": 310, "btrfs": 128, "f2fs": 128, "raw": 3, "empty": 2, "swap": 8}
    if variant == "fat32":
        return 40 if sector == 512 else 280
    return large.get(variant, 24)


def cases(*, full: bool) -> tuple[Case, ...]:
    """Every case, or the few that are quick."""
    return _full() if full else _quick()


def _full() -> tuple[Case, ...]:
    found: list[Case] = []
    for sector in SECTORS:
        for kind in KINDS[:-1]:
            # The last one on the disk decides what `grow` does: here one that cannot grow, below each that can.
            disk = Source(kind, sector, (*EVERYTHING[1:], "fat32"), last_logical=kind == "MBR")
            found += [Case(disk, target) for target in TARGETS]
            if kind in ("MBR", "GPT"):
                found += [Case(disk, target, "auto") for target in TARGETS if target not in REFUSED]
        for fs in GROWABLE:
            primary, logical = Source("MBR", sector, (fs,)), Source("MBR", sector, ("ext2", fs), last_logical=True)
            gpt = Source("GPT", sector, ("ext2", fs))
            found += [Case(disk, "larger, grow") for disk in (primary, logical, gpt)]
            found += [Case(gpt, "larger, grow", "auto")]
        for fs in EVERYTHING[:-1]:
            disk = Source("no table", sector, (fs,))
            found += [Case(disk, target) for target in TARGETS if target != "smaller, fits"]
            found += [Case(disk, "larger, keep", "auto")]
    return tuple(found)


def _quick() -> tuple[Case, ...]:
    mbr = Source(
        "MBR",
        512,
        ("ext3", "swap", "ext2", "raw", "empty", "ext3", "ext2", "ext4", "empty", "raw", "swap", "ext4"),
        True,
    )
    gpt = Source("GPT without its backup", 4096, ("ext4", "swap", "fat32"))
    ntfs = Source("no table", 512, ("ntfs",))
    return (
        Case(mbr, "same size", "auto"),
        Case(mbr, "larger, grow"),
        Case(mbr, "smaller, fits"),
        Case(mbr, "smaller, does not fit"),
        Case(mbr, "other sector size"),
        Case(gpt, "smaller, fits"),
        Case(gpt, "larger, grow"),
        Case(ntfs, "larger, keep", "auto"),
        Case(Source("no table", 512, ("f2fs",)), "same size", "auto"),
        Case(Source("hybrid MBR", 512, ("ext4",)), "larger, grow"),
    )
