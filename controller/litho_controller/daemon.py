"""The daemon, from top to bottom: what `litho serve` runs.

One process, one event loop, one task group. Resources are opened in the order in which they need each other and closed in the
other order, whatever happens; then the parts run side by side until SIGTERM or SIGINT:

    lock       nobody else works with this state_dir
    store      the database, led to the newest shape
    library    the image library, held against a second controller
    doors      the sockets for nodes and for the command line, open but not yet served
    broker     a mosquitto of our own, or the one that the settings name
    recovery   memory, boot files and accounts are brought in line with the database
    run        inbox, upkeep, sweeper, boot files and power, broker's watch; and both doors are served

A stop takes a few seconds at most and loses nothing: all that matters is in the database before it is acknowledged. The same
holds for SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

from litho import __version__
from litho.cancelled import ended
from litho.errors import LithoError, RefusedError
from litho.job import EngineName
from litho.library import Library
from litho.messages import Broker
from litho_controller import broker_other, hold, sdnotify
from litho_controller.api_schedule import PowerAction
from litho_controller.boot.cmdline import BootFiles
from litho_controller.boot.tftp import TftpFiles
from litho_controller.broker import EmbeddedBroker
from litho_controller.broker_other import Entry
from litho_controller.bundle.importing import Importer
from litho_controller.config import Config
from litho_controller.inbox import Endpoint, Inbox
from litho_controller.ports import Access, OpenAccess, SystemClock
from litho_controller.power.command import CommandPower, NoPower, Power
from litho_controller.store import Store
from litho_controller.tasks import accounts, queue, recovery
from litho_controller.tasks.booting import Booting, Policy
from litho_controller.tasks.collecting import collect_now_and_then
from litho_controller.tasks.core import Tasks
from litho_controller.tasks.discovering import Discovering
from litho_controller.tasks.hearing import Hearing
from litho_controller.tasks.orders import Installation
from litho_controller.tasks.requests import Requests
from litho_controller.tasks.scrubbing import scrub_now_and_then
from litho_controller.tasks.turning import Turning
from litho_controller.tasks.upkeep import Limits, Upkeep
from litho_controller.web import doors
from litho_controller.web.app import admin_app, node_app
from litho_controller.web.boot import BootDoor
from litho_controller.web.desk import Desk

log = logging.getLogger("litho.daemon")


def run(config: Config, *, take_over: bool = False) -> None:
    """Run the controller until SIGTERM or SIGINT. Raises LithoError when it cannot start, or must not go on."""
    try:
        asyncio.run(serve(config, take_over=take_over))
    except BaseExceptionGroup as group:
        # A part that fails brings down its group; a person is told of the part.
        ours, others = group.split(LithoError)
        if ours is None or others is not None:
            raise
        part: BaseException = ours
        while isinstance(part, BaseExceptionGroup):
            part = part.exceptions[0]
        raise part from None


async def serve(config: Config, *, take_over: bool = False, ready: Callable[[Tasks], None] | None = None) -> None:
    """The same inside a running event loop; `ready` is told when the doors are open to all, and `take_over`
    takes the library from another controller. Raises LithoError."""
    async with contextlib.AsyncExitStack() as stack:
        stop = stack.enter_context(_signals())
        stack.enter_context(only_one(config.state_dir))

        store = await Store.open(config.database_url)
        stack.push_async_callback(store.close)
        library = await asyncio.to_thread(open_library, config)
        secret = accounts.load_secret(config.state_dir / "secret")
        held = await stack.enter_async_context(hold.holding(library, secret, stop, take_over=take_over))
        boot = BootFiles(config.state_dir / "boot")
        boot.prepare()

        nodes_door = stack.enter_context(doors.open_tcp(config.http.host, config.http.port))
        admin_door = stack.enter_context(doors.open_unix(config.socket))

        broker = await _broker(config, stack)
        entry = await asyncio.to_thread(broker_other.read, config.broker)
        endpoint = _endpoint(config, broker, entry)
        inbox = Inbox(config.site, endpoint)
        access: Access = broker or OpenAccess()
        installation = Installation(
            site=config.site,
            library=config.library,
            secret=secret,
            heartbeat_s=config.timeouts.heartbeat_s,
            progress_s=config.timeouts.progress_s,
            engine=cast("EngineName", config.capture.engine),
            trust_h=config.chunks.trust_h,
            credentials=broker is not None,
            login=entry.nodes,
            url=_url(config, nodes_door),
            brokers=(
                Broker(host=config.broker.advertise or _name_of(config.broker.host), port=endpoint.port, ca=entry.ca),
            ),
        )
        tasks = Tasks(store, library, boot, installation, bus=inbox, access=access, clock=SystemClock())
        bundles = Importer(store, library, config.state_dir)
        requests = Requests(tasks, vcl_markers=config.vcl_markers, require_mac=config.boot.require_mac)
        desk = Desk(store=store, tasks=tasks, requests=requests, bundles=bundles)
        policy = Policy(
            kcmdline=config.boot.kcmdline,
            unknown=config.boot.unknown,
            sanboot=config.boot.local == "sanboot",
            attempts=config.tasks.attempts,
        )
        power = _power(config)
        turning = Turning(
            tasks,
            power=power,
            on_arm=ON_ARM[config.power.on_arm],
            files=TftpFiles(Path(config.boot.tftpdir)) if config.boot.tftpdir else None,
            kcmdline=config.boot.kcmdline,
        )
        discovering = Discovering(tasks, kcmdline=config.boot.kcmdline, switched=bool(config.power.on_arm))
        boot_door = BootDoor(Booting(tasks, policy), discovering, config.boot.dir)
        upkeep = Upkeep(
            tasks,
            Limits(
                slots=config.slots.library,
                boot_s=config.timeouts.boot_s,
                lease_s=config.timeouts.lease_s,
                groups=config.slots.groups,
                windows=queue.parse_windows(config.tasks.windows),
                require_mac=config.boot.require_mac,
            ),
        )
        await recovery.recover(tasks)
        await bundles.recover()

        parts: dict[str, Coroutine[Any, Any, None]] = {
            "inbox": inbox.run(Hearing(tasks)),
            "upkeep": upkeep.run(),
            "sweeper": upkeep.sweep_when_wanted(),
            "collector": collect_now_and_then(tasks.library, every_s=config.chunks.gc_every_h * 3600),
            "scrubber": scrub_now_and_then(
                tasks.library, every_s=config.chunks.scrub_every_h * 3600, busy=lambda: bool(tasks.live)
            ),
            "turning": turning.run(),
            "watchdog": sdnotify.watchdog(),
        }
        if held is not None:
            parts["hold"] = held.keep()
        if broker is not None:
            parts["broker"] = broker.run()
        async with _running(parts):
            for app, door in ((node_app(desk, boot_door), nodes_door), (admin_app(desk, power), admin_door)):
                runner = await doors.serve(app, door)
                stack.push_async_callback(runner.cleanup)
            log.info(
                "lithograph %s serves nodes at %s and commands at %s", __version__, installation.url, config.socket
            )
            if ready is not None:
                ready(tasks)
            sdnotify.notify("READY=1")
            await stop.wait()
            sdnotify.notify("STOPPING=1")
            log.info("stopping")
        # What was heard in the last second; a failure loses figures, no events.
        with contextlib.suppress(LithoError):
            await upkeep.flush()


# ------------------------------------------------------------ the parts


def open_library(config: Config) -> Library:
    """The image library. Ours is made when it is not there; one that is elsewhere must be a library already, because an
    empty directory may be a mount point on which nothing is mounted. Blocks. Raises LibraryError."""
    ours = config.library.is_relative_to(config.state_dir)
    return Library.create(config.library) if ours else Library.open(config.library)


ON_ARM: dict[str, PowerAction | None] = {"": None, "on": "on", "boot": "boot", "reset": "reset"}


def _power(config: Config) -> Power:
    keys = config.power
    if not keys.command:
        return NoPower()
    return CommandPower(keys.command, timeout_s=keys.timeout_s, at_once=keys.at_once)


async def _broker(config: Config, stack: contextlib.AsyncExitStack) -> EmbeddedBroker | None:
    if not config.broker.embedded:
        return None
    broker = EmbeddedBroker(
        config.state_dir / "broker", site=config.site, host=config.broker.host, port=config.broker.port
    )
    stack.push_async_callback(broker.stop)
    await broker.start()
    log.info("the broker runs at %s port %d (process %d)", config.broker.host, broker.port, broker.pid)
    return broker


def _endpoint(config: Config, broker: EmbeddedBroker | None, entry: Entry) -> Endpoint:
    if broker is None:
        return Endpoint(
            host=config.broker.host,
            port=config.broker.port,
            username=entry.controller.username,
            password=entry.controller.password,
            client=f"litho-controller-{config.site}",
            ca=entry.ca,
        )
    return Endpoint(
        host=broker.dial,
        port=broker.port,
        username=broker.username,
        password=broker.password,
        client=broker.username,
    )


def _url(config: Config, door: socket.socket) -> str:
    if config.http.url:
        return config.http.url.rstrip("/")
    host, port = _name_of(config.http.host), door.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _name_of(host: str) -> str:
    """What nodes are told: for every interface the one thing that can be said without asking, our own name."""
    return socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound


@contextlib.asynccontextmanager
async def _running(parts: dict[str, Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run the parts beside the block, each as a named task. One that fails ends the daemon."""
    async with asyncio.TaskGroup() as group:
        started = [group.create_task(part, name=name) for name, part in parts.items()]
        yield
        await ended(started)


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    wanted = (signal.SIGTERM, signal.SIGINT)
    for number in wanted:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Hold `state_dir` for this process alone. Raises RefusedError when another one has it, LithoError."""
    try:
        state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise LithoError(
            f"the state directory {state_dir} cannot be used ({exc.strerror or exc})",
            hint="check its rights, or set state_dir",
            code="state-dir",
        ) from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            other = os.read(fd, 32).decode(errors="replace").strip()
            raise RefusedError(
                f"another controller works with {state_dir}" + (f" (process {other})" if other else ""),
                hint="end it first, or set another state_dir",
                code="already-running",
            ) from exc
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(fd)
