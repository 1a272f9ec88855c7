"""How one run is timed, for measurements that compare programs: wall, CPU of the programs, and what others used meanwhile.

The page cache is dropped before a run, so that each begins with a cold disk. CPU seconds are of the programs, without the
kernel's loop threads. The seconds of CPU that others used in a run, and that the host of a virtual machine kept, are told with
it, for on a busy machine walls say little.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.orders import Answer, Order, machine_cpu
from litho import process
from litho_agent.mover import MEMORY


class Run(msgspec.Struct, kw_only=True):
    """One run of one contestant."""

    name: str
    wall_s: float
    cpu_s: float = 0.0
    others_s: float = 0.0
    stolen_s: float = 0.0
    size: int = 0
    """Bytes stored."""


class Clock:
    """All runs of a measurement, by name."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Run]] = {}
        self.memory = 0
        """Bytes resident at most in our runs."""

    def peer(self, name: str, work: Callable[[], None]) -> Run:
        """Run another program."""
        drop_caches()
        cpu, (busy, stolen), wall = children_cpu(), machine_cpu(), time.monotonic()
        work()
        wall_s, cpu_s = time.monotonic() - wall, children_cpu() - cpu
        all_s, kept_s = machine_cpu()
        run = Run(
            name=name,
            wall_s=wall_s,
            cpu_s=cpu_s,
            others_s=max(0.0, all_s - busy - cpu_s),
            stolen_s=kept_s - stolen,
        )
        return self.note(run, keep=True)

    def ours(self, name: str, order: Order, *, keep: bool = True) -> Answer:
        """Run the engine in its own process. What is not kept is a step between two runs, and no row."""
        drop_caches()
        words = (sys.executable, "-m", "bench.chunk_run", msgspec.json.encode(order).decode())
        done = process.run(words, timeout_s=3600, env={"PYTHONPATH": str(Path(__file__).parents[1]), **MEMORY})
        answer = msgspec.json.decode(done.out.encode(), type=Answer)
        run = Run(
            name=name,
            wall_s=answer.wall_s,
            cpu_s=answer.cpu_s,
            others_s=answer.others_s,
            stolen_s=answer.stolen_s,
            size=int(answer.facts.get("stored", 0)),
        )
        self.note(run, keep=keep)
        if keep:
            self.memory = max(self.memory, answer.memory)
        return answer

    def note(self, run: Run, *, keep: bool) -> Run:
        """Tell it, and keep it."""
        if keep:
            self.runs.setdefault(run.name, []).append(run)
        print(
            f"  {run.name:42} {run.wall_s:7.2f} s  CPU {run.cpu_s:6.2f} s  others {run.others_s:5.1f} s  "
            f"stolen {run.stolen_s:5.1f} s",
            file=sys.stderr,
        )
        return run


def drop_caches() -> None:
    """The page cache is empty afterwards."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def children_cpu() -> float:
    """CPU seconds of the children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def blank(device: Path) -> None:
    """The target holds nothing, and its blocks are there."""
    process.run(("blkdiscard", "-z", device), timeout_s=600)


def device_size(device: Path) -> int:
    """Bytes of a block device."""
    return int(process.run(("blockdev", "--getsize64", device)).out)
