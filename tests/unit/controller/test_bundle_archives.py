"""The readers and writers of archives, held against the programs that everybody has: tar, cpio, gzip, xz, zstd, unsquashfs."""

import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from litho import process
from litho.errors import IntegrityError, LithoError, RefusedError
from litho_controller.bundle import cpio, rootimg, tarread, tarwrite
from litho_controller.bundle.limits import BUNDLE, TREE, Limits
from litho_controller.bundle.packed import PlainReader, packing
from support.bundles import files_below, small_tree

Listing = list[tuple[str, str, int, bytes]]

PACK: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}
UNPACK = {"gzip": ("gzip", "-dc"), "xz": ("xz", "-dc"), "zstd": ("zstd", "-q", "-dc"), "none": ("cat",)}


def listed(path: Path, limits: Limits = BUNDLE) -> Listing:
    found = []
    with PlainReader(path, limits) as source:
        for entry, body in tarread.entries(source, limits):
            data = b""
            while piece := body.read(700):
                data += piece
            found.append((os.fsdecode(entry.name).rstrip("/"), entry.kind, entry.mode, data or entry.link))
    return found


def by_python(path: Path) -> Listing:
    kinds = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hardlink"}
    with tarfile.open(path) as tar:
        found = []
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            data = file.read() if file else os.fsencode(info.linkname)
            found.append((info.name, kinds[info.type], info.mode, data))
        return found


@pytest.mark.parametrize("form", ["ustar", "gnu", "pax", "oldgnu"])
def test_what_gnu_tar_writes_is_read(tmp_path: Path, form: str) -> None:
    tree = small_tree(tmp_path / "tree")
    (tree / "dev/null").unlink()
    long = tree / ("d" * 60) / ("e" * 60)
    long.mkdir(parents=True)
    (long / "f").write_bytes(os.urandom(3000))
    if form != "ustar":
        (tree / ("n" * 150)).symlink_to("t" * 180)
    process.run(["tar", "-C", tree, f"--format={form}", "-cf", tmp_path / "a.tar", "."])
    assert listed(tmp_path / "a.tar", TREE) == by_python(tmp_path / "a.tar")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("abcdefghij/", min_size=1, max_size=180).map(lambda t: "x" + t), st.binary(max_size=2000)),
        max_size=6,
    ),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_what_python_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes]], form: int
) -> None:
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            try:
                tar.addfile(info, io.BytesIO(data))
            except ValueError:
                return  # ustar has no room for the name
    assert [(name, data) for name, _, _, data in listed(path)] == [(name.rstrip("/"), data) for name, data in files]


@pytest.mark.parametrize("kind", sorted(PACK))
def test_what_is_written_is_read_by_everybody_and_is_the_same_every_time(tmp_path: Path, kind: str) -> None:
    big = os.urandom(100_000) * 30 + b"\0" * 700_000
    paths = [tmp_path / "one.tar", tmp_path / "two.tar"]
    # In pieces of another size each time: what comes out must not tell.
    for path, size in zip(paths, (1 << 20, 77_777), strict=True):
        with path.open("wb", buffering=0) as file, tarwrite.TarWriter(file, kind) as tar:
            tar.add("manifest.cfg", b"x\n")
            tar.begin("big", len(big), executable=True)
            for at in range(0, len(big), size):
                tar.write(big[at : at + size])
            tar.add("none", b"")
            tar.add("n" * 300, b"long")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert listed(paths[0]) == [
        ("manifest.cfg", "file", 0o644, b"x\n"),
        ("big", "file", 0o755, big),
        ("none", "file", 0o644, b""),
        ("n" * 300, "file", 0o644, b"long"),
    ]
    plain = tmp_path / "plain.tar"
    with plain.open("wb") as out:
        child = process.start([*UNPACK[kind], paths[0]], stdout=out.fileno())
        assert child.wait() == 0
    assert by_python(plain) == listed(paths[0])


