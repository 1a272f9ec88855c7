"""Tasks and waves over HTTP: list, show, cancel, try again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from litho.errors import NotFoundError, UsageError
from litho.task import State
from litho_controller import api, api_schedule
from litho_controller.api_health import HealthView
from litho_controller.store import tasks as rows_of
from litho_controller.store import waves as waves_of
from litho_controller.store.tasks import TaskRow
from litho_controller.store.waves import WaveRow
from litho_controller.tasks.waves import FAILURES
from litho_controller.web.desk import DESK, answer, expand, flag, json_of, number

routes = web.RouteTableDef()

MOST = 100_000
"""Tasks in one answer, at most."""


def view(row: TaskRow, *, full: bool = True, health: HealthView | None = None) -> api.TaskView:
    """A task as the API shows it; in a list without the plan and the result, which may be long."""
    figure = row.progress
    return api.TaskView(
        id=row.id,
        node=row.node,
        action=row.action,
        image=row.image,
        version=row.version,
        state=row.state,
        code=row.task.code,
        reason=row.task.reason,
        phase=figure.phase,
        percent=figure.percent,
        done=figure.done,
        total=figure.total,
        rate=figure.rate,
        limit="" if row.state.ended else figure.limit,
        moving=() if row.state.ended else figure.moving,
        eta_s=figure.eta_s,
        stored=figure.stored,
        created=row.created,
        armed=row.armed,
        claimed=row.claimed,
        started=row.started,
        ended=row.ended,
        cancel_requested=row.task.cancel_requested,
        priority=row.priority,
        not_before=row.not_before,
        attempt=row.attempt,
        retry_of=f"t-{row.retry_of:06d}" if row.retry_of else "",
        wave=f"w-{row.wave:06d}" if row.wave else "",
        step=row.step,
        plan=json_of(row.plan) if full else None,
        result=_result(row) if full else None,
        line=row.line,
        health=health,
    )


def _result(row: TaskRow) -> dict[str, Any] | None:
    """What the agent said of the end, without the log: that is asked for by itself."""
    found = json_of(row.result)
    return {name: value for name, value in found.items() if name != "log"} if found else found


@routes.get("/v1/tasks")
async def show_tasks(request: web.Request) -> web.Response:
    """Tasks, newest first: of some nodes, in some states (joined by commas), active ones only."""
    desk = request.app[DESK]
    wanted = _states(request.query.get("state", ""))
    if flag(request, "active"):
        alive = {state for state in State if not state.ended}
        wanted = alive if wanted is None else wanted & alive
    limit = number(request, "limit", default=MOST, highest=MOST)
    text = request.query.get("node", "")
    async with desk.store.read() as conn:
        names = await expand(conn, text) if text else None
        found = await rows_of.find(conn, nodes=names, states=wanted, limit=limit)
    return answer(api.TaskList(tasks=tuple(view(row, full=False) for row in found)))


@routes.get("/v1/tasks/{id}")
async def show_task(request: web.Request) -> web.Response:
    """One task with all that is known of it."""
    desk = request.app[DESK]
    async with desk.store.read() as conn:
        row = await rows_of.get(conn, _number(request))
    if row is None:
        raise _missing(request.match_info["id"])
    return answer(view(row, health=desk.tasks.healths.of_task(row.node, row.id)))


@routes.post("/v1/tasks/{id}/cancel")
async def cancel_task(request: web.Request) -> web.Response:
    """Ask for a task to stop."""
    return answer(view(await request.app[DESK].requests.cancel(_number(request))))


@routes.post("/v1/tasks/{id}/retry")
async def retry_task(request: web.Request) -> web.Response:
    """Queue a task like this one, which has ended without success."""
    return answer(view(await request.app[DESK].requests.retry(_number(request))))


@routes.get("/v1/waves")
async def show_waves(request: web.Request) -> web.Response:
    """Waves, newest first."""
    async with request.app[DESK].store.read() as conn:
        found = await waves_of.find(conn, limit=number(request, "limit", default=50, highest=1000))
        shown = [_wave(row, [member.state for _, member in await waves_of.members(conn, row.number)]) for row in found]
    return answer(api_schedule.WaveList(waves=tuple(shown)))


def _wave(row: WaveRow, states: Sequence[State]) -> api_schedule.WaveView:
    return api_schedule.WaveView(
        id=row.id,
        sizes=row.sizes,
        stop_after=row.stop_after,
        state=row.state,
        step=row.step,
        steps=row.steps,
        reason=row.reason,
        created=row.created,
        ended=row.ended,
        waiting=sum(state in (State.QUEUED, State.ARMED) for state in states),
        running=sum(state.on_node for state in states),
        succeeded=sum(state is State.SUCCEEDED for state in states),
        failed=sum(state in FAILURES for state in states),
        cancelled=sum(state is State.CANCELLED for state in states),
    )


def _number(request: web.Request) -> int:
    found = rows_of.parse_id(request.match_info["id"])
    if found is None:
        raise _missing(request.match_info["id"])
    return found


def _missing(text: str) -> NotFoundError:
    return NotFoundError(f"there is no task {text[:64]}", hint="see: litho task ls", code="task-missing")


def _states(text: str) -> set[State] | None:
    if not text:
        return None
    try:
        return {State(word.strip().lower()) for word in text.split(",")}
    except ValueError:
        known = ", ".join(state.value for state in State)
        raise UsageError(
            f"{text[:80]!r} is no state of a task", hint=f"there are: {known}", code="bad-request"
        ) from None
