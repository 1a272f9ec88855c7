"""The claim: the agent trades its one-time token for its order. One HTTP POST, repeated until there is an answer.

A claim may be repeated: the controller knows the session and gives it the same order again, so an answer that was lost costs
nothing. What becomes of an answer:

* 200 with an `Order` for this node and task: done.
* 4xx: the controller says no, and repeating would not change its mind. `RefusedError` with the controller's own words.
* No answer, half an answer, 5xx, 408, 425, 429: try again for `GIVE_UP_S` seconds, after jittered pauses that grow to 30 s.
* An order of this task that this agent cannot read (another edition or version): trying again would not teach it. The claim is
  said once more with the reason, so that the task fails with it instead of waiting for news that cannot come. `WireError`.
* An answer that is no order: may be a proxy's page while the controller starts. Tried `WRONG_ANSWERS` times, then `WireError`.

Python's own HTTP client runs in a thread, because it blocks. Its time-out is for one read at a time, so a peer that sends one
byte in ten seconds would hold it for ever: a deadline for the whole exchange cuts the connection from outside.
Neither redirects nor the environment's proxies are followed. The token appears in no message and no log.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import socket
import ssl
import time
import urllib.parse
from collections.abc import Awaitable, Callable

import msgspec

from litho.errors import ConfigError, LithoError, RefusedError, UnreachableError, WireError
from litho.job import EDITION
from litho.messages import MAX_PAYLOAD, VERSION, ClaimRequest, Order, OrderHead, Problem, clip, decode, encode, head
from litho_agent import backoff

ATTEMPT_S = 15.0
"""Seconds that one exchange may take in all."""
GIVE_UP_S = 3600.0
"""Seconds after which a controller that never answered is given up. Longer than any restart of it."""
WRONG_ANSWERS = 5
"""How many answers in a row that are no order are put up with."""
UNREADABLE = "order-version"
"""Code of the error for an order that is ours and that we cannot read."""
DECLINES = 5
"""How often it is tried to tell that to the controller."""

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})", re.ASCII)
_SAFE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*", re.ASCII)
AGAIN = frozenset({408, 425, 429})


class Controller(msgspec.Struct, frozen=True):
    """Where a request goes."""

    tls: bool
    host: str
    port: int
    path: str
    """Ends in /v1/claim, or another request's."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def parse_url(text: str, request: str = "/v1/claim") -> Controller:
    """The controller in `http://mgmt:3014` or `https://...`, asked for `request`. Raises ConfigError."""
    try:
        url = urllib.parse.urlsplit(text)
        host, port = url.hostname or "", url.port
        named = _HOST.fullmatch(host) is not None or (":" in host and _is_ipv6(host))
        if url.scheme not in ("http", "https") or not named or url.query or url.fragment or "@" in url.netloc:
            raise ValueError
        path = url.path.rstrip("/")
        # `urlsplit` drops line breaks and tabs in silence: what holds one is not what it seems.
        if len(text) > 1024 or not text.isprintable() or not _SAFE_PATH.fullmatch(path):
            raise ValueError
    except ValueError as exc:
        raise ConfigError(
            f"{text[:200]!r} is not the address of a controller",
            hint="write it like http://mgmt:3014",
            code="bad-controller",
        ) from exc
    tls = url.scheme == "https"
    return Controller(tls=tls, host=host, port=port or (443 if tls else 80), path=path + request)


def _is_ipv6(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, host)
    except OSError:
        return False
    return True


def read_answer(status: int, body: bytes, request: ClaimRequest) -> Order:
    """What the controller's answer means. Raises RefusedError, WireError, or UnreachableError when it is worth another try."""
    if status == 200:
        try:
            order = decode(body, Order)
        except WireError as exc:
            raise _unreadable(body, request, exc) from exc
        if (order.task, order.node) != (request.task, request.node):
            raise WireError(
                f"the controller answered the claim of task {request.task} on {request.node} "
                f"with an order for task {order.task} on {order.node}",
                code="foreign-order",
            )
        return order
    if 400 <= status < 500 and status not in AGAIN:
        try:
            problem = decode(body, Problem)
        except WireError:
            raise RefusedError(f"the controller refused the claim (HTTP {status})", code="claim-refused") from None
        raise RefusedError(
            f"the controller refused the claim: {problem.message}",
            hint=problem.hint,
            code=problem.code or "claim-refused",
        )
    if 300 <= status < 400:
        raise WireError(f"the controller answered the claim with a redirect (HTTP {status})")
    raise UnreachableError(f"the controller cannot take the claim now (HTTP {status})")


