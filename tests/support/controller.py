"""A whole controller as a process of its own, and a scripted agent that speaks with it over the real roads.

`Controller` starts the daemon with its own settings file in a folder, and can end it, kill it, and start it again there.
`Agent` is an agent by the rules of the wire and of nothing else: it claims over HTTP, connects to MQTT with a last will, repeats
its events until they are acknowledged, and does what its script says instead of imaging.
"""

import asyncio
import contextlib
import json
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import aiomqtt

from litho import messages, process
from litho.job import EDITION
from litho.library import Library
from litho.messages import (
    Ack,
    Cancel,
    ClaimRequest,
    Command,
    EventBody,
    EventReport,
    Finish,
    Order,
    Problem,
    ProgressReport,
    Status,
    Stop,
)
from litho.progress import Progress
from litho_controller import api
from litho_controller.boot import cmdline
from litho_controller.client import Client

_RUN = """
import logging, sys
from pathlib import Path
from litho_controller import config, daemon
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
daemon.run(config.load(Path(sys.argv[1]), {}))
"""


MACHINE = {
    "arch": "x86_64",
    "board": "Example Inc. E1",
    "cpu": {"count": 2, "model": "Example CPU"},
    "memory": 8 * 1024**3,
    "nics": [{"name": "eth0", "mac": "52:54:00:00:00:01"}],
}
"""What a scripted agent says of its machine."""


