"""Waves: many nodes in steps, a few first. Pure rules; the rows are in `litho_controller.store.waves`.

`--wave 2,10,50%` makes steps of 2 nodes, 10 nodes, half of all nodes, and then all that are left. A step's tasks are queued
from the beginning like all others, and wait until their step is reached. The next step begins when every task of the former
one has ended; a task that is tried again has not. After `--stop-after` failures in all steps together the wave stops by
itself: what runs goes on to its end, what waits (for a slot, or for its node to boot) is cancelled with the reason. A task
that was cancelled by a person is no failure.

    RUNNING ──every step has ended──> DONE
       └────too many failures───────> STOPPED
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from litho.errors import UsageError
from litho.task import State

MAKING, RUNNING, DONE, STOPPED = "making", "running", "done", "stopped"
"""MAKING: its tasks are not all queued yet, so that nobody can say which of its steps have ended."""
FAILURES = (State.FAILED, State.LOST)
_SIZE = re.compile(r"(?P<count>[1-9][0-9]{0,5})(?P<percent>%?)", re.ASCII)


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """The newest attempt at one node's task in a wave."""

    step: int
    state: State


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a wave."""

    step: int
    state: str
    reason: str = ""


def parse(text: str) -> tuple[str, ...]:
    """The sizes in `2,10,50%`. Raises UsageError."""
    words = tuple(text.split(","))
    for word in words:
        match = _SIZE.fullmatch(word)
        if match is None or (match["percent"] and int(match["count"]) > 100):
            raise UsageError(
                f"{text[:60]!r} is no wave",
                hint="write how many nodes each step has, such as 2,10,50%",
                code="bad-wave",
            )
    return words


def steps(names: Sequence[str], sizes: Sequence[str]) -> list[tuple[str, ...]]:
    """The nodes of each step, in their order; what is left after the last size is one more step. No step is empty."""
    left, found = list(names), []
    for word in sizes:
        count = -(-len(names) * int(word[:-1]) // 100) if word.endswith("%") else int(word)
        if left:
            found.append(tuple(left[:count]))
            left = left[count:]
    if left:
        found.append(tuple(left))
    return found


def judge(step: int, last: int, stop_after: int, members: Sequence[Member]) -> Verdict:
    """What becomes of a running wave that has reached `step` of `last`."""
    failures = sum(member.state in FAILURES for member in members)
    if stop_after and failures >= stop_after:
        waits = any(member.state in (State.QUEUED, State.ARMED) for member in members)
        if waits:
            plural = "task has" if failures == 1 else "tasks have"
            return Verdict(
                step=step, state=STOPPED, reason=f"{failures} {plural} failed, and it was to stop after {stop_after}"
            )
    while step <= last and all(member.state.ended for member in members if member.step <= step):
        step += 1
    if step > last:
        return Verdict(step=last, state=DONE)
    return Verdict(step=step, state=RUNNING)
