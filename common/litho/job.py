"""What a node is to do: one capture or one restore, as data.

A `Job` is made by the controller from `litho nodeset` (and travels to the node in the answer to its claim), or by
`litho-agent capture|restore` from its own command line. The agent hands it to its worker process unchanged.
Everything that a person may choose has its field here, with the default that holds when nobody chose.
An empty string means "not asked for": the kernel command line may fill it, then the rules decide.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

EDITION = 4
"""Which edition of the order an order is in: raised with every change of what a `Job` or `Order` may hold. An agent of edition M
reads orders up to M, and says so with its claim. (A test holds the shape of both against this number.)"""

Short = Annotated[str, msgspec.Meta(max_length=256)]
EngineName = Literal["", "chunk", "auto", "partimage", "partimage-ng", "partclone", "raw"]
"""`chunk` stores the whole disk in chunks; `auto` makes one stream a partition, by the program that knows its file system."""
Compression = Literal["zstd", "gzip", "none"]
Then = Literal["", "reboot", "poweroff", "stay"]
Fit = Literal["keep", "grow"]
OnDirty = Literal["refuse", "repair", "raw"]
OnBadSector = Literal["stop", "continue"]
Free = Literal["keep", "discard", "zero"]


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One capture, restore, or comparison of a disk with an image."""

    action: Literal["capture", "restore", "verify"]
    image: Annotated[str, msgspec.Meta(max_length=128)]
    """The image's name; checked by `litho.library.names` where it is used."""
    version: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Restore: which version; 0 is the current one."""
    disk: Short = ""
    """Selector of the target disk: `sda`, `/dev/disk/by-path/...`, `serial=...`, joined by commas; empty: the rule chooses."""
    engine: EngineName = ""
    """Which engine saves the partitions; empty: as the node's command line, else the site, else the agent's rule says. A restore
    takes what the manifest says."""
    compress: Compression = "zstd"
    level: Annotated[int, msgspec.Meta(ge=1, le=19)] = 1
    """Compression level, 1 to 19 for zstd; gzip takes at most 9."""
    then: Then = ""
    """What the node does after the job; empty: reboot in the rootimg, stay elsewhere."""
    fit: Fit = "keep"
    """Restore to a larger disk: keep the partitions as they were, or grow the last one."""
    on_dirty: OnDirty = "refuse"
    on_bad_sector: OnBadSector = "stop"
    verify_target: bool = False
    """Restore of chunks: read all of it back from the disk and compare."""
    free: Free = "keep"
    """Restore of chunks: what becomes of chunks in which nothing is used: left as they are, discarded, or filled with zeros."""
    parallel: Annotated[int, msgspec.Meta(ge=0, le=8)] = 0
    """How many partitions move at the same time; 0: as the kind of disk allows. The chunk engine, which uses all cores for one
    partition, takes one after the other."""
    skip_unknown: bool = False
    """Capture: leave out partitions on which no known file system lies (their place in the table stays)."""
    sources: tuple[Short, ...] | msgspec.UnsetType = msgspec.UNSET
    """Restore: where chunks are read from, in the words of `litho.library.sources`; left out where nobody chose, so that agents
    that know nothing of it take the job."""
    allow: tuple[Short, ...] = ()
    """Guards that the task lifts, by the name that the guard's refusal gives: `removable`, `lvm`, `raid`, ..."""
    trust_h: Annotated[float, msgspec.Meta(ge=0, le=87600)] = 240.0
    """Capture in chunks: hours for which a pack that was read whole is relied on without reading what is needed of it again."""
    vcl_markers: bool = False
    """Capture: write `<image>.img.capturedone` or `.capturefailed` beside the image, for Apache VCL."""
    labels: dict[Short, Short] = {}
    """Capture: free words kept in the manifest."""
