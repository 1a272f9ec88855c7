"""When does it pay to read what is on the target first? A pure rule.

Reading and hashing a unit costs `r` seconds a byte, fetching, unpacking and writing costs `w`. If a share `p` of the bytes
differs, a restore that looks first costs `r + p * w`, one that writes everything costs `w`. Looking pays while

    r + p * w <= w

The three are measured as the restore goes, each as a sum that slowly forgets. While it writes without looking, every so often
a unit is looked at all the same, so a target whose first half differs and whose second does not is noticed.
"""

from __future__ import annotations

from typing import Literal

Mode = Literal["auto", "plain", "delta"]

SAMPLES = 16
"""Units that are looked at before the rule speaks, spread over the partition."""
PROBE_EVERY = 32
_FORGET = 0.95


class Chooser:
    """Says for each unit whether to look first."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._looked = 0
        self._since_look = 0
        self._look_s = self._look_bytes = self._differing = 0.0
        self._write_s = self._write_bytes = 0.0

    def look(self) -> bool:
        """True when the next unit should be read before it is written."""
        if self._mode != "auto":
            return self._mode == "delta"
        if self._looked < SAMPLES or self.pays():
            return True
        self._since_look += 1
        if self._since_look >= PROBE_EVERY:
            self._since_look = 0
            return True
        return False

    def pays(self) -> bool:
        """True when looking first is the faster way, as far as is known."""
        if not self._look_bytes or not self._write_bytes:
            # Nothing had to be written yet: every look was worth it.
            return True
        r = self._look_s / self._look_bytes
        w = self._write_s / self._write_bytes
        return r + self._differing / self._look_bytes * w <= w

    def looked(self, seconds: float, count: int, differing: int) -> None:
        """A unit of `count` bytes was read and hashed; `differing` of them have to be written."""
        self._looked += 1
        self._look_s = self._look_s * _FORGET + seconds
        self._look_bytes = self._look_bytes * _FORGET + count
        self._differing = self._differing * _FORGET + differing

    def wrote(self, seconds: float, count: int) -> None:
        """`count` bytes were fetched, unpacked and written."""
        self._write_s = self._write_s * _FORGET + seconds
        self._write_bytes = self._write_bytes * _FORGET + count


def spread(count: int, samples: int = SAMPLES) -> list[int]:
    """The numbers 0 to `count`, `samples` of them from all over first, then the rest in order. Pure."""
    if count <= samples:
        return list(range(count))
    first = [i * count // samples for i in range(samples)]
    chosen = set(first)
    return first + [i for i in range(count) if i not in chosen]
