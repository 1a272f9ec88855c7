"""What a run of the chunk engine is told and what it answers: JSON on both sides, so that it has a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from litho.library import Library
from litho.library.chunks import ChunkStore, index, indexfile
from litho.library.chunks.usedmap import GRAIN
from litho_agent.chunk.device import Device


class Order(msgspec.Struct, kw_only=True):
    """What to run."""

    do: str
    device: str = ""
    fs: str = "ext4"
    library: str = ""
    name: str = "v1"
    grain: int = GRAIN
    level: int = 1
    threads: int = 0
    mode: str = "plain"
    count: int = 0
    """Chunks of an index that is made."""
    after: str = ""
    """A version that the library has, for what only the difference to it costs."""


class Answer(msgspec.Struct, kw_only=True):
    """What it took."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    others_s: float = 0.0
    """CPU seconds that all others used meanwhile, the kernel's loop threads among them."""
    stolen_s: float = 0.0
    """CPU seconds that the machine's host kept for itself, part of them to move our bytes."""
    memory: int = 0
    """Bytes resident at most."""
    facts: dict[str, float] = {}


def load(order: Order) -> tuple[ChunkStore, index.Index]:
    """The library and the index of a version in it."""
    library = Library.open(Path(order.library))
    return ChunkStore(library), indexfile.load(index_file(order), what=order.name)


def index_file(order: Order) -> Path:
    """Where the version's index lies."""
    return named_index(order, order.name)


def named_index(order: Order, name: str) -> Path:
    """Where the index of another version lies."""
    return Path(order.library) / f"{name}.v1-sda1.chunks"


def packs(order: Order) -> list[Path]:
    """The packs that a version needs."""
    store, found = load(order)
    return [store.path(name, "pack") for name in found.packs]


def size(device: str) -> int:
    """Bytes of a device."""
    with Device(Path(device)) as disk:
        return disk.size


def machine_cpu() -> tuple[float, float]:
    """CPU seconds that all processes of the machine have used so far, and that its host kept from it."""
    words = Path("/proc/stat").read_text().split(maxsplit=9)
    ticks = os.sysconf("SC_CLK_TCK")
    return sum(int(words[i]) for i in (1, 2, 3, 6, 7)) / ticks, int(words[8]) / ticks
