"""How a node was when its agent last said it, as the command line shows it. See `litho.messages.Health`."""

from __future__ import annotations

import msgspec

from litho.messages import Health


class HealthView(msgspec.Struct, frozen=True, kw_only=True):
    """The last health that was heard of a node."""

    at: float
    """When it was heard, in seconds since 1970 by the controller's clock."""
    task: str
    """The task that the node worked on then."""
    health: Health
    warning: str = ""
    """What a person should do something about; empty when nothing is."""


def warning(health: Health) -> str:
    """The sentence that a bad verdict deserves; empty for a good one, and for none. Pure."""
    if health.disk != "failed":
        return ""
    note = f" ({health.disk_note})" if health.disk_note else ""
    return f"the task's disk says of itself that it is failing{note}: replace it before it is trusted with anything"
