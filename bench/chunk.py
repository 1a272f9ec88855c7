"""The chunk engine beside its peers: capture, restore, second capture and delta restore of the same disk, in the same minutes.

The disk is a preallocated file on a real disk behind a loop device with direct I/O, the page cache is dropped before each
run, and every run includes the sync of what it wrote. Rounds are interleaved: in each, every peer and ours run after each
other, and the ratios that count are the medians of the rounds' ratios. Peers that take a minute and more run in the first
round only, unless `--slow-rounds` says otherwise; the column "times" tells.

The rows "limit" are what the machine allows (`bench.limits`): each part of the work alone, and all that cannot be left out, at
once. A capture's limit is the longest of these; a restore's and a second capture's are held against parts alone, and the row
"at once" is told beside them.

A capture is followed by reading back what it stored, as an agent does before it says success: a row of its own, because no peer
does it. The second capture then finds a library that is known to be whole, as an agent does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench import change, disks, report
from bench.clock import Clock, Run, blank
from bench.orders import Answer, Order
from bench.peers import Peer, Place, chosen, remove, size_of
from litho.library.chunks.usedmap import GRAIN

MB = 1024 * 1024
GAPS = {"ntfs": GRAIN}
"""Bytes of chunks that may differ after a peer's restore: partclone does not save the last sector of an NTFS."""


