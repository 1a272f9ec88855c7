"""`litho.discover`: a machine that no node is shows itself to the controller and waits for what it is to do.

    POST /v1/discover {macs, inventory} ──> nobody knows it, or nothing is to be done ──> wait 5 to 10 s, ask again
                                        ──> a task is armed for it: the words of its command line ──> claim, as every node does
                                        ──> reboot

The machine may stand here for days, among hundreds of its like that were switched on together: pauses are drawn at random, and
grow to 30 s while the controller does not answer. It never gives up, because there is nothing else that it could do; a person
ends it by the power switch. Only what changes is told on the console: not each question.

The controller's words go through the same strict parser as the kernel command line (`boot.read`). An answer that makes no
sense is told and asked for again: it may be a proxy's page while the controller starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from litho.discovery import Discovered, Discovery
from litho.errors import CancelledError, LithoError, RefusedError, UnreachableError, WireError
from litho.messages import Problem, decode, encode
from litho_agent import backoff, boot, claim, finish, hostfacts
from litho_agent.boot import Settings
from litho_agent.finish import Power, SystemPower
from litho_agent.report import Reporter
from litho_agent.report.port import PORT, StatusPort, answering

AGAIN_S = 10.0
"""Seconds between two questions at most, while the controller answers."""
MOST_CARDS = 64
LINE = "discovered, waiting for a task"
"""What `nodestat` reads on the machine's port 3001 meanwhile."""

Ask = Callable[[], Awaitable[Discovered]]
"""Puts the question; raises LithoError."""
Pause = Callable[[float], Awaitable[None]]


def addresses(bootif: str, cards: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Addresses of the machine's cards, the one that booted first, each once. Raises RefusedError when it has none."""
    found = dict.fromkeys(mac for mac in (bootif, *(str(card.get("mac", "")).lower() for card in cards)) if mac)
    if not found:
        raise RefusedError(
            "this machine has no network card with an address, so nobody could say which one it is",
            hint="boot it by a loader that says BOOTIF=01-MAC, or look whether its card's driver is in the root image",
            code="no-card",
        )
    return tuple(found)[:MOST_CARDS]


def read_answer(status: int, body: bytes) -> Discovered:
    """What the controller's answer means. Raises RefusedError, WireError, or UnreachableError when it is worth another try."""
    if status == 200:
        return decode(body, Discovered)
    if 400 <= status < 500 and status not in claim.AGAIN:
        try:
            problem = decode(body, Problem)
        except WireError:
            problem = Problem(code="refused", message=f"HTTP {status}")
        raise RefusedError(
            f"the controller does not take what this machine says of itself: {problem.message}",
            hint=problem.hint or "check that both sides have the same version",
            code=problem.code,
        )
    if 200 < status < 400:
        raise WireError(
            f"the controller answered with HTTP {status}, which is no answer to a machine that shows itself"
        )
    raise UnreachableError(f"the controller cannot take it now (HTTP {status})")


async def run(
    settings: Settings,
    bootif: str,
    *,
    show: Reporter,
    terminate: asyncio.Event,
    power: Power | None = None,
    in_rootimg: bool | None = None,
) -> Settings | None:
    """Wait until there is a task for this machine, and answer what its kernel command line says with the controller's words; None
    when it was told to reboot and does so.

    Raises RefusedError, CancelledError (`terminate` was set), WireError (the question cannot be sent).
    """
    disks = await asyncio.to_thread(hostfacts.read_disks)
    inventory = await asyncio.to_thread(partial(hostfacts.inventory, disks=disks))
    question = Discovery(macs=addresses(bootif, inventory["nics"]), inventory=inventory)
    payload = encode(question)
    where = claim.parse_url(settings.controller, "/v1/discover")

    async def ask() -> Discovered:
        return read_answer(*await claim.exchange(where, payload))

    mac = question.macs[0]
    show.say(f"showing this machine ({mac}) to {where}")
    port = StatusPort()
    port.line = LINE
    async with answering(port, PORT if settings.port is None else settings.port, show):
        waiting = asyncio.create_task(wait(mac, ask, say=show.say), name="discover")
        ended = asyncio.create_task(terminate.wait(), name="terminate")
        try:
            await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise CancelledError("the agent was ended before there was a task for this machine")
            found = waiting.result()
        finally:
            for task in (waiting, ended):
                task.cancel()
            await asyncio.gather(waiting, ended, return_exceptions=True)
    if found is not None:
        return merged(settings, found)
    rootimg = finish.in_rootimg() if in_rootimg is None else in_rootimg
    decision = finish.decide("reboot", in_rootimg=rootimg)
    show.say(decision.note or "the controller says: reboot")
    problem = await asyncio.to_thread(finish.finish, decision, power or SystemPower())
    if problem:
        show.say(problem)
    return None


async def wait(mac: str, ask: Ask, *, say: Callable[[str], None], sleep: Pause = asyncio.sleep) -> Settings | None:
    """Ask until there is something to do: the settings of a task, or None to reboot. Raises RefusedError."""
    told = ""
    failures = 0
    while True:
        try:
            answer = await ask()
            if answer.cmdline:
                return _settings(answer)
            if answer.reboot:
                return None
            failures = 0
            news = (
                f"this machine is {answer.node} and waits for a task: litho nodeset {answer.node} ..."
                if answer.node
                else f"no node has {mac} yet; waiting for: litho node add NAME --from-discovered {mac}"
            )
        except RefusedError:
            raise
        except LithoError as exc:
            failures += 1
            news = f"{exc.message}; trying again"
        if news != told:
            say(news)
            told = news
        await sleep(backoff.pause(failures) if failures else backoff.pause(1, first_s=AGAIN_S))


def _settings(answer: Discovered) -> Settings:
    """The settings in the controller's words. Raises LithoError."""
    found = boot.read(answer.cmdline)
    if not found.task or found.node != answer.node:
        raise WireError("the controller's words for this machine name no task of its node", code="foreign-order")
    return found


def merged(own: Settings, found: Settings) -> Settings:
    """The machine's own kernel words with the controller's, which win."""
    default = Settings()
    given = {name: value for name, value in msgspec.structs.asdict(found).items() if value != getattr(default, name)}
    return msgspec.structs.replace(own, **{"discover": False, **given})
