"""How the node is while the job runs: processor, memory, load, and what the task's disk says of itself.

The figures come from psutil and cost a few milliseconds, so each status carries fresh ones. A disk is asked by smartctl, which
may wake it, wait for it, or hang with it: that happens beside everything else, at most once in `DISK_EVERY_S`, and neither the
status nor the agent's end waits for it. Where smartctl is not installed, or the disk has no SMART (virtual ones do not), there
is no verdict, which is no bad one.

Nothing here decides anything, so nothing here fails: a figure that cannot be had is 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os

import msgspec
import psutil

from litho import process
from litho.errors import LithoError
from litho.messages import Health, clip

log = logging.getLogger("litho_agent.health")

DISK_EVERY_S = 600.0
_SMART_S = 30.0
_MOST_BYTES = 1024 * 1024


class _Status(msgspec.Struct, frozen=True):
    passed: bool | None = None


class _Temperature(msgspec.Struct, frozen=True):
    current: int | None = None


class _Raw(msgspec.Struct, frozen=True):
    value: int = 0


class _Attribute(msgspec.Struct, frozen=True):
    id: int = 0
    raw: _Raw = _Raw()


class _Attributes(msgspec.Struct, frozen=True):
    table: tuple[_Attribute, ...] = ()


class _Nvme(msgspec.Struct, frozen=True):
    percentage_used: int = 0
    media_errors: int = 0


class _Smart(msgspec.Struct, frozen=True):
    """The part of `smartctl --json` (smartmontools 7) that is looked at."""

    smart_status: _Status = _Status()
    temperature: _Temperature = _Temperature()
    ata_smart_attributes: _Attributes = _Attributes()
    nvme_smart_health_information_log: _Nvme = _Nvme()


_TELLING = {
    5: "reallocated sectors",
    197: "sectors that wait to be reallocated",
    198: "sectors that cannot be corrected",
}
"""ATA attributes whose raw count foretells trouble."""


def verdict(said: str) -> tuple[str, str]:
    """The verdict in what `smartctl -H -A --json` said ("passed", "failed", or empty for none), and a note. Pure."""
    try:
        smart = msgspec.json.decode(said.encode(), type=_Smart)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return "", ""
    if smart.smart_status.passed is None:
        return "", ""
    notes = [
        f"{attribute.raw.value} {_TELLING[attribute.id]}"
        for attribute in smart.ata_smart_attributes.table
        if attribute.raw.value > 0 and attribute.id in _TELLING
    ]
    nvme = smart.nvme_smart_health_information_log
    if nvme.media_errors > 0:
        notes.append(f"{nvme.media_errors} media errors")
    if nvme.percentage_used > 0:
        notes.append(f"{nvme.percentage_used} % of its life used")
    if smart.temperature.current is not None:
        notes.append(f"{smart.temperature.current} degrees Celsius")
    return ("passed" if smart.smart_status.passed else "failed"), ", ".join(notes)


async def ask_disk(path: str) -> tuple[str, str]:
    """The verdict of the disk `path`; empty where there is none, or none came within 30 s."""
    if process.which("smartctl") is None:
        return "", ""
    try:
        child = await process.start_async(
            ["smartctl", "-H", "-A", "--json", path], stdout=asyncio.subprocess.PIPE, limit=_MOST_BYTES
        )
    except LithoError as exc:
        log.info("no verdict of the disk: %s", exc)
        return "", ""
    assert child.stdout is not None  # noqa: S101 - the pipe was asked for
    try:
        async with asyncio.timeout(_SMART_S):
            said = await child.stdout.read(_MOST_BYTES)
            # Its exit code is a set of bits, most of which do not mean that it failed.
            await child.wait()
    except TimeoutError:
        log.warning("the disk %s did not answer smartctl within %.0f s", path, _SMART_S)
        return "", ""
    finally:
        if child.returncode is None:
            child.kill()
            # One that hangs in the kernel goes when the disk answers, and is not waited for.
            try:
                await asyncio.wait_for(child.wait(), 1.0)
            except TimeoutError:
                process.leave(child)
    return verdict(said.decode(errors="replace"))


class Watcher:
    """The node's health, as far as it is known."""

    def __init__(self) -> None:
        self._disk = ""
        self._said: tuple[str, str] = ("", "")
        with contextlib.suppress(psutil.Error, OSError):
            # The first call only begins the count.
            psutil.cpu_percent(None)

    def disk(self, path: str) -> None:
        """The job's disk is known from now on."""
        self._disk = path

    async def watch(self) -> None:
        """Ask the disk now and then. Runs until it is cancelled."""
        while True:
            if self._disk:
                self._said = await ask_disk(self._disk)
                if self.warning():
                    log.warning("%s", self.warning())
            await asyncio.sleep(DISK_EVERY_S if self._disk else 1.0)

    def warning(self) -> str:
        """The sentence that the disk's verdict deserves; empty for a good one, and for none."""
        word, note = self._said
        noted = f" ({note})" if note else ""
        return f"the disk {self._disk} says of itself that it is failing{noted}" if word == "failed" else ""

    def read(self) -> Health:
        """The figures of this moment."""
        cpu = load = 0.0
        memory = available = 0
        with contextlib.suppress(psutil.Error, OSError):
            cpu = min(100.0, max(0.0, psutil.cpu_percent(None)))
            load = max(0.0, os.getloadavg()[0])
            told = psutil.virtual_memory()
            memory, available = told.total, told.available
        word, note = self._said
        return Health(
            cpu=cpu,
            load=round(load, 2),
            memory=memory,
            available=available,
            agent=tree_bytes(),
            disk="passed" if word == "passed" else "failed" if word == "failed" else "",
            disk_note=clip(note, 256),
        )


def tree_bytes() -> int:
    """Bytes that this process and all below it hold; what they share is counted once for each."""
    found = 0
    with contextlib.suppress(psutil.Error, OSError):
        me = psutil.Process()
        for one in [me, *me.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                found += one.memory_info().rss
    return found
