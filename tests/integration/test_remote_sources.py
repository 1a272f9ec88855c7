"""Images in chunks over HTTP: a real nginx as one source or several, and what becomes of each that does not do its work."""

import random
import socket
import time
from pathlib import Path

import msgspec
import pytest

from litho.errors import CancelledError, IntegrityError, LibraryError, RefusedError
from litho.job import Job
from litho.library import ImageRef, Library, Owner, care, manifest
from litho.library.chunks import ChunkStore, gc, scrub
from litho.library.chunks.spans import PackMissingError
from litho_agent.chunk import adapter
from litho_agent.mover import WorkOrder
from litho_agent.remote.opened import opened
from litho_agent.remote.several import Several
from litho_agent.remote.web import Web, WebSource
from litho_agent.telling import Recorder
from support.chunked import MB, capture, contents, packs
from support.loop import sh
from support.webs import free_port, mirror, nginx, scripted

SIZE = 24 * MB


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> tuple[Library, bytes]:
    """A library with the image `golden`, and what it holds."""
    folder = tmp_path_factory.mktemp("remote")
    data = bytes(contents(7, SIZE, noise=0.9))
    (folder / "source").write_bytes(data)
    library = Library.create(folder / "lib")
    capture(library, "golden", folder / "source")
    return library, data


def order(*urls: str, library: str = "", image: str = "golden", ca: str = "") -> WorkOrder:
    return WorkOrder(
        job=Job(action="restore", image=image),
        library=library,
        owner=Owner(session="test"),
        sources=tuple(Web(url) for url in urls),
        ca=ca,
    )


def printed(wanted: WorkOrder, target: Path, teller: Recorder | None = None) -> Recorder:
    """Restore the image's one partition onto a file; answers what was told meanwhile."""
    teller = teller or Recorder()
    target.write_bytes(b"\xa5" * SIZE)
    with opened(wanted, teller) as library:
        [part] = library.manifest(library.resolve(ref_of(wanted))).parts
        index = adapter.ready(library, part)
        adapter.restore_part(library, part, target, index=index, cancelled=teller.cancelled)
    return teller


def ref_of(wanted: WorkOrder):
    return ImageRef(wanted.job.image, wanted.job.version)


def test_an_image_comes_from_a_web_server_alone(image, tmp_path):
    library, data = image
    with nginx(tmp_path / "n", (library.root, "")) as server:
        told = printed(order(server.url()), tmp_path / "t")
        asked = server.asked()
    assert (tmp_path / "t").read_bytes() == data
    assert told.notes[-1].startswith("read ")
    assert server.url() in told.notes[-1]
    spans = [line for line in asked if ".pack HTTP" in line and '" 206 ' in line]
    assert 3 < len(spans) < len(asked)
    assert not [line for line in asked if '" 404 ' in line]


