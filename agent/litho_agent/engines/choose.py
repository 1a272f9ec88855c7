"""Which engine saves a partition: a pure rule, and the one look at the disk that it needs.

What the task asks for wins, then the kernel command line, then the site; what was asked for is refused in a sentence *before*
anything starts if that engine cannot do the file system. Nobody asked: chunks, but streams where chunks would break what
somebody relies on: gzip is a packing that only streams have, and Apache VCL looks at the sizes of files that carry the image's
name, which chunks do not. `auto` is one stream a partition: partclone where it knows the file system, partimage for ReiserFS
(partclone as Debian builds it has no reiserfs 3), raw for everything else. A restore asks nothing: it takes the engine
that the manifest names."""

from __future__ import annotations

import re
from pathlib import Path

from litho import process
from litho.errors import LibraryError, RefusedError
from litho.job import EngineName, Job
from litho_agent.engines.base import Engine
from litho_agent.engines.partclone import Partclone
from litho_agent.engines.partimage import Partimage
from litho_agent.engines.partimage_ng import PartimageNg
from litho_agent.engines.raw import Raw
from litho_agent.engines.used import partclone_reads

ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (Partclone(), Partimage(), PartimageNg(), Raw()) if isinstance(engine.name, str)
}


CHUNK: EngineName = "chunk"
"""The engine that is not one of `ENGINES`: it makes no stream (`litho_agent.chunk`)."""


def settled(job: Job) -> EngineName:
    """What a capture is made with, now that everybody who may wish has been heard. Pure. Raises RefusedError."""
    if job.engine == CHUNK and job.compress == "gzip":
        raise RefusedError(
            "chunks are packed by zstd or not at all, and gzip was asked for",
            hint="leave out one of them: litho.engine=chunk, or litho.compress=gzip",
            code="engine-cannot",
        )
    if job.engine:
        return job.engine
    return "auto" if job.compress == "gzip" or job.vcl_markers else CHUNK


def choose(fs: str, asked: EngineName = "auto", *, xfs_version: int = 0) -> Engine:
    """The engine that makes a stream of the file system `fs` (blkid's name). Pure.

    `xfs_version` is 4 or 5 for an XFS (see `xfs_version`), 0 when it was not looked at. Raises RefusedError.
    """
    if asked in ("", "auto"):
        if ENGINES["partclone"].knows(fs):
            return ENGINES["partclone"]
        return ENGINES["partimage"] if fs == "reiserfs" else ENGINES["raw"]
    engine = ENGINES[asked]
    what = f"the file system {fs}" if fs else "an unknown file system"
    if not engine.knows(fs):
        raise _refused(asked, f"{asked} cannot save {what}")
    if asked == "partimage" and fs == "xfs" and xfs_version != 4:
        which = f"version {xfs_version}" if xfs_version else "a version that could not be told"
        raise _refused(asked, f"partimage cannot save an XFS of {which}, only of version 4")
    return engine


def named(name: str) -> Engine:
    """The engine that a manifest names. Raises LibraryError when this agent has none of that name."""
    engine = ENGINES.get(name)
    if engine is None:
        raise LibraryError(
            f"the image was made by the engine {name[:60]!r}, which this agent does not have",
            hint=f"it has: {', '.join(sorted([*ENGINES, CHUNK]))}",
            code="unknown-engine",
        )
    return engine


def choose_for(device: Path, fs: str, asked: EngineName = "auto") -> Engine:
    """`choose`, after the look at `device` that it needs. Raises RefusedError, DiskError, MissingProgramError."""
    looked = xfs_version(device) if asked == "partimage" and fs == "xfs" else 0
    engine = choose(fs, asked, xfs_version=looked)
    if engine.name == "partclone" and not partclone_reads(device, fs):
        if asked == "partclone":
            which = "FAT12" if fs == "vfat" else f"the file system {fs} on sectors of 4096 bytes"
            raise _refused(asked, f"partclone cannot save {which}")
        return ENGINES["raw"]
    return engine


def xfs_version(device: Path) -> int:
    """4 or 5; 0 when it cannot be told. Raises MissingProgramError."""
    done = process.run(
        ("xfs_db", "-r", "-c", "version", device), ok=range(256), doing=f"looking at the XFS on {device}"
    )
    return parse_xfs_version(done.out) if done.code == 0 else 0


def parse_xfs_version(words: str) -> int:
    """The version in what `xfs_db -r -c version` prints: `versionnum [0xb4a5+0x18a] = V5,NLINK,...`. Pure."""
    found = re.search(r"=\s*V([0-9]{1,2})\b", words)
    return int(found[1]) if found else 0


def program_version(engine: Engine) -> str:
    """The version of the engine's program, for the manifest; empty when it cannot be told. Raises MissingProgramError."""
    asked = engine.version()
    if asked is None:
        return ""
    argv, pattern = asked
    done = process.run(argv, ok=range(256), timeout_s=20, doing=f"asking {engine.name} for its version")
    found = re.search(pattern, done.out + done.err)
    return found[1][:60] if found else ""


def _refused(asked: str, message: str) -> RefusedError:
    return RefusedError(
        message,
        hint=f"leave out litho.engine={asked}: chunks hold any content, and litho.engine=auto takes the engine that can",
        code="engine-cannot",
    )
