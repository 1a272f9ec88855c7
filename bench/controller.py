"""Ten thousand nodes: how long `nodestat all`, `lsdef all` and the other commands over all of them take.

    python -m bench controller [--nodes 10000] [--runs 5]

A daemon of its own in a temporary folder, filled by tabrestore: nodes in groups, with MACs and addresses that are not looked
at, a quarter of them with a task that waits. Each command runs as a process, as a person would run it; printed are the fastest,
the median and the slowest run, and the aim of one second where there is one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from litho import process

LITHO = Path(sys.executable).parent / "litho"
AIM_S = 1.0
COMMANDS: tuple[tuple[str, bool], ...] = (
    ("nodestat all --no-probe", True),
    ("nodeset all stat", True),
    ("lsdef all", True),
    ("lsdef all -i mac,ip,os", False),
    ("lsdef -t node -w os==image", False),
    ("nodels all nodetype.os nodetype.profile", False),
    ("nodels nodetype.os==image", False),
    ("nodels images", False),
    ("tabdump nodelist", False),
    ("nodech all nodetype.arch=x86_64", False),
    ("node ls", False),
)


def main(argv: Sequence[str]) -> int:
    """Measure; 1 when an aim was missed."""
    parser = argparse.ArgumentParser(prog="bench controller", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="litho-bench-") as folder:
        return _measure(Path(folder), args.nodes, args.runs)


def _measure(folder: Path, nodes: int, runs: int) -> int:
    settings = folder / "lithograph.toml"
    settings.write_text(
        f'state_dir = "{folder}/state"\nlibrary = "{folder}/state/library"\nsocket = "{folder}/litho.sock"\n'
        "[http]\nport = 0\n[broker]\nport = 0\n"
    )
    env = {"LITHO_CONFIG": str(settings), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        daemon = process.start([LITHO, "serve"], stdout=log.fileno(), stderr=log.fileno(), env=env)
    try:
        _wait(env)
        _fill(folder, env, nodes)
        missed = 0
        print(f"{nodes} nodes, {runs} runs each, seconds of the whole command: fastest, median, slowest")
        for command, aimed in COMMANDS:
            took = sorted(_timed(command, env) for _ in range(runs))
            median = statistics.median(took)
            verdict = "" if not aimed else "  (aim 1.0: reached)" if median < AIM_S else "  (aim 1.0: missed)"
            missed += aimed and median >= AIM_S
            print(f"  {command:<42} {took[0]:5.2f} {median:5.2f} {took[-1]:5.2f}{verdict}")
    finally:
        daemon.terminate()
        daemon.wait(30)
    return int(missed > 0)


def _wait(env: dict[str, str]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if process.run([LITHO, "tabdump"], env=env, ok=range(256)).code == 0:
            return
        time.sleep(0.1)
    raise SystemExit("the daemon did not begin to answer")


def _fill(folder: Path, env: dict[str, str], nodes: int) -> None:
    names = [f"n{number:05}" for number in range(1, nodes + 1)]
    tables = {
        "nodelist": ("node,groups", [f'"{name}","all,rack{at % 40}"' for at, name in enumerate(names)]),
        "mac": (
            "node,mac",
            [f'"{name}","52:54:00:{at >> 16:02x}:{at >> 8 & 255:02x}:{at & 255:02x}"' for at, name in enumerate(names)],
        ),
        "hosts": ("node,ip", [f'"{name}","10.{at >> 16}.{at >> 8 & 255}.{at & 255}"' for at, name in enumerate(names)]),
        "noderes": ("node,netboot,installnic", [f'"{name}","xnba","mac"' for name in names]),
        "nodetype": ("node,os,arch,profile", [f'"{name}","rhels9","x86_64","compute"' for name in names]),
    }
    for table, (columns, lines) in tables.items():
        file = folder / f"{table}.csv"
        file.write_text(f"#{columns}\n" + "\n".join(lines) + "\n")
        process.run([LITHO, "tabrestore", file], env=env)
    process.run([LITHO, "mkdef", "-t", "group", "images", "-d", "-w", "os==image"], env=env)
    process.run([LITHO, "nodeset", f"{names[0]}-{names[nodes // 4 - 1]}", "image=golden"], env=env)


def _timed(command: str, env: dict[str, str]) -> float:
    begun = time.monotonic()
    process.run([LITHO, *command.split()], env=env)
    return time.monotonic() - begun