def _unreadable(body: bytes, request: ClaimRequest, exc: WireError) -> WireError:
    """The error for an answer that is not an order we read: one of code `order-version` when it is our order all the same."""
    found = head(body, OrderHead)
    if found is None or (found.task, found.node) != (request.task, request.node):
        return exc
    why = exc.message
    if found.v != VERSION:
        why = f"it is of version {found.v} of the wire, and this agent speaks version {VERSION}"
    elif found.edition > EDITION:
        why = f"it is of edition {found.edition}, and this agent reads up to {EDITION}"
    return WireError(
        f"this agent cannot read the order of task {request.task}: {why}",
        hint="build the agent archive again with the controller's release: litho rootimg build",
        code=UNREADABLE,
    )


async def claim(
    controller: str,
    request: ClaimRequest,
    *,
    say: Callable[[str], None],
    give_up_s: float = GIVE_UP_S,
    attempt_s: float = ATTEMPT_S,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Order:
    """Claim the task and return the order. `say` is told, as a sentence, why it is tried again.

    Raises ConfigError, RefusedError, WireError, UnreachableError.
    """
    where = parse_url(controller)
    payload = encode(request)
    begun = time.monotonic()
    tries = wrong = 0
    while True:
        tries += 1
        try:
            status, body = await exchange(where, payload, attempt_s)
            return read_answer(status, body, request)
        except UnreachableError as exc:
            wrong = 0
            problem: LithoError = exc
        except WireError as exc:
            if exc.code == UNREADABLE:
                await _decline(where, request, exc, attempt_s=attempt_s, sleep=sleep)
                raise
            wrong += 1
            problem = exc
            if wrong >= WRONG_ANSWERS:
                raise WireError(
                    f"the controller at {where} answers with something else than an order: {exc.message}",
                    hint="check that the address is the controller's and that both sides have the same version",
                    code=exc.code,
                ) from exc
        if time.monotonic() - begun >= give_up_s:
            raise UnreachableError(
                f"no controller answered at {where} for {give_up_s:.0f} s (last: {problem.message})",
                hint="check the network and that `litho serve` runs there",
            ) from problem
        wait_s = backoff.pause(tries)
        say(f"{problem.message}; trying again in {wait_s:.1f} s")
        await sleep(wait_s)


async def _decline(
    where: Controller,
    request: ClaimRequest,
    exc: WireError,
    *,
    attempt_s: float,
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Tell the controller that its order cannot be read. A controller that never hears it loses the task after its lease."""
    payload = encode(msgspec.structs.replace(request, declined=clip(exc.message, 2000)))
    for tries in range(1, DECLINES + 1):
        with contextlib.suppress(UnreachableError, WireError):
            status, _ = await exchange(where, payload, attempt_s)
            if 200 <= status < 500 and status not in AGAIN:
                return
        await sleep(backoff.pause(tries))


async def exchange(where: Controller, body: bytes, limit_s: float = ATTEMPT_S) -> tuple[int, bytes]:
    """One POST: status and body of the answer. Raises UnreachableError, WireError."""
    connection = _Exchange(where, limit_s)
    thread = asyncio.create_task(asyncio.to_thread(connection.post, body), name="claim-exchange")
    try:
        async with asyncio.timeout(limit_s):
            return await asyncio.shield(thread)
    except TimeoutError:
        connection.cut()
        with contextlib.suppress(LithoError):
            return await thread
        raise UnreachableError(f"the controller at {where} did not answer within {limit_s:.0f} s") from None
    except asyncio.CancelledError:
        connection.cut()
        await asyncio.gather(thread, return_exceptions=True)
        raise


class _Exchange:
    """One connection, used once, that another thread can cut."""

    def __init__(self, where: Controller, limit_s: float) -> None:
        self._where = where
        self._cut = False
        self._connection: http.client.HTTPConnection
        if where.tls:
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(where.host, where.port, timeout=limit_s, context=context)
        else:
            self._connection = http.client.HTTPConnection(where.host, where.port, timeout=limit_s)

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Send and receive; blocks. Raises UnreachableError, WireError."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        try:
            self._connection.connect()
            if self._cut:
                raise TimeoutError("cut")
            self._connection.request("POST", self._where.path, body, headers)
            response = self._connection.getresponse()
            answer = response.read(MAX_PAYLOAD + 1)
            promised = response.getheader("Content-Length") or ""
        except (OSError, http.client.HTTPException, UnicodeError, ValueError) as exc:
            raise UnreachableError(f"the controller at {self._where} does not answer ({_words(exc)})") from exc
        finally:
            self._connection.close()
        if len(answer) > MAX_PAYLOAD:
            raise WireError(f"the controller's answer is over the limit of {MAX_PAYLOAD} bytes")
        # `read` with a limit does not tell a short body from a whole one; the length that was promised does.
        if promised.isascii() and promised.isdigit() and len(answer) < int(promised):
            raise UnreachableError(f"the controller at {self._where} broke off in the middle of its answer")
        return response.status, answer

    def cut(self) -> None:
        """End whatever `post` waits for; callable from any thread."""
        self._cut = True
        sock = self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _words(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "timed out"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return str(exc)[:200] or type(exc).__name__
