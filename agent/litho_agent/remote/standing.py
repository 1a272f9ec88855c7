"""Which of several sources to ask next, and which one to leave. Pure: no clock and no network, times come in as seconds.

* Among those that stand, the one is asked that should be done first: the fewest requests under way for its rate. One whose rate
  is not known yet counts as twice as fast as the fastest, so that each is tried early.
* After a failure a source rests, longer each time. After `FAILURES` in a row it is *left*: asked only when no other stands, and
  taken back when it answers. One that would answer the same again (no ranges, not allowed) is *out*: never asked again.
* One that sends other bytes than it should is out at once.
* One whose rate is below a tenth of another's is left, in the middle of a span if need be, but not before it had `LOOK_S`.
* It is over when every source is out, or when for `PATIENCE_S` none that may still be asked has given anything. What some do not
  have is asked of the others for as long.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

FAILURES = 4
LOOK_S = 2.0
"""Seconds of a source's work before its rate is judged."""
SPANS = 2
"""Spans of another source before its rate is what one compares with."""
LARGE = 256 * 1024
"""Bytes of a span from which on its rate says something; below, it is the way there and back that counts."""
SLOW = 0.1
PATIENCE_S = 150.0
"""As long as the NFS mount waits for a server that is away."""
REST_S = 0.25
MOST_REST_S = 10.0
_NEW = 0.3
"""Weight of the newest span in a source's rate."""

Place = Literal["stands", "left", "out"]


class Standing(msgspec.Struct, kw_only=True):
    """What is known of one source."""

    name: str
    place: Place = "stands"
    why: str = ""
    """Its last failure, in words."""
    rate: float = 0.0
    """Bytes a second of a request, lately; 0 while unknown."""
    spans: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """That its requests took, put together."""
    busy: int = 0
    """Requests under way."""
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0
    good: float = 0.0
    """When it gave something last."""


