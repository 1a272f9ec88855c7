"""Bundles that nobody means well with. `python tests/support/hostile.py DIR` writes them as files: the corpus in
tests/corpus/bundles.

Each is a bundle that would be imported but for one thing. They are kept as files, too, so that what they are does not
change with the libraries that made them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import struct
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import zstandard

Members = list[tuple[tarfile.TarInfo, bytes]]

INSTALL = b"name Evil\nos rhels5.4\narch x86_64\nprofile evil\nmethod install\ntemplate t.tmpl\nmedia required\n"
NETBOOT = (
    b"name Evil\nos rhels5.4\narch x86_64\nprofile evil\nmethod netboot\n"
    b"initrd initrd.gz\nkernel kernel\nrootimg rootimg.gz\n"
)
TMP = "/tmp"  # noqa: S108 - nothing may be written there, and a test looks


def info(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for key, value in fields.items():
        setattr(made, key, value)
    return made, data


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for one, data in members:
            made.addfile(one, io.BytesIO(data))
    return out.getvalue()


def tgz(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return gzip.compress(tar(*members), 6, mtime=0)


def install(*more: tuple[tarfile.TarInfo, bytes], extra: bytes = b"", text: bytes = INSTALL) -> bytes:
    return tgz(info("manifest.cfg", text + extra), info("t.tmpl", b"template"), *more)


def newc(*entries: tuple[str, int, bytes], trailer: bool = True) -> bytes:
    """A cpio archive: (name, mode, data)."""
    out = b""
    for name, mode, data in (*entries, *([("TRAILER!!!", 0, b"")] if trailer else [])):
        fields = [1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return out


def netboot(rootimg: bytes, *more: tuple[tarfile.TarInfo, bytes], extra: bytes = b"") -> bytes:
    return tgz(
        info("manifest.cfg", NETBOOT + extra),
        info("kernel", b"k"),
        info("initrd.gz", b"i"),
        info("rootimg.gz", rootimg),
        *more,
    )


def raw_header(name: bytes, size: bytes, kind: bytes = b"0", link: bytes = b"") -> bytes:
    """A tar header whose size field is whatever one likes."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:124] = b"0000000\0" * 2
    block[124:136] = size.ljust(12, b"\0")
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block[:148] + b" " * 8 + block[156:])
    return bytes(block)


def sums_of(members: Members, **wrong: str) -> bytes:
    return "".join(
        f"{wrong.get(one.name.replace('.', '_'), hashlib.sha256(data).hexdigest())}  {one.name}\n"
        for one, data in members
    ).encode()


