"""cpio archives of the "newc" form, which initial RAM disks and xCAT's root images are made of: read strictly, written
reproducibly.

Each entry is a header of 110 ASCII characters (`070701`, then 13 numbers of 8 hex digits), the name with a zero byte,
padding to a multiple of 4, the data, padding again. `TRAILER!!!` ends the archive. Hard links share device and inode
number, and only the last of them carries the data (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

Reading gives the same entries as `tarread`, so that what writes the tree knows one kind; a hard link comes as a link to the
name that came first, and its data, when it comes late, as a file of the last name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from litho_controller.bundle.faults import bad, telling
from litho_controller.bundle.limits import Limits
from litho_controller.bundle.tarread import Body, Entry, Kind, Plain
from litho_controller.bundle.tarwrite import Packer

HEAD = 110
MAGICS = (b"070701", b"070702")
"""newc, and newc with a checksum, which is not looked at: the packing around the archive has a better one."""
TRAILER = b"TRAILER!!!"
MAX_PADDING = 4 * 1024 * 1024
_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "fifo",
}


def entries(source: Plain, limits: Limits) -> Iterator[tuple[Entry, Body]]:
    """Every entry with its data, to the very end. Raises RefusedError, IntegrityError.

    Of hard-linked files the first entry comes as it is, mostly empty; the later ones as `hardlink` with `link` set to the first
    name and the data that came with them, which belongs to all of them.
    """
    count = total = 0
    first: dict[tuple[int, int, int], bytes] = {}
    while True:
        header = source.read_exactly(HEAD)
        ino, mode, uid, gid, nlink, mtime, size, major, minor, _, _, namesize, _ = _numbers(header)
        if not 1 < namesize <= limits.name + 1:
            raise bad(f"the root image has a name of {namesize} bytes", code="bundle-limit")
        name = source.read_exactly(namesize)
        _skip(source, -(HEAD + namesize) % 4)
        if not name.endswith(b"\0") or b"\0" in name[:-1]:
            raise bad("the root image has an entry without a proper name", code="bad-cpio")
        name = name[:-1]
        if name == TRAILER:
            _padding(source)
            return
        kind = _KINDS.get(stat.S_IFMT(mode))
        if kind is None:
            raise bad("the root image has an entry of an unknown kind", code="bad-cpio")
        count += 1
        total += size
        if count > limits.entries or total > limits.bytes:
            raise bad("the root image is larger than any that is taken", code="bundle-limit")
        link = b""
        if kind == "symlink":
            if not 0 < size <= limits.name:
                raise bad(f"the root image has a link to a name of {size} bytes", code="bundle-limit")
            link, data = source.read_exactly(size), 0
        elif kind == "file":
            data = size
            if nlink > 1:
                link = first.setdefault((major, minor, ino), name)
                kind, link = ("file", b"") if link == name else ("hardlink", link)
        elif size:
            raise bad("the root image has data where none can be", code="bad-cpio")
        else:
            data = 0
        body = Body(source, data)
        yield (
            Entry(name=name, kind=kind, size=data, mode=mode & 0o7777, uid=uid, gid=gid, mtime=mtime, link=link),
            body,
        )
        while body.left:
            body.read()
        _skip(source, -size % 4)


def _numbers(header: bytes) -> list[int]:
    digits = header[6:]
    if header[:6] not in MAGICS or any(digit not in b"0123456789abcdefABCDEF" for digit in digits):
        raise bad("the root image has something that is no cpio entry", code="bad-cpio")
    return [int(digits[at : at + 8], 16) for at in range(0, 104, 8)]


def _skip(source: Plain, size: int) -> None:
    if size:
        source.read_exactly(size)


def _padding(source: Plain) -> None:
    left = MAX_PADDING
    while piece := source.read(64 * 1024):
        left -= len(piece)
        if left < 0 or any(piece):
            raise bad("the root image has something after its end", code="bad-cpio")


# ---------------------------------------------------------------- writing


def pack(tree: Path, out: Packer) -> None:
    """Write everything below `tree` as an archive, names in order, the tree's own owners, modes and times. Raises
    LithoError.

    Inode numbers are counted anew and hard links become files of their own, so that the same tree gives the same bytes
    wherever it lies. Sockets are left out.
    """
    with telling(tree):
        for number, path in enumerate(_below(tree), 1):
            found = path.lstat()
            name = os.fsencode("." if path == tree else path.relative_to(tree))
            if stat.S_ISSOCK(found.st_mode):
                continue
            if stat.S_ISREG(found.st_mode):
                with path.open("rb", buffering=0) as file:
                    out.write(_header(number, found, name, found.st_size))
                    _copy(file, out, found.st_size, path)
            else:
                link = os.fsencode(path.readlink()) if stat.S_ISLNK(found.st_mode) else b""
                out.write(_header(number, found, name, len(link)) + link + b"\0" * (-len(link) % 4))
    out.write(_header(0, None, TRAILER, 0))
    out.close()


def _below(top: Path) -> Iterator[Path]:
    yield top
    for path in sorted(top.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)
        else:
            yield path


def _header(number: int, found: os.stat_result | None, name: bytes, size: int) -> bytes:
    if size > 0xFFFFFFFF:
        raise bad(f"{os.fsdecode(name)} has {size} bytes, more than a cpio archive can hold", code="bad-cpio")
    fields = [number, 0, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name) + 1, 0]
    if found is not None:
        fields[1:4] = [found.st_mode, found.st_uid, found.st_gid]
        fields[5] = max(0, int(found.st_mtime)) & 0xFFFFFFFF
        if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            fields[9:11] = [os.major(found.st_rdev), os.minor(found.st_rdev)]
    head = MAGICS[0] + b"".join(b"%08x" % field for field in fields) + name + b"\0"
    return head + b"\0" * (-len(head) % 4)


def _copy(file: IO[bytes], out: Packer, size: int, path: Path) -> None:
    left = size
    while left:
        block = file.read(min(left, 1024 * 1024))
        if not block:
            raise bad(f"{path} became shorter while it was read", hint="export when nobody changes the image")
        left -= len(block)
        out.write(block)
    out.write(b"\0" * (-size % 4))
