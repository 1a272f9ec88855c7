"""Regular expressions that cannot run away: a small language, matched in time linear in the text.

Python's and Perl's engines go back and try again, and a pattern such as `(a+)+b` makes them try for longer than the universe
will last. A noderange comes from outside, so its expressions are compiled here to a non-deterministic automaton and run as a
lazily built deterministic one: each character of a text is looked at once.

The language is the part of Perl's that node names need: characters, `.`, classes `[a-f0-9]` and `[^x]`, `\\d \\w \\s` and their
opposites, groups `( )` and `(?: )`, `|`, `* + ? {m} {m,} {m,n}` (greedy or not, which changes nothing about whether it
matches), and the anchors `^` and `$`. What it cannot do (references back, looking around) is a `UsageError`, not a guess.
"""

from __future__ import annotations

import string
from collections.abc import Callable

from litho.errors import UsageError

MAX_PATTERN = 512
"""Characters in an expression."""
MAX_STATES = 4000
"""States of the automaton: `{m,n}` is written out, so `(a{9}){9}` takes 81."""
_MAX_SETS = 2000
_MAX_DEPTH = 40

Test = Callable[[str], bool]

_SHORT: dict[str, Test] = {
    "d": lambda c: c in string.digits,
    "w": lambda c: c == "_" or (c.isascii() and c.isalnum()),
    "s": lambda c: c in " \t\n\r\f\v",
}
_CONTROL = {"t": "\t", "n": "\n", "r": "\r"}

_EPSILON, _BEGIN, _END, _CHAR = range(4)


class Pattern:
    """A compiled expression. Not for several threads at once: it learns while it runs."""

    def __init__(self, text: str) -> None:
        """Compile `text`. Raises UsageError when it is not in the language, or too large."""
        if len(text) > MAX_PATTERN:
            raise UsageError(f"a regular expression may have at most {MAX_PATTERN} characters", code="bad-noderange")
        self._edges: list[list[tuple[int, Test | None, int]]] = []
        self._copies = 0
        self._accept = self._state()
        self._start = _Parser(text, self).compile(self._accept)
        self._sets: dict[frozenset[int], dict[str, frozenset[int]]] = {}

    def fullmatch(self, text: str) -> bool:
        """True when the whole of `text` matches."""
        return self._run(text, anchored=True)

    def search(self, text: str) -> bool:
        """True when some piece of `text` matches."""
        return self._run(text, anchored=False)

    def _run(self, text: str, *, anchored: bool) -> bool:
        states = self._closure([self._start], begin=True)
        restart = frozenset() if anchored else self._closure([self._start])
        for char in text:
            if not anchored and self._accept in states:
                return True
            if anchored and not states:
                return False
            states = self._step(states, char) | restart
        return self._accept in self._closure(states, begin=not text, end=True)

    def _step(self, states: frozenset[int], char: str) -> frozenset[int]:
        known = self._sets.get(states)
        if known is None:
            if len(self._sets) >= _MAX_SETS:
                self._sets.clear()
            known = self._sets[states] = {}
        reached = known.get(char)
        if reached is None:
            hit = [
                to for state in states for kind, test, to in self._edges[state] if kind == _CHAR and test and test(char)
            ]
            reached = known[char] = self._closure(hit)
        return reached

    def _closure(self, states: list[int] | frozenset[int], *, begin: bool = False, end: bool = False) -> frozenset[int]:
        """Every state that is reached without a character. `$` is only passed at the end, `^` at the beginning."""
        found = set(states)
        todo = list(states)
        while todo:
            for kind, _, to in self._edges[todo.pop()]:
                passes = kind == _EPSILON or (kind == _BEGIN and begin) or (kind == _END and end)
                if passes and to not in found:
                    found.add(to)
                    todo.append(to)
        return frozenset(found)

    # -- building, for the parser: each piece is built backwards, from where it leads to

    def _state(self, *edges: tuple[int, Test | None, int]) -> int:
        if len(self._edges) >= MAX_STATES:
            raise UsageError(
                "the regular expression is too large when its repeats are written out", code="bad-noderange"
            )
        self._edges.append(list(edges))
        return len(self._edges) - 1

    def char(self, test: Test, then: int) -> int:
        """One character that passes `test`."""
        return self._state((_CHAR, test, then))

    def anchor(self, *, begin: bool, then: int) -> int:
        """`^` or `$`."""
        return self._state((_BEGIN if begin else _END, None, then))

    def copy(self) -> None:
        """A repeat is written out once more: counted, because what it repeats may be nothing and so make no state."""
        self._copies += 1
        if self._copies > MAX_STATES:
            raise _too_large()

    def either(self, *ways: int) -> int:
        """Any of several ways on."""
        return self._state(*((_EPSILON, None, way) for way in ways))

    def loop(self, body: Callable[[int], int], then: int) -> int:
        """`body` any number of times."""
        hub = self._state((_EPSILON, None, then))
        self._edges[hub].append((_EPSILON, None, body(hub)))
        return hub


