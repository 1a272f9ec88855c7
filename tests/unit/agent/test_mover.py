"""The agent's side of the worker, against workers that lie, die, fall silent, talk too much, and do not listen."""

import asyncio
import os
import sys
import threading

import msgspec
import pytest

from litho.job import Job
from litho.library import ImageRef, Library, Manifest, Owner, Stage
from litho.messages import DiskFacts, Failed, Planned, Started, Stopped, Succeeded
from litho.progress import Progress
from litho_agent import mover
from litho_agent.mover import LONGEST_LINE, Note, Tick, Touching, WorkOrder, encode_line
from support.pace import Moment

DISK = DiskFacts(path="/dev/sda", size=1000, serial="S1")
PLANNED = Planned(disk=DISK, steps=("one",), total=10)
DONE = Succeeded(image="golden", version=1, used=10, stored=5, seconds=1.0, disk=DISK)
OWNER = Owner(session="the-dead-one", node="n01", task="t-1")


@pytest.fixture
def library(tmp_path):
    return Library.create(tmp_path / "library")


def order(library, action="capture", **job):
    return WorkOrder(job=Job(action=action, image="golden", **job), library=str(library.root), owner=OWNER, node="n01")


def worker(*lines, then=""):
    """The command of a worker that takes its order, says `lines` and goes on with the Python of `then`."""
    said = b"".join(line if isinstance(line, bytes) else encode_line(line) for line in lines)
    script = (
        "import os, signal, sys, time\n"
        "sys.stdin.buffer.readline()\n"
        f"sys.stdout.buffer.write({said!r})\nsys.stdout.buffer.flush()\n{then}"
    )
    return [sys.executable, "-c", script]


async def run(what, argv, *, cancel_at=None):
    cancel, news = asyncio.Event(), []
    since = Moment()

    def hear(message):
        nonlocal since
        news.append(message)
        if isinstance(message, cancel_at or ()):
            since = Moment()
            cancel.set()

    async with asyncio.timeout(60):
        end = await mover.run(what, hear, cancel, argv=argv)
    return end, news, since.took()


def publish(stage):
    stage.publish(
        Manifest(
            image=stage.name,
            version=stage.version,
            created="2026-11-22T16:00:00Z",
            software="lithograph test",
            disk=DISK,
            disk_name="sda",
            table="none",
            parts=(),
        )
    )


# ---------------------------------------------------------------- what it says


async def test_news_are_heard_in_order_and_the_last_line_is_the_answer(library):
    tick = Tick(progress=Progress(phase="partition", done=1, total=10))
    end, news, _ = await run(order(library), worker(PLANNED, Note(text="a note"), Started(), tick, DONE))
    assert end == DONE
    assert news == [PLANNED, Note(text="a note"), Started(), tick]


async def test_lines_that_are_no_messages_are_dropped_and_the_job_goes_on(library):
    junk = b"Segmentation fault\n\xff\xfe\n{}\n[1,2]\n" + b'{"type":"succeeded"}\n' + b"\0" * 5000 + b"\n"
    end, news, _ = await run(order(library), worker(junk, Started(), junk, DONE))
    assert (end, news) == (DONE, [Started()])


async def test_an_order_reaches_the_worker_whole(library, tmp_path):
    heard = tmp_path / "heard"
    copy = f"import sys; open({str(heard)!r}, 'wb').write(sys.stdin.buffer.read())"
    what = order(library, labels={"owner": "физика \u2028"})
    await run(what, [sys.executable, "-c", copy])
    assert heard.read_bytes().count(b"\n") == 1
    assert msgspec.json.decode(heard.read_bytes(), type=WorkOrder) == what


async def test_a_worker_that_fails_after_it_said_how_the_job_ended_changes_nothing(library):
    end, _, _ = await run(order(library), worker(DONE, then="os.kill(os.getpid(), signal.SIGKILL)"))
    assert end == DONE
    failed = Failed(code="disk-missing", reason="no disk", exit_code=5)
    assert (await run(order(library), worker(failed, then="sys.exit(3)")))[0] == failed


# ---------------------------------------------------------------- how it dies


@pytest.mark.parametrize(
    ("then", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "the worker process was ended by SIGKILL"),
        ("os.abort()", "the worker process was ended by SIGABRT"),
        ("sys.exit(3)", "the worker process ended with exit code 3"),
        ("", "the worker process ended with exit code 0"),
        ("raise MemoryError('none left')", "the worker process ended with exit code 1 (MemoryError: none left)"),
    ],
)
@pytest.mark.parametrize("touched", [False, True])
async def test_a_worker_that_dies_without_a_word_is_answered_for(library, then, how, touched):
    lines = (PLANNED, Started(), Touching()) if touched else (PLANNED,)
    end, _, _ = await run(order(library, "restore"), worker(*lines, then=then))
    assert end == Failed(code="worker-died", reason=how, touched=touched, exit_code=8)


