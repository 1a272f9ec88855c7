"""What crosses between the command line (or a browser) and the daemon, as types that both sides share.

| request                          | body            | answer            |
|----------------------------------|-----------------|-------------------|
| GET /v1/nodes?range=R            |                 | `NodeList`        |
| POST /v1/nodes                   | `NodeAdd`       | `NodeList`        |
| DELETE /v1/nodes?range=R         |                 | `NodeList`, what was there |
| GET /v1/nodes/{name}             |                 | `NodeView`        |
| POST /v1/nodeset                 | `NodesetRequest`| `NodesetAnswer`   |
| GET /v1/nodestat?range=R&probe=1&update=1 |                 | `NodestatAnswer`  |
| GET /v1/inventory?range=R        |                 | `InventoryAnswer` |
| GET /v1/tasks?node=&state=&active=1&limit= |       | `TaskList`, newest first |
| GET /v1/tasks/{id}               |                 | `TaskView`        |
| POST /v1/tasks/{id}/cancel       |                 | `TaskView`        |
| POST /v1/tasks/{id}/retry        |                 | `TaskView` of the new task |
| GET /v1/tasks/{id}/log           |                 | `LogView`         |
| GET /v1/waves                    |                 | `WaveList`, newest first |
| POST /v1/power                   | `PowerRequest`  | `PowerAnswer`     |
| GET /v1/discovered               |                 | `DiscoveredList`  |
| GET /v1/images                   |                 | `ImageList`       |
| GET /v1/images/{ref}             |                 | `litho.library.Manifest` |
| POST /v1/images/{ref}/verify?deep=1 |              | NDJSON of `VerifyLine` |
| DELETE /v1/images/{ref}          |                 | `ImageList`, what was deleted |
| GET /v1/tables                   |                 | `TableList`       |
| GET /v1/tables/{name}            |                 | `TableView`       |
| PUT /v1/tables/{name}            | `TableFill`     | `TableView`, without rows |
| POST /v1/tables                  | `TableEdit`     | `TableList`, those that changed |
| POST /v1/nodech                  | `NodeEdit`      | `NodeNames`, those that changed |
| POST /v1/nodels                  | `ColumnsRequest`| `ColumnsAnswer`   |
| GET /v1/objects/{kind}?names=&only=&brief=1 |      | `ObjectList`      |
| POST /v1/objects                 | `ObjectEdit`    | `ObjectEdited`    |

Those of waves, power and discovery are in `litho_controller.api_schedule`. Whatever cannot be done is answered with HTTP 4xx or
5xx and a `litho.messages.Problem`. `status_of` and `error_of` (`litho_controller.api_errors`) are the two
halves of that border: the class of a `LithoError` becomes a status there and the same class again here, so that the exit code
of a command is that of the error wherever it happened. Times are seconds since 1970, or None for "not yet".
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from litho.job import Compression, EngineName, Fit, Free, OnBadSector, OnDirty, Short, Then
from litho.messages import Problem
from litho.progress import PartProgress
from litho.task import Action, State
from litho_controller.api_errors import error_of as error_of  # noqa: PLC0414 - exported from here
from litho_controller.api_errors import problem_of as problem_of  # noqa: PLC0414 - exported from here
from litho_controller.api_errors import status_of as status_of  # noqa: PLC0414 - exported from here
from litho_controller.api_health import HealthView
from litho_controller.api_schedule import PowerAction as PowerAction  # noqa: PLC0414 - exported from here
from litho_controller.api_schedule import PowerAnswer as PowerAnswer  # noqa: PLC0414 - exported from here
from litho_controller.api_schedule import PowerLine as PowerLine  # noqa: PLC0414 - exported from here
from litho_controller.api_schedule import PowerRequest as PowerRequest  # noqa: PLC0414 - exported from here
from litho_controller.api_schedule import When

NodesetState = Literal["image", "install", "osimage", "verify", "boot", "offline", "stat"]


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One node."""

    node: str
    groups: tuple[str, ...] = ()
    mac: str = ""
    arch: str = ""
    state: str = "boot"
    """What the node is set to do at its next boot, in xCAT's words: `boot`, `image golden`, `install golden`, ..."""
    task: str = ""
    """Id of the task that the node has or is queued for; empty for none."""
    online: bool = False
    """Its agent is connected."""
    status: str = ""
    """The line that `nodestat` prints."""
    health: HealthView | None = None
    """How it was when its agent last said it; None when that was never, or before the controller was started."""


