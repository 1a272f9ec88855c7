"""What the controller gives out of its library over HTTP: to whom, which files, and by which names it lets nobody out of it."""

import os

import pytest
from yarl import URL

from litho.errors import NotFoundError
from litho.library import ImageRef, sources
from litho_controller.api import JobOptions
from litho_controller.tables import rows
from litho_controller.tasks import orders
from litho_controller.web import library as door_of
from litho_controller.web.app import node_app
from litho_controller.web.desk import Desk
from support.chunked import MB, capture, contents
from support.desk import lab

ID = "0123456789abcdef" * 2


@pytest.fixture
async def desk(tmp_path):
    async with lab(tmp_path) as made:
        await made.define("n01", "n02")
        (tmp_path / "source").write_bytes(contents(1, 2 * MB))
        for name in ("golden", "other"):
            capture(made.library, name, tmp_path / "source")
        yield made


@pytest.fixture
async def door(desk, aiohttp_client):
    return await aiohttp_client(node_app(Desk(store=desk.store, tasks=desk.tasks, requests=desk.requests)))


async def node(desk, name, action="restore", **options):
    [line] = await desk.requests.create([name], action, ImageRef("golden"), JobOptions(**options))
    assert not line.error
    return await desk.agent(line.task)


async def get(door, name, token, **headers):
    shown = {"Authorization": f"Bearer {token}"} if token else {}
    answer = await door.get(URL(f"{sources.DOOR}/{name}", encoded=True), headers={**shown, **headers})
    return answer.status, await answer.read(), answer.headers


async def test_a_node_with_a_task_reads_its_version_and_packs_whole_or_in_ranges(desk, door):
    token = (await node(desk, "n01")).order.library_token
    root = desk.library.root
    for name in (".lithograph", "golden.json", "golden.v1.json", "golden.v1-sda1.chunks"):
        assert (await get(door, name, token))[:2] == (200, (root / name).read_bytes()), name
    pack = next((root / ".chunks").glob("*.pack"))
    status, body, headers = await get(door, f".chunks/{pack.name}", token, Range="bytes=100-1099")
    assert (status, body) == (206, pack.read_bytes()[100:1100])
    assert headers["Content-Range"] == f"bytes 100-1099/{pack.stat().st_size}"
    assert (await get(door, f".chunks/{pack.stem}.idx", token))[0] == 200
    open_now = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - no paths, a count
    for _ in range(20):
        await get(door, "golden.json", token, Range="bytes=0-3")
        await get(door, "golden.json", token, **{"If-None-Match": "*"})
    assert len(os.listdir("/proc/self/fd")) <= open_now + 2  # noqa: PTH208 - as above


async def test_nothing_else_is_given_out(desk, door, tmp_path):
    token = (await node(desk, "n01")).order.library_token
    root = desk.library.root
    (tmp_path / "secret").write_text("secret")
    (root / "golden.v1-sda9.chunks").symlink_to(tmp_path / "secret")
    (root / ".chunks" / f"{ID}.pack").symlink_to(tmp_path / "secret")
    (root / ".chunks" / f"{ID}.idx").mkdir()
    os.mkfifo(root / "golden.v1-sda8.chunks")
    (root / "golden.v1-sda1.partclone.zst").write_text("a stream")
    for name in (
        *("other.json", "other.v1.json", "golden.v2.json", "golden.v1.json.part", "golden.v1-sda1.partclone.zst"),
        *(
            "golden.v1-sda9.chunks",
            "golden.v1-sda8.chunks",
            f".chunks/{ID}.pack",
            f".chunks/{ID}.idx",
            ".chunks/gc.lock",
        ),
        *("", ".chunks", ".chunks/", "..", "%2e%2e/secret", ".chunks/%2e%2e%2fgolden.json", ".hooks/x", "secret%00"),
        *("%2fetc%2fpasswd", "x" * 3000),
    ):
        status, body, _ = await get(door, name, token)
        assert status == 404, name
        assert body != b"secret"


async def test_only_the_token_of_a_task_that_reads_and_has_not_ended_opens_it(desk, door):
    agent = await node(desk, "n01")
    token = agent.order.library_token
    proof = token.partition(".")[2]
    for wrong in ("", "x", proof, token[:-1], token + "A", f"t-000002.{proof}", f"t-999999999.{proof}"):
        assert (await get(door, "golden.json", wrong))[0] == 403, wrong
    capturing = await node(desk, "n02", "capture")
    assert not capturing.order.library_token
    assert (await get(door, "golden.json", token))[0] == 200
    await agent.run()
    assert (await get(door, "golden.json", token))[0] == 403
    assert token not in repr(agent.order)


async def test_the_order_says_the_sites_sources_and_the_job_its_own(desk):
    async with desk.store.write() as conn:
        await rows.put(conn, "site", orders.SOURCES_KEY, {"value": "nfs, http://10.0.0.5/lib"})
    order = (await node(desk, "n01", sources=("controller",))).order
    assert order.sources == ("nfs", "http://10.0.0.5/lib")
    assert order.job.sources == ("controller",)
    capturing = (await node(desk, "n02", "capture")).order
    assert not capturing.sources
    assert not capturing.job.sources


@pytest.mark.parametrize(
    ("name", "may"),
    [
        (".lithograph", True),
        ("golden.json", True),
        ("golden.v3.json", True),
        ("golden.v3-sda.sfdisk", True),
        ("golden.v3-sda.head", True),
        ("golden.v3-sda2-lv1.chunks", True),
        ("golden.v3-job.log", True),
        ("golden.v2.json", False),
        ("golden-2.v3.json", False),
        ("golden.v3.json.part", False),
        ("golden.v3-sda1.raw", False),
        ("golden.img.capturedone", False),
        ("../golden.v3.json", False),
    ],
)
def test_the_files_of_one_version_are_told_from_all_others(name, may):
    assert door_of.may_read(name, "golden", 3) is may


def test_a_library_whose_directory_of_chunks_is_a_link_gives_nothing_out(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / f"{ID}.pack").write_text("x")
    (tmp_path / ".chunks").symlink_to(tmp_path / "real")
    with pytest.raises(NotFoundError):
        door_of.opened(tmp_path, f"{ID}.pack", ".chunks")
    file = door_of.opened(tmp_path, f"{ID}.pack", "real")
    assert os.read(file.fd, 9) == b"x"
    file.close()
    file.close()