def xcat(xml: bytes, *more: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return tgz(info("Evil/manifest.xml", xml), info("Evil/t.tmpl", b"template"), *more)


XML = (
    b"<xcatimage><osimage><imagename>Evil</imagename><osvers>rhels5.4</osvers><osarch>x86_64</osarch><profile>evil</profile>"
    b"<provmethod>install</provmethod></osimage><linuximage><template>/install/t.tmpl</template></linuximage>%s</xcatimage>"
)


def _with_sums() -> Members:
    return [info("manifest.cfg", INSTALL), info("t.tmpl", b"template")]


def _tree(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return netboot(gzip.compress(tar(*entries), mtime=0))


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return info(name, type=kind, linkname=target)


CASES: dict[str, Callable[[], bytes]] = {
    # names
    "name-absolute": lambda: install(info("/etc/evil", b"x")),
    "name-dotdot": lambda: install(info("../../evil", b"x")),
    "name-dotdot-inside": lambda: install(info("a/../../evil", b"x")),
    "name-dot-level": lambda: install(info("a/./b", b"x")),
    "name-empty-level": lambda: install(info("a//b", b"x")),
    "name-newline": lambda: install(info("a\nb", b"x")),
    "name-escape-sequence": lambda: install(info("a\x1b[2Jb", b"x")),
    "name-not-ascii": lambda: install(info("caf\xe9", b"x")),
    "name-too-long": lambda: install(info("x/" * 2000 + "x", b"x")),
    "name-twice": lambda: install(info("t.tmpl", b"other")),
    "name-dotslash-twice": lambda: install(info("./t.tmpl", b"other")),
    # kinds
    "kind-symlink": lambda: install(_link("evil", "/etc")),
    "kind-symlink-then-through": lambda: install(_link("evil", TMP), info("evil/x", b"x")),
    "kind-hardlink": lambda: install(_link("evil", "/etc/passwd", tarfile.LNKTYPE)),
    "kind-char-device": lambda: install(info("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "kind-block-device": lambda: install(info("vda", type=tarfile.BLKTYPE, devmajor=254)),
    "kind-fifo": lambda: install(info("pipe", type=tarfile.FIFOTYPE)),
    "kind-setuid": lambda: install(info("su", b"x", mode=0o4755)),
    "kind-setgid": lambda: install(info("sg", b"x", mode=0o2755)),
    "kind-unknown": lambda: gzip.compress(raw_header(b"x", b"0", b"Q") + b"\0" * 1024, mtime=0),
    "kind-sparse": lambda: gzip.compress(raw_header(b"x", b"0", b"S") + b"\0" * 1024, mtime=0),
    # manifests
    "manifest-none": lambda: tgz(info("t.tmpl", b"x")),
    "manifest-two": lambda: install(info("manifest.cfg", INSTALL)),
    "manifest-both-forms": lambda: install(info("Evil/manifest.xml", XML % b"")),
    "manifest-two-images": lambda: tgz(info("a/manifest.xml", XML % b""), info("b/manifest.xml", XML % b"")),
    "manifest-symlink": lambda: tgz(_link("manifest.cfg", "/etc/passwd"), info("t.tmpl", b"x")),
    "manifest-unknown-key": lambda: install(extra=b"post /bin/sh\n"),
    "manifest-missing-file": lambda: tgz(info("manifest.cfg", INSTALL)),
    "manifest-names-itself": lambda: install(text=INSTALL.replace(b"t.tmpl", b"manifest.cfg")),
    "manifest-huge": lambda: install(extra=b"# " + b"x" * 70_000),
    "manifest-os-escapes": lambda: install(text=INSTALL.replace(b"rhels5.4", b"../../..")),
    # places
    "extra-outside": lambda: install(extra=b"extra t.tmpl:/etc/cron.d\n"),
    "extra-dotdot": lambda: install(extra=b"extra t.tmpl:/install/../etc\n"),
    "extra-root-itself": lambda: install(extra=b"extra t.tmpl:/\n"),
    "extra-sibling-of-root": lambda: install(extra=b"extra t.tmpl:/installation\n"),
    # headers, packing, sizes
    "tar-bad-checksum": lambda: gzip.compress(b"x" * 512 + b"\0" * 1024, mtime=0),
    "tar-size-too-large": lambda: gzip.compress(raw_header(b"t.tmpl", b"77777777777") + b"x" * 512, mtime=0),
    "tar-size-negative": lambda: gzip.compress(raw_header(b"t.tmpl", b"\xff" * 12) + b"\0" * 1024, mtime=0),
    "tar-size-no-number": lambda: gzip.compress(raw_header(b"t.tmpl", b"12x4") + b"\0" * 1024, mtime=0),
    "tar-size-base256-huge": lambda: gzip.compress(raw_header(b"t.tmpl", b"\x80" + b"\xff" * 11), mtime=0),
    "tar-directory-with-data": lambda: gzip.compress(
        raw_header(b"d/", b"1000", b"5") + b"x" * 512 + b"\0" * 1024, mtime=0
    ),
    "tar-long-name-huge": lambda: gzip.compress(raw_header(b"././@LongLink", b"77777777777", b"L"), mtime=0),
    "tar-pax-huge": lambda: gzip.compress(raw_header(b"pax", b"7777777777", b"x"), mtime=0),
    "tar-pax-damaged": lambda: gzip.compress(raw_header(b"pax", b"10", b"x") + b"99 path=x".ljust(512, b"\0"), mtime=0),
    "tar-pax-name-dotdot": lambda: install(info("ok", b"x", pax_headers={"path": "../../evil"})),
    "tar-pax-sparse": lambda: install(info("ok", b"x", pax_headers={"GNU.sparse.major": "1"})),
    "tar-pax-size-differs": lambda: install(info("ok", b"x", pax_headers={"size": "99999999999999999999999"})),
    "tar-truncated": lambda: install()[:-40],
    "tar-truncated-plain": lambda: tar(info("manifest.cfg", INSTALL), info("t.tmpl", b"x" * 5000))[:2000],
    "tar-no-end": lambda: gzip.compress(tar(info("manifest.cfg", INSTALL), info("t.tmpl", b"x"))[:2048], mtime=0),
    "tar-something-after-end": lambda: gzip.compress(
        tar(info("manifest.cfg", INSTALL), info("t.tmpl", b"x")) + tar(info("../evil", b"x")), mtime=0
    ),
    "tar-garbage-after-gzip": lambda: install() + b"garbage",
    "tar-crc-wrong": lambda: install()[:-8] + b"\0\0\0\0" + install()[-4:],
    "not-a-tar": lambda: b"#!/bin/sh\necho evil\n" * 100,
    "empty": lambda: b"",
    "empty-gzip": lambda: gzip.compress(b"", mtime=0),
    "many-entries": lambda: tgz(
        info("manifest.cfg", INSTALL), info("t.tmpl", b"x"), *(info(f"n{number}") for number in range(10_500))
    ),
    "bomb-gzip": lambda: tgz(info("manifest.cfg", INSTALL), info("t.tmpl", b"\0" * (66 << 20))),
    "bomb-xz": lambda: lzma.compress(tar(info("manifest.cfg", INSTALL), info("t.tmpl", b"\0" * (66 << 20)))),
    "bomb-zstd": lambda: zstandard.compress(tar(info("manifest.cfg", INSTALL), info("t.tmpl", b"\0" * (66 << 20)))),
    "zstd-window-huge": lambda: b"\x28\xb5\x2f\xfd\x00\xf8" + b"\0" * 64,
    # promises
    "sums-wrong": lambda: tgz(
        _with_sums()[0], info("SHA256SUMS", sums_of(_with_sums(), t_tmpl="0" * 64)), _with_sums()[1]
    ),
    "sums-wrong-at-the-end": lambda: tgz(*_with_sums(), info("SHA256SUMS", sums_of(_with_sums(), t_tmpl="0" * 64))),
    "sums-missing-file": lambda: tgz(
        _with_sums()[0], info("SHA256SUMS", sums_of([*_with_sums(), info("gone", b"x")])), _with_sums()[1]
    ),
    "sums-unlisted-file": lambda: tgz(
        _with_sums()[0], info("SHA256SUMS", sums_of(_with_sums())), _with_sums()[1], info("more", b"x")
    ),
    "sums-junk": lambda: install(info("SHA256SUMS", b"not a sum\n")),
    "sums-twice": lambda: install(info("SHA256SUMS", b"%s  t.tmpl\n" % (b"0" * 64) * 2)),
    "signature-without-sums": lambda: install(info("SHA256SUMS.sig", b"x" * 64)),
    "signature-too-short": lambda: tgz(
        _with_sums()[0], info("SHA256SUMS", sums_of(_with_sums())), info("SHA256SUMS.sig", b"x"), _with_sums()[1]
    ),
    # rows
    "rows-unknown-column": lambda: install(info("tables.json", _rows('{"colour": "red"}', "{}"))),
    "rows-other-name": lambda: install(info("tables.json", _rows('{"imagename": "other"}', "{}"))),
    "rows-contradict": lambda: install(info("tables.json", _rows('{"provmethod": "netboot"}', "{}"))),
    "rows-control-characters": lambda: install(info("tables.json", _rows('{"comments": "a\\u001b[2J"}', "{}"))),
    "rows-not-text": lambda: install(info("tables.json", _rows('{"comments": 7}', "{}"))),
    "rows-deep": lambda: install(info("tables.json", b"[" * 100_000)),
    "rows-install-is-root": lambda: install(
        info("tables.json", b'{"format":1,"installdir":"/","osimage":{},"linuximage":{}}')
    ),
    # root images
    "rootimg-is-none": lambda: netboot(b"this is no root image at all"),
    "rootimg-cpio-dotdot": lambda: netboot(gzip.compress(newc(("../evil", 0o100644, b"x")), mtime=0)),
    "rootimg-cpio-absolute": lambda: netboot(gzip.compress(newc((TMP + "/evil", 0o100644, b"x")), mtime=0)),
    "rootimg-cpio-through-link": lambda: netboot(
        gzip.compress(newc(("a", 0o120777, b"/tmp"), ("a/evil", 0o100644, b"x")), mtime=0)
    ),
    "rootimg-cpio-link-out": lambda: netboot(
        gzip.compress(
            newc(
                ("a", 0o120777, b"../../../etc"),
            ),
            mtime=0,
        )
    ),
    "rootimg-cpio-twice": lambda: netboot(gzip.compress(newc(("a", 0o100644, b"x"), ("a", 0o100644, b"y")), mtime=0)),
    "rootimg-cpio-file-over-link": lambda: netboot(
        gzip.compress(newc(("a", 0o120777, b"/tmp/evil"), ("a", 0o100644, b"y")), mtime=0)
    ),
    "rootimg-cpio-no-trailer": lambda: netboot(gzip.compress(newc(("a", 0o100644, b"x"), trailer=False), mtime=0)),
    "rootimg-cpio-size": lambda: netboot(
        gzip.compress(newc(("a", 0o100644, b"x")).replace(b"00000001", b"ffffffff", 9), mtime=0)
    ),
    "rootimg-cpio-no-number": lambda: netboot(gzip.compress(b"070701" + b"zz" * 52 + b"\0" * 512, mtime=0)),
    "rootimg-cpio-garbage-after": lambda: netboot(gzip.compress(newc(("a", 0o100644, b"x")) + b"evil", mtime=0)),
    "rootimg-tar-dotdot": lambda: _tree(info("../evil", b"x")),
    "rootimg-tar-through-link": lambda: _tree(_link("a", TMP), info("a/evil", b"x")),
    "rootimg-tar-hardlink-out": lambda: _tree(_link("a", "/etc/passwd", tarfile.LNKTYPE)),
    "rootimg-tar-hardlink-dotdot": lambda: _tree(_link("a", "../../../etc/passwd", tarfile.LNKTYPE)),
    "rootimg-tar-hardlink-of-link": lambda: _tree(_link("a", "/etc/passwd"), _link("b", "a", tarfile.LNKTYPE)),
    "rootimg-tar-owner": lambda: _tree(info("a", b"x", uid=2**32 - 1)),
    "rootimg-tar-deep": lambda: _tree(info("a/" * 200 + "x", b"x")),
    "rootimg-squashfs-damaged": lambda: netboot(b"hsqs" + struct.pack("<I", 7) + b"\xff" * 500),
    "rootimg-xz-cut": lambda: netboot(lzma.compress(newc(("a", 0o100644, b"x" * 5000)))[:-30]),
    # xCAT's form
    "xml-entities": lambda: xcat(b'<!DOCTYPE x [<!ENTITY a "b">]>' + XML % b"<media>&a;</media>"),
    "xml-external": lambda: xcat(b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + XML % b""),
    "xml-billion-laughs": lambda: xcat(
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>' + XML % b"<media>&b;</media>"
    ),
    "xml-deep": lambda: xcat(XML % (b"<extra>" * 1000 + b"</extra>" * 1000)),
    "xml-cut": lambda: xcat((XML % b"")[:-5]),
    "xml-other-root": lambda: xcat(b"<html/>"),
    "xml-kit": lambda: xcat(XML % b"<kit><k><kitdir>/etc</kitdir></k></kit>"),
    "xml-extra-outside": lambda: xcat(
        XML % b"<extra><src>/x/evil</src><dest>/etc/cron.d</dest></extra>", info("Evil/extra/evil", b"x")
    ),
    "xml-column-twice": lambda: xcat(XML.replace(b"<osvers>", b"<osvers>x</osvers><osvers>") % b""),
    "xml-name-escapes": lambda: xcat((XML % b"").replace(b"<profile>evil", b"<profile>../../evil")),
    # captured disks
    "image-without-manifest": lambda: tgz(
        info("manifest.cfg", b"name Evil\nprofile evil\nmethod image\nimage Evil.v1.json\n"),
        info("Evil.v1.json", b"{}"),
    ),
    "image-named-otherwise": lambda: tgz(
        info("manifest.cfg", b"name Evil\nprofile evil\nmethod image\nimage x.json\n"), info("x.json", b"{}")
    ),
}


def _rows(osimage: str, linuximage: str) -> bytes:
    return f'{{"format":1,"installdir":"/install","osimage":{osimage},"linuximage":{linuximage}}}'.encode()


def main(folder: Path) -> None:
    """Write every case into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in CASES.items():
        (folder / f"{name}.bundle").write_bytes(make())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
