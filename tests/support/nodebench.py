"""What surrounds an agent in tests: a real mosquitto, a small HTTP server for claims, a controller by the rules of tasks.

The worker is a stand-in (`ScriptedMove`): it moves no bytes and says what its script says. Everything else is the real thing.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType

import aiomqtt

from litho import messages, process, task
from litho.job import Job
from litho.messages import (
    Ack,
    Broker,
    ClaimRequest,
    Command,
    DiskFacts,
    EventReport,
    Failed,
    Finish,
    Order,
    Planned,
    Problem,
    ProgressReport,
    Started,
    Status,
    Stopped,
    Succeeded,
)
from litho.progress import Progress
from litho.task import State, Task
from litho_agent.mover import Note, Tick, WorkOrder
from litho_agent.report import Message

DISK = DiskFacts(path="/dev/sda", size=8_000_000_000, serial="S1")
DONE = Succeeded(image="golden", version=1, used=1000, stored=400, seconds=2.0, disk=DISK)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def until(true: Callable[[], bool], *, within_s: float = 60.0, what: str = "") -> None:
    """Return when `true` says so; fail the test after `within_s` seconds."""
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110 - what is waited for is on the other side of a wire
            await asyncio.sleep(0.01)


class Mosquitto:
    """A real broker on a free port of loopback. Without persistence: a restart forgets every session."""

    def __init__(self, folder: Path, *, password: str = "") -> None:
        self.port = free_port()
        self._folder = folder
        self._child: asyncio.subprocess.Process | None = None
        self._password = password

    async def start(self) -> None:
        config = self._folder / f"mosquitto-{self.port}.conf"
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", "user root", "max_queued_messages 10000"]
        if self._password:
            users = self._folder / "users"
            users.touch(mode=0o600)
            process.run(["/usr/bin/mosquitto_passwd", "-b", users, "n01", self._password])
            lines += ["allow_anonymous false", f"password_file {users}"]
        else:
            lines.append("allow_anonymous true")
        config.write_text("\n".join(lines) + "\n")
        self._child = await process.start_async(["mosquitto", "-c", config])
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    await writer.wait_closed()
                    return
                await asyncio.sleep(0.02)

    async def stop(self, *, kill: bool = False) -> None:
        if self._child is not None:
            if kill:
                self._child.kill()
                await self._child.wait()
            await process.end(self._child)
            self._child = None

    def freeze(self, number: int) -> None:
        """SIGSTOP: connections stay open and nothing answers; SIGCONT ends it."""
        assert self._child is not None
        # The child is `setpriv`, which has become mosquitto by exec.
        self._child.send_signal(number)

    async def __aenter__(self) -> "Mosquitto":
        await self.start()
        return self

    async def __aexit__(self, kind: type | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()


Answer = tuple[int, bytes] | bytes | None
"""Status and body; or the bytes to send before hanging up; or None to hang up without a word."""


class ClaimServer:
    """Answers claims by a script: each answer is used once, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.claims: list[ClaimRequest] = []
        self.paths: list[str] = []
        self.url = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            length = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:"))
            self.claims.append(messages.decode(await reader.readexactly(length), ClaimRequest))
            self.paths.append(lines[0])
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, tuple):
                status, body = answer
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            elif answer is not None:
                writer.write(answer)
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def __aenter__(self) -> "ClaimServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, kind: type | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        await self._server.wait_closed()


def granted(order: Order) -> Answer:
    return 200, messages.encode(order)


def denied(code: str, message: str, hint: str = "") -> Answer:
    return 403, messages.encode(Problem(code=code, message=message, hint=hint))


