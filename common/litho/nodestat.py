"""The one line that says what a node does, for `nodestat` and for port 3001 on the node.

Programs parse it, Apache VCL among them. Two generations of VCL accept between them:

* `/partimage-ng: partition/` while a capture runs (2.2-2.3), `/(install|partimage)/i` once a job has started (2.4 on);
* a text that changes at least every ten minutes, else the job counts as hung: so the percent is in it;
* `partimage-ng: complete` at the end (2.2-2.3), `boot` or `complete` alone (2.4 on), which is the node's boot state and
  comes from the controller.

So the word `partimage-ng:` leads every line, whichever engine does the work: it is the protocol's word, not the program's name.
A line of a running or failed job never holds "boot": while a capture runs, VCL takes any text with /boot/ in it for its
good end, and a reason may well speak of a boot sector. Nor does it hold `partimage-ng: complete` in the middle.
The line never holds a newline, and never the word "next" (xcatd's port 3002 takes it as a command anywhere in a line).
"""

from __future__ import annotations

import re

from litho.progress import Progress

PREFIX = "partimage-ng: "
COMPLETE = PREFIX + "complete"
_LIMIT = 300


def line(progress: Progress) -> str:
    """The line of a running job: `partimage-ng: partition 1 of 3, 42% complete`."""
    if progress.part and progress.parts:
        what = f"partition {progress.part} of {progress.parts}"
    elif progress.parts:
        what = f"partition {progress.parts} of {progress.parts}, {_running(progress.phase)}"
    else:
        what = _running(progress.phase)
    return f"{PREFIX}{what}, {progress.percent}% complete"


def failed(reason: str) -> str:
    """The line of a job that stopped: `partimage-ng: failed: <reason>`, one line whatever the reason holds."""
    return PREFIX + "failed: " + _harmless(reason)


def _running(phase: str) -> str:
    return _harmless(phase) or "starting"


def _harmless(text: str) -> str:
    flat = re.sub(r"partimage-ng:", "partimage-ng", clean(text), flags=re.IGNORECASE)
    return re.sub(r"boot", "start-up", flat, flags=re.IGNORECASE)[:_LIMIT]


def clean(text: str) -> str:
    """`text` as printable ASCII on one line, cut at 300 characters, safe for a terminal, a table cell and port 3002."""
    flat = re.sub(r"[^\x20-\x7e]+", " ", text)
    flat = re.sub(r"next", "following", flat, flags=re.IGNORECASE)
    return flat.strip()[:_LIMIT].strip()
