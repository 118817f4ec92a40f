"""The classification of how a call ended: whether it counts for or against its server."""

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
    ToolNotAllowedError,
)
from mcp_manager.types import CallStatus, Outcome

__all__ = ["classify_error", "classify_rpc_error"]


def classify_error(error: BaseException, elapsed_s: float, timeout_floor_s: float) -> tuple[Outcome, CallStatus]:
    """Classify a failed call.

    Parameters
    ----------
    error
        What the call raised; anything but a :class:`CallError` counts as a cancellation by the caller.
    elapsed_s
        How long the call took, in seconds.
    timeout_floor_s
        A timeout after less than this many seconds does not count: a 5 ms deadline must not trip a healthy server.

    Returns
    -------
    The outcome for the circuit breaker, and the status for the metrics.
    """
    if isinstance(error, ToolNotAllowedError):
        return Outcome.IGNORED, CallStatus.CANCELLED
    if isinstance(error, CallError) and error.is_local:
        is_late = isinstance(error, DeadlineExceededError)
        return Outcome.IGNORED, CallStatus.TIMEOUT if is_late else CallStatus.CONNECT_ERROR
    match error:
        case DeadlineExceededError() if error.delivery == "answered" or error.is_starting:
            # This side took too long to answer the server's question, or the server is still starting.
            return Outcome.IGNORED, CallStatus.TIMEOUT
        case DeadlineExceededError() if error.delivery == "not_sent":
            # The server never received the request.
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
            # The server answered, so the failure is not its fault.
            return Outcome.SUCCESS, CallStatus.RPC_ERROR
        case ProtocolError():
            # A 4xx response is an answer: the server is alive.
            answered = error.delivery == "rejected"
            return (Outcome.SUCCESS if answered else Outcome.FAILURE), CallStatus.PROTOCOL_ERROR
        case CallError():
            return Outcome.FAILURE, CallStatus.PROTOCOL_ERROR
        case _:
            return Outcome.IGNORED, CallStatus.CANCELLED


def classify_rpc_error(code: int | None, failures: tuple[int, ...]) -> Outcome:
    """Classify a JSON-RPC error: a success for the breaker, because a server that answers is alive.

    Many servers answer with -32603 whatever their tools raise. If that counted as a failure, one caller's bad arguments
    would open the circuit for all callers.

    Parameters
    ----------
    code
        The error's code.
    failures
        The codes that count as failures anyway: ``rpc_errors`` of :class:`~mcp_manager.config.BreakerConfig`.
    """
    return Outcome.FAILURE if code in failures else Outcome.SUCCESS
