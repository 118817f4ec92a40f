"""The minimum level of the log messages that a server sends in one session (2025-11-25, server/utilities/logging)."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import orjson

from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.errors import CallError
from mcp_manager.protocol.rpc_error import error_text
from mcp_manager.session.template import SessionTemplate
from mcp_manager.transports.base import Request

__all__ = ["request_log_level", "restore_log_level"]

_log = logging.getLogger(__name__)

_RESTORE_NS: Final = 10_000_000_000

Call = Callable[[Request, int], Awaitable[Message]]
"""``await call(request, deadline_ns)`` sends a request on the session and returns its reply."""


def request_log_level(call: Call, level: str, deadline_ns: int) -> Awaitable[Message]:
    """Ask the server for log messages of this level and above; await the result for the reply.

    Parameters
    ----------
    call
        Sends the request on the session.
    level
        A severity, from ``debug`` to ``emergency``.
    deadline_ns
        A time of :func:`time.monotonic_ns`.
    """
    return call(Request(b'"logging/setLevel"', orjson.dumps({"level": level})), deadline_ns)


async def restore_log_level(template: SessionTemplate, call: Call, level: str) -> None:
    """Set the level of the previous session on a new one; a failure is logged."""
    server_id = template.server_id
    extra = {"event": "log_level_failed", "server_id": server_id}
    try:
        reply = await request_log_level(call, level, time.monotonic_ns() + _RESTORE_NS)
    except CallError as error:
        _log.warning("server %r: the log level was not set on the new session: %s", server_id, error, extra=extra)
    else:
        if reply.kind == ERROR:
            said = error_text(reply.error or b"", template.secrets)
            refused = "server %r: the server refused the log level on the new session: %s"
            _log.warning(refused, server_id, said, extra=extra)
