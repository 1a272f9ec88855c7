"""Jobs run by the agent's mover on this machine, without any controller."""

import asyncio
import os
from pathlib import Path

from litho.job import Job
from litho.library import Library, Owner
from litho.messages import Succeeded
from litho_agent import mover
from litho_agent.mover import WorkOrder


async def printed(library: Library, disk: Path, image: str = "golden") -> Succeeded:
    """What a restore of `image` onto `disk` says at its end; it must succeed."""
    order = WorkOrder(
        job=Job(action="restore", image=image, disk=str(disk)),
        library=str(library.root),
        owner=Owner(session="r", pid=os.getpid()),
    )
    end = await mover.run(order, lambda _: None, asyncio.Event())
    assert isinstance(end, Succeeded), end
    return end
