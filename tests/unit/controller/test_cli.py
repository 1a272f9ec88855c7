"""The command line against a canned daemon (a real server that knows no rules).

What is sent, what is printed, and what it ends with.
"""

import io
import os
import re
import shlex
import subprocess
import sys
import time

import click
import msgspec
import pytest

from litho.errors import NotFoundError, RefusedError
from litho.library import FileRef, Manifest, Part
from litho.library.chunks.health import Health
from litho.library.manifest import BadRange
from litho.messages import DiskFacts
from litho.task import State
from litho_controller import api
from litho_controller.cli import app, live
from litho_controller.cli.app import run
from support.canned import CannedDaemon, Lines
from support.pace import Moment

N01 = api.NodeView(
    node="n01", groups=("all", "compute"), mac="52:54:00:00:00:01", arch="x86_64", state="boot", status="noping"
)
ENDED = api.TaskView(
    id="7",
    node="n01",
    action="capture",
    image="golden",
    version=3,
    state=State.SUCCEEDED,
    percent=100,
    done=1024**3,
    total=1024**3,
    stored=400 * 1024**2,
    created=1.0,
    started=100.0,
    ended=110.0,
    result={"type": "succeeded", "notes": ["one bad sector"]},
)
RUNNING = msgspec.structs.replace(
    ENDED,
    state=State.RUNNING,
    percent=42,
    done=430 * 1024**2,
    version=0,
    ended=None,
    result=None,
    rate=100 * 1024**2,
    eta_s=6.0,
    phase="partition",
    plan={"type": "planned", "disk": {"path": "/dev/sda"}, "steps": ["a", "b"]},
)
FAILED = msgspec.structs.replace(
    ENDED, id="8", node="n02", state=State.FAILED, code="corrupt", reason="sda1 is\ndamaged", result={"exit_code": 7}
)
LOST = msgspec.structs.replace(ENDED, id="9", state=State.LOST, code="lost", reason="silent", result=None)
STOPPED = msgspec.structs.replace(
    ENDED, id="10", state=State.CANCELLED, code="cancelled", reason="on request", result=None
)


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    monkeypatch.setenv("LITHO_SOCKET", str(tmp_path / "litho.sock"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("litho_controller.cli.live.EVERY_S", 0.01)
    monkeypatch.setattr("socket.gethostname", lambda: "mn")
    with CannedDaemon(tmp_path / "litho.sock") as running:
        yield running


@pytest.fixture
def litho(daemon, capfd):
    """Run a command line; answers (exit code, standard output, standard error)."""

    def call(line):
        code = run(shlex.split(line))
        out, err = capfd.readouterr()
        return code, out, err

    return call


# ---------------------------------------------------------------- nodeset, nodestat


def answers(*lines):
    return api.NodesetAnswer(nodes=tuple(lines))


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("image=golden", {"state": "image", "image": "golden"}),
        ("image", {"state": "image"}),
        ("osimage=golden:2", {"state": "osimage", "image": "golden:2"}),
        ("boot", {"state": "boot"}),
        ("stat", {"state": "stat"}),
        (
            "image=g --disk sda --engine partimage --compress gzip --level 6 --then poweroff --on-dirty raw"
            " --on-bad-sector continue --skip-unknown --allow removable --allow held --label a=b=c --label d=",
            {
                "state": "image",
                "image": "g",
                "job": {
                    "disk": "sda",
                    "engine": "partimage",
                    "compress": "gzip",
                    "level": 6,
                    "then": "poweroff",
                    "on_dirty": "raw",
                    "on_bad_sector": "continue",
                    "skip_unknown": True,
                    "allow": ["removable", "held"],
                    "labels": {"a": "b=c", "d": ""},
                },
            },
        ),
        (
            "osimage=g --fit grow --disk serial=X --on-dirty raw",
            {"state": "osimage", "image": "g", "job": {"fit": "grow", "disk": "serial=X", "on_dirty": "raw"}},
        ),
    ],
)
def test_nodeset_sends_what_was_asked(daemon, litho, line, sent):
    daemon["POST /v1/nodeset"] = answers(api.NodesetLine(node="n01", text="image golden"))
    assert litho(f"nodeset n01,-n02 {line}") == (0, "n01: image golden\n", "")
    body = msgspec.convert(daemon.requests[0].body, api.NodesetRequest)
    assert body == msgspec.convert({"range": "n01,-n02"} | sent, api.NodesetRequest)


def test_nodeset_tells_the_error_of_one_node_as_xcat_does_and_ends_with_1(daemon, litho):
    daemon["POST /v1/nodeset"] = answers(
        api.NodesetLine(node="n01", text="install golden", task="7"),
        api.NodesetLine(node="n02", error="it has a task already", code="busy"),
    )
    assert litho("nodeset n01-n02 osimage=golden") == (
        1,
        "n01: install golden\n",
        "n02: [mn]: Error: it has a task already\n",
    )


