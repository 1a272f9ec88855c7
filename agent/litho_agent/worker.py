"""The worker process: does one job from its order to its end, and says so in lines of JSON.

Started by `litho_agent.mover` as `python -m litho_agent.worker`. Reads one order from standard input, writes messages to
standard output (nothing else does: the engines' output goes elsewhere), logs to standard error. The main thread does the
job, because children are tied to the thread that starts them; a second one ticks. SIGTERM asks it to stop: the job
notices within a second, cleans up, and the last line says that it was cancelled.

Whatever happens the last line is one of `Succeeded`, `Failed`, `Stopped`; if not even that is possible, the mover answers.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import IO

import msgspec

from litho.errors import CancelledError, LithoError
from litho.messages import Failed, Planned, Started, Stopped, clip
from litho.progress import Meter, StageWork
from litho_agent.capture import capture
from litho_agent.compare import compare
from litho_agent.joblog import JobLog
from litho_agent.mover import End, Note, Tick, Touching, WorkOrder, encode_line
from litho_agent.restore import restore

log = logging.getLogger("litho_agent.worker")

TICK_S = 0.5


class LineTeller:
    """A Teller that writes lines for the mover."""

    def __init__(self, out: IO[bytes], job_log: JobLog) -> None:
        self._out = out
        self._log = job_log
        self._lock = threading.Lock()
        self._meter = Meter(now=time.monotonic())
        self._stop = threading.Event()
        self.touched = False

    def _write(self, line: bytes) -> None:
        with self._lock:
            self._out.write(line)
            self._out.flush()

    def say(self, event: Planned | Started) -> None:
        """Something that moves the task."""
        self._log.hear(event)
        self._write(encode_line(event))

    def expect(self, *, total: int, parts: int) -> None:
        """How much there is to move."""
        with self._lock:
            self._meter.plan(total=total, parts=parts, checks=True)

    def checked(self, done: int, total: int) -> None:
        """Stored bytes have been read."""
        with self._lock:
            self._meter.checked(done, total)

    def enter(self, phase: str, *, part: int = 0) -> None:
        """A phase begins."""
        with self._lock:
            self._meter.enter(phase, part=part)
        self._log.add(f"phase {phase}" + (f" {part}" if part else ""))
        self.tick()

    def moved(self, done: int, *, stored: int | None = None) -> None:
        """Bytes have moved."""
        with self._lock:
            self._meter.at(done, now=time.monotonic(), stored=stored)

    def part(self, part: int, done: int, total: int) -> None:
        """One partition has moved so far."""
        with self._lock:
            self._meter.part(part, done, total)

    def working(self, work: Mapping[str, StageWork]) -> None:
        """What the stages have done."""
        with self._lock:
            self._meter.working(work, now=time.monotonic())

    def log(self) -> str:
        """What was logged so far."""
        return self._log.text()

    def note(self, text: str) -> None:
        """Something a person should know."""
        self._log.add(f"note: {text}")
        self._write(encode_line(Note(text=text)))

    def touching(self) -> None:
        """The target disk is written to from now on."""
        self.touched = True
        self._write(encode_line(Touching()))

    def cancelled(self) -> bool:
        """True once SIGTERM came."""
        return self._stop.is_set()

    def cancel(self) -> None:
        """Ask the job to stop."""
        self._stop.set()

    def finish(self) -> None:
        """All is done and verified."""
        with self._lock:
            self._meter.finish(now=time.monotonic())
        self.tick()

    def tick(self) -> None:
        """Write how far the job is."""
        with self._lock:
            progress = self._meter.read(now=time.monotonic())
        self._write(encode_line(Tick(progress=progress)))


def work(order: WorkOrder, teller: LineTeller) -> End:
    """Do the job; every way that it can end is an answer."""
    try:
        match order.job.action:
            case "capture":
                end = capture(order, teller)
            case "restore":
                end = restore(order, teller)
            case "verify":
                end = compare(order, teller)
    except CancelledError as exc:
        return Stopped(reason=clip(exc.message), touched=teller.touched)
    except LithoError as exc:
        return Failed(code=exc.code, reason=clip(str(exc)), touched=teller.touched, exit_code=exc.exit_code)
    except Exception as exc:
        # A defect of ours: the person gets a sentence, the log gets the trace.
        log.exception("the job met an error that nothing expected")
        kind = type(exc).__name__
        reason = clip(f"an unexpected error stopped the job ({kind}: {exc})")
        return Failed(code="internal", reason=reason, touched=teller.touched)
    teller.finish()
    return end


def main() -> int:
    """Entry of the worker process."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    # Every program that is run stands in the job's log.
    logging.getLogger("litho").setLevel(logging.DEBUG)
    job_log = JobLog()
    logging.getLogger().addHandler(job_log.handler())
    # Engines and tools must never write into the line of messages: it gets a descriptor of its own.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    teller = LineTeller(out, job_log)

    def on_term(_number: int, _frame: FrameType | None) -> None:
        teller.cancel()

    signal.signal(signal.SIGTERM, on_term)
    # Ctrl-C goes to every process of a terminal. It is the agent that hears it; the worker and its engines are told by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkOrder)
    over = threading.Event()

    def ticking() -> None:
        while not over.wait(TICK_S):
            teller.tick()

    ticker = threading.Thread(target=ticking, name="ticker", daemon=True)
    ticker.start()
    end = work(order, teller)
    over.set()
    ticker.join()
    out.write(encode_line(end))
    out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
