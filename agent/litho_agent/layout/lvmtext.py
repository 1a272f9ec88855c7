"""The language of LVM2's text metadata, which lvm.conf is written in, too: names, numbers, strings, lists, sections in braces.

    vg0 {
            id = "WwYaEV-Zvn5-KC5T-aQBb-kcbr-AA4g-HPOFgk"
            extent_size = 8192                                # 4 Megabytes
            status = ["RESIZEABLE", "READ", "WRITE"]
            physical_volumes { ... }
    }

`parse` answers sections as dictionaries; `section_of` and its like take a value out and insist on its kind. Everything that is
not exactly so is refused: what is read here decides which bytes of a disk are copied. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Union

from litho.errors import DiskError

_MAX_DEPTH = 8
# The quantifiers with a plus behind them give nothing back: a text of nothing but number signs would be tried in 2^n ways.
_TOKEN = re.compile(
    r'[\s]*+(?:#[^\n]*+\n?[\s]*+)*+(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?[0-9]+(?![A-Za-z0-9_.+/-]))'
    r"|(?P<name>[A-Za-z0-9_.+/-]+)|(?P<mark>[{}\[\]=,])|(?P<end>\Z))"
)

Value = Union[int, str, list["Value"], dict[str, "Value"]]  # noqa: UP007 - recursive


def parse(text: str) -> dict[str, Value]:
    """The sections of a metadata text."""
    tokens = _Tokens(text)
    found = _section(tokens, 0, top=True)
    if not tokens.ended:
        raise bad("its metadata cannot be read: a brace too many")
    return found


class _Tokens:
    """The words of a text, one after the other."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.kind = ""
        self.word = ""
        self.step()

    @property
    def ended(self) -> bool:
        return self.kind == "end"

    def step(self) -> None:
        """On to the next word."""
        match = _TOKEN.match(self._text, self._at)
        if match is None or match.lastgroup is None:
            raise bad("its metadata cannot be read")
        self._at, self.kind, self.word = match.end(), match.lastgroup, match[match.lastgroup]

    def take(self, mark: str) -> bool:
        """True when this word is `mark`, which is passed over then."""
        if self.kind != "mark" or self.word != mark:
            return False
        self.step()
        return True


def _section(tokens: _Tokens, depth: int, *, top: bool = False) -> dict[str, Value]:
    if depth > _MAX_DEPTH:
        raise bad("its metadata are nested too deeply")
    found: dict[str, Value] = {}
    while not (tokens.ended if top else tokens.take("}")):
        # A volume group may be called 2024.
        if tokens.kind not in ("name", "number") or tokens.word in found:
            raise bad("its metadata cannot be read: a name is missing or stands there twice")
        name = tokens.word
        tokens.step()
        if tokens.take("{"):
            found[name] = _section(tokens, depth + 1)
        elif tokens.take("="):
            found[name] = _value(tokens)
        else:
            raise bad(f"its metadata cannot be read at {name[:60]!r}")
    return found


def _value(tokens: _Tokens) -> Value:
    if not tokens.take("["):
        return _scalar(tokens)
    found: list[Value] = []
    while not tokens.take("]"):
        found.append(_scalar(tokens))
        if not tokens.take(",") and not (tokens.kind == "mark" and tokens.word == "]"):
            raise bad("its metadata cannot be read: a list without an end")
    return found


def _scalar(tokens: _Tokens) -> int | str:
    kind, word = tokens.kind, tokens.word
    if kind not in ("number", "string") or len(word) > 4096:
        raise bad("its metadata cannot be read: a value is missing")
    tokens.step()
    if kind == "number":
        return int(word[:20])
    return re.sub(r"\\(.)", r"\1", word[1:-1])


def section_of(section: Mapping[str, Value], key: str) -> dict[str, Value]:
    """The section `key`. Raises DiskError."""
    value = section.get(key)
    if not isinstance(value, dict):
        raise bad(f"its metadata have no section {key[:60]!r}")
    return value


def values_of(section: Mapping[str, Value], key: str) -> list[Value]:
    """The list `key`. Raises DiskError."""
    value = section.get(key)
    if not isinstance(value, list):
        raise bad(f"its metadata have no list {key[:60]!r}")
    return value


def number_of(section: Mapping[str, Value], key: str) -> int:
    """The number `key`, 0 to 2^53. Raises DiskError."""
    value = section.get(key)
    if not isinstance(value, int) or not 0 <= value < 2**53:
        raise bad(f"its metadata have no number {key[:60]!r}")
    return value


def text_of(section: Mapping[str, Value], key: str) -> str:
    """The text `key`, of at most 256 characters. Raises DiskError."""
    value = section.get(key)
    if not isinstance(value, str) or len(value) > 256:
        raise bad(f"its metadata have no text {key[:60]!r}")
    return value


def bad(what: str) -> DiskError:
    """The error of a physical volume that cannot be read, and why. Pure."""
    return DiskError(f"the physical volume of LVM cannot be read: {what}", code="bad-lvm")
