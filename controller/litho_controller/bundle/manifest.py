"""`manifest.cfg`: what a bundle holds, one `key value` a line. Pure.

    name Foo_Stateless          # the image
    os rhels5.4
    arch x86_64
    profile foo
    method netboot              # install, netboot, statelite; or image, our own: a captured disk
    initrd initrd.gz            # files are named as they are called in the bundle
    kernel kernel
    rootimg rootimg.gz
    extra motd:/install/files   # a file, and the directory it goes to; may be repeated

Order is free; blank lines and `#` comments (whole lines, or after a blank) are skipped. Everything else is an error with its line
number: an unknown key, one that stands twice, one that the method has no use for, a value that cannot be.
`docs/reference/bundle.md` is the reference.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

import msgspec

from litho.errors import LithoError, RefusedError
from litho.library import names
from litho_controller.bundle.faults import bad, shown

FILE = "manifest.cfg"
MAX_BYTES = 64 * 1024
MAX_LINE = 1024
MAX_EXTRAS = 1000

Method = Literal["install", "netboot", "statelite", "image"]

_KEYS = ("name", "os", "arch", "profile", "method", "initrd", "kernel", "rootimg", "template", "image", "media")
"""All keys that stand at most once, in the order in which they are written."""

REQUIRED: dict[str, tuple[str, ...]] = {
    "install": ("name", "os", "arch", "profile", "template", "media"),
    "netboot": ("name", "os", "arch", "profile", "initrd", "kernel", "rootimg"),
    "statelite": ("name", "os", "arch", "profile", "initrd", "kernel", "rootimg"),
    "image": ("name", "profile", "image"),
}
"""What a method must have, besides itself."""
_OPTIONAL: dict[str, tuple[str, ...]] = {
    "install": (),
    "netboot": ("media",),
    "statelite": ("media",),
    "image": ("os", "arch"),
}
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", re.ASCII)
_COMPONENT = re.compile(r"[A-Za-z0-9._+@%=,-][A-Za-z0-9._+@%=, -]{0,199}", re.ASCII)


class Extra(msgspec.Struct, frozen=True):
    """One more file, and the directory that it goes to."""

    file: str
    """Its name in the bundle."""
    path: str
    """Absolute, without a slash at the end."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What manifest.cfg says. File values are names in the bundle; empty for what the method does not have."""

    name: str
    method: Method
    profile: str
    os: str = ""
    arch: str = ""
    initrd: str = ""
    kernel: str = ""
    rootimg: str = ""
    template: str = ""
    image: str = ""
    """Method image: the library manifest of the captured disk."""
    media: bool = False
    """The operating system's installation media must be on the management node (copycds)."""
    extra: tuple[Extra, ...] = ()

    def files(self) -> list[str]:
        """Every file that the manifest names."""
        named = (self.initrd, self.kernel, self.rootimg, self.template, self.image)
        return [*(file for file in named if file), *(extra.file for extra in self.extra)]


def is_word(text: str) -> bool:
    """True when `text` may be an os, arch or profile: it becomes one level of a path."""
    return _WORD.fullmatch(text) is not None and not text.endswith(".")


def is_member(text: str) -> bool:
    """True when `text` may be the name of a file in a bundle: relative, plain, no level that is `.` or `..`."""
    levels = text.split("/")
    return len(text) <= 1000 and all(_COMPONENT.fullmatch(level) and set(level) != {"."} for level in levels)


def is_place(text: str) -> bool:
    """True when `text` may be where a file goes: absolute, plain, no level that is `.` or `..`."""
    return text.startswith("/") and len(text) > 1 and is_member(text[1:])


def parse(data: bytes) -> Manifest:
    """The manifest in `data`. Raises RefusedError with the number of the line that is wrong."""
    if len(data) > MAX_BYTES:
        raise _wrong(0, f"it has {len(data)} bytes, more than any manifest has")
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    extras: list[Extra] = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        key, value = _split(number, raw)
        if not key:
            continue
        if key == "extra":
            extras.append(_extra(number, value))
            if len(extras) > MAX_EXTRAS:
                raise _wrong(number, f"more than {MAX_EXTRAS} extra files")
            continue
        if key not in _KEYS:
            raise _wrong(number, f"unknown key {shown(key)}", f"known are: {', '.join(_KEYS)}, extra")
        if key in lines:
            raise _wrong(number, f"{key} is given twice (first in line {lines[key]})")
        lines[key] = number
        values[key] = _value(number, key, value)
    return _whole(values, lines, extras)


