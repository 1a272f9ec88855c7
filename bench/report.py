"""What measurements print and keep: tables in Markdown, and one page in which each measurement has a part of its own.

A part lies between two comments that name it, so that a new run replaces its own part and nothing else. Pure but for `keep`.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.clock import Run

TITLE = "# Measured\n\nEach part is what its command wrote, on the machine and day that it names.\n"
GOALS = {
    "capture / limit": (1.25, "most"),
    "capture / the longest part alone": (1.25, "most"),
    "partclone|zstd / capture": (3.0, "least"),
    "partclone -a0|zstd / capture": (1.6, "least"),
    "partimage -z1 / capture": (12.0, "least"),
    "stored / zstd stream": (1.03, "most"),
    "restore / its limit": (1.4, "most"),
    "zstd|partclone / restore": (6.0, "least"),
    "second stored / packed change at 64 KiB": (1.5, "most"),
    "second stored / change at 64 KiB": (1.5, "most"),
    "second capture / read": (1.3, "most"),
    "delta written / change at 64 KiB": (1.5, "most"),
    "memory MB": (400.0, "most"),
}


def met(value: float, goal: tuple[float, str]) -> bool:
    """Whether a measured value reaches what was aimed at."""
    return value <= goal[0] if goal[1] == "most" else value >= goal[0]


def all_met(found: Mapping[str, float]) -> bool:
    """Whether every value that has a goal reaches it."""
    return all(met(value, GOALS[name]) for name, value in found.items() if name in GOALS)


def run_table(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """One row a contestant: medians over its runs, and the run in which others used least."""
    lines = [
        "| run | times | wall s | CPU s | others' CPU s | stolen CPU s | wall s, quietest (others') | stored MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, of in runs.items():
        keys = ("wall_s", "cpu_s", "others_s", "stolen_s")
        wall_s, cpu_s, others_s, stolen_s = (statistics.median(getattr(run, key) for run in of) for key in keys)
        quiet = min(of, key=lambda run: run.others_s)
        limit = name.startswith("limit")
        cells = (
            (f"{wall_s:.2f}", "", "", "", "", "")
            if limit
            else (
                f"{wall_s:.2f}",
                f"{cpu_s:.2f}",
                f"{others_s:.1f}",
                f"{stolen_s:.1f}",
                f"{quiet.wall_s:.2f} ({quiet.others_s:.1f})",
                f"{of[-1].size / 1e6:.0f}" if of[-1].size else "",
            )
        )
        lines.append(_row(name, str(len(of)), *cells))
    return lines


CPU = ", CPU seconds"
"""What a ratio of CPU seconds is named behind the name of the ratio of walls."""


def ratio_table(found: Mapping[str, float]) -> list[str]:
    """One row a ratio, with what was aimed at; those of CPU seconds stand beside those of walls."""
    lines = ["| median of the rounds' ratios | value | of CPU seconds | goal | |", "|---|---|---|---|---|"]
    for name, value in found.items():
        if name.endswith(CPU):
            continue
        goal, cpu = GOALS.get(name), found.get(name + CPU)
        said = f"at {goal[1]} {goal[0]:g}" if goal else ""
        missed = "missed" if goal and not met(value, goal) else ""
        lines.append(_row(name, f"{value:.2f}", "" if cpu is None else f"{cpu:.2f}", said, missed))
    return lines


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Any other table."""
    return [_row(*head), "|" + "---|" * len(head), *(_row(*row) for row in rows)]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def machine() -> str:
    """What it ran on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{today}, {len(os.sched_getaffinity(0))} cores ({cpu}), {memory:.0f} GB, Linux {platform.release()}"


def with_part(page: str, name: str, text: str) -> str:
    """The page with the part `name` replaced, or added at its end."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- end: {name} -->"
    part = f"{begin}\n{text.strip()}\n{end}"
    before, found, rest = page.partition(begin)
    if not found:
        return f"{page.rstrip()}\n\n{part}\n"
    _, closed, after = rest.partition(end)
    if not closed:
        raise ValueError(f"the page has {begin!r} without {end!r}")
    return before + part + after


def keep(out: Path, name: str, text: str) -> None:
    """Put the part `name` into the page `out`, which is made if it is not there."""
    page = out.read_text() if out.exists() else TITLE
    out.write_text(with_part(page, name, text))
