"""The table of scenarios: which ran, how it went, how long it took, and what was measured on the way.

Each lab of a run writes its rows down after each test, so that they are there whatever becomes of it; they are joined at the end.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from . import shared


class Row(msgspec.Struct, kw_only=True):
    """One scenario."""

    title: str
    outcome: str = "failed"
    seconds: float = 0.0
    figures: dict[str, str] = msgspec.field(default_factory=dict)
    reason: str = ""
    """One line of why it failed."""


def table(rows: list[Row], seconds: float, labs: int) -> list[str]:
    """Lines of Markdown; the whole run took `seconds` with so many labs."""
    lines = ["| scenario | result | seconds | measured |", "|---|---|---|---|"]
    for row in rows:
        measured = "; ".join(f"{name} {value}" for name, value in row.figures.items())
        lines.append(f"| {row.title} | {row.outcome} | {row.seconds:.0f} | {measured} |")
    how = " in two labs side by side" if labs > 1 else ""
    return [*lines, f"| all{how} | | {seconds:.0f} | one after the other {sum(row.seconds for row in rows):.0f} s |"]


def failed(rows: list[Row]) -> list[str]:
    """A line for each scenario that failed: they are said last, because of a long log often only the end is kept."""
    return [
        f"failed: {row.title}: {row.reason or 'it was ended in the middle'}" for row in rows if row.outcome == "failed"
    ]


def write(rows: list[Row]) -> None:
    """Keep what this lab has so far."""
    file = shared.folder() / f"rows-{shared.number()}.json"
    file.with_suffix(".part").write_bytes(msgspec.json.encode(rows))
    file.with_suffix(".part").rename(file)


def read(run: Path) -> list[Row]:
    """The rows of all labs of a run, by their titles."""
    found = [row for file in run.glob("rows-*.json") for row in msgspec.json.decode(file.read_bytes(), type=list[Row])]
    return sorted(found, key=lambda row: row.title)
