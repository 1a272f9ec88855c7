"""The imaging engines, behind one protocol.

`base` says what an engine is, `choose` which one saves a partition, `used` which bytes of it hold data, `tail` what the
engines leave out. `partclone`, `partimage`, `partimage_ng` and `raw` each hold the rules of one program.
"""

from litho_agent.engines.base import Engine, Source, Verdict
from litho_agent.engines.choose import choose, choose_for, named, program_version
from litho_agent.engines.used import Extent, used_bytes, used_extents

__all__ = [
    "Engine",
    "Extent",
    "Source",
    "Verdict",
    "choose",
    "choose_for",
    "named",
    "program_version",
    "used_bytes",
    "used_extents",
]
