"""The main job with images in chunks, from `nodeset` to the proof: real controller, broker, agents and disks.

One site serves all tests here; each has nodes and images of its own. A middle is made by letting a worker run in short slices
until it has written so much.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from demo.proof import prove

from litho_agent import filesystems
from support.loop import loop_disk, needs_root, part, sh
from support.pace import Moment
from support.site import (
    MIB,
    PLAIN_MIB,
    TINY,
    below,
    digest,
    mbr_disk,
    plain_disk,
    pretends_to_boot,
    source,
    target,
    until,
)

pytestmark = [needs_root, pytest.mark.root]


def packs(bench):
    """The packs of the library, by name, with their sizes."""
    return {path.name: path.stat().st_size for path in (bench.library / ".chunks").glob("*.pack")}


def receipts(done):
    return {one["part"]: one for one in done.result["receipts"]}


def roots(bench, image):
    return {one["number"]: one["chunk_root"] for one in bench.manifest(image)["parts"] if one["chunk_root"]}


def came_from(bench, image):
    found = bench.manifest(image)
    return found["parent_image"], found["parent"]


def share(bench, image):
    """How much of its used data the parent has as well."""
    found = bench.manifest(image)
    return found["shared"] / sum(one["used"] for one in found["parts"])


def written(pid):
    """Bytes that a process has written to disks and files."""
    words = Path(f"/proc/{pid}/io").read_text().split()
    return int(words[words.index("wchar:") + 1])


def in_the_middle(agent, enough):
    """Let the worker of `agent` run in slices until it has written `enough` bytes; it is stopped then. Answers its id."""
    worker = until(lambda: below(agent.pid, "python"), what="the worker runs", every_s=0.002)
    deadline = time.monotonic() + 60
    while written(worker) < enough:
        os.kill(worker, signal.SIGCONT)
        time.sleep(0.004)
        os.kill(worker, signal.SIGSTOP)
        assert time.monotonic() < deadline
    return worker


# ---------------------------------------------------------------- the good way


def test_a_disk_goes_into_chunks_and_out_again_and_the_next_time_only_what_differs(bench, disks, tmp_path):
    with source(mbr_disk(disks)) as disk, target(tmp_path, TINY.disk + 20) as blank:
        before = digest(disk)
        first = bench.captured("n01", "golden", disk, engine="chunk")
        assert digest(disk) == before, "a capture only reads"
        assert (first.version, first.percent) == (1, 100)
        parts = {one["number"]: one for one in bench.manifest("golden")["parts"]}
        assert {number: one["engine"] for number, one in parts.items() if one["kind"] == "stream"} == dict.fromkeys(
            (1, 2, 5), "chunk"
        )
        assert {number: one["root"] for number, one in receipts(first).items()} == roots(bench, "golden")
        bench.verifies("golden", 1)
        assert bench.said("image", "verify", "golden")[:2][1].splitlines()[-1] == "golden is whole"
        bench.has_no_remains("golden")

        done = bench.do("n02", "osimage", "golden", blank, verify_target=True)
        assert done.state == "succeeded", done.reason
        proven = {one.partition: one for one in prove(disk, blank, tmp_path)}
        assert {number: one.fs for number, one in proven.items()} == {1: "vfat", 2: "ext3", 5: "ext4", 6: "swap"}
        assert all(one.clean for one in proven.values())
        told = receipts(done)
        assert {number: one["root"] for number, one in told.items()} == roots(bench, "golden")
        assert all(one["read_back"] for one in told.values())
        assert "all of it was read back from the disk and is what golden holds" in done.result["notes"]

        at = tmp_path / "at"
        at.mkdir()
        sh("mount", part(disk, 5), at)
        (at / "new.bin").write_bytes(os.urandom(MIB))
        sh("umount", at)
        before_bytes = sum(packs(bench).values())
        second = bench.captured("n01", "golden", disk, engine="chunk")
        assert second.version == 2
        stored = sum(packs(bench).values()) - before_bytes
        assert MIB <= stored < 3 * MIB
        assert second.result["stored"] < stored + 2 * MIB, "the sectors before the first partition are stored anew"
        told = receipts(second)
        assert (told[1]["moved"], told[2]["moved"]) == (0, 0)
        bench.verifies("golden", 2)
        assert came_from(bench, "golden") == ("golden", 1)
        assert 0.7 < share(bench, "golden") < 1
        bench.captured("n01", "another-name", disk, engine="chunk")
        assert came_from(bench, "another-name") == ("golden", 2), "found by a sample of its chunks"
        assert share(bench, "another-name") == 1
        assert "golden:2, which had " in bench.ask("image", "show", "another-name")
        [listed] = [one for one in json.loads(bench.ask("image", "ls", "--json")) if one["image"] == "another-name"]
        assert listed["parent"] == "golden:2"

        done = bench.do("n02", "osimage", "golden", blank)
        assert done.state == "succeeded", done.reason
        assert all(one.clean for one in prove(disk, blank, tmp_path))
        told = receipts(done)
        moved, right = (sum(one[key] for one in told.values()) for key in ("moved", "right"))
        assert moved < 5 * MIB < 20 * MIB < right
        assert f"{right / 1e6:.1f} of {(right + moved) / 1e6:.1f} MB were already right" in done.result["notes"]
        shown = bench.ask("task", "show", done.id)
        assert "were already right" in shown
        assert roots(bench, "golden")[5] in shown

        held = packs(bench)
        code, _, err = bench.said("image", "rm", "golden:1")
        assert code == 0, err
        assert packs(bench) == held, "chunks are shared: the collector takes them away, and not the removal"
        bench.verifies("golden", 2)


def test_what_no_map_reader_knows_goes_whole_and_zeros_cost_nothing(bench, tmp_path):
    image = tmp_path / "odd.disk"
    content = os.urandom(3 * MIB) + bytes(20 * MIB) + os.urandom(MIB)
    with loop_disk(image, size=48 * MIB) as disk:
        sh("sfdisk", "--no-reread", "--no-tell-kernel", "--quiet", disk, stdin="label: dos\nstart=2048, size=40MiB\n")
        with disk.open("r+b") as file:
            file.seek(MIB)
            file.write(content)
    before = sum(packs(bench).values())
    with source(image) as disk, target(tmp_path, 48) as blank:
        bench.captured("n03", "odd", disk, engine="chunk")
        assert 4 * MIB <= sum(packs(bench).values()) - before < 5 * MIB
        [one] = bench.manifest("odd")["parts"]
        assert (one["fs"], one["used"]) == ("", 40 * MIB)
        assert came_from(bench, "odd") == ("", 0), "nothing like it is in the library"
        done = bench.do("n04", "osimage", "odd", blank, free="zero")
        assert done.state == "succeeded", done.reason
        with blank.open("rb") as file:
            file.seek(MIB)
            assert file.read(40 * MIB) == content.ljust(40 * MIB, b"\0"), "zeros are written, too"


def test_a_file_system_that_is_not_clean_is_taken_whole_when_that_was_asked_for(bench, disks, tmp_path):
    with source(plain_disk(disks, name="dirty")) as disk:
        sh("debugfs", "-w", "-R", "set_super_value state 0", part(disk, 1))
        task = bench.do("n05", "image", "dirty", disk, engine="chunk")
        assert (task.state, task.code) == ("failed", "source-dirty")
        bench.captured("n05", "dirty", disk, engine="chunk", on_dirty="raw")
        [one] = bench.manifest("dirty")["parts"]
        assert one["used"] == one["size"]


def test_the_sites_engine_holds_where_nobody_says_and_the_nodes_command_line_wins(bench, plain):
    """What the demonstration's site does by default is proven there; here the order of those who may wish."""
    task = bench.nodeset("n06", "image", "wished")
    bench.reaches(task, "armed")
    words = (bench.state / "boot" / "n06.cmdline").read_text().strip()
    line = bench.root / "wish.cmdline"
    line.write_text(f"{words} litho.disk={plain} litho.engine=chunk\n")
    subprocess.run([bench.agent_program, "run", "--cmdline", line], capture_output=True, check=True, timeout=60)
    bench.reaches(task, "succeeded")
    [one] = bench.manifest("wished")["parts"]
    assert one["engine"] == "chunk"


