"""What the main job refuses, and what it breaks off because of the library or the image: the sentence that a person reads, the
true state of the task, the slot, and the bytes that must be what they were.

One site serves all tests here; each has nodes and images of its own.
"""

import pytest

from support.loop import loop_disk, needs_root, sh
from support.site import PLAIN_MIB, digest, target

pytestmark = [needs_root, pytest.mark.root]
MIB = 1024**2


def failed(bench, node, state, image, disk, **job):
    """A task that must fail; answers it, after a look at all that must be true of every failure."""
    done = bench.do(node, state, image, disk, **job)
    assert done.state == "failed", done
    assert done.ended
    assert "Traceback" not in done.reason
    return done


# ---------------------------------------------------------------- refused at nodeset


# The commands that xCAT has too end with its exit code, 1, whatever was refused.
@pytest.mark.parametrize("name", ["../etc/passwd", "-rf", "a b", "günstig", "golden.v3", "x.json", "n" * 101])
@pytest.mark.parametrize("state", ["image", "osimage"])
def test_a_wrong_image_name_is_refused_before_there_is_a_task(bench, name, state):
    code, out, err = bench.said("nodeset", "n02", f"{state}={name}")
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert "cannot be the name of an image" in err
    assert "use up to 100 ASCII letters, digits and . _ + -" in err
    assert bench.client.tasks(node="n02").tasks == ()


def test_an_image_that_does_not_exist_is_refused_before_there_is_a_task(bench):
    code, out, err = bench.said("nodeset", "n02", "osimage=nothing")
    assert (code, out) == (1, "")
    assert "there is no image 'nothing' in the library, and no osimage of that name" in err
    assert "litho image ls" in err
    assert bench.client.tasks(node="n02").tasks == ()
    assert bench.reads("n02") == "boot"


def test_a_version_that_does_not_exist_is_refused_and_those_that_do_are_named(bench, golden):
    code, _, err = bench.said("nodeset", "n02", "osimage=golden:7")
    assert code == 1
    assert "the image golden has no version 7 (it has: 1)" in err


def test_an_image_that_is_gone_when_its_node_boots_ends_the_task_with_the_disk_untouched(bench, plain, tmp_path):
    bench.captured("n03", "fleeting", plain)
    task = bench.nodeset("n04", "osimage", "fleeting")
    # Not by `litho image rm`, which would refuse: somebody else deletes it on the file server.
    for path in bench.library.glob("fleeting*"):
        path.unlink()
    with target(tmp_path) as disk:
        before = digest(disk)
        with bench.booted("n04", disk, task) as agent:
            done = bench.reaches(task, "failed")
            assert agent.wait(60) == 3
        assert digest(disk) == before
    assert done.code == "image-missing"
    assert bench.reads("n04") == (
        "partimage-ng: failed: the image fleeting has no version 1 (it has: none): see what there is with: litho image ls"
    )
    bench.is_idle("n04")


# ---------------------------------------------------------------- the disk


@pytest.mark.parametrize("state", ["image", "osimage"])
def test_a_disk_that_is_not_there_is_an_error_and_never_another_disk(bench, golden, state):
    done = failed(bench, "n05", state, golden, "/dev/nosuchdisk")
    assert done.code == "disk-missing"
    assert "/dev/nosuchdisk" in done.reason
    assert bench.reads("n05").startswith("partimage-ng: failed: ")
    assert not done.result["touched"]
    bench.verifies("golden", 1)
    bench.has_no_remains("golden")


