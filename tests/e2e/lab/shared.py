"""What labs that run side by side share: one folder a run, in which each scenario is taken by one of them.

`scripts/e2e` starts one or two labs, each in namespaces of its own, with the same list of scenarios in the same order. A lab
takes the first that nobody has taken, and so on until none is left: they end together, however long each scenario takes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

FOLDER, NUMBER = "LITHO_LAB_RUN", "LITHO_LAB"
"""Variables: the run's folder, and which lab of the run this is."""


def folder() -> Path:
    """The run's folder; empty when the run begins."""
    return Path(os.environ[FOLDER])


def number() -> str:
    """Which lab this is, from 1; empty outside of any."""
    return os.environ.get(NUMBER, "")


def take(what: str) -> bool:
    """True when this lab has taken `what`, now or before; False when another one has."""
    claims = folder() / "taken"
    claims.mkdir(exist_ok=True)
    claim = claims / what.replace("/", "-")
    try:
        # A link is there with its content or not at all.
        claim.symlink_to(number())
    except FileExistsError:
        return str(claim.readlink()) == number()
    return True


@contextlib.contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Only one lab at a time makes what is kept in `cache`; the other then finds it there."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