async def until(true: Callable[[], Any | Awaitable[Any]], *, within_s: float = 60.0, every_s: float = 0.02) -> Any:
    """Return what `true` says as soon as it says something; fail the test after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        found = true()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(every_s)


class Controller:
    """The daemon over one folder."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.log = folder / "controller.log"
        self.socket = folder / "litho.sock"
        self.client = Client(self.socket, timeout=60)
        self.library = Library.create(self.state / "library")
        self._child: asyncio.subprocess.Process | None = None
        self._settings = folder / "lithograph.toml"
        sections = {"timeouts": {}, "slots": {}, "broker": {}, "http": {}} | settings
        lines = [
            f'state_dir = "{self.state}"',
            f'library = "{self.library.root}"',
            f'socket = "{self.socket}"',
        ]
        sections["http"] = {"port": 0} | sections["http"]
        # Most tests' nodes are names without a machine.
        sections["boot"] = {"require_mac": False} | sections.get("boot", {})
        sections["broker"] = {"port": 0} | sections["broker"]
        for section, values in sections.items():
            lines += [f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
        self._settings.write_text("\n".join(lines) + "\n")

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Start the daemon and return when it answers."""
        with self.log.open("ab") as log:
            self._child = await process.start_async(
                [sys.executable, "-c", _RUN, self._settings], stdout=log.fileno(), stderr=log.fileno()
            )
        await until(self._ready)

    async def _ready(self) -> bool:
        assert self._child is not None
        assert self._child.returncode is None, self.log.read_text()
        with contextlib.suppress(Exception):
            return bool((await self.health())["broker"])
        return False

    async def health(self) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.get("http://litho/v1/health") as answer,
        ):
            return await answer.json()

    async def end(self, number: int = signal.SIGTERM) -> float:
        """End the daemon by a signal; answers how many seconds that took."""
        assert self._child is not None
        begun = time.monotonic()
        if self._child.returncode is None:
            self._child.send_signal(number)
        await asyncio.wait_for(self._child.wait(), 60)
        return time.monotonic() - begun

    async def kill(self) -> None:
        """End the daemon as a crash would."""
        await self.end(signal.SIGKILL)

    async def __aenter__(self) -> "Controller":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()
        if kind is not None:
            sys.stderr.write(self.log.read_text())
        else:
            assert "Traceback" not in self.log.read_text(), self.log.read_text()

    @property
    def exit_code(self) -> int | None:
        return self._child.returncode if self._child is not None else None

    # ------------------------------------------------------------ asking

    async def ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """One method of the client."""
        return await asyncio.to_thread(getattr(self.client, method), *args, **kwargs)

    async def define(self, text: str) -> None:
        await self.ask("add_nodes", api.NodeAdd(range=text))

    async def nodeset(self, text: str, state: api.NodesetState, image: str = "") -> tuple[api.NodesetLine, ...]:
        answer = await self.ask("nodeset", api.NodesetRequest(range=text, state=state, image=image))
        return answer.nodes

    async def nodestat(self, node: str) -> str:
        return (await self.ask("nodestat", node)).nodes[0].text

    async def task(self, task: str) -> api.TaskView:
        return await self.ask("task", task)

    async def reaches(self, task: str, state: str, *, within_s: float = 60.0) -> api.TaskView:
        """Return when the task is in that state."""

        async def there() -> api.TaskView | None:
            with contextlib.suppress(Exception):
                found = await self.task(task)
                return found if found.state == state else None
            return None

        return await until(there, within_s=within_s)

    async def words(self, node: str) -> dict[str, str]:
        """The words of the node's kernel command line, as soon as it is armed."""
        file = self.state / "boot" / f"{node}.cmdline"
        await until(file.exists)
        return cmdline.parse(file.read_text())

    def broker_pid(self) -> int:
        """The process id of the embedded broker."""
        for path in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                words = (path / "cmdline").read_bytes().split(b"\0")
                if words[0] == b"mosquitto" or words[0].endswith(b"/mosquitto"):
                    cwd = (path / "cwd").resolve()
                    if cwd == self.state / "broker":
                        return int(path.name)
        return 0


class RefusedClaimError(Exception):
    """The controller said no."""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(f"{status} {problem.code}: {problem.message}")
        self.status = status
        self.problem = problem


class Agent:
    """One session of one node's agent."""

    def __init__(self, controller: Controller, node: str, *, resend_s: float = 0.3) -> None:
        self.controller = controller
        self.node = node
        self.session = str(uuid.uuid4())
        self.task = ""
        self.order: Order | None = None
        self.commands: list[object] = []
        self.connections = 0
        self._resend_s = resend_s
        self._seq = 1
        self._acked = 1
        self._events: list[EventReport] = []
        self._n = 0
        self._client: aiomqtt.Client | None = None
        self._running: asyncio.Task[None] | None = None

    async def claim(self, **changes: str) -> Order:
        """Trade the token of the node's boot file for the order. Raises RefusedClaimError."""
        words = await self.controller.words(self.node)
        request = {"node": words["node"], "task": words["task"], "token": words["token"], "session": self.session}
        self.task = words["task"]
        body = messages.encode(ClaimRequest(**({"edition": EDITION} | request | changes), inventory=MACHINE))
        async with (
            aiohttp.ClientSession() as session,
            session.post(words["controller"] + "/v1/claim", data=body) as answer,
        ):
            data = await answer.read()
            if answer.status != 200:
                raise RefusedClaimError(answer.status, messages.decode(data, Problem))
        self.order = messages.decode(data, Order)
        return self.order

    # ------------------------------------------------------------ MQTT

    @contextlib.asynccontextmanager
    async def online(self) -> AsyncIterator["Agent"]:
        """Claim, and stay connected inside the block."""
        await self.claim()
        self.connect()
        try:
            await until(lambda: self.connections > 0)
            yield self
        finally:
            await self.vanish()

    def connect(self) -> None:
        """Be connected from now on, again and again."""
        self._running = asyncio.create_task(self._run(), name=f"agent {self.node}")

    async def vanish(self) -> None:
        """Be gone, as after a power cut: no word of good-bye but the last will."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    def topic(self, kind: messages.Kind, node: str = "") -> str:
        assert self.order is not None
        return messages.topic(self.order.site, node or self.node, kind)

    def new_client(self, **changes: Any) -> aiomqtt.Client:
        """A connection with the account of the order."""
        order = self.order
        assert order is not None
        settings = {
            "hostname": order.brokers[0].host,
            "port": order.brokers[0].port,
            "username": order.username,
            "password": order.password,
            "identifier": f"litho-{self.session[:16]}",
            "clean_session": False,
            "timeout": 2.0,
            "will": aiomqtt.Will(self.topic("status"), messages.encode(self._status(False)), qos=1, retain=True),
        }
        return aiomqtt.Client(**(settings | changes))

    def _status(self, online: bool) -> Status:
        return Status(node=self.node, session=self.session, online=online, task=self.task)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(aiomqtt.MqttError, OSError, ExceptionGroup):
                async with self.new_client() as client:
                    await client.subscribe(self.topic("command"), qos=1)
                    self._client = client
                    self.connections += 1
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(self._listen(client))
                        tasks.create_task(self._beat(client))
                        tasks.create_task(self._repeat(client))
            self._client = None
            await asyncio.sleep(0.1)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            command = messages.decode(bytes(message.payload), Command)
            if (command.session, command.task) != (self.session, self.task):
                continue
            self.commands.append(command.body)
            if isinstance(command.body, Ack):
                self._acked = max(self._acked, command.body.seq)
                self._events = [event for event in self._events if event.seq > self._acked]

    async def _beat(self, client: aiomqtt.Client) -> None:
        assert self.order is not None
        while True:
            await client.publish(self.topic("status"), messages.encode(self._status(True)), qos=1, retain=True)
            await asyncio.sleep(self.order.heartbeat_s)

    async def _repeat(self, client: aiomqtt.Client) -> None:
        while True:
            for event in self._events:
                await client.publish(self.topic("event"), messages.encode(event), qos=1)
            await asyncio.sleep(self._resend_s)

    # ------------------------------------------------------------ words

    def put(self, body: EventBody) -> int:
        """Say an event as soon as may be, and again until it is acknowledged; answers its number."""
        self._seq += 1
        self._events.append(EventReport(node=self.node, session=self.session, task=self.task, seq=self._seq, body=body))
        return self._seq

    async def say(self, *bodies: EventBody) -> None:
        """Say events and wait until they are acknowledged."""
        for body in bodies:
            seq = self.put(body)
            await until(lambda seq=seq: self._acked >= seq)

    async def raw(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        """Publish anything."""
        client = await until(lambda: self._client)
        await client.publish(topic, payload, qos=qos)

    async def progress(self, done: int, total: int = 1000) -> None:
        self._n += 1
        figure = Progress(phase="partition", part=1, parts=1, done=done, total=total, fraction=done / total)
        report = ProgressReport(
            node=self.node,
            session=self.session,
            task=self.task,
            n=self._n,
            progress=figure,
            line=f"partimage-ng: partition 1 of 1, {figure.percent}% complete",
        )
        await self.raw(self.topic("progress"), messages.encode(report), qos=0)

    async def hears(self, kind: type[Cancel | Stop | Finish]) -> object:
        """Wait for a command."""
        return await until(lambda: next((body for body in self.commands if isinstance(body, kind)), None))
