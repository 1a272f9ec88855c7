"""Taking versions away, and sweeping up what dead captures left. Each step can be killed and done again.

Removing turns the manifest into a reservation first (one rename: from then on the version does not exist), then deletes the
files, then the reservation. A crash in between looks like a capture that died, and the sweep finishes the job.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

from litho.errors import NotFoundError
from litho.library import files, names
from litho.library.names import ImageRef
from litho.library.shelf import Library
from litho.library.stage import Owner, point_to_latest, read_owner

_STRAY = re.compile(r"(?P<target>.+)\.(?P<pid>[0-9]+)\.part", re.ASCII)


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
            reservation = path.with_name(path.name + ".part")
            path.rename(reservation)
            files.fsync_dir(library.root)
            point_to_latest(library, ref.name)
            _delete_version(library, ref.name, version)
    return [ImageRef(ref.name, version) for version in doomed]


def prune(library: Library, name: str, *, keep: int, used: Callable[[ImageRef], bool]) -> list[ImageRef]:
    """Delete all but the newest `keep` versions of an image, sparing those in use; answers what was deleted.

    Raises LibraryError.
    """
    doomed = [ImageRef(name, version) for version in library.versions(name)[: -max(1, keep)]]
    gone: list[ImageRef] = []
    for ref in doomed:
        if not used(ref):
            gone.extend(remove(library, ref))
    return gone


def sweep(library: Library, *, dead: Callable[[Owner | None], bool]) -> list[ImageRef]:
    """Delete the remains of versions that nobody makes any more: `dead` is asked about each reservation's owner.

    Answers the versions whose remains were deleted. A published version is never touched: if it has a left-over
    reservation (a crash at the very end of `publish`) only that is deleted. Raises LibraryError.
    """
    swept: list[ImageRef] = []
    with files.telling(library.root):
        for name, parsed in list(library.entries()):
            if parsed.suffix or not parsed.part:
                continue
            reservation = library.root / name
            with contextlib.suppress(FileNotFoundError):
                if not dead(read_owner(reservation)):
                    continue
                if (library.root / names.manifest_file(parsed.image, parsed.version)).exists():
                    point_to_latest(library, parsed.image)
                    reservation.unlink(missing_ok=True)
                    continue
                _delete_version(library, parsed.image, parsed.version)
                swept.append(ImageRef(parsed.image, parsed.version))
    return swept


def _delete_version(library: Library, name: str, version: int) -> None:
    """Delete every file of a version that has no manifest; its reservation last. Raises OSError."""
    manifest = names.manifest_file(name, version)
    for file, parsed in list(library.entries()):
        if (parsed.image, parsed.version) == (name, version) and parsed.suffix:
            (library.root / file).unlink(missing_ok=True)
    for path in library.root.iterdir():
        # What an interrupted `files.replace` of this manifest left.
        stray = _STRAY.fullmatch(path.name)
        if stray is not None and stray["target"] == manifest:
            path.unlink(missing_ok=True)
    (library.root / (manifest + ".part")).unlink(missing_ok=True)
