"""A machine that no node is shows itself, and is told what to do. The third road from a node to the controller, over HTTP.

    machine                                    controller
    boots the root image with litho.discover
    POST /v1/discover  Discovery        ->     notes it, for a person to look at
                                        <-     Discovered: who it is by now, and what it is to do
    waits some seconds and asks again

Nothing of it is remembered between two questions but the note: the answer follows from the tables and the queue alone, so either
side may start anew at any time. `Discovered.cmdline` holds the words that the machine's kernel command line would have, had it
booted only now; with them it goes on to claim its task as every node does (`litho.messages`).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from litho.messages import Message, Text

Address = Annotated[str, msgspec.Meta(max_length=32)]
NameOrNothing = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?\Z")]


class Discovery(Message, frozen=True, kw_only=True):
    """What a machine says of itself."""

    macs: Annotated[tuple[Address, ...], msgspec.Meta(min_length=1, max_length=64)]
    """Addresses of its cards, the one that booted first."""
    inventory: dict[str, Any] = msgspec.field(default_factory=dict)
    """As in `litho.messages.ClaimRequest`; kept for people."""


class Discovered(Message, frozen=True, kw_only=True):
    """Who it is, and what it is to do: `reboot`, or claim with the words of `cmdline`, or (neither) wait and ask again."""

    node: NameOrNothing = ""
    """The node that has one of its addresses; empty while none has, or more than one."""
    cmdline: Text = ""
    reboot: bool = False

    def __repr__(self) -> str:
        """Without the token among the words, so that it can be logged."""
        return f"Discovered(node={self.node!r}, cmdline of {len(self.cmdline)} characters, reboot={self.reboot})"
