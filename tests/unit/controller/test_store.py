"""The database: its shape, its two ways in, and what it says when it fails."""

import os
import sqlite3

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError

from litho.errors import ConfigError, LithoError, RefusedError
from litho.job import Job
from litho.progress import Progress
from litho.task import State, Task
from litho_controller.store import Store, engine
from litho_controller.store import tasks as rows_of
from litho_controller.store.schema import ACTIVE, metadata
from litho_controller.store.tasks import Figure, TaskRow


@pytest.fixture
async def store(tmp_path):
    opened = await Store.open(f"sqlite+aiosqlite:///{tmp_path}/litho.db")
    yield opened
    await opened.close()


def row(node="n01", **more):
    job = Job(action="capture", image="golden")
    return TaskRow(node=node, action="capture", image="golden", version=0, job=job, created=1.0, **more)


async def test_the_migrations_lead_to_the_shape_that_the_code_uses(store):
    def differences(connection):
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    async with store.read() as conn:
        assert await conn.run_sync(differences) == []


async def test_opening_twice_keeps_what_is_there(tmp_path):
    url = f"sqlite+aiosqlite:///{tmp_path}/litho.db"
    first = await Store.open(url)
    async with first.write() as conn:
        await rows_of.insert(conn, row())
    await first.close()
    second = await Store.open(url)
    async with second.read() as conn:
        assert [found.node for found in await rows_of.find(conn)] == ["n01"]
    await second.close()


async def test_nobody_but_its_owner_reads_the_database(tmp_path):
    path = tmp_path / "litho.db"
    path.touch(0o644)
    path.chmod(0o644)
    before = os.umask(0o022)
    try:
        opened = await Store.open(f"sqlite+aiosqlite:///{path}")
        async with opened.write() as conn:
            await rows_of.insert(conn, row())
        rights = {found.name: found.stat().st_mode & 0o777 for found in tmp_path.iterdir()}
        await opened.close()
    finally:
        os.umask(before)
    assert rights == {"litho.db": 0o600, "litho.db-wal": 0o600, "litho.db-shm": 0o600}


async def test_a_database_of_a_newer_lithograph_is_refused(tmp_path):
    path = tmp_path / "litho.db"
    await (await Store.open(f"sqlite+aiosqlite:///{path}")).close()
    with sqlite3.connect(path) as conn:
        conn.execute("UPDATE alembic_version SET version_num = '9999'")
    conn.close()
    with pytest.raises(RefusedError, match=r"written by a newer Lithograph .*9999") as caught:
        await Store.open(f"sqlite+aiosqlite:///{path}")
    assert caught.value.code == "database-newer"


async def test_a_missing_driver_and_a_bad_address_are_sentences():
    with pytest.raises(ConfigError, match="driver psycopg is not installed"):
        await Store.open("postgresql+psycopg://localhost/x")
    with pytest.raises(ConfigError, match="cannot be used"):
        await Store.open("not a url")
    for bad in ("litho:secret@db:port/x", "litho:secret@db/x?unknown=1"):
        with pytest.raises(ConfigError, match="cannot be used") as caught:
            await Store.open(f"postgresql+asyncpg://{bad}")
        assert "secret" not in str(caught.value)


