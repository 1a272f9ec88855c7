"""What a node does, of all that is known of it, best first. Pure rules; the handler of nodestat brings the facts.

    1  the line of the task that the node has, with a word when its last will says that its agent is gone
    2  the reason of the task that went wrong, until the node is set anew
    3  what an agent says on port 3001
    4  the services that answer: `sshd`, `https,sshd`
    5  what the node is set to, when something of it answers or nobody has looked
    6  `noping`

`nodelist.status` gets xCAT's words: `ping` and `noping` as its own nodestat -u writes them, `installing` while an
image is printed, `failed` when that went wrong; what answered stands in appstatus.
"""

from __future__ import annotations

import msgspec

from litho_controller.probe import Seen
from litho_controller.store.tasks import TaskRow
from litho_controller.tables.nodes import stamp as stamp  # noqa: PLC0414 - exported from here
from litho_controller.tasks import rules

NOPING = "noping"
GONE = ", connection lost"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What nodestat says of one node, and what nodelist is given with -u (`status` empty: nothing)."""

    text: str
    status: str = ""
    appstatus: str = ""


def told(boot_state: str, latest: TaskRow | None, *, gone: bool = False, seen: Seen | None = None) -> Told:
    """What is said of a node: `gone` after its agent's last will, `seen` when somebody looked."""
    text = rules.nodestat_text(boot_state, latest)
    if latest is not None and not latest.state.ended:
        line = text + GONE if gone and latest.state.on_node else text
        status = ("installing" if latest.action == "restore" else "ping") if latest.state.on_node else ""
        return Told(text=line, status=status, appstatus=line if status else "")
    if latest is not None and rules.went_wrong(latest):
        return Told(text=text, status="failed", appstatus=text)
    if seen is None:
        return Told(text=text)
    if not seen.alive:
        return Told(text=NOPING, status=NOPING)
    answer = seen.agent or ",".join(seen.services)
    return Told(text=answer or text, status="ping", appstatus=answer)
