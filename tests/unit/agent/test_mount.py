import errno
from pathlib import Path

import pytest

from litho.errors import EngineError, LibraryError, MissingProgramError, UsageError
from litho.library import Library
from litho.library.files import library_error
from litho_agent import mount
from litho_agent.mount import Directory, Export, argv, mounts, parse, require_mounted


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("/srv/images", Directory(Path("/srv/images"))),
        ("file:///srv/images", Directory(Path("/srv/images"))),
        ("file:///srv/with%20space", Directory(Path("/srv/with space"))),
        ("nfs://mgmt/install/image/x86", Export("mgmt", "/install/image/x86")),
        ("nfs://10.0.0.1:2050/images", Export("10.0.0.1", "/images", 2050)),
        ("nfs://[fd00::1]/images", Export("[fd00::1]", "/images")),
        ("nfs://[fd00::1]:2050/images", Export("[fd00::1]", "/images", 2050)),
        ("nfs://mgmt/", Export("mgmt", "/")),
    ],
)
def test_a_library_is_a_directory_or_an_export(text, where):
    assert parse(text) == where


@pytest.mark.parametrize(
    "text",
    [
        "",
        "images",
        "file://host/srv",
        "file:srv",
        "file:///a%00b",
        "/a\0b",
        "nfs://mgmt",
        "nfs:///images",
        "nfs://-o/images",
        "nfs://mgmt,rw/images",
        "nfs://mgmt/a,b",
        "nfs://mgmt/a b",
        "nfs://mgmt/../etc",
        "nfs://mgmt/a/./b",
        "nfs://mgmt/a;reboot",
        "nfs://user@mgmt/images",
        "nfs://mgmt:99999/images",
        "nfs://mgmt/images?x=y",
        "smb://mgmt/images",
        "nfs://mgmt/a\nb",
    ],
)
def test_anything_else_is_refused_with_what_may_be_written(text):
    with pytest.raises(UsageError, match="nfs://server/export") as caught:
        parse(text)
    assert caught.value.code == "bad-library"


def test_the_command_says_version_direction_and_port():
    export = Export("mgmt", "/images", 2050)
    words = [str(word) for word in argv(export, 4, Path("/mnt"), read_only=True)]
    assert words[:4] == ["mount", "-t", "nfs", "-o"]
    options = words[4].split(",")
    assert options[0] == "vers=4"
    assert {"ro", "softerr", "nolock", "nosuid", "nodev", "noexec", "port=2050"} <= set(options)
    assert words[5:] == ["mgmt:/images", "/mnt"]
    writing = str(argv(Export("[::1]", "/"), 3, Path("/mnt"), read_only=False)[4]).split(",")
    assert "rw" in writing
    assert "ro" not in writing
    assert writing[0] == "vers=3"
    assert not any(word.startswith("port=") for word in writing)


def test_the_kernels_table_tells_what_is_mounted_where(tmp_path):
    table = tmp_path / "mounts"
    table.write_text("proc /proc proc rw 0 0\nmgmt:/a /run/x nfs ro 0 0\nmgmt:/b /run/x nfs ro 0 0\n\n")
    assert mounts(Path("/run/x"), table) == 2
    assert mounts(Path("/run"), table) == 0


async def test_a_directory_is_used_where_it_lies_and_must_be_a_library(tmp_path):
    Library.create(tmp_path / "lib")
    async with mount.library(f"file://{tmp_path}/lib", read_only=False) as path:
        assert path == tmp_path / "lib"
    with pytest.raises(LibraryError, match="is not an image library"):
        async with mount.library(f"file://{tmp_path}", read_only=False):
            pass


async def test_without_the_nfs_programs_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(mount.process, "which", lambda _: None)
    with pytest.raises(MissingProgramError, match="install the package nfs-common"):
        async with mount.library("nfs://mgmt/images", read_only=True, target=tmp_path / "mnt"):
            pass


async def test_a_mount_that_fails_tells_what_both_versions_said(tmp_path, monkeypatch):
    # The real mount program, which has no server to find; only the pauses and the check for the helper are taken out.
    monkeypatch.setattr(
        mount.process, "which", lambda name: f"/usr/bin/{name}" if name == "mount.nfs" else _which(name)
    )
    monkeypatch.setattr(mount, "_PAUSE_S", 0.0)
    monkeypatch.setattr(mount, "PATIENCE_S", 0.0)
    with pytest.raises(LibraryError) as caught:
        async with mount.library("nfs://127.0.0.1:1/images", read_only=True, target=tmp_path / "mnt"):
            pass
    assert caught.value.code == "library-mount"
    assert caught.value.message.startswith("the library nfs://127.0.0.1:1/images cannot be mounted (NFS 4: mount ended")
    assert "; NFS 3: mount ended" in caught.value.message
    assert "exports this path to this node" in caught.value.hint


