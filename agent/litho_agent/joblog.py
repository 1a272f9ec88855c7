"""The job's log: what was done, program by program, with the seconds since the job began.

The worker keeps one, and a capture puts it beside the image (`golden.v2-job.log`). The agent keeps another, which also holds what
came before and after the worker (the mount, the hooks, the worker's own log lines); of that one the end travels with a failure,
because a node that has started anew has forgotten everything.

A log is bounded: its beginning and its end are kept, the middle of a very long one is counted and left out. Times are by a
clock that no one can set: the node's calendar may be wrong by years. Programs get their secrets by other ways than their
arguments, and the agent's own token and password are in no log line, so there is nothing to strike out.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from litho.messages import Failed, Planned, Started, Stopped, Succeeded
from litho_agent.report.console import plain, sentence

FIRST_LINES = 500
LAST_LINES = 1500
LONGEST = 500
"""Characters of one line."""


class JobLog:
    """Lines with their seconds. May be written to from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._lock = threading.Lock()
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._lost = 0

    def add(self, text: str) -> None:
        """One line."""
        line = f"{self._clock() - self._begun:9.1f} s  {plain(text)[:LONGEST]}\n"
        with self._lock:
            if len(self._first) < FIRST_LINES:
                self._first.append(line)
                return
            self._lost += len(self._last) == LAST_LINES
            self._last.append(line)

    def hear(self, message: Planned | Started | Succeeded | Failed | Stopped) -> None:
        """News of the job, in the words of the console."""
        for line in sentence(message):
            self.add(line)

    def text(self) -> str:
        """All that is kept."""
        with self._lock:
            gap = [f"  ... {self._lost} lines left out ...\n"] if self._lost else []
            return "".join([*self._first, *gap, *self._last])

    def tail(self, limit: int) -> str:
        """The end of it, whole lines of together at most `limit` characters."""
        text = self.text()
        if len(text) <= limit:
            return text
        return text[-limit:].partition("\n")[2]

    def handler(self) -> logging.Handler:
        """What puts log records into it."""
        return _Handler(self)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While the block runs, whatever our own code logs is in it, every program that is run too."""
        handler = self.handler()
        ours = [logging.getLogger(name) for name in ("litho", "litho_agent")]
        before = [logger.level for logger in ours]
        for logger in ours:
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            for logger, level in zip(ours, before, strict=True):
                logger.removeHandler(handler)
                logger.setLevel(level)


class _Handler(logging.Handler):
    def __init__(self, log: JobLog) -> None:
        super().__init__()
        self._log = log
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Add the record; each line of a trace is a line."""
        try:
            text = self.format(record)
        except (TypeError, ValueError):
            return
        for line in text.splitlines():
            self._log.add(line)
