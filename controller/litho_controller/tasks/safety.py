"""What must be right of a node before it gets a task, asked when it is set and again when it is armed.

* It can be told from every other machine when it boots: it has a MAC address that no other node has (`boot.require_mac`; an
  address that two nodes have is refused in any case).
* What its tables say can stand in a boot file.

Two tasks for one node and images in use are held elsewhere: by the database's own index, and by `tasks.images`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import RefusedError, UsageError
from litho_controller.boot import facts as facts_of
from litho_controller.boot import macs, plan, words
from litho_controller.boot.plan import Facts


def check(facts: Facts, claimed: Mapping[str, Sequence[str]], *, url: str, require_mac: bool) -> None:
    """Raise RefusedError when the node cannot boot for a task; `claimed` is every address with the nodes that have it. Pure."""
    try:
        if require_mac or macs.of_cell(facts.mac):
            macs.check(facts.node, facts.mac, claimed)
        own = words.parse(facts.addkcmdline, of=f"bootparams.addkcmdline of {facts.node}")
        plan.boot(facts, title="", url=url, common=(), own=own)
    except UsageError as exc:
        raise RefusedError(exc.message, hint=exc.hint, code=exc.code) from exc


async def refusals(
    conn: AsyncConnection, names: Sequence[str], *, url: str, require_mac: bool
) -> dict[str, RefusedError]:
    """Why which of these nodes may not have a task."""
    claimed = macs.owners(await facts_of.addresses(conn))
    found = {}
    for name, facts in (await facts_of.of_nodes(conn, names)).items():
        try:
            check(facts, claimed, url=url, require_mac=require_mac)
        except RefusedError as exc:
            found[name] = exc
    return found
