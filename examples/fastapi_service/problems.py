"""Errors as HTTP answers: problem details (RFC 9457) that say whether the request may be repeated."""

from __future__ import annotations

import http
import logging
import math
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from mcp_manager import (
    AuthError,
    CallError,
    DeadlineExceededError,
    Delivery,
    InvalidRequestError,
    McpManagerError,
    NotRunningError,
    OverloadedError,
    RpcError,
    ServerNotFoundError,
    ToolError,
    ToolNotAllowedError,
    ToolNotFoundError,
)

__all__ = ["PROBLEMS", "Problem", "answer_with_problems", "status_of"]

_MEDIA_TYPE: Final = "application/problem+json"
_log = logging.getLogger(__name__)


class Problem(BaseModel):
    """The body of every answer to a request that failed."""

    title: str
    status: int
    detail: str
    error: str
    delivery: Delivery
    retryable: bool
    server_id: str | None = None


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "The request failed; `delivery` says whether its call may have been executed",
        "content": {_MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
    }
}
"""What OpenAPI shows of these answers: the argument ``responses`` of a router."""

# What clients are told of a call without an answer. Its own message is for operators: it may have addresses in it, and
# lines that a program wrote.
_DETAILS: Final[dict[Delivery, str]] = {
    "not_sent": "The call was not executed.",
    "rejected": "The server refused the call and did not execute it.",
    "unknown": "The call may have been executed: look before you repeat it.",
    "answered": "The call was executed, but its answer cannot be used.",
}


def status_of(error: McpManagerError) -> int:
    """Return the HTTP status for an error."""
    match error:
        case ServerNotFoundError() | ToolNotFoundError():
            return 404
        case ToolNotAllowedError():
            return 403
        # Servers answer so to invalid arguments, and to a tool that they do not have.
        case ToolError() | InvalidRequestError() | RpcError(code=-32602):
            return 422
        case DeadlineExceededError():
            return 504
        # Proxies and clients repeat a 502 or 503 more readily than a 504.
        case CallError(delivery="unknown"):
            return 504
        case OverloadedError() | NotRunningError():
            return 503
        case RpcError() | AuthError():
            return 502
        case CallError(delivery="not_sent"):
            return 503
        case CallError():
            return 502
        case _:
            return 500


def answer_with_problems(app: FastAPI) -> None:
    """Let a service answer so to every error of the manager, and to requests that are invalid."""
    app.add_exception_handler(McpManagerError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, McpManagerError)
    status = status_of(error)
    if status >= 500:
        _log.warning("%d: %s", status, error)
    is_for_clients = status < 500 or isinstance(error, RpcError)
    problem = Problem(
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=error.message if is_for_clients else _DETAILS[error.delivery],
        error=type(error).__name__,
        delivery=error.delivery,
        retryable=error.retryable,
        server_id=error.server_id,
    )
    retry_after_s = error.retry_after_s if isinstance(error, CallError) and status == 503 else None
    return _answer(problem, {} if retry_after_s is None else {"Retry-After": str(math.ceil(retry_after_s))})


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    mistakes = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    problem = Problem(
        title=http.HTTPStatus(422).phrase,
        status=422,
        detail="; ".join(mistakes),
        error="RequestValidationError",
        delivery="not_sent",
        retryable=False,
    )
    return _answer(problem, {})


def _answer(problem: Problem, headers: dict[str, str]) -> Response:
    return Response(problem.model_dump_json(exclude_none=True), problem.status, headers, _MEDIA_TYPE)