def test_two_sources_share_the_work_and_a_mounted_library_is_one_of_them(image, tmp_path):
    library, data = image
    with nginx(tmp_path / "n", (library.root, ""), (library.root, "")) as server:
        urls = (server.url(0), server.url(1))
        told = printed(order(*urls, library=str(library.root)), tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == data
    assert [word.split(" from ")[1] for word in told.notes[-1].split(", ")] == ["nfs", *urls]
    shares = [float(word.split(" MB")[0]) for word in told.notes[-1].removeprefix("read ").split(", ")]
    assert all(shares), "each is tried"


def test_a_source_that_dies_in_the_middle_is_left_and_the_other_goes_on(image, tmp_path):
    library, data = image
    with (
        nginx(tmp_path / "n", (library.root, "limit_rate 4m;")) as lasting,
        nginx(tmp_path / "m", (library.root, "limit_rate 1m;")) as dying,
    ):

        class Killing(Recorder):
            """Ends the second server when the first has given a span: the second, slower, is in the middle of one then."""

            def cancelled(self) -> bool:
                if any(".pack HTTP" in line and " 206 64 " not in line for line in lasting.asked()):
                    dying.kill()
                return False

        told = printed(order(lasting.url(), dying.url()), tmp_path / "t", Killing())
        assert not dying.runs
    assert (tmp_path / "t").read_bytes() == data
    assert any(f"the source {dying.url()} " in note for note in told.notes), told.notes


def test_a_slow_source_is_left_in_the_middle_of_a_span(image, tmp_path):
    library, data = image
    with nginx(tmp_path / "n", (library.root, ""), (library.root, "limit_rate 40k; limit_rate_after 8k;")) as server:
        begun = time.monotonic()
        told = printed(order(server.url(0), server.url(1)), tmp_path / "t")
        took = time.monotonic() - begun
    assert (tmp_path / "t").read_bytes() == data
    [left] = [note for note in told.notes if "is left" in note]
    assert left.startswith(f"the source {server.url(1)} is left: it gave 0.0")
    assert "MB/s where another gave" in left
    assert took < 60


def test_a_source_with_other_bytes_is_left_and_named_and_the_right_ones_come_from_elsewhere(image, tmp_path):
    library, data = image
    copy = mirror(library.root, tmp_path / "copy")
    for pack in (copy / ".chunks").glob("*.pack"):
        with pack.open("r+b") as file:
            file.seek(pack.stat().st_size // 2)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 4]))
    with nginx(tmp_path / "n", (copy, ""), (library.root, "")) as server:
        told = printed(order(server.url(0), server.url(1)), tmp_path / "t")
        assert (tmp_path / "t").read_bytes() == data
        [left] = [note for note in told.notes if "is left" in note]
        assert left.startswith(
            f"the source {server.url(0)} is left for good: it gave other bytes than it should: the pack "
        )
        with pytest.raises(IntegrityError, match=f"{server.url(0)}: it gave other bytes") as caught:
            printed(order(server.url(0)), tmp_path / "t")
    assert caught.value.code == "sources-gone"
    assert caught.value.exit_code == 7


def test_servers_without_ranges_or_of_other_libraries_or_of_none_are_told_of(image, tmp_path):
    library, data = image
    other = Library.create(tmp_path / "other")
    (tmp_path / "none").mkdir()
    servers = [
        (library.root, ""),
        (library.root, "max_ranges 0;"),
        (other.root, ""),
        (tmp_path / "none", ""),
        (library.root, "location /.chunks/ { return 302 /elsewhere/; }"),
        (library.root, "location /.chunks/ { return 403; }"),
    ]
    with nginx(tmp_path / "n", *servers) as server:
        urls = [server.url(i) for i in range(len(servers))]
        told = printed(order(*urls), tmp_path / "t")
        assert (tmp_path / "t").read_bytes() == data
        said = "\n".join(told.notes)
        for i, why in (
            (1, "it sends whole files where a range was asked for: it knows no ranges"),
            (2, "it is another library than the first source"),
            (3, "there is no image library: it has no file .lithograph"),
            (4, "it points elsewhere, and that is not followed (HTTP 302)"),
            (5, "it does not let this node read (HTTP 403)"),
        ):
            assert f"the source {urls[i]} is left for good: {why}" in said
        with pytest.raises(LibraryError, match="no source of the image is left") as caught:
            printed(order(urls[1], urls[5]), tmp_path / "t")
    assert caught.value.exit_code == 6
    assert f"{urls[1]}: it sends whole files" in caught.value.message
    assert f"{urls[5]}: it does not let this node read" in caught.value.message


def test_a_mirror_that_lacks_packs_is_used_for_what_it_has(image, tmp_path):
    library, data = image
    copy = mirror(library.root, tmp_path / "copy")
    first, *_ = sorted((copy / ".chunks").glob("*.pack"))
    first.unlink()
    with nginx(tmp_path / "n", (copy, ""), (library.root, "")) as server:
        told = printed(order(server.url(0), server.url(1)), tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == data
    assert f"the source {server.url(0)} does not have the pack {first.stem}: it is read elsewhere" in told.notes


def test_an_image_of_streams_is_refused_with_a_way_out(image, tmp_path):
    library, _ = image
    copy = mirror(library.root, tmp_path / "copy")
    found = library.manifest(ImageRef("golden", 1))
    [part] = found.parts
    stream = msgspec.structs.replace(part, engine="partclone", chunk_root="", chunk_stored=0, compression="zstd")
    text = manifest.dump(msgspec.structs.replace(found, parts=(stream,)))
    (copy / "golden.v1.json").write_bytes(text)
    with (
        nginx(tmp_path / "n", (copy, "")) as server,
        pytest.raises(RefusedError, match="only images in chunks") as caught,
    ):
        printed(order(server.url()), tmp_path / "t")
    assert "add nfs to the sources" in caught.value.hint


def test_a_job_that_is_cancelled_does_not_wait_for_a_server_that_drips(image, tmp_path):
    def drip(made: socket.socket, request: str) -> None:
        made.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
        time.sleep(30)

    teller = Recorder()
    teller.stop = True
    with scripted(drip) as server:
        begun = time.monotonic()
        with pytest.raises(CancelledError):
            printed(order(server.url), tmp_path / "t", teller)
        assert time.monotonic() - begun < 20


def test_a_server_is_believed_by_its_certificate_alone(image, tmp_path):
    library, data = image
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    sh(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert),
    )
    settings = f"ssl_certificate {cert}; ssl_certificate_key {key};"
    with nginx(tmp_path / "n", (library.root, settings)) as server:
        url = server.url().replace("http:", "https:")
        printed(order(url, ca=str(cert)), tmp_path / "t")
        assert (tmp_path / "t").read_bytes() == data
        with pytest.raises(LibraryError, match="its certificate is not trusted"):
            printed(order(url), tmp_path / "t")


def test_servers_that_nobody_runs_are_given_up_after_a_while_with_the_reason_for_each(image):
    ports = [free_port(), free_port()]
    sources = [WebSource(Web(f"http://127.0.0.1:{port}")) for port in ports]
    said: list[str] = []
    several = Several(sources, note=said.append, patience_s=1.0)
    with pytest.raises(LibraryError, match="no source of the image is left") as caught:
        several.index(b"x" * 16)
    for port in ports:
        assert f"http://127.0.0.1:{port}: it cannot be reached (Connection refused)" in caught.value.message
    assert caught.value.code == "sources-gone"
    assert len(said) >= 2


def test_what_a_mirror_lacks_and_a_dead_server_has_is_not_waited_for_for_ever(image, tmp_path):
    library, _ = image
    dead = f"http://127.0.0.1:{free_port()}"
    with nginx(tmp_path / "n", (library.root, "")) as server:
        webs = [WebSource(Web(url)) for url in (server.url(), dead)]
        several = Several(webs, note=lambda _: None, patience_s=1.0)
        with pytest.raises(PackMissingError, match=r"it does not have it; .* it cannot be reached"):
            several.index(b"x" * 16)
        with pytest.raises(LibraryError, match=r"it does not have it; .* it cannot be reached") as caught:
            several.whole("missing.json", 100, bytes)
        assert caught.value.code == "sources-gone"


def test_a_marker_nested_without_end_is_none(image, tmp_path):
    library, data = image
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / ".lithograph").write_bytes(b'{"x":' + b"[" * 60_000)
    with nginx(tmp_path / "n", (tmp_path / "lib", ""), (library.root, "")) as server:
        told = printed(order(server.url(0), server.url(1)), tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == data
    assert f"the source {server.url(0)} is left for good: its file .lithograph is none" in told.notes


def test_random_servers_never_get_a_wrong_byte_onto_the_disk(image, tmp_path):
    """A server that answers anything at all beside one that is right."""
    library, data = image
    rng = random.Random(11)  # noqa: S311  the same answers each time

    def odd(made: socket.socket, request: str) -> None:
        made.sendall(
            rng.choice(
                [
                    b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
                    b"HTTP/1.1 206 Partial Content\r\ncontent-length: 9\r\ncontent-range: bytes 0-8/9\r\n\r\n123456789",
                    b"\x00" * 70_000,
                    b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
                ]
            )
        )
        made.close()

    with scripted(odd) as server, nginx(tmp_path / "n", (library.root, "")) as good:
        printed(order(good.url(), server.url), tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == data


def test_chunks_that_the_collector_moved_to_other_packs_are_found(tmp_path):
    large = bytes(contents(3, SIZE, noise=1.0))
    # A quarter of each megabyte is needed when the large image is gone.
    small = b"".join(large[at : at + MB // 4] + bytes(3 * MB // 4) for at in range(0, SIZE, MB))
    library = Library.create(tmp_path / "lib")
    (tmp_path / "a").write_bytes(large)
    (tmp_path / "b").write_bytes(small)
    capture(library, "large", tmp_path / "a")
    capture(library, "golden", tmp_path / "b")
    care.remove(library, ImageRef("large"))
    [part] = library.manifest(ImageRef("golden", 1)).parts
    named = {pack.hex() for pack in scrub.read_index(library, part).packs}
    for _ in range(3):
        gc.collect(ChunkStore(library), grace_s=0, pack_bytes=MB)
    assert named - packs(library), "a pack that the image names is gone"
    with nginx(tmp_path / "n", (library.root, "")) as server:
        printed(order(server.url()), tmp_path / "t")
        assert any(".catalog" in line for line in server.asked())
    found = (tmp_path / "t").read_bytes()
    assert all(found[at : at + MB // 4] == small[at : at + MB // 4] for at in range(0, SIZE, MB))