_which = mount.process.which


@pytest.mark.parametrize(
    ("said", "is_away"),
    [
        ("NFS 4: mount ended with exit code 32 (mount.nfs: Connection refused)", True),
        ("NFS 4: mount ended with exit code 32 (mount.nfs: Connection timed out)", True),
        ("NFS 4: mount ended with exit code 32 (mount.nfs: No route to host)", True),
        ("NFS 4: mount did not end within 60 s", True),
        ("NFS 4: mount ended with exit code 32 (mount.nfs: access denied by server while mounting mgmt:/images)", False),
        ("NFS 4: mount ended with exit code 32 (mount.nfs: mounting mgmt:/images failed: No such file)", False),
        ("NFS 4: mount ended with exit code 32 (mount.nfs: Protocol not supported)", False),
    ],
)  # fmt: skip
def test_a_server_that_is_not_there_is_told_from_one_that_says_no(said: str, is_away: bool):
    assert mount.away(said) is is_away


async def test_a_server_that_comes_back_within_the_time_is_mounted(tmp_path, monkeypatch):
    tries = []

    async def run(words):
        tries.append(words[4])
        if len(tries) < 15:
            raise EngineError("mount ended with exit code 32 (mount.nfs: Connection refused)")

    monkeypatch.setattr(mount, "_run", run)
    monkeypatch.setattr(mount, "_PAUSE_S", 0.0)
    monkeypatch.setattr(mount.process, "which", lambda name: name)
    await mount._mount(Export("mgmt", "/images"), tmp_path / "mnt", read_only=True)
    assert len(tries) == 15


async def test_a_server_that_says_no_is_asked_three_times(tmp_path, monkeypatch):
    tries = []

    async def run(words):
        tries.append(words)
        raise EngineError("mount ended with exit code 32 (mount.nfs: access denied by server)")

    monkeypatch.setattr(mount, "_run", run)
    monkeypatch.setattr(mount, "_PAUSE_S", 0.0)
    monkeypatch.setattr(mount.process, "which", lambda name: name)
    with pytest.raises(LibraryError, match="access denied by server"):
        await mount._mount(Export("mgmt", "/images"), tmp_path / "mnt", read_only=True)
    assert len(tries) == 2 * mount.ROUNDS


TARGET = Path("/run/lithograph/library")
ROWS = {
    "nothing": "proc /proc proc rw 0 0\n",
    "nfs": "mgmt:/srv/images /run/lithograph/library nfs4 rw,softerr 0 0\n",
    "root": "mgmt:/ /run/lithograph/library nfs rw 0 0\n",
    "memory": "tmpfs /run/lithograph/library tmpfs rw 0 0\n",
    "other": "mgmt:/srv/other /run/lithograph/library nfs4 rw 0 0\n",
    "blank": "mgmt:/srv/my\\040images /run/lithograph/library nfs4 rw 0 0\n",
}


@pytest.mark.parametrize(
    ("path", "rows"),
    [
        ("/srv/images", "nfs"),
        ("/srv/images/", "nfs"),
        ("/", "root"),
        ("/srv/my images", "blank"),
    ],
)
def test_an_export_that_the_kernel_has_mounted_there_is_the_library(path, rows):
    require_mounted(Export("mgmt", path), TARGET, ROWS["nothing"] + ROWS[rows])


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (("nothing",), "nothing is mounted there"),
        (("memory",), "tmpfs is there"),
        (("nfs", "memory"), "tmpfs is there"),
        (("other",), "mgmt:/srv/other is there"),
        (("root",), "mgmt:/ is there"),
    ],
)
def test_anything_else_that_is_seen_there_is_refused_before_a_byte_is_written(rows, told):
    with pytest.raises(LibraryError, match=told) as caught:
        require_mounted(Export("mgmt", "/srv/images"), TARGET, "".join(ROWS[row] for row in rows))
    assert caught.value.code == "library-mount"


def test_a_server_that_stays_away_ends_a_write_with_the_reason():
    told = library_error(OSError(errno.ETIMEDOUT, "Connection timed out"), TARGET)
    assert told.code == "library-gone"
    assert "its file server was away for too long" in told.message
    assert told.hint


def test_the_time_that_a_server_may_be_away_is_longer_than_a_minute_and_has_an_end():
    options = dict(
        word.partition("=")[::2] for word in argv(Export("mgmt", "/x"), 4, TARGET, read_only=False)[4].split(",")
    )
    assert "softerr" in options, "an error of its own, which no other failure looks like"
    assert "hard" not in options
    # nfs(5), TCP: each wait is longer by one timeo than the one before it; timeo counts tenths of a second.
    waits = [int(options["timeo"]) / 10 * (number + 1) for number in range(int(options["retrans"]) + 1)]
    assert 60 < sum(waits) <= 200
