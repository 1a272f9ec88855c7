"""What the node does when the job is over: reboot, power off, or stay.

Only a node that was booted for the job may be switched by it. The root image carries the marker file `/etc/lithograph-rootimg`;
without it the agent runs on somebody's machine (a laptop, a test, the management node) and stays, whatever was asked.
The rule is pure; the switch itself stands behind a small protocol, so that a test never comes near it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import msgspec

from litho import process
from litho.errors import CancelledError, LithoError
from litho.job import Then
from litho.messages import Failed, Stopped
from litho_agent.mover import End

MARKER = Path("/etc/lithograph-rootimg")

Deed = Literal["reboot", "poweroff", "stay"]


class Decision(msgspec.Struct, frozen=True):
    """What will be done, and a note for the person at the console, which may be empty."""

    deed: Deed
    note: str = ""


class Power(Protocol):
    """The node's switch."""

    def reboot(self) -> None:
        """Start the node anew. Raises EngineError."""

    def poweroff(self) -> None:
        """Switch the node off. Raises EngineError."""


class SystemPower:
    """The real switch: the programs of the root image."""

    def reboot(self) -> None:
        """Start the node anew. Raises EngineError."""
        process.run(["reboot"], timeout_s=60, doing="rebooting the node")

    def poweroff(self) -> None:
        """Switch the node off. Raises EngineError."""
        process.run(["poweroff"], timeout_s=60, doing="switching the node off")


class NoPower:
    """A switch that only remembers what was asked of it: the shipped fake."""

    def __init__(self) -> None:
        self.deeds: list[str] = []

    def reboot(self) -> None:
        """Remember it."""
        self.deeds.append("reboot")

    def poweroff(self) -> None:
        """Remember it."""
        self.deeds.append("poweroff")


def decide(then: Then, *, in_rootimg: bool) -> Decision:
    """What becomes of the wish `then`; empty means: reboot in the root image, stay elsewhere."""
    if not in_rootimg:
        if then in ("reboot", "poweroff"):
            return Decision("stay", f"then={then} is not followed: this machine does not run the root image ({MARKER})")
        return Decision("stay")
    return Decision(then or "reboot")


def exit_code(end: End) -> int:
    """What the agent ends with: 0 for success, else the exit code of the error (`litho.errors`)."""
    if isinstance(end, Failed):
        return end.exit_code
    return CancelledError.exit_code if isinstance(end, Stopped) else 0


def in_rootimg(marker: Path = MARKER) -> bool:
    """True when this machine runs the root image."""
    return marker.is_file()


def finish(decision: Decision, power: Power) -> str:
    """Do it. Answers a sentence when it could not be done, else an empty string."""
    try:
        if decision.deed == "reboot":
            power.reboot()
        elif decision.deed == "poweroff":
            power.poweroff()
    except LithoError as exc:
        return str(exc)
    return ""
