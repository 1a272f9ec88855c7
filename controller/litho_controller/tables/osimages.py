"""What a capture leaves in osimage and linuximage.

imagename and profile are the image's name; osname, osvers, osdistroname and osarch are what the agent found in the image.
imagetype is `windows` for Windows and `linux` for the rest, also where no system was found: xCAT knows no third word here.

provmethod is `install`. In xCAT's old wiring the method decides what a node is *set* to: `image` issues `mkimage`, which is a
capture, and `install` issues `mkinstall`, which prints an image onto the node. The row says how nodes get this
image, so `nodeset N osimage=golden` answers `N: install image-x86-golden`, which is what programs written for xCAT
(Apache VCL) wait for.

A row that an administrator has filled in further keeps what a capture does not know: only the columns below are set.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import NotFoundError, RefusedError
from litho.library import ImageRef, check_name
from litho.messages import OsFacts
from litho.task import Action
from litho_controller.tables import rows

PROVMETHOD = "install"


def osimage_values(image: str, os: OsFacts) -> dict[str, str | None]:
    """The osimage columns that a capture sets. Values are ASCII: xCAT cannot carry others."""
    windows = os.name.lower().startswith("windows")
    return {
        "profile": image,
        "imagetype": "windows" if windows else "linux",
        "provmethod": PROVMETHOD,
        "osname": ascii_cell(os.name),
        "osvers": ascii_cell(os.vers),
        "osdistroname": ascii_cell(os.distro),
        "osarch": ascii_cell(os.arch),
    }


def ascii_cell(text: str) -> str | None:
    """`text` as printable ASCII in one line of at most 128 characters; None when nothing is left of it."""
    flat = "".join(char if " " <= char <= "~" else " " for char in text).strip()
    return flat[:128] or None


async def captured(conn: AsyncConnection, image: str, os: OsFacts) -> None:
    """Write the rows of a capture of `image` that succeeded."""
    await rows.put(conn, "osimage", image, osimage_values(image, os))
    await rows.put(conn, "linuximage", image, {})


async def row(conn: AsyncConnection, name: str) -> dict[str, str | None]:
    """The osimage row of that name (a version behind a colon counts for nothing); empty when there is none."""
    return await rows.get(conn, "osimage", name.partition(":")[0])


def meaning(ref: ImageRef, row: Mapping[str, str | None]) -> tuple[Action, ImageRef]:
    """What a row that is called like no image asks for: the image is its profile, the method says what is done with it.

    As in xCAT: with provmethod=image the node is captured, with install it gets the image. Raises NotFoundError, RefusedError.
    """
    method, profile = row.get("provmethod") or PROVMETHOD, row.get("profile") or ""
    if not row:
        raise NotFoundError(
            f"there is no image {ref.name!r} in the library, and no osimage of that name",
            hint="see: litho image ls, and lsdef -t osimage",
            code="image-missing",
        )
    if method not in (PROVMETHOD, "image"):
        raise RefusedError(
            f"the osimage {ref.name} has the provmethod {method!r}, which is nothing that this controller does",
            hint="a captured image has the provmethod install",
            code="bad-provmethod",
        )
    wanted = ImageRef(check_name(profile or ref.name), ref.version)
    return ("capture" if method == "image" else "restore"), wanted


async def forget(conn: AsyncConnection, image: str) -> None:
    """Take the rows away: the last version of the image was deleted."""
    await rows.remove(conn, "osimage", [image])
    await rows.remove(conn, "linuximage", [image])
