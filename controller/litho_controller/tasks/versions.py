"""May this agent have an order of ours: agent and controller are installed at different times, and one may be older.

What a job says is done as it stands or not at all, so an agent that does not know all of it must not begin. It is found out at
the claim, because after it the task would wait for an agent that has nothing to say:

* The claim is of another version of the wire: node, task, token and session are read of it, and no more.
* The agent reads orders up to an edition (`litho.job.EDITION`) that is older than ours.
* The agent was given an order and could not read it all the same: it repeats its claim with the reason (`declined`).

In each of them the task fails with the reason, and the claim is answered with the same words. A newer agent reads what an older
controller orders, for editions only grow.
"""

from __future__ import annotations

from litho.errors import RefusedError
from litho.job import EDITION
from litho.messages import VERSION, Claimant, ClaimRequest

CODE = "order-version"
BUILD = "build the agent archive again with this controller's release: litho rootimg build"


def refusal(claim: ClaimRequest | Claimant) -> RefusedError | None:
    """Why the agent that claims cannot have its order; None when it can. Pure."""
    agent = f"the agent on {claim.node}" + (f" (lithograph {claim.software})" if claim.software else "")
    if claim.v != VERSION:
        return RefusedError(
            f"{agent} speaks version {claim.v} of the wire, and this controller version {VERSION}",
            hint=BUILD,
            code=CODE,
        )
    if claim.edition < EDITION:
        return RefusedError(
            f"the order is of edition {EDITION}, and {agent} reads up to {claim.edition}", hint=BUILD, code=CODE
        )
    if claim.declined:
        return RefusedError(f"{agent} cannot read its order ({claim.declined})", hint=BUILD, code=CODE)
    return None
