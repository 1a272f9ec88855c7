"""The command line against the real daemon: `litho serve` as a process, and every command as a process of its own."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from litho.library import Library, Stage
from support.images import fill, owner
from support.pace import Moment

LITHO = Path(sys.executable).parent / "litho"
READY_S = 30.0


class Site:
    """A daemon of its own, with its own folder and free ports."""

    def __init__(self, root):
        self.root = root
        self.log = root / "controller.log"
        self.library = root / "library"
        config = root / "lithograph.toml"
        config.write_text(
            f'state_dir = "{root}/state"\nlibrary = "{self.library}"\nsocket = "{root}/litho.sock"\n'
            "[http]\nport = 0\n[broker]\nport = 0\n[slots]\nlibrary = 2\n[boot]\nrequire_mac = false\n"
        )
        self.env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LITHO_CONFIG": str(config),
            "XDG_STATE_HOME": str(root),
            "LC_ALL": "C.UTF-8",
        }

    def litho(self, *words):
        """(exit code, standard output, standard error) of one command."""
        done = subprocess.run(
            [LITHO, *words],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def good(self, *words):
        """Standard output of a command that succeeds and complains of nothing."""
        code, out, err = self.litho(*words)
        assert (code, err) == (0, ""), (words, code, out, err)
        return out

    def json(self, *words):
        return json.loads(self.good(*words, "--json"))

    def start(self):
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                [LITHO, "serve"], env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            if self.litho("node", "ls", "--json")[0] == 0:
                return
            assert self.daemon.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def stop(self, number=signal.SIGTERM):
        self.daemon.send_signal(number)
        try:
            return self.daemon.wait(60)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
            raise


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = Site(tmp_path_factory.mktemp("site"))
    made.good("library", "init")
    made.start()
    yield made
    assert made.stop() == 0, made.log.read_text()


@pytest.fixture(autouse=True)
def no_nodes_left(site):
    """Each test begins with no node and no task that has not ended."""
    for task in site.json("task", "ls", "--active"):
        site.good("task", "cancel", task["id"])
    if site.json("node", "ls"):
        site.good("node", "rm", "/.*")


def publish(site, name, stream):
    """A version of an image in the site's library."""
    with Stage.open(Library.open(site.library), name, owner()) as stage:
        stage.publish(fill(stage, stream))
        return stage.version


def test_nodes_are_defined_listed_shown_and_removed(site):
    assert site.good("node", "add", "n[01-10]", "--group", "all,rack1") == (
        "defined 10 nodes: n01, n02, n03, n04, n05, n06, n07, n08, ...\n"
    )
    assert site.good("node", "add", "n01", "--mac", "52:54:00:00:00:01", "--arch", "x86_64") == "defined n01\n"
    assert [node["node"] for node in site.json("node", "ls", "n01-n05,-n03@rack1")] == ["n01", "n02", "n04", "n05"]
    one = site.json("node", "show", "n01")
    assert (one["mac"], one["arch"], one["groups"], one["state"]) == (
        "52:54:00:00:00:01",
        "x86_64",
        ["all", "rack1"],
        "boot",
    )
    assert site.good("node", "rm", "rack1,-n01") == "removed 9 nodes: n02, n03, n04, n05, n06, n07, n08, n09, ...\n"
    assert [node["node"] for node in site.json("node", "ls")] == ["n01"]
    code, _, err = site.litho("node", "show", "n02")
    assert code == 3 and err.startswith("litho: ") and err.count("\n") == 1


def test_nodeset_and_nodestat_speak_as_xcat_does(site):
    site.good("node", "add", "n01-n02", "--group", "all")
    code, out, err = site.litho("nodeset", "n01", "image=golden")
    assert (code, err) == (0, "")
    assert out.startswith("n01: image ")
    assert site.good("nodeset", "all", "stat").splitlines()[1] == "n02: boot"
    assert [line.partition(": ")[0] for line in site.good("nodestat", "all").splitlines()] == ["n01", "n02"]
    code, out, err = site.litho("nodeset", "all,nope", "stat")
    assert (code, out, err) == (1, "", "Error: Invalid nodes and/or groups in noderange: nope\n")
    code, out, err = site.litho("nodeset", "n01", "image=golden")
    assert (code, out) == (1, "")
    assert err.startswith("n01: [") and "]: Error: " in err
    code, out, err = site.litho("nodeset", "n02", "osimage=not-there")
    assert code == 1 and "Error: " in err and "not-there" in err


