"""The shapes of the care of a library over HTTP.

| request | answer |
|---|---|
| GET /v1/diff?first=REF&second=REF | `DiffView` |
| POST /v1/images/NAME/prune?keep=N&dry=1 | `litho_controller.api.ImageList` |
| GET /v1/library/health | `litho.library.chunks.health.Health` |
| POST /v1/library/usage | NDJSON of `CareLine`, at last with `usage` |
| POST /v1/library/gc?grace_s=N | NDJSON of `CareLine`, at last with `swept` |
| POST /v1/library/scrub?mend=1 | NDJSON of `CareLine`, at last with `damaged` |
"""

from __future__ import annotations

import msgspec

from litho.library.chunks.compare import PartDiff
from litho.library.chunks.gc import Swept
from litho.library.chunks.scrub import PackReport
from litho.library.chunks.usage import Usage
from litho.messages import Problem


class DiffView(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two versions."""

    first: str
    second: str
    equal: bool
    table: bool
    """The partition tables are equal."""
    parts: tuple[PartDiff, ...]


class CareLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line while a library is looked after: a count of bytes, or the end."""

    done: int = 0
    total: int = 0
    usage: Usage | None = None
    swept: Swept | None = None
    damaged: list[PackReport] | None = None
    """An empty list: all is well."""
    error: Problem | None = None
    status: int = 500
    """With `error`: the HTTP status that it would have had, had it come first."""

    @property
    def ended(self) -> bool:
        """It is the last line."""
        return not (self.usage is None and self.swept is None and self.damaged is None and self.error is None)
