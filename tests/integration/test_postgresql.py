"""The store on a real PostgreSQL: what holds with SQLite holds here, too, and a server that goes away is told in a sentence."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from litho.errors import LithoError
from litho.job import Job
from litho.task import Task
from litho_controller.store import Store
from litho_controller.store import tasks as rows_of
from litho_controller.store.tasks import TaskRow
from support.on_postgresql import server

ROOT = Path(__file__).parents[2]
SQLITES_OWN = (
    "nobody_but_its_owner",
    "newer_lithograph",
    "missing_driver",
    "sqlite_runs",
    "lock_of_another",
    "full_disk",
    "no_database",
)
"""Tests of the store that are about SQLite's files."""


@pytest.fixture(scope="module")
def postgresql():
    with server() as running:
        yield running


async def test_the_tests_of_the_store_and_of_tasks_hold_on_postgresql():
    away = " and ".join(f"not {word}" for word in SQLITES_OWN)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "pytest", "-q", "-p", "support.on_postgresql", "-p", "no:cacheprovider", "-k", away]
        + [f"tests/unit/controller/{name}.py" for name in ("test_store", "test_tasks")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "failed" not in done.stdout


def row(**more):
    job = Job(action="capture", image="golden")
    return TaskRow(node="n01", action="capture", image="golden", version=0, job=job, created=1.0, **more)


async def test_a_server_that_goes_away_is_a_sentence_and_one_that_comes_back_costs_nothing(postgresql):
    store = await Store.open(postgresql.create("away"))
    async with store.write() as conn:
        await rows_of.insert(conn, row(task=Task(reason="a\0b \ud7ff")))
    postgresql.stop()
    for way in (store.read, store.write):
        with pytest.raises(LithoError, match="the database cannot be reached") as caught:
            async with way():
                pass
        assert caught.value.code == "database-unreachable"
    postgresql.start()
    async with store.read() as conn:
        [found] = await rows_of.find(conn)
        assert found.task.reason == "a\ufffdb \ud7ff"
    await store.close()
    with pytest.raises(LithoError, match=r"the database failed \(database .*does not exist"):
        await Store.open(postgresql.create("other").replace("/other?", "/none?"))


async def test_a_reader_sees_one_moment(postgresql):
    store = await Store.open(postgresql.create("moment"))
    async with store.read() as conn:
        assert await rows_of.find(conn) == []
        async with store.write() as other:
            await rows_of.insert(other, row())
        assert await rows_of.find(conn) == []
        assert (await conn.execute(sa.text("SHOW transaction_isolation"))).scalar_one() == "repeatable read"
    await store.close()
