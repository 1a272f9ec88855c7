"""One controller to a library: real files, short times."""

import asyncio
import errno
import os
import subprocess

import msgspec
import pytest

from litho.errors import CancelledError, LibraryError, RefusedError
from litho.library import Library, files
from litho_controller import hold
from litho_controller.hold import FILE, Hold, judge, myself

ME = myself(b"mine")
OTHER = msgspec.structs.replace(myself(b"theirs"), host="mgmt2", machine="m2", pid=4711, started=1)


@pytest.fixture
def library(tmp_path):
    return Library.create(tmp_path / "library")


def made(library, holder, **times):
    return Hold(library, holder, **({"renew_s": 0.05, "stale_s": 0.5} | times))


def there(library):
    return hold.parse((library.root / FILE).read_bytes())


def beside(holder, **changes):
    """Another installation's controller on this machine."""
    return msgspec.structs.replace(holder, state="another", key="another", **changes)


@pytest.mark.parametrize(
    ("found", "alive", "verdict"),
    [
        (None, True, "unknown"),
        (msgspec.structs.replace(ME, key="of an earlier run"), True, "ours"),
        (msgspec.structs.replace(ME, machine="before it booted again"), None, "ours"),
        (msgspec.structs.replace(ME, host="mgmt2", machine="m2"), False, "unknown"),
        (beside(ME), True, "alive"),
        (beside(ME), False, "dead"),
        (beside(ME), None, "unknown"),
        (beside(ME, machine="another boot, or a container"), False, "unknown"),
        (OTHER, False, "unknown"),
    ],
)
def test_what_is_known_of_a_holder(found, alive, verdict):
    assert judge(found, ME, lambda pid, started: alive) == verdict


def test_a_process_is_known_by_its_number_and_its_start():
    pid = os.getpid()
    assert hold.exists(pid, myself(b"").started) is True
    assert hold.exists(pid, 1) is False
    assert hold.exists(pid, 0) is None
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    assert hold.exists(child.pid, 1) is False
    assert hold.exists(2**62, 1) is False


async def test_a_library_is_held_and_given_up(library):
    async with hold.holding(library, b"mine", asyncio.Event()):
        assert there(library).pid == os.getpid()
        assert (library.root / FILE).stat().st_size == hold.BYTES
    assert not (library.root / FILE).exists()


async def test_a_second_installation_on_this_host_is_refused_at_once_and_told_whose_it_is(library):
    async with hold.holding(library, b"mine", asyncio.Event()):
        with pytest.raises(
            RefusedError, match=rf"\(on {ME.host}, process {os.getpid()}, since .*--take-over"
        ) as caught:
            async with hold.holding(library, b"theirs", asyncio.Event()):
                pass
        assert caught.value.code == "library-held"
        assert there(library).state == ME.state


async def test_a_hold_of_this_state_directory_or_of_a_dead_process_is_taken_over_at_once(library):
    for left in (msgspec.structs.replace(ME, key="x", machine="before"), beside(ME, pid=2**40)):
        (library.root / FILE).write_bytes(hold.encode(left))
        await asyncio.wait_for(made(library, ME, stale_s=3600.0).take(asyncio.Event()), 10)
        assert there(library).key == ME.key
        assert [path.name for path in library.root.iterdir() if path.suffix == ".part"] == []


@pytest.mark.parametrize("left", [hold.encode(OTHER), b"", b"\xff" * 5000, b'{"format":2}'])
async def test_a_holder_elsewhere_that_gives_no_sign_of_life_is_taken_for_dead(library, left):
    (library.root / FILE).write_bytes(left)
    await made(library, ME).take(asyncio.Event())
    assert there(library).key == ME.key


async def test_a_holder_elsewhere_is_alive_when_its_beat_goes_on_whatever_its_clock_says(library):
    theirs = made(library, msgspec.structs.replace(OTHER, since="1970-01-01 00:00:00"))
    await theirs.take(asyncio.Event())
    beating = asyncio.create_task(theirs.keep())
    with pytest.raises(RefusedError, match="on mgmt2, process 4711, since 1970"):
        await made(library, ME, stale_s=60.0).take(asyncio.Event())
    beating.cancel()
    assert there(library).key == OTHER.key


async def test_taking_over_ends_the_other_one(library):
    theirs = made(library, OTHER)
    await theirs.take(asyncio.Event())
    await made(library, ME, stale_s=3600.0).take(asyncio.Event(), by_force=True)
    with pytest.raises(RefusedError, match="has taken the library"):
        await asyncio.wait_for(theirs.keep(), 30)
    theirs.give_up()
    assert there(library).key == ME.key


async def test_of_two_that_take_over_at_once_one_has_it(library):
    (library.root / FILE).write_bytes(hold.encode(OTHER))
    seen = (library.root / FILE).read_bytes()
    mine, theirs = made(library, ME), made(library, beside(ME))
    mine._remove(seen)
    await theirs.take(asyncio.Event())
    mine._remove(seen)  # comes too late: what it renames is the new holder's
    assert there(library).key == "another"
    theirs.renew()
    assert there(library).beat == 1


async def test_a_hold_that_somebody_removed_is_made_again(library):
    mine = made(library, ME)
    await mine.take(asyncio.Event())
    (library.root / FILE).unlink()
    mine.renew()
    assert there(library).key == ME.key


@pytest.mark.parametrize("kind", ["link", "pipe"])
async def test_a_link_or_a_pipe_in_the_place_of_the_hold_is_not_written_to(library, tmp_path, kind):
    mine = made(library, ME)
    await mine.take(asyncio.Event())
    precious = tmp_path / "precious"
    precious.write_text("root:x:0:0")
    (library.root / FILE).unlink()
    if kind == "link":
        (library.root / FILE).symlink_to(precious)
    else:
        os.mkfifo(library.root / FILE)
    with pytest.raises(LibraryError):
        await asyncio.wait_for(asyncio.to_thread(mine.renew), 10)
    assert precious.read_text() == "root:x:0:0"


async def test_a_link_that_leads_nowhere_is_a_damaged_hold(library):
    (library.root / FILE).symlink_to("nowhere")
    await asyncio.wait_for(made(library, ME).take(asyncio.Event()), 60)
    assert there(library).key == ME.key
    assert not (library.root / "nowhere").exists()


async def test_a_full_library_that_is_held_is_not_for_a_second_controller(library, monkeypatch):
    mine = made(library, ME)
    await mine.take(asyncio.Event())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "create_whole", full)
    with pytest.raises(RefusedError, match="another controller works with the library"):
        await made(library, beside(ME)).take(asyncio.Event())
    (library.root / FILE).unlink()
    with pytest.raises(LibraryError) as caught:
        await made(library, beside(ME)).take(asyncio.Event())
    assert caught.value.code == "library-full"


async def test_who_watches_can_be_ended(library):
    (library.root / FILE).write_bytes(hold.encode(OTHER))
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(CancelledError):
        await made(library, ME, stale_s=3600.0).take(stop)