def dump(manifest: Manifest) -> bytes:
    """The manifest's file: keys in the one order, so that equal manifests are equal bytes."""
    lines = []
    for key in _KEYS:
        value = getattr(manifest, key)
        if value:
            lines.append(f"{key} {'required' if key == 'media' else value}")
    lines.extend(f"extra {extra.file}:{extra.path}" for extra in manifest.extra)
    return ("\n".join(lines) + "\n").encode()


def check(manifest: Manifest) -> Manifest:
    """`manifest` if its own file would be read back as it is. Raises RefusedError."""
    if parse(dump(manifest)) != manifest:
        raise _wrong(0, "it would not be read back as it was written")
    return manifest


def parse_extra(text: str) -> tuple[str, str]:
    """`SRC:DEST` as the command line has it. Raises RefusedError."""
    source, colon, place = text.rpartition(":")
    place = place.rstrip("/") or place
    if not colon or not source or not is_place(place):
        raise bad(
            f"the extra file {shown(text)} is not SRC:DEST",
            hint="write it as in /root/motd:/install/files, DEST being the absolute directory it goes to",
            code="bad-extra",
        )
    return source, place


def _split(number: int, raw: bytes) -> tuple[str, str]:
    raw = raw.removesuffix(b"\r")
    if len(raw) > MAX_LINE:
        raise _wrong(number, f"the line has {len(raw)} bytes, more than {MAX_LINE}")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _wrong(number, "the line is not UTF-8 text") from None
    if any(not char.isprintable() and char != "\t" for char in text):
        raise _wrong(number, "the line has control characters")
    text = re.sub(r"(^|[ \t])#.*", "", text).strip(" \t")
    key, *rest = re.split(r"[ \t]+", text, maxsplit=1)
    return key, rest[0] if rest else ""


def _value(number: int, key: str, value: str) -> str:
    if not value:
        raise _wrong(number, f"{key} has no value")
    if key == "media":
        if value != "required":
            raise _wrong(number, f"media is {shown(value)}", "write: media required")
    elif key == "method":
        if value not in get_args(Method):
            raise _wrong(number, f"method is {shown(value)}", f"there are: {', '.join(get_args(Method))}")
    elif key == "name":
        try:
            names.check_name(value)
        except LithoError as exc:
            raise _wrong(number, exc.message, exc.hint) from None
    elif key in ("os", "arch", "profile"):
        if not is_word(value):
            raise _wrong(number, f"{key} is {shown(value)}", "use letters, digits and . _ + -, a letter or digit first")
    elif not is_member(value):
        raise _wrong(
            number, f"{key} is {shown(value)}", "name a file in the bundle: a relative path without . and .. levels"
        )
    return value


def _extra(number: int, value: str) -> Extra:
    file, colon, path = value.partition(":")
    path = path.rstrip("/") or path
    if not colon or not is_member(file) or not is_place(path):
        raise _wrong(
            number, f"extra is {shown(value)}", "write: extra FILE:PATH, PATH being the absolute directory it goes to"
        )
    return Extra(file, path)


def _whole(values: dict[str, str], lines: dict[str, int], extras: list[Extra]) -> Manifest:
    if not values and not extras:
        raise _wrong(0, "it is empty")
    method = values.get("method")
    if method is None:
        raise _wrong(0, "method is missing", "every bundle needs name, profile and method")
    missing = [key for key in REQUIRED[method] if key not in values]
    if missing:
        raise _wrong(0, f"{missing[0]} is missing", f"method {method} needs: {', '.join(REQUIRED[method])}")
    for key, number in lines.items():
        if key not in (*REQUIRED[method], *_OPTIONAL[method], "method"):
            raise _wrong(number, f"{key} has no meaning with method {method}", "leave it out")
    if len(set(extras)) != len(extras):
        raise _wrong(0, "the same extra file is given twice")
    plain = {key: value for key, value in values.items() if key != "media"}
    return msgspec.convert({**plain, "media": "media" in values, "extra": extras}, Manifest, from_attributes=True)


def _wrong(number: int, problem: str, hint: str = "") -> RefusedError:
    where = f"line {number} of {FILE}" if number else FILE
    return bad(f"{where}: {problem}", hint=hint, code="bad-manifest")
