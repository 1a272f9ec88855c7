"""What became of a task: its steps with their times, its plan, the notes of its end, and its job's own words.

The words come from two places. A job that failed, and a restore or comparison that went well, sends the end of its log with the
news of that; the log of a capture that went well lies beside the image as `<image>.v<n>-job.log`, as long as the version does.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from litho.errors import LithoError, NotFoundError
from litho.library import ImageRef, Library
from litho.task import State
from litho_controller import api_schedule
from litho_controller.store import tasks as rows_of
from litho_controller.tasks import rules
from litho_controller.web.desk import DESK, answer, json_of

routes = web.RouteTableDef()

MOST_LOG = 64 * 1024
"""Bytes of a job's log that are shown: its end."""


@routes.get("/v1/tasks/{id}/log")
async def show_log(request: web.Request) -> web.Response:
    """What a task's course was."""
    desk = request.app[DESK]
    text = request.match_info["id"]
    number = rows_of.parse_id(text)
    async with desk.store.read() as conn:
        row = await rows_of.get(conn, number) if number is not None else None
    if row is None:
        raise NotFoundError(f"there is no task {text[:64]}", hint="see: litho task ls", code="task-missing")
    result = json_of(row.result) or {}
    log = result.get("log")
    if not log and row.action == "capture" and row.state is State.SUCCEEDED:
        log = await asyncio.to_thread(kept, desk.library, ImageRef(row.image, row.version))
    return answer(
        api_schedule.LogView(
            id=row.id,
            lines=tuple(rules.course(row)),
            plan=plan(json_of(row.plan) or {}),
            notes=_texts(result.get("notes")),
            log=log if isinstance(log, str) else "",
        )
    )


def plan(planned: dict[str, Any]) -> tuple[str, ...]:
    """The disk that the agent chose and the steps that it meant to take. Pure."""
    disk = planned.get("disk")
    found = []
    if isinstance(disk, dict):
        words = (disk.get("path"), disk.get("model"), disk.get("serial"))
        found.append(f"disk {', '.join(str(word) for word in words if word)}")
    return (*found, *_texts(planned.get("steps")))


def kept(library: Library, ref: ImageRef) -> str:
    """The log that lies beside a version; empty when there is none any more. Blocks."""
    try:
        reference = library.manifest(ref).log
        if reference is None:
            return ""
        with (library.root / reference.file).open("rb") as file:
            file.seek(max(0, reference.bytes - MOST_LOG))
            data = file.read(MOST_LOG)
    except (LithoError, OSError):
        # The version may have been pruned: the steps are told all the same.
        return ""
    return data.decode(errors="replace")


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
