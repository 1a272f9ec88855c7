"""What the pipeline costs over the same bare pipe: `engine | compressor > file`, and back.

Both sides run the same engine on the same loop device with the same options. The bare side compresses with `zstd -1 -T0` or
`pigz -1` and hashes nothing; ours also counts, hashes stream and file, and proves the result. Rounds are interleaved and the
order changes from round to round, so that a busy machine hurts both alike; the figure that counts is the median of the rounds'
ratios. CPU seconds are of the program and its children, without the kernel's loop threads. The data is copied from /usr; the
page cache is warm for both, so that the engine and not a disk sets the pace: the hardest case for whoever adds work to the pipe.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from litho import process
from litho.library.manifest import FileRef
from litho_agent import pipeline
from litho_agent.engines import Engine, Source, named, used_bytes

GOAL = 1.05
"""The pipeline may take this many times the wall seconds of the bare pipe."""

MB = 1024 * 1024
CASES: tuple[tuple[str, str, Literal["zstd", "gzip"]], ...] = (
    ("partclone", "ext4", "zstd"),
    ("partimage", "ext3", "zstd"),
    ("partclone", "ext4", "gzip"),
)
PACK = {"zstd": ("zstd", "-q", "-1", "-T0", "-c"), "gzip": ("pigz", "-1", "-c")}
UNPACK = {"zstd": ("zstd", "-q", "-d", "-c"), "gzip": ("pigz", "-d", "-c")}


class Cost(msgspec.Struct, frozen=True):
    """Of one run."""

    wall_s: float
    cpu_s: float


class Row(msgspec.Struct, frozen=True):
    """One line of the table. Seconds and ratios are medians over the rounds."""

    action: str
    engine: str
    fs: str
    compression: str
    stream_bytes: int
    file_bytes: int
    bare_file_bytes: int
    ours_wall_s: float
    bare_wall_s: float
    wall_ratio: float
    best_ratio: float
    """Of the fastest run of each: what is left when others on the machine did not disturb."""
    ours_cpu_s: float
    bare_cpu_s: float
    cpu_ratio: float
    rounds: int


def main(argv: list[str]) -> int:
    """Measure and print; 1 when a median ratio of wall seconds is over the goal."""
    parser = argparse.ArgumentParser(prog="python -m bench overhead", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1000, metavar="MB", help="data in the file system (default 1000)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds, at least 3 (default 5)")
    parser.add_argument("--only", default="", metavar="ENGINE", help="measure this engine only")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--dir", type=Path, default=None, help="where the disks and images are made")
    args = parser.parse_args(argv)
    rounds = max(3, args.rounds)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="litho-bench-", dir=args.dir) as made:
        room = Path(made)
        for fs in ("ext4", "ext3"):
            with filled_disk(room, fs, args.size) as source, loop(room / "target.img", args.size) as target:
                for engine, its_fs, compression in CASES:
                    if its_fs == fs and args.only in ("", engine):
                        rows += measure(room, named(engine), source, target, compression=compression, rounds=rounds)
    if args.json:
        print(json.dumps([msgspec.to_builtins(row) for row in rows], indent=1))
    else:
        print(table(rows))
    return 1 if any(row.wall_ratio > GOAL for row in rows) else 0


def measure(
    room: Path, engine: Engine, source: Source, target: Path, *, compression: Literal["zstd", "gzip"], rounds: int
) -> list[Row]:
    """Capture and restore, ours against bare."""
    ours, bare = room / "ours", room / "bare"
    saved: list[pipeline.Saved] = []

    def our_save() -> None:
        ours.unlink(missing_ok=True)
        with ours.open("wb", buffering=0) as sink:
            saved.append(
                pipeline.save(engine, source, sink, compression=compression, level=1, tick=_tick, cancelled=_never)
            )

    def bare_save() -> None:
        bare.unlink(missing_ok=True)
        with bare.open("wb", buffering=0) as sink:
            _pipe(engine.save(source), PACK[compression], stdout=sink.fileno())

    def our_restore() -> None:
        last = saved[-1]
        pipeline.restore(
            engine,
            ours,
            target,
            source.fs,
            compression=compression,
            expect_file=FileRef(file="ours", bytes=last.file_bytes, sha256=last.file_sha256),
            expect_stream_bytes=last.stream_bytes,
            expect_stream_sha256=last.stream_sha256,
            tick=_tick,
            cancelled=_never,
        )

    def bare_restore() -> None:
        with bare.open("rb", buffering=0) as file:
            _pipe(UNPACK[compression], engine.restore(target, source.fs), stdin=file.fileno())
        # A restore that does not lie on the disk is none; ours syncs too.
        with target.open("rb") as device:
            os.fsync(device.fileno())

    rows = []
    for action, mine, other in (("capture", our_save, bare_save), ("restore", our_restore, bare_restore)):
        pairs = compare(mine, other, rounds)
        process.run(("e2fsck", "-fn", source.device if action == "capture" else target), timeout_s=600)
        rows.append(
            Row(
                action,
                engine.name,
                source.fs,
                compression,
                saved[-1].stream_bytes,
                saved[-1].file_bytes,
                bare.stat().st_size,
                statistics.median(a.wall_s for a, _ in pairs),
                statistics.median(b.wall_s for _, b in pairs),
                statistics.median(a.wall_s / b.wall_s for a, b in pairs),
                min(a.wall_s for a, _ in pairs) / min(b.wall_s for _, b in pairs),
                statistics.median(a.cpu_s for a, _ in pairs),
                statistics.median(b.cpu_s for _, b in pairs),
                statistics.median(a.cpu_s / b.cpu_s for a, b in pairs),
                rounds,
            )
        )
    return rows


def compare(mine: Callable[[], None], other: Callable[[], None], rounds: int) -> list[tuple[Cost, Cost]]:
    """Interleaved rounds, the order swapped from one to the other; the first of each warms the cache and does not count."""
    mine()
    other()
    pairs = []
    for number in range(rounds):
        if number % 2:
            theirs, own = cost(other), cost(mine)
        else:
            own, theirs = cost(mine), cost(other)
        pairs.append((own, theirs))
        print(
            f"  round {number + 1}: ours {own.wall_s:.2f} s wall {own.cpu_s:.2f} s CPU, "
            f"bare {theirs.wall_s:.2f} s wall {theirs.cpu_s:.2f} s CPU",
            file=sys.stderr,
        )
    return pairs


def cost(work: Callable[[], None]) -> Cost:
    """What `work` takes, of this process and the children that it waits for."""
    os.sync()
    cpu, wall = _cpu(), time.monotonic()
    work()
    return Cost(time.monotonic() - wall, _cpu() - cpu)


def _cpu() -> float:
    whos = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, whos))


def _pipe(first: process.Argv, second: process.Argv, *, stdin: int | None = None, stdout: int | None = None) -> None:
    with (
        process.start(first, stdin=stdin, stdout=subprocess.PIPE) as head,
        process.start(second, stdin=head.stdout, stdout=stdout) as last,
    ):
        assert head.stdout is not None
        head.stdout.close()
        codes = head.wait(), last.wait()
    assert codes == (0, 0), f"{first[0]} | {second[0]} ended with {codes}"


def _tick(_stream: int, _stored: int) -> None:
    pass


def _never() -> bool:
    return False


@contextlib.contextmanager
def loop(image: Path, size_mb: int) -> Iterator[Path]:
    """A blank loop device with room for `size_mb` of data and a half more."""
    with image.open("wb") as file:
        file.truncate((size_mb * 3 // 2 + 64) * MB)
    device = Path(process.run(("losetup", "--find", "--show", image)).out.strip())
    try:
        yield device
    finally:
        process.run(("losetup", "-d", device))
        image.unlink()


@contextlib.contextmanager
def filled_disk(room: Path, fs: str, size_mb: int) -> Iterator[Source]:
    """A partition with about `size_mb` of files from /usr."""
    tree = room / "mnt"
    tree.mkdir(exist_ok=True)
    with loop(room / f"{fs}.img", size_mb) as device:
        process.run((f"mkfs.{fs}", "-q", device), timeout_s=600)
        process.run(("mount", device, tree))
        try:
            copied = fill(tree, size_mb * MB)
        finally:
            process.run(("umount", tree), timeout_s=600)
        size = int(process.run(("blockdev", "--getsize64", device)).out)
        used = used_bytes(device, fs)
        print(f"{fs}: {copied // MB} MB of files from /usr, {used // MB} MB used", file=sys.stderr)
        yield Source(device=device, fs=fs, size=size, used=used)


def fill(tree: Path, wanted: int) -> int:
    """Copy regular files from /usr until `wanted` bytes are there; how many were."""
    copied = 0
    for folder in ("/usr/lib", "/usr/bin", "/usr/share", "/usr/include", "/usr/sbin"):
        for base, _, names in os.walk(folder):
            to = tree / base.lstrip("/")
            for name in names:
                path = Path(base) / name
                if copied >= wanted:
                    return copied
                with contextlib.suppress(OSError):
                    if not path.is_symlink() and path.is_file():
                        data = path.read_bytes()
                        to.mkdir(parents=True, exist_ok=True)
                        (to / name).write_bytes(data)
                        copied += len(data)
    return copied


def table(rows: list[Row]) -> str:
    """For people."""
    lines = [
        f"{'':9}{'engine':11}{'fs':6}{'pack':6}{'stream':>9}{'stored':>9}{'bare':>9}"
        f"{'wall s':>9}{'bare':>8}{'ratio':>7}{'best':>7}{'CPU s':>9}{'bare':>8}{'ratio':>7}"
    ]
    for row in rows:
        sizes = "".join(f"{count / 1e6:>6.0f} MB" for count in (row.stream_bytes, row.file_bytes, row.bare_file_bytes))
        mark = "" if row.wall_ratio <= GOAL else f"   over the goal of {GOAL}"
        lines.append(
            f"{row.action:9}{row.engine:11}{row.fs:6}{row.compression:6}{sizes}"
            f"{row.ours_wall_s:>9.2f}{row.bare_wall_s:>8.2f}{row.wall_ratio:>7.3f}{row.best_ratio:>7.3f}"
            f"{row.ours_cpu_s:>9.2f}{row.bare_cpu_s:>8.2f}{row.cpu_ratio:>7.3f}{mark}"
        )
    lines.append(
        f"medians of {rows[0].rounds} interleaved rounds; ratio = ours / bare; best = of the fastest run of each"
    )
    lines.append(
        "partclone ends on a whole second of its progress thread: a copy that takes 1.4 s and one of 1.6 s differ by 1 s"
    )
    return "\n".join(lines)
