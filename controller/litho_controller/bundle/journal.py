"""Placing files so that a crash at any point leaves all of them or none.

Everything is ready in a room on the same file system before the first step; a step is two renames at most. What is going to
happen is written down first, in one small file, synced. The commit is not here: it is the database transaction that writes
the rows, and with them the journal's id. So after a crash there are two cases, told apart by the database alone:

* it knows the id: everything had been placed before, only the room and the journal are left to delete;
* it does not: every step is taken back, in the other order.

Taking back needs no notes on how far things got. A staged thing that still lies in the room was not placed; one that is
gone from there was, and goes back; an old thing that lies aside goes back where no new one is. Each can be interrupted and
done again. When all is back, the steps are struck out of the journal before the room goes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from litho.errors import LithoError
from litho.library import files
from litho_controller.bundle.faults import bad, telling

MAX_BYTES = 64 * 1024 * 1024
Path_ = Annotated[str, msgspec.Meta(max_length=4096)]


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that appears."""

    staged: Path_
    target: Path_
    aside: Path_ = ""
    """Where what was there before is kept; empty when there was nothing."""


class Journal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an import is about to do."""

    format: int = 1
    id: str
    name: str
    rooms: tuple[Path_, ...]
    """Directories that are deleted in the end; the first is the bundle's own."""
    steps: tuple[Step, ...] = ()
    folders: tuple[Path_, ...] = ()
    """Directories that are made, those above before those below."""
    image: str = ""
    """Captured disk: the library image and version that appear."""
    version: int = 0
    sha256: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Of that version's manifest."""


def write(folder: Path, journal: Journal) -> Path:
    """Write the journal down, for good. Raises LithoError."""
    path = folder / f"{journal.id}.json"
    with telling(path):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(path, msgspec.json.encode(journal) + b"\n")
    return path


def pending(folder: Path) -> list[tuple[Path, Journal]]:
    """Journals of imports that did not come to their end. Raises LithoError."""
    found: list[tuple[Path, Journal]] = []
    with telling(folder):
        if not folder.is_dir():
            return found
        for path in sorted(folder.iterdir()):
            if path.name.endswith(".part"):
                path.unlink()
            elif path.suffix == ".json":
                try:
                    journal = msgspec.json.decode(files.read_small(path, MAX_BYTES), type=Journal)
                except msgspec.MsgspecError as exc:
                    raise LithoError(
                        f"the journal of an import, {path}, is damaged ({exc})",
                        hint="look what it says, put its files right by hand, then delete it",
                        code="bad-journal",
                    ) from exc
                found.append((path, journal))
    return found


def place(journal: Journal) -> None:
    """Take every step. Raises LithoError; then `undo` takes back what was done."""
    for name in journal.folders:
        with telling(name):
            os.mkdir(name, 0o755)  # noqa: PTH102 - beside the other calls of os that a crash is tried at
    for step in journal.steps:
        with telling(step.target):
            if step.aside:
                os.rename(step.target, step.aside)  # noqa: PTH104 - as above
            _move_new(step.staged, step.target)
    _sync_folders(journal)


def undo(journal: Journal) -> None:
    """Take back whatever was done. Raises LithoError; it can be called again."""
    for step in reversed(journal.steps):
        with telling(step.target):
            if not os.path.lexists(step.staged):
                if os.path.lexists(step.target):
                    os.rename(step.target, step.staged)  # noqa: PTH104 - as above
            elif _same(step.staged, step.target):
                os.unlink(step.target)  # noqa: PTH108 - as above
            if step.aside and os.path.lexists(step.aside) and not os.path.lexists(step.target):
                os.rename(step.aside, step.target)  # noqa: PTH104 - as above
    for name in reversed(journal.folders):
        # Somebody may have put something there since; then it stays.
        with contextlib.suppress(OSError):
            os.rmdir(name)  # noqa: PTH106 - as above
    _sync_folders(journal)


def forget(path: Path, journal: Journal) -> None:
    """The import is over, one way or the other: delete its rooms, then its journal. Raises LithoError.

    The steps are struck out first. With a room half deleted, they could not be told apart any more: what is gone from there would
    look as if it had been placed.
    """
    if journal.steps:
        write(path.parent, msgspec.structs.replace(journal, steps=(), folders=()))
    for name in journal.rooms:
        with telling(name):
            if os.path.lexists(name):
                shutil.rmtree(name)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(name))  # noqa: PTH106, PTH120 - beside the other calls of os that a crash is tried at
    with telling(path):
        path.unlink(missing_ok=True)
        files.fsync_dir(path.parent)


def missing_folders(targets: list[str]) -> tuple[str, ...]:
    """Directories that must be made so that `targets` can be placed, in the order in which they are made. Raises LithoError."""
    found: set[Path] = set()
    for target in targets:
        above = Path(target).parent
        with telling(above):
            while not above.exists():
                found.add(above)
                above = above.parent
    return tuple(str(path) for path in sorted(found, key=lambda path: len(path.parts)))


def real_parent(target: str) -> Path:
    """The nearest directory above `target` that exists, with all links resolved. Raises LithoError."""
    above = Path(target).parent
    with telling(above):
        while not above.exists():
            if above.is_symlink():
                raise bad(f"{above} is a link to nothing", code="bundle-escape")
            above = above.parent
        return above.resolve()


def _move_new(staged: str, target: str) -> None:
    """Rename, but over nothing. Raises OSError."""
    if os.path.isdir(staged):  # noqa: PTH112 - as above
        # Over an empty directory a rename would go; over anything else it fails by itself.
        if os.path.lexists(target):
            raise FileExistsError(17, "File exists", target)
        os.rename(staged, target)  # noqa: PTH104 - as above
        return
    try:
        os.link(staged, target)  # fails when somebody else was faster
    except OSError as exc:
        if isinstance(exc, FileExistsError):
            raise
        if os.path.lexists(target):
            raise FileExistsError(17, "File exists", target) from exc
        os.rename(staged, target)  # noqa: PTH104 - a file system without hard links
        return
    os.unlink(staged)  # noqa: PTH108 - as above


def _same(one: str, other: str) -> bool:
    try:
        first, second = os.lstat(one), os.lstat(other)
    except FileNotFoundError:
        return False
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def _sync_folders(journal: Journal) -> None:
    for folder in dict.fromkeys(_touched(journal)):
        with telling(folder), contextlib.suppress(FileNotFoundError):
            files.fsync_dir(folder)


def _touched(journal: Journal) -> Iterator[Path]:
    for step in journal.steps:
        yield Path(step.target).parent
    for folder in journal.folders:
        yield Path(folder).parent
