"""Peak memory of the agent's process tree while it captures and restores a 4 GB disk, beside the engine's own.

The whole command is measured, `litho-agent capture` and `restore` as a person types them: agent, worker, engines, tools. Every
20 ms the proportional set size (PSS: shared pages are divided among those who share them) of each process in the tree is
read, and the highest sum counts. The engine's own part is what the engine processes (partclone, partimage) had in that
moment. The page cache is the kernel's and belongs to nobody; on a node it is what is left.

The goal is 200 MB beyond the engines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from bench.overhead import fill
from litho import process
from litho.library import Library

MB = 1000 * 1000
GOAL = 200 * MB
EVERY_S = 0.02
_ENGINES = ("partclone", "partimage")


class Peak(msgspec.Struct):
    """The highest sum that was seen."""

    tree: int = 0
    """Bytes of all processes."""
    engines: int = 0
    """Bytes of the engines in that moment."""
    beyond: int = 0
    """The highest difference of the two."""
    samples: int = 0


class Row(msgspec.Struct, frozen=True):
    """One command's figures."""

    action: str
    seconds: float
    peak: Peak


def main(argv: list[str]) -> int:
    """Measure and print; 1 when the goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench memory", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=4000, metavar="MB", help="of the disk (default 4000)")
    parser.add_argument("--used", type=int, default=1000, metavar="MB", help="of files on it (default 1000)")
    parser.add_argument("--parallel", type=int, default=2, metavar="N", help="partitions at once (default 2)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--dir", type=Path, default=None, help="where disks and library are made")
    args = parser.parse_args(argv)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="litho-bench-", dir=args.dir) as made:
        room = Path(made)
        library = room / "library"
        Library.create(library)
        with disk(room / "source.img", args.size) as source, disk(room / "target.img", args.size) as target:
            prepare(source, room / "mnt", args.used)
            both = ("--image", "golden", "--library", library, "--parallel", str(args.parallel))
            rows.append(measure("capture", "--disk", source, "--engine", "auto", *both))
            rows.append(measure("restore", "--disk", target, *both, "--yes"))
    if args.json:
        print(json.dumps([msgspec.to_builtins(row) for row in rows], indent=1))
    else:
        print(f"{'':9}{'seconds':>9}{'tree':>10}{'engines':>10}{'beyond':>10}")
        for row in rows:
            figures = "".join(f"{count / MB:>7.0f} MB" for count in (row.peak.tree, row.peak.engines, row.peak.beyond))
            mark = "" if row.peak.beyond <= GOAL else f"   over the goal of {GOAL // MB} MB"
            print(f"{row.action:9}{row.seconds:>9.1f}{figures}{mark}")
        print(f"peak PSS of the process tree, sampled every {EVERY_S * 1000:.0f} ms; beyond = without the engines")
    return 1 if any(row.peak.beyond > GOAL for row in rows) else 0


def measure(action: str, *words: str | Path) -> Row:
    """Run `litho-agent` and watch its tree."""
    since = time.monotonic()
    child = process.start(
        [sys.executable, "-m", "litho_agent.main", action, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    peak = Peak()
    over = threading.Event()
    watcher = threading.Thread(target=watch, args=(child.pid, peak, over))
    watcher.start()
    assert child.stderr is not None
    said = child.stderr.read().decode(errors="replace")
    code = child.wait()
    child.stderr.close()
    over.set()
    watcher.join()
    assert code == 0, f"litho-agent {action} ended with {code}: {said}"
    return Row(action, time.monotonic() - since, peak)


def watch(pid: int, peak: Peak, over: threading.Event) -> None:
    """Sample the tree below `pid` until `over`."""
    while not over.is_set():
        tree = engines = 0
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            for one in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    size = one.memory_full_info().pss
                    tree += size
                    engines += size if one.name().startswith(_ENGINES) else 0
        peak.samples += 1
        peak.beyond = max(peak.beyond, tree - engines)
        if tree > peak.tree:
            peak.tree, peak.engines = tree, engines
        over.wait(EVERY_S)


@contextlib.contextmanager
def disk(image: Path, size_mb: int) -> Iterator[Path]:
    """A blank loop device."""
    with image.open("wb") as file:
        file.truncate(size_mb * MB // 512 * 512)
    device = Path(process.run(("losetup", "--find", "--show", image)).out.strip())
    try:
        yield device
    finally:
        process.run(("partx", "-d", device), ok=range(256))
        process.run(("losetup", "-d", device))
        image.unlink()


def prepare(device: Path, mnt: Path, used_mb: int) -> None:
    """Two partitions, ext4 and ext3, with files from /usr: both are moved at the same time."""
    size = int(process.run(("blockdev", "--getsize64", device)).out) // 512
    table = f"label: dos\nstart=2048, size={size // 2}, type=83\ntype=83\n".encode()
    process.run(("sfdisk", "--no-reread", "--no-tell-kernel", device), stdin=table)
    process.run(("partx", "-a", device))
    mnt.mkdir()
    for number, fs in ((1, "ext4"), (2, "ext3")):
        part = Path(f"{device}p{number}")
        process.run((f"mkfs.{fs}", "-q", part), timeout_s=600)
        process.run(("mount", part, mnt))
        try:
            fill(mnt, used_mb * MB // 2)
        finally:
            process.run(("umount", mnt), timeout_s=600)
