"""The programs that the chunk engine is measured beside, each with the options that its own users give it.

A peer stores one partition under a name in a directory and puts it back; both include the sync of what was written. partimage
knows no ext4, so it gets an ext3 with the same files (`Place.twin`). fsarchiver and casync do other work than an imager of
blocks: the first copies files and makes the file system anew, the second reads free blocks too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from litho import process

ALL = frozenset({"ext4", "ext3", "xfs", "ntfs"})
_PARTCLONE = {"ext4": "partclone.ext4", "ext3": "partclone.ext3", "xfs": "partclone.xfs", "ntfs": "partclone.ntfs"}


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer works on."""

    fs: str
    device: Path
    twin: Path
    """The same files on an ext3 where `device` is an ext4; else `device`."""
    target: Path
    room: Path
    """Where images lie."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One program, or a pipe of two."""

    name: str
    restored: str
    """The name of the restore's row."""
    file: str
    capture: Callable[[Place, Path], None]
    restore: Callable[[Place, Path], None] | None
    fs: frozenset[str] = ALL
    blocks: bool = True
    """It puts the blocks back that the disk had, so that our read-back can tell whether it did."""
    slow: bool = False
    """Takes a minute and more for a few gigabytes: not in every round."""


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a directory."""
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size


def remove(path: Path) -> None:
    """Nothing is left of the image."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def chosen(names: str, fs: str) -> list[Peer]:
    """The peers that `names` (separated by commas; all when empty) picks for a file system. Raises ValueError."""
    known = {peer.name: peer for peer in PEERS}
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(known)
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"there is no peer {unknown[0]!r}; there are: {', '.join(known)}")
    return [known[name] for name in wanted if fs in known[name].fs]


def pipe(first: process.Argv, last: process.Argv, out: Path | None) -> None:
    """`first | last`, into `out` and synced where one is given."""
    target = out or Path(os.devnull)
    with (
        target.open("wb", buffering=0) as file,
        process.start(first, stdout=subprocess.PIPE) as head,
        process.start(last, stdin=head.stdout, stdout=file) as tail,
    ):
        assert head.stdout is not None
        head.stdout.close()
        codes = head.wait(), tail.wait()
        if out:
            os.fsync(file.fileno())
    assert codes == (0, 0), f"{first[0]} | {last[0]} ended with {codes}"


def synced(path: Path) -> None:
    """What was written to a file, a directory's file system or a device lies there."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if path.is_dir():
            os.sync()
        else:
            os.fsync(fd)
    finally:
        os.close(fd)


def _partclone(*options: str, packer: tuple[str, ...]) -> Callable[[Place, Path], None]:
    def capture(place: Place, out: Path) -> None:
        clone: process.Argv = (
            _PARTCLONE[place.fs],
            "-c",
            "-q",
            "-s",
            place.device,
            "-o",
            "-",
            "-L",
            "/dev/null",
            *options,
        )
        pipe(clone, packer, out)

    return capture


def _unpacked(*unpacker: str) -> Callable[[Place, Path], None]:
    def restore(place: Place, image: Path) -> None:
        clone = ("partclone.restore", "-q", "-s", "-", "-O", place.target, "-L", "/dev/null")
        pipe((*unpacker, image), clone, None)
        synced(place.target)

    return restore


def _dd(place: Place, out: Path) -> None:
    _copy(place.device, out)


def _undd(place: Place, image: Path) -> None:
    _copy(image, place.target)


def _copy(source: Path, target: Path) -> None:
    options = ("bs=4M", "iflag=direct", "oflag=direct", "conv=fsync", "status=none")
    process.run(("dd", f"if={source}", f"of={target}", *options), timeout_s=None)


def _partimage(place: Place, out: Path) -> None:
    options = ("-B", "x=y", "-y", "-z1", "-V0", "-f3", "-o", "-d", "-M", "-c")
    process.run(("partimage", *options, "save", place.twin, out), timeout_s=None)
    synced(out)


def _unpartimage(place: Place, image: Path) -> None:
    process.run(("partimage", "-B", "x=y", "-y", "-f3", "restore", place.target, image), timeout_s=None)
    synced(place.target)


def _fsarchiver(place: Place, out: Path) -> None:
    # It calls its NTFS experimental and wants to hear that one knows.
    more = ("-x",) if place.fs == "ntfs" else ()
    words = ("fsarchiver", "savefs", *more, "-o", "-Z1", f"-j{os.cpu_count()}", out, place.device)
    process.run(words, timeout_s=None)
    synced(out)


def _unfsarchiver(place: Place, image: Path) -> None:
    more = ("-x",) if place.fs == "ntfs" else ()
    words = ("fsarchiver", "restfs", *more, f"-j{os.cpu_count()}", image, f"id=0,dest={place.target}")
    process.run(words, timeout_s=None)
    synced(place.target)


def _casync(place: Place, out: Path) -> None:
    out.mkdir()
    store = ("--compression=zstd", f"--store={out / 'store.castr'}")
    process.run(("casync", "make", *store, out / "disk.caibx", place.device), timeout_s=None)
    synced(out)


def _uncasync(place: Place, image: Path) -> None:
    words = ("casync", "extract", f"--store={image / 'store.castr'}", image / "disk.caibx", place.target)
    process.run(words, timeout_s=None)
    synced(place.target)


_ZSTD = ("zstd", "-1", "-T0", "-q", "-c")
_PIGZ = ("pigz", "--fast", "-b", "1024", "--rsyncable", "-c")
"""Clonezilla's options."""

PEERS = (
    Peer(
        name="partclone|zstd",
        restored="zstd|partclone",
        file="partclone.zst",
        capture=_partclone(packer=_ZSTD),
        restore=_unpacked("zstd", "-q", "-dc"),
    ),
    Peer(
        name="partclone -a0|zstd",
        restored="",
        file="partclone-a0.zst",
        capture=_partclone("-a0", packer=_ZSTD),
        restore=None,
    ),
    Peer(name="dd", restored="dd", file="dd.raw", capture=_dd, restore=_undd),
    Peer(
        name="partclone|pigz",
        restored="pigz|partclone",
        file="partclone.gz",
        capture=_partclone(packer=_PIGZ),
        restore=_unpacked("pigz", "-dc"),
        slow=True,
    ),
    Peer(
        name="partimage -z1",
        restored="partimage -z1",
        file="partimage.gz",
        capture=_partimage,
        restore=_unpartimage,
        fs=frozenset({"ext4", "ext3", "ntfs"}),
        blocks=False,
        slow=True,
    ),
    Peer(
        name="fsarchiver",
        restored="fsarchiver",
        file="disk.fsa",
        capture=_fsarchiver,
        restore=_unfsarchiver,
        blocks=False,
        slow=True,
    ),
    Peer(name="casync", restored="casync", file="casync", capture=_casync, restore=_uncasync, slow=True),
)
