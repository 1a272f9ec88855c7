"""Images of chunks in bundles: they arrive whole, share chunks with what is there, come out again the same, and bad ones leave
nothing behind."""

import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from litho import process
from litho.errors import IntegrityError, LithoError
from litho.library import ImageRef, Library
from litho.library.chunks import ChunkStore, gc
from litho.library.chunks import pack as packs
from litho.library.chunks.scrub import check_image
from litho_agent.chunk import adapter
from litho_controller.bundle import chunked
from support.bundles import BundleSite
from support.chunked import MB, capture, change, contents

SIZE = 4 * MB
ROW = {"profile": "golden", "imagetype": "linux", "provmethod": "install"}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[BundleSite]:
    """A library with two versions of an image and another one that shares packs with it."""
    async with BundleSite.open(tmp_path / "here") as site:
        disk = tmp_path / "disk"
        data = contents(1, SIZE)
        for name, seed in (("golden", 0), ("other", 5), ("golden", 7)):
            change(data, seed, 0.05 if seed else 0.0)
            disk.write_bytes(data)
            capture(site.library, name, disk)
        await site.keys(installdir=str(tmp_path / "install"))
        await site.define("golden", ROW, {})
        yield site


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[BundleSite]:
    async with BundleSite.open(tmp_path / "there") as site:
        await site.keys(installdir=str(tmp_path / "install"))
        yield site


def holds(library: Library, ref: ImageRef, wanted: bytes, at: Path) -> bool:
    """True when the image restored to a file is `wanted`, and every chunk of it can be read."""
    manifest = library.manifest(ref)
    assert check_image(library, manifest) == []
    at.write_bytes(bytes(SIZE))
    adapter.restore_part(library, manifest.parts[0], at)
    return at.read_bytes() == wanted


@pytest.mark.parametrize("ending", ["tar.zst", "tgz"])
async def test_an_image_of_chunks_travels_and_comes_out_the_same_again(
    here: BundleSite, there: BundleSite, tmp_path: Path, ending: str
) -> None:
    first, second = tmp_path / f"first.{ending}", tmp_path / f"second.{ending}"
    files = (await here.export("golden", first)).files
    assert [name for name in files if chunked.is_pack(name)] and "golden.v1-sda1.chunks" in files
    report = await there.take(first)
    assert (report.version, report.method) == (1, "image") and "left out" not in str(report.notes)
    assert holds(there.library, ImageRef("golden", 1), (tmp_path / "disk").read_bytes(), tmp_path / "restored")
    assert (
        there.library.manifest(ImageRef("golden", 1)).parts[0].chunk_root
        == here.library.manifest(ImageRef("golden", 2)).parts[0].chunk_root
    )
    assert there.leftovers() == []
    # From another library, with other packs: the same bundle, and with what an image beside it shares as well.
    await there.export("golden", second)
    assert second.read_bytes() == first.read_bytes()
    await there.take(second, rename="silver")
    assert there.library.manifest(ImageRef("silver", 1)).parts[0].chunk_stored == 0
    await there.export("golden", second, replace=True)
    assert second.read_bytes() == first.read_bytes()


async def test_what_the_library_has_is_not_stored_again_and_a_bundle_is_cut_into_packs(
    here: BundleSite, there: BundleSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked, "PACK_BYTES", MB)
    await here.export("golden:1", tmp_path / "1.tar")
    files = (await here.export("golden:2", tmp_path / "2.tar")).files
    assert len(list(filter(chunked.is_pack, files))) > 2
    await there.take(tmp_path / "1.tar")
    whole = there.library.manifest(ImageRef("golden", 1)).parts[0].chunk_stored
    await there.take(tmp_path / "2.tar", replace=True)
    added = there.library.manifest(ImageRef("golden", 2)).parts[0].chunk_stored
    assert 0 < added < whole
    assert holds(there.library, ImageRef("golden", 2), (tmp_path / "disk").read_bytes(), tmp_path / "restored")
    swept = gc.collect(ChunkStore(there.library), grace_s=0)
    assert swept.deleted == 0 and check_image(there.library, there.library.manifest(ImageRef("golden", 1))) == []


async def test_packs_of_a_bundle_are_ordinary_packs(here: BundleSite, tmp_path: Path) -> None:
    await here.export("golden", tmp_path / "golden.tar")
    process.run(["tar", "xf", tmp_path / "golden.tar", "-C", tmp_path])
    process.run(["sh", "-c", 'cd "$0" && sha256sum --quiet -c SHA256SUMS', tmp_path])
    (pack,) = (tmp_path / "chunks").iterdir()
    data = pack.read_bytes()
    packs.check_pack_header(data, bytes.fromhex(pack.stem))
    at, count = packs.PACK_HEADER, 0
    while at < len(data):
        record = packs.walk(data[at : at + packs.FRAME_HEADER], at)
        assert record is not None
        at, count = record.end, count + 1
    assert count > 15


Edit = Callable[[dict[str, bytes]], None]


