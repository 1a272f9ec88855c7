"""Images that nobody captured: tables and manifests that cannot be made, and a disk that is not the one that was chosen."""

import hashlib
import os
import time

import msgspec
import pytest

from litho.errors import DiskError, LithoError
from litho.job import Job
from litho.library import FileRef, Library, Manifest, Owner, Part, Stage
from litho.messages import DiskFacts
from litho_agent import restore
from litho_agent.disks import inventory
from litho_agent.mover import WorkOrder
from litho_agent.telling import Recorder
from support.loop import loop_disk, needs_root
from support.site import digest

pytestmark = [needs_root, pytest.mark.root]
MIB = 1024 * 1024
OLD = b"what was on the disk before "
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
GPT = "label: gpt\nlabel-id: 5C27AA3A-8EFC-794D-B9B9-6B5898030574\ndevice: /dev/x\nunit: sectors\nsector-size: 512\n"
DOS = "label: dos\nlabel-id: 0x1234abcd\ndevice: /dev/x\nunit: sectors\nsector-size: 512\n"


@pytest.fixture
def target(tmp_path):
    """A disk that is full of other bytes."""
    with loop_disk(tmp_path / "target", size=64 * MIB) as disk:
        disk.write_bytes(OLD * (MIB // len(OLD)))
        yield disk


def image(library: Library, dump: str, parts: tuple[Part, ...], *, table: str = "gpt") -> None:
    """Publish an image with this table and these parts."""
    with Stage.open(library, "evil", Owner(session=f"s-{time.monotonic_ns()}", pid=os.getpid())) as stage:
        ref = None
        if dump:
            with stage.create("sda.sfdisk") as sink:
                os.write(sink.fileno(), dump.encode())
            ref = FileRef(
                file=stage.file_name("sda.sfdisk"), bytes=len(dump), sha256=hashlib.sha256(dump.encode()).hexdigest()
            )
        stage.publish(
            Manifest(
                image="evil",
                version=stage.version,
                created="2026-11-22T16:00:00Z",
                software="lithograph",
                disk=DiskFacts(path="/dev/sda", size=64 * MIB),
                disk_name="sda",
                table=table,  # type: ignore[arg-type]
                table_dump=ref,
                parts=parts,
            )
        )


def refused(library: Library, disk) -> LithoError:
    """The error of a restore onto `disk`, which must be what it was."""
    before, teller = digest(disk), Recorder()
    order = WorkOrder(
        job=Job(action="restore", image="evil", disk=str(disk)),
        library=str(library.root),
        owner=Owner(session="r", pid=os.getpid()),
        node="n01",
    )
    with pytest.raises(LithoError) as caught:
        restore.restore(order, teller)
    assert digest(disk) == before
    assert not teller.touched
    return caught.value


def left_out(number: int, start: int, size: int) -> Part:
    return Part(number=number, kind="skipped", start=start * 512, size=size * 512)


@pytest.mark.parametrize(
    ("dump", "parts", "told"),
    [
        # The first usable sector behind the partition, and behind the disk.
        (GPT + f"first-lba: 9000\n\n/dev/x1 : start=2048, size=8, type={LINUX}\n", [(1, 2048, 8)], "cannot be made on"),
        (
            GPT + f"first-lba: 9999999999\n\n/dev/x1 : start=2048, size=8, type={LINUX}\n",
            [(1, 2048, 8)],
            "cannot be made on",
        ),
        # No sector for the second one's own entry in the chain.
        (
            DOS + "\n/dev/x1 : start=2048, size=99, type=5\n/dev/x5 : start=2050, size=10, type=83\n"
            "/dev/x6 : start=2060, size=10, type=83\n",
            [(1, 2048, 99), (5, 2050, 10), (6, 2060, 10)],
            "cannot be made on",
        ),
        (
            DOS + "\n/dev/x1 : start=2048, size=99, type=5\n/dev/x7 : start=2050, size=10, type=83\n",
            [(1, 2048, 99), (7, 2050, 10)],
            "not numbered one after the other",
        ),
        (
            GPT + f"\n/dev/x1 : start=2048, size=99, type={LINUX}\n/dev/x2 : start=2100, size=9, type={LINUX}\n",
            [(1, 2048, 99), (2, 2100, 9)],
            "partitions 1 and 2 overlap",
        ),
        (GPT + f"\n/dev/x1 : start=2048, size=999999999, type={LINUX}\n", [(1, 2048, 999999999)], "is too small"),
    ],
)
def test_a_table_that_cannot_be_made_is_refused_before_the_first_write(tmp_path, target, dump, parts, told):
    library = Library.create(tmp_path / "library")
    image(library, dump, tuple(left_out(*one) for one in parts), table=dump[7:10])
    error = refused(library, target)
    assert told in str(error)
    assert error.code in ("bad-table", "disk-too-small")


# A partition that no table names, and a disk that says it is smaller than what lies on it.
@pytest.mark.parametrize("one", [(3, 2048, 8), (0, 0, 64 * 2048 + 1)])
def test_parts_that_no_table_explains_are_refused_before_the_first_write(tmp_path, target, one):
    library = Library.create(tmp_path / "library")
    image(library, "", (left_out(*one),), table="none")
    assert refused(library, target).code == "bad-manifest"


def test_a_disk_that_took_the_name_of_the_chosen_one_is_left_alone(tmp_path, target, monkeypatch):
    library = Library.create(tmp_path / "library")
    image(library, DOS + "\n/dev/x1 : start=2048, size=8, type=83\n", (left_out(1, 2048, 8),), table="dos")
    serials = iter(("S3Z1NX0K1", "S3Z1NX0K2"))
    real = inventory.read

    def looked():
        serial = next(serials)
        return tuple(msgspec.structs.replace(one, serial=serial) if one.path == str(target) else one for one in real())

    monkeypatch.setattr(restore.inventory, "read", looked)
    error = refused(library, target)
    assert isinstance(error, DiskError)
    assert error.code == "disk-changed"
    assert "its serial was S3Z1NX0K1 and is S3Z1NX0K2" in error.message
