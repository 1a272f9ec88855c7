"""Asking the daemon, over HTTP on its unix socket.

One request, one connection: a command asks once or a few times and ends, so there is no pool to keep. The standard library's
HTTP client does it without the fifth of a second that a framework takes to load, which `nodestat` in a script's loop would
feel.

What comes back is decoded into the types of `litho_controller.api`, or raised: a `Problem` becomes the error of the same class
that the daemon met, a socket that does not answer an `UnreachableError`, anything else a `WireError`.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from litho.errors import LithoError, RefusedError, UnreachableError, WireError
from litho.library.chunks.health import Health
from litho.messages import Problem
from litho_controller import api, api_care, api_schedule
from litho_controller.bundle.requests import BundleLine, ExportRequest, ImportRequest

ANSWER_S = 60.0
"""Seconds that an answer may take to begin or to go on."""
VERIFY_S = 900.0
"""The same between two lines of an answer that tells how work goes on, which may have to wait for a slow library."""
MAX_ANSWER = 256 * 1024 * 1024
"""Bytes; ten thousand nodes with all their tasks are about 5 MB."""
MAX_LINE = 16 * 1024 * 1024

T = TypeVar("T")


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("litho", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """The daemon's API, one method a request. Every method raises LithoError."""

    def __init__(self, path: Path, *, timeout: float = ANSWER_S) -> None:
        """`path` is the daemon's socket."""
        self._path = path
        self._timeout = timeout

    # -- nodes

    def nodes(self, noderange: str) -> api.NodeList:
        """The nodes of a range."""
        return self._ask("GET", "/v1/nodes", api.NodeList, range=noderange)

    def add_nodes(self, nodes: api.NodeAdd) -> api.NodeList:
        """Define nodes."""
        return self._ask("POST", "/v1/nodes", api.NodeList, body=nodes)

    def remove_nodes(self, noderange: str) -> api.NodeList:
        """Take nodes away; answers what they were."""
        return self._ask("DELETE", "/v1/nodes", api.NodeList, range=noderange)

    def node(self, name: str) -> api.NodeView:
        """One node."""
        return self._ask("GET", f"/v1/nodes/{_part(name)}", api.NodeView)

    def nodeset(self, request: api.NodesetRequest) -> api.NodesetAnswer:
        """Set nodes to a state."""
        return self._ask("POST", "/v1/nodeset", api.NodesetAnswer, body=request)

    def nodestat(self, noderange: str, *, probe: bool = False, update: bool = False) -> api.NodestatAnswer:
        """What the nodes of a range do; `probe` looks at them over the network, `update` writes it into nodelist."""
        return self._ask(
            "GET",
            "/v1/nodestat",
            api.NodestatAnswer,
            range=noderange,
            probe="1" if probe else "",
            update="1" if update else "",
        )

    def power(self, request: api.PowerRequest) -> api.PowerAnswer:
        """Switch nodes, or ask whether they are on."""
        return self._ask("POST", "/v1/power", api.PowerAnswer, body=request)

    def inventory(self, noderange: str) -> api.InventoryAnswer:
        """What the machines of a range are made of."""
        return self._ask("GET", "/v1/inventory", api.InventoryAnswer, range=noderange)

    def discovered(self) -> api_schedule.DiscoveredList:
        """Machines that have shown themselves and that no node is."""
        return self._ask("GET", "/v1/discovered", api_schedule.DiscoveredList)

    # -- tasks

    def tasks(self, *, node: str = "", state: str = "", active: bool = False, limit: int = 0) -> api.TaskList:
        """Tasks, newest first."""
        return self._ask(
            "GET",
            "/v1/tasks",
            api.TaskList,
            node=node,
            state=state,
            active="1" if active else "",
            limit=str(limit) if limit else "",
        )

    def task(self, task: str) -> api.TaskView:
        """One task."""
        return self._ask("GET", f"/v1/tasks/{_part(task)}", api.TaskView)

    def cancel(self, task: str) -> api.TaskView:
        """Ask for a task to stop."""
        return self._ask("POST", f"/v1/tasks/{_part(task)}/cancel", api.TaskView)

    def retry(self, task: str) -> api.TaskView:
        """Queue a task like one that ended without success; answers the new one."""
        return self._ask("POST", f"/v1/tasks/{_part(task)}/retry", api.TaskView)

    def task_log(self, task: str) -> api_schedule.LogView:
        """What became of a task, step by step."""
        return self._ask("GET", f"/v1/tasks/{_part(task)}/log", api_schedule.LogView)

    def waves(self) -> api_schedule.WaveList:
        """Waves, newest first."""
        return self._ask("GET", "/v1/waves", api_schedule.WaveList)

    # -- images

    def images(self) -> api.ImageList:
        """Every version of every image."""
        return self._ask("GET", "/v1/images", api.ImageList)

    def image(self, ref: str, shape: type[T]) -> T:
        """The manifest of one version, decoded as `shape`."""
        return self._ask("GET", f"/v1/images/{_part(ref)}", shape)

    def library_health(self) -> Health:
        """What the last scrubs of the library found."""
        return self._ask("GET", "/v1/library/health", Health)

    def remove_image(self, ref: str) -> api.ImageList:
        """Delete one version, or all when `ref` names none; answers what was deleted."""
        return self._ask("DELETE", f"/v1/images/{_part(ref)}", api.ImageList)

    def verify(self, ref: str, *, deep: bool) -> Iterator[api.VerifyLine]:
        """Check every hash of a version; the last line has `problems`."""
        path = f"/v1/images/{_part(ref)}/verify" + ("?deep=1" if deep else "")
        ended = False
        for one in self._lines(path, None, api.VerifyLine):
            if one.error is not None:
                raise api.error_of(one.status, one.error)
            ended = one.problems is not None
            yield one
        if not ended:
            raise UnreachableError("the controller went away in the middle of the check", hint="check again")

    def diff(self, first: str, second: str) -> api_care.DiffView:
        """What differs between two versions."""
        return self._ask("GET", "/v1/diff", api_care.DiffView, first=first, second=second)

    def prune(self, name: str, *, keep: int, dry: bool) -> api.ImageList:
        """Delete all but the newest versions of an image; answers what was deleted, or with `dry` would be."""
        return self._ask(
            "POST", f"/v1/images/{_part(name)}/prune", api.ImageList, keep=str(keep), dry="1" if dry else ""
        )

    def care(self, what: str, **query: str) -> Iterator[api_care.CareLine]:
        """`usage`, `gc` or `scrub` of the library; the last line has what came of it."""
        asked = urlencode({name: value for name, value in query.items() if value})
        ended = False
        for one in self._lines(f"/v1/library/{what}?{asked}", None, api_care.CareLine):
            if one.error is not None:
                raise api.error_of(one.status, one.error)
            ended = one.ended
            yield one
        if not ended:
            raise UnreachableError("the controller went away in the middle of its work", hint="begin again")

    # -- bundles

    def export_bundle(self, request: ExportRequest) -> Iterator[BundleLine]:
        """Write an image into a tarball; the last line has what became of it."""
        return self._bundle("/v1/export", request)

    def import_bundle(self, request: ImportRequest) -> Iterator[BundleLine]:
        """Take an image from a tarball; the last line has what became of it."""
        return self._bundle("/v1/import", request)

    def _bundle(self, path: str, request: msgspec.Struct) -> Iterator[BundleLine]:
        ended = False
        for one in self._lines(path, request, BundleLine):
            if one.error is not None:
                raise api.error_of(one.status, one.error)
            ended = one.ended
            yield one
        if not ended:
            raise UnreachableError("the controller went away in the middle of its work", hint="see its log")

    # -- tables

    def tables(self) -> api.TableList:
        """Names of the tables."""
        return self._ask("GET", "/v1/tables", api.TableList)

    def table(self, name: str) -> api.TableView:
        """One table, whole."""
        return self._ask("GET", f"/v1/tables/{_part(name)}", api.TableView)

    def fill_table(self, name: str, fill: api.TableFill) -> api.TableView:
        """Replace a table's rows, or add to them."""
        return self._ask("PUT", f"/v1/tables/{_part(name)}", api.TableView, body=fill)

    def edit_tables(self, edit: api.TableEdit) -> api.TableList:
        """Change or delete single rows."""
        return self._ask("POST", "/v1/tables", api.TableList, body=edit)

    def edit_nodes(self, edit: api.NodeEdit) -> api.NodeNames:
        """Change columns of nodes, or delete their rows."""
        return self._ask("POST", "/v1/nodech", api.NodeNames, body=edit)

    def columns(self, request: api.ColumnsRequest) -> api.ColumnsAnswer:
        """Columns of nodes."""
        return self._ask("POST", "/v1/nodels", api.ColumnsAnswer, body=request)

    # -- objects

    def objects(self, kind: str, names: str = "", *, only: str = "", brief: bool = False) -> api.ObjectList:
        """Objects of a kind; all for no `names`. `only` some attributes, `brief` none."""
        return self._ask(
            "GET", f"/v1/objects/{_part(kind)}", api.ObjectList, names=names, only=only, brief="1" if brief else ""
        )

    def edit_objects(self, edit: api.ObjectEdit) -> api.ObjectEdited:
        """Make, change or remove objects."""
        return self._ask("POST", "/v1/objects", api.ObjectEdited, body=edit)

    # -- one request

    def _ask(self, method: str, path: str, shape: type[T], *, body: msgspec.Struct | None = None, **query: str) -> T:
        asked = urlencode({name: value for name, value in query.items() if value or name == "range"})
        connection = _Connection(self._path, self._timeout)
        try:
            response = self._send(connection, method, f"{path}?{asked}" if asked else path, body)
            with _telling(self._path):
                data = response.read(MAX_ANSWER + 1)
        finally:
            connection.close()
        if len(data) > MAX_ANSWER:
            raise WireError(
                f"the controller's answer to {method} {path} is over {MAX_ANSWER} bytes", hint="ask for less"
            )
        return _decode(data, shape)

    def _lines(self, path: str, body: msgspec.Struct | None, shape: type[T]) -> Iterator[T]:
        """The lines of an answer that comes while the work goes on."""
        connection = _Connection(self._path, VERIFY_S)
        try:
            response = self._send(connection, "POST", path, body)
            with _telling(self._path):
                while line := response.readline(MAX_LINE):
                    if line.strip():
                        yield _decode(line, shape)
        finally:
            connection.close()

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: msgspec.Struct | None
    ) -> http.client.HTTPResponse:
        payload = msgspec.json.encode(body) if body is not None else None
        headers = {"Content-Type": "application/json"} if payload is not None else {}
        with _telling(self._path):
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            if response.status < 400:
                return response
            data = response.read(MAX_LINE)
        try:
            problem = msgspec.json.decode(data, type=Problem)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            where = path.partition("?")[0]
            raise WireError(
                f"the controller answered {response.status} {response.reason} to {method} {where}",
                hint="is it of the same version as this command?",
            ) from None
        raise api.error_of(response.status, problem)


class _telling:  # noqa: N801 - reads as a phrase where it is used
    """Turns what a socket raises into an error that says which socket and what to do."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, LithoError):
            told = _told(error, self._path)
            if told is not None:
                raise told from error


def _told(error: BaseException, path: Path) -> LithoError | None:
    if isinstance(error, PermissionError):
        return RefusedError(
            f"this user may not speak with the controller on {path}",
            hint="be root, or of the socket's group",
            code="not-allowed",
        )
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return UnreachableError(
            f"no controller answers on {path}", hint="start one with: litho serve, or name its settings with --config"
        )
    if isinstance(error, TimeoutError):
        return UnreachableError(f"the controller on {path} did not answer in time", hint="see its log")
    if isinstance(error, (OSError, http.client.HTTPException)):
        return UnreachableError(
            f"the controller on {path} broke off ({error or type(error).__name__})", hint="see its log"
        )
    return None


def _part(text: str) -> str:
    """`text` as one level of a path."""
    return quote(text, safe="")


def _decode(data: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        name: Any = getattr(shape, "__name__", shape)
        raise WireError(f"the controller's answer is no {name} ({exc})", hint="is it of the same version?") from exc
