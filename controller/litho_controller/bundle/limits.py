"""How much a stranger's archive may ask of this machine."""

from __future__ import annotations

import msgspec

MiB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one archive. Sizes are bytes."""

    entries: int
    """Files, directories and links."""
    bytes: int
    """Of all files, unpacked."""
    name: int
    """Of one name with all its levels."""
    levels: int
    """Of directories below each other."""
    ratio: int = 250
    """Unpacked to packed. gzip cannot do more than 1032; a bomb comes near that, an image does not."""
    ratio_from: int = 64 * MiB
    """The ratio counts once so much has come out: a small file of zeros is no bomb."""
    reserve: int = 64 * MiB
    """What stays free on the file system."""


BUNDLE = Limits(entries=10_000, bytes=16 * 1024 * 1024 * MiB, name=1000, levels=32)
"""Of the bundle itself."""

TREE = Limits(entries=2_000_000, bytes=256 * 1024 * MiB, name=4096, levels=128, ratio_from=256 * MiB)
"""Of a root image that is expanded."""
