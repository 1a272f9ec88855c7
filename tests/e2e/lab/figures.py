"""The table of scenarios: which ran, how it went, how long it took, and what was measured on the way.

It is printed when the tests have ended, and kept as build/e2e/scenarios.md.
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class Row(msgspec.Struct, kw_only=True):
    """One scenario."""

    title: str
    outcome: str = "failed"
    seconds: float = 0.0
    figures: dict[str, str] = msgspec.field(default_factory=dict)


def table(rows: list[Row]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| scenario | result | seconds | measured |", "|---|---|---|---|"]
    for row in rows:
        measured = "; ".join(f"{name} {value}" for name, value in row.figures.items())
        lines.append(f"| {row.title} | {row.outcome} | {row.seconds:.0f} | {measured} |")
    return [*lines, f"| all | | {sum(row.seconds for row in rows):.0f} | |"]


def write(rows: list[Row], file: Path) -> None:
    """Keep the table."""
    file.write_text("\n".join((*table(rows), "")))
