"""A partition of an image as a file, by nbdkit and FUSE, and its file system mounted: both for as long as a `with` lasts.

    image --(plugin.py in nbdkit)--> NBD --(nbdfuse)--> DIR/part2 --(loop device)--> mount, read-only

Nothing of it can write. File systems are mounted without replaying their journals, `nodev,nosuid,noexec`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from litho import process
from litho.errors import EngineError, RefusedError
from litho.library import ImageRef, Manifest
from litho.library.chunks.scrub import ENGINE
from litho.library.manifest import Part

READY_S = 60.0
_OPTIONS = {"ext3": "noload", "ext4": "noload", "xfs": "norecovery,nouuid", "btrfs": "rescue=nologreplay"}
_PLAIN = "ro,nodev,nosuid,noexec"


def windows(manifest: Manifest) -> list[Part]:
    """The partitions that can be looked into. Raises RefusedError when there is none."""
    found = [part for part in manifest.parts if part.engine == ENGINE and part.data is not None]
    if not found:
        raise RefusedError(
            f"{manifest.image}:{manifest.version} was captured as streams, which cannot be read at any place",
            hint=f"litho image convert {manifest.image}:{manifest.version} --to chunk makes a version that can",
            code="not-chunks",
        )
    return found


@contextlib.contextmanager
def served(library: Path, ref: ImageRef, part: Part, folder: Path) -> Iterator[Path]:
    """The partition as the file `folder/partN`; `folder` is an empty directory. Raises EngineError, MissingProgramError."""
    words = [f"library={library}", f"image={ref}", f"part={part.number}"]
    kit: list[str | Path] = [
        process.require("nbdkit"),
        "--exit-with-parent",
        "python",
        Path(__file__).with_name("plugin.py"),
        *words,
    ]
    file = folder / f"part{part.number}"
    # In a session of its own: Ctrl-C is for us, who unmount before the server goes.
    argv: list[str | Path] = ["setsid", process.require("nbdfuse"), "--readonly", file, "[", *kit, "]"]
    env = {"PYTHONPATH": ":".join(word for word in sys.path if word), "PYTHONDONTWRITEBYTECODE": "1"}
    child = process.start(argv, stderr=subprocess.PIPE, env=env)
    try:
        _await(child, file)
        yield file
    finally:
        _unmount(folder)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stderr is not None:
            child.stderr.close()


def _await(child: subprocess.Popen[bytes], file: Path) -> None:
    deadline = time.monotonic() + READY_S
    while not file.exists():
        if child.poll() is not None:
            said = child.stderr.read().decode(errors="replace").strip() if child.stderr else ""
            raise EngineError(f"the image could not be served: {'; '.join(said.splitlines()) or 'nbdkit ended'}")
        if time.monotonic() > deadline:
            raise EngineError("the image could not be served: FUSE did not come up", hint="is /dev/fuse there?")
        time.sleep(0.02)


@contextlib.contextmanager
def mounted(file: Path, fs: str, folder: Path) -> Iterator[Path]:
    """The file system in `file` on the empty directory `folder`. Raises EngineError."""
    options = ",".join(word for word in ("loop", _PLAIN, _OPTIONS.get(fs, "")) if word)
    process.run(["mount", "-t", fs, "-o", options, file, folder], doing=f"mounting the {fs or 'unknown'} file system")
    try:
        yield folder
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    """At once when nothing uses it: a loop device lets go a moment after its own mount ended. Else when nothing does any more."""
    deadline = time.monotonic() + 10
    while process.run(["umount", folder], ok=(0, 1, 32)).code and os.path.ismount(folder):
        if time.monotonic() > deadline:
            process.run(["umount", "--lazy", folder], ok=(0, 1, 32))
            return
        time.sleep(0.05)
