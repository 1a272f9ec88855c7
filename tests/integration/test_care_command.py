"""The commands that look after a library, against a controller that runs."""

import json
from collections.abc import Iterator

import pytest
from demo.site import Site

from litho import process
from litho.library import ImageRef, Library
from litho.library.chunks import ChunkStore, scrub
from support.chunked import MB, capture, contents


class Commands:
    def __init__(self, site: Site) -> None:
        self.site = site

    def __call__(self, *words: str, ok: int = 0) -> str:
        done = process.run(self.site._argv("litho", *words), ok=(ok,), env={"LITHO_CONFIG": str(self.site.config)})
        return done.out if ok == 0 else done.err


@pytest.fixture(scope="module")
def litho(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Three versions in chunks; each has its own second half."""
    folder = tmp_path_factory.mktemp("care")
    site = Site(folder / "site")
    site.prepare()
    library = Library.create(site.library)
    data = contents(1, 4 * MB)
    for seed in (2, 3, 4):
        data[2 * MB :] = contents(seed, 2 * MB)
        (folder / "disk").write_bytes(data)
        capture(library, "golden", folder / "disk", pack_bytes=MB // 2)
    with site.controller():
        yield Commands(site)


def test_what_differs_is_said_by_partition(litho):
    told = litho("image", "diff", "golden:1", "golden:2")
    assert "by chunks" in told and told.endswith("golden:1 and golden:2 differ\n")
    found = json.loads(litho("image", "diff", "golden:2", "golden:2", "--json"))
    assert found["equal"] and found["parts"][0]["same"] > 0
    assert "no image nobody" in litho("image", "diff", "golden", "nobody", ok=3)


def test_old_versions_go_and_then_what_only_they_needed(litho):
    before = json.loads(litho("image", "stats", "--json"))
    assert [one["version"] for one in before["versions"]] == [1, 2, 3]
    assert "ALONE" in litho("image", "stats")
    assert litho("image", "prune", "golden", "--keep", "2", "--dry-run") == "would delete golden:1\n"
    assert "takes names of images" in litho("image", "prune", "--keep", "2", ok=2)
    assert litho("image", "prune", "--all", "--keep", "2") == "deleted golden:1\n"
    assert litho("image", "prune", "golden", "--keep", "2") == "nothing to delete\n"
    first = json.loads(litho("image", "gc", "--grace", "0", "--json"))
    assert first["condemned"] > 0
    litho("image", "gc", "--grace", "0")
    assert "packs stay" in litho("image", "gc", "--grace", "0")
    after = json.loads(litho("image", "stats", "--json"))
    assert after["chunks"] == before["chunks"] - before["versions"][0]["alone"]
    assert after["packs"] < before["packs"]
    assert "is whole" in litho("image", "verify", "golden:2")


def test_damage_is_found_named_and_forgotten(litho):
    assert litho("image", "scrub").endswith("every chunk is whole\n")
    library = Library.open(litho.site.library)
    index = scrub.read_index(library, library.manifest(ImageRef("golden", 3)).parts[0])
    pack = ChunkStore(library).path(index.packs[-1], "pack")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    (found,) = json.loads(_out(litho, "image", "scrub", "--json", code=7))
    assert found["pack"] == pack.stem and "golden.v3-sda1.chunks" in found["images"] and not found["mended"]
    assert "damaged: 1 of its chunks are damaged" in litho("image", "ls")
    assert "1 of its chunks are damaged" in litho("image", "show", "golden:3")
    assert "1 damaged packs and 1 partitions of images that cannot be restored" in litho("image", "stats")
    assert "forgotten" in _out(litho, "image", "scrub", "--mend", code=7)
    assert "golden.v3-sda1.chunks: 1 of its chunks are in no pack" in _out(litho, "image", "scrub", code=7)
    capture(library, "golden", litho.site.root.parent / "disk", pack_bytes=MB // 2)
    assert litho("image", "scrub").endswith("every chunk is whole\n")
    assert "all whole" in litho("image", "stats") and "damaged" not in litho("image", "ls")


def _out(litho: Commands, *words: str, code: int) -> str:
    argv = litho.site._argv("litho", *words)
    return process.run(argv, ok=(code,), env={"LITHO_CONFIG": str(litho.site.config)}).out
