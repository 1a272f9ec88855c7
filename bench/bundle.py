"""What a bundle costs over plain `tar`: export against `tar` with the same packer, import against unpacking.

Four cases: a captured disk and a netboot image, packed with gzip (the default) and with zstd. The plain side does what must
be done without us, and no less: `tar` packs or unpacks the same files with `gzip -6` or `zstd -3`; for the netboot image
the root image is expanded as well (`zcat | cpio -idm`); and what was unpacked is synced (`sync -f`), because an import that
has answered survives a power cut. Ours also hashes everything, checks every name and hash, and writes the rows. Rounds are
interleaved and their order changes; the figure that counts is the median of the rounds' ratios. The files are compressed
already, as real ones are.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import hashlib
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from litho import process
from litho.library import Library, Owner, Stage
from litho.library.manifest import FileRef, Manifest, Part
from litho.messages import DiskFacts
from litho_controller.bundle import exporting
from litho_controller.bundle import site as site_of
from litho_controller.bundle.importing import Importer
from litho_controller.bundle.requests import ExportRequest, ImportRequest
from litho_controller.store import Store
from litho_controller.tables import rows

GOAL = 1.2
"""Export and import may take this many times the wall seconds of plain tar."""
MIB = 1024 * 1024
PACKERS = {"tgz": ("gzip", "-6"), "tar.zst": ("zstd", "-q", "-3")}


class Cost(msgspec.Struct, frozen=True):
    """Of one run."""

    wall_s: float
    cpu_s: float


class Row(msgspec.Struct, frozen=True):
    """One line of the table. Seconds are those of the quietest run of each side."""

    image: str
    packing: str
    action: str
    megabytes: int
    ours_s: float
    tar_s: float
    ratio: float
    """Of the quietest run of each."""
    median_ratio: float
    """Of the rounds' ratios."""
    ours_cpu_s: float
    tar_cpu_s: float
    rounds: int


class Place:
    """A site to export from or to import to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.install = root / "install"

    async def open(self) -> None:
        self.install.mkdir(parents=True)
        (self.root / "state").mkdir()
        self.library = Library.create(self.root / "library")
        self.store = await Store.open(f"sqlite+aiosqlite:///{self.root / 'state/db'}")
        async with self.store.write() as conn:
            await rows.put(conn, "site", "installdir", {"value": str(self.install)})

    async def export(self, name: str, tarball: Path) -> None:
        async with self.store.read() as conn:
            site = site_of.parse(await rows.column(conn, "site", "value"))
            cells = [await rows.get(conn, table, name) for table in ("osimage", "linuximage")]
        request = ExportRequest(name=name, tarball=str(tarball), replace=True)
        await asyncio.to_thread(exporting.export, request, *cells, site=site, library=self.library)

    async def take(self, tarball: Path) -> None:
        importer = Importer(self.store, self.library, self.root / "state")
        await importer.run(ImportRequest(tarball=str(tarball)))

    async def close(self) -> None:
        await self.store.close()


def main(argv: list[str]) -> int:
    """Measure and print; 1 when a ratio is over the goal."""
    parser = argparse.ArgumentParser(prog="python -m bench bundle", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, metavar="MB", help="size of the image (default 1024)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds, at least 3 (default 3)")
    parser.add_argument("--packing", choices=sorted(PACKERS), action="append", help="only this one; may be repeated")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--dir", type=Path, default=None, help="where everything is made")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="litho-bench-", dir=args.dir) as made:
        found = asyncio.run(measure(Path(made), args.size, max(3, args.rounds), args.packing or list(PACKERS)))
    print(json.dumps([msgspec.to_builtins(row) for row in found], indent=1) if args.json else table(found))
    return int(any(row.median_ratio > GOAL for row in found))


async def measure(root: Path, size: int, rounds: int, packings: list[str]) -> list[Row]:
    source = Place(root / "source")
    await source.open()
    found: list[Row] = []
    try:
        captured = await make_captured(source, size)
        netboot = await make_netboot(source, size)
        for image, folder, files in (("captured", *captured), ("netboot", *netboot)):
            for ending in packings:
                found += await one_case(root, source, image, folder, files, ending, size, rounds)
    finally:
        await source.close()
    return found


async def one_case(  # noqa: PLR0917 - one measurement has that many sides
    root: Path, source: Place, image: str, folder: Path, files: list[str], ending: str, size: int, rounds: int
) -> list[Row]:
    ours, plain = root / f"ours.{ending}", root / f"plain.{ending}"
    packer = process.pasteable(PACKERS[ending])
    unpacked = root / "unpacked"

    async def export_ours() -> None:
        await source.export(image, ours)

    async def export_plain() -> None:
        plain.unlink(missing_ok=True)
        names = process.pasteable(files)
        shell(f"tar -C {folder} -cf - {names} | {packer} > {plain} && sync {plain}")

    async def import_plain() -> None:
        unpacked.mkdir()
        expand = (
            "&& mkdir rootimg && cd rootimg && zcat ../rootimg.gz | cpio -idm --quiet" if image == "netboot" else ""
        )
        shell(f"cd {unpacked} && {packer.split()[0]} -dc {plain} | tar -xf - {expand} && sync -f {unpacked}")

    async def import_ours() -> None:
        await target.take(ours)

    pairs: dict[str, list[list[Cost]]] = {"export": [], "import": []}
    for number in range(rounds):
        # Who goes first changes from round to round.
        turns: list[tuple[int, Callable[[], Awaitable[None]]]] = [(0, export_ours), (1, export_plain)]
        pairs["export"].append(await timed(turns, flip=number % 2 == 1))
        target = Place(root / "target")
        await target.open()
        turns = [(0, import_ours), (1, import_plain)]
        pairs["import"].append(await timed(turns, flip=number % 2 == 1))
        await target.close()
        shutil.rmtree(target.root)
        shutil.rmtree(unpacked)
    for path in (ours, plain):
        path.unlink()
    return [
        Row(
            image=image,
            packing=ending,
            action=action,
            megabytes=size,
            ours_s=min(ours.wall_s for ours, _ in costs),
            tar_s=min(tar.wall_s for _, tar in costs),
            ratio=min(ours.wall_s for ours, _ in costs) / min(tar.wall_s for _, tar in costs),
            median_ratio=statistics.median(ours.wall_s / tar.wall_s for ours, tar in costs),
            ours_cpu_s=min(ours.cpu_s for ours, _ in costs),
            tar_cpu_s=min(tar.cpu_s for _, tar in costs),
            rounds=rounds,
        )
        for action, costs in pairs.items()
    ]


async def timed(turns: list[tuple[int, Callable[[], Awaitable[None]]]], *, flip: bool) -> list[Cost]:
    found = [Cost(0.0, 0.0), Cost(0.0, 0.0)]
    for which, work in reversed(turns) if flip else turns:
        # What the last one left to be written is not the next one's business.
        os.sync()
        begun, cpu = time.monotonic(), cpu_s()
        await work()
        found[which] = Cost(time.monotonic() - begun, cpu_s() - cpu)
    return found


def cpu_s() -> float:
    """CPU seconds of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def shell(line: str) -> None:
    process.run(["bash", "-o", "pipefail", "-c", line], timeout_s=3600.0)