@pytest.mark.parametrize("command", ["nodeset all,nope stat", "nodestat nope", "nodestat nope stat"])
def test_unknown_nodes_are_told_with_xcats_words(daemon, litho, command):
    unknown = NotFoundError("Invalid nodes and/or groups in noderange: nope", code="noderange")
    daemon["POST /v1/nodeset"] = unknown
    daemon["GET /v1/nodestat"] = unknown
    assert litho(command) == (1, "", "Error: Invalid nodes and/or groups in noderange: nope\n")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nodeset n01 imaginary=x", "Invalid argument: 'imaginary=x'"),
        ("nodeset n01 image=", "Invalid argument: 'image='"),
        ("nodeset n01 osimage", "Invalid argument: 'osimage'"),
        ("nodeset n01 osimage=../etc", "../etc"),
        ("nodeset n01 boot --disk sda", "--disk has no meaning with boot"),
        ("nodeset n01 stat --watch", "--watch has no meaning with stat"),
        ("nodeset n01 osimage=g --label a=b --compress zstd", "--compress, --label has no meaning with osimage"),
        ("nodeset n01 image=g --fit grow", "--fit has no meaning with image"),
        ("nodeset n01 image=g --compress gzip --level 10", "--level 10 is more than gzip knows"),
        ("nodeset n01 image=g --label owner", "the label 'owner' is not KEY=VALUE"),
        ("nodeset n01 image=g --engine dd", "'dd' is not one of"),
        ("nodeset n01", "Missing argument 'STATE'"),
        ("nodestat", "Missing argument 'NODERANGE'"),
        ("nodestat n01 start", "Invalid argument: 'start'"),
        ("nodestat ^/no/such/file", "cannot read the file /no/such/file"),
    ],
)
def test_a_mistake_on_an_xcat_named_command_is_one_line_and_1(daemon, litho, line, says):
    code, out, err = litho(line)
    assert (code, out) == (1, "")
    assert err.startswith("Error: ") and says in err and err.count("\n") == 1
    assert daemon.requests == []


def test_nodestat_prints_one_line_a_node_and_nothing_that_moves_the_cursor(daemon, litho):
    lines = (
        api.NodestatLine(node="n01", text="partimage-ng: partition 1 of 3, 42% complete"),
        api.NodestatLine(node="n02", text="evil\x1b[2J\nn03: boot"),
    )
    daemon["GET /v1/nodestat"] = api.NodestatAnswer(nodes=lines)
    assert litho("nodestat n01-n02") == (
        0,
        "n01: partimage-ng: partition 1 of 3, 42% complete\nn02: evil [2J n03: boot\n",
        "",
    )


def test_a_file_in_a_range_is_read_by_the_command_and_never_by_the_daemon(daemon, litho, tmp_path):
    (tmp_path / "list").write_text("n01\n# no\nn02-n03 racked\n")
    daemon["GET /v1/nodestat"] = api.NodestatAnswer()
    assert litho(f"nodestat ^{tmp_path}/list,-n03")[0] == 0
    assert daemon.requests[0].query == {"range": "((n01),(n02-n03)),-n03", "probe": "1"}


def test_the_xcat_names_work_as_names_of_the_program(daemon, capfd):
    daemon["GET /v1/nodestat"] = api.NodestatAnswer(nodes=(api.NodestatLine(node="n01", text="noping"),))
    assert run(["n01"], called="nodestat") == 0
    assert capfd.readouterr().out == "n01: noping\n"


# ---------------------------------------------------------------- watching


def play(daemon, task, *states):
    """Answers for GET /v1/tasks/ID: one after the other, the last again and again."""
    left = list(states)
    daemon[f"GET /v1/tasks/{task}"] = lambda _: left.pop(0) if len(left) > 1 else left[0]


def test_nodeset_watch_follows_to_the_end_with_plain_lines_when_nobody_looks(daemon, litho):
    daemon["POST /v1/nodeset"] = answers(api.NodesetLine(node="n01", text="image golden", task="7"))
    armed = msgspec.structs.replace(RUNNING, state=State.ARMED, phase="", percent=0)
    play(daemon, "7", armed, armed, RUNNING, RUNNING, ENDED)
    code, out, err = litho("nodeset n01 image=golden --watch")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "n01: image golden",
        "n01: capture golden armed",
        "n01: capture golden running: partition, 42%, 105 MB/s, 6s left",
        "n01: capture golden:3 succeeded: 1.1 GB in 10s (107 MB/s), 419 MB stored in the library",
        "n01: note: one bad sector",
    ]


def test_nodeset_watch_ends_with_1_when_one_of_them_fails(daemon, litho):
    daemon["POST /v1/nodeset"] = answers(
        api.NodesetLine(node="n01", text="image golden", task="7"),
        api.NodesetLine(node="n02", text="image golden", task="8"),
    )
    play(daemon, "7", ENDED)
    play(daemon, "8", FAILED)
    code, out, _ = litho("nodeset n01,n02 image=golden --watch")
    assert code == 1
    assert "n02: capture golden:3 failed: sda1 is damaged\n" in out


@pytest.mark.parametrize(
    ("tasks", "code"),
    [((ENDED,), 0), ((FAILED,), 7), ((LOST,), 9), ((STOPPED,), 10), ((ENDED, FAILED), 7), ((FAILED, LOST), 1)],
)
def test_task_watch_ends_with_the_code_of_what_went_wrong(daemon, litho, tasks, code):
    for task in tasks:
        play(daemon, task.id, task)
    assert litho("task watch " + " ".join(task.id for task in tasks))[0] == code