def test_a_task_is_listed_shown_watched_and_cancelled(site):
    site.good("node", "add", "n01")
    site.good("nodeset", "n01", "image=golden")
    (task,) = site.json("task", "ls", "--node", "n01", "--active")
    assert (task["action"], task["image"]) == ("capture", "golden")
    assert "golden" in site.good("task", "show", task["id"])
    with subprocess.Popen(
        [LITHO, "task", "watch", task["id"]], env=site.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watch:
        assert watch.stdout.readline().startswith("n01: capture golden ")
        assert site.good("task", "cancel", task["id"]) == "n01: capture golden cancelled: cancelled on request\n"
        out, err = watch.communicate(timeout=60)
    assert (watch.returncode, err) == (10, "")
    assert out.splitlines()[-1].startswith("n01: capture golden cancelled")
    assert site.litho("task", "show", "t-999999")[0] == 3


def test_ctrl_c_ends_the_watching_and_not_the_task(site):
    site.good("node", "add", "n01")
    with subprocess.Popen(
        # A run of the tests in a shell's background ignores the interrupt, and children inherit that.
        ["env", "--default-signal=INT", LITHO, "nodeset", "n01", "image=golden", "--watch"],
        env=site.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout.readline().startswith("n01: image ")
        watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        _, err = watch.communicate(timeout=60)
    assert watch.returncode == 130
    assert err == "litho: no longer watching; the tasks go on: see them with litho task ls\n"
    assert [task["node"] for task in site.json("task", "ls", "--active")] == ["n01"]


def test_watching_goes_on_while_the_controller_is_killed_and_started_again(site):
    site.good("node", "add", "n01")
    site.good("nodeset", "n01", "image=golden")
    (task,) = site.json("task", "ls", "--active")
    with subprocess.Popen(
        [LITHO, "task", "watch", task["id"]], env=site.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watch:
        watch.stdout.readline()
        site.stop(signal.SIGKILL)
        assert "the tasks go on, waiting for it" in watch.stderr.readline()
        site.start()
        assert "answers again" in watch.stderr.readline()
        site.good("task", "cancel", task["id"])
        watch.communicate(timeout=60)
    assert watch.returncode == 10


def test_images_are_listed_shown_verified_and_deleted(site):
    for number in (1, 2):
        assert publish(site, "shown", b"used blocks " * 10_000 * number) == number
    images = {(one["image"], one["version"]): one for one in site.json("image", "ls")}
    assert [images["shown", number]["current"] for number in (1, 2)] == [False, True]
    assert "shown.v2-sda1.partclone.zst" in site.good("image", "show", "shown")
    assert site.json("image", "show", "shown:1")["version"] == 1
    assert site.good("image", "verify", "shown:1", "--deep").splitlines()[-1] == "shown:1 is whole"
    part = site.library / "shown.v2-sda1.partclone.zst"
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    code, out, err = site.litho("image", "verify", "shown")
    assert code == 7
    assert out.splitlines()[-1].startswith("the file shown.v2-sda1.partclone.zst is damaged")
    assert err == "litho: shown is damaged (1 of its files): use another version, or capture it again\n"
    assert site.litho("image", "rm", "shown")[0] == 2
    assert site.good("image", "rm", "shown", "--all-versions").splitlines() == ["deleted shown:1", "deleted shown:2"]
    assert site.litho("image", "show", "shown")[0] == 3


def test_an_image_that_a_task_restores_is_not_deleted(site):
    publish(site, "busy", b"x" * 1000)
    site.good("node", "add", "n01", "--mac", "52:54:00:00:00:01")
    site.good("nodeset", "n01", "osimage=busy", "--fit", "grow")
    code, _, err = site.litho("image", "rm", "busy:1")
    assert code == 4 and "in use" in err


def test_tables_are_xcats_csv(site):
    site.good("node", "add", "n01", "--group", "rack1,all")
    lines = site.good("tabdump", "nodelist").splitlines()
    assert lines[0].startswith("#node,groups,status,")
    assert lines[1].startswith('"n01","rack1,all",,,')
    assert "osimage\n" in site.good("tabdump")
    code, out, err = site.litho("tabdump", "nothing")
    assert (code, out) == (1, "") and err.startswith("Error: ")
    assert site.litho("lsdef", "-t", "osimage", "nothing") == (
        1,
        "",
        "Error: Could not find an object named 'nothing' of type 'osimage'.\n",
    )


def test_a_range_of_thousands_of_names_from_a_file_arrives(site, tmp_path):
    names = [f"n{number:04}" for number in range(3000)]
    site.good("node", "add", "n[0000-2999]", "--group", "all")
    (tmp_path / "list").write_text("\n".join(names) + "\n")
    assert len(site.json("nodestat", f"^{tmp_path}/list")) == 3000
    assert len(site.json("node", "ls", f"all,-^{tmp_path}/list")) == 0


def test_all_of_ten_thousand_nodes_are_told_in_under_a_second(site):
    site.good("node", "add", "n[00001-10000]", "--group", "all")
    for command, lines in (("nodestat", 10_000), ("lsdef", 20_000)):
        begun = Moment()
        out = site.good(command, "all")
        took = begun.took()
        assert out.count("\n") == lines
        # The aim is one second on an idle machine (bench/controller.py); what is measured here shares it with other work.
        assert took < 4, f"{command}: {took:.2f} s"


def test_a_second_controller_on_the_same_state_is_refused_in_a_sentence(site):
    code, out, err = site.litho("serve")
    assert (code, out) == (4, "")
    assert "litho: another controller" in err and "Traceback" not in err
