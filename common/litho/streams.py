"""Standard streams that are really there, before a program opens anything else.

Whoever starts a program may close its standard output (`litho node ls >&-`). Python then has None where a stream should be,
and, worse, the next file that is opened gets the number that is free: a disk could become the standard output of a child. So
each of the three numbers is taken by the null device first; what was closed reads as empty and swallows what is written.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

__all__ = ["forsake", "hold", "unwritable"]


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
    _watch_output()


class _Output(io.FileIO):
    """Standard output, which remembers why it could not be written."""

    failures: ClassVar[list[OSError]] = []

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as exc:
            self.failures.append(exc)
            raise


def _watch_output() -> None:
    if sys.stdout is not sys.__stdout__ or not isinstance(sys.stdout, io.TextIOWrapper) or sys.stdout.fileno() != 1:
        return
    old = sys.stdout
    old.flush()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "w", closefd=False)),
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=old.line_buffering,
    )


def unwritable() -> OSError | None:
    """Why standard output did not take what was written; None when it did. So an error of the output is told from others."""
    try:
        sys.stdout.flush()
    except OSError as exc:
        return exc
    return _Output.failures[0] if _Output.failures else None


def forsake() -> None:
    """Write no more to standard output. Python would complain once more when it closes it at its end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
