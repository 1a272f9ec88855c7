"""The embedded broker: a mosquitto that lives and dies with the daemon.

* `start` writes the broker's files, starts it and returns when it answers; `run` watches it and starts it again when it ends;
  `stop` ends it, so that it saves its state. `allow` changes who may connect while it runs.
* It runs as user `mosquitto` when the daemon is root. The change of user is made before mosquitto starts, by setpriv:
  mosquitto's own way (start as root, drop later) would clear the parent-death signal, and the broker would outlive a daemon
  that was killed. For the same reason the signal is armed again after the change of user; it is SIGTERM, because then
  mosquitto saves its state first.
* With port 0 a free port is taken and remembered: agents that were told the port must find it after a restart.

The broker's memory is a convenience. If it is lost, agents say everything again that the controller has not acknowledged;
so a state file that mosquitto cannot read is put aside and not mourned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import secrets
import signal
import socket
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from litho import process
from litho.errors import EngineError, LithoError, MissingProgramError, UnreachableError
from litho_controller import broker_files as text

log = logging.getLogger("litho.broker")

READY_S = 10.0
"""Seconds that a fresh broker has to answer; measured on 2 cores: 16 ms."""
RELOAD_S = 2.0
LONGEST_PAUSE_S = 5.0
_USERS = ("mosquitto", "nobody")


class EmbeddedBroker:
    """A mosquitto as child."""

    def __init__(self, directory: Path, *, site: str, host: str, port: int) -> None:
        """`directory` is the broker's own; `port` 0 means a free one, the same at every start."""
        self._directory = directory
        self._site = site
        self._host = host
        self._any_port = port == 0
        self.port = port
        self.username = text.CONTROLLER
        self.password = secrets.token_urlsafe(32)
        self._probe = secrets.token_urlsafe(32)
        self._passwords = text.PasswordFile({text.CONTROLLER: self.password, text.PROBE: self._probe})
        self._accounts: dict[str, str] = {}
        self._child: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._reloaded = asyncio.Event()
        self._words: deque[str] = deque(maxlen=5)
        self._owner = _owner()

    @property
    def pid(self) -> int:
        """The child's process id, 0 while there is none."""
        return self._child.pid if self._child is not None and self._child.returncode is None else 0

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Write the files, start the broker, and return when it answers. Raises LithoError."""
        if process.which("mosquitto") is None:
            raise MissingProgramError(
                "the program mosquitto is not installed",
                hint="install the package mosquitto, or set broker.embedded = false and name another broker",
            )
        self._prepare()
        deadline = asyncio.get_running_loop().time() + READY_S
        while True:
            try:
                await self._launch()
                return
            except LithoError as exc:
                # A daemon that was killed a moment ago leaves a broker behind that is about to end and still holds the port.
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                log.info("the broker did not start yet (%s)", exc.message)
                await asyncio.sleep(0.2)

    async def run(self) -> None:
        """Watch the broker for ever, and start it again when it ends."""
        pause = 0.1
        while True:
            child = self._child
            if child is not None:
                code = await child.wait()
                log.error("the broker ended: %s%s", process.told(["mosquitto"], code), self._last_words())
            await asyncio.sleep(pause)
            try:
                await self._launch()
                pause = 0.1
                log.info("the broker runs again (process %d)", self.pid)
            except LithoError as exc:
                pause = min(LONGEST_PAUSE_S, pause * 2)
                log.error("the broker cannot be started again: %s; trying again in %.1f s", exc, pause)

    async def stop(self) -> None:
        """End the broker; it saves its state."""
        if self._child is not None:
            await process.end(self._child, grace_s=3.0)
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _launch(self) -> None:
        await self.stop()
        self._words.clear()
        self._write(text.PASSWORDS, self._passwords.text(self._accounts))
        self._child = await process.start_async(self._argv(), stderr=asyncio.subprocess.PIPE)
        self._reader = asyncio.create_task(self._read(self._child), name="broker log")
        ended = asyncio.create_task(self._child.wait(), name="broker end")
        try:
            async with asyncio.timeout(READY_S):
                while not await self._answers_before(ended):  # noqa: ASYNC110 - what is waited for is another process
                    await asyncio.sleep(0.01)
        except TimeoutError:
            await process.end(self._child, grace_s=1.0)
            raise UnreachableError(
                f"the broker does not answer on {self._host} port {self.port}{self._last_words()}"
            ) from None

    async def _answers_before(self, ended: asyncio.Task[int]) -> bool:
        """Ask once; raise EngineError or UnreachableError when the child has ended, whoever else answers on its port."""
        probe = asyncio.create_task(self._answers(), name="broker probe")
        try:
            await asyncio.wait({probe, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                return probe.result()
        finally:
            probe.cancel()
        if self._reader is not None:
            await self._reader
        raise self._failed(ended.result())

    def _argv(self) -> list[str]:
        argv = ["env", "-C", str(self._directory), "setpriv"]
        if self._owner is not None:
            argv += [f"--reuid={self._owner.pw_uid}", f"--regid={self._owner.pw_gid}", "--clear-groups"]
        return [*argv, "--no-new-privs", "--pdeathsig", "TERM", "--", "mosquitto", "-c", text.CONF]

    def _failed(self, code: int) -> LithoError:
        words = self._last_words()
        if "in use" in words:
            return UnreachableError(
                f"the port {self.port} on {self._host} is taken by another program",
                hint="end that program (a mosquitto of the distribution?), or set broker.port, or broker.embedded = false",
                code="port-taken",
            )
        state = self._directory / text.STATE
        if state.exists() and any("persist" in word.lower() or "database" in word.lower() for word in self._words):
            log.error("the broker's state cannot be read%s; it is put aside as %s.bad", words, state)
            with contextlib.suppress(OSError):
                state.rename(state.with_name(state.name + ".bad"))
        return EngineError(f"{process.told(['mosquitto'], code)}{words}", code="broker")

    def _last_words(self) -> str:
        return f" ({'; '.join(self._words)})" if self._words else ""

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        """Take in what the broker says, so that it never waits for us, and notice that it has read its files again."""
        assert child.stderr is not None  # noqa: S101 - it was started with a pipe
        with contextlib.suppress(ValueError):
            while line := await child.stderr.readline():
                said = line.decode(errors="replace").strip()[:300]
                log.debug("mosquitto: %s", said)
                if said.startswith("Reloading config"):
                    self._reloaded.set()
                elif said.lower().startswith(("error", "warning", "unable")) or "error" in said.lower():
                    self._words.append(said)

    async def _answers(self) -> bool:
        """True when the broker lets a client in. Asking with an account makes sure that it is our broker which answers."""
        try:
            reader, writer = await asyncio.open_connection(self.dial, self.port)
        except OSError:
            return False
        try:
            writer.write(text.connect_packet(text.PROBE, text.PROBE, self._probe))
            async with asyncio.timeout(2.0):
                return await reader.readexactly(4) == text.CONNACK
        except (OSError, EOFError, TimeoutError):
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    @property
    def dial(self) -> str:
        """The host at which the controller itself reaches the broker."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - compared, not bound

    # ------------------------------------------------------------ accounts

    async def allow(self, accounts: Mapping[str, str]) -> None:
        """From now on exactly these nodes may connect. Returns when the broker knows. Raises LithoError."""
        if dict(accounts) == self._accounts:
            return
        self._write(text.PASSWORDS, self._passwords.text(accounts))
        self._accounts = dict(accounts)
        child = self._child
        if child is None or child.returncode is not None:
            return  # it reads the file when it starts
        self._reloaded.clear()
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGHUP)
        try:
            await asyncio.wait_for(self._reloaded.wait(), RELOAD_S)
        except TimeoutError:
            log.warning("the broker has not said within %.0f s that it read its accounts again", RELOAD_S)

    # ------------------------------------------------------------ files

    def _prepare(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._owner is not None:
                os.chown(self._directory, self._owner.pw_uid, self._owner.pw_gid)
            if self._any_port:
                self.port = self._remembered_port()
        except OSError as exc:
            raise _error(self._directory, exc) from exc
        self._write(text.CONF, text.conf(host=self._host, port=self.port))
        self._write(text.ACL, text.acl(self._site))

    def _remembered_port(self) -> int:
        note = self._directory / "port"
        try:
            port = int(note.read_text())
            if 1 <= port <= 65535:
                return port
        except (FileNotFoundError, ValueError):
            pass
        port = _free_port(self._host)
        note.write_text(f"{port}\n")
        return port

    def _write(self, name: str, content: str) -> None:
        """A file that only the broker may read, replaced as a whole. Raises LithoError."""
        path = self._directory / name
        beside = path.with_name(f".{name}.new")
        try:
            beside.unlink(missing_ok=True)
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(content)
                if self._owner is not None:
                    os.fchown(file.fileno(), self._owner.pw_uid, self._owner.pw_gid)
            beside.rename(path)
        except OSError as exc:
            raise _error(path, exc) from exc


def _owner() -> pwd.struct_passwd | None:
    """Whom the broker runs as; None for whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _error(path: Path, exc: OSError) -> LithoError:
    return LithoError(
        f"the broker's {path} cannot be written ({exc.strerror or exc})",
        hint="check the space and the rights of state_dir",
        code="broker-files",
    )
