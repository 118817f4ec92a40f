"""What the end of a call says of its server."""

from __future__ import annotations

from mcp_manager.errors import (
    AuthError,
    CallError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    InputRequiredError,
    OverloadedError,
    ProtocolError,
    SessionLostError,
    TaskError,
)
from mcp_manager.types import CallStatus, Outcome

__all__ = ["classify_error", "classify_rpc_error"]


def classify_error(error: BaseException, elapsed_s: float, timeout_floor_s: float) -> tuple[Outcome, CallStatus]:
    """Tell what a call that got no answer says of its server.

    Parameters
    ----------
    error
        What the call raised; anything that is not a :class:`CallError` is the caller's own cancellation.
    elapsed_s
        How long the call took.
    timeout_floor_s
        A deadline shorter than this says nothing of the server: a 5 ms deadline must not trip a healthy one.
    """
    if isinstance(error, CallError) and error.is_local:
        is_late = isinstance(error, DeadlineExceededError)
        return Outcome.IGNORED, CallStatus.TIMEOUT if is_late else CallStatus.CONNECT_ERROR
    match error:
        case DeadlineExceededError() if error.delivery == "answered" or error.is_starting:
            # The server had asked something, and this side took too long over it; or it is not up yet.
            return Outcome.IGNORED, CallStatus.TIMEOUT
        case DeadlineExceededError() if error.delivery == "not_sent":
            # Whatever it waited for, no server has been asked.
            return Outcome.IGNORED, CallStatus.TIMEOUT
        case DeadlineExceededError():
            slow = elapsed_s >= timeout_floor_s
            return (Outcome.FAILURE if slow else Outcome.IGNORED), CallStatus.TIMEOUT
        case AuthError():
            return Outcome.SUCCESS, CallStatus.AUTH_ERROR
        case OverloadedError():
            refused = error.delivery == "rejected"
            return (Outcome.IGNORED if refused else Outcome.FAILURE), CallStatus.OVERLOADED
        case SessionLostError():
            return Outcome.FAILURE, CallStatus.SESSION_LOST
        case ConnectionLostError():
            return Outcome.FAILURE, CallStatus.CONNECTION_LOST
        case ConnectError():
            return Outcome.FAILURE, CallStatus.CONNECT_ERROR
        case CircuitOpenError():
            return Outcome.IGNORED, CallStatus.CIRCUIT_OPEN
        case InputRequiredError() | TaskError():
            # It answered: what was missing is not its fault.
            return Outcome.SUCCESS, CallStatus.RPC_ERROR
        case ProtocolError():
            # A 4xx is an answer: the server is alive and said no.
            answered = error.delivery == "rejected"
            return (Outcome.SUCCESS if answered else Outcome.FAILURE), CallStatus.PROTOCOL_ERROR
        case CallError():
            return Outcome.FAILURE, CallStatus.PROTOCOL_ERROR
        case _:
            return Outcome.IGNORED, CallStatus.CANCELLED


def classify_rpc_error(code: int | None, failures: tuple[int, ...]) -> Outcome:
    """Tell what a JSON-RPC error says of the server that answered it: that it is alive, whatever the code.

    Many servers answer whatever their tools throw with -32603, so that one caller's arguments would shut out all others.

    Parameters
    ----------
    failures
        The codes that count against a server all the same; see :class:`~mcp_manager.config.BreakerConfig`.
    """
    return Outcome.FAILURE if code in failures else Outcome.SUCCESS