def test_watching_many_tasks_asks_for_the_list_and_not_for_each(daemon, litho):
    many = [msgspec.structs.replace(RUNNING, id=str(100 + i), node=f"n{i:02}") for i in range(20)]
    rounds = iter([many, many, []])
    daemon["GET /v1/tasks"] = lambda _: api.TaskList(tasks=tuple(next(rounds)))
    for task in many:
        play(daemon, task.id, msgspec.structs.replace(ENDED, id=task.id, node=task.node))
    code, out, _ = litho("task watch")
    assert code == 0
    assert out.count("succeeded") == 20
    assert len(daemon.requests) == 3 + 20


def test_watching_goes_on_when_the_controller_is_started_again(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("LITHO_SOCKET", str(tmp_path / "litho.sock"))
    naps = []

    def nap(_):
        naps.append(1)
        if len(naps) == 1:
            first.__exit__()
            (tmp_path / "litho.sock").unlink(missing_ok=True)
        if len(naps) == 4:
            second.__enter__()

    monkeypatch.setattr("litho_controller.cli.live.follow.__kwdefaults__", {"sleep": nap, "clock": time.monotonic})
    first, second = CannedDaemon(tmp_path / "litho.sock"), CannedDaemon(tmp_path / "litho.sock")
    first["GET /v1/tasks/7"] = RUNNING
    second["GET /v1/tasks/7"] = ENDED
    first.__enter__()
    try:
        assert run(["task", "watch", "7"]) == 0
    finally:
        second.__exit__()
    out, err = capfd.readouterr()
    assert "succeeded" in out
    assert "the tasks go on, waiting for it" in err and "answers again" in err
    assert err.count("\n") == 2


def test_a_controller_that_was_never_there_is_not_waited_for(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("LITHO_SOCKET", str(tmp_path / "litho.sock"))
    assert run(["task", "watch", "t-000007"]) == 9
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("litho: no controller answers on ") and err.count("\n") == 1


def test_a_line_that_says_the_same_as_the_last_one_is_not_printed_again(daemon, litho):
    claimed = msgspec.structs.replace(RUNNING, state=State.CLAIMED, phase="", percent=0)
    looking = msgspec.structs.replace(claimed, phase="inventory")
    play(daemon, "7", claimed, claimed, looking, ENDED)
    code, out, _ = litho("task watch 7")
    assert code == 0
    assert [line.rpartition(" ")[2] for line in out.splitlines()[:-2]] == ["claimed"]


def test_on_a_terminal_bars_move_and_the_end_stays_above_them(daemon, tmp_path):
    play(daemon, "7", RUNNING, RUNNING, ENDED)
    shown = in_terminal("task", "watch", "7")
    assert "n01 capture golden" in shown
    assert "42%" in shown and "451 MB of 1.1 GB" in shown
    assert "succeeded: 1.1 GB in 10s" in shown


def in_terminal(*words):
    """What a person would see: the program with a pseudo-terminal as its standard output."""
    program = (
        "import os, pty, sys\n"
        "code = pty.spawn([sys.executable, '-m', 'litho_controller.main', *sys.argv[1:]])\n"
        "sys.exit(os.waitstatus_to_exitcode(code))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        stdin=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "200", "TERM": "xterm"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", done.stdout)


def test_on_a_terminal_tables_are_drawn_and_foreign_words_cannot_colour_them(daemon):
    daemon["GET /v1/nodes"] = api.NodeList(nodes=(msgspec.structs.replace(N01, status="[red]evil[/red]\x1b[2J"),))
    daemon["GET /v1/tasks"] = api.TaskList(tasks=(RUNNING, FAILED))
    assert "[red]evil[/red]" in in_terminal("node", "ls")
    assert "failed: sda1 is damaged" in " ".join(in_terminal("task", "ls").split())


def test_watch_as_json_prints_only_how_it_ended(daemon, litho):
    play(daemon, "8", RUNNING, FAILED)
    code, out, err = litho("task watch 8 --json")
    assert (code, err) == (7, "")
    assert msgspec.json.decode(out, type=list[api.TaskView]) == [FAILED]


# ---------------------------------------------------------------- nodes, tasks, images, tables


def test_node_commands_send_and_print(daemon, litho):
    daemon["POST /v1/nodes"] = api.NodeList(nodes=(N01,))
    daemon["GET /v1/nodes"] = api.NodeList(nodes=(N01,))
    daemon["GET /v1/nodes/n01"] = N01
    daemon["DELETE /v1/nodes"] = api.NodeList(nodes=(N01,))
    assert litho("node add n01 --mac 52:54:00:00:00:01 --groups all,compute --arch x86_64") == (0, "defined n01\n", "")
    assert daemon.requests[-1].body == {
        "range": "n01",
        "mac": "52:54:00:00:00:01",
        "groups": ["all", "compute"],
        "arch": "x86_64",
    }
    code, out, _ = litho("node ls")
    assert code == 0
    assert out.splitlines()[0].split() == ["NODE", "GROUPS", "MAC", "ARCH", "STATE", "TASK", "ONLINE", "STATUS"]
    assert out.splitlines()[1].split() == ["n01", "all,compute", "52:54:00:00:00:01", "x86_64", "boot", "noping"]
    assert daemon.requests[-1].query == {"range": "all"}
    assert "mac     52:54:00:00:00:01" in litho("node show n01")[1]
    assert litho("node rm n01") == (0, "removed n01\n", "")
    assert daemon.requests[-1].method == "DELETE"


def test_a_table_of_a_thousand_long_cells_is_not_cut_in_a_pipe(daemon, litho):
    long = msgspec.structs.replace(N01, groups=tuple(f"group{i}" for i in range(60)), status="x" * 200)
    daemon["GET /v1/nodes"] = api.NodeList(nodes=(long,))
    out = litho("node ls")[1]
    assert ",".join(long.groups) in out and "x" * 200 in out


def test_tasks_are_listed_with_bytes_rate_and_time(daemon, litho):
    daemon["GET /v1/tasks"] = api.TaskList(tasks=(RUNNING, ENDED, FAILED))
    code, out, _ = litho("task ls --node n01 --state running --active --limit 3")
    assert code == 0
    assert daemon.requests[0].query == {"node": "n01", "state": "running", "active": "1", "limit": "3"}
    _, running, ended, failed = out.splitlines()
    assert "42  451 MB" in running and "running: partition" in running
    assert re.split(r"\s{2,}", ended.strip()) == [
        "7",
        "n01",
        "capture",
        "golden:3",
        "100",
        "1.1 GB",
        "419 MB",
        "107 MB/s",
        "10s",
        "succeeded",
    ]
    assert "failed: sda1 is damaged" in failed


def test_task_show_and_cancel(daemon, litho):
    daemon["GET /v1/tasks/7"] = RUNNING
    daemon["POST /v1/tasks/7/cancel"] = msgspec.structs.replace(RUNNING, cancel_requested=True)
    out = litho("task show 7")[1]
    assert "plan.disk.path" in out and "/dev/sda" in out and "a; b" in out
    assert litho("task cancel 7") == (0, "n01: capture golden running, cancelling\n", "")


def test_what_was_done_is_told_before_what_was_not(daemon, litho):
    for number in ("7", "9"):
        daemon[f"POST /v1/tasks/{number}/cancel"] = msgspec.structs.replace(RUNNING, id=number, cancel_requested=True)
        daemon[f"POST /v1/tasks/{number}/retry"] = msgspec.structs.replace(RUNNING, id=f"1{number}")
        daemon[f"DELETE /v1/images/golden%3A{number}"] = api.ImageList(
            images=(msgspec.structs.replace(IMAGE, version=int(number)),)
        )
    for number in ("8", "10"):
        missing = NotFoundError(f"there is no {number}", code="missing")
        for request_ in ("POST /v1/tasks/{}/cancel", "POST /v1/tasks/{}/retry", "DELETE /v1/images/golden%3A{}"):
            daemon[request_.format(number)] = missing
    errors = "litho: there is no 8\nlitho: there is no 10\n"
    cancelled = "n01: capture golden running, cancelling\n"
    assert litho("task cancel 7 8 9 10") == (3, 2 * cancelled, errors)
    again = "n01: capture golden is queued as 17\nn01: capture golden is queued as 19\n"
    assert litho("task retry 7 8 9 10") == (3, again, errors)
    assert litho("image rm golden:7 golden:8 golden:9 golden:10") == (3, "deleted golden:7\ndeleted golden:9\n", errors)
    code, out, err = litho("task cancel 7 8 --json")
    assert (code, [one["id"] for one in msgspec.json.decode(out)], err) == (3, ["7"], "litho: there is no 8\n")


HASH = "0" * 64
MANIFEST = Manifest(
    image="golden",
    version=2,
    created="2026-11-22T16:00:00Z",
    software="lithograph 0.1.0",
    node="n01",
    disk=DiskFacts(path="/dev/sda", size=8 * 1024**3, model="QEMU [red]", serial="S1"),
    disk_name="sda",
    table="dos",
    parts=(
        Part(
            number=1,
            kind="stream",
            start=1024**2,
            size=1024**3,
            fs="ext4",
            label="root",
            engine="partclone",
            used=5 * 1024**2,
            data=FileRef(file="golden.v2-sda1.partclone.zst", bytes=2 * 1024**2, sha256=HASH),
        ),
        Part(number=2, kind="swap", start=2 * 1024**3, size=1024**2, fs="swap"),
    ),
)
IMAGE = api.ImageView(
    image="golden",
    version=2,
    current=True,
    created="2026-11-22T16:00:00Z",
    used=5,
    stored=2,
    parts=2,
    node="n01",
    labels={"a": "b"},
)


def test_image_ls_and_show(daemon, litho):
    bad = api.ImageView(image="old", version=1, error="its manifest is damaged")
    daemon["GET /v1/images"] = api.ImageList(images=(IMAGE, bad))
    daemon["GET /v1/images/golden"] = MANIFEST
    daemon["GET /v1/library/health"] = Health()
    out = litho("image ls")[1]
    assert "2*" in out and "a=b" in out and "unreadable: its manifest is damaged" in out
    out = litho("image show golden")[1]
    assert "sda, 8.6 GB, QEMU [red], S1" in out and "golden.v2-sda1.partclone.zst" in out and "swap" in out
    assert msgspec.json.decode(litho("image show golden --json")[1], type=Manifest) == MANIFEST


def test_image_ls_and_show_say_what_a_scrub_found(daemon, litho):
    hurt = msgspec.structs.replace(IMAGE, damage="3 of its chunks are damaged")
    daemon["GET /v1/images"] = api.ImageList(images=(hurt,))
    daemon["GET /v1/images/golden"] = MANIFEST
    daemon["GET /v1/library/health"] = Health(
        ended=1.0, lacking={"golden.v2-sda1.chunks": "3 of its chunks are damaged", "golden.v3-sda1.chunks": "others"}
    )
    assert "damaged: 3 of its chunks are damaged" in litho("image ls")[1]
    out = litho("image show golden")[1]
    assert "3 of its chunks are damaged" in out and "others" not in out


def test_image_show_says_what_could_not_be_read_and_where(daemon, litho):
    hurt = msgspec.structs.replace(
        MANIFEST.parts[0],
        bad=(BadRange(start=4096, size=512), BadRange(start=65536, size=1024)),
        bad_bytes=4096,
        bad_places=5,
    )
    daemon["GET /v1/images/golden"] = msgspec.structs.replace(MANIFEST, parts=(hurt, MANIFEST.parts[1]))
    daemon["GET /v1/library/health"] = Health()
    out = litho("image show golden")[1]
    assert "4.1 kB of the source could not be read" in out
    rows = [line.split() for line in out[out.index("LOST AT BYTE") :].splitlines()[1:]]
    assert rows == [["1", "4096", "512"], ["1", "65536", "1024"], ["1", "and", "3", "more", "2560"]]
    daemon["GET /v1/images/golden"] = MANIFEST
    assert "LOST" not in litho("image show golden")[1]


def test_the_last_line_of_a_capture_says_how_much_could_not_be_read():
    told = live.end_lines(msgspec.structs.replace(ENDED, result={"lost": 8192, "notes": ["n"]}))
    assert told[0].endswith(" stored in the library, with 8.2 kB that could not be read")
    assert told[1:] == ["n01: note: n"]


def test_image_verify_shows_how_far_it_is_and_ends_with_7_when_something_is_damaged(daemon, litho):
    daemon["POST /v1/images/golden/verify"] = Lines(
        [{"done": 512, "total": 1024}, {"done": 1024, "total": 1024}, {"problems": []}]
    )
    code, out, err = litho("image verify golden")
    assert (code, err) == (0, "")
    assert out.splitlines() == ["verify golden: 50% of 1.0 kB", "verify golden: 100% of 1.0 kB", "golden is whole"]
    damage = [{"file": "x", "sentence": "the file x is damaged"}]
    daemon["POST /v1/images/golden%3A1/verify"] = Lines([{"problems": damage}])
    code, out, err = litho("image verify golden:1 --deep")
    assert (code, out) == (7, "the file x is damaged\n")
    assert err == "litho: golden:1 is damaged (1 of its files): use another version, or capture it again\n"
    assert msgspec.json.decode(litho("image verify golden:1 --json")[1]) == damage
    daemon["POST /v1/images/golden%3A1/verify"] = Lines(
        [{"problems": [{"file": "golden.v1-sda1.chunks", "sentence": "x"}]}]
    )
    assert litho("image verify golden:1")[2].endswith("or capture it again after litho image scrub --mend\n")


def test_image_rm_wants_a_version_or_a_clear_word(daemon, litho):
    daemon["DELETE /v1/images/golden"] = api.ImageList(images=(IMAGE,))
    daemon["DELETE /v1/images/golden%3A2"] = RefusedError("golden:2 is in use", hint="wait for task 7", code="in-use")
    code, _, err = litho("image rm golden")
    assert code == 2 and "--all-versions" in err and daemon.requests == []
    assert litho("image rm golden --all-versions") == (0, "deleted golden:2\n", "")
    assert litho("image rm golden:2") == (4, "", "litho: golden:2 is in use: wait for task 7\n")


def test_library_init_makes_a_library_once(litho, tmp_path):
    folder = tmp_path / "images"
    code, out, _ = litho(f"library init {folder}")
    assert code == 0 and out.startswith(f"{folder} is an image library with ")
    marker = (folder / ".lithograph").read_bytes()
    assert litho(f"library init {folder}")[0] == 0
    assert (folder / ".lithograph").read_bytes() == marker
    (tmp_path / "file").write_text("")
    code, _, err = litho(f"library init {tmp_path}/file")
    assert code == 6 and err.startswith("litho: ") and err.count("\n") == 1


def test_library_init_takes_a_directory_with_something_in_it_only_when_told(litho, tmp_path):
    folder = tmp_path / "full"
    (folder / "home").mkdir(parents=True)
    (folder / "home/letter.txt").write_text("dear")
    (folder / "golden.img").write_text("not ours")
    code, out, err = litho(f"library init {folder}")
    assert (code, out) == (4, "")
    assert err.startswith(f"litho: {folder} is not empty: it holds golden.img, home: ") and "--here" in err
    assert sorted(path.name for path in folder.iterdir()) == ["golden.img", "home"]
    assert litho(f"library init --here {folder}")[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == [".lithograph", "golden.img", "home"]
    assert (folder / "home/letter.txt").read_text() == "dear"
    # A library is never empty, and stays one.
    assert litho(f"library init {folder}")[0] == 0


def test_library_init_takes_a_fresh_file_system_and_what_a_crash_of_its_own_left(litho, tmp_path):
    (tmp_path / "fresh/lost+found").mkdir(parents=True)
    (tmp_path / "fresh/..lithograph.0123456789ab.part").write_text("{")
    assert litho(f"library init {tmp_path}/fresh")[0] == 0


TABLE = api.TableView(
    columns=("imagename", "profile", "osarch", "comments", "disable"),
    rows=(("golden", 'a "quoted", one', "x86_64", None, None), ("empty", "", None, "two\nlines", None)),
)


def test_tabdump_is_xcats_csv_byte_for_byte(daemon, litho):
    daemon["GET /v1/tables/osimage"] = TABLE
    daemon["GET /v1/tables"] = api.TableList(tables=("osimage", "site"))
    assert litho("tabdump osimage") == (
        0,
        '#imagename,profile,osarch,comments,disable\n"golden","a ""quoted"", one","x86_64",,\n"empty","",,"two\nlines",\n',
        "",
    )
    assert litho("tabdump") == (0, "osimage\nsite\n", "")


GOLDEN = {"osarch": "x86_64", "profile": 'a "quoted", one', "rootimgdir": "/srv/images"}


def test_lsdef_is_xcats_stanza(daemon, litho):
    daemon["GET /v1/objects/osimage"] = api.ObjectList(objects={"golden": GOLDEN, "empty": {}})
    golden = '    osarch=x86_64\n    profile=a "quoted", one\n    rootimgdir=/srv/images\n'
    assert litho("lsdef -t osimage") == (0, "empty  (osimage)\ngolden  (osimage)\n", "")
    assert daemon.requests[-1].query == {"brief": "1"}
    assert litho("lsdef -t osimage -o golden,empty") == (0, f"Object name: golden\n{golden}Object name: empty\n", "")
    assert daemon.requests[-1].query == {"names": "golden,empty"}
    daemon["GET /v1/objects/osimage"] = api.ObjectList(objects={"golden": GOLDEN})
    assert litho("lsdef -t osimage -z golden")[1] == (
        "# <xCAT data object stanza file>\n\ngolden:\n    objtype=osimage\n" + golden
    )
    assert litho("lsdef -t osimage -c golden -i osarch,pkglist") == (0, "golden: osarch=x86_64\ngolden: pkglist=\n", "")
    assert litho("lsdef -t osimage -w osarch==ppc64 -l") == (0, "", "")


def test_lsdef_names_what_is_missing_and_shows_the_rest(daemon, litho):
    daemon["GET /v1/objects/node"] = api.ObjectList(objects={"n01": {"mac": "52:54:00:00:00:01"}}, missing=("nope",))
    assert litho("lsdef n01,nope") == (
        1,
        "Object name: n01\n    mac=52:54:00:00:00:01\n",
        "Error: Could not find an object named 'nope' of type 'node'.\n",
    )
    assert litho("lsdef n01 -i nonsense") == (
        1,
        "",
        "Error: 'nonsense' is not a valid attribute name for an object type of 'node'.\n",
    )


def test_mkdef_sends_words_or_a_stanza_and_tells_what_was_there_already(daemon, litho, monkeypatch):
    daemon["POST /v1/objects"] = api.ObjectEdited(done=("n01",), created=("n01",), existed=("n02",))
    code, out, err = litho("mkdef n01-n02 groups=all mac=52:54:00:00:00:01")
    assert (code, out) == (1, "")
    assert err.startswith("Error: A definition for 'n02' already exists.\n")
    assert err.endswith(
        "Error: One or more errors occured when attempting to create or modify xCAT \nobject definitions.\n"
    )
    assert daemon.requests[-1].body == {
        "verb": "mkdef",
        "kind": "node",
        "objects": {"n01-n02": {"groups": "all", "mac": "52:54:00:00:00:01"}},
        "mode": "set",
        "force": False,
    }
    daemon["POST /v1/objects"] = api.ObjectEdited(done=("golden",))
    monkeypatch.setattr("sys.stdin", io.StringIO('golden:\n  objtype=osimage\n  profile="a=b"\n'))
    assert litho("mkdef -z -f") == (0, "1 object definitions have been created or modified.\n", "")
    assert daemon.requests[-1].body["objects"] == {"golden": {"profile": "a=b"}}
    assert daemon.requests[-1].body["kind"] == "osimage"
    daemon["POST /v1/objects"] = api.ObjectEdited(done=("n01",), created=("n01",))
    assert litho("chdef -p n01 groups=rack1")[1].splitlines()[1] == "New object definitions 'n01' have been created."
    assert daemon.requests[-1].body["mode"] == "add"
    assert litho("mkdef -t group linux -d -w os=~rh -w arch==x86")[0] == 0
    assert daemon.requests[-1].body["objects"] == {"linux": {"wherevals": "os=~rh::arch==x86", "grouptype": "dynamic"}}
    daemon["POST /v1/objects"] = api.ObjectEdited(done=("n01",), missing=("n09",))
    assert litho("rmdef n01,n09") == (
        1,
        "1 object definitions have been removed.\n",
        "Error: Could not find an object named 'n09' of type 'node'.\n",
    )


def test_nodech_is_silent_and_nodels_says_a_column_or_names_many(daemon, litho):
    daemon["POST /v1/nodech"] = api.NodeNames(nodes=("n01",))
    assert litho("nodech n01 nodetype.os=image groups,=rack1 mgt==ipmi nodetype.profile=@=x") == (0, "", "")
    assert daemon.requests[-1].body == {
        "range": "n01",
        "assign": [
            {"column": "nodetype.os", "op": "=", "value": "image"},
            {"column": "nodelist.groups", "op": ",=", "value": "rack1"},
            {"column": "nodetype.profile", "op": "=", "value": "=x"},
        ],
        "delete": [],
        "where": ["nodehm.mgt==ipmi"],
    }
    assert litho("nodech n01 nonsense") == (1, "", "Error: Malformed argument nonsense: write TABLE.COLUMN=VALUE\n")
    assert litho("nodech -d n01 mac.mac") == (1, "", "Error: . and = not valid in delete mode.\n")
    daemon["POST /v1/nodels"] = api.ColumnsAnswer(nodes=(("n01", ("image",)), ("n02", ("",))))
    assert litho("nodels all nodetype.os") == (0, "n01: image\nn02: \n", "")
    assert litho("nodels all nodetype.os -H") == (0, "n01: nodetype.os: image\nn02: nodetype.os: \n", "")
    daemon["POST /v1/nodels"] = api.ColumnsAnswer(nodes=(("n01", ()),))
    assert litho("nodels all nodetype.os==image") == (0, "n01\n", "")
    assert daemon.requests[-1].body == {"range": "all", "columns": [], "where": ["nodetype.os==image"]}


def test_gettab_tabch_and_tabrestore_speak_of_rows(daemon, litho, tmp_path):
    daemon["GET /v1/tables/site"] = api.TableView(columns=("key", "value"), rows=(("a", "1"), ("b", None)))
    assert litho("gettab key=a site.value") == (0, "1\n", "")
    assert litho("gettab -H key=b site.value") == (0, "site.value: \n", "")
    assert litho("gettab nonsense=b site.value") == (1, "", "Error: Unkown key nonsense to site\n")
    daemon["POST /v1/tables"] = api.TableList(tables=("site",))
    assert litho("tabch key=a site.value+=2") == (0, "", "")
    assert daemon.requests[-1].body["assign"] == [{"column": "site.value", "op": "+=", "value": "2"}]
    assert litho("tabch -d node=n01 hosts mac") == (0, "", "")
    assert daemon.requests[-1].body == {"keys": {"node": "n01"}, "assign": [], "delete": ["hosts", "mac"]}
    daemon["PUT /v1/tables/site"] = api.TableView(columns=())
    (tmp_path / "site.csv").write_text('#key,value\n"a","two ""quoted""\nlines"\nb,\n')
    assert litho(f"tabrestore -a {tmp_path}/site.csv") == (0, "", "")
    assert daemon.requests[-1].body == {
        "columns": ["key", "value"],
        "rows": [["a", 'two "quoted"\nlines'], ["b", None]],
        "append": True,
    }


def test_rpower_prints_what_vcl_reads(daemon, litho):
    daemon["POST /v1/power"] = api.PowerAnswer(
        nodes=(api.PowerLine(node="n01", text="on"), api.PowerLine(node="n02", error="Timeout"))
    )
    code, out, err = litho("rpower n01-n02 state")
    assert (code, out) == (1, "n01: on\n")
    assert re.fullmatch(r"n02: \[\S+\]: Error: Timeout\n", err)
    assert daemon.requests[-1].body == {"range": "n01-n02", "action": "stat"}
    daemon["GET /v1/nodestat"] = api.NodestatAnswer(nodes=(api.NodestatLine(node="n01", text="noping"),))
    assert litho("nodestat -p n01") == (0, "n01: noping(on)\n", "")


# ---------------------------------------------------------------- JSON, errors, help


@pytest.mark.parametrize(
    ("line", "request_", "answer"),
    [
        ("node ls", "GET /v1/nodes", api.NodeList(nodes=(N01,))),
        ("node show n01", "GET /v1/nodes/n01", N01),
        ("node add n01", "POST /v1/nodes", api.NodeList(nodes=(N01,))),
        ("node rm n01", "DELETE /v1/nodes", api.NodeList(nodes=(N01,))),
        ("nodeset n01 boot", "POST /v1/nodeset", answers(api.NodesetLine(node="n01", text="boot"))),
        ("nodestat n01", "GET /v1/nodestat", api.NodestatAnswer(nodes=(api.NodestatLine(node="n01", text="x"),))),
        ("task ls", "GET /v1/tasks", api.TaskList(tasks=(ENDED,))),
        ("task show 7", "GET /v1/tasks/7", ENDED),
        ("task cancel 7", "POST /v1/tasks/7/cancel", ENDED),
        ("image ls", "GET /v1/images", api.ImageList(images=(IMAGE,))),
        ("tabdump", "GET /v1/tables", api.TableList(tables=("site",))),
        ("tabdump site", "GET /v1/tables/site", TABLE),
    ],
)
def test_json_is_the_controllers_answer_a_list_as_a_list(daemon, litho, line, request_, answer):
    daemon[request_] = answer
    code, out, err = litho(f"{line} --json")
    only_list = [getattr(answer, name) for name in ("nodes", "tasks", "images", "tables") if hasattr(answer, name)]
    expected = list(only_list[0]) if only_list else [answer] if line.startswith("task cancel") else answer
    assert (code, err) == (0, "")
    assert msgspec.json.decode(out) == msgspec.json.decode(msgspec.json.encode(expected))


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("task show 99", 3, "litho: there is no task 99: see litho task ls\n"),
        ("tsk ls", 2, "litho: there is no command 'tsk': did you mean task?\n"),
        ("node lss", 2, "litho: No such command 'lss'"),
        ("task ls --limit many", 2, "see: litho task ls --help\n"),
        ("image show ../../etc/passwd", 2, "../../etc/passwd"),
        ("--config /no/such node ls", 2, "litho: settings file /no/such does not exist"),
        ("--config /no/such nodestat n01", 1, "Error: settings file /no/such does not exist"),
        ("config check /no/such", 2, "litho: settings file /no/such does not exist"),
    ],
)
def test_an_error_is_one_sentence_and_its_exit_code(daemon, litho, line, code, says):
    daemon["GET /v1/tasks/99"] = NotFoundError("there is no task 99", hint="see litho task ls")
    got, out, err = litho(line)
    assert (got, out) == (code, "")
    assert says in err and err.count("\n") == 1


def test_without_a_controller_every_command_says_how_to_start_one(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("LITHO_SOCKET", str(tmp_path / "none.sock"))
    assert run(["node", "ls"]) == 9
    assert run(["nodestat", "all"]) == 1
    err = capfd.readouterr().err.splitlines()
    assert err[0].startswith("litho: no controller answers on ") and "litho serve" in err[0]
    assert err[1].startswith("Error: no controller answers on ")


def test_what_nobody_expected_is_a_sentence_and_the_traceback_lies_in_a_file(daemon, litho, monkeypatch, tmp_path):
    def boom(_):
        raise KeyError("surprise")

    monkeypatch.setattr("litho_controller.cli.live.exit_code", boom)
    play(daemon, "7", ENDED)
    code, _, err = litho("task watch 7")
    log = tmp_path / "home/lithograph/errors.log"
    assert code == 1
    assert err == f"litho: an error that should not happen (KeyError: 'surprise'): the details are in {log}\n"
    assert "Traceback" in log.read_text()
    assert "Traceback" in litho("--debug task watch 7")[2]


def test_config_check_and_show(litho, tmp_path, monkeypatch):
    file = tmp_path / "l.toml"
    file.write_text("[http]\nport = 99\n")
    assert litho(f"config check {file}") == (0, f"{file}: good\n", "")
    assert litho(f"--config {file} config check") == (0, f"{file}: good\n", "")
    monkeypatch.setenv("LITHO_CONFIG", str(file))
    assert litho("config check") == (0, f"{file}: good\n", "")
    monkeypatch.delenv("LITHO_CONFIG")
    monkeypatch.setattr("litho_controller.config.DEFAULT_PATH", tmp_path / "none.toml")
    assert litho("config check")[1].startswith(f"{tmp_path}/none.toml: good (there is no such file")
    assert "port = 99\n" in litho(f"--config {file} config show")[1]
    assert msgspec.json.decode(litho("config show --json")[1])["http"]["port"] == 3080
    file.write_text("[http]\nprot = 99\n")
    assert litho(f"config check {file}") == (2, "", f"litho: {file}: unknown key http.prot: did you mean http.port?\n")


def commands(command=app.root, path=("litho",)):
    """Every command with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_help_has_an_example_of_the_command_itself(path, command):
    examples = re.findall(r"^ *(litho .*)$", command.help.partition("Example:")[2], flags=re.MULTILINE)
    assert examples
    for example in examples:
        assert tuple(example.split()[: len(path)]) == path
        words = shlex.split(example)[1:]
        found, context = app.root, click.Context(app.root, info_name="litho", **app.root.context_settings)
        while isinstance(found, click.Group):
            found = found.get_command(context, words.pop(0))
            assert found is not None
        found.make_context(found.name, words, parent=context, resilient_parsing=False)


def test_the_list_of_commands_says_what_the_commands_say_of_themselves():
    for name, (_, _, told) in app.COMMANDS.items():
        help_ = app.root.get_command(click.Context(app.root), name).help
        assert help_.splitlines()[0] == told


def test_help_is_quick_and_loads_neither_http_nor_tables():
    script = (
        "import sys; from litho_controller.cli.app import run; code = run(['--help']);"
        "print(sorted({'aiohttp', 'rich', 'sqlalchemy', 'aiomqtt', 'http.client'} & set(sys.modules)), code)"
    )
    begun = Moment()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"
    assert "nodestat" in done.stdout
    assert begun.took() < 2


def test_a_group_alone_shows_its_help_and_ends_with_2(litho):
    code, _, err = litho("node")
    assert code == 2 and "Usage: litho node" in err and "Example:" in err


def test_a_reader_that_has_seen_enough_is_no_error(daemon):
    daemon["GET /v1/nodestat"] = api.NodestatAnswer(nodes=(api.NodestatLine(node="n01", text="noping"),))
    reader, writer = os.pipe()
    os.close(reader)
    for words in (["nodestat", "all"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "litho_controller.main", *words],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stderr) == (141, b"")
    os.close(writer)