class NodeList(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes, sorted by name."""

    nodes: tuple[NodeView, ...] = ()


class NodeAdd(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Define nodes. A `mac` only goes with a range of one node."""

    range: str
    mac: str = ""
    groups: tuple[Short, ...] = ()
    arch: str = ""


class JobOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The fields of `litho.job.Job` that a person may choose; the rest follows from the nodeset itself."""

    disk: Short = ""
    engine: EngineName = ""
    compress: Compression = "zstd"
    level: int = 1
    then: Then = ""
    fit: Fit = "keep"
    on_dirty: OnDirty = "refuse"
    on_bad_sector: OnBadSector = "stop"
    verify_target: bool = False
    free: Free = "keep"
    parallel: int = 0
    skip_unknown: bool = False
    allow: tuple[Short, ...] = ()
    sources: tuple[Short, ...] = ()
    labels: dict[Short, Short] = {}


class NodesetRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set nodes to a state: `image` captures, `install` and `osimage` restore, `verify` compares, `boot` is the local disk,
    `offline` nothing, `stat` only asks."""

    range: str
    state: NodesetState
    image: str = ""
    """`name` or `name:version`; for `image` and `install` empty means the node's profile. For `osimage` a name of the library, or
    else of the osimage table, whose profile then is the image."""
    job: JobOptions = JobOptions()
    when: When = When()


class NodesetLine(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one node: `text` is what the command prints after the name, or `error` says why not."""

    node: str
    text: str = ""
    error: str = ""
    code: str = ""
    task: str = ""
    """Id of the task that was made, if one was."""
    wave: str = ""
    """Id of the wave that it belongs to, if it does."""


class NodesetAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One line for each node of the range, sorted by name."""

    nodes: tuple[NodesetLine, ...] = ()


class NodestatLine(msgspec.Struct, frozen=True, kw_only=True):
    """What one node does."""

    node: str
    text: str


class NodestatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One line for each node of the range, sorted by name."""

    nodes: tuple[NodestatLine, ...] = ()


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """One task with what is known of it."""

    id: str
    node: str
    action: Action
    image: str
    version: int = 0
    """Restore: what was asked for, resolved; capture: what was published; 0 while unknown."""
    state: State
    code: str = ""
    reason: str = ""
    phase: str = ""
    percent: int = 0
    done: int = 0
    """Bytes of used data moved."""
    total: int = 0
    rate: float = 0.0
    """Bytes a second."""
    limit: str = ""
    """What limits the rate: `limited by library write 112 MB/s`."""
    moving: tuple[PartProgress, ...] = ()
    """The partitions that move at this moment, each with its own count."""
    eta_s: float | None = None
    stored: int = 0
    """Bytes written to, or read from, the library."""
    created: float | None = None
    armed: float | None = None
    claimed: float | None = None
    started: float | None = None
    """When bytes began to move."""
    ended: float | None = None
    cancel_requested: bool = False
    priority: int = 0
    not_before: float | None = None
    attempt: int = 1
    retry_of: str = ""
    """Id of the task that this one repeats."""
    wave: str = ""
    step: int = 0
    """In which step of the wave it starts."""
    plan: dict[str, Any] | None = None
    """The agent's `litho.messages.Planned`, as JSON values."""
    result: dict[str, Any] | None = None
    """The agent's `Succeeded`, `Failed` or `Stopped`."""
    line: str = ""
    """The text for `nodestat`."""
    health: HealthView | None = None
    """How its node was when its agent last said it while it worked on this task."""


class TaskList(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks, newest first."""

    tasks: tuple[TaskView, ...] = ()


class ImageView(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one image."""

    image: str
    version: int
    current: bool = False
    """It is what the image's name alone means."""
    created: str = ""
    """UTC, as the manifest has it: `2026-11-22T16:00:00Z`."""
    used: int = 0
    stored: int = 0
    parent: str = ""
    """The version that it came from, `golden:3`, as far as chunks tell; empty for none."""
    shared: int = 0
    """Bytes of used data that lie in the same chunks at the same places in the parent."""
    parts: int = 0
    node: str = ""
    """Which node it was captured from."""
    os: str = ""
    labels: dict[str, str] = {}
    error: str = ""
    """Why its manifest cannot be read; empty when it can."""
    damage: str = ""
    """What the last scrub found that keeps it from being restored; empty: nothing, or nobody has looked."""


class ImageList(msgspec.Struct, frozen=True, kw_only=True):
    """Versions, by image and number."""

    images: tuple[ImageView, ...] = ()


class VerifyProblem(msgspec.Struct, frozen=True):
    """One thing that is wrong with an image."""

    file: str
    sentence: str


class VerifyLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a verification: a count of bytes, or at last `problems` (an empty list: all is well), or an `error`."""

    done: int = 0
    total: int = 0
    problems: list[VerifyProblem] | None = None
    error: Problem | None = None
    """The verification itself could not go on."""
    status: int = 500
    """With `error`: the HTTP status that it would have had, had it come first."""


class TableList(msgspec.Struct, frozen=True, kw_only=True):
    """Names of the tables."""

    tables: tuple[str, ...] = ()


class TableView(msgspec.Struct, frozen=True, kw_only=True):
    """One of xCAT's tables: None is a column without a value, which is not the empty string."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...] = ()


# ---------------------------------------------------------------- tables and objects


class TableFill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tabrestore`: replace all rows of a table, or put these over what is there."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...] = ()
    append: bool = False


class Assign(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`table.column=value`; `+=` and `,=` add to a list with commas (behind, before), `^=` takes out of it."""

    column: str
    op: Literal["=", "+=", ",=", "^="] = "="
    value: str = ""


class TableEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tabch`: set columns of the rows that `keys` name, or delete these rows from tables."""

    keys: dict[str, str] = {}
    assign: tuple[Assign, ...] = ()
    delete: tuple[str, ...] = ()


class NodeEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`nodech`: set columns of the nodes of a range for which every condition `where` holds, or delete their rows."""

    range: str
    assign: tuple[Assign, ...] = ()
    delete: tuple[str, ...] = ()
    where: tuple[str, ...] = ()


class NodeNames(msgspec.Struct, frozen=True, kw_only=True):
    """Names of nodes, sorted."""

    nodes: tuple[str, ...] = ()


class ColumnsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`nodels`: columns of the nodes of a range, each `table.column`; `where` as in `NodeEdit`."""

    range: str = ""
    columns: tuple[str, ...] = ()
    where: tuple[str, ...] = ()


class ColumnsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes, sorted, each with its values in the order of the columns; empty where there is none."""

    nodes: tuple[tuple[str, tuple[str, ...]], ...] = ()


ObjectKind = Literal["node", "osimage", "group", "site"]


class ObjectList(msgspec.Struct, frozen=True, kw_only=True):
    """Objects with their attributes, and the names that were asked for and are none."""

    objects: dict[str, dict[str, str]] = {}
    missing: tuple[str, ...] = ()


class ObjectEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`mkdef`, `chdef`, `rmdef`. Names of nodes are noderanges. `force` lets `mkdef` replace what is there."""

    verb: Literal["mkdef", "chdef", "rmdef"]
    kind: ObjectKind
    objects: dict[str, dict[str, str]]
    mode: Literal["set", "add", "take"] = "set"
    force: bool = False


class ObjectEdited(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the names: each is in one of these, `created` also in `done`."""

    done: tuple[str, ...] = ()
    created: tuple[str, ...] = ()
    existed: tuple[str, ...] = ()
    """`mkdef` without `force`: left as they are."""
    missing: tuple[str, ...] = ()


# ---------------------------------------------------------------- inventory


class InventoryLine(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one machine; nothing of one that has never run a task."""

    node: str
    facts: tuple[tuple[str, str], ...] = ()


class InventoryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One line for each node of the range, sorted by name."""

    nodes: tuple[InventoryLine, ...] = ()
