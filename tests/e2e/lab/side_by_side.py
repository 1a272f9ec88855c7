"""Runs the scenarios: in two labs side by side where the machine has two cores and the memory for it, else in one.

A node in QEMU is one thread that computes, and now and then waits for its network; two labs keep two cores at work. Each lab is
a pytest of its own in its own network, mount and PID namespace, so neither sees the other's bridge, servers or nodes. What
they print comes out here line by line, with the lab's number in front; at the end stands one table of all scenarios, which
build/e2e/scenarios.md keeps.

A lab that hangs is ended by pytest's faulthandler_timeout; the name of the test comes last, and the other lab does the rest.
However this program ends, the kernel ends the labs and everything in them: `unshare --kill-child` dies with its parent.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from litho import process

from . import figures, shared

GIB = 1024**3
MEMORY = 6 * GIB
"""Free bytes that two labs need; each has at most three nodes at a time."""
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
HANGS_S = 1200
"""A scenario that takes so long has ended in none of its waits, and is ended."""
NOTHING_LEFT = 5
"""pytest's word for no test at all."""


def how_many(cores: int, free: int, asked: str) -> int:
    """How many labs to run on so many cores with so many free bytes; `asked`, when it is not empty, is what a person wants."""
    if asked:
        return 2 if asked == "2" else 1
    return 2 if cores >= 2 and free >= MEMORY else 1


def main() -> int:
    """Arguments go to pytest behind the folder to work in. Answers 0 when every scenario of every lab went well."""
    cache, words = Path(sys.argv[1]).resolve(), sys.argv[2:]
    run = cache / "run"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    count = how_many(len(os.sched_getaffinity(0)), psutil.virtual_memory().available, os.environ.get("LITHO_LABS", ""))
    begun = time.monotonic()
    labs = {number: _start(number, run, words) for number in range(1, count + 1)}
    readers = [threading.Thread(target=_copy, args=(f"{number} " * (count > 1), lab)) for number, lab in labs.items()]
    for reader in readers:
        reader.start()
    codes = {number: lab.wait() for number, lab in labs.items()}
    for reader in readers:
        reader.join()
    if rows := figures.read(run):
        lines = figures.table(rows, time.monotonic() - begun, count)
        sys.stdout.write("\n".join(("", *lines, *figures.failed(rows), "")))
        sys.stdout.flush()
        (cache / "scenarios.md").write_text("\n".join((*lines, "")))
    for number, code in codes.items():
        if code:
            began = _began(run, number)
            last = began.read_text().strip() if began.is_file() else "none"
            sys.stderr.write(f"lab {number} ended with {code}; the last test that began in it: {last}\n")
    return max(codes.values(), key=lambda code: (code != 0, code != NOTHING_LEFT))


def _began(run: Path, number: int) -> Path:
    return run / f"began-{number}"


def _start(number: int, run: Path, words: list[str]) -> subprocess.Popen[bytes]:
    argv = [*UNSHARE, sys.executable, "-m", "pytest", "-v", "-o", "console_output_style=classic"]
    argv += ["-o", f"faulthandler_timeout={HANGS_S}", *words]
    env = os.environ | {
        shared.NUMBER: str(number),
        shared.FOLDER: str(run),
        "LITHO_TEST_BEGAN": str(_began(run, number)),
    }
    return process.start(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)


def _copy(mark: str, lab: subprocess.Popen[bytes]) -> None:
    """Whole lines, so that two labs do not write into each other's."""
    assert lab.stdout is not None
    for line in lab.stdout:
        sys.stdout.write(mark + line.decode(errors="replace"))
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
