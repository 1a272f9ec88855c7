"""How long to wait before trying again. Pure but for the dice, which are handed in.

A rack that loses its broker reconnects a rack at a time: without jitter all of it knocks in the same millisecond, again and
again. So a pause is drawn at random from the upper half of a span that doubles with every try.
"""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_S = 0.5
MOST_S = 30.0


def pause(
    tries: int, *, first_s: float = FIRST_S, most_s: float = MOST_S, draw: Callable[[], float] = random.random
) -> float:
    """Seconds to wait after `tries` failures in a row (from 1); `draw` answers 0.0 to 1.0."""
    # The exponent is capped so that a thousandth try does not overflow.
    span = min(most_s, first_s * 2.0 ** min(max(tries, 1) - 1, 30))
    return span / 2 + draw() * span / 2
