"""The table of the full matrix as a page of the reference."""

import re

from litho import process
from support.matrix import KINDS, REFUSED, SECTORS, TARGETS, Case

PAGE = "docs/reference/matrix.md"
_TOOLS = (
    (("partclone.restore", "-v"), r"v([\w.+~-]+)", "partclone"),
    (("partimage", "--version"), r"([\d.]+)", "partimage"),
    (("sfdisk", "--version"), r"([\d.]+)", "util-linux (sfdisk, wipefs, mkswap)"),
    (("sgdisk", "--version"), r"version ([\d.]+)", "gdisk (sgdisk)"),
    (("e2fsck", "-V"), r"e2fsck ([\d.]+)", "e2fsprogs"),
    (("xfs_repair", "-V"), r"version ([\d.]+)", "xfsprogs"),
    (("btrfs", "--version"), r"v([\d.]+)", "btrfs-progs"),
    (("ntfsfix", "--version"), r"v([\d.]+)", "ntfs-3g"),
    (("mkfs.fat", "--help"), r"mkfs\.fat ([\d.]+)", "dosfstools"),
    (("fsck.exfat", "-V"), r"version : ([\d.]+)", "exfatprogs"),
    (("fsck.f2fs", "-V"), r"fsck\.f2fs ([\d.]+)", "f2fs-tools"),
    (("uname", "-r"), r"([\d.]+)", "Linux"),
)


_PAGE = """# What was captured and restored

Made by `make matrix`, which does all of it on loop devices; `make test` does a few of the rows every time.

{measured}

**proven**: the table is as it should be (numbers, places, types, identifiers, names, attributes, active flag; a GPT has its
backup at its own disk's end), boot code and the gap before the first partition are the same, every used byte is the same on a
target that was full of other bytes, swap has its UUID and label, and every file system's checker is content: `e2fsck -fn`,
`xfs_repair -n`, `btrfs check --readonly`, `fsck.fat -n`, `fsck.exfat -n`, `ntfsfix -n`, `fsck.f2fs --dry-run`.
**grow**: the last partition reaches the disk's end, its file system fills it, and every file in it is the same; what cannot be
grown stays as it was. **refused, untouched**: the refusal came before the first write, and a hash of all of the target is the
same before and after. Sizes are the limits themselves: the smallest disk that fits, and one sector less.

*all twelve*: fat32 (as EFI system partition), exfat, ext2, ext3, ext4, xfs, btrfs, ntfs, f2fs, swap, raw (bytes that nobody
knows, as PReP's partition), empty (zeros; on a GPT as BIOS boot partition). On an MBR nine of them are logical partitions.
Numbers are not in the disk's order. exfat has no files in it: there was nothing to copy any in with.

| table | bytes a sector | on it | stored as | target | shown |
|---|---|---|---|---|---|
{rows}
"""


class Rows:
    """The cases that were proven, and their time."""

    def __init__(self) -> None:
        self.proven: dict[Case, float] = {}

    def add(self, case: Case, seconds: float) -> None:
        self.proven[case] = seconds


def told(case: Case) -> str:
    """What was shown of a case, in a cell of the table."""
    return "refused, untouched" if case.target in REFUSED else "proven"


def row(case: Case) -> str:
    """The line of the page that stands for a case; a test looks for it."""
    source = case.source
    logical = ", last one logical" if source.last_logical and len(source.holds) < 4 else ""
    holds = "all twelve" if len(source.holds) == 12 else ", ".join(source.holds)
    engine = "chunks" if case.engine == "chunk" else "streams"
    return f"| {source.kind}{logical} | {source.sector} | {holds} | {engine} | {case.target} | {told(case)} |"


def versions() -> list[str]:
    """One line a tool."""
    found = []
    for argv, pattern, name in _TOOLS:
        done = process.run(argv, ok=range(256), timeout_s=20)
        match = re.search(pattern, done.out + done.err)
        found.append(f"{name} {match[1] if match else 'unknown'}")
    return found


def markdown(rows: Rows) -> str:
    """The page of the reference."""
    order = {word: place for place, word in enumerate((*KINDS, *TARGETS))}
    cases = sorted(
        rows.proven,
        key=lambda c: (
            order[c.source.kind],
            SECTORS.index(c.source.sector),
            -len(c.source.holds),
            c.source.holds,
            c.engine,
            order[c.target],
        ),
    )
    measured = f"Measured with {', '.join(versions())}: {len(cases)} cases in {sum(rows.proven.values()):.0f} s."
    return _PAGE.format(measured=measured, rows="\n".join(row(case) for case in cases))
