"""The main job over HTTP: `nodeset --from`, a real controller and agent, disks on loop devices, no mounted library."""

import http.client
import json
import urllib.parse

import pytest
from demo.proof import prove

from litho import process
from support.loop import needs_root
from support.site import PLAIN_MIB, target
from support.webs import nginx

pytestmark = [needs_root, pytest.mark.root]


@pytest.fixture(scope="module")
def chunked(bench, plain):
    """The name of an image in chunks of the plain disk."""
    bench.captured("n01", "chunked", plain, engine="chunk")
    return "chunked"


def restored(bench, node, blank, image, **job):
    done = bench.do(node, "osimage", image, blank, **job)
    assert done.state == "succeeded", f"{done.reason}\n{bench.logs()}"
    return done


def claimed(bench, node):
    """What the agent of a node was told by the kernel command line that was made for it."""
    words = (bench.root / f"{node}.cmdline").read_text().split()
    return dict(word.split("=", 1) for word in words)


def test_a_disk_is_printed_from_the_controller_alone(bench, plain, chunked, tmp_path):
    with target(tmp_path, PLAIN_MIB + 16) as blank:
        done = restored(bench, "n02", blank, chunked, sources=("controller",), verify_target=True)
        [proven] = prove(plain, blank, tmp_path)
    assert (proven.fs, proven.clean, proven.files) == ("ext4", True, 9)
    assert all(one["read_back"] for one in done.result["receipts"])
    log = (bench.root / "agent-n02.log").read_text()
    url = claimed(bench, "n02")["litho.controller"]
    assert f" MB from {url}/v1/library" in log
    assert "mount" not in log


def test_the_sites_sources_hold_and_nodeset_wins_over_them(bench, plain, chunked, tmp_path):
    with nginx(tmp_path / "n", (bench.library, "")) as server:
        bench.ask("chdef", "-t", "site", "clustersite", f"imagelibsources={server.url()},nfs")
        try:
            with target(tmp_path, PLAIN_MIB + 16) as blank:
                restored(bench, "n03", blank, chunked)
                compared = bench.do("n03", "verify", chunked, blank)
                assert compared.state == "succeeded", compared.reason
                assert prove(plain, blank, tmp_path)[0].clean
            asked = len(server.asked())
            assert asked > 1
            log = (bench.root / "agent-n03.log").read_text()
            assert f" MB from {server.url()}" in log
            assert " MB from nfs" in log
            with target(tmp_path, PLAIN_MIB + 16) as blank:
                restored(bench, "n03", blank, chunked, sources=("nfs",))
            assert len(server.asked()) == asked
            bench.ask("chdef", "-t", "site", "clustersite", "imagelibsources=ftp://old/lib")
            with target(tmp_path, PLAIN_MIB + 16) as blank:
                done = bench.do("n03", "osimage", chunked, blank)
            assert done.state == "failed"
            assert "'ftp://old/lib' is no source of images" in done.reason
        finally:
            bench.ask("chdef", "-t", "site", "clustersite", "imagelibsources=")


def test_an_image_of_streams_and_a_capture_are_refused_over_http(bench, plain, golden, tmp_path):
    with target(tmp_path, PLAIN_MIB + 16) as blank:
        done = bench.do("n04", "osimage", golden, blank, sources=("controller",))
    assert done.state == "failed"
    assert "only images in chunks can be read" in done.reason
    assert done.result["touched"] is False
    code, _, err = bench.said("nodeset", "n04", "image=other", "--from", "controller")
    assert code == 1
    assert "--from has no meaning with image" in err
    code, _, err = bench.said("nodeset", "n04", "osimage=golden", "--from", "http://me:secret@host/lib")
    assert code == 1
    assert "must not hold an account" in err
    assert "secret" not in err


def test_a_person_restores_from_web_servers_without_any_controller(bench, plain, chunked, tmp_path):
    servers = ((bench.library, ""), (bench.library, "limit_rate 20m;"))
    with nginx(tmp_path / "n", *servers) as server, target(tmp_path, PLAIN_MIB + 16) as blank:
        words = ["restore", "--library", server.url(0), "--from", server.url(1), "--image", chunked]
        done = process.run([bench.agent_program, *words, "--disk", blank, "--yes"], ok=range(256))
        assert done.code == 0, done.err
        assert f"restore {chunked}:1 from the library {server.url(0)}" in done.out
        assert prove(plain, blank, tmp_path)[0].clean
        words[-1] = "nothing"
        done = process.run([bench.agent_program, *words, "--disk", blank, "--yes"], ok=range(256))
        assert done.code == 3
        assert "there is no image nothing at" in done.err
        capture = ["capture", "--library", server.url(0), "--image", "x", "--disk", blank]
        done = process.run([bench.agent_program, *capture], ok=range(256))
        assert done.code == 2
        assert "can only be read" in done.err


def test_the_library_is_given_out_against_the_token_of_a_task_and_nothing_else_is(bench, chunked, tmp_path):
    with target(tmp_path, PLAIN_MIB + 16) as blank:
        restored(bench, "n05", blank, chunked, sources=("controller",))
    url = urllib.parse.urlsplit(claimed(bench, "n05")["litho.controller"])

    def ask(path, **headers):
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    status, body = ask("/v1/library/.lithograph")
    assert status == 403
    assert "token" in json.loads(body)["message"]
    pack = next((bench.library / ".chunks").glob("*.pack")).name
    for proof in ("Bearer t-000001." + "A" * 43, "Bearer x", "Basic eDp5", f"Bearer t-{10**14}.{'A' * 43}"):
        assert ask(f"/v1/library/.chunks/{pack}", Authorization=proof)[0] == 403
