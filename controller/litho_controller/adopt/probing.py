"""Which file system an image holds, told by blkid from the blocks at its beginning.

A restore proves at its end that each partition has the type and the UUID of the manifest. Images of other tools name
neither as blkid does, so the blocks that blkid looks at are laid into a sparse file of the partition's size, and
blkid is asked. For NTFS the boot sector also gives its own copy, which belongs into the partition's last sector and
which neither partimage nor partclone keeps.
"""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from litho import process
from litho.errors import LithoError, RefusedError

_KEYS = ("TYPE", "UUID", "LABEL")


class Probe(msgspec.Struct, frozen=True):
    """What blkid says."""

    type: str = ""
    uuid: str = ""
    label: str = ""


def probe(kept: Mapping[int, bytes], size: int) -> Probe:
    """What lies on a partition of `size` bytes that holds the blocks `kept`. Raises RefusedError, EngineError."""
    with tempfile.TemporaryDirectory(prefix="litho-adopt-") as folder:
        path = Path(folder) / "partition"
        try:
            with path.open("wb") as file:
                file.truncate(size)
                for place, data in kept.items():
                    file.seek(place)
                    file.write(data)
        except OSError as exc:
            raise LithoError(
                f"its file system cannot be told: {folder} does not take a file of {size} bytes ({exc.strerror})",
                hint="set TMPDIR to a directory with some room",
            ) from exc
        done = process.run(["blkid", "-p", "-o", "export", path], ok=range(256), timeout_s=60)
    found = parse(done.out)
    if done.code != 0 or not found.type:
        raise RefusedError(
            "blkid does not know the file system in it, so a restore of it could not be proven", code="unknown-fs"
        )
    return found


def parse(text: str) -> Probe:
    """The output of `blkid -o export`. Pure."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key in _KEYS and key not in found:
            plain = re.sub(r"\\(.)", r"\1", value)
            found[key] = "".join(char if char.isprintable() else "." for char in plain)[:256]
    return Probe(found.get("TYPE", ""), found.get("UUID", ""), found.get("LABEL", ""))


def ntfs_tail(kept: Mapping[int, bytes], size: int) -> bytes:
    """The copy of the boot sector that ends an NTFS partition of `size` bytes; empty where it does not belong there. Pure."""
    sector = kept.get(0, b"")[:512]
    if len(sector) < 512 or sector[3:11] != b"NTFS    ":
        return b""
    (width,) = struct.unpack_from("<H", sector, 11)
    (count,) = struct.unpack_from("<Q", sector, 40)
    return sector if width == 512 and (count + 1) * width == size else b""
