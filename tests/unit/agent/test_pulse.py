"""The pulse that the root image's watchdog looks at."""

import asyncio
from pathlib import Path

from litho_agent import pulse


async def test_the_pulse_changes_while_the_loop_runs_and_stands_still_when_it_hangs(tmp_path: Path):
    file = tmp_path / "pulse"
    async with pulse.beating(file, every_s=0.15):
        await asyncio.sleep(0.05)
        first = file.read_text()
        await asyncio.sleep(0.4)
        second = file.read_text()
    assert first != second
    await asyncio.sleep(0.4)
    assert file.read_text() == second, "it ends with the block"


async def test_a_pulse_that_cannot_be_written_does_not_stop_the_work(tmp_path: Path):
    async with pulse.beating(tmp_path / "missing" / "pulse", every_s=0.01):
        await asyncio.sleep(0.05)
    assert not (tmp_path / "missing").exists()
