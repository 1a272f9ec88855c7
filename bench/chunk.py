"""The chunk engine beside its peers: capture, restore, second capture and delta restore of the same disk, in the same minutes.

The disk is a preallocated file on a real disk behind a loop device with direct I/O, the page cache is dropped before each
run, and every run includes the sync of what it wrote. Rounds are interleaved: in each, every peer and ours run after each
other, and the ratios that count are the medians of the rounds' ratios. CPU seconds are of the programs, without the kernel's
loop threads; the seconds of CPU that others used in our runs are told, for on a busy machine walls say little.

The row "limit" is what the machine allows: the longest of reading the used bytes directly and packing them with zstd -1 on
all cores (capture), or of writing them and unpacking and checking them on all cores (restore), each measured by itself.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import zstandard

from bench import disks
from bench.chunk_run import Answer, Order
from litho import process
from litho.library.chunks.usedmap import UsedMap
from litho_agent.chunk.usage import used_map

KIB = 1024
MB = 1024 * 1024
GOALS = {
    "capture / limit": (1.25, "most"),
    "partclone|zstd / capture": (3.0, "least"),
    "partclone -a0|zstd / capture": (1.6, "least"),
    "partimage -z1 / capture": (12.0, "least"),
    "stored / zstd stream": (1.03, "most"),
    "restore / limit": (1.4, "most"),
    "zstd|partclone / restore": (6.0, "least"),
    "second stored / packed change at 64 KiB": (1.5, "most"),
    "second stored / change at 64 KiB": (1.5, "most"),
    "second capture / read": (1.3, "most"),
    "delta written / change at 64 KiB": (1.5, "most"),
    "memory MB": (400.0, "most"),
}


class Run(msgspec.Struct, kw_only=True):
    """One run of one contestant."""

    name: str
    wall_s: float
    cpu_s: float
    others_s: float
    size: int = 0
    """Bytes stored."""


class Bench:
    """One disk, its peers' images, our library."""

    def __init__(self, room: Path, fs: str, device: Path, second: Path, target: Path) -> None:
        self.room = room
        self.fs = fs
        self.device = device
        self.second = second
        self.target = target
        self.runs: dict[str, list[Run]] = {}
        self.ratios: dict[str, list[float]] = {}
        self.facts: dict[str, float] = {}

    # ------------------------------------------------------------ running

    def timed(self, name: str, work: Callable[[], None], size: Path | None = None) -> float:
        """Run a peer; its seconds."""
        drop_caches()
        cpu, busy, wall = children_cpu(), machine_cpu(), time.monotonic()
        work()
        run = Run(
            name=name,
            wall_s=time.monotonic() - wall,
            cpu_s=children_cpu() - cpu,
            others_s=0.0,
            size=size.stat().st_size if size else 0,
        )
        run.others_s = max(0.0, machine_cpu() - busy - run.cpu_s)
        self.note(run)
        return run.wall_s

    def ours(self, name: str, order: Order) -> Answer:
        """Run the engine in its own process."""
        drop_caches()
        busy = machine_cpu()
        words = (sys.executable, "-m", "bench.chunk_run", msgspec.json.encode(order).decode())
        done = process.run(words, timeout_s=3600, env={"PYTHONPATH": str(Path(__file__).parents[1])})
        answer = msgspec.json.decode(done.out.encode(), type=Answer)
        others = max(0.0, machine_cpu() - busy - answer.cpu_s)
        self.note(
            Run(
                name=name,
                wall_s=answer.wall_s,
                cpu_s=answer.cpu_s,
                others_s=others,
                size=int(answer.facts.get("stored", 0)),
            )
        )
        self.facts["memory MB"] = max(self.facts.get("memory MB", 0.0), answer.memory / 1e6)
        return answer

    def note(self, run: Run) -> None:
        """Keep it and tell it."""
        self.runs.setdefault(run.name, []).append(run)
        print(
            f"  {run.name:28} {run.wall_s:7.2f} s  CPU {run.cpu_s:6.2f} s  others {run.others_s:5.1f} s",
            file=sys.stderr,
        )

    def ratio(self, name: str, value: float) -> None:
        """Keep one round's ratio."""
        self.ratios.setdefault(name, []).append(value)

    def order(self, do: str, device: Path, **more: str) -> Order:
        """An order about our library."""
        return Order(do=do, device=str(device), fs=self.fs, library=str(self.room / "library"), **more)

    # ------------------------------------------------------------ a round

    def round(self, peers: list[str]) -> None:
        """Everything once."""
        shutil.rmtree(self.room / "library", ignore_errors=True)
        limits = self.ours("(limits of capture)", self.order("limits", self.device)).facts
        limit = max(limits["read_s"], limits["pack_s"])
        self.note(Run(name="limit: read", wall_s=limits["read_s"], cpu_s=0, others_s=0))
        self.note(Run(name="limit: zstd -1, all cores", wall_s=limits["pack_s"], cpu_s=0, others_s=0))
        saved = self.ours("chunk: capture", self.order("capture", self.device))
        walls = {name: self.capture_peer(name) for name in peers}
        self.ratio("capture / limit", saved.wall_s / limit)
        for name, wall in walls.items():
            self.ratio(f"{name} / capture", wall / saved.wall_s)
            self.ratio(f"{name} / capture, CPU seconds", self.runs[name][-1].cpu_s / saved.cpu_s)
        stored = saved.facts["stored"] + (self.room / "library" / "v1.v1-sda1.chunks").stat().st_size
        stream = self.room / "partclone.zst"
        if stream.exists():
            self.ratio("stored / zstd stream", stored / stream.stat().st_size)

        blank(self.target)
        done = self.ours("chunk: restore", self.order("restore", self.target, mode="plain"))
        if stream.exists():
            wall = self.timed("zstd|partclone: restore", lambda: self.unpack_partclone(stream))
            self.ratio("zstd|partclone / restore", wall / done.wall_s)
            cpu_s = self.runs["zstd|partclone: restore"][-1].cpu_s
            self.ratio("zstd|partclone / restore, CPU seconds", cpu_s / done.cpu_s)
            blank(self.target)
            self.ours("(v1 again)", self.order("restore", self.target, mode="plain"))

        second = self.ours("chunk: second capture", self.order("capture", self.second, name="v2"))
        read = self.ours("(read of v2)", self.order("verify", self.second, name="v2"))
        self.ratio("second capture / read", second.wall_s / read.wall_s)
        self.ratio("second stored / packed change at 64 KiB", second.facts["stored"] / self.facts["changed packed"])
        self.ratio("second stored / change at 64 KiB", second.facts["stored"] / self.facts["changed"])
        delta = self.ours("chunk: delta restore", self.order("restore", self.target, name="v2", mode="auto"))
        self.ratio("delta written / change at 64 KiB", delta.facts["written"] / self.facts["changed here"])
        checked = self.ours("chunk: read-back", self.order("verify", self.target, name="v2"))
        assert checked.facts["same"] == 1.0, "the restored disk is not the image"
        walls_of = self.ours("(limits of restore)", self.order("write_limits", self.target, name="v1")).facts
        self.note(Run(name="limit: write", wall_s=walls_of["write_s"], cpu_s=0, others_s=0))
        self.note(Run(name="limit: unpack, all cores", wall_s=walls_of["unpack_s"], cpu_s=0, others_s=0))
        self.ratio("restore / limit", done.wall_s / max(walls_of["write_s"], walls_of["unpack_s"]))

    def capture_peer(self, name: str) -> float:
        """Let a peer capture the disk."""
        program = {
            "ext4": "partclone.ext4",
            "ext3": "partclone.ext3",
            "xfs": "partclone.xfs",
            "ntfs": "partclone.ntfs",
        }[self.fs]
        clone = (program, "-c", "-q", "-s", str(self.device), "-o", "-", "-L", "/dev/null")
        if name == "dd":
            out = self.room / "dd.raw"
            words = ("dd", f"if={self.device}", f"of={out}", "bs=4M", "iflag=direct", "oflag=direct", "status=none")
            wall = self.timed("dd", lambda: void(process.run(words, timeout_s=None)), None)
            out.unlink()
            return wall
        if name == "partimage -z1":
            out = self.room / "partimage.gz"
            words = (
                "partimage",
                "-B",
                "x=y",
                "-z1",
                "-V0",
                "-f3",
                "-o",
                "-d",
                "-M",
                "-c",
                "save",
                str(self.device),
                str(out),
            )
            return self.timed(name, lambda: void(process.run(words, timeout_s=None)), out)
        pipes = {
            "partclone|zstd": (clone, ("zstd", "-1", "-T0", "-q", "-c"), "partclone.zst"),
            "partclone -a0|zstd": ((*clone, "-a0"), ("zstd", "-1", "-T0", "-q", "-c"), "partclone-a0.zst"),
            "partclone|pigz": (clone, ("pigz", "--fast", "-b", "1024", "--rsyncable", "-c"), "partclone.gz"),
        }
        first, last, file = pipes[name]
        return self.timed(name, lambda: pipe(first, last, self.room / file), self.room / file)

    def unpack_partclone(self, stream: Path) -> None:
        """`zstd -dc | partclone.restore`, synced."""
        restore = ("partclone.restore", "-q", "-s", "-", "-O", str(self.target), "-L", "/dev/null")
        with (
            process.start(("zstd", "-q", "-dc", stream), stdout=subprocess.PIPE) as head,
            process.start(restore, stdin=head.stdout) as last,
        ):
            assert head.stdout is not None
            head.stdout.close()
            codes = head.wait(), last.wait()
        assert codes == (0, 0), codes
        process.run(("blockdev", "--flushbufs", self.target), timeout_s=None)

    # ------------------------------------------------------------ what changed

    def measure_change(self) -> None:
        """Bytes of version 2's 64 KiB pieces that version 1 does not have: raw, packed, and against the same place."""
        grain = 64 * KIB
        old, old_at = pieces(self.device, self.fs, grain)
        zstd = zstandard.ZstdCompressor(level=1)
        size = device_size(self.second)
        used = used_map(self.second, self.fs, size)
        seen: set[bytes] = set()
        changed = packed = here = 0
        with self.second.open("rb") as file:
            for number in used.chunks(grain):
                data = piece(file.fileno(), used, number, grain, size)
                digest = hashlib.blake2b(data, digest_size=16).digest()
                if old_at.get(number) != digest:
                    here += len(data)
                if digest not in old and digest not in seen and any(data):
                    seen.add(digest)
                    changed += len(data)
                    packed += len(zstd.compress(data))
        self.facts.update({"changed": changed, "changed packed": packed, "changed here": here, "used": used.used})