Piece = Callable[[int], int]
"""Builds a piece of the automaton in front of a state, and answers the state to enter it by."""


class _Parser:
    """Recursive descent over the expression; each rule answers a `Piece`."""

    def __init__(self, text: str, automaton: Pattern) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.automaton = automaton

    def compile(self, accept: int) -> int:
        piece = self.alternatives()
        if self.at < len(self.text):
            raise self.bad("a ) that nothing opened")
        return piece(accept)

    def bad(self, what: str) -> UsageError:
        return UsageError(
            f"the regular expression {self.text[:80]!r} has {what} at character {self.at + 1}",
            hint="known are . [ ] ( ) | * + ? { } ^ $ \\d \\w \\s",
            code="bad-noderange",
        )

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        char = self.peek()
        if not char:
            raise self.bad("an early end")
        self.at += 1
        return char

    def alternatives(self) -> Piece:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.bad("too many groups inside each other")
        ways = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            ways.append(self.sequence())
        self.depth -= 1
        if len(ways) == 1:
            return ways[0]
        return lambda then: self.automaton.either(*(way(then) for way in ways))

    def sequence(self) -> Piece:
        pieces: list[Piece] = []
        while self.peek() not in ("", "|", ")"):
            pieces.append(self.repeated())

        def build(then: int) -> int:
            for piece in reversed(pieces):
                then = piece(then)
            return then

        return build

    def repeated(self) -> Piece:
        piece = self.single()
        while self.peek() and self.peek() in "*+?{":
            low, high = self.counts()
            if self.peek() == "?":
                self.at += 1
            piece = self.repeat(piece, low, high)
        return piece

    def counts(self) -> tuple[int, int | None]:
        mark = self.take()
        if mark != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[mark]
        end = self.text.find("}", self.at)
        low, comma, high = self.text[self.at : max(end, self.at)].partition(",")
        if end < 0 or not (low.isascii() and low.isdigit()) or (high and not (high.isascii() and high.isdigit())):
            raise self.bad("a { that is no repeat")
        self.at = end + 1
        least = int(low[:6])
        most = (int(high[:6]) if high else None) if comma else least
        if most is not None and most < least:
            raise self.bad("a repeat that runs backwards")
        return least, most

    def repeat(self, piece: Piece, low: int, high: int | None) -> Piece:
        automaton = self.automaton

        def build(then: int) -> int:
            if high is None:
                then = automaton.loop(piece, then)
            else:
                after = then
                for _ in range(high - low):
                    automaton.copy()
                    then = automaton.either(piece(then), after)
            for _ in range(low):
                automaton.copy()
                then = piece(then)
            return then

        return build

    def single(self) -> Piece:
        automaton = self.automaton
        char = self.take()
        if char == "(":
            return self.group()
        if char in "^$":
            begin = char == "^"
            return lambda then: automaton.anchor(begin=begin, then=then)
        if char in "*+?{":
            self.at -= 1
            raise self.bad("a repeat of nothing")
        if char == ".":
            return self.of(lambda c: c != "\n")
        if char == "[":
            return self.of(self.klass())
        if char == "\\":
            return self.of(self.escape())
        return self.of(_is(char))

    def of(self, test: Test) -> Piece:
        return lambda then: self.automaton.char(test, then)

    def group(self) -> Piece:
        if self.text.startswith("?:", self.at):
            self.at += 2
        elif self.peek() == "?":
            raise self.bad("a (? that is not (?:")
        piece = self.alternatives()
        if self.peek() != ")":
            raise self.bad("a ( that is not closed")
        self.at += 1
        return piece

    def escape(self) -> Test:
        char = self.take()
        if char.lower() in _SHORT:
            test = _SHORT[char.lower()]
            return test if char.islower() else _opposite(test)
        if char in _CONTROL:
            return _is(_CONTROL[char])
        if char.isalnum():
            raise self.bad(f"\\{char}, which is not known")
        return _is(char)

    def klass(self) -> Test:
        negated = self.peek() == "^"
        self.at += negated
        tests: list[Test] = []
        while self.peek() != "]" or not tests:
            low = self.take()
            if low == "\\":
                tests.append(self.escape())
            elif self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self.take()
                if high < low or high == "\\":
                    raise self.bad("a range of characters that runs backwards")
                tests.append(_between(low, high))
            else:
                tests.append(_is(low))
        self.at += 1
        inside: Test = lambda c: any(test(c) for test in tests)  # noqa: E731 - a test like the others
        return _opposite(inside) if negated else inside


def _too_large() -> UsageError:
    return UsageError("the regular expression is too large when its repeats are written out", code="bad-noderange")


def _is(char: str) -> Test:
    return lambda c: c == char


def _between(low: str, high: str) -> Test:
    return lambda c: low <= c <= high


def _opposite(test: Test) -> Test:
    return lambda c: not test(c)
