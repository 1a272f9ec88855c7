"""How the chunk engine's cost grows: with threads, with the size of the disk, with the number of chunks that an index lists.

Threads: capture and restore of one aged disk of mixed data with 1, 2 and 4 that hash and pack, or unpack, interleaved; those
that read and write come on top.
Sizes: sparse disks of 1 to 64 GB with text that packs to about half of it on 2 % of each, so that the cost of what is not used
can be seen: captured, captured again with nothing changed, restored, and restored again onto what is right already.
Index: a library's catalog and an image's index of ten million chunks, made here, loaded from a cold disk.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import disks, report
from bench.clock import Clock
from bench.orders import Answer, Order

MB = 1024 * 1024
LOAD_GOAL_S = 2.0
_THREADS = (1, 2, 4)
_USED = 0.02


def threads(room: Path, args: argparse.Namespace) -> tuple[str, bool]:
    """Capture and restore with few and with more threads."""
    clock, library, size, used = Clock(), room / "library", args.disk * MB, 0.0
    with (
        disks.loop(room / "disk.img", size=size) as device,
        disks.loop(room / "target.img", size=size) as target,
    ):
        disks.make(device, "ext4", room / "mnt", size=size)
        for number in range(args.rounds):
            print(f"threads, round {number + 1}", file=sys.stderr)
            for count in _THREADS:
                shutil.rmtree(library, ignore_errors=True)
                for do, disk in (("capture", device), ("restore", target)):
                    order = Order(do=do, device=str(disk), library=str(library), threads=count)
                    answer = clock.ours(f"{do}, {count} threads", order)
                    used = max(used, answer.facts.get("used", 0.0))
    lines = [f"### Threads ({used / 1e9:.2f} GB used, {args.rounds} interleaved rounds, medians)", ""]
    rows = []
    for do in ("capture", "restore"):
        one = statistics.median(run.wall_s for run in clock.runs[f"{do}, {_THREADS[0]} threads"])
        for count in _THREADS:
            runs = clock.runs[f"{do}, {count} threads"]
            wall_s, cpu_s, others_s = (
                statistics.median(getattr(run, key) for run in runs) for key in ("wall_s", "cpu_s", "others_s")
            )
            rows.append((do, str(count), f"{wall_s:.2f}", f"{cpu_s:.2f}", f"{others_s:.1f}", f"{one / wall_s:.2f}"))
    lines += report.table(("", "threads", "wall s", "CPU s", "others' CPU s", "times as fast as one"), rows)
    return "\n".join(lines), True


def sizes(room: Path, args: argparse.Namespace) -> tuple[str, bool]:
    """Disks that grow, with the same share of them used."""
    clock, library = Clock(), room / "library"
    rows = []
    for gigabytes in args.sizes:
        print(f"{gigabytes} GB", file=sys.stderr)
        shutil.rmtree(library, ignore_errors=True)
        size = gigabytes * 10**9 // MB * MB
        with (
            disks.loop(room / "disk.img", size=size, sparse=True) as device,
            disks.loop(room / "target.img", size=size, sparse=True) as target,
        ):
            disks.format_as(device, "ext4")
            _write_text(device, room / "mnt", int(gigabytes * 1e9 * _USED))
            steps: list[Answer] = []
            for name, do, disk, mode in (
                ("capture", "capture", device, ""),
                ("capture again", "capture", device, ""),
                ("restore", "restore", target, "plain"),
                ("restore again", "restore", target, "auto"),
            ):
                order = Order(do=do, device=str(disk), library=str(library), mode=mode)
                steps.append(clock.ours(f"{name}, {gigabytes} GB", order))
        first, again, _, delta = steps
        assert again.facts["new"] == 0, "an unchanged disk was stored again"
        assert delta.facts["written"] == 0, "a disk that was right was written"
        walls = (f"{step.wall_s:.2f} ({step.cpu_s:.2f})" for step in steps)
        memory = max(step.memory for step in steps) / 1e6
        rows.append(
            (
                f"{gigabytes} GB",
                f"{first.facts['used'] / 1e9:.2f}",
                f"{first.facts['stored'] / 1e6:.0f}",
                *walls,
                f"{memory:.0f}",
            )
        )
    lines = ["### Sizes (sparse ext4, walls with CPU seconds in brackets)", ""]
    head = ("disk", "used GB", "stored MB", "capture s", "unchanged s", "restore s", "already right s", "memory MB")
    return "\n".join((*lines, *report.table(head, rows))), True


def _write_text(device: Path, at: Path, wanted: int) -> None:
    """Files of 8 MB, no two alike; hexadecimal digits, so zstd halves them."""
    rng = random.Random(3)  # noqa: S311 - the same disk each time
    with disks.mounted(device, "ext4", at) as tree:
        for number in range(max(1, wanted // (8 * MB))):
            (tree / f"{number:05}.txt").write_text(rng.randbytes(4 * MB).hex())


def indexes(room: Path, args: argparse.Namespace) -> tuple[str, bool]:
    """What a capture and a restore load before they begin."""
    clock, count = Clock(), args.chunks
    rows, slowest = [], 0.0
    for what, name in (("known", "catalog: what the library has"), ("index", "index: what the image is")):
        library = room / what
        clock.ours(f"(make {what})", Order(do=f"make {what}", library=str(library), count=count), keep=False)
        steps = [clock.ours(f"load {what}", Order(do=f"load {what}", library=str(library))) for _ in range(args.rounds)]
        assert all(step.facts["chunks"] == count for step in steps), "chunks are missing"
        load_s = statistics.median(step.facts["load_s"] for step in steps)
        slowest = max(slowest, load_s)
        size = sum(one.stat().st_size for one in library.rglob("*") if one.is_file())
        miss = f"{statistics.median(step.facts['miss_s'] for step in steps) * 1e6:.1f}" if what == "known" else ""
        memory = max(step.memory for step in steps) / 1e6
        rows.append((name, f"{size / 1e6:.0f}", f"{load_s:.2f}", miss, f"{memory:.0f}"))
        shutil.rmtree(library)
    good = slowest < LOAD_GOAL_S
    said = f"aim: under {LOAD_GOAL_S:g} s" + ("" if good else ", missed")
    lines = [f"### Indexes of {count:,} chunks (cold disk, medians of {args.rounds}; {said})", ""]
    head = ("", "file MB", "load s", "a miss, µs", "memory MB, while loading")
    return "\n".join((*lines, *report.table(head, rows))), good


PARTS: dict[str, Callable[[Path, argparse.Namespace], tuple[str, bool]]] = {
    "threads": threads,
    "sizes": sizes,
    "index": indexes,
}


def main(argv: list[str]) -> int:
    """Measure and print; 1 when an index took too long to load."""
    parser = argparse.ArgumentParser(
        prog="python -m bench chunk-growth", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="of threads, sizes, index (default all)")
    parser.add_argument("--disk", type=int, default=3072, metavar="MB", help="of the threads' disk (default 3072)")
    parser.add_argument("--sizes", default="1,4,16,64", help="disks, GB (default 1,4,16,64)")
    parser.add_argument("--chunks", type=int, default=10_000_000, help="of an index (default 10000000)")
    parser.add_argument("--rounds", type=int, default=3, help="for threads and index (default 3)")
    parser.add_argument("--out", type=Path, help="a page that gets the tables too, such as docs/benchmarks.md")
    parser.add_argument("--dir", type=Path, help="a directory on a real disk with room for 12 GB")
    args = parser.parse_args(argv)
    try:
        args.sizes = [int(word) for word in args.sizes.split(",")]
        parts = [(name, PARTS[name]) for name in args.parts.split(",")]
    except (ValueError, KeyError) as exc:
        parser.error(f"{exc} is not understood")
    texts, good = [], True
    for name, measure in parts:
        with tempfile.TemporaryDirectory(prefix="litho-bench-", dir=args.dir) as made:
            text, fine = measure(Path(made), args)
        text = f"{text}\n\n{report.machine()}."
        texts.append(text)
        good = good and fine
        if args.out:
            report.keep(args.out, f"chunk-growth {name}", text)
    print("\n\n".join(texts))
    return 0 if good else 1
