"""What a noderange is asked about: the nodes, their groups and columns, and the files it may name.

A `Universe` is a snapshot handed to `expand`; nothing in it does I/O of its own but the file reader, which is absent unless
the caller brings one. The daemon has none: a range that came over HTTP must not make root read a file. The command line reads
`^file` itself, as its own user, and sends what stood in it (`inline_files`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from litho.errors import UsageError
from litho_controller.noderange.text import cleaned, split

MAX_FILE = 1024 * 1024
"""Bytes of a file that a range names."""


class FileReader(Protocol):
    """Where `^file` comes from."""

    def read(self, path: str) -> str | None:
        """The text of the file, None when it cannot be read."""


class LocalFiles:
    """Files of this machine, with the rights of this process."""

    def read(self, path: str) -> str | None:
        """The text of the file, None when it cannot be read or is larger than `MAX_FILE`."""
        try:
            with Path(path).open("rb") as file:
                data = file.read(MAX_FILE + 1)
        except (OSError, ValueError):
            return None
        return data.decode("utf-8", "replace") if len(data) <= MAX_FILE else None


def _no_group(_: str) -> Sequence[str] | None:
    return None


def _no_column(_table: str, _column: str) -> Mapping[str, str] | None:
    return None


class Universe:
    """The nodes that there are.

    `nodes` maps a name to its static groups. `dynamic` answers the members of a dynamic group, None when there is no such group.
    `empty_groups` are groups that are defined but may have no member: naming one is no error. `column` answers a table's
    column as node -> value, None when no table has it (`nodelist.groups` need not be answered). `excluded` is
    site.excludenodes, itself a noderange.
    """

    def __init__(
        self,
        nodes: Mapping[str, Collection[str]],
        *,
        dynamic: Callable[[str], Sequence[str] | None] = _no_group,
        empty_groups: Collection[str] = (),
        column: Callable[[str, str], Mapping[str, str] | None] = _no_column,
        files: FileReader | None = None,
        excluded: str = "",
        prefix: str = "node",
    ) -> None:
        self.nodes = nodes
        self.dynamic = dynamic
        self.empty_groups = empty_groups
        self.files = files
        self.excluded = excluded
        self.prefix = prefix
        self._column = column
        self._groups: dict[str, list[str]] | None = None

    def group(self, name: str) -> Sequence[str] | None:
        """Members of a dynamic or static group; None when there is none of that name."""
        members = self.dynamic(name)
        if members is not None:
            return members
        if self._groups is None:
            self._groups = {}
            for node, groups in self.nodes.items():
                for group in groups:
                    self._groups.setdefault(group, []).append(node)
        return self._groups.get(name, [] if name in self.empty_groups else None)

    def column(self, table: str, column: str) -> Mapping[str, str] | None:
        """A column as node -> value; None when no table has it."""
        if (table, column) == ("nodelist", "groups"):
            return {node: ",".join(groups) for node, groups in self.nodes.items()}
        if (table, column) == ("nodelist", "node"):
            return {node: node for node in self.nodes}
        return self._column(table, column)


def file_ranges(text: str) -> list[str]:
    """The ranges in a file: one a line, up to the first blank, tab or colon; lines that begin with # or ^ are left out."""
    lines = [re.split(r"[:\t ]", line, maxsplit=1)[0] for line in text.splitlines() if not line.startswith(("#", "^"))]
    return [line for line in lines if line]


def inline_files(text: str, files: FileReader) -> str:
    """`text` with every `^file` replaced by what stands in the file.

    For a caller that sends the range to another process. A file that cannot be read is a UsageError here: this is where a
    person looks at the answer. So is a line whose parentheses do not close: it must not reach out of its own.
    """

    def ranges(match: re.Match[str]) -> str:
        content = files.read(match["file"])
        if content is None:
            raise UsageError(
                f"cannot read the file {match['file']} that the noderange names",
                hint=f"check that it exists and has at most {MAX_FILE} bytes",
                code="bad-noderange",
            )
        found = file_ranges(content)
        for line in found:
            split(line, ",")
        return match["before"] + "(" + ",".join(f"({line})" for line in found) + ")"

    return re.sub(r"(?P<before>^|[,@(]-?|^-)\^(?P<file>[^,@()]+)", ranges, cleaned(text))