# ---------------------------------------------------------------- broken off


def test_a_restore_that_was_killed_goes_on_where_it_was(bench, plain, tmp_path):
    bench.captured("n07", "resumed", plain, engine="chunk")
    task = bench.nodeset("n08", "osimage", "resumed")
    with target(tmp_path) as blank:
        with bench.booted("n08", blank, task) as agent:
            os.kill(in_the_middle(agent, 6 * MIB), signal.SIGKILL)
            failed = bench.reaches(task, "failed")
            agent.wait(60)
        assert failed.code == "worker-died"
        assert failed.result["touched"]
        assert not pretends_to_boot(blank)
        done = bench.do("n08", "osimage", "resumed", blank)
        assert done.state == "succeeded", done.reason
        assert receipts(done)[1]["right"] >= 2 * MIB
        [proven] = prove(plain, blank, tmp_path)
        assert (proven.files, proven.clean) == (9, True)
        assert pretends_to_boot(blank)


def test_a_capture_that_was_cancelled_goes_on_where_it_was_and_ends_in_time(bench, disks):
    with source(plain_disk(disks, name="broken-off")) as disk:
        # Content of its own: nothing of it may be in the library from before.
        sh("mkfs.ext4", "-q", "-F", "-d", fresh_tree(disks), part(disk, 1))
        before = sum(packs(bench).values())
        task = bench.nodeset("n09", "image", "half", engine="chunk")
        with bench.booted("n09", disk, task) as agent:
            in_the_middle(agent, 6 * MIB)
            since = Moment()
            bench.client.cancel(task)
            os.kill(below(agent.pid, "python"), signal.SIGCONT)
            bench.reaches(task, "cancelled")
            assert since.took() < 2.5
            agent.wait(60)
        bench.has_no_remains("half")
        kept = sum(packs(bench).values()) - before
        assert kept >= 4 * MIB, "what was stored stays"
        done = bench.captured("n09", "half", disk, engine="chunk")
        assert receipts(done)[1]["right"] >= 4 * MIB
        assert sum(packs(bench).values()) - before < 1.2 * 24 * MIB
        bench.verifies("half", 1)


