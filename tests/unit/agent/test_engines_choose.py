"""Which engine saves which file system."""

import pytest

from litho.errors import LibraryError, RefusedError
from litho.job import Job
from litho_agent.engines.choose import choose, named, parse_xfs_version, settled


@pytest.mark.parametrize(
    ("fs", "engine"),
    [
        ("ext2", "partclone"),
        ("ext3", "partclone"),
        ("ext4", "partclone"),
        ("xfs", "partclone"),
        ("btrfs", "partclone"),
        ("vfat", "partclone"),
        ("ntfs", "partclone"),
        ("exfat", "partclone"),
        ("f2fs", "partclone"),
        ("reiserfs", "partimage"),
        ("jfs", "raw"),
        ("crypto_LUKS", "raw"),
        ("LVM2_member", "raw"),
        ("", "raw"),
    ],
)
def test_nobody_asked_so_the_file_system_decides(fs: str, engine: str) -> None:
    assert choose(fs).name == engine


@pytest.mark.parametrize(
    ("wishes", "engine"),
    [
        ({}, "chunk"),
        ({"compress": "none"}, "chunk"),
        ({"compress": "gzip"}, "auto"),
        ({"vcl_markers": True}, "auto"),
        ({"engine": "chunk", "vcl_markers": True}, "chunk"),
        ({"engine": "partimage", "compress": "gzip"}, "partimage"),
        ({"engine": "auto"}, "auto"),
    ],
)
def test_chunks_where_nobody_asked_and_nobody_relies_on_streams(wishes: dict[str, object], engine: str) -> None:
    assert settled(Job(action="capture", image="golden", **wishes)) == engine  # type: ignore[arg-type]


def test_chunks_packed_by_gzip_are_refused() -> None:
    with pytest.raises(RefusedError, match="chunks are packed by zstd or not at all"):
        settled(Job(action="capture", image="golden", engine="chunk", compress="gzip"))


@pytest.mark.parametrize("fs", ["ext2", "ext3", "vfat", "ntfs", "reiserfs", "jfs"])
def test_partimage_on_request(fs: str) -> None:
    assert choose(fs, "partimage").name == "partimage"


@pytest.mark.parametrize("fs", ["ext4", "btrfs", "exfat", "f2fs", "crypto_LUKS", ""])
def test_partimage_is_refused_before_it_starts_where_it_would_fail(fs: str) -> None:
    with pytest.raises(RefusedError, match="partimage cannot save") as caught:
        choose(fs, "partimage")
    assert caught.value.code == "engine-cannot"
    assert "litho.engine=partimage" in caught.value.hint


def test_partimage_saves_an_xfs_of_version_4_only() -> None:
    assert choose("xfs", "partimage", xfs_version=4).name == "partimage"
    with pytest.raises(RefusedError, match="an XFS of version 5, only of version 4"):
        choose("xfs", "partimage", xfs_version=5)
    with pytest.raises(RefusedError, match="version that could not be told"):
        choose("xfs", "partimage")


def test_partclone_is_refused_for_what_it_does_not_know() -> None:
    with pytest.raises(RefusedError, match="partclone cannot save the file system reiserfs"):
        choose("reiserfs", "partclone")


def test_raw_and_partimage_ng_on_request() -> None:
    assert choose("ext4", "raw").name == "raw"
    assert choose("ext3", "partimage-ng").name == "partimage-ng"
    with pytest.raises(RefusedError):
        choose("crypto_LUKS", "partimage-ng")


def test_a_manifest_may_name_only_engines_that_are_here() -> None:
    assert named("partclone").name == "partclone"
    with pytest.raises(LibraryError, match="'ghost', which this agent does not have"):
        named("ghost")


@pytest.mark.parametrize(
    ("words", "version"),
    [
        (
            "versionnum [0xb4a5+0x18a] = V5,NLINK,DIRV2,ALIGN,LOGV2,EXTFLG,MOREBITS,ATTR2,LAZYSBCOUNT,PROJID32BIT,CRC\n",
            5,
        ),
        ("versionnum [0xb4a4+0x8a] = V4,NLINK,DIRV2,ALIGN,LOGV2,EXTFLG,MOREBITS,ATTR2,LAZYSBCOUNT,PROJID32BIT\n", 4),
        ("xfs_db: /dev/loop0 is not a valid XFS filesystem\n", 0),
        ("", 0),
    ],
)
def test_the_version_of_an_xfs_is_read(words: str, version: int) -> None:
    assert parse_xfs_version(words) == version