async def test_sqlite_runs_with_wal_full_sync_and_foreign_keys(store):
    async with store.read() as conn:
        said = [(await conn.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")]
        assert said == ["wal", 2]
        assert (await conn.exec_driver_sql("PRAGMA foreign_keys")).scalar() == 1
        assert (await conn.exec_driver_sql("PRAGMA busy_timeout")).scalar() == engine.BUSY_MS


async def test_an_exception_undoes_the_whole_transaction(store):
    with pytest.raises(RuntimeError):
        async with store.write() as conn:
            await rows_of.insert(conn, row())
            raise RuntimeError("in the middle")
    async with store.read() as conn:
        assert await rows_of.find(conn) == []


async def test_a_reader_sees_one_moment_and_does_not_wait_for_the_writer(store):
    async with store.write() as writing:
        await rows_of.insert(writing, row())
        async with store.read() as reading:
            assert await rows_of.find(reading) == []
    async with store.read() as reading:
        assert len(await rows_of.find(reading)) == 1


async def test_a_lock_of_another_program_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_MS", 50)
    path = tmp_path / "litho.db"
    store = await Store.open(f"sqlite+aiosqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(LithoError, match="locked by another program") as caught:
            async with store.write() as conn:
                await rows_of.insert(conn, row())
        assert caught.value.code == "database-locked"
    finally:
        other.close()
    async with store.write() as conn:
        await rows_of.insert(conn, row())
    await store.close()


async def test_a_full_disk_is_told_as_such_and_nothing_is_half_written(store):
    with pytest.raises(LithoError, match="file system is full") as caught:
        async with store.write() as conn:
            pages = (await conn.exec_driver_sql("PRAGMA page_count")).scalar()
            await conn.exec_driver_sql(f"PRAGMA max_page_count={pages + 1}")
            for number in range(2000):
                await rows_of.insert(conn, row(f"n{number}", line="x" * 1000))
    assert caught.value.code == "database-full"
    async with store.read() as conn:
        assert await rows_of.find(conn) == []


async def test_a_file_that_is_no_database_is_told_as_such(tmp_path):
    path = tmp_path / "litho.db"
    path.write_bytes(b"this is not a database at all, but long enough to be looked at" * 100)
    with pytest.raises(LithoError, match="damaged") as caught:
        await Store.open(f"sqlite+aiosqlite:///{path}")
    assert caught.value.code == "database-damaged"


# ---------------------------------------------------------------- tasks


async def test_a_task_comes_back_as_it_was_written(store):
    async with store.write() as conn:
        made = await rows_of.insert(
            conn,
            row(
                task=Task(
                    state=State.RUNNING, session="abcdefgh", last_seq=3, cancel_requested=True, code="c", reason="r"
                ),
                token_hash="0" * 64,
                inventory='{"cpu": 1}',
                plan='{"a": 1}',
                result='{"b": 2}',
                progress=Progress(phase="partition", part=1, parts=3, done=5, total=10, fraction=0.5, eta_s=1.5),
                line="half",
                settled=True,
                armed=2.0,
                claimed=3.0,
                started=4.0,
                ended=5.0,
                heard=6.0,
            ),
        )
    assert made.number == 1
    assert made.id == "t-000001"
    async with store.read() as conn:
        assert await rows_of.get(conn, 1) == made


async def test_a_number_is_never_given_twice(store):
    async with store.write() as conn:
        await rows_of.insert(conn, row())
        await conn.execute(sa.text("DELETE FROM task"))
        assert (await rows_of.insert(conn, row())).number == 2


@pytest.mark.parametrize("state", ACTIVE)
async def test_the_database_itself_refuses_a_second_active_task_for_a_node(store, state):
    with pytest.raises(LithoError):
        async with store.write() as conn:
            await rows_of.insert(conn, row(task=Task(state=State(state))))
            with pytest.raises(IntegrityError):
                await rows_of.insert(conn, row())
            raise LithoError("undone")
    async with store.write() as conn:
        await rows_of.insert(conn, row(task=Task(state=State.FAILED)))
        await rows_of.insert(conn, row(task=Task(state=State.LOST)))
        await rows_of.insert(conn, row())
        await rows_of.insert(conn, row("n02"))


async def test_figures_are_written_only_while_an_agent_holds_the_task(store):
    figure = Progress(done=5, total=10, fraction=0.5)
    async with store.write() as conn:
        running = await rows_of.insert(conn, row("n01", task=Task(state=State.RUNNING)))
        ended = await rows_of.insert(conn, row("n02", task=Task(state=State.SUCCEEDED), line="done"))
        quiet = await rows_of.insert(conn, row("n03", task=Task(state=State.CLAIMED), line="as before"))
        await rows_of.write_figures(
            conn,
            [
                Figure(number=running.number, heard=9.0, progress=figure, line="half"),
                Figure(number=ended.number, heard=9.0, progress=figure, line="half"),
                Figure(number=quiet.number, heard=9.0),
            ],
        )
    async with store.read() as conn:
        assert (await rows_of.get(conn, running.number)).line == "half"
        assert (await rows_of.get(conn, running.number)).progress == figure
        assert await rows_of.get(conn, ended.number) == ended
        after = await rows_of.get(conn, quiet.number)
        assert (after.heard, after.line) == (9.0, "as before")


async def test_the_newest_task_of_each_node_is_found(store):
    async with store.write() as conn:
        await rows_of.insert(conn, row(task=Task(state=State.FAILED, session="s-1")))
        newest = await rows_of.insert(conn, row())
        other = await rows_of.insert(conn, row("n02", task=Task(state=State.CLAIMED, session="s-2")))
        assert await rows_of.latest(conn) == {"n01": newest, "n02": other}
        assert {found.id for found in await rows_of.claimed_latest(conn)} == {"t-000001", "t-000003"}
        assert await rows_of.active(conn, "n01") == newest
        assert await rows_of.ended_sessions(conn) == {("t-000001", "s-1")}


@pytest.mark.parametrize("text", ["", "t-", "1", "t-1x", "t-1\n", "T-1", "t--1", "t-" + "9" * 16, "t-\u0661"])
def test_what_is_no_id_is_no_number(text):
    assert rows_of.parse_id(text) is None


def test_ids_are_read_with_and_without_zeros():
    assert rows_of.parse_id("t-000123") == rows_of.parse_id("t-123") == 123
