"""The main job from `nodeset` to the proof: real controller, broker, agents, engines and disks; nothing stands in for anything.

One site serves all tests here; each has nodes and images of its own.
"""

import subprocess
from pathlib import Path

import pytest
from demo.proof import prove

from litho_agent import filesystems
from litho_agent.engines.used import used_extents
from support.loop import needs_root, part, sh
from support.site import (
    PLAIN_MIB,
    TINY,
    digest,
    go_on,
    mbr_disk,
    plain_disk,
    pretends_to_boot,
    source,
    stopped,
    target,
    until,
)

pytestmark = [needs_root, pytest.mark.root]


@pytest.fixture(scope="module")
def mbr(disks):
    with source(mbr_disk(disks)) as disk:
        yield disk


# ---------------------------------------------------------------- the good way


def test_a_disk_is_captured_and_printed_and_the_print_is_the_same(bench, mbr, tmp_path):
    before = digest(mbr)
    done = bench.captured("n01", "golden", mbr)
    assert digest(mbr) == before, "a capture only reads"
    assert (done.version, done.percent, done.reason) == (1, 100, "")
    assert bench.reads("n01") == "boot"
    bench.verifies("golden", 1)
    bench.has_no_remains("golden")
    assert "debian12" in bench.ask("tabdump", "osimage")

    with target(tmp_path, TINY.disk + 20) as blank:
        done = bench.do("n02", "osimage", "golden", blank)
        assert done.state == "succeeded", done.reason
        proven = {one.partition: one for one in prove(mbr, blank, tmp_path)}
    assert {number: one.fs for number, one in proven.items()} == {1: "vfat", 2: "ext3", 5: "ext4", 6: "swap"}
    assert all(one.clean for one in proven.values())
    assert proven[2].files > 10
    assert proven[5].files > 10
    assert done.result["stored"] == bench.task("t-000001").stored
    assert bench.reads("n02") == "boot"


def test_partimage_carries_ext3_and_fat_through_the_whole_way(bench, disks, tmp_path):
    image = disks / "old.disk"
    with source(mbr_disk_of_old_kinds(image, disks)) as disk:
        bench.captured("n03", "old", disk, engine="partimage")
        parts = {one["number"]: one for one in bench.manifest("old")["parts"]}
        assert {number: one["engine"] for number, one in parts.items()} == {1: "partimage", 2: "partimage"}
        with target(tmp_path, 128) as blank:
            done = bench.do("n04", "osimage", "old", blank)
            assert done.state == "succeeded", done.reason
            proven = prove(disk, blank, tmp_path)
    assert [(one.fs, one.clean) for one in proven] == [("vfat", True), ("ext3", True)]
    assert proven[1].files == 9


def mbr_disk_of_old_kinds(image: Path, folder: Path) -> Path:
    plain_disk(folder, name="donor")
    with image.open("wb") as file:
        file.truncate(128 * 1024**2)
    sh("sfdisk", "--quiet", image, stdin="label: dos\nstart=2048, size=40MiB, type=c\nsize=64MiB, type=83\n")
    with source(image) as disk:
        sh("mkfs.vfat", "-F", "32", part(disk, 1))
        sh("mcopy", "-i", part(disk, 1), folder / "tree/data0", "::data0")
        sh("mkfs.ext3", "-q", "-F", "-d", folder / "tree", part(disk, 2))
    return image


def test_gzip_goes_the_whole_way_and_zcat_gives_the_stream(bench, plain, tmp_path):
    bench.captured("n05", "zipped", plain, compress="gzip", level=4)
    [one] = bench.manifest("zipped")["parts"]
    assert one["data"]["file"].endswith(".partclone.gz")
    counted = subprocess.run(
        ["sh", "-c", 'zcat "$1" | sha256sum', "-", bench.library / one["data"]["file"]], capture_output=True, check=True
    )
    assert counted.stdout.decode().split()[0] == one["stream_sha256"]
    with target(tmp_path) as blank:
        done = bench.do("n06", "osimage", "zipped", blank)
        assert done.state == "succeeded", done.reason
        [proven] = prove(plain, blank, tmp_path)
        assert pretends_to_boot(blank), "what a failure must not leave is there after a success"
    assert (proven.files, proven.clean) == (9, True)


