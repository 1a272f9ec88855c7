"""Waves in motion: which step each has reached, and the end of those that are done or stop by themselves.

Asked before slots are given out, about twice a second while there is a running wave. A step begins in the same transaction in
which it is seen that the former one has ended, so a restart goes on at the step that the database knows.
"""

from __future__ import annotations

import logging

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.task import CancelRequest, State
from litho_controller.store import tasks as rows_of
from litho_controller.store import waves as waves_of
from litho_controller.store.tasks import TaskRow
from litho_controller.store.waves import WaveRow
from litho_controller.tasks import waves
from litho_controller.tasks.core import Tasks

log = logging.getLogger("litho.tasks")


async def turn(tasks: Tasks) -> None:
    """Lead every running wave to where it is. Raises LithoError."""
    async with tasks.store.read() as conn:
        running = await waves_of.find(conn, running=True)
    steps: dict[int, int] = {}
    for wave in running:
        row, cancelled = await _lead(tasks, wave)
        for task in cancelled:
            tasks.after(task)
        if row.state == waves.RUNNING:
            steps[row.number] = row.step
    tasks.steps = steps


async def _lead(tasks: Tasks, wave: WaveRow) -> tuple[WaveRow, list[TaskRow]]:
    async with tasks.store.read() as conn:
        verdict = _judged(wave, await waves_of.members(conn, wave.number))
    if verdict == waves.Verdict(step=wave.step, state=wave.state):
        return wave, []
    async with tasks.store.write() as conn:
        verdict = _judged(wave, await waves_of.members(conn, wave.number))
        ended = None if verdict.state == waves.RUNNING else tasks.clock.now()
        row = msgspec.structs.replace(wave, step=verdict.step, state=verdict.state, reason=verdict.reason, ended=ended)
        await waves_of.save(conn, row)
        cancelled = await _cancel(tasks, conn, row) if row.state == waves.STOPPED else []
    if row.state == waves.STOPPED:
        log.warning("%s: stopped at step %d of %d: %s", row.id, row.step, row.steps, row.reason)
    else:
        log.info("%s: %s at step %d of %d", row.id, row.state, row.step, row.steps)
    return row, cancelled


def _judged(wave: WaveRow, members: list[tuple[str, waves.Member]]) -> waves.Verdict:
    return waves.judge(wave.step, wave.steps, wave.stop_after, [member for _, member in members])


async def _cancel(tasks: Tasks, conn: AsyncConnection, wave: WaveRow) -> list[TaskRow]:
    """Nothing of a stopped wave begins any more: what waits for a slot or for its node is cancelled."""
    found = []
    for number in await waves_of.not_begun(conn, wave.number):
        row = await rows_of.get(conn, number)
        if row is not None and row.state in (State.QUEUED, State.ARMED):
            event = CancelRequest(reason=f"the wave {wave.id} stopped: {wave.reason}")
            found.append((await tasks.move(conn, row, event))[0])
    return found