class Controller:
    """The other end of the wire, by the rules of `litho.task`: acknowledges what `advance` says, and then says Finish."""

    def __init__(self, order: Order, port: int, *, copies: int = 1, acks: bool = True, finishes: bool = True) -> None:
        self.order = order
        self.task = Task(state=State.ARMED)
        self.statuses: list[Status] = []
        self.reports: list[ProgressReport] = []
        self.events: list[EventReport] = []
        self.outcomes: list[task.Outcome] = []
        self.acks = acks
        self._finishes = finishes
        self._copies = copies
        self._port = port
        self._client: aiomqtt.Client | None = None
        self.listening = asyncio.Event()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with aiomqtt.Client(
                    "127.0.0.1",
                    self._port,
                    username=self.order.username or None,
                    password=self.order.password or None,
                    timeout=2,
                ) as client:
                    await client.subscribe(f"litho/v1/{self.order.site}/node/+/status", qos=1)
                    await client.subscribe(f"litho/v1/{self.order.site}/node/+/progress", qos=0)
                    await client.subscribe(f"litho/v1/{self.order.site}/node/+/event", qos=1)
                    self._client = client
                    self.listening.set()
                    async for message in client.messages:
                        await self._take(message)
            self.listening.clear()
            await asyncio.sleep(0.05)

    async def _take(self, message: aiomqtt.Message) -> None:
        _, node, kind = messages.parse_topic(str(message.topic))
        assert node == self.order.node
        assert isinstance(message.payload, bytes)
        if kind == "status":
            self.statuses.append(messages.decode(message.payload, Status))
        elif kind == "progress":
            self.reports.append(messages.decode(message.payload, ProgressReport))
        else:
            await self._event(messages.decode(message.payload, EventReport))

    async def _event(self, report: EventReport) -> None:
        self.events.append(report)
        if self.task.state is State.ARMED:
            # The claim came over HTTP; its session is whichever says the first word here.
            self.task = task.advance(self.task, task.Claim(session=report.session, seq=1)).task
        moved = task.advance(self.task, as_task_event(report))
        self.task = moved.task
        self.outcomes.append(moved.outcome)
        if self.acks and moved.acknowledge:
            await self.say(Ack(seq=self.task.last_seq))
            if self.task.state.ended and self._finishes:
                await self.say(Finish())

    async def say(self, body: object, *, session: str = "", task_id: str = "") -> None:
        command = Command(session=session or self.session, task=task_id or self.order.task, body=body)
        await self.raw(messages.encode(command))

    async def raw(self, payload: bytes) -> None:
        assert self._client is not None
        for _ in range(self._copies):
            await self._client.publish(messages.topic(self.order.site, self.order.node, "command"), payload, qos=1)

    @property
    def session(self) -> str:
        return self.task.session or self.statuses[-1].session


def as_task_event(report: EventReport) -> task.Event:
    who = {"session": report.session, "seq": report.seq}
    match report.body:
        case Planned():
            return task.Plan(**who)
        case Started():
            return task.Start(**who)
        case Succeeded():
            return task.Succeed(**who)
        case Failed(code=code, reason=reason):
            return task.Fail(**who, code=code, reason=reason)
        case Stopped(reason=reason):
            return task.Cancelled(**who, reason=reason)


class ScriptedMove:
    """Stand-in for the worker: says its plan, its start and some ticks, then waits to be told how to end."""

    def __init__(self, end: Message = DONE, *, hold: bool = False) -> None:
        self.end = end
        self.orders: list[WorkOrder] = []
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.ended = asyncio.Event()
        if not hold:
            self.go.set()

    async def __call__(self, order: WorkOrder, hear: Callable[[Message], None], cancel: asyncio.Event) -> Message:
        self.orders.append(order)
        hear(Planned(disk=DISK, steps=("save 3 partitions",), total=1000))
        hear(Note(text="a note"))
        hear(Started())
        self.started.set()
        done = 0
        while not (self.go.is_set() and done >= 200):
            if cancel.is_set():
                return Stopped(touched=True)
            done = min(990, done + 40)
            hear(
                Tick(progress=Progress(phase="partition", part=1, parts=3, done=done, total=1000, fraction=done / 1000))
            )
            await asyncio.sleep(0.02)
        self.ended.set()
        return self.end


def an_order(library: Path, *ports: int, **changes: object) -> Order:
    known: dict[str, object] = {
        "task": "t1",
        "node": "n01",
        "site": "lab",
        "job": Job(action="capture", image="golden"),
        "library": f"file://{library}",
        "brokers": tuple(Broker(host="127.0.0.1", port=port) for port in ports),
        "heartbeat_s": 0.2,
        "progress_s": 0.1,
    }
    return Order(**(known | changes))


@contextlib.asynccontextmanager
async def beside(controller: Controller) -> AsyncIterator[Controller]:
    """The controller runs beside the block."""
    running = asyncio.create_task(controller.run())
    try:
        await controller.listening.wait()
        yield controller
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
