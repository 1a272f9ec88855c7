"""The check of one disk against an image in chunks: is what lies there what was printed?

The disk is only read, and only where the image says that something lies. Every chunk is hashed and compared, so no second copy
and no list of files is needed; which chunks differ, and how much that is, is told partition by partition. A system that has
been started since always differs a little: it wrote logs, and the time of its last mount.
"""

from __future__ import annotations

import time

from litho import amounts
from litho.errors import IntegrityError, RefusedError
from litho.job import Job
from litho.library import Library, Manifest, Part, names
from litho.library.names import ImageRef
from litho.messages import Planned, Receipt, Started, Succeeded
from litho_agent.chunk import adapter
from litho_agent.chunk.readback import ReadBack, read_back
from litho_agent.disks import Disk, choose, facts, held, inventory
from litho_agent.gauges import Gauges
from litho_agent.layout import Table, read_layout
from litho_agent.mover import WorkOrder
from litho_agent.remote.opened import opened
from litho_agent.restore import Devices
from litho_agent.telling import Teller, check_cancelled
from litho_agent.windows import Windows


def compare(order: WorkOrder, teller: Teller) -> Succeeded:
    """Do `order`. Raises IntegrityError (code target-differs) when something is not what the image holds, and any other of the
    tree in `litho.errors`.
    """
    teller.enter("look")
    with opened(order, teller) as library:
        return _compare(library, order.job, teller)


def _compare(library: Library, job: Job, teller: Teller) -> Succeeded:
    began = time.monotonic()
    manifest = library.manifest(library.resolve(ImageRef(names.check_name(job.image), job.version)))
    parts = comparable(manifest)
    disk = choose(inventory.read(), job.disk, "capture", job.allow).require()
    with held(disk, write=False) as hold, Windows(sector_size=disk.logical, write=False) as windows:
        same_places(manifest, disk, read_layout(hold.path).table)
        devices = Devices(hold.path, manifest.parts, windows)
        total = sum(part.used for part in parts)
        steps = tuple(
            f"{title(part)}: {part.fs or 'unknown content'}, {part.used} bytes are compared" for part in parts
        )
        teller.say(Planned(disk=facts(disk), steps=steps, total=total))
        teller.expect(total=total, parts=len(parts))
        check_cancelled(teller)
        teller.say(Started())
        gauges = Gauges(teller, disk="disk read")
        found: list[tuple[Part, int, ReadBack]] = []
        for place, part in enumerate(parts, start=1):
            index = adapter.ready(library, part)
            gauge = gauges.transfer(place, part.used)
            seen = read_back(devices.of(part), index, tick=gauge.tick, cancelled=teller.cancelled)
            gauge.finish(0)
            found.append((part, index.total, seen))
    return judged(manifest, job, disk, found, seconds=time.monotonic() - began)


def comparable(manifest: Manifest) -> tuple[Part, ...]:
    """The parts of the image that can be compared. Raises RefusedError when a part that holds something cannot."""
    for part in manifest.parts:
        if part.kind == "stream" and not part.chunk_root:
            raise RefusedError(
                f"partition {part.number} of {manifest.image}:{manifest.version} is a stream of {part.engine}: only chunks can "
                "tell what lies where",
                hint="capture the image with --engine chunk",
                code="not-chunks",
            )
    return tuple(part for part in manifest.parts if part.kind == "stream")


def same_places(manifest: Manifest, disk: Disk, table: Table) -> None:
    """Raise IntegrityError unless every partition of the image begins where it should on the disk, and is as large at least."""
    if manifest.table == "none":
        return
    places = {one.number: (table.start_bytes(one), table.size_bytes(one)) for one in table.partitions}
    for part in manifest.parts:
        if part.within is not None:
            continue
        start, size = places.get(part.number, (-1, 0))
        if start != part.start or size < part.size:
            what = "is not there" if start < 0 else "lies elsewhere or is smaller"
            raise IntegrityError(
                f"{disk.name} does not hold {manifest.image}:{manifest.version}: its partition {part.number} {what}",
                code="target-differs",
            )


def judged(
    manifest: Manifest, job: Job, disk: Disk, found: list[tuple[Part, int, ReadBack]], *, seconds: float
) -> Succeeded:
    """The answer in words. Raises IntegrityError (code target-differs)."""
    said = []
    for part, total, seen in found:
        count = sum(extent.size for extent in seen.differing)
        if count:
            first = seen.differing[0].start
            said.append(f"{title(part)} differs in {amounts.of(count, total)}, from byte {first} on")
    if said:
        raise IntegrityError(
            f"{disk.name} does not hold what {manifest.image}:{manifest.version} does: {'; '.join(said)}",
            hint=f"a system that was started has written since; litho nodeset NODE osimage={job.image} makes it the same again",
            code="target-differs",
        )
    return Succeeded(
        image=manifest.image,
        version=manifest.version,
        used=manifest.used,
        stored=0,
        seconds=seconds,
        disk=facts(disk),
        os=manifest.os,
        notes=(f"every partition with content holds what {manifest.image}:{manifest.version} does",),
        receipts=tuple(
            Receipt(part=part.number, root=seen.root, right=total, read_back=True) for part, total, seen in found[:256]
        ),
    )


def title(part: Part) -> str:
    """How people call it."""
    return f"partition {part.number}" if part.within is None else f"volume {part.number} in partition {part.within}"
