"""What went wrong on the way to a server, as JSON-RPC errors that say that the gateway made them.

The texts are written here and nowhere else: those of the library are for whoever runs the fleet, and quote URLs, command
lines and what programs write. They stay in the log and in the flight records.
"""

from __future__ import annotations

import logging
from typing import Any, Final, NamedTuple

import msgspec

from mcp_manager.errors import (
    AuthError,
    CallError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    InputRequiredError,
    InvalidRequestError,
    McpManagerError,
    NotRunningError,
    OverloadedError,
    ProtocolError,
    RpcError,
    ServerNotFoundError,
    SessionLostError,
    TaskError,
    ToolNotAllowedError,
)
from mcp_manager.gateway import messages
from mcp_manager.gateway.security.credential_errors import (
    ClientRefusedError,
    CredentialsUnavailableError,
    LoginRequiredError,
    NotConfiguredError,
)
from mcp_manager.protocol.error_codes import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST

__all__ = ["as_refusal", "as_response", "internal"]

_log = logging.getLogger(__name__)


class _Told(NamedTuple):
    """What a client is told of one kind of failure."""

    code: int
    text: str
    hint: str = ""


_OF_SESSIONS: Final = "max_caller_sessions"
_NO_SESSION: Final = _Told(
    -32004, "has no free session for this client", "try again when other clients have ended their sessions"
)
_CHECK_FIRST: Final = "the request may have been executed: check before you send it again"

# The first that fits counts. The codes lie outside of -32020 to -32099, which the protocol reserves (2026-07-28, basic,
# error codes), and apart from -32002, which earlier revisions use for missing resources.
_TOLD: Final[tuple[tuple[type[McpManagerError], _Told], ...]] = (
    (DeadlineExceededError, _Told(-32001, "did not answer in time")),
    (
        CircuitOpenError,
        _Told(-32003, "has failed repeatedly: the gateway sends it no requests for a while", "try again later"),
    ),
    (ToolNotAllowedError, _Told(-32010, "has this tool, but its configuration does not allow the call")),
    (OverloadedError, _Told(-32004, "is overloaded", "try again later")),
    (LoginRequiredError, _Told(-32014, "needs credentials that you have not got yet")),
    (
        CredentialsUnavailableError,
        _Told(-32015, "cannot be called: the authorization server is not available", "try again later"),
    ),
    (ClientRefusedError, _Told(-32016, "refused your credentials", "ask its owner for access")),
    (
        NotConfiguredError,
        _Told(-32005, "cannot be called: the gateway gets no credentials for you", "tell the operator of the gateway"),
    ),
    (
        AuthError,
        _Told(-32005, "refused the credentials of the gateway", "tell the operator of the gateway to renew them"),
    ),
    (ConnectError, _Told(-32006, "cannot be reached", "try again later")),
    (SessionLostError, _Told(-32008, "lost the session", "start over: the state of the session is lost")),
    (ConnectionLostError, _Told(-32007, "closed the connection before it answered")),
    (ProtocolError, _Told(-32009, "sent an invalid response")),
    (InputRequiredError, _Told(-32011, "asked for input and got none")),
    (TaskError, _Told(-32012, "cancelled the task that the request had become")),
    (CallError, _Told(-32000, "could not be called")),
)


def as_response(id_raw: bytes, failure: McpManagerError, server_id: str | None = None) -> bytes:
    """Return the error response for what a call raised.

    An :class:`RpcError` is the answer of a server, and passed as it is. All others have ``data`` with ``source``:
    ``gateway``; ``server``, its id; ``delivery``; ``retryAfterMs`` and ``hint`` as far as they are known.

    ======  ==========================================================
    Code    Meaning
    ======  ==========================================================
    -32000  another failure of a call
    -32001  the deadline passed
    -32003  the circuit of the server is open
    -32004  the server, or a limit of the gateway, takes no more
    -32005  the gateway has no credentials for the server, or the server refused them
    -32006  no connection
    -32007  the connection broke, or the program ended
    -32008  the session of a stateful server is lost
    -32009  the answer of the server was malformed
    -32010  the rules of the server's tools forbid the call
    -32011  the server asked for input that nobody gave
    -32012  the server cancelled the task
    -32013  the gateway is stopping
    -32014  the client has to log in again, or to show credentials for the server
    -32015  the authorization server that gives credentials for the server is not available
    -32016  the server refused the credentials that it got for the client
    -32017  a limit of the principal is reached
    -32018  the definition of the tool or prompt is not as pinned
    -32600  the request is malformed
    -32602  the server does not exist
    -32603  a fault of the gateway, which its log explains
    ======  ==========================================================

    Parameters
    ----------
    id_raw
        The id of the client's request, as JSON.
    failure
        What was raised.
    server_id
        The server that was called, for failures that do not name one.
    """
    if isinstance(failure, RpcError):
        return messages.error(id_raw, failure.code, failure.message, failure.data)
    server_id = failure.server_id or server_id
    data: dict[str, Any] = {"source": "gateway", "delivery": failure.delivery}
    if server_id is not None:
        data["server"] = server_id
    if isinstance(failure, InvalidRequestError):
        # It is about what the client sent, and quotes nothing else.
        return messages.error(id_raw, INVALID_REQUEST, failure.message, data)
    if isinstance(failure, ServerNotFoundError):
        return messages.error(id_raw, INVALID_PARAMS, f"Server {server_id!r:.200} not found", data)
    if isinstance(failure, NotRunningError):
        data["hint"] = "try again later"
        return messages.error(id_raw, -32013, "The gateway is stopping", data)
    told = next((told for kind, told in _TOLD if isinstance(failure, kind)), None)
    if told is None:
        _log.error("a request to server %r failed: %s", server_id, failure, extra={"event": "forward_failed"})
        return internal(id_raw, server_id)
    _log.info("a request to server %r failed: %s", server_id, failure, extra={"event": "call_failed"})
    if isinstance(failure, OverloadedError) and failure.limit == _OF_SESSIONS:
        told = _NO_SESSION
    hint = _CHECK_FIRST if failure.delivery == "unknown" else told.hint
    if isinstance(failure, LoginRequiredError):
        hint = failure.way_out
    if hint:
        data["hint"] = hint
    retry_after_s = getattr(failure, "retry_after_s", None)
    if retry_after_s is not None:
        data["retryAfterMs"] = round(retry_after_s * 1000)
    return messages.error(id_raw, told.code, f"Server {server_id!r:.200} {told.text}", data)


def as_refusal(failure: McpManagerError, server_id: str) -> RpcError:
    """Return the error that :func:`as_response` writes, for whoever raises it."""
    error = msgspec.json.decode(as_response(messages.NO_ID, failure, server_id))["error"]
    return RpcError(error["code"], error["message"], error.get("data"))


def internal(id_raw: bytes, server_id: str | None = None) -> bytes:
    """Return the error response for a fault of the gateway; the caller logs what it was."""
    data = {"source": "gateway", "delivery": "unknown", "hint": "the log of the gateway has the reason"}
    if server_id is not None:
        data["server"] = server_id
    return messages.error(id_raw, INTERNAL_ERROR, "Internal error of the gateway", data)
