"""Every engine with every file system that it saves: restored over foreign bytes, all used blocks are equal, fsck is content."""

import contextlib
from pathlib import Path

import pytest

from litho.errors import RefusedError
from litho.job import EngineName
from litho_agent.engines import Extent, Source, choose_for, program_version, tail, used_bytes, used_extents
from support import filesystems
from support.filesystems import CASES, MIB
from support.loop import loop_disk, needs_root, sh
from support.transfers import save

pytestmark = needs_root


def same(first: Path, second: Path, extents: tuple[Extent, ...]) -> bool:
    """True when all bytes of `extents` are equal on both devices."""
    with first.open("rb") as one, second.open("rb") as two:
        for extent in extents:
            one.seek(extent.start)
            two.seek(extent.start)
            left = extent.size
            while left:
                step = min(left, MIB)
                if one.read(step) != two.read(step):
                    return False
                left -= step
    return True


@pytest.mark.parametrize(("variant", "asked", "engine_name", "size"), CASES, ids=lambda value: str(value) or "default")
def test_a_partition_comes_back(variant: str, asked: EngineName, engine_name: str, size: int, tmp_path: Path) -> None:
    with (
        loop_disk(tmp_path / "source.img", size=size * MIB) as source_disk,
        loop_disk(tmp_path / "target.img", size=(size + 8) * MIB) as target,
    ):
        filesystems.make(variant, source_disk)
        filesystems.fill(variant, source_disk, tmp_path)
        fs = sh("blkid", "-p", "-o", "value", "-s", "TYPE", source_disk).strip()
        assert fs == filesystems.blkid_name(variant)
        engine = choose_for(source_disk, fs, asked)
        assert engine.name == engine_name
        assert program_version(engine)
        mapped = used_extents(source_disk, fs)
        used = used_bytes(source_disk, fs)
        assert used <= size * MIB
        assert (used > 0) == (mapped is not None)

        source = Source(device=source_disk, fs=fs, size=size * MIB, used=used)
        saved, stored = save(engine, source, tmp_path / "stream")
        assert saved.file_bytes == stored.path.stat().st_size
        left_out = engine.tail(fs)
        last = tail.read(source_disk, size * MIB, left_out) if left_out else b""

        filesystems.blank(target)
        restored = stored.restore(engine, target, fs)
        assert restored.stream_bytes == saved.stream_bytes
        if last:
            tail.write(target, size * MIB, last)
        whole = (Extent(0, size * MIB),)
        assert same(source_disk, target, whole if engine.name == "raw" else mapped or ())
        if fs in filesystems.CHECK:
            with _cut(tmp_path, size) as checked:
                filesystems.check(fs, checked)


def _cut(folder: Path, size: int) -> contextlib.AbstractContextManager[Path]:
    """The target as large as the source was: some checkers look at the last sector of the device."""
    image = folder / "target.img"
    cut = folder / "cut.img"
    with image.open("rb") as file, cut.open("wb") as copy:
        left = size * MIB
        while left:
            left -= copy.write(file.read(min(left, MIB)))
    return loop_disk(cut)


def test_an_f2fs_on_large_sectors_which_partclone_cannot_read_is_taken_block_by_block(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=128 * MIB, sector_size=4096) as disk:
        filesystems.make("f2fs", disk)
        assert choose_for(disk, "f2fs").name == "raw"
        assert used_extents(disk, "f2fs") is None
        with pytest.raises(RefusedError, match="partclone cannot save the file system f2fs on sectors of 4096 bytes"):
            choose_for(disk, "f2fs", "partclone")
