"""Finding a path inside a mounted file system that came from anywhere: links lead nowhere outside of it.

The file system is mounted read-only by us and nobody else knows it, so nothing changes between the look and the copy.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path, PurePosixPath

from litho.errors import LithoError, NotFoundError, RefusedError, UsageError

MAX_LINKS = 40


def find(root: Path, path: str) -> Path:
    """Where `path` (absolute, as the captured system had it) lies under `root`, symbolic links followed within it.

    Raises NotFoundError, RefusedError (a loop of links).
    """
    left = [part for part in reversed(PurePosixPath(path).parts) if part != "/"]
    at = root
    links = 0
    while left:
        name = left.pop()
        if name == "..":
            at = at.parent if at != root else root
            continue
        step = at / name
        try:
            mode = step.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise NotFoundError(f"the image has no {path}", code="no-such-file") from exc
        except OSError as exc:
            raise LithoError(f"{path} cannot be read from the image ({exc.strerror})", code="unreadable") from exc
        if not stat.S_ISLNK(mode):
            at = step
            continue
        links += 1
        if links > MAX_LINKS:
            raise RefusedError(f"too many symbolic links in {path}", code="link-loop")
        target = PurePosixPath(os.readlink(step))  # noqa: PTH115 - not followed, only read
        if target.is_absolute():
            at = root
        left.extend(part for part in reversed(target.parts) if part != "/")
    return at


def copy(source: Path, target: Path) -> int:
    """Copy a file, or a directory with what is below it, to `target`; answers how many bytes.

    An existing directory as `target` gets it under its own name; an existing file is not replaced. Links are copied as links;
    devices, sockets and pipes are left out. Raises RefusedError, LithoError.
    """
    if target.is_dir():
        target /= source.name
    if target.exists() or target.is_symlink():
        raise RefusedError(f"{target} exists already", hint="name another place", code="exists")
    try:
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=_special)
        elif source.is_file():
            shutil.copy2(source, target)
        else:
            raise UsageError(f"{source.name} is neither a file nor a directory")
    except (OSError, shutil.Error) as exc:
        what = exc.strerror if isinstance(exc, OSError) and exc.strerror else "not everything could be copied"
        raise LithoError(f"copying to {target}: {what}", code="copy-failed") from exc
    if target.is_dir():
        return sum(path.lstat().st_size for path in target.rglob("*") if path.is_file() and not path.is_symlink())
    return target.stat().st_size


def _special(folder: str, names: list[str]) -> set[str]:
    found = {name: Path(folder, name).lstat().st_mode for name in names}
    return {
        name for name, mode in found.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
    }
