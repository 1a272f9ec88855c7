"""A node's clock is wrong by years (an empty battery says 1970, a wrong setting 2099): nothing is decided by it."""

import msgspec
import pytest

from litho.messages import Status
from support.desk import DONE, PLANNED, STARTED, lab


@pytest.mark.parametrize("at", [0.0, -1e9, 4.1e9, 1e300])
async def test_a_node_whose_clock_is_wrong_by_years_goes_its_way_like_any_other(tmp_path, at):
    async with lab(tmp_path) as desk:
        await desk.define("n01")
        await desk.capture("n01")
        agent = await desk.agent("t-000001")
        for body in (PLANNED, STARTED):
            await desk.hearing.event(msgspec.structs.replace(agent.report(body), at=at))
        desk.clock.advance(100)
        status = Status(node="n01", session=agent.session, online=True, task="t-000001", at=at)
        await desk.hearing.status(status)
        desk.clock.advance(100)
        await desk.upkeep.tick()
        assert (await desk.states())["t-000001"] == "running", "a sign of life counts from when it was heard"
        await desk.hearing.event(msgspec.structs.replace(agent.report(DONE), at=at))
        row = await desk.row("t-000001")
    assert row.state == "succeeded"
    assert row.ended == desk.clock.now()
    assert row.created <= row.armed <= row.claimed <= row.started <= row.ended
