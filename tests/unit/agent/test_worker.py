"""What a worker makes of a job's end, and the rules of capture and restore that need no disk."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from litho.errors import CancelledError, DiskError, EngineError, LibraryError
from litho.job import Job
from litho.library import FileRef, Library, Manifest, Owner, Part
from litho.messages import DiskFacts, Failed, Stopped, Succeeded
from litho_agent import worker
from litho_agent.capture import check_room
from litho_agent.disks import Disk
from litho_agent.joblog import JobLog
from litho_agent.layout import Fitted, Table
from litho_agent.mover import Tick, Touching, WorkOrder
from litho_agent.restore import steps
from litho_agent.telling import Recorder, check_cancelled, reading
from litho_agent.worker import LineTeller, work

DONE = Succeeded(image="golden", version=1, used=1, stored=1, seconds=1.0, disk=DiskFacts(path="/dev/sda", size=1))


def order(action="capture"):
    return WorkOrder(job=Job(action=action, image="golden"), library="/nowhere", owner=Owner(session="s"))


def teller():
    out = io.BytesIO()
    return LineTeller(out, JobLog()), out


def lines(out):
    return [msgspec.json.decode(line, type=Tick | Touching) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize(
    ("raised", "end"),
    [
        (CancelledError("the task was cancelled"), Stopped(reason="the task was cancelled")),
        (
            DiskError("there is no disk sdb", hint="look", code="disk-missing"),
            Failed(code="disk-missing", reason="there is no disk sdb: look", exit_code=5),
        ),
        (
            ZeroDivisionError("1/0"),
            Failed(code="internal", reason="an unexpected error stopped the job (ZeroDivisionError: 1/0)"),
        ),
        (EngineError("x" * 9000), Failed(code="engine", reason="x" * 4095 + "…", exit_code=8)),
        (EngineError("sd\udcffa"), Failed(code="engine", reason="sd?a", exit_code=8)),
        (
            RuntimeError("y" * 9000),
            Failed(
                code="internal",
                reason=("an unexpected error stopped the job (RuntimeError: " + "y" * 9000)[:4095] + "…",
            ),
        ),
    ],
    ids=["cancelled", "disk", "defect", "too long", "no text", "defect that is too long"],
)
def test_every_way_to_end_is_an_answer_that_can_be_sent(monkeypatch, raised, end, touched):
    def job(_order, at):
        if touched:
            at.touching()
        raise raised

    monkeypatch.setattr(worker, "capture", job)
    at, _ = teller()
    found = work(order(), at)
    assert found == msgspec.structs.replace(end, touched=touched)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_a_hundred_percent_is_said_only_when_the_job_has_ended_well(monkeypatch):
    def job(_order, at):
        at.expect(total=100, parts=1)
        at.moved(100)
        at.checked(10, 10)
        at.tick()
        return DONE

    monkeypatch.setattr(worker, "restore", job)
    at, out = teller()
    assert work(order("restore"), at) == DONE
    assert [line.progress.percent for line in lines(out)] == [99, 100]


def test_a_worker_whose_order_is_no_order_ends_with_an_error_and_says_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "litho_agent.worker"],
        input=b'{"job": 7}\n',
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert done.stdout == b""


def test_ctrl_c_at_the_terminal_does_not_tear_a_worker_down():
    child = subprocess.Popen(
        [sys.executable, "-m", "litho_agent.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    bad = msgspec.json.encode(order()) + b"\n"
    with child:
        until_ignored(child.pid)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(bad, timeout=60)
    last = msgspec.json.decode(out.splitlines()[-1], type=Failed)
    assert last.code == "library-missing"
    assert child.returncode == 0


def until_ignored(pid):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        ignored = int(next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16)
        if ignored & (1 << (signal.SIGINT - 1)):
            return
        time.sleep(0.01)
    raise AssertionError("SIGINT is not ignored")


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("total", "free", "packed", "outcome"),
    [
        (2000, 1000, True, "well"),
        (2001, 999, True, "noted"),
        (20_000, 1000, True, "noted"),
        (20_020, 1000, True, "refused"),
        (1000, 1000, False, "well"),
        (1001, 1000, False, "refused"),
        (0, 0, True, "well"),
    ],
)
def test_a_library_without_room_is_refused_and_one_that_is_short_is_noted(
    tmp_path, monkeypatch, total, free, packed, outcome
):
    library = Library.create(tmp_path / "library")
    monkeypatch.setattr(Library, "free", lambda _: free)
    notes = []
    if outcome == "refused":
        with pytest.raises(LibraryError, match=r"free, and .* of used data are to be captured") as caught:
            check_room(library, total, notes, packed=packed)
        assert caught.value.code == "library-full"
    else:
        check_room(library, total, notes, packed=packed)
    assert bool(notes) == (outcome == "noted")


def test_reading_counts_and_stops_when_it_is_asked_to():
    recorder = Recorder()
    tick = reading(recorder, 30)
    tick(10)
    tick(20)
    assert recorder.checks == (30, 30)
    recorder.stop = True
    with pytest.raises(CancelledError):
        tick(1)
    with pytest.raises(CancelledError):
        check_cancelled(recorder)


def test_the_steps_of_a_restore_say_what_becomes_of_every_partition():
    def part(number, kind, fs="", **more):
        return Part(number=number, kind=kind, start=0, size=10, fs=fs, **more)

    data = FileRef(file="golden.v3-sda1.partclone.zst", bytes=1, sha256="0" * 64)
    stream = part(1, "stream", "ext4", engine="partclone", used=7, data=data, stream_bytes=1, stream_sha256="0" * 64)
    manifest = Manifest(
        image="golden",
        version=3,
        created="2026-11-22T16:00:00Z",
        software="lithograph test",
        disk=DONE.disk,
        disk_name="sda",
        table="dos",
        parts=(stream, part(2, "swap", "swap"), part(3, "empty"), part(4, "skipped")),
    )
    fitted = Fitted(table=Table(label="none", sector_size=512), grown=1)
    assert steps(manifest, Disk(name="vdb", path="/dev/vdb", size=10), fitted) == (
        "vdb: everything on it is replaced by golden:3",
        "partition 1: ext4, 7 bytes by partclone",
        "partition 2: swap, made anew with its UUID and label",
        "partition 3: unknown content, a frame without content",
        "partition 4: unknown content, left empty, as in the image",
        "partition 1: grown to the end of the disk",
    )
