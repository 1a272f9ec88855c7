"""`python -m bench [NAME]`: run all measurements, or one of them. Each has options: `python -m bench overhead --help`."""

from __future__ import annotations

import os
import signal
import sys

from bench import bundle, chunk, chunk_growth, controller, memory, overhead

BENCHES = {
    "overhead": overhead.main,
    "chunk": chunk.main,
    "chunk-growth": chunk_growth.main,
    "controller": controller.main,
    "memory": memory.main,
    "bundle": bundle.main,
}


def main(argv: list[str]) -> int:
    """Run what `argv` names; the exit code is not 0 when a goal was missed."""
    if os.geteuid() != 0:
        print("the measurements use loop devices and need root", file=sys.stderr)
        return 2
    # Loop devices, mounts and gigabytes of files are taken away also where `timeout` ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if argv and argv[0] in BENCHES:
        return BENCHES[argv[0]](argv[1:])
    if argv and not argv[0].startswith("-"):
        print(f"there is no measurement {argv[0]!r}; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    return max(run(argv) for run in BENCHES.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
