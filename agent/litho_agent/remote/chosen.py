"""Which sources a job reads from: what the task says, else the kernel command line, else the site, else the library as it is
mounted. Pure. A capture writes, so it knows the mounted library alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from litho.errors import UsageError
from litho.job import Job
from litho.library import sources
from litho_agent.remote.web import Web


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job's library is."""

    library: str
    """To be mounted, or a directory; empty when nothing of it is read so."""
    webs: tuple[Web, ...] = ()


def chosen(job: Job, site: Sequence[str], *, library: str, controller: str = "", token: str = "") -> Chosen:
    """The sources of `job`; `site` is what holds where it says nothing. `controller` is its base address, `token` what it wants
    to see of who reads its library. Raises UsageError (code bad-source) for a word that is none."""
    words = sources.check(job.sources or site or (sources.NFS,)) if job.action != "capture" else (sources.NFS,)
    webs: list[Web] = []
    for word in words:
        if word == sources.CONTROLLER:
            if not controller:
                raise UsageError(
                    "the source controller is the one that gave the task, and there is none here",
                    hint="write its address: http://host:port/path",
                    code="bad-source",
                )
            webs.append(Web(controller.rstrip("/") + sources.DOOR, token))
        elif word != sources.NFS:
            webs.append(Web(word))
    return Chosen(library=library if sources.NFS in words else "", webs=tuple(webs))
