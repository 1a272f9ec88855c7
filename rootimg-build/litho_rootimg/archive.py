"""cpio, tar and squashfs: the same tree gives the same bytes.

Everything that differs from build to build is pinned: order (sorted by bytes), inode numbers (counted), times (none
later than the *epoch*), owners (as in the tree), what a compressor writes into its head (no name, no time). `pigz`
cuts its input the same way for any number of threads but one, so it always gets two at least.

The newc format is that of the kernel's initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).
Linked names are stored as files of their own.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from litho import process

_TRAILER = "TRAILER!!!"


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every path below `root`, relative, parents first, sorted by bytes, with its lstat."""

    def below(folder: bytes, prefix: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda found: found.name):
                info = entry.stat(follow_symlinks=False)
                name = prefix + entry.name
                yield name, info
                if stat.S_ISDIR(info.st_mode):
                    yield from below(entry.path, name + b"/")

    for name, info in below(os.fsencode(root), b""):
        yield os.fsdecode(name), info


def clamp(root: Path, epoch: int) -> None:
    """No time in the tree is later than `epoch` (seconds); the tree's own included."""
    for name, info in [*walk(root), ("", root.lstat())]:
        if info.st_mtime > epoch:
            os.utime(root / name, (epoch, epoch), follow_symlinks=False)


def write_newc(root: Path, out: IO[bytes]) -> None:
    """The tree as one cpio archive in the `newc` format."""
    position = 0

    def put(data: bytes) -> None:
        nonlocal position
        out.write(data)
        position += len(data)

    def pad() -> None:
        put(b"\0" * (-position % 4))

    def head(name: str, inode: int, info: os.stat_result | None, size: int) -> None:
        encoded = os.fsencode(name) + b"\0"
        device = info is not None and (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode))
        fields = (
            inode,
            info.st_mode if info else 0,
            info.st_uid if info else 0,
            info.st_gid if info else 0,
            2 if info and stat.S_ISDIR(info.st_mode) else 1,
            int(info.st_mtime) if info else 0,
            size,
            0,
            0,
            os.major(info.st_rdev) if info and device else 0,
            os.minor(info.st_rdev) if info and device else 0,
            len(encoded),
            0,
        )
        put(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
        pad()

    for number, (name, info) in enumerate(walk(root), start=1):
        path = root / name
        if stat.S_ISLNK(info.st_mode):
            target = os.fsencode(path.readlink())
            head(name, number, info, len(target))
            put(target)
        elif stat.S_ISREG(info.st_mode):
            head(name, number, info, info.st_size)
            with path.open("rb") as file:
                while data := file.read(1 << 20):
                    put(data)
        else:
            head(name, number, info, 0)
        pad()
    head(_TRAILER, 0, None, 0)
    put(b"\0" * (-position % 512))


def _compressed(root: Path, out: Path, *compressor: str) -> None:
    with out.open("wb") as file:
        child = process.start([*compressor], stdin=-1, stdout=file)
        assert child.stdin is not None  # noqa: S101 - asked for above
        with io.BufferedWriter(child.stdin, 1 << 20) as pipe:
            write_newc(root, pipe)
        if code := child.wait():
            raise process.failure(process.Done(tuple(compressor), code, "", ""), doing=f"writing {out.name}")


def cpio_zst(root: Path, out: Path) -> None:
    """The tree as an initrd: small and quick to unpack. One thread, so that the bytes do not depend on the machine."""
    _compressed(root, out, "zstd", "-q", "-9", "-c")


def cpio_gz(root: Path, out: Path) -> None:
    """The tree as xCAT's `rootimg.gz`."""
    _compressed(root, out, "pigz", "-n", "-6", "-p", str(max(2, os.cpu_count() or 2)), "-c")


def squashfs(root: Path, out: Path, epoch: int) -> None:
    """The tree as a squashfs with zstd: mounted as it is, so only what is read is unpacked."""
    out.unlink(missing_ok=True)
    argv: list[str | Path] = ["mksquashfs", root, out, "-comp", "zstd", "-Xcompression-level", "9", "-b", "256K"]
    argv += ["-noappend", "-quiet", "-no-progress", "-no-xattrs"]
    process.run(argv, env={"SOURCE_DATE_EPOCH": str(epoch)}, timeout_s=900, doing=f"writing {out.name}")


def tar_gz(root: Path, out: Path, epoch: int) -> None:
    """A tree whose files belong to root, as a tar that busybox unpacks."""
    with out.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:  # noqa: SIM117
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, _ in walk(root):
                member = tar.gettarinfo(root / name, name)
                member.uid = member.gid = 0
                member.uname = member.gname = "root"
                member.mtime = min(int(member.mtime), epoch)
                if member.isreg():
                    with (root / name).open("rb") as file:
                        tar.addfile(member, file)
                else:
                    tar.addfile(member)
