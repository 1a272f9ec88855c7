"""Standard streams that are really there, before a program opens anything else.

Whoever starts a program may close its standard output (`litho node ls >&-`). Python then has None where a stream should be,
and, worse, the next file that is opened gets the number that is free: a disk could become the standard output of a child. So
each of the three numbers is taken by the null device first; what was closed reads as empty and swallows what is written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["hold"]


def hold() -> None:
    """Put the null device where standard input, output or error is closed. Call it first of all in `main`."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is given out, and all below this one are taken.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - lives as long as the program
