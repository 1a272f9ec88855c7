"""A cancel that somebody else's code swallowed.

`asyncio.wait_for` of Python 3.11 answers with the result of what it waits for when that is ready in the moment of a cancel, and
the cancel is gone: the task goes on, and whoever waits for its end waits for ever. Our own code takes `asyncio.timeout`, which
keeps it; aiomqtt waits with `wait_for` when it connects and publishes. Seen: a controller that was ended in the moment in which
it had reached its broker served on, and heard no second SIGTERM.
"""

import asyncio


def heed() -> None:
    """Call behind such an await. Raises asyncio.CancelledError when the task is to end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
