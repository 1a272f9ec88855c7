"""What the stages of all transfers of a job have done together, so that it can be said which of them limits the job.

A pipeline tells of its own stages, from zero, ten times a second. A job runs several, one after the other and some at the same
time; here their counts are added up by the stages' names, and the sum goes to the job's `Teller`.

The stage "engine" only knows that it waited for the engine's process. Whether that was computing or waiting for the disk itself
is what its processor time tells: that much of the wait is the engine's, and the rest is the disk's.
"""

from __future__ import annotations

import threading

from litho.progress import StageWork
from litho_agent.flow import StageRate
from litho_agent.telling import Teller
from litho_agent.transfer import Watch

Work = dict[str, StageWork]


def work_of(stages: tuple[StageRate, ...], engine_cpu_s: float, *, disk: str) -> Work:
    """The work of one transfer, its stage "engine" split into what computed and `disk`, which was waited for. Pure.

    The disk stands where the stream meets it: before an engine that comes first, behind one that comes last.
    """
    found: Work = {}
    for place, stage in enumerate(stages):
        if stage.name != "engine":
            found[stage.name] = StageWork(stage.bytes, stage.busy_s)
            continue
        computing_s = min(engine_cpu_s, stage.busy_s)
        pair = {
            disk: StageWork(stage.bytes, stage.busy_s - computing_s),
            "engine": StageWork(stage.bytes, computing_s),
        }
        found.update(pair if place == 0 else dict(reversed(pair.items())))
    if "sync" in found:
        # The last of the restored bytes go to the disk while nothing else is left to do.
        last, before = found.pop("sync"), found.get(disk, StageWork(0, 0.0))
        found[disk] = StageWork(before.bytes, before.busy_s + last.busy_s)
    return found


def total(works: list[Work]) -> Work:
    """The sum, by name, in the order in which the names first come. Pure."""
    found: Work = {}
    for work in works:
        for name, one in work.items():
            before = found.get(name, StageWork(0, 0.0))
            found[name] = StageWork(before.bytes + one.bytes, before.busy_s + one.busy_s)
    return found


class Gauges:
    """The sum over a job's transfers, which may run in several threads."""

    def __init__(self, teller: Teller, *, disk: str) -> None:
        """`disk` is what the stage beside the engine is called: "disk read" or "disk write"."""
        self._teller = teller
        self._disk = disk
        self._lock = threading.Lock()
        self._transfers: list[Gauge] = []

    def transfer(self, part: int, used: int) -> Gauge:
        """A transfer begins: partition `part`, from 1, with `used` bytes of used data."""
        gauge = Gauge(self, part, used)
        with self._lock:
            self._transfers.append(gauge)
        self._teller.enter("partition", part=part)
        return gauge

    def tell(self, gauge: Gauge) -> None:
        """The counts of `gauge` have changed."""
        with self._lock:
            done = sum(one.done for one in self._transfers)
            stored = sum(one.stored for one in self._transfers)
            self._teller.moved(done, stored=stored)
            self._teller.part(gauge.part, gauge.done if gauge.over else min(gauge.done, gauge.used - 1), gauge.used)

    def watch(self) -> None:
        """The work of some stage has changed."""
        with self._lock:
            self._teller.working(total([one.work for one in self._transfers]))

    @property
    def disk(self) -> str:
        """What the stage beside the engine is called."""
        return self._disk


class Gauge:
    """One transfer's counts. Told by one thread."""

    def __init__(self, gauges: Gauges, part: int, used: int) -> None:
        self._gauges = gauges
        self.part = part
        self.used = used
        self.done = 0
        self.stored = 0
        self.over = False
        self.work: Work = {}

    def tick(self, stream_bytes: int, stored_bytes: int) -> None:
        """How far the stream is: a `Tick` of the pipeline. A stream is a little longer than the data that it carries."""
        self.done, self.stored = min(stream_bytes, self.used), stored_bytes
        self._gauges.tell(self)

    def watch(self, seen: Watch) -> None:
        """What the stages did: a `Watcher` of the pipeline."""
        self.work = work_of(seen.stages, seen.engine_cpu_s, disk=self._gauges.disk)
        self._gauges.watch()

    def finish(self, stored_bytes: int) -> None:
        """All of it has moved, and takes `stored_bytes` in the library."""
        self.done, self.stored, self.over = self.used, stored_bytes, True
        self._gauges.tell(self)
