"""A packed root image, expanded into a tree beside it, whatever it is packed as.

What it is, is told by its content: cpio or tar inside gzip, xz, zstd or nothing, or squashfs. cpio and tar are read by this
package's own readers. squashfs is unpacked by `unsquashfs` into a directory that holds nothing else, after its listing has
been held against the limits; what came out is then looked over like everything else: devices go, set-uid bits go.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from litho import process
from litho.errors import LithoError
from litho_controller.bundle import cpio, packed, tarread
from litho_controller.bundle.faults import bad, telling
from litho_controller.bundle.limits import TREE, Limits
from litho_controller.bundle.tree import TreeWriter, refuse_climbing

SQUASHFS = b"hsqs"
UNPACK_S = 3600.0


class Expanded(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a root image."""

    kind: str
    """`cpio.gz`, `tar.xz`, `squashfs`, ...: also the ending that xCAT knows such a file by."""
    files: int
    devices: int
    """Left out."""
    stripped: int
    """Files that lost their set-uid or set-gid bit."""

    def notes(self) -> list[str]:
        """What a person should know about it."""
        told = []
        if self.stripped:
            told.append(
                f"{self.stripped} files of the expanded root image lost their set-uid or set-gid bit (--setuid keeps it)"
            )
        if self.devices:
            told.append(f"{self.devices} devices and pipes of the root image were left out of the expanded tree")
        return told


def kind_of(path: Path) -> str:
    """What a root image is, by its content: `cpio.gz`, `cpio.xz`, `tar.gz`, ..., `squashfs`. Raises RefusedError,
    IntegrityError.
    """
    head = packed.head_of(path)
    if head.startswith(SQUASHFS):
        return "squashfs"
    packing = packed.packing(head)
    ending = {"gzip": ".gz", "xz": ".xz", "zstd": ".zst", "none": ""}[packing]
    with packed.PlainReader(path, TREE) as source:
        start = b""
        while len(start) < tarread.BLOCK and (piece := source.read(tarread.BLOCK - len(start))):
            start += piece
    if start.startswith(cpio.MAGICS):
        return "cpio" + ending
    if start[257:262] == b"ustar" or (len(start) == 512 and _old_tar(start)):
        return "tar" + ending
    raise bad(
        f"{path.name} is no root image that can be expanded",
        hint="it is neither cpio nor tar (packed with gzip, xz or zstd), nor squashfs",
        code="bad-rootimg",
    )


def expand(
    path: Path,
    into: Path,
    *,
    set_uid: bool = False,
    limits: Limits = TREE,
    stop: Callable[[], None] = lambda: None,
) -> Expanded:
    """Expand the root image `path` into the new directory `into`. Raises RefusedError, IntegrityError, LithoError."""
    kind = kind_of(path)
    with telling(into):
        into.mkdir(mode=0o755)
    if kind == "squashfs":
        return _squashfs(path, into, limits, set_uid=set_uid)
    read = cpio.entries if kind.startswith("cpio") else tarread.entries
    with packed.PlainReader(path, limits) as source, TreeWriter(into, limits, set_uid=set_uid, stop=stop) as tree:
        for entry, body in read(source, limits):
            tree.add(entry, body)
        tree.finish()
        return Expanded(kind=kind, files=tree.files, devices=tree.devices, stripped=tree.stripped)


def _old_tar(block: bytes) -> bool:
    """A header without a magic word, from before POSIX: only the checksum tells."""
    digits = block[148:156].strip(b" \0")
    wanted = sum(block[:148] + b" " * 8 + block[156:])
    return bool(digits) and not digits.strip(b"01234567") and int(digits, 8) == wanted


def _squashfs(path: Path, into: Path, limits: Limits, *, set_uid: bool) -> Expanded:
    listing = process.run(["unsquashfs", "-lln", "-d", "", path], timeout_s=300.0, doing="reading the root image")
    with telling(path):
        count = _hold_listing(listing.out, limits, path.stat().st_size, _free(into))
    with telling(into):
        into.rmdir()
    done = process.run(
        ["unsquashfs", "-no-progress", "-no-xattrs", "-processors", "2", "-d", into, path],
        ok=(0, 2),
        timeout_s=UNPACK_S,
        doing="expanding the root image",
    )
    expanded, found = _look_over(into, set_uid=set_uid)
    if done.code and found < count:
        # Code 2 is also what it says when it could make no more files and went on.
        raise LithoError(
            f"only {found} of the {count} entries of the root image could be unpacked",
            hint="look whether the file system is full, then import the bundle again",
            code="bad-rootimg",
        )
    return expanded


def _hold_listing(text: str, limits: Limits, packed: int, free: int) -> int:
    """`-rw-r--r-- 0/0   1234 2026-01-01 00:00 /name`, one a line: count and add up, before a byte is written.

    Answers how many entries there are, the top among them. Sizes in bytes.
    """
    count = total = 0
    for line in text.splitlines():
        words = line.split(None, 5)
        if len(words) < 5 or len(words[0]) != 10:
            continue
        count += 1
        if words[0][0] == "-" and words[2].isdigit():
            total += int(words[2])
    if not count or count > limits.entries or total > limits.bytes:
        raise bad(f"the root image has {count} entries and {total} bytes, which is not taken", code="bundle-limit")
    if total > limits.ratio_from and total > limits.ratio * packed:
        raise bad(f"the root image unpacks to more than {limits.ratio} times its size", code="bundle-bomb")
    if total + limits.reserve > free:
        raise LithoError(
            f"the root image needs {total} bytes, and {free} are free", hint="free some space", code="no-space"
        )
    return count


def _free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _look_over(into: Path, *, set_uid: bool) -> tuple[Expanded, int]:
    """Take devices and set-uid bits off a tree that somebody else's program wrote, and hold its links to the rule for archives.

    Answers also how many entries it had, the top among them. Raises RefusedError for a link that climbs out.
    """
    files = devices = stripped = 0
    count = 1
    with telling(into):
        for folder, entry in _walk(into):
            count += 1
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                files += 1
                if found.st_mode & (stat.S_ISUID | stat.S_ISGID) and not set_uid:
                    stripped += 1
                    os.chmod(entry.path, stat.S_IMODE(found.st_mode) & 0o1777)  # noqa: PTH101 - a DirEntry, not a Path
            elif stat.S_ISLNK(found.st_mode):
                inside = folder.relative_to(into)
                name, link = os.fsencode(inside / entry.name), os.fsencode(os.readlink(entry.path))  # noqa: PTH115 - as above
                refuse_climbing(name, len(inside.parts), link)
            elif not stat.S_ISDIR(found.st_mode):
                devices += 1
                (folder / entry.name).unlink()
    return Expanded(kind="squashfs", files=files, devices=devices, stripped=stripped), count


def _walk(top: Path) -> Iterator[tuple[Path, os.DirEntry[str]]]:
    with os.scandir(top) as found:
        for entry in list(found):
            yield top, entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))
