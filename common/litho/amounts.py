"""Amounts of bytes as people read them: one rule for every line that either side writes.

Decimal units, as disks are sold and as their speed is told: `512 B`, `8.2 kB`, `1.4 GB`, `112 MB/s`. So 1 GB is 10^9 bytes, and a
disk that is sold as 500 GB has 500 GB. Sizes that people give are decimal, too, unless they say `Gi` (as in `500Gi`).
What programs read (JSON, CSV, manifests) is always a number of bytes.
"""

from __future__ import annotations

UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")


def size(count: float) -> str:
    """Bytes: `0 B`, `812 kB`, `1.4 GB`; one place after the point below 100."""
    value = max(0.0, float(count))
    if value < 999.5:
        return f"{value:.0f} B"
    for unit in UNITS:
        value /= 1000
        if value < 99.95:
            return f"{value:.1f} {unit}"
        if value < 999.5:
            break
    return f"{value:.0f} {unit}"


def rate(bytes_a_second: float) -> str:
    """`85.0 MB/s`."""
    return f"{size(bytes_a_second)}/s"


def of(part: float, whole: float) -> str:
    """`9.1 of 10.0 GB`: both in the unit of `whole`."""
    number, unit = size(whole).split()
    scale = 1000 ** (("B", *UNITS).index(unit))
    places = 1 if "." in number else 0
    return f"{max(0.0, part) / scale:.{places}f} of {number} {unit}"
