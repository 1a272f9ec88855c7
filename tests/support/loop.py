"""Disks for tests: sparse files behind loop devices; `partx` makes the partition nodes (not every kernel's loop reads tables)."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")


def sh(*argv: str | Path, stdin: str | None = None) -> str:
    """Run a tool of the test's own and return its output; a failure shows what it said."""
    done = subprocess.run([str(word) for word in argv], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def loop_disk(image: Path, *, size: int | None = None, sector_size: int = 512) -> Iterator[Path]:
    """Attach `image` (made sparse with `size` bytes when given) and yield `/dev/loopN`; detached at the end."""
    if size is not None:
        with image.open("ab") as file:
            file.truncate(size)
    for attempt in range(20):
        # Two tests may find the same free device; the loser tries again.
        done = subprocess.run(
            ["losetup", "--find", "--show", "--sector-size", str(sector_size), str(image)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            break
        time.sleep(0.05 * (attempt + 1))
    assert done.returncode == 0, done.stderr
    disk = Path(done.stdout.strip())
    # A read-only flag that a killed test set on this device before outlives the file behind it.
    subprocess.run(["blockdev", "--setrw", str(disk)], capture_output=True, check=False)
    try:
        yield disk
    finally:
        subprocess.run(["partx", "-d", str(disk)], capture_output=True, check=False)
        subprocess.run(["losetup", "-d", str(disk)], capture_output=True, check=False)


def reread(disk: Path) -> None:
    """Make the kernel see the partitions that `disk`'s table has now."""
    subprocess.run(["partx", "-d", str(disk)], capture_output=True, check=False)
    sh("partx", "-a", disk)


def part(disk: Path, number: int) -> Path:
    """The device of partition `number`."""
    return Path(f"{disk}p{number}")
