"""Conditions on attributes and columns: `mgt==ipmi`, `os!=image`, `arch=~x86`, `profile!~/old/`. Pure.

They stand behind `-w`, in dynamic groups (`nodegroup.wherevals`, joined by `::`), and between the columns of `nodels` and
`nodech`. Expressions come from outside and so run in linear time (`litho_controller.noderange.patterns`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import msgspec

from litho.errors import UsageError
from litho_controller.noderange.patterns import Pattern

_CONDITION = re.compile(r"(?P<name>[^=!~]+?)(?P<op>==|!=|=~|!~)(?P<value>.*)", re.DOTALL)


class Condition(msgspec.Struct, frozen=True):
    """One condition: what it is about, and the test of a value (the empty text where there is none)."""

    name: str
    test: Callable[[str], bool]


def parse(text: str) -> Condition | None:
    """The condition that `text` is; None when it is none. Raises UsageError for a bad expression."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        return None
    op, value = match["op"], match["value"]
    if "~" not in op:
        return Condition(match["name"], _negated(op, lambda found: found == value))
    pattern = Pattern(value.removeprefix("/").removesuffix("/"))
    return Condition(match["name"], _negated(op, pattern.search))


def _negated(op: str, test: Callable[[str], bool]) -> Callable[[str], bool]:
    return (lambda found: not test(found)) if op.startswith("!") else test


def parse_all(texts: Iterable[str]) -> list[Condition]:
    """Conditions that all must hold. Raises UsageError for one that is none."""
    found = []
    for text in texts:
        # In a definition, `os=image` alone is also a condition.
        condition = parse(text) or parse(text.replace("=", "==", 1))
        if condition is None:
            raise UsageError(
                "Incorrect selection string specified with -w flag.",
                hint=f"{text[:80]!r} is not ATTR==VALUE, !=, =~ or !~",
            )
        found.append(condition)
    return found


def wherevals(text: str) -> list[Condition]:
    """The conditions of a dynamic group. Raises UsageError."""
    return parse_all(part for part in text.split("::") if part)


def holds(conditions: Iterable[Condition], values: Mapping[str, str]) -> bool:
    """True when every condition holds for these values."""
    return all(condition.test(values.get(condition.name, "")) for condition in conditions)