@pytest.mark.parametrize("kind", sorted(PACK))
def test_packing_is_told_by_content_and_a_cut_file_is_damaged(tmp_path: Path, kind: str) -> None:
    data = os.urandom(300_000)
    packed = PACK[kind](data)
    assert packing(packed[:8]) == kind
    path = tmp_path / "file"
    path.write_bytes(packed)
    with PlainReader(path, BUNDLE) as source:
        assert source.read_exactly(len(data)) == data
        assert not source.read(1)
    for cut in (len(packed) // 2, len(packed) - 3):
        path.write_bytes(packed[:cut])
        with pytest.raises(IntegrityError), PlainReader(path, BUNDLE) as source:
            source.read_exactly(len(data))
            source.read(1)


def test_several_streams_of_one_kind_after_each_other_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(lzma.compress(b"one") + b"\0" * 8 + lzma.compress(b"two"))
    with PlainReader(path, BUNDLE) as source:
        assert source.read_exactly(6) == b"onetwo"
        assert not source.read(1)


def test_a_reader_that_is_left_in_the_middle_ends_its_thread(tmp_path: Path) -> None:
    import threading

    path = tmp_path / "file"
    path.write_bytes(gzip.compress(os.urandom(20 << 20), 1))
    with PlainReader(path, BUNDLE) as source:
        source.read(10)
    assert not any(thread.name.startswith("unpack") for thread in threading.enumerate())


# ---------------------------------------------------------------- trees

PACKED_TREES = {
    "cpio.gz": "cd {tree} && find . | cpio -o -H newc --quiet | gzip > {out}",
    "cpio.xz": "cd {tree} && find . | cpio -o -H newc --quiet | xz > {out}",
    "cpio.zst": "cd {tree} && find . | cpio -o -H crc --quiet | zstd -q > {out}",
    "tar.gz": "tar -C {tree} -czf {out} .",
    "tar.xz": "tar -C {tree} -cJf {out} .",
    "tar.zst": "tar -C {tree} --zstd --format=pax -cf {out} .",
    "tar": "tar -C {tree} --format=oldgnu -cf {out} .",
    "squashfs": "mksquashfs {tree} {out} -quiet -no-progress > /dev/null",
}


@pytest.mark.parametrize("kind", sorted(PACKED_TREES))
@pytest.mark.parametrize("set_uid", [False, True])
def test_a_root_image_is_expanded_whatever_it_is_packed_as(tmp_path: Path, kind: str, set_uid: bool) -> None:
    tree = small_tree(tmp_path / "tree")
    os.chown(tree / "etc/hostname", 1234, 567)
    os.utime(tree / "etc/hostname", (86400, 86400))
    (tree / "etc").chmod(0o500)
    # The name says nothing.
    packed = tmp_path / "rootimg.gz"
    process.run(["sh", "-c", PACKED_TREES[kind].format(tree=tree, out=packed)])
    told = rootimg.expand(packed, tmp_path / "out", set_uid=set_uid)
    assert (told.kind, told.devices, bool(told.stripped)) == (kind, 1, not set_uid)
    wanted = files_below(tree)
    del wanted["dev/null"]
    mode = 0o4755 if set_uid else 0o755
    wanted["usr/bin/su"] = wanted["usr/bin/su2"] = (mode, b"su" * 3000)
    wanted["etc"] = ("dir", 0o700 if kind != "squashfs" else 0o500)
    assert files_below(tmp_path / "out") == wanted
    found = (tmp_path / "out/etc/hostname").stat()
    assert (found.st_uid, found.st_gid, found.st_mtime) == (1234, 567, 86400)
    assert (tmp_path / "out/usr/bin/su").stat().st_ino == (tmp_path / "out/usr/bin/su2").stat().st_ino


def test_a_packed_tree_is_the_same_bytes_wherever_it_lies_and_cpio_reads_it(tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "tree")
    packed = []
    for number, source in ((1, tree), (2, tmp_path / "copy")):
        out = tmp_path / f"{number}.gz"
        with out.open("wb", buffering=0) as file:
            cpio.pack(source, tarwrite.packer(file, "gzip"))
        packed.append(out.read_bytes())
        if number == 1:
            # A copy has other inode numbers.
            process.run(["cp", "-a", tree, tmp_path / "copy"])
    assert packed[0] == packed[1]
    (tmp_path / "by-cpio").mkdir()
    process.run(["sh", "-c", f"cd {tmp_path}/by-cpio && zcat ../1.gz | cpio -idm --quiet"])
    assert files_below(tmp_path / "by-cpio") == files_below(tmp_path / "tree")


def test_a_tar_of_before_posix_is_known_by_its_checksum(tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "tree")
    process.run(["tar", "-C", tree, "--exclude=./dev/null", "--format=v7", "-czf", tmp_path / "packed", "."])
    told = rootimg.expand(tmp_path / "packed", tmp_path / "out")
    assert (told.kind, told.files) == ("tar.gz", 3)


@pytest.mark.parametrize("kind", ["cpio.gz", "tar.xz", "squashfs"])
def test_limits_hold_for_every_kind(tmp_path: Path, kind: str) -> None:
    tree = small_tree(tmp_path / "tree")
    packed = tmp_path / "packed"
    process.run(["sh", "-c", PACKED_TREES[kind].format(tree=tree, out=packed)])
    few = Limits(entries=3, bytes=1 << 30, name=4096, levels=10)
    small = Limits(entries=1000, bytes=100, name=4096, levels=10)
    for number, limits in enumerate((few, small)):
        with pytest.raises(RefusedError) as caught:
            rootimg.expand(packed, tmp_path / f"out{number}", limits=limits)
        assert caught.value.code == "bundle-limit"


def test_what_is_asked_to_stop_stops(tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "tree")
    packed = tmp_path / "packed"
    process.run(["sh", "-c", PACKED_TREES["cpio.gz"].format(tree=tree, out=packed)])

    def stop() -> None:
        raise LithoError("stop")

    with pytest.raises(LithoError, match="stop"):
        rootimg.expand(packed, tmp_path / "out", stop=stop)


@pytest.mark.parametrize("key", ["size", "uid", "gid"])
@pytest.mark.parametrize("value", ["-5", "1.5", "1e3", "+1", "0x1", " 1", ""])
def test_a_size_or_owner_that_readers_could_take_for_different_numbers_is_refused(
    tmp_path: Path, key: str, value: str
) -> None:
    info = tarfile.TarInfo("file")
    info.pax_headers = {key: value}
    with tarfile.open(tmp_path / "packed", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(RefusedError, match="a number that is none"):
        listed(tmp_path / "packed")