async def test_what_a_dead_worker_left_in_the_library_is_gone_and_nothing_else_is(library):
    other = Stage.open(library, "golden", Owner(session="another"))
    with other.create("sda1.raw") as file:
        file.write(b"somebody else's")
    dead = Stage.open(library, "golden", OWNER)
    with dead.create("sda1.raw") as file:
        file.write(b"half")
    end, _, _ = await run(order(library), worker(Started(), then="os.kill(os.getpid(), signal.SIGKILL)"))
    assert (end.code, end.touched) == ("worker-died", False)
    assert sorted(path.name for path in library.root.glob("golden*")) == [
        "golden.v1-sda1.raw.part",
        "golden.v1.json.part",
    ]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_worker_that_dies_after_it_published_has_succeeded_whatever_was_asked_meanwhile(library, cancelled):
    stage = Stage.open(library, "golden", OWNER)
    reservation = stage.reservation.read_bytes()
    publish(stage)
    # Killed before the very last step: its reservation is still there, and the pointer may not be turned yet.
    stage.reservation.write_bytes(reservation)
    (library.root / "golden.json").unlink()
    then = "time.sleep(60)" if cancelled else "os.kill(os.getpid(), signal.SIGKILL)"
    end, _, _ = await run(order(library), worker(Started(), then=then), cancel_at=Started if cancelled else None)
    assert isinstance(end, Succeeded)
    assert (end.image, end.version, end.disk) == ("golden", 1, DISK)
    assert end.notes == ("the worker process was ended after it had published the image",)
    assert library.resolve(ImageRef("golden", 0)).version == 1
    assert not stage.reservation.exists()


async def test_a_library_that_is_gone_does_not_hide_how_the_worker_died(library):
    what = order(library)
    (library.root / ".lithograph").unlink()
    end, _, _ = await run(what, worker(then="os.kill(os.getpid(), signal.SIGKILL)"))
    assert end.reason == "the worker process was ended by SIGKILL"


async def test_a_line_without_an_end_is_not_kept_in_memory_for_ever(library):
    end, _, _ = await run(
        order(library), worker(then=f"sys.stdout.buffer.write(b'x' * {2 * LONGEST_LINE + 2}); time.sleep(60)")
    )
    assert end.code == "worker-died"
    assert end.reason.startswith(f"the worker process was ended because it wrote a line of more than {LONGEST_LINE}")


async def test_a_worker_that_talks_without_end_on_standard_error_neither_stalls_nor_fills_the_memory(library):
    noisy = "sys.stderr.write('y' * (9 << 20)); sys.stderr.write('\\nlast words\\n'); sys.stderr.flush(); sys.exit(4)"
    end, _, _ = await run(order(library), worker(then=noisy))
    assert end.reason == "the worker process ended with exit code 4 (last words)"


async def test_a_worker_that_is_not_installed_is_a_failure_and_not_an_exception(library):
    end, _, _ = await run(order(library), ["/nonexistent/worker"])
    assert (end.code, end.exit_code) == ("worker-died", 8)
    assert end.reason.startswith("the worker process could not be started (the program /nonexistent/worker is not")


# ---------------------------------------------------------------- cancel


async def test_a_worker_that_listens_says_itself_how_it_stopped(library):
    stopped = Stopped(reason="the task was cancelled on request", touched=True)
    then = (
        f"signal.signal(signal.SIGTERM, lambda *_: (os.write(1, {encode_line(stopped)!r}), os._exit(0)))\n"
        f"sys.stdout.buffer.write({encode_line(Started())!r}); sys.stdout.buffer.flush(); time.sleep(60)"
    )
    end, _, took = await run(order(library), worker(then=then), cancel_at=Started)
    assert end == stopped
    assert took < 1


@pytest.mark.parametrize(
    "deaf",
    [
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
    ],
)
async def test_a_worker_that_does_not_listen_is_ended_within_two_seconds(library, deaf):
    start = f"sys.stdout.buffer.write({encode_line(Started())!r}); sys.stdout.buffer.flush(); {deaf}; time.sleep(60)"
    if "IGN" in deaf:
        start = f"{deaf}; {start}"
    end, _, took = await run(order(library), worker(Touching(), then=start), cancel_at=Started)
    assert end == Stopped(touched=True)
    assert took < 2.2


async def test_a_cancel_that_comes_before_the_worker_runs_still_stops_it(library):
    cancel = asyncio.Event()
    cancel.set()
    async with asyncio.timeout(60):
        end = await mover.run(order(library), lambda _: None, cancel, argv=worker(then="time.sleep(60)"))
    assert end == Stopped()


async def test_a_sweep_that_hangs_does_not_delay_the_end_of_a_cancelled_job(library, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(mover, "sweep", lambda _: hangs.wait(60))
    end, _, took = await run(order(library), worker(Started(), then="time.sleep(60)"), cancel_at=Started)
    hangs.set()
    assert end == Stopped()
    assert took < 2


async def test_no_worker_outlives_the_task_that_asked_for_it(library, tmp_path):
    pid = tmp_path / "pid"
    then = f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    running = asyncio.create_task(mover.run(order(library), lambda _: None, asyncio.Event(), argv=worker(then=then)))
    async with asyncio.timeout(60):
        while not (pid.exists() and pid.read_text()):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
