"""Problem details: the error responses of the admin API (RFC 9457)."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web

from mcp_manager.errors import (
    CallError,
    ConfigError,
    DeadlineExceededError,
    InvalidRequestError,
    McpManagerError,
    NotReadyError,
    NotRunningError,
    OverloadedError,
    RolloutError,
    ScaleError,
    ServerExistsError,
    ServerNotFoundError,
)

__all__ = ["NO_STORE", "Problem", "Refusal", "problem_of_error", "problem_of_http", "refused"]

CONTENT_TYPE: Final = "application/problem+json"
NO_STORE: Final = {"Cache-Control": "no-store"}
_URN: Final = "urn:mcp-manager:problem:"
_WORD: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
# The first that fits decides.
_STATUS: Final[tuple[tuple[type[McpManagerError], int], ...]] = (
    (ServerNotFoundError, 404),
    (ServerExistsError, 409),
    (ScaleError, 422),
    (ConfigError, 422),
    (InvalidRequestError, 400),
    (RolloutError, 409),
    (NotRunningError, 503),
    (OverloadedError, 503),
    (NotReadyError, 504),
    (DeadlineExceededError, 504),
    (CallError, 502),
)


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong (RFC 9457, section 3.1).

    Parameters
    ----------
    type
        Identifies the kind of problem: ``about:blank`` if the status says all, else a URN with the name of the error.
    title
        The kind of problem, for people.
    status
        The HTTP status.
    detail
        What went wrong this time, in a sentence.
    hint
        What to do about it.
    field
        The field of the body, the parameter or the header field that is wrong.
    server_id
        The server concerned.
    delivery
        Whether a request reached the server; see :data:`~mcp_manager.errors.Delivery`.
    problems
        Everything that is wrong in a configuration, if there is more than one thing.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    hint: str = ""
    field: str = ""
    server_id: str = ""
    delivery: str = ""
    problems: tuple[str, ...] = ()

    def response(self, headers: dict[str, str] | None = None) -> web.Response:
        """Return the response; ``headers`` are further header fields."""
        # Members that have their default are left out, and these are required.
        body = {"type": self.type, **msgspec.to_builtins(self)}
        fields = {**NO_STORE, **(headers or {}), "Content-Type": CONTENT_TYPE}
        return web.Response(status=self.status, body=msgspec.json.encode(body), headers=fields)


class Refusal(Exception):
    """A request that cannot be served; its handler raises it.

    Parameters
    ----------
    problem
        What the response says.
    headers
        Further header fields of the response.
    reason
        Why the client may not do this at all, for the audit log, such as ``authentication``; "" if it may.
    principal
        Whom the client acts for, if that is known.
    """

    def __init__(
        self, problem: Problem, headers: dict[str, str] | None = None, reason: str = "", principal: str = ""
    ) -> None:
        super().__init__(problem.detail)
        self.problem: Problem = problem
        self.headers: dict[str, str] = headers or {}
        self.reason: str = reason
        self.principal: str = principal


def refused(status: int, detail: str, *, hint: str = "", field: str = "", **headers: str) -> Refusal:
    """Return the refusal of a request; the names of ``headers`` have ``_`` in place of ``-``."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, hint=hint, field=field)
    return Refusal(problem, {name.replace("_", "-"): value for name, value in headers.items()})


def problem_of_error(error: McpManagerError) -> Problem:
    """Return the problem that an error of the library is."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    words = _WORD.sub(" ", type(error).__name__.removesuffix("Error")).lower()
    told: dict[str, Any] = {}
    if isinstance(error, ConfigError):
        told["field"] = error.field
        if len(error.problems) > 1:
            told["problems"] = tuple(_printable(str(each)) for each in error.problems)
    return Problem(
        type=_URN + words.replace(" ", "-"),
        title=_TITLES.get(words) or words.capitalize(),
        status=status,
        detail=_printable(error.message),
        hint=_HINTS.get(type(error)) or _printable(error.hint),
        server_id=_printable(error.server_id or ""),
        delivery=error.delivery,
        **told,
    )


def problem_of_http(error: web.HTTPException) -> tuple[Problem, dict[str, str]]:
    """Return the problem that an error of aiohttp.web is, and the header fields that belong to it."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    detail = _DETAILS.get(error.status, error.reason)
    return Problem(title=HTTPStatus(error.status).phrase, status=error.status, detail=detail), headers


_TITLES: Final = {
    "auth": "Authorization failed",
    "call": "Call failed",
    "config": "Invalid configuration",
    "connect": "Connection failed",
    "mcp manager": "Error of the gateway",
    "rollout": "Rollout failed",
    "rpc": "Error of the server",
    "scale": "Scaling failed",
    "task": "Task failed",
}
"""Titles of errors whose name alone does not say that something failed."""
_HINTS: Final[dict[type[McpManagerError], str]] = {
    ServerNotFoundError: "GET /api/v1/servers lists the servers",
    ServerExistsError: "PUT its configuration to replace it, or DELETE it first",
}
_DETAILS: Final = {
    404: "There is no such resource; /api/v1/openapi.json lists them all",
    405: "This resource does not have this method; see the header Allow",
    413: "The body is longer than serve.max_request_bytes",
}


def _printable(text: str) -> str:
    """Return a text that JSON can carry."""
    return text.encode("utf-8", "replace").decode()
