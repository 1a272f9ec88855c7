"""The same image saved by another engine: restored onto a scratch disk, and captured from there.

Both halves are the agent's ordinary jobs with all their checks, so there is no second way to read or write an image. The scratch
disk is a sparse file of the source disk's size behind a loop device, and takes as much room as the image has used bytes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from litho import process
from litho.errors import EngineError, LibraryError
from litho.library import ImageRef, Library, Manifest

_SPARE = 1.1
"""Room for the scratch disk, in its used bytes: file systems and tables have some of their own."""


def convert(library: Library, manifest: Manifest, words: list[str], *, name: str, scratch: Path) -> ImageRef:
    """Make a new version of `name` from `manifest`; `words` are options of `litho-agent capture`.

    What the agent shows goes to this program's output. Raises LibraryError (no room), EngineError, MissingProgramError.
    """
    need, free = int(manifest.used * _SPARE), _free(scratch)
    if need > free:
        raise LibraryError(
            f"{scratch} has {free} bytes free, and the scratch disk takes {need}",
            hint="name another directory with --scratch",
            code="no-space",
        )
    ref = ImageRef(manifest.image, manifest.version)
    labels = [f"--label={key}={value}" for key, value in {**manifest.labels, "converted-from": str(ref)}.items()]
    with tempfile.TemporaryDirectory(dir=scratch, prefix="litho-convert-") as room, _loop(Path(room), manifest) as disk:
        where = ["--disk", str(disk), "--library", str(library.root)]
        _agent(["restore", *where, "--image", str(ref), "--yes"], f"restoring {ref} onto the scratch disk")
        before = library.versions(name)
        _agent(["capture", *where, "--image", name, *labels, *words], "capturing the scratch disk")
    made = [version for version in library.versions(name) if version not in before]
    return ImageRef(name, max(made))


def _agent(words: list[str], doing: str) -> None:
    child = process.start([Path(sys.executable).with_name("litho-agent"), *words], stdout=1, stderr=2)
    if code := child.wait():
        raise EngineError(f"{doing} ended with exit code {code}", hint="the agent has said why above")


@contextlib.contextmanager
def _loop(room: Path, manifest: Manifest) -> Iterator[Path]:
    file = room / "disk"
    with file.open("xb") as made:
        made.truncate(manifest.disk.size)
    sectors = ["--sector-size", str(manifest.disk.sector_size or 512)]
    disk = Path(process.run(["losetup", "--find", "--show", *sectors, file], doing="making a scratch disk").out.strip())
    try:
        yield disk
    finally:
        process.run(["partx", "--delete", disk], ok=(0, 1))
        process.run(["losetup", "--detach", disk], ok=(0, 1))


def _free(folder: Path) -> int:
    try:
        stat = os.statvfs(folder)
    except OSError as exc:
        raise LibraryError(f"{folder} cannot be used for the scratch disk ({exc.strerror})") from exc
    return stat.f_bavail * stat.f_frsize
