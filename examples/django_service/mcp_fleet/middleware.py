"""Answers for views whose call of a tool failed."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.deprecation import MiddlewareMixin

from mcp_manager import (
    CallError,
    ConfigError,
    InvalidRequestError,
    McpManagerError,
    OverloadedError,
    ServerNotFoundError,
    ToolError,
    ToolNotAllowedError,
    ToolNotFoundError,
)

_log = logging.getLogger(__name__)


class McpErrors(MiddlewareMixin):
    """Make a response of each error of the fleet that a view raises, sync or async."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return the response; ``None`` for errors of others, and for mistakes of this program."""
        if not isinstance(exception, McpManagerError) or isinstance(exception, ConfigError | InvalidRequestError):
            return None
        status = status_of(exception)
        # The client gets neither message nor hint: they may have addresses, and lines that a program wrote.
        # Quoted, since a path may have line breaks, with which a client could forge lines of the log.
        _log.warning("%s %r: %s: %s", request.method, request.path, type(exception).__name__, exception)
        response = JsonResponse({"error": type(exception).__name__, "delivery": exception.delivery}, status=status)
        if status is HTTPStatus.SERVICE_UNAVAILABLE and isinstance(exception, CallError):
            response["Retry-After"] = str(math.ceil(exception.retry_after_s or 1))
        return response


def status_of(error: McpManagerError) -> HTTPStatus:
    """Return the HTTP status that tells a client what became of its request."""
    if isinstance(error, ServerNotFoundError | ToolNotFoundError):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, ToolNotAllowedError):
        return HTTPStatus.FORBIDDEN
    if isinstance(error, ToolError):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    if error.delivery == "unknown":
        # It may have happened, also if the server said that it is overloaded: only the client knows whether a
        # repetition does harm.
        return HTTPStatus.GATEWAY_TIMEOUT
    if isinstance(error, OverloadedError) or error.delivery == "not_sent":
        # Nothing happened: the same request may be sent again.
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.BAD_GATEWAY
