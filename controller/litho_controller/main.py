"""`litho`, and the names of xCAT's commands when it is called by one of them (through a link)."""

from __future__ import annotations

import sys
from pathlib import Path

from litho import streams
from litho_controller.cli.app import run


def main() -> int:
    """Run the command line of this process; the answer is its exit code."""
    streams.hold()
    return run(sys.argv[1:], called=Path(sys.argv[0]).name)


if __name__ == "__main__":
    sys.exit(main())
