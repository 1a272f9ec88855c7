"""The two doors, and the border at which errors become answers.

* `node_app`: on TCP, for nodes. It takes claims, gives out what a node boots with and what it restores from, and says that it
  is alive; everything else is 404. Whoever can reach the port can knock here, so a request is small and strict, and neither a
  task nor the library is had without its token.
* `admin_app`: on a unix socket that only its owner may open: the whole API.

Whatever goes wrong is answered with a `litho.messages.Problem`. A mistake of ours is logged with its trace and answered without.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from litho import __version__
from litho.errors import LithoError, NotFoundError, RefusedError, WireError
from litho.messages import MAX_PAYLOAD, Claimant, ClaimRequest, Problem, decode, encode, head
from litho_controller import api
from litho_controller.power.command import NoPower, Power
from litho_controller.tasks import versions
from litho_controller.web import bundles, care, images, inventory, nodes, objects, tables, tasklog, tasks
from litho_controller.web import power as switching
from litho_controller.web.boot import BootDoor
from litho_controller.web.desk import DESK, MAX_BODY, Desk
from litho_controller.web.library import LibraryDoor
from litho_controller.web.osfiles import OsFiles

log = logging.getLogger("litho.web")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Health(msgspec.Struct, frozen=True):
    """The answer to GET /v1/health."""

    version: str
    broker: bool
    """The controller can hear nodes at this moment."""


def admin_app(desk: Desk, power: Power | None = None) -> web.Application:
    """The whole API; without `power` nobody can be switched."""
    app = web.Application(client_max_size=MAX_BODY, middlewares=[telling])
    app[DESK] = desk
    app[switching.POWER] = power or NoPower()
    for module in (nodes, tasks, tasklog, images, care, tables, objects, inventory, bundles, switching):
        app.add_routes(module.routes)
    app.router.add_get("/v1/health", health)
    return app


def node_app(desk: Desk, boot: BootDoor | None = None) -> web.Application:
    """What nodes may ask; `boot` is what their boot loaders may."""
    app = web.Application(client_max_size=MAX_PAYLOAD, middlewares=[telling])
    app[DESK] = desk
    app.router.add_post("/v1/claim", claim)
    LibraryDoor(desk.tasks).add_to(app)
    if boot is not None:
        boot.add_to(app)
        OsFiles(desk.tasks).add_to(app)
    app.router.add_get("/v1/health", health)
    return app


async def health(request: web.Request) -> web.Response:
    """A sign of life."""
    answer = Health(__version__, request.app[DESK].tasks.bus.connected)
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


async def claim(request: web.Request) -> web.Response:
    """A node's agent takes its task. 400: not a claim; 403: wrong token; 404: no such task; 409: not to be had."""
    requests, payload = request.app[DESK].requests, await request.read()
    try:
        try:
            order = await requests.claim(decode(payload, ClaimRequest))
        except WireError:
            other = head(payload, Claimant)
            refused = versions.refusal(other) if other is not None else None
            if other is None or refused is None:
                raise
            raise await requests.decline(other, refused) from None
    except WireError as exc:
        return _problem(400, api.problem_of(exc))
    except NotFoundError as exc:
        return _problem(404, api.problem_of(exc))
    except RefusedError as exc:
        return _problem(403 if exc.code == "bad-token" else 409, api.problem_of(exc))
    return web.Response(body=encode(order), content_type="application/json")


@web.middleware
async def telling(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into Problems."""
    try:
        return await handler(request)
    except LithoError as exc:
        return _problem(api.status_of(exc), api.problem_of(exc))
    except web.HTTPException as exc:
        if exc.status < 400:
            raise
        words = f"{request.method} {request.path[:200]}: {exc.reason}"
        return _problem(exc.status, Problem(code="http", message=words))
    except ConnectionError:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path[:200])
        return _problem(500, Problem(code="internal", message="the controller made a mistake", hint="see its log"))


def _problem(status: int, problem: Problem) -> web.Response:
    return web.Response(status=status, body=encode(problem), content_type="application/json")
