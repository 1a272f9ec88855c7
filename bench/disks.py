"""The disks that the chunk engine is measured on: mixed real data, aged, and the same a while later.

Version 1 holds files from /usr, a second copy of a part of them with 3 % of the files changed by 64 bytes, random bytes, a
text log and a file like a database; before it is measured, a tenth of its files is deleted and written anew, so that free
space lies in pieces. Version 2 is version 1 after 5 % of the files were replaced by ones with shifted content, pages of the
database written, the log grown, some files new and some gone.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

from litho import process

MB = 1024 * 1024
_MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "ext3": ("mkfs.ext3", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "ntfs": ("mkntfs", "-q", "-F", "-Q"),
}
KNOWN = tuple(_MKFS)
"""File systems that a disk can have here."""
_FOLDERS = ("/usr/lib", "/usr/bin", "/usr/share", "/usr/include", "/usr/sbin")


@contextlib.contextmanager
def loop(image: Path, *, size: int = 0, sparse: bool = False, direct: bool = True) -> Iterator[Path]:
    """`image` as a loop device that goes past the page cache; made anew with `size` bytes if given, all allocated or none."""
    if size:
        with image.open("wb") as file:
            if sparse:
                file.truncate(size)
            else:
                os.posix_fallocate(file.fileno(), 0, size)
    words = ("--direct-io=on",) if direct else ()
    device = Path(process.run(("losetup", "--find", "--show", *words, image)).out.strip())
    try:
        yield device
    finally:
        process.run(("losetup", "-d", device))


@contextlib.contextmanager
def mounted(device: Path, fs: str, at: Path) -> Iterator[Path]:
    """The file system on `device`, mounted."""
    at.mkdir(exist_ok=True)
    process.run(("ntfs-3g", "-o", "big_writes", device, at) if fs == "ntfs" else ("mount", device, at))
    try:
        yield at
    finally:
        process.run(("umount", at), timeout_s=900)


def format_as(device: Path, fs: str) -> None:
    """An empty file system."""
    process.run((*_MKFS[fs], device), timeout_s=600)


def make(device: Path, fs: str, at: Path, *, size: int) -> None:
    """Version 1 on `device` of `size` bytes, about 60 % full."""
    format_as(device, fs)
    rng = random.Random(1)  # noqa: S311 - the same disk each time
    with mounted(device, fs, at) as tree:
        _fill(tree, size, rng)
        _age(tree, rng)


def _fill(tree: Path, size: int, rng: random.Random) -> None:
    budget = int(size * 0.60)
    for name, share in (("random.bin", 0.10), ("base.db", 0.08)):
        with (tree / name).open("wb") as file:
            for _ in range(int(budget * share) // MB):
                file.write(rng.randbytes(MB) if name == "random.bin" else _pages(rng, MB))
    with (tree / "log.txt").open("w") as log:
        log.writelines(_log_lines(rng, int(budget * 0.03) // 90))
    copied = _copy(tree / "a", int(budget * 0.60), rng, 0.0)
    _copy(tree / "b", int(budget * 0.79) - copied, rng, 0.03)


def _pages(rng: random.Random, size: int) -> bytes:
    """Something like the pages of a database: records of which half the bytes repeat."""
    page = bytearray()
    while len(page) < size:
        page += b"%08d|row|%s|" % (rng.randrange(10**8), rng.randbytes(24).hex().encode()) + bytes(40)
    return bytes(page[:size])


def _log_lines(rng: random.Random, count: int) -> Iterator[str]:
    words = ("started", "stopped", "reloaded", "failed", "connected", "closed")
    for n in range(count):
        yield (
            f"Nov {n % 28 + 1:2} 12:{n % 60:02}:{rng.randrange(60):02} node{rng.randrange(400)} svc[{rng.randrange(30000)}]: "
            f"session {rng.getrandbits(32):08x} {rng.choice(words)}\n"
        )


def _copy(to: Path, wanted: int, rng: random.Random, changed: float) -> int:
    """Files from /usr until `wanted` bytes are there; a share `changed` of them gets 64 other bytes."""
    copied = 0
    for folder in _FOLDERS:
        for base, folders, names in os.walk(folder):
            folders.sort()
            there = to / base.lstrip("/")
            for name in sorted(names):
                path = Path(base) / name
                if copied >= wanted:
                    return copied
                if path.is_symlink() or not path.is_file():
                    continue
                data = path.read_bytes()
                if changed and len(data) > 64 and rng.random() < changed:
                    at = rng.randrange(len(data) - 64)
                    data = data[:at] + rng.randbytes(64) + data[at + 64 :]
                there.mkdir(parents=True, exist_ok=True)
                (there / name.replace(":", "_")).write_bytes(data)
                copied += len(data)
    return copied


def _files(tree: Path) -> list[Path]:
    return sorted(path for part in ("a", "b") for path in (tree / part).rglob("*") if path.is_file())


def _age(tree: Path, rng: random.Random) -> None:
    """Delete a tenth of the files all over and write them anew, at half their size and then to their end."""
    chosen = [path for path in _files(tree) if rng.random() < 0.1]
    kept = [(path, path.read_bytes()) for path in chosen]
    for path in chosen:
        path.unlink()
    os.sync()
    rng.shuffle(kept)
    for path, data in kept:
        path.write_bytes(data[: len(data) // 2])
    for path, data in kept:
        with path.open("ab") as file:
            file.write(data[len(data) // 2 :])


def change(device: Path, fs: str, at: Path) -> None:
    """Version 1 on `device` becomes version 2."""
    rng = random.Random(2)  # noqa: S311 - the same change each time
    with mounted(device, fs, at) as tree:
        files = _files(tree)
        total = sum(path.stat().st_size for path in files)
        for path in files:
            if rng.random() < 0.05:
                data = path.read_bytes()
                fresh = path.with_name(path.name + ".new")
                fresh.write_bytes(rng.randbytes(rng.randrange(1, 200)) + data)
                fresh.rename(path)
        with (tree / "base.db").open("r+b") as base:
            end = base.seek(0, 2)
            for _ in range(max(10, end // (400 * 1024))):
                base.seek(rng.randrange(end // 4096) * 4096)
                base.write(_pages(rng, 4096))
        with (tree / "log.txt").open("a") as log:
            log.writelines(_log_lines(rng, total // 100_000))
        (tree / "new.bin").write_bytes(_pages(rng, total // 100))
        gone = 0
        for path in rng.sample(files, len(files)):
            if gone >= total // 200:
                break
            if path.exists():
                gone += path.stat().st_size
                path.unlink()
