"""What a restore looks at before it makes the disk bootable: does every partition hold what the image says, and is it sound?

Two looks at each. blkid must find the file system with its UUID: a disk that loses what is written to it is found out here.
Then the file system's own checker, which only reads, must find nothing: e2fsck, xfs_repair, `btrfs check`, fsck.fat,
fsck.exfat, ntfsfix, fsck.f2fs. What it calls damaged ends the task as failed, and the disk stays one that does not boot. This
comes after growing, so a resize that went wrong is found as well.

Three cases are told in a note and do not end the task:

* The capture knew that the file system was not clean (`on_dirty=raw`) or could not read all of it (`on_bad_sector`): the image is
  what was asked for, and its checker would only repeat it.
* There is no checker (an unknown file system) or it is not installed, or the kernel ended it for want of memory.
* The restore was asked for with `on_dirty=raw`: the image is wanted as it is, whatever the checker says.
"""

from __future__ import annotations

from pathlib import Path

from litho.errors import DiskError, EngineError
from litho.job import Job
from litho.library import Part
from litho_agent.disks import Hold
from litho_agent.filesystems import checker, probe, prove
from litho_agent.telling import Teller, check_cancelled
from litho_agent.volumes import BYTES_ONLY

CONDITION = "condition"
"""Key of `Part.extra`: the state in which the file system was copied, when it was not clean."""


def settled(hold: Hold, device: Path, part: Part, job: Job, teller: Teller) -> tuple[str, ...]:
    """Look at `part` as it lies on `device` now; answers what a person should know.

    Raises DiskError (`write-lost`, `not-clean`), EngineError, CancelledError.
    """
    if part.kind not in ("stream", "swap") or BYTES_ONLY in part.extra:
        return ()
    check_cancelled(teller)
    found = probe(device)
    if (found.type, found.uuid) != (part.fs, part.uuid):
        raise DiskError(
            f"{device} should hold {part.fs or 'unknown content'} {part.uuid} and holds {found.type or 'nothing known'} "
            f"{found.uuid}",
            hint="the disk does not keep what is written to it; check it before trusting it",
            code="write-lost",
        )
    if not part.fs:
        return ()
    if part.bad or part.extra.get(CONDITION):
        why = "could not be read completely" if part.bad else f"was in state {part.extra[CONDITION]!r}"
        return (f"the {part.fs} on {device} was not checked: its source {why} when it was captured",)
    return _sound(hold, device, part, job, teller)


def _sound(hold: Hold, device: Path, part: Part, job: Job, teller: Teller) -> tuple[str, ...]:
    check = checker(device, part.fs)
    if check is None:
        return ()
    try:
        if prove(device, part.fs, hold=hold, cancelled=teller.cancelled):
            return ()
    except DiskError as exc:
        if job.on_dirty != "raw" or exc.code != "not-clean":
            raise
        return (exc.message,)
    except EngineError as exc:
        if exc.code != "no-check":
            raise
        return (exc.message,)
    return (f"the {part.fs} on {device} was not checked: {check.argv[0]} is not installed",)
