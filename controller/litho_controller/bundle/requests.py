"""What is asked of the daemon about bundles, and what it answers: types that the command line shares.

| request         | body            | answer               |
|-----------------|-----------------|----------------------|
| POST /v1/export | `ExportRequest` | NDJSON of `BundleLine` |
| POST /v1/import | `ImportRequest` | NDJSON of `BundleLine` |

Paths are the daemon's: absolute, read and written with its rights. The last line has `exported` or `imported`, or `error`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from litho.messages import Problem

PathText = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Write an image into a tarball."""

    name: Annotated[str, msgspec.Meta(max_length=200)]
    """The osimage; `name:version` for one version of a captured disk."""
    tarball: PathText
    """Its ending says how it is packed."""
    extra: tuple[PathText, ...] = ()
    """`SRC:DEST`: one more file, and the directory that it goes to."""
    form: Literal["litho", "xcat"] = "litho"
    sign: str = ""
    """Path of a private key."""
    replace: bool = False
    """Write over a tarball that is there."""


class ImportRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Take an image from a tarball."""

    tarball: PathText
    replace: bool = False
    """Keep what is there under the same names aside."""
    rename: Annotated[str, msgspec.Meta(max_length=100)] = ""
    """The image's new name and profile."""
    dry_run: bool = False
    """Only say what would be done."""
    verify: tuple[PathText, ...] = ()
    """Public keys, or directories of them; one must have signed. Without it the site's rule holds."""
    set_uid: bool = False
    """Keep set-uid bits in the expanded root image."""
    all_columns: bool = False
    """Take guarded columns without a trusted signature, too."""


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A tarball that was written."""

    name: str
    tarball: str
    bytes: int
    files: tuple[str, ...]
    signed: bool = False
    notes: tuple[str, ...] = ()


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """An image that was imported, or would be."""

    name: str
    method: str
    form: str
    dry_run: bool = False
    placed: tuple[str, ...] = ()
    """Paths that appeared; a profile's directory stands for all that is in it."""
    same: tuple[str, ...] = ()
    """Paths that held the same bytes before."""
    aside: tuple[str, ...] = ()
    """Where old things are kept."""
    version: int = 0
    """Captured disk: its number in the library."""
    osimage: dict[str, str] = {}
    linuximage: dict[str, str] = {}
    signed_by: str = ""
    media: str = ""
    """The directory of the installation media that the image needs."""
    media_there: bool = False
    notes: tuple[str, ...] = ()


class BundleLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of an export or import: a count of bytes, or the end."""

    done: int = 0
    total: int = 0
    exported: Exported | None = None
    imported: Imported | None = None
    error: Problem | None = None
    status: int = 500
    """With `error`: the HTTP status that it would have had, had it come first."""

    @property
    def ended(self) -> bool:
        """It is the last line."""
        return self.exported is not None or self.imported is not None or self.error is not None