def drop_pack(files: dict[str, bytes]) -> None:
    del files[next(filter(chunked.is_pack, files))]


def cut_pack(files: dict[str, bytes]) -> None:
    name = next(filter(chunked.is_pack, files))
    files[name] = files[name][:-100]


def flip_chunk(files: dict[str, bytes]) -> None:
    name = next(filter(chunked.is_pack, files))
    data = bytearray(files[name])
    data[-100] ^= 1
    files[name] = bytes(data)


def lie_about_the_hash(files: dict[str, bytes]) -> None:
    """A frame that is whole, under the name of another chunk: what a stranger would want to have in everybody's library."""
    name = next(filter(chunked.is_pack, files))
    data = files[name]
    one = packs.walk(data[packs.PACK_HEADER :][: packs.FRAME_HEADER], packs.PACK_HEADER)
    assert one is not None
    other = packs.walk(data[one.end :][: packs.FRAME_HEADER], one.end)
    assert other is not None
    head = packs.frame_header(one._replace(digest=other.digest))
    files[name] = data[: packs.PACK_HEADER] + head + data[packs.PACK_HEADER + packs.FRAME_HEADER :]


def add_strange_chunk(files: dict[str, bytes]) -> None:
    name = next(filter(chunked.is_pack, files))
    data = files[name]
    one = packs.walk(data[packs.PACK_HEADER :][: packs.FRAME_HEADER], packs.PACK_HEADER)
    assert one is not None
    files[name] = data + packs.frame_header(one._replace(digest=b"\1" * 32)) + data[one.offset + 48 : one.end]


def another_pack(files: dict[str, bytes]) -> None:
    name = next(filter(chunked.is_pack, files))
    files["chunks/" + "0" * 32 + ".pack"] = files.pop(name)


def damage_index(files: dict[str, bytes]) -> None:
    files["golden.v1-sda1.chunks"] = files["golden.v1-sda1.chunks"][:-1] + b"\0"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (drop_pack, "lacks chunks"),
        (cut_pack, "is no pack of chunks"),
        (flip_chunk, "stored bytes have changed"),
        (lie_about_the_hash, "has a chunk that no partition|hash is not what|bytes instead of"),
        (add_strange_chunk, "no partition of the image needs"),
        (another_pack, "another file than its name|damaged at its beginning"),
        (damage_index, "not what the image's manifest says"),
    ],
)
async def test_chunks_that_are_not_what_the_bundle_says_leave_no_image_behind(
    here: BundleSite, there: BundleSite, tmp_path: Path, edit: Edit, words: str
) -> None:
    await here.export("golden", tmp_path / "golden.tar")
    with tarfile.open(tmp_path / "golden.tar") as tar:
        files = {one.name: tar.extractfile(one).read() for one in tar.getmembers()}  # type: ignore[union-attr]
    edit(files)
    # A stranger can make the sums anew; it is the chunks' own hashes that hold.
    total = sum(len(data) for name, data in files.items() if name != "SHA256SUMS")
    sums = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items() if name != "SHA256SUMS"
    )
    head = [line for line in files["SHA256SUMS"].decode().splitlines() if line.startswith("#")]
    old = sum(int(word) for line in head for word in line.split() if word.isdigit() and int(word) > 1000)
    files["SHA256SUMS"] = ("\n".join(head).replace(str(old), str(total)) + "\n" + sums).encode()
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(LithoError, match=words) as caught:
        await there.take(tmp_path / "bad.tar")
    assert isinstance(caught.value, IntegrityError)
    assert there.library.versions("golden") == [] and await there.row("osimage", "golden") == {}
    assert there.leftovers() == []
    # What was stored on the way is needed by nobody, and the collector takes it.
    store = ChunkStore(there.library)
    for _ in range(3):
        gc.collect(store, grace_s=0)
    listing = store.listing()
    assert not (listing.pack | listing.live | listing.unfinished)
    # The good one still goes in.
    await there.take(tmp_path / "golden.tar")
    assert check_image(there.library, there.library.manifest(ImageRef("golden", 1))) == []


async def test_a_chunk_that_is_gone_or_damaged_makes_no_bundle(here: BundleSite, tmp_path: Path) -> None:
    store = ChunkStore(here.library)
    # In every pack: which of them a chunk is read from, when two have it, is not said.
    stored = [store.path(pack, "pack") for pack in store.listing().pack]
    for path in stored:
        data = bytearray(path.read_bytes())
        data[-50] ^= 1
        path.write_bytes(data)
    with pytest.raises(IntegrityError, match="stored bytes have changed"):
        for name in ("golden:1", "golden:2"):
            await here.export(name, tmp_path / "golden.tar", replace=True)
    for path in stored:
        path.unlink()
    with pytest.raises(LithoError):
        for name in ("golden:1", "golden:2"):
            await here.export(name, tmp_path / "golden.tar", replace=True)
    assert [name for name in os.listdir(tmp_path) if name.startswith(".golden")] == []  # noqa: PTH208 - hidden files
