"""What goes wrong with a bundle, in words: the errors of this package are made here.

A bundle that breaks a rule is refused (`bad`), one whose bytes are not what its hashes promise is damaged (`damaged`), and
what the operating system says about files is turned into a sentence once (`telling`).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from litho.errors import CancelledError, IntegrityError, LithoError, RefusedError

_WORDS = {
    errno.ENOSPC: ("no-space", "there is no space left", "free some space, then start again"),
    errno.EDQUOT: ("no-space", "the quota is used up", "raise the quota, then start again"),
    errno.EROFS: ("not-writable", "the file system is mounted read-only", "mount it writable"),
    errno.EACCES: ("not-allowed", "permission is denied", "check the rights of the path and of its directories"),
    errno.EPERM: ("not-allowed", "the operation is not permitted", "check the rights of the path"),
    errno.ENOENT: ("file-missing", "it does not exist", "check the path"),
    errno.EISDIR: ("bad-file", "it is a directory", "name a file"),
    errno.EEXIST: ("file-exists", "it exists already", "use --replace, or another name"),
    errno.ELOOP: ("bad-file", "it is a symbolic link", "name the file itself"),
}


def bad(message: str, *, hint: str = "", code: str = "bad-bundle") -> RefusedError:
    """The bundle breaks a rule; nothing of it was used."""
    return RefusedError(message, hint=hint, code=code)


def damaged(message: str, *, hint: str = "get the bundle again; nothing of it was used") -> IntegrityError:
    """Bytes are missing or differ from what a hash promises."""
    return IntegrityError(message, hint=hint, code="corrupt-bundle")


def cancelled() -> CancelledError:
    """Somebody asked for it to stop."""
    return CancelledError("the work was stopped on request", hint="start it again; what had arrived is used again")


def shown(name: str | bytes) -> str:
    """A name from a bundle as it may stand in a sentence: short, quoted, printable."""
    text = os.fsdecode(name) if isinstance(name, bytes) else name
    return ascii(text if len(text) <= 80 else text[:77] + "...")


@contextlib.contextmanager
def telling(path: Path | str) -> Iterator[None]:
    """Any OSError inside becomes a LithoError about `path`, or about the file that the error itself names."""
    try:
        yield
    except OSError as exc:
        code, words, hint = _WORDS.get(exc.errno or 0, ("files", exc.strerror or str(exc), ""))
        where = exc.filename2 or exc.filename
        named = os.fsdecode(where) if isinstance(where, (str, bytes)) else str(path)
        raise LithoError(f"{named}: {words}", hint=hint, code=code) from exc