def fresh_tree(folder):
    tree = folder / "fresh"
    tree.mkdir()
    for number in range(6):
        (tree / f"data{number}").write_bytes(os.urandom(4 * MIB))
    return tree


# ---------------------------------------------------------------- damage


def test_a_missing_pack_is_told_before_the_first_write_and_a_damaged_chunk_before_it_is_written(bench, plain, tmp_path):
    with source(plain_disk(tmp_path, name="hurt")) as disk, target(tmp_path) as blank:
        known = set(packs(bench))
        bench.captured("n10", "hurt", disk, engine="chunk")
        [fresh] = set(packs(bench)) - known
        pack = bench.library / ".chunks" / fresh
        before = digest(blank)
        aside = pack.rename(bench.library / "aside")
        done = bench.do("n11", "osimage", "hurt", blank)
        assert (done.state, done.code) == ("failed", "chunk-missing")
        assert not done.result["touched"]
        assert digest(blank) == before
        code, out, _ = bench.said("image", "verify", "hurt")
        assert code == 7
        assert fresh.removesuffix(".pack") in out
        aside.rename(pack)

        with pack.open("r+b") as file:
            file.seek(pack.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))
        done = bench.do("n11", "osimage", "hurt", blank)
        assert (done.state, done.code) == ("failed", "corrupt-pack")
        assert "restore the pack from a backup, use another version of the image, or capture it again" in done.reason
        assert not pretends_to_boot(blank)
        assert bench.said("image", "verify", "hurt")[0] == 7
        assert filesystems.probe(disk).type == ""


def test_reading_back_is_refused_for_a_stream_before_anything_is_touched(bench, plain, tmp_path):
    bench.captured("n12", "stream", plain, engine="auto")
    with target(tmp_path, PLAIN_MIB) as blank:
        before = digest(blank)
        done = bench.do("n13", "osimage", "stream", blank, verify_target=True)
        assert (done.state, done.code) == ("failed", "not-chunks")
        assert "--verify-target was asked for, and partition 1 of the image is a stream of partclone" in done.reason
        assert digest(blank) == before


# ---------------------------------------------------------------- comparing


def test_a_node_is_compared_with_an_image_and_told_where_it_differs(bench, plain, tmp_path):
    bench.captured("n14", "compared", plain, engine="chunk")
    with target(tmp_path) as blank:
        done = bench.do("n15", "osimage", "compared", blank)
        assert done.state == "succeeded", done.reason
        before = digest(blank)
        done = bench.do("n15", "verify", "compared", blank)
        assert done.state == "succeeded", done.reason
        assert done.result["notes"] == ["every partition with content holds what compared:1 does"]
        assert (receipts(done)[1]["root"], receipts(done)[1]["read_back"]) == (roots(bench, "compared")[1], True)
        assert digest(blank) == before, "it only reads"

        at = tmp_path / "at"
        at.mkdir()
        sh("mount", part(blank, 1), at)
        (at / "etc" / "os-release").write_text("ID=other\n")
        sh("umount", at)
        done = bench.do("n15", "verify", "compared:1", blank)
        assert (done.state, done.code) == ("failed", "target-differs")
        assert f"{blank.name} does not hold what compared:1 does: partition 1 differs in " in done.reason
        assert "litho nodeset NODE osimage=compared makes it the same again" in done.reason
        assert not done.result["touched"]
        assert done.result["exit_code"] == 7


def test_a_disk_with_another_table_is_no_print_of_the_image(bench, plain, tmp_path):
    bench.captured("n16", "placed", plain, engine="chunk")
    with source(plain_disk(tmp_path, label="", name="elsewhere")) as disk:
        done = bench.do("n17", "verify", "placed", disk)
        assert (done.state, done.code) == ("failed", "target-differs")
        assert f"{disk.name} does not hold placed:1: its partition 1 is not there" in done.reason


def test_an_image_of_streams_cannot_be_compared(bench, plain):
    bench.captured("n18", "streams", plain, engine="auto")
    code, out, _ = bench.said("node", "verify", "n19", "--image", "streams")
    assert (code, out) == (0, "n19: verify image-x86-streams\n")
    task = bench.client.tasks(node="n19", active=True).tasks[0].id
    with bench.booted("n19", plain, task) as agent:
        done = bench.reaches(task, "failed")
        agent.wait(60)
    assert done.code == "not-chunks"
    assert "partition 1 of streams:1 is a stream of partclone" in done.reason
