"""A call that may hang in the kernel, made in a thread that nobody has to wait for.

`asyncio.to_thread` will not do for a file server that never answers: at its end `asyncio.run` waits for all the threads that
it lent, and so would an agent whose job ended long ago.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def apart(call: Callable[[], T], *, name: str, limit_s: float) -> T:
    """What `call` answers, or raises. Raises TimeoutError after `limit_s` seconds; then, or when cancelled, it is left alone."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # no error: then it is what `call` answered

    def work() -> None:
        result, error = None, None
        try:
            result = call()
        except Exception as exc:
            error = exc
        # The loop may be gone by now.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=work, name=name, daemon=True).start()
    async with asyncio.timeout(limit_s):
        await answer
    return answer.result()
