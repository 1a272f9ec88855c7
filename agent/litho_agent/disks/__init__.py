"""The disks of this machine: what there is (`inventory`), which one is meant (`choose`), what forbids it (`guard`), and
holding it for a job (`hold`).

    inventory.read() -> disks;  choose(disks, selector, action, allow).require() -> Disk;  with held(disk, write=...)
as hold: ..."""

from litho_agent.disks.choose import Choice, Verdict, choose, require_same
from litho_agent.disks.disk import Disk, facts
from litho_agent.disks.hold import Hold, held

__all__ = ["Choice", "Disk", "Hold", "Verdict", "choose", "facts", "held", "require_same"]