class Bench:
    """One disk, its peers' images, our library."""

    def __init__(self, place: Place, second: Path, changed: change.Change) -> None:
        self.place = place
        self.second = second
        self.changed = changed
        self.clock = Clock()
        self.checked: set[str] = set()
        """Peers whose restored disk was compared."""
        self.wrong: dict[str, int] = {}
        """Bytes of chunks that were other than before, after the restore of a peer."""
        self.map_s: list[float] = []
        self.ratios: dict[str, list[float]] = {}

    def medians(self) -> dict[str, float]:
        """Of each ratio, and the memory."""
        found = {name: statistics.median(values) for name, values in self.ratios.items()}
        return {**found, "memory MB": self.clock.memory / 1e6}

    def round(self, peers: Sequence[Peer]) -> None:
        """Everything once."""
        shutil.rmtree(self._library, ignore_errors=True)
        self._captures(peers)
        self._restores(peers)
        self._versions()
        for peer in peers:
            remove(self.place.room / peer.file)

    def _captures(self, peers: Sequence[Peer]) -> None:
        limits = self._ours("(limits of capture)", self.place.device, "limits").facts
        self._limit("limit: read", limits["read_s"])
        self._limit("limit: zstd -1, all cores", limits["pack_s"])
        saved = self._ours("chunk: capture", self.place.device, "capture")
        self.map_s.append(saved.facts["map_s"])
        bare = self._ours("(bare pipe)", self.place.device, "bare").facts["bare_s"]
        self._limit("limit: read, zstd -1, write, at once", bare)
        longest = max(limits["read_s"], limits["pack_s"])
        self._ratio("capture / limit", saved.wall_s / max(longest, bare))
        self._ratio("capture / the longest part alone", saved.wall_s / longest)
        self._ours("chunk: read back what was stored", self.place.device, "check")
        stored = saved.facts["stored"] + (self._library / "v1.v1-sda1.chunks").stat().st_size
        for peer in peers:
            image = self.place.room / peer.file
            run = self.clock.peer(peer.name, lambda peer=peer, image=image: peer.capture(self.place, image))  # type: ignore[misc]
            run.size = size_of(image)
            self._pair(f"{peer.name} / capture", run, saved)
            if peer.name == "partclone|zstd":
                self._ratio("stored / zstd stream", stored / run.size)

    def _restores(self, peers: Sequence[Peer]) -> None:
        blank(self.place.target)
        limits = self._ours("(limits of restore)", self.place.target, "write_limits").facts
        parts = {"write": "write_s", "unpack and check, all cores": "unpack_s", "read the packs": "packs_s"}
        for what, key in parts.items():
            self._limit(f"limit: {what}", limits[key])
        blank(self.place.target)
        ours = self._ours("chunk: restore", self.place.target, "restore", mode="plain")
        self._ratio("restore / its limit", ours.wall_s / max(limits[key] for key in parts.values()))
        blank(self.place.target)
        bare = self._ours("(bare pipe)", self.place.target, "bare restore").facts["bare_s"]
        self._limit("limit: read the packs, unpack, write, at once", bare)
        self._ratio("restore / all at once", ours.wall_s / bare)
        for peer in peers:
            restore = peer.restore
            if restore is None:
                continue
            blank(self.place.target)
            image = self.place.room / peer.file
            run = self.clock.peer(
                f"{peer.restored}: restore",
                lambda restore=restore, image=image: restore(self.place, image),  # type: ignore[misc]
            )
            self._pair(f"{peer.restored} / restore", run, ours)
            if peer.blocks and peer.name not in self.checked:
                self.checked.add(peer.name)
                found = self._ours(f"({peer.restored}: read-back)", self.place.target, "verify").facts["differing"]
                if found > GAPS.get(self.place.fs, 0):
                    self.wrong[peer.restored] = int(found)

    def _versions(self) -> None:
        blank(self.place.target)
        self._ours("(v1 again)", self.place.target, "restore", mode="plain")
        second = self._ours("chunk: second capture", self.second, "capture", name="v2")
        read = self._ours("(read of v2)", self.second, "verify", name="v2")
        self._ratio("second capture / read", second.wall_s / read.wall_s)
        bare = self._ours("(bare pipe of what is new)", self.second, "bare", after="v1").facts["bare_s"]
        self._limit("limit: read v2, hash, zstd -1 and write what is new, at once", bare)
        self._ratio("second capture / all at once", second.wall_s / bare)
        self._ratio("second stored / packed change at 64 KiB", second.facts["stored"] / self.changed.packed)
        self._ratio("second stored / change at 64 KiB", second.facts["stored"] / self.changed.new)
        delta = self._ours("chunk: delta restore", self.place.target, "restore", name="v2", mode="auto")
        self._ratio("delta written / change at 64 KiB", delta.facts["written"] / self.changed.here)
        checked = self._ours("chunk: read-back", self.place.target, "verify", name="v2")
        assert checked.facts["same"] == 1.0, "the restored disk is not the image"

    # ------------------------------------------------------------ steps

    @property
    def _library(self) -> Path:
        return self.place.room / "library"

    def _ours(self, row: str, device: Path, do: str, **more: str | bool | int) -> Answer:
        words = {"do": do, "device": str(device), "fs": self.place.fs, "library": str(self._library), **more}
        return self.clock.ours(row, msgspec.convert(words, Order), keep=not row.startswith("("))

    def _limit(self, name: str, wall_s: float) -> None:
        self.clock.note(Run(name=name, wall_s=wall_s), keep=True)

    def _pair(self, name: str, peer: Run, ours: Answer) -> None:
        self._ratio(name, peer.wall_s / ours.wall_s)
        self._ratio(name + report.CPU, peer.cpu_s / ours.cpu_s)

    def _ratio(self, name: str, value: float) -> None:
        self.ratios.setdefault(name, []).append(value)


