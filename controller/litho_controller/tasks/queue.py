"""Who gets a free slot. Pure: rows and settings in, numbers of tasks out.

A task waits in the queue until all of this is so:

* its time has come (`--at`), and a maintenance window is open, unless it was given a time of its own;
* its wave has reached its step (`litho_controller.tasks.waves`);
* a slot of the library is free, and one of every group of its node that has a limit (`slots.groups`).

Among those that may start, the higher priority goes first. Among equals the slots are shared between groups: the next one goes to
the group that holds the fewest, and inside a group to the task that waits longest. So a group that asks for five hundred nodes
does not keep another one's two waiting. A node's group here is the first of nodelist.groups that is not `all`.
"""

from __future__ import annotations

import datetime
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from litho.errors import ConfigError

_WINDOW = re.compile(
    r"(?:(?P<from>Mon|Tue|Wed|Thu|Fri|Sat|Sun)(?:-(?P<to>Mon|Tue|Wed|Thu|Fri|Sat|Sun))? )?"
    r"(?P<begin>[0-9]{2}:[0-9]{2})-(?P<end>[0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY = 24 * 60


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A queued task, as far as the queue looks at it."""

    number: int
    node: str
    groups: tuple[str, ...] = ()
    priority: int = 0
    not_before: float | None = None
    wave: int = 0
    step: int = 0


class Window(msgspec.Struct, frozen=True):
    """One maintenance window: minutes of the local day, on some days of the week."""

    days: frozenset[int]
    """0 is Monday. A window over midnight belongs to the day on which it begins."""
    begin: int
    end: int
    """Smaller than `begin`, or equal, for one that goes over midnight."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings say."""

    slots: int
    groups: Mapping[str, int] = {}
    windows: tuple[Window, ...] = ()


def parse_windows(words: Iterable[str]) -> tuple[Window, ...]:
    """Windows as they are written: `22:00-06:00`, `Sat-Sun 00:00-24:00`, `Fri 20:00-02:00`. Raises ConfigError."""
    found = []
    for text in words:
        match = _WINDOW.fullmatch(text)
        begin, end = (_minutes(match["begin"]), _minutes(match["end"])) if match else (None, None)
        if match is None or begin is None or end is None or begin == _DAY or end == 0:
            raise ConfigError(
                f"{text[:60]!r} is no maintenance window",
                hint="write 22:00-06:00, or days of the week before it: Sat-Sun 00:00-24:00",
                code="bad-window",
            )
        days = frozenset(range(7))
        if match["from"]:
            first = _DAYS.index(match["from"])
            last = _DAYS.index(match["to"] or match["from"])
            days = frozenset((first + at) % 7 for at in range((last - first) % 7 + 1))
        found.append(Window(days, begin, end))
    return tuple(found)


def _minutes(text: str) -> int | None:
    hours, minutes = int(text[:2]), int(text[3:])
    total = hours * 60 + minutes
    return total if minutes < 60 and total <= _DAY else None


def is_open(windows: Sequence[Window], now: float) -> bool:
    """True when a window is open at `now` (seconds since 1970), by this machine's local time; also when there is none at all."""
    if not windows:
        return True
    local = datetime.datetime.fromtimestamp(now)
    day, minute = local.weekday(), local.hour * 60 + local.minute
    for window in windows:
        if window.begin < window.end:
            if day in window.days and window.begin <= minute < window.end:
                return True
        elif (day in window.days and minute >= window.begin) or ((day - 1) % 7 in window.days and minute < window.end):
            return True
    return False


def due(task: Waiting, *, now: float, opened: bool, steps: Mapping[int, int]) -> bool:
    """True when a task lacks nothing but a slot. `steps` are the running waves, each with the step that it has reached."""
    if task.wave and task.step > steps.get(task.wave, 0):
        return False
    if task.not_before is None:
        return opened
    return task.not_before <= now


def share(groups: Sequence[str]) -> str:
    """The group for which a node's task counts when slots are shared."""
    return next((name for name in groups if name != "all"), "")


def choose(
    queued: Iterable[Waiting],
    holding: Iterable[Sequence[str]],
    rules: Rules,
    *,
    now: float,
    steps: Mapping[int, int],
) -> list[int]:
    """Numbers of the tasks that start now, in their order. `holding` are the groups of each node whose task has a slot."""
    used: Counter[str] = Counter()
    shares: Counter[str] = Counter()
    free = rules.slots
    for groups in holding:
        free -= 1
        used.update(set(groups))
        shares[share(groups)] += 1
    if free <= 0:
        return []
    opened = is_open(rules.windows, now)
    lines: dict[tuple[int, str], list[Waiting]] = {}
    for task in sorted(queued, key=lambda task: task.number):
        if due(task, now=now, opened=opened, steps=steps):
            lines.setdefault((-task.priority, share(task.groups)), []).append(task)
    chosen: list[int] = []
    for priority in sorted({key[0] for key in lines}):
        # Of each group the one that waits longest; a heap, as there may be as many groups as racks.
        places = {key[1]: iter(line) for key, line in lines.items() if key[0] == priority}
        heads: list[tuple[int, int, str, Waiting]] = []
        for name, place in places.items():
            _push(heads, shares[name], name, place)
        while heads and free > 0:
            _, number, name, task = heapq.heappop(heads)
            if all(used[group] < rules.groups[group] for group in set(task.groups) if group in rules.groups):
                chosen.append(number)
                used.update(set(task.groups))
                shares[name] += 1
                free -= 1
            _push(heads, shares[name], name, places[name])
    return chosen


def _push(heads: list[tuple[int, int, str, Waiting]], held: int, name: str, place: Iterable[Waiting]) -> None:
    task = next(iter(place), None)
    if task is not None:
        heapq.heappush(heads, (held, task.number, name, task))
