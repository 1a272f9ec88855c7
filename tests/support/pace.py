"""How long something took, without the time in which the machine had no processor or no disk for it.

A promise such as "a cancel ends a job within two seconds" holds for a machine that has time for it. Where tests share two
processors with each other, and perhaps with strangers, a clock alone tells nothing: `Moment` also reads how long tasks of this
machine stood in line for a processor, a disk or memory (the kernel's pressure stall information, /proc/pressure, lines "some",
in microseconds) or the machine itself for its host (/proc/stat, "steal"), and takes that away. On an idle machine nothing is.
"""

import os
import time
from pathlib import Path

UNKNOWN_S = 10.0
"""What is forgiven where the kernel does not tell (CONFIG_PSI off, or a container that hides it)."""

_TICKS = os.sysconf("SC_CLK_TCK")


class Moment:
    """Now; `took` is asked later."""

    def __init__(self) -> None:
        self._clock = time.monotonic()
        self._stood = stood_still()

    def passed(self) -> float:
        """Seconds by the clock."""
        return time.monotonic() - self._clock

    def took(self) -> float:
        """Seconds since this moment, without those in which the machine kept its tasks waiting; may be below zero."""
        now = stood_still()
        if now is None or self._stood is None:
            return self.passed() - UNKNOWN_S
        return self.passed() - (now - self._stood)


def stood_still() -> float | None:
    """Seconds since the boot in which some task waited for what it needs to run; None where nobody counts them."""
    try:
        waited = sum(some(Path(f"/proc/pressure/{what}").read_text()) for what in ("cpu", "io", "memory"))
        [words] = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu ")]
        return waited + int(words[8]) / _TICKS
    except (OSError, ValueError, IndexError):
        return None


def some(text: str) -> float:
    """Seconds in the line "some" of a file of /proc/pressure."""
    [line] = [line for line in text.splitlines() if line.startswith("some ")]
    return int(line.rpartition("total=")[2]) / 1e6
