"""partimage-ng with a stand-in for its program, of which no binary is to be had: the real rules, the attested command lines."""

from pathlib import Path

from litho.process import Argv
from litho_agent.engines import Source
from litho_agent.engines.partimage_ng import PartimageNg


class StandInPartimageNg(PartimageNg):
    """The real rules and command lines, with the stand-in program in the place of the one that is not to be had."""

    PROGRAM = Path(__file__).parent / "bin" / "stand-in-for-partimage-ng"

    def save(self, source: Source) -> Argv:
        return (self.PROGRAM, *super().save(source)[1:])

    def restore(self, device: Path, fs: str) -> Argv:
        return (self.PROGRAM, *super().restore(device, fs)[1:])