def told(bench: Bench, size: int, rounds: int, part: str) -> str:
    """For people, in Markdown; `part` stands behind the file system when it is measured more than once."""
    changed, fs = bench.changed, bench.place.fs
    lines = [
        f"## {f'{fs} {part}'.strip()}: {changed.used / 1e9:.2f} GB used of {size / 1e9:.2f} GB",
        "",
        f"{report.machine()}. Interleaved rounds: {rounds}; walls and CPU seconds are medians of the times told. CPU seconds of "
        "programs, others' with the kernel's loop threads.",
    ]
    if fs == "ext4":
        lines[-1] += " partimage knows no ext4: its rows are of an ext3 with the same files."
    lines += ["", *report.run_table(bench.clock.runs), "", *report.ratio_table(bench.medians()), ""]
    lines.append(
        f"Changed in version 2 at 64 KiB: {changed.new / 1e6:.0f} MB new ({changed.packed / 1e6:.0f} MB packed), "
        f"{changed.here / 1e6:.0f} MB against the same place. Of a capture, {statistics.median(bench.map_s):.2f} s are the "
        "map of what is used."
    )
    lines += [
        f"After the restore of {name}, chunks of {count} bytes held other bytes." for name, count in bench.wrong.items()
    ]
    return "\n".join(lines)


def measure(room: Path, fs: str, args: argparse.Namespace) -> Bench:
    """All rounds of one file system, on disks that are made for it."""
    size, peers = args.size * MB, chosen(args.peers, fs)
    twinned = fs == "ext4" and any(peer.name == "partimage -z1" for peer in peers)
    v1, v2, twin = room / "v1.img", room / "v2.img", room / "twin.img"
    with disks.loop(v1, size=size) as device:
        disks.make(device, fs, room / "mnt", size=size)
    shutil.copyfile(v1, v2)
    with disks.loop(v2) as device:
        disks.change(device, fs, room / "mnt")
    if twinned:
        with disks.loop(twin, size=size) as device:
            disks.make(device, "ext3", room / "mnt", size=size)
    with (
        disks.loop(v1) as device,
        disks.loop(v2) as second,
        disks.loop(twin if twinned else v1) as other,
        disks.loop(room / "target.img", size=size) as target,
    ):
        place = Place(fs=fs, device=device, twin=other, target=target, room=room)
        bench = Bench(place, second, change.measured(device, second, fs))
        for number in range(args.rounds):
            print(f"{fs}, round {number + 1}", file=sys.stderr)
            bench.round([peer for peer in peers if not peer.slow or number < args.slow_rounds])
    return bench


def main(argv: list[str]) -> int:
    """Measure and print; 1 when a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench chunk", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=6144, metavar="MB", help="of the disk, 60 %% full (default 6144)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--slow-rounds", type=int, default=1, help="of these, with the slow peers (default 1)")
    parser.add_argument("--fs", default="ext4", help="of ext4, ext3, xfs, ntfs, separated by commas (default ext4)")
    parser.add_argument(
        "--peers",
        default="",
        help="of partclone|zstd, partclone -a0|zstd, dd, and the slow partclone|pigz, partimage -z1, fsarchiver, casync, "
        "separated by commas (default: all that know the file system)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, help="a page that gets the tables too, such as docs/benchmarks.md")
    parser.add_argument("--part", default="", help="what the page's part is called beside the file system")
    parser.add_argument("--dir", type=Path, help="a directory on a real disk with room for seven times the size")
    args = parser.parse_args(argv)
    systems = args.fs.split(",")
    try:
        for fs in systems:
            chosen(args.peers, fs)
            if fs not in disks.KNOWN:
                raise ValueError(f"there is no disk with {fs!r}; there are: {', '.join(disks.KNOWN)}")
    except ValueError as exc:
        parser.error(str(exc))
    good = True
    for fs in systems:
        with tempfile.TemporaryDirectory(prefix="litho-bench-", dir=args.dir) as made:
            bench = measure(Path(made), fs, args)
        text = told(bench, args.size * MB, args.rounds, args.part)
        if args.json:
            whole = {"fs": fs, "runs": msgspec.to_builtins(bench.clock.runs), "ratios": bench.ratios}
            print(json.dumps({**whole, "changed": msgspec.to_builtins(bench.changed)}, indent=1))
        else:
            print(text, end="\n\n")
        if args.out:
            report.keep(args.out, f"chunk {fs} {args.part}".strip(), text)
        good = good and report.all_met(bench.medians())
    return 0 if good else 1
