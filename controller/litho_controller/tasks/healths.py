"""The last health of each node, in memory.

Agents say with each status how their node is. Only the newest word counts, nothing is decided by it, and after a restart of the
controller the retained statuses bring it back; so it is not in the database. A node has one entry at most, and only nodes that
hold a task are heard.
"""

from __future__ import annotations

import logging

from litho.messages import Health
from litho_controller.api_health import HealthView, warning

log = logging.getLogger("litho.tasks")


class Healths:
    """What was heard last of each node."""

    def __init__(self) -> None:
        self._last: dict[str, HealthView] = {}

    def hear(self, node: str, task: str, health: Health, *, now: float) -> None:
        """A node said how it is. A verdict that has turned bad is logged, once a task."""
        before = self._last.get(node)
        view = HealthView(at=now, task=task, health=health, warning=warning(health))
        self._last[node] = view
        if view.warning and not (before is not None and before.warning and before.task == task):
            log.warning("%s: %s: %s", task, node, view.warning)

    def of_node(self, node: str) -> HealthView | None:
        """The last of `node`; None when none was heard."""
        return self._last.get(node)

    def of_task(self, node: str, task: str) -> HealthView | None:
        """The last of `node`, if it was heard while it worked on `task`."""
        found = self._last.get(node)
        return found if found is not None and found.task == task else None

    def forget(self, node: str) -> None:
        """The node does not exist any more."""
        self._last.pop(node, None)