def pieces(device: Path, fs: str, grain: int) -> tuple[set[bytes], dict[int, bytes]]:
    """Hashes of a disk's used pieces, and by place."""
    size = device_size(device)
    used = used_map(device, fs, size)
    with device.open("rb") as file:
        at = {
            number: hashlib.blake2b(piece(file.fileno(), used, number, grain, size), digest_size=16).digest()
            for number in used.chunks(grain)
        }
    return set(at.values()), at


def piece(fd: int, used: UsedMap, number: int, grain: int, size: int) -> bytes:
    """One piece of a disk, unused bytes as zeros."""
    low = number * grain
    data = bytearray(min(grain, size - low))
    for extent in used.within(low, low + len(data)):
        data[extent.start - low : extent.end - low] = os.pread(fd, extent.size, extent.start)
    return bytes(data)


def pipe(first: process.Argv, last: process.Argv, out: Path) -> None:
    """`first | last > out`, synced."""
    with (
        out.open("wb", buffering=0) as file,
        process.start(first, stdout=subprocess.PIPE) as head,
        process.start(last, stdin=head.stdout, stdout=file) as tail,
    ):
        assert head.stdout is not None
        head.stdout.close()
        codes = head.wait(), tail.wait()
        os.fsync(file.fileno())
    assert codes == (0, 0), codes


