"""From files in a room to things that are ready to be placed: right names, right rights, the root image expanded, all of it
on disk.

Nothing here is visible to anybody. A place on another file system than the room (an extra file for a mount of its own) gets
a small room beside it, because only a rename within one file system is one step.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from litho import process
from litho.errors import RefusedError
from litho_controller.bundle import journal as log
from litho_controller.bundle import rootimg, rows
from litho_controller.bundle.faults import bad, damaged, telling
from litho_controller.bundle.intake import Member
from litho_controller.bundle.journal import Step
from litho_controller.bundle.plan import TREE, Placed, Plan
from litho_controller.bundle.site import Site

SYNC_S = 1800.0


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A plan held against what is on this machine."""

    placed: tuple[Placed, ...]
    """What will appear."""
    same: tuple[str, ...]
    """Targets that hold the very same bytes already, and are left alone."""
    aside: dict[str, str]
    """Targets that are there and will be kept aside, and where."""


def check(
    plan: Plan, site: Site, members: Mapping[str, Member], *, own: Iterable[Path], replace: bool, mark: str
) -> Checked:
    """Hold the plan against the file system: nothing is overwritten, no link leads out. Blocks. Raises RefusedError, LithoError.

    `own` are directories in which no bundle may place anything, even below an allowed root: whoever puts files into the library
    has made images, and whoever puts one into the trust store has signed. `mark` ends the names of old things that are kept
    aside.
    """
    placed: list[Placed] = []
    same: list[str] = []
    aside: dict[str, str] = {}
    for one in plan.placed:
        _refuse_links_out(one.target, site)
        _refuse_own(one.target, own)
        path = Path(one.target)
        with telling(path):
            there = os.path.lexists(path)
            if there and one.kind == "file" and _same_bytes(path, members[one.member]):
                same.append(one.target)
                continue
            empty = (
                there and one.kind == "profile" and path.is_dir() and not path.is_symlink() and not any(path.iterdir())
            )
        placed.append(one)
        if there:
            if not replace and not empty:
                raise RefusedError(
                    f"{one.target} exists already",
                    hint="--replace keeps the old one aside, --rename NEW imports the image under another name",
                    code="file-exists",
                )
            aside[one.target] = f"{one.target}.{mark}"
    return Checked(placed=tuple(placed), same=tuple(same), aside=aside)


def _refuse_links_out(target: str, site: Site) -> None:
    """What `target` means with all links followed must be where it says. Raises RefusedError, LithoError."""
    parent = log.real_parent(target)
    for name in site.roots:
        root = Path(name)
        with telling(root):
            if root.exists():
                real = root.resolve()
                if parent == real or real in parent.parents:
                    return
            elif log.real_parent(name) == parent and rows.below(target, [name]):
                # The root itself is still to be made: nothing can be below it yet, no link either.
                return
    raise bad(
        f"{target} leads to {parent} through a link, which is outside of {', '.join(site.roots)}",
        hint="remove the link, or list that place in the site key bundleroots",
        code="bundle-escape",
    )


def _refuse_own(target: str, own: Iterable[Path]) -> None:
    """What Lithograph itself lives on is out of reach. Raises RefusedError, LithoError."""
    parent = log.real_parent(target)
    missing = [level for level in Path(target).parents if not level.exists()]
    lies = parent.joinpath(*(level.name for level in reversed(missing)), Path(target).name)
    for folder in own:
        with telling(folder):
            real = folder.resolve()
        if lies == real or real in lies.parents or lies in real.parents:
            raise bad(
                f"the bundle wants to place {target}, and {folder} is a directory that Lithograph keeps for itself",
                hint="have the bundle made with another place for that file",
                code="bundle-escape",
            )


def _same_bytes(path: Path, member: Member) -> bool:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size != member.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == member.sha256


def assemble(
    checked: Checked,
    members: Mapping[str, Member],
    room: Path,
    *,
    mark: str,
    set_uid: bool,
    open_room: Callable[[str], None],
    stop: Callable[[], None],
) -> tuple[list[Step], list[str]]:
    """Make everything ready; answers the steps and notes. Blocks. Raises RefusedError, IntegrityError, LithoError.

    `open_room` is told the name of each further room before it is made.
    """
    uses: dict[str, int] = {}
    for one in checked.placed:
        for member in [one.member, *(inner.member for inner in one.inner)]:
            uses[member] = uses.get(member, 0) + 1
    ready = room / "x-ready"
    steps: list[Step] = []
    notes: list[str] = []
    rooms: dict[int, Path] = {}
    with telling(room):
        ready.mkdir(mode=0o700)
        rooms[room.stat().st_dev] = ready
    for number, one in enumerate(checked.placed):
        stop()
        staged = _room_for(one.target, rooms, mark, open_room) / f"{number:06d}"
        with telling(staged):
            if one.kind == "profile":
                notes += _profile(one, members, staged, uses, set_uid=set_uid, stop=stop)
            else:
                _file(members[one.member], staged, uses, executable=one.executable)
        steps.append(Step(staged=str(staged), target=one.target, aside=checked.aside.get(one.target, "")))
    for folder in rooms.values():
        # Thousands of small files: one sync of the file system instead of one for each.
        process.run(["sync", "-f", folder], timeout_s=SYNC_S, doing="writing the image to disk")
    return steps, notes


def _room_for(target: str, rooms: dict[int, Path], mark: str, open_room: Callable[[str], None]) -> Path:
    parent = log.real_parent(target)
    with telling(parent):
        device = parent.stat().st_dev
        if device not in rooms:
            beside = parent / f".{mark}"
            open_room(str(beside))
            beside.mkdir(mode=0o700)
            rooms[device] = beside
    return rooms[device]


def _profile(
    one: Placed,
    members: Mapping[str, Member],
    staged: Path,
    uses: dict[str, int],
    *,
    set_uid: bool,
    stop: Callable[[], None],
) -> list[str]:
    staged.mkdir(mode=0o755)
    expanded = rootimg.expand(_lying(members[one.expand]), staged / TREE, set_uid=set_uid, stop=stop)
    notes = expanded.notes()
    for inner in one.inner:
        name = inner.path
        if not name:
            name = "rootimg." + {"squashfs": "sfs"}.get(expanded.kind, expanded.kind)
            notes.append(f"the root image was placed as {name}, after what is in it")
        target = staged / name
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if os.path.lexists(target):
            raise bad(f"the bundle wants to place two files as {name}", code="bad-bundle")
        _file(members[inner.member], target, uses, executable=False)
    return notes


def _file(member: Member, target: Path, uses: dict[str, int], *, executable: bool) -> None:
    """Move a member to `target`, or copy it while others need it too, or it lies on another file system."""
    lying = _lying(member)
    mode = 0o755 if executable else 0o644
    uses[member.name] -= 1
    if not uses[member.name] and lying.stat().st_dev == target.parent.stat().st_dev:
        os.rename(lying, target)  # noqa: PTH104 - beside the other calls of os that a crash is tried at
    else:
        shutil.copyfile(lying, target, follow_symlinks=False)
    os.chmod(target, mode)  # noqa: PTH101 - as above
    if os.geteuid() == 0:
        os.chown(target, 0, 0)


def _lying(member: Member) -> Path:
    if member.path is None:
        raise damaged(f"{member.name} was not kept")
    return member.path
