"""Errors across the border between daemon and command line: the class of an error becomes an HTTP status, and a class again."""

from __future__ import annotations

from litho.errors import (
    CancelledError,
    DiskError,
    EngineError,
    IntegrityError,
    LibraryError,
    LithoError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    UsageError,
    WireError,
)
from litho.messages import Problem

# The class of an error and its HTTP status, subclasses before their parents. Each status stands once, so it can be read back.
_STATUS: tuple[tuple[type[LithoError], int], ...] = (
    (IntegrityError, 422),
    (LibraryError, 507),
    (DiskError, 424),
    (EngineError, 502),
    (NotFoundError, 404),
    (RefusedError, 409),
    (UnreachableError, 503),
    (CancelledError, 499),
    (UsageError, 400),
    (WireError, 415),
)


def status_of(error: LithoError) -> int:
    """The HTTP status that an error travels with; 500 for one that is nothing more than a failure."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem_of(error: LithoError) -> Problem:
    """The body that an error travels as."""
    return Problem(code=error.code[:64], message=error.message[:4096], hint=error.hint[:4096])


def error_of(status: int, problem: Problem) -> LithoError:
    """The error that the other side met, of the class that it was there."""
    kind = next((kind for kind, known in _STATUS if known == status), LithoError)
    return kind(problem.message, hint=problem.hint, code=problem.code)
