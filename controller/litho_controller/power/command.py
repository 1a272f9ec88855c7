"""Power by a program of the site's: `power.command = ["/usr/local/sbin/power", "{node}", "{action}"]`.

`{node}` is replaced by the node's name and `{action}` by `on`, `off`, `reset`, `stat` or `boot`; a word may hold both and
more. There is no shell, so nothing in a name can become a command. The program has `power.timeout_s` for one node and runs for
at most `power.at_once` nodes at the same time.

Its contract: exit code 0 is success. For `stat` its last word on standard output is the state (`on`, `off`); for the others
what it says counts only when it says a single word, else the action itself is the answer. With any other exit code its last
line is the error; that of one which does not end in time begins with `Timeout`, as xCAT's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from litho import process
from litho.errors import EngineError, LithoError, RefusedError
from litho.messages import is_name
from litho_controller.api_schedule import PowerAction, PowerLine

log = logging.getLogger("litho.power")

MAX_OUTPUT = 64 * 1024
"""Bytes of the program's output that are looked at."""


class Power(Protocol):
    """What switches nodes."""

    async def ask(self, names: Sequence[str], action: PowerAction) -> list[PowerLine]:
        """Do it to each node, and answer in their order. Raises RefusedError when nothing can be switched at all."""


class NoPower:
    """A site that has not said how its nodes are switched."""

    async def ask(self, names: Sequence[str], action: PowerAction) -> list[PowerLine]:
        """Refuse."""
        raise RefusedError(
            f"power is not configured here, so nobody can be asked for {action}",
            hint='set power.command, such as ["/usr/local/sbin/power", "{node}", "{action}"]',
            code="no-power",
        )


class CommandPower:
    """The site's program."""

    def __init__(self, template: Sequence[str], *, timeout_s: float, at_once: int) -> None:
        self._template = tuple(template)
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(at_once)

    async def ask(self, names: Sequence[str], action: PowerAction) -> list[PowerLine]:
        """Run the program for each node."""
        return list(await asyncio.gather(*(self._one(name, action) for name in names)))

    async def _one(self, name: str, action: PowerAction) -> PowerLine:
        async with self._turns:
            try:
                said = await self._run(argv(self._template, name, action))
            except LithoError as exc:
                log.warning("%s: power %s: %s", name, action, exc)
                return PowerLine(node=name, error=str(exc))
        return PowerLine(node=name, text=answer(said, action))

    async def _run(self, words: list[str]) -> str:
        # A script mostly runs another program, such as ipmitool. That one would go on after its script was ended, hold the
        # pipe open, and the node's turn with it.
        child = await process.start_async(
            words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, own_group=True
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                out, err = await asyncio.gather(_read(child.stdout), _read(child.stderr))
                code = await child.wait()
        except TimeoutError as exc:
            # The first word is xCAT's: Apache VCL asks again after it, as a management board may be slow for a while.
            raise EngineError(
                f"Timeout: {words[0]} did not end within {self._timeout_s:g} s", code="power-timeout"
            ) from exc
        finally:
            if child.returncode is None:
                await process.end_group(child)
        if code != 0:
            raise process.failure(process.Done(tuple(words), code, out, err))
        return out


def argv(template: Sequence[str], node: str, action: str) -> list[str]:
    """The command for one node. Pure. Raises RefusedError for a name that could be taken for an option or more than a name."""
    if not is_name(node):
        raise RefusedError(f"{node[:80]!r} cannot be the name of a node", code="bad-node-name")
    return [word.replace("{node}", node).replace("{action}", action) for word in template]


def answer(said: str, action: PowerAction) -> str:
    """What is told of a node, as one word. Pure."""
    words = said.split()
    plain = [word for word in words[-1:] if word.isascii() and word.isprintable() and len(word) <= 40]
    if action == "stat":
        return plain[0].lower() if plain else "unknown"
    return plain[0] if len(words) == 1 and plain else action


async def _read(stream: asyncio.StreamReader | None) -> str:
    """All that is said, of which the end is kept: a program that says more must not stand still."""
    kept = b""
    while stream is not None and (data := await stream.read(MAX_OUTPUT)):
        kept = (kept + data)[-MAX_OUTPUT:]
    return kept.decode(errors="replace")
