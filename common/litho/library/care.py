"""Taking versions away, and sweeping up what dead captures left. Each step can be killed and done again.

Removing turns the manifest into a reservation first (one rename: from then on the version does not exist), then deletes the
files, then the reservation. A crash in between looks like a capture that died, and the sweep finishes the job.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from litho.errors import LibraryError, NotFoundError
from litho.library import files, names
from litho.library.names import ImageRef
from litho.library.shelf import Library
from litho.library.stage import Owner, point_to_latest, read_owner

STRAY_AGE_S = 3600.0
"""Seconds after which a temporary file that nobody names belongs to the dead; they live for milliseconds."""


def remove(library: Library, ref: ImageRef) -> list[ImageRef]:
    """Delete one version, or all of them when `ref` names none; answers what was deleted.

    The caller has made sure that nobody uses them. Raises NotFoundError, LibraryError.
    """
    names.check_name(ref.name)
    published = library.versions(ref.name)
    doomed = [ref.version] if ref.version else published
    if not doomed or not set(doomed) <= set(published):
        raise NotFoundError(
            f"there is no image {ref} in the library {library.root}",
            hint="see: litho image ls",
            code="image-missing",
        )
    with files.telling(library.root):
        for version in doomed:
            path = library.root / names.manifest_file(ref.name, version)
            with contextlib.suppress(FileNotFoundError):  # somebody else removes it at this moment
                path.rename(path.with_name(path.name + ".part"))
            files.fsync_dir(library.root)
            with contextlib.suppress(OSError, LibraryError):
                # A full library has no room for a new pointer; after the files are gone it has.
                point_to_latest(library, ref.name)
            _delete_files(library, ref.name, version)
            point_to_latest(library, ref.name)
            path.with_name(path.name + ".part").unlink(missing_ok=True)
    return [ImageRef(ref.name, version) for version in doomed]


def prune(library: Library, name: str, *, keep: int, used: Callable[[ImageRef], bool]) -> list[ImageRef]:
    """Delete all but the newest `keep` versions of an image, sparing those in use; answers what was deleted.

    Raises LibraryError.
    """
    gone: list[ImageRef] = []
    for ref in doomed(library, name, keep=keep, used=used):
        gone.extend(remove(library, ref))
    return gone


def doomed(library: Library, name: str, *, keep: int, used: Callable[[ImageRef], bool]) -> list[ImageRef]:
    """The versions that `prune` deletes: all but the newest `keep`, and none that is in use. Raises LibraryError."""
    old = [ImageRef(name, version) for version in library.versions(name)[: -max(1, keep)]]
    return [ref for ref in old if not used(ref)]


def sweep(
    library: Library, *, dead: Callable[[Owner | None], bool], stray_age_s: float = STRAY_AGE_S
) -> list[ImageRef]:
    """Delete the remains of versions that nobody makes any more: `dead` is asked about each reservation's owner.

    The owner is None where it cannot be told: a removal or a sweep that was itself interrupted. Answers the versions whose
    remains were deleted. A published version is never touched: if it has a left-over reservation (a crash at the very end of
    `publish`) only that is deleted. Temporary files and `.part` files without a reservation go when they are `stray_age_s`
    seconds old. Raises LibraryError.
    """
    swept: list[ImageRef] = []
    whole: list[ImageRef] = []
    with files.telling(library.root):
        for name, parsed in list(library.entries()):
            if parsed.suffix or not parsed.part or not (library.root / name).is_file():
                continue
            ref = ImageRef(parsed.image, parsed.version)
            with contextlib.suppress(FileNotFoundError):
                if not dead(read_owner(library.root / name)):
                    continue
                kept = _take(library, ref)
                if not kept:
                    _delete_files(library, ref.name, ref.version)
                    (library.root / name).unlink(missing_ok=True)
                (whole if kept else swept).append(ref)
        # Turning a pointer may need a little room, so it comes after all that makes room.
        for image in sorted({ref.name for ref in [*whole, *swept]}):
            point_to_latest(library, image)
        for ref in whole:
            (library.root / (names.manifest_file(ref.name, ref.version) + ".part")).unlink(missing_ok=True)
        _sweep_strays(library, stray_age_s)
    return swept


def _take(library: Library, ref: ImageRef) -> bool:
    """Take the number from whoever holds it; true when it was too late and the version exists. Raises OSError.

    The order is one half of a bargain; `litho.library.stage` has the other half.
    """
    manifest = names.manifest_file(ref.name, ref.version)
    os.truncate(library.root / (manifest + ".part"), 0)
    for path, target in files.temporaries(library.root):
        if target == manifest:
            path.unlink(missing_ok=True)
    return (library.root / manifest).exists()


def _delete_files(library: Library, name: str, version: int) -> None:
    """Delete every file of a version that has no manifest, but the reservation. Raises OSError."""
    for file, parsed in list(library.entries()):
        if (parsed.image, parsed.version) == (name, version) and parsed.suffix:
            (library.root / file).unlink(missing_ok=True)


def _sweep_strays(library: Library, age_s: float) -> None:
    strays = [path for path, _ in files.temporaries(library.root)]
    for file, parsed in list(library.entries()):
        # Without `.part` it may be anybody's file that happens to look like ours.
        reservation = library.root / (names.manifest_file(parsed.image, parsed.version) + ".part")
        if parsed.suffix and parsed.part and not reservation.exists():
            strays.append(library.root / file)
    for path in strays:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= age_s:
                path.unlink()