def test_a_file_system_on_the_whole_disk_goes_the_whole_way(bench, disks, tmp_path):
    with source(plain_disk(disks, label="", name="whole")) as disk, target(tmp_path, PLAIN_MIB + 16) as blank:
        bench.captured("n07", "whole", disk)
        assert bench.manifest("whole")["table"] == "none"
        done = bench.do("n08", "osimage", "whole", blank)
        assert done.state == "succeeded", done.reason
        assert filesystems.probe(disk).uuid == filesystems.probe(blank).uuid
        assert filesystems.prove(blank, "ext4")
        extents = used_extents(disk, "ext4")
        assert sum(extent.size for extent in extents) > 20 * 1024**2
        with disk.open("rb") as one, blank.open("rb") as other:
            for extent in extents:
                one.seek(extent.start)
                other.seek(extent.start)
                assert one.read(extent.size) == other.read(extent.size), f"byte {extent.start}"


def test_a_gpt_disk_goes_the_whole_way_and_its_backup_lies_at_the_larger_disks_end(bench, disks, tmp_path):
    with source(plain_disk(disks, label="gpt", name="gpt")) as disk, target(tmp_path, PLAIN_MIB + 16) as blank:
        bench.captured("n09", "gpt", disk)
        done = bench.do("n10", "osimage", "gpt", blank)
        assert done.state == "succeeded", done.reason
        [proven] = prove(disk, blank, tmp_path)
        assert (proven.fs, proven.clean, proven.files) == ("ext4", True, 9)
        with blank.open("rb") as file:
            file.seek(-512, 2)
            assert file.read(8) == b"EFI PART"


# ---------------------------------------------------------------- several at once


def test_two_captures_of_one_name_at_once_make_two_versions(bench, plain, disks):
    other = plain_disk(disks, name="other")
    one, two = (bench.nodeset(node, "image", "twice") for node in ("n11", "n12"))
    with source(other) as second, bench.booted("n11", plain, one) as first_agent:
        engine = stopped(first_agent.pid, "partclone")
        with bench.booted("n12", second, two) as second_agent:
            faster = bench.reaches(two, "succeeded")
            assert bench.unfinished("twice"), "the first one is still in the middle"
            bench.verifies("twice", 2)
            go_on(engine)
            slower = bench.reaches(one, "succeeded")
            first_agent.wait(60)
            second_agent.wait(60)
    assert (slower.version, faster.version) == (1, 2)
    bench.verifies("twice", 2)
    assert {(view.version, view.error) for view in bench.client.images().images if view.image == "twice"} == {
        (1, ""),
        (2, ""),
    }
    bench.has_no_remains("twice")


def test_an_older_version_is_restored_while_a_new_one_is_captured_and_cannot_be_deleted_meanwhile(
    bench, plain, disks, tmp_path
):
    bench.captured("n13", "living", plain)
    newer = plain_disk(disks, name="newer")
    restoring = bench.nodeset("n14", "osimage", "living")
    with target(tmp_path) as blank, source(newer) as disk, bench.booted("n14", blank, restoring) as agent:
        engine = stopped(agent.pid, "partclone")
        assert bench.captured("n13", "living", disk).version == 2
        code, _, err = bench.said("image", "rm", "living:1")
        assert code == 4
        assert f"the image living:1 is in use: {restoring} restores it to n14" in err
        assert f"wait for its end, or: litho task cancel {restoring}" in err
        go_on(engine)
        done = bench.reaches(restoring, "succeeded")
        agent.wait(60)
        assert done.version == 1
        [proven] = prove(plain, blank, tmp_path)
        assert proven.clean
    bench.verifies("living", 2)
    code, _, err = bench.said("image", "rm", "living:1")
    assert code == 0, err
    bench.verifies("living", 2)


def test_a_node_that_boots_twice_with_one_token_does_not_disturb_its_first_boot(bench, plain):
    task = bench.nodeset("n15", "image", "once")
    bench.reaches(task, "armed")
    words = (bench.state / "boot" / "n15.cmdline").read_text().strip()
    with bench.booted("n15", plain, task) as agent:
        engine = stopped(agent.pid, "partclone")
        again = bench.root / "again.cmdline"
        again.write_text(f"{words} litho.disk={plain}\n")
        second = subprocess.run([bench.agent_program, "run", "--cmdline", again], capture_output=True, check=False)
        assert second.returncode == 4
        assert (
            f"litho-agent: the controller refused the claim: the task {task} is held by another session of n15\n"
            in second.stderr.decode()
        )
        assert bench.task(task).state == "running"
        go_on(engine)
        bench.reaches(task, "succeeded")
        agent.wait(60)
    bench.verifies("once", 1)
    until(lambda: bench.reads("n15") == "boot")
