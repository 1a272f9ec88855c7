"""Images that are damaged in the library: a restore finds it before its first write, and never says success.

What cannot be found before (a file that changes while it is read) is found before success is said, and the disk does not boot.
"""

import json
import os
import subprocess

import pytest

from support.loop import needs_root, sh
from support.site import digest, go_on, pretends_to_boot, stopped, target

pytestmark = [needs_root, pytest.mark.root]


def one(bench, pattern):
    [found] = bench.library.glob(pattern)
    return found


@pytest.fixture
def kept(bench, golden, tmp_path):
    """The library's files of golden are put back afterwards."""
    sh("cp", "-a", *bench.library.glob("golden*"), tmp_path)
    yield
    for path in bench.library.glob("golden*"):
        path.unlink()
    sh("cp", "-a", *tmp_path.glob("golden*"), bench.library)
    bench.verifies("golden", 1)


def flip(path, at):
    """One bit is another one, and the file as long and as old as before."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        [byte] = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def cut(path, size):
    with path.open("r+b") as file:
        file.truncate(size)


PART, TABLE, HEAD = "golden.v1-*.partclone.zst", "golden.v1-*.sfdisk", "golden.v1-*.head"


@pytest.mark.parametrize(
    ("pattern", "damage", "sentence"),
    [
        (
            PART,
            lambda path: flip(path, path.stat().st_size // 2),
            "is damaged: its SHA-256 is not what the manifest says",
        ),
        (
            PART,
            lambda path: flip(path, path.stat().st_size - 1),
            "is damaged: its SHA-256 is not what the manifest says",
        ),
        (PART, lambda path: cut(path, path.stat().st_size - 1), " bytes instead of "),
        (PART, lambda path: path.unlink(), "is missing"),
        (TABLE, lambda path: flip(path, 30), "is damaged: its SHA-256 is not what the manifest says"),
        (HEAD, lambda path: flip(path, 3), "is damaged: its SHA-256 is not what the manifest says"),
    ],
    ids=["bit in the middle", "last bit", "cut", "missing", "table", "boot code"],
)
def test_a_damaged_file_is_found_before_the_first_write(bench, kept, tmp_path, pattern, damage, sentence):
    path = one(bench, pattern)
    damage(path)
    with target(tmp_path) as disk:
        before = digest(disk)
        done = bench.do("n02", "osimage", "golden", disk)
        assert digest(disk) == before
    assert (done.state, done.code, done.result["touched"]) == ("failed", "corrupt", False)
    assert path.name in done.reason
    assert sentence in done.reason
    assert done.reason.endswith("nothing was written; use another version, or capture again")
    assert bench.reads("n02") == f"partimage-ng: failed: {done.reason}"


def test_a_manifest_in_which_a_bit_flipped_is_refused_at_nodeset_and_by_the_agent(bench, kept, tmp_path):
    manifest = bench.library / "golden.v1.json"
    at = manifest.read_bytes().index(b'"used":') + 8
    task = bench.nodeset("n03", "osimage", "golden")
    flip(manifest, at)
    code, _, err = bench.said("nodeset", "n04", "osimage=golden")
    assert code == 1
    assert "golden.v1.json" in err
    with target(tmp_path) as disk:
        before = digest(disk)
        with bench.booted("n03", disk, task) as agent:
            done = bench.reaches(task, "failed")
            assert agent.wait(60) == 7
        assert digest(disk) == before
    assert "golden.v1.json" in done.reason
    assert not done.result["touched"]
    assert bench.reads("n03").startswith("partimage-ng: failed: ")
    bench.is_idle("n03")


def test_a_manifest_that_names_an_engine_that_nobody_has_is_refused_before_the_first_write(bench, kept, tmp_path):
    reseal(bench, {"engine": "nosuchengine"})
    with target(tmp_path) as disk:
        before = digest(disk)
        done = bench.do("n05", "osimage", "golden", disk)
        assert digest(disk) == before
    assert (done.state, done.code, done.result["touched"]) == ("failed", "unknown-engine", False)
    assert done.reason.startswith("the image was made by the engine 'nosuchengine', which this agent does not have: ")


def test_a_stream_that_is_not_the_one_that_was_saved_never_becomes_a_success_or_a_disk_that_boots(
    bench, kept, tmp_path
):
    # The file is whole and its hash right; what comes out of it is not what went in.
    reseal(bench, {"stream_sha256": "0" * 64})
    with target(tmp_path) as disk:
        done = bench.do("n06", "osimage", "golden", disk)
        assert (done.state, done.code, done.result["touched"]) == ("failed", "corrupt", True)
        assert not pretends_to_boot(disk)
    assert "is not what the manifest says" in done.reason


def test_a_file_that_changes_while_it_is_restored_never_becomes_a_success(bench, kept, tmp_path):
    task = bench.nodeset("n07", "osimage", "golden")
    path = one(bench, PART)
    with target(tmp_path) as disk, bench.booted("n07", disk, task) as agent:
        engine = stopped(agent.pid, "partclone")
        # All was verified. Now the file's end changes, which nobody has read for the second time yet.
        flip(path, path.stat().st_size - 4096)
        go_on(engine)
        done = bench.reaches(task, "failed")
        agent.wait(60)
        assert not pretends_to_boot(disk)
    assert (done.code, done.result["touched"]) == ("corrupt", True)
    assert path.name in done.reason
    bench.is_idle("n07")


def reseal(bench, changes):
    """Change the manifest's one part, and make its own hash right again: damage by somebody who may write there."""
    path = bench.library / "golden.v1.json"
    code = (
        "import json, sys, msgspec\n"
        "from litho.library import manifest\n"
        "path, changes = sys.argv[1], json.loads(sys.argv[2])\n"
        "found = manifest.parse(open(path, 'rb').read(), name='golden', version=1)\n"
        "part = msgspec.structs.replace(found.parts[0], **changes)\n"
        "open(path, 'wb').write(manifest.dump(msgspec.structs.replace(found, parts=(part,))))\n"
    )
    subprocess.run(
        [bench.agent_program.with_name("python"), "-c", code, path, json.dumps(changes)],
        check=True,
        capture_output=True,
    )