def test_a_disk_that_is_too_small_is_refused_before_the_first_write(bench, golden, tmp_path):
    with target(tmp_path, PLAIN_MIB // 2) as disk:
        before = digest(disk)
        done = failed(bench, "n06", "osimage", golden, disk)
        assert digest(disk) == before
        assert (done.code, done.result["touched"]) == ("disk-too-small", False)
        size = PLAIN_MIB // 2 * MIB
        assert done.reason.startswith(f"{disk} is too small: the image needs {(PLAIN_MIB - 3) * MIB} bytes (")
        assert f"partition 1 ends there) and it has {size} (33.6 MB): choose a larger disk" in done.reason
        assert bench.reads("n06").startswith(f"partimage-ng: failed: {disk} is too small: the image needs ")


def test_a_disk_that_is_mounted_is_refused_with_the_place_where(bench, golden, tmp_path):
    with loop_disk(tmp_path / "mounted", size=PLAIN_MIB * MIB) as disk:
        sh("mkfs.ext4", "-q", "-F", disk)
        where = tmp_path / "mnt"
        where.mkdir()
        sh("mount", disk, where)
        try:
            done = failed(bench, "n07", "osimage", golden, disk)
        finally:
            sh("umount", where)
    assert (done.code, done.result["touched"]) == ("disk-mounted", False)
    assert f"mounted on {where}: unmount {where} first" in done.reason
    # "mounted" and its way out are what is read; a path may not smuggle VCL's word for a good end into the line.
    assert "boot" not in bench.reads("n07")


# ---------------------------------------------------------------- the library


def test_a_library_that_is_read_only_ends_a_capture_before_the_disk_is_read(bench, plain, golden):
    sh("mount", "-o", "remount,ro", bench.library)
    try:
        done = failed(bench, "n08", "image", "golden", plain)
    finally:
        sh("mount", "-o", "remount,rw", bench.library)
    assert done.code == "library-read-only"
    assert done.reason == f"the library {bench.library} is mounted read-only: export and mount it writable"
    assert bench.reads("n08") == f"partimage-ng: failed: {done.reason}"
    assert done.total == 0, "nothing was planned"
    bench.verifies("golden", 1)
    bench.has_no_remains("golden")


def test_a_restore_needs_no_writable_library(bench, golden, tmp_path):
    sh("mount", "-o", "remount,ro", bench.library)
    try:
        with target(tmp_path) as disk:
            done = bench.do("n09", "osimage", golden, disk)
    finally:
        sh("mount", "-o", "remount,rw", bench.library)
    assert done.state == "succeeded", done.reason


@pytest.fixture
def nearly_full(bench):
    """The library has 12 MiB left: too few for 24 MiB that no compressor makes smaller, too many to see it at once."""
    free = int(sh("df", "--output=avail", "-B1M", bench.library).split()[-1])
    ballast = bench.library / "ballast"
    sh("fallocate", "-l", f"{free - 12}MiB", ballast)
    yield ballast
    ballast.unlink()


def test_a_library_that_gets_full_in_the_middle_keeps_the_last_good_version_and_has_its_room_back(
    bench, plain, golden, nearly_full
):
    free = bench.client.images()
    done = failed(bench, "n10", "image", "golden", plain)
    assert done.code == "library-full"
    assert done.reason == (
        f"the library {bench.library} is full: free some space or prune old versions, then start again"
    )
    assert bench.reads("n10") == f"partimage-ng: failed: {done.reason}"
    assert done.started, "it was in the middle"
    bench.has_no_remains("golden")
    bench.verifies("golden", 1)
    assert bench.client.images() == free
    assert int(sh("df", "--output=avail", "-B1M", bench.library).split()[-1]) >= 11
    nearly_full.write_bytes(b"")
    assert bench.captured("n10", "again", plain).version == 1


def test_a_library_with_no_room_at_all_is_refused_before_a_byte_is_written(bench, plain, golden):
    free = int(sh("df", "--output=avail", "-B1K", bench.library).split()[-1])
    ballast = bench.library / "ballast"
    sh("fallocate", "-l", f"{free - 700}KiB", ballast)
    try:
        done = failed(bench, "n11", "image", "golden", plain)
    finally:
        ballast.unlink()
    assert done.code == "library-full"
    assert "free, and" in done.reason
    assert "are to be captured: free some space or prune old versions" in done.reason
    assert not done.started
    bench.has_no_remains("golden")


def test_a_mount_point_on_which_nothing_is_mounted_is_no_library(bench, plain, golden):
    # Laid over the library: what a node sees when the export's own disk was not mounted on the server.
    sh("mount", "-t", "tmpfs", "-o", "size=1m", "lithograph-test", bench.library)
    try:
        done = failed(bench, "n12", "image", "golden", plain)
        assert list(bench.library.iterdir()) == [], "nothing may fill the directory under the mount"
    finally:
        sh("umount", bench.library)
    assert done.code == "library-missing"
    assert f"{bench.library} is not an image library" in done.reason
    assert bench.reads("n12").startswith("partimage-ng: failed: ")
    bench.verifies("golden", 1)