def void(_: object) -> None:
    """Nothing is answered."""


def blank(device: Path) -> None:
    """The target holds nothing, and its blocks are there."""
    process.run(("blkdiscard", "-z", device), timeout_s=600)


def device_size(device: Path) -> int:
    return int(process.run(("blockdev", "--getsize64", device)).out)


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def machine_cpu() -> float:
    """Seconds that all processes of the machine have used so far."""
    words = Path("/proc/stat").read_text().split(maxsplit=9)
    return sum(int(words[i]) for i in (1, 2, 3, 6, 7)) / os.sysconf("SC_CLK_TCK")


def table(bench: Bench, rounds: int) -> str:
    """For people, in Markdown."""
    lines = [
        f"{bench.fs}, {bench.facts['used'] / 1e9:.2f} GB used; medians of {rounds} interleaved rounds",
        "",
        "| run | wall s | CPU s | others' CPU s | wall s, quietest run | stored MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in bench.runs.items():
        if not name.startswith("("):
            middle = [statistics.median(getattr(run, key) for run in runs) for key in ("wall_s", "cpu_s", "others_s")]
            size = f"{runs[-1].size / 1e6:.0f}" if runs[-1].size else ""
            quiet = min(runs, key=lambda run: run.others_s)
            lines.append(
                f"| {name} | {middle[0]:.2f} | {middle[1]:.2f} | {middle[2]:.1f} "
                f"| {quiet.wall_s:.2f} ({quiet.others_s:.1f}) | {size} |"
            )
    lines += ["", "| ratio | median | goal | |", "|---|---|---|---|"]
    found = {name: statistics.median(values) for name, values in bench.ratios.items()}
    found["memory MB"] = bench.facts["memory MB"]
    for name, value in found.items():
        goal = GOALS.get(name)
        said = f"at {goal[1]} {goal[0]:g}" if goal else ""
        lines.append(f"| {name} | {value:.2f} | {said} | {'' if goal is None or met(value, goal) else 'missed'} |")
    lines.append("")
    lines.append(
        f"Changed in version 2 at 64 KiB: {bench.facts['changed'] / 1e6:.0f} MB new "
        f"({bench.facts['changed packed'] / 1e6:.0f} MB packed), "
        f"{bench.facts['changed here'] / 1e6:.0f} MB against the same place."
    )
    return "\n".join(lines)


def met(value: float, goal: tuple[float, str]) -> bool:
    return value <= goal[0] if goal[1] == "most" else value >= goal[0]


def main(argv: list[str]) -> int:
    """Measure and print; 1 when a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench chunk", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=6144, metavar="MB", help="of the disk, 60 %% full (default 6144)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--fs", default="ext4", choices=("ext4", "ext3", "xfs", "ntfs"))
    parser.add_argument(
        "--peers", default="", help="of dd, partclone|zstd, partclone -a0|zstd, partclone|pigz, partimage -z1"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--dir", type=Path, default=None, help="a directory on a real disk with room for five times the size"
    )
    args = parser.parse_args(argv)
    usual = ["partclone|zstd", "partclone -a0|zstd", "dd", *(["partimage -z1"] if args.fs == "ext3" else [])]
    peers = args.peers.split(",") if args.peers else usual
    with tempfile.TemporaryDirectory(prefix="litho-bench-", dir=args.dir) as made:
        room = Path(made)
        with disks.loop(room / "v1.img", size=args.size * MB) as device:
            disks.make(device, args.fs, room / "mnt", size=args.size * MB)
        shutil.copyfile(room / "v1.img", room / "v2.img")
        with disks.loop(room / "v2.img") as device:
            disks.change(device, args.fs, room / "mnt")
        with (
            disks.loop(room / "v1.img") as device,
            disks.loop(room / "v2.img") as second,
            disks.loop(room / "target.img", size=args.size * MB) as target,
        ):
            bench = Bench(room, args.fs, device, second, target)
            bench.measure_change()
            for number in range(args.rounds):
                print(f"round {number + 1}", file=sys.stderr)
                bench.round(peers)
    if args.json:
        print(
            json.dumps(
                {"runs": msgspec.to_builtins(bench.runs), "ratios": bench.ratios, "facts": bench.facts}, indent=1
            )
        )
    else:
        print(table(bench, args.rounds))
    medians = {name: statistics.median(values) for name, values in bench.ratios.items()}
    return 0 if all(met(value, GOALS[name]) for name, value in medians.items() if name in GOALS) else 1
