"""The controller's task service with a real database and a real library, and without a broker: clock, bus and access are the
fakes that are shipped. `Node` speaks for an agent, straight into the service's ear.
"""

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from litho.job import EDITION
from litho.library import Library, Owner, Stage
from litho.library.manifest import Manifest
from litho.messages import (
    Broker,
    ClaimRequest,
    DiskFacts,
    EventBody,
    EventReport,
    Failed,
    Order,
    OsFacts,
    Planned,
    ProgressReport,
    Started,
    Status,
    Stopped,
    Succeeded,
)
from litho.progress import Progress
from litho_controller.api import JobOptions
from litho_controller.boot import cmdline
from litho_controller.boot.cmdline import BootFiles
from litho_controller.ports import FakeClock, OpenAccess, RecordingBus
from litho_controller.store import Store
from litho_controller.store import tasks as rows_of
from litho_controller.store.tasks import TaskRow
from litho_controller.tables import nodes, rows
from litho_controller.tasks import recovery
from litho_controller.tasks.core import Tasks
from litho_controller.tasks.hearing import Hearing
from litho_controller.tasks.orders import Installation
from litho_controller.tasks.requests import Requests
from litho_controller.tasks.upkeep import Limits, Upkeep

DISK = DiskFacts(path="/dev/sda", size=8_000_000_000, serial="S1")
DEBIAN = OsFacts(name="Linux", vers="debian12", distro="debian12-x86_64", arch="x86_64")
PLANNED = Planned(disk=DISK, steps=("save sda1",), total=1000)
STARTED = Started()
DONE = Succeeded(image="golden", version=1, used=1000, stored=400, seconds=2.0, disk=DISK, os=DEBIAN)
FAILED = Failed(code="disk-missing", reason="there is no disk sdb")
STOPPED = Stopped()


class Lab:
    """One controller's inside."""

    def __init__(self, folder: Path, store: Store, clock: FakeClock, limits: Limits) -> None:
        self.folder = folder
        self.store = store
        self.clock = clock
        self.bus = RecordingBus()
        self.access = OpenAccess()
        self.boot = BootFiles(folder / "boot")
        self.boot.prepare()
        self.library = Library.create(folder / "library")
        installation = Installation(
            site="default",
            library=self.library.root,
            secret=b"s" * 32,
            heartbeat_s=10,
            progress_s=2,
            url="http://c:3080",
            brokers=(Broker(host="c"),),
        )
        self.tasks = Tasks(store, self.library, self.boot, installation, bus=self.bus, access=self.access, clock=clock)
        self.requests = Requests(self.tasks)
        self.hearing = Hearing(self.tasks)
        self.upkeep = Upkeep(self.tasks, limits)

    async def define(self, *names: str) -> None:
        async with self.store.write() as conn:
            await nodes.define(conn, names)

    async def capture(self, *names: str, image: str = "golden") -> list[str]:
        """Queue captures; answers the tasks' ids."""
        from litho.library import ImageRef

        lines = await self.requests.create(names, "capture", ImageRef(image), JobOptions())
        assert [line.error for line in lines] == [""] * len(lines)
        return [line.task for line in lines]

    async def row(self, task: str) -> TaskRow:
        async with self.store.read() as conn:
            found = await rows_of.get(conn, rows_of.parse_id(task) or 0)
        assert found is not None
        return found

    async def states(self) -> dict[str, str]:
        """Task -> state."""
        async with self.store.read() as conn:
            return {row.id: row.state.value for row in await rows_of.find(conn)}

    async def boot_state(self, node: str) -> str:
        async with self.store.read() as conn:
            return (await nodes.require(conn, node)).state

    async def table(self, name: str) -> list[dict[str, str]]:
        """Rows of one of xCAT's tables, without the columns that have no value."""
        async with self.store.read() as conn:
            spec = rows.spec(name)
            found = await rows.dump(conn, name)
        return [{k: v for k, v in zip(spec.columns, row, strict=True) if v is not None} for row in found]

    def token(self, node: str) -> str:
        return cmdline.parse(self.boot.read(node))["token"]

    async def agent(self, task: str, session: str = "session-1") -> "Node":
        """Arm the task if need be, and claim it."""
        await self.upkeep.tick()
        row = await self.row(task)
        node = Node(self, row.node, task, session)
        node.order = await self.requests.claim(node.claim(self.token(row.node)))
        return node


class Node:
    """An agent's words."""

    def __init__(self, lab: Lab, node: str, task: str, session: str) -> None:
        self.lab, self.node, self.task, self.session = lab, node, task, session
        self.seq = 1
        self.n = 0
        self.order: Order | None = None

    def claim(self, token: str, **changes: str) -> ClaimRequest:
        return ClaimRequest(
            **{
                "node": self.node,
                "task": self.task,
                "token": token,
                "session": self.session,
                "edition": EDITION,
                **changes,
            },
            inventory={"memory": 1 << 30},
        )

    def report(self, body: EventBody, seq: int | None = None) -> EventReport:
        if seq is None:
            self.seq += 1
        return EventReport(node=self.node, session=self.session, task=self.task, seq=seq or self.seq, body=body)

    async def say(self, *bodies: EventBody) -> None:
        for body in bodies:
            await self.lab.hearing.event(self.report(body))

    async def run(self, *, image: str = "golden") -> None:
        """Everything to the good end."""
        import msgspec

        await self.say(PLANNED, STARTED, msgspec.structs.replace(DONE, image=image))

    async def beat(self, *, online: bool = True) -> None:
        await self.lab.hearing.status(Status(node=self.node, session=self.session, online=online, task=self.task))

    def progress(self, done: int, *, n: int | None = None, line: str = "") -> bool:
        if n is None:
            self.n += 1
        figure = Progress(phase="partition", part=1, parts=1, done=done, total=1000, fraction=done / 1000)
        report = ProgressReport(
            node=self.node,
            session=self.session,
            task=self.task,
            n=n or self.n,
            progress=figure,
            line=line or f"at {done}",
        )
        return self.lab.hearing.progress(report)

    def heard(self) -> list[object]:
        """What the controller said to the node since the last look."""
        return list(self.lab.bus.bodies(self.node))


@contextlib.asynccontextmanager
async def lab(
    folder: Path, *, clock: FakeClock | None = None, slots: int = 4, boot_s: float = 1800, lease_s: float = 120
) -> AsyncIterator[Lab]:
    """A controller's inside over `folder`; opened again over the same folder it is the same controller, restarted."""
    store = await Store.open(f"sqlite+aiosqlite:///{folder}/litho.db")
    try:
        made = Lab(folder, store, clock or FakeClock(), Limits(slots=slots, boot_s=boot_s, lease_s=lease_s))
        await recovery.recover(made.tasks)
        yield made
    finally:
        await store.close()


def publish(library: Library, name: str, *, node: str = "n01", content: bytes = b"x" * 1000) -> int:
    """Put a small image with one file into the library; answers its version."""
    from litho.library.manifest import FileRef

    with Stage.open(library, name, Owner(session="made-by-a-test")) as stage:
        with stage.create("sda.head") as file:
            file.write(content)
        stage.publish(
            Manifest(
                image=name,
                version=stage.version,
                created="2026-11-22T16:00:00Z",
                software="lithograph test",
                node=node,
                disk=DISK,
                disk_name="sda",
                table="none",
                head=FileRef(
                    file=stage.file_name("sda.head"), bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
                ),
                parts=(),
                os=DEBIAN,
            )
        )
        return stage.version
