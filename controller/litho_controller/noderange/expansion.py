"""From a noderange's text to the names of nodes. The grammar is told in the package's docstring.

`expand` asks a universe and fails on names that are nothing. `literal` asks nobody: it is for defining nodes that do not exist
yet, and so knows only lists, sequences, brackets, `+` and exclusions. Both count their work: a range that would make more
than `MAX_NAMES` names, or look at nodes more often than `MAX_WORK` times, is refused before it is spread out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from litho.errors import NotFoundError, UsageError
from litho.messages import is_name
from litho_controller.noderange.patterns import Pattern
from litho_controller.noderange.text import cleaned, split
from litho_controller.noderange.universe import Universe, file_ranges

MAX_NAMES = 100_000
MAX_WORK = 5_000_000
MAX_DEPTH = 32
_SHOWN = 100

SHORT_COLUMNS = {"groups": ("nodelist", "groups"), "tags": ("nodelist", "groups"), "mgt": ("nodehm", "mgt")}

_SELECTION = re.compile(r"(?P<column>[^=~!]*)(?P<op>!=|=~|==|=|!~)(?P<value>.*)", re.DOTALL)
_PLUS = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]+)(?P<suffix>\.[^+]+)?\+(?P<count>[0-9]+)", re.DOTALL)
_BRACKET = re.compile(r"\[([^\[\]]+)\]")
_NUMBERS = re.compile(r"([0-9]+)")


def expand(text: str, universe: Universe) -> list[str]:
    """The nodes that `text` means, sorted as strings, each once.

    Raises NotFoundError (code `noderange`) with xCAT's words for names that are nothing, UsageError (code `bad-noderange`)
    for what cannot be understood or is too large.
    """
    nodes, missing = partial(text, universe)
    if missing:
        raise _invalid(missing)
    return nodes


def partial(text: str, universe: Universe) -> tuple[list[str], list[str]]:
    """The same for a caller that goes on without what is missing: the nodes, and the names that are nothing."""
    run = _Run(universe)
    nodes = run.range(cleaned(text), 0)
    if universe.excluded and nodes:
        # A name that is nothing excludes nothing; that is no reason to refuse the rest.
        nodes -= _Run(universe).range(cleaned(universe.excluded), 0)
    return sorted(nodes), list(run.missing)


def literal(text: str, *, prefix: str = "node") -> list[str]:
    """The names that `text` spells out, for nodes that need not exist. Raises UsageError."""
    names: set[str] = set()
    excluded: set[str] = set()
    budget = _Budget()
    for element in split(cleaned(text), ","):
        target, term = (excluded, element[1:]) if element.startswith("-") else (names, element)
        if not term:
            continue
        if re.search(r"[/^()@=~]", term):
            raise UsageError(
                f"{term[:100]!r} does not spell out names of nodes",
                hint="use names, n01-n10, n[01-10] or n01+9",
                code="bad-noderange",
            )
        made = list(itertools.islice(_spelled(term, budget) or iter([term]), MAX_NAMES))
        target.update(prefix + name if name.isascii() and name.isdigit() else name for name in made)
    names -= excluded
    for name in names:
        if not is_name(name):
            raise UsageError(
                f"{name[:140]!r} cannot be a node's name",
                hint="1 to 128 letters, digits, '.', '_', '-', a letter or digit first",
                code="bad-noderange",
            )
    return sorted(names)


class _Budget:
    """Counts names and looks, and refuses when it is enough."""

    def __init__(self) -> None:
        self.names = 0
        self.work = 0

    def spend(self, names: int) -> None:
        self.names += names
        if self.names > MAX_NAMES:
            raise UsageError(
                f"the noderange names more than {MAX_NAMES} nodes", hint="name fewer at a time", code="bad-noderange"
            )

    def look(self, nodes: int) -> None:
        self.work += nodes
        if self.work > MAX_WORK:
            raise UsageError(
                "the noderange takes too long to work out", hint="use fewer elements", code="bad-noderange"
            )


class _Run:
    """One expansion: the universe, what was missing, what it cost."""

    def __init__(self, universe: Universe) -> None:
        self.universe = universe
        self.missing: dict[str, None] = {}
        self.budget = _Budget()

    def range(self, text: str, depth: int) -> set[str]:
        if depth > MAX_DEPTH:
            raise UsageError(f"more than {MAX_DEPTH} parentheses inside each other", code="bad-noderange")
        nodes: set[str] = set()
        excluded: set[str] = set()
        for element in split(text, ","):
            if element.startswith("-"):
                excluded |= self.element(element[1:], depth, excluding=True)
            elif element:
                nodes |= self.element(element, depth)
        return nodes - excluded

    def element(self, text: str, depth: int, *, excluding: bool = False) -> set[str]:
        first, *others = split(text, "@")
        nodes = self.term(first, depth, excluding=excluding) if first else set()
        for other in others:
            if other.startswith("-"):
                raise UsageError(
                    f"'-' cannot follow '@' in {text[:100]!r}", hint="write A,-B for A without B", code="bad-noderange"
                )
            if other:
                nodes = nodes & self.term(other, depth, excluding=excluding)
        return nodes

    def term(self, text: str, depth: int, *, excluding: bool = False) -> set[str]:
        known = self.known(text)
        if known is not None:
            return known
        if text.startswith("(") and text.endswith(")"):
            return self.range(text[1:-1], depth + 1)
        if text.startswith("^"):
            return self.file(text[1:], depth, excluding=excluding)
        if text.startswith("/"):
            pattern = Pattern(text[1:])
            self.budget.look(len(self.universe.nodes))
            return {node for node in self.universe.nodes if pattern.fullmatch(node)}
        selection = _SELECTION.fullmatch(text)
        if selection is not None:
            return self.selection(text, selection)
        spelled = _spelled(text, self.budget)
        names = [text] if spelled is None else spelled
        found: set[str] = set()
        for name in names:
            known = self.known(name)
            if known is None and name.isascii() and name.isdigit():
                name = self.universe.prefix + name  # noqa: PLW2901 - this is the name that is looked up, and missed
                known = self.known(name)
            if known is None:
                self.missing[name] = None
            else:
                found |= known
        return found

    def known(self, name: str) -> set[str] | None:
        """The nodes of a name that is a node or a group; None when it is neither."""
        if name in self.universe.nodes:
            return {name}
        members = self.universe.group(name)
        if members is None:
            return None
        self.budget.look(len(members))
        return set(members)

    def selection(self, text: str, parts: re.Match[str]) -> set[str]:
        column, op, value = parts["column"], parts["op"], parts["value"]
        table, _, name = column.partition(".")
        table, name = SHORT_COLUMNS.get(column, (table, name))
        values = self.universe.column(table, name) if name else None
        if values is None:
            self.missing[text] = None
            return set()
        self.budget.look(len(self.universe.nodes))
        if "~" in op:
            pattern = Pattern(value.removeprefix("/").removesuffix("/"))
            matches = {node for node in self.universe.nodes if pattern.search(values.get(node, ""))}
        else:
            matches = {node for node in self.universe.nodes if values.get(node, "") == value}
        return set(self.universe.nodes) - matches if op.startswith("!") else matches

    def file(self, path: str, depth: int, *, excluding: bool) -> set[str]:
        if self.universe.files is None:
            raise UsageError("a noderange that is sent here may not name files", code="bad-noderange")
        text = self.universe.files.read(path)
        if text is None:
            if excluding:
                raise UsageError(f"cannot read the file {path[:200]} of nodes to leave out", code="bad-noderange")
            return set()
        found: set[str] = set()
        for line in file_ranges(text):
            found |= self.range(cleaned(line), depth + 1)
        return found


# ---------------------------------------------------------------- spelling out names


def _spelled(text: str, budget: _Budget) -> Iterator[str] | None:
    """The names that a bracket, plus or sequence spells out; None when `text` is none of them."""
    if _BRACKET.search(text):
        return _brackets(text, budget)
    if "+" in text:
        return _plus(text, budget)
    return _sequence(text, budget)


def _brackets(text: str, budget: _Budget) -> Iterator[str] | None:
    pieces = _BRACKET.split(text)
    if not pieces[0] or any(char in piece for piece in pieces[::2] for char in "[]"):
        return None
    choices: list[list[str]] = []
    total = 1
    for inside in pieces[1::2]:
        own = _Budget()
        names: list[str] = []
        for item in inside.split(","):
            made = _sequence(item, own)
            if made is None:
                own.spend(1)
                made = iter([item])
            names.extend(made)
        choices.append(names)
        total *= len(names)
        if total > MAX_NAMES:
            break
    budget.spend(total)
    return (
        "".join(itertools.chain.from_iterable(zip(pieces[::2], (*chosen, ""), strict=True)))
        for chosen in itertools.product(*choices)
    )


def _plus(text: str, budget: _Budget) -> Iterator[str] | None:
    match = _PLUS.fullmatch(text)
    if match is None:
        return None
    first = match["number"]
    last = str(int(first[:18]) + int(match["count"][:9])).zfill(len(first))
    return (f"{match['prefix']}{number}{match['suffix'] or ''}" for number in _count(first, last, budget) or ())


def _sequence(text: str, budget: _Budget) -> Iterator[str] | None:
    """`a1-a3` or `a1:a3`; None for a plain name, and for two sides that do not belong together."""
    if ":" in text:
        left, _, right = text.partition(":")
    else:
        pieces = text.split("-")
        if len(pieces) % 2:
            return None
        half = len(pieces) // 2
        left, right = "-".join(pieces[:half]), "-".join(pieces[half:])
    if left == right:
        return iter([left]) if left else None
    lefts, rights = _NUMBERS.split(left), _NUMBERS.split(right)
    if len(lefts) != len(rights):
        return None
    differ = [at for at, pair in enumerate(zip(lefts, rights, strict=True)) if pair[0] != pair[1]]
    # Every second piece is a number: exactly one of them may differ, and nothing else.
    if len(differ) != 1 or differ[0] % 2 == 0:
        return None
    at = differ[0]
    before, after = "".join(lefts[:at]), "".join(lefts[at + 1 :])
    numbers = _count(lefts[at], rights[at], budget)
    return None if numbers is None else (f"{before}{number}{after}" for number in numbers)


def _count(first: str, last: str, budget: _Budget) -> Iterator[str] | None:
    """The numbers from `first` to `last` as Perl counts strings of digits: a leading zero keeps the width.

    None when `last` is never reached.
    """
    if len(first) > 18 or len(last) > 18:
        return None
    low, high = int(first), int(last)
    width = len(first) if first.startswith("0") else 1
    if high < low or (width > 1 and str(high).zfill(width) != last):
        return None
    budget.spend(high - low + 1)
    return (str(number).zfill(width) for number in range(low, high + 1))


def _invalid(names: list[str]) -> NotFoundError:
    shown = names[:_SHOWN] + (["..."] if len(names) > _SHOWN else [])
    return NotFoundError(
        f"Invalid nodes and/or groups in noderange: {','.join(name[:200] for name in shown)}", code="noderange"
    )
