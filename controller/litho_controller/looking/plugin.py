"""The part of nbdkit that serves one partition of an image: a script for its Python plug-in, run by nbdkit and nobody else.

    nbdkit python plugin.py library=DIR image=golden:2 part=5

The functions are those that nbdkit-python-plugin(3) asks for, version 2 of its interface. nbdkit brings a Python of its own, so
PYTHONPATH must lead to this package's libraries.
"""

from __future__ import annotations

from pathlib import Path

from litho.errors import LithoError, NotFoundError
from litho.library import Library, parse_ref
from litho.library.chunks.window import Window

API_VERSION = 2

_wanted: dict[str, str] = {}


def config(key: str, value: str) -> None:
    """One word of nbdkit's command line."""
    _wanted[key] = value


def config_complete() -> None:
    """Before the first client: whatever is wrong is said now. Raises RuntimeError, whose text nbdkit prints."""
    try:
        _open().close()
    except LithoError as exc:
        raise RuntimeError(str(exc)) from exc


def _open() -> Window:
    library = Library.open(Path(_wanted["library"]))
    manifest = library.manifest(parse_ref(_wanted["image"]))
    number = int(_wanted["part"])
    for part in manifest.parts:
        if part.number == number:
            return Window(library, part)
    raise NotFoundError(f"the image has no partition {number}")


def open(readonly: bool) -> Window:  # noqa: A001 - nbdkit's name
    """A client comes."""
    return _open()


def get_size(handle: Window) -> int:
    """Bytes."""
    return handle.size


def pread(handle: Window, buf: bytearray, offset: int, flags: int) -> None:
    """Fill `buf`."""
    buf[:] = handle.pread(len(buf), offset)


def close(handle: Window) -> None:
    """The client went."""
    handle.close()
