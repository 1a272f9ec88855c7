"""One namespace for everything: `scripts/e2e` starts pytest in its own network, PID and mount namespace.

Bridges, taps and servers in it never meet the machine's own network, two labs can run beside each other, and when
it ends, however it ends, the kernel ends every process in it: there is nothing to clean up.
"""

from __future__ import annotations

from litho import process

from . import shared


def inside() -> bool:
    """True when this process was started by `scripts/e2e`."""
    return shared.number() != ""


def prepare() -> None:
    """What a fresh namespace lacks: the loopback interface, and a /run of its own, where paths of sockets are short."""
    process.run(["ip", "link", "set", "lo", "up"])
    process.run(["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"])