class Standings:
    """All sources of a job. Sentences that it answers are for the job's log; empty ones are no news."""

    def __init__(self, names: Sequence[str], *, now: float, patience_s: float = PATIENCE_S) -> None:
        self.all = [Standing(name=name) for name in names]
        self._patience_s = patience_s
        self._good = now

    def choose(self, now: float, without: Collection[int] = ()) -> int | None:
        """The place of the source to ask now, not one of `without`; None when none may be asked now (`wait` says how long)."""
        fastest = max((one.rate for one in self.all), default=0.0) or 1.0
        for place in ("stands", "left"):
            ready = [
                i
                for i, one in enumerate(self.all)
                if one.place == place and i not in without and one.rests_until <= now
            ]
            if ready:
                return min(ready, key=lambda i: ((self.all[i].busy + 1) / (self.all[i].rate or 2 * fastest), i))
            if place == "stands" and any(
                one.place == "stands" and i not in without and one.failures < FAILURES for i, one in enumerate(self.all)
            ):
                # It only rests for a moment: no reason to go back to one that was left.
                return None
        return None

    def wait(self, now: float, without: Collection[int] = ()) -> float | None:
        """Seconds until one of the others may be asked again; None when that will never be."""
        open_ = [one for i, one in enumerate(self.all) if i not in without and one.place != "out"]
        if not open_:
            return None
        return max(0.0, min(one.rests_until for one in open_) - now)

    def over(self, now: float) -> bool:
        """Nobody is left to ask, or nobody has given anything for too long."""
        usable = [one for one in self.all if one.place != "out"]
        return not usable or (all(one.failures for one in usable) and now - self._good > self._patience_s)

    def vain(self, now: float, since: float, without: Collection[int]) -> bool:
        """For something that `without` do not have, asked for since `since`: none of the others has given anything for too long.
        Those that do not have it may be well all the while."""
        open_ = [one for i, one in enumerate(self.all) if i not in without and one.place != "out"]
        return bool(open_) and all(one.failures and now - max(since, one.good) > self._patience_s for one in open_)

    def begun(self, i: int) -> None:
        """A request was sent to it."""
        self.all[i].busy += 1

    def ended(self, i: int) -> None:
        """The request is over, in whatever way; call before what tells how."""
        self.all[i].busy -= 1

    def gave(self, i: int, count: int, seconds: float, now: float) -> str:
        """It gave `count` bytes in `seconds`."""
        one = self.all[i]
        self._good = one.good = now
        one.failures, one.rests_until = 0, 0.0
        one.bytes += count
        if count >= LARGE:
            one.spans += 1
            one.seconds += seconds
            rate = count / max(seconds, 1e-6)
            one.rate = rate if one.spans == 1 else one.rate * (1 - _NEW) + rate * _NEW
        if one.place == "left" and not self._others(i, well=True):
            one.place, one.why = "stands", ""
            return f"the source {one.name} answers again"
        if one.place == "stands" and one.seconds >= LOOK_S and self._slow(i, one.rate):
            return self._leave(i, self._slowness(i, one.rate))
        return ""

    def drags(self, i: int, count: int, seconds: float) -> bool:
        """True when a request that gave `count` bytes in `seconds` so far is not worth waiting for."""
        return seconds >= LOOK_S and count / seconds < self._best_other(i) * SLOW

    def slow(self, i: int, count: int, seconds: float) -> str:
        """A request was given up because it dragged."""
        one = self.all[i]
        one.rate = max(1.0, count / seconds)
        return self._leave(i, self._slowness(i, one.rate)) if one.place == "stands" else ""

    def failed(self, i: int, why: str, now: float, *, lasting: bool = False, spread: float = 1.0) -> str:
        """It failed. `spread`, about 1, keeps many nodes from coming back in the same moment."""
        one = self.all[i]
        first = not one.failures
        one.failures += 1
        one.why = why
        one.rests_until = now + min(MOST_REST_S, REST_S * 2.0 ** min(one.failures - 1, 10)) * spread
        if lasting and one.place != "out":
            one.place = "out"
            return f"the source {one.name} is left for good: {why}"
        if one.place == "stands" and one.failures >= FAILURES and self._others(i):
            return self._leave(i, f"it failed {one.failures} times in a row, last: {why}")
        return f"the source {one.name} failed, its span is asked for again: {why}" if first else ""

    def wrong(self, i: int, why: str) -> str:
        """It gave other bytes than it should."""
        one = self.all[i]
        if one.place == "out":
            return ""
        one.place, one.why = "out", f"it gave other bytes than it should: {why}"
        return f"the source {one.name} is left for good: {one.why}"

    def causes(self, lacking: Collection[int] = ()) -> str:
        """Why none is left: one clause for each."""
        why = [
            "it does not have it" if i in lacking else one.why or "it gave nothing" for i, one in enumerate(self.all)
        ]
        return "; ".join(f"{one.name}: {said}" for one, said in zip(self.all, why, strict=True))

    def _leave(self, i: int, why: str) -> str:
        one = self.all[i]
        one.place, one.why = "left", why
        return f"the source {one.name} is left: {why}"

    def _others(self, i: int, *, well: bool = False) -> bool:
        """Does another one stand, and if it must be well, not only because there was none when it failed?"""
        return any(
            one.place == "stands" and not (well and one.failures >= FAILURES)
            for j, one in enumerate(self.all)
            if j != i
        )

    def _best_other(self, i: int) -> float:
        return max(
            (o.rate for j, o in enumerate(self.all) if j != i and o.place == "stands" and o.spans >= SPANS), default=0.0
        )

    def _slow(self, i: int, rate: float) -> bool:
        return self.all[i].place == "stands" and rate < self._best_other(i) * SLOW

    def _slowness(self, i: int, rate: float) -> str:
        return f"it gave {rate / 1e6:.2f} MB/s where another gave {self._best_other(i) / 1e6:.1f} MB/s"