# ---------------------------------------------------------------- images


async def make_captured(place: Place, size: int) -> tuple[Path, list[str]]:
    """A captured disk with one part of `size` MiB that does not compress any further."""
    with Stage.open(place.library, "captured", Owner(session="bench")) as stage:
        digest = hashlib.sha256()
        with stage.create("sda1.partclone.zst") as file:
            for _ in range(size):
                block = os.urandom(MIB)
                digest.update(block)
                file.write(block)
        part = FileRef(file=stage.file_name("sda1.partclone.zst"), bytes=size * MIB, sha256=digest.hexdigest())
        stage.publish(
            Manifest(
                image="captured",
                version=stage.version,
                created="2026-11-22T16:00:00Z",
                software="bench",
                disk=DiskFacts(path="/dev/sda", size=size * MIB * 4),
                disk_name="sda",
                table="none",
                parts=(
                    Part(
                        number=0,
                        kind="stream",
                        start=0,
                        size=size * MIB * 4,
                        engine="partclone",
                        compression="zstd",
                        data=part,
                        used=size * MIB,
                        stream_bytes=size * MIB,
                        stream_sha256=digest.hexdigest(),
                    ),
                ),
            )
        )
    await define(place, "captured", {"provmethod": "install"}, {})
    return place.library.root, [part.file, "captured.v1.json"]


async def make_netboot(place: Place, size: int) -> tuple[Path, list[str]]:
    """A netboot image whose root image has `size` MiB packed: files of many sizes, copied from /usr, then noise."""
    home = place.install / "netboot/linux/x86_64/netboot"
    tree = place.root / "tree"
    tree.mkdir(parents=True)
    home.mkdir(parents=True)
    with contextlib.suppress(OSError):
        shutil.copytree("/usr/lib/python3.11", tree / "python", symlinks=True)
    shell(f"cd {tree} && find . | cpio -o -H newc --quiet | gzip -1 > {home}/small.gz")
    left = size - (home / "small.gz").stat().st_size // MIB
    (home / "small.gz").unlink()
    for number in range(max(1, left // 8)):
        (tree / f"noise{number}").write_bytes(os.urandom(8 * MIB))
    shell(f"cd {tree} && find . | cpio -o -H newc --quiet | gzip -1 > {home}/rootimg.gz")
    shutil.rmtree(tree)
    (home / "kernel").write_bytes(os.urandom(10 * MIB))
    (home / "initrd-stateless.gz").write_bytes(gzip.compress(os.urandom(30 * MIB), 1))
    await define(place, "netboot", {"provmethod": "netboot"}, {"rootimgdir": str(home)})
    return home, ["kernel", "initrd-stateless.gz", "rootimg.gz"]


async def define(place: Place, name: str, osimage: dict[str, str], linuximage: dict[str, str]) -> None:
    cells = {"profile": name, "imagetype": "linux", "osvers": "linux", "osarch": "x86_64", **osimage}
    async with place.store.write() as conn:
        await rows.put(conn, "osimage", name, cells)
        await rows.put(conn, "linuximage", name, linuximage)


def table(found: list[Row]) -> str:
    """The rows for a person."""
    head = ("image", "packing", "action", "ours", "tar", "ratio", "median", "CPU", "CPU tar")
    lines = ["{:9} {:8} {:7} {:>7} {:>7} {:>6} {:>7} {:>7} {:>8}".format(*head)]
    lines += [
        f"{row.image:9} {row.packing:8} {row.action:7} {row.ours_s:6.2f}s {row.tar_s:6.2f}s {row.ratio:6.2f} "
        f"{row.median_ratio:7.2f} {row.ours_cpu_s:6.2f}s {row.tar_cpu_s:7.2f}s"
        f"{'' if row.median_ratio <= GOAL else f'   over the goal of {GOAL}'}"
        for row in found
    ]
    return "\n".join([*lines, f"{found[0].megabytes} MiB, the quietest of {found[0].rounds} rounds"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
