"""A cancel that somebody else's code swallowed.

`asyncio.wait_for` of Python 3.11 answers with the result of what it waits for when that is ready in the moment of a cancel, and
the cancel is gone: the task goes on, and whoever waits for its end waits for ever. Our own code takes `asyncio.timeout`, which
keeps it; aiomqtt waits with `wait_for` when it connects and publishes. Seen: a controller that was ended in the moment in which
it had reached its broker served on, and heard no second SIGTERM.

The number of cancels that a task was asked for tells, but not from zero: a task group of Python 3.11 whose member fails while it
waits for the others leaves its parent with one too many.
"""

import asyncio
from collections.abc import Collection


def asked() -> int:
    """How many cancels this task was asked for so far."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def heed(before: int = 0) -> None:
    """Call behind such an await. Raises asyncio.CancelledError when the task was asked to end since `before` was `asked`."""
    if asked() > before:
        raise asyncio.CancelledError


async def ended(tasks: Collection[asyncio.Task[None]], *, again_s: float = 5.0) -> None:
    """Cancel `tasks`, and again every `again_s` seconds those that go on, until all have ended."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again_s)
