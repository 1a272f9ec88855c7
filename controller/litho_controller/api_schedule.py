"""What crosses between the command line and the daemon about when things happen, power, and machines that nobody has defined.

The requests stand in the table of `litho_controller.api`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from litho.job import Short

PowerAction = Literal["on", "off", "reset", "stat", "boot"]


class When(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When tasks start, and before which others."""

    at: float | None = None
    """Not before this time, and then also outside the maintenance windows."""
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    """The higher one first."""
    wave: Short = ""
    """Sizes of steps, `2,10,50%`: each step starts when the one before it has ended."""
    stop_after: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """The wave stops after so many failures; 0: never."""


class WaveView(msgspec.Struct, frozen=True, kw_only=True):
    """One wave: tasks in steps."""

    id: str
    sizes: str
    stop_after: int
    state: str
    """`running`, `done` or `stopped`; `making` for a moment at its beginning."""
    step: int
    """The step that it has reached, from 1."""
    steps: int
    reason: str = ""
    """Why it stopped."""
    created: float
    ended: float | None = None
    waiting: int = 0
    """Tasks, by what they do: not begun, under way, ended well, ended badly, cancelled."""
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class WaveList(msgspec.Struct, frozen=True, kw_only=True):
    """Waves, newest first."""

    waves: tuple[WaveView, ...] = ()


class LogView(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a task's course."""

    id: str
    lines: tuple[tuple[float, str], ...] = ()
    """What the controller saw, each with its time."""
    plan: tuple[str, ...] = ()
    """The disk and the steps that the agent settled on."""
    notes: tuple[str, ...] = ()
    """What a person should know although it went well."""
    log: str = ""
    """The end of the job's log: as the agent sent it with its failure, or as it lies beside the captured image."""


class PowerRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`rpower`: switch the nodes of a range, or ask how they are; `boot` is `reset` for one that is on, else `on`."""

    range: str
    action: PowerAction


class PowerLine(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one node: `text` is `on`, `off`, or what the site's program said; or `error` says why not."""

    node: str
    text: str = ""
    error: str = ""


class PowerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One line for each node of the range, sorted by name."""

    nodes: tuple[PowerLine, ...] = ()


class DiscoveredView(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that has shown itself and that no node is."""

    mac: str
    """Of the card that booted."""
    macs: tuple[str, ...] = ()
    address: str = ""
    first: float
    last: float
    inventory: dict[str, Any] = {}


class DiscoveredList(msgspec.Struct, frozen=True, kw_only=True):
    """Machines, the one that was seen last first."""

    machines: tuple[DiscoveredView, ...] = ()
