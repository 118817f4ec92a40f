"""What a failed call says of its server."""

from __future__ import annotations

import asyncio
import pickle

import pytest

from mcp_manager.errors import (
    AuthError,
    CallError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    OverloadedError,
    ProtocolError,
    ServerExitedError,
    SessionLostError,
)
from mcp_manager.outcomes import classify_error, classify_rpc_error
from mcp_manager.types import CallStatus, Outcome


@pytest.mark.parametrize(
    ("kind", "status"), [(DeadlineExceededError, CallStatus.TIMEOUT), (ConnectError, CallStatus.CONNECT_ERROR)]
)
def test_what_this_side_lacks_says_nothing_of_a_server(kind: type[CallError], status: CallStatus) -> None:
    error = kind("no connection became free", delivery="not_sent")
    error.is_local = True
    assert classify_error(error, 60.0, 1.0) == (Outcome.IGNORED, status)
    assert classify_error(error.for_caller("not_sent"), 60.0, 1.0) == (Outcome.IGNORED, status)
    assert pickle.loads(pickle.dumps(error)).is_local


@pytest.mark.parametrize(
    ("error", "elapsed_s", "outcome", "status"),
    [
        (ConnectError("x"), 0.0, Outcome.FAILURE, CallStatus.CONNECT_ERROR),
        (ConnectionLostError("x"), 0.0, Outcome.FAILURE, CallStatus.CONNECTION_LOST),
        (ServerExitedError("x"), 0.0, Outcome.FAILURE, CallStatus.CONNECTION_LOST),
        (SessionLostError("x"), 0.0, Outcome.FAILURE, CallStatus.SESSION_LOST),
        (AuthError("x"), 0.0, Outcome.SUCCESS, CallStatus.AUTH_ERROR),
        (OverloadedError("HTTP 429"), 0.0, Outcome.IGNORED, CallStatus.OVERLOADED),
        (OverloadedError("HTTP 503", delivery="unknown"), 0.0, Outcome.FAILURE, CallStatus.OVERLOADED),
        (ProtocolError("HTTP 405", delivery="rejected"), 0.0, Outcome.SUCCESS, CallStatus.PROTOCOL_ERROR),
        (ProtocolError("not JSON", delivery="unknown"), 0.0, Outcome.FAILURE, CallStatus.PROTOCOL_ERROR),
        (CircuitOpenError("x"), 0.0, Outcome.IGNORED, CallStatus.CIRCUIT_OPEN),
        (DeadlineExceededError("x"), 0.99, Outcome.IGNORED, CallStatus.TIMEOUT),
        (DeadlineExceededError("x"), 1.0, Outcome.FAILURE, CallStatus.TIMEOUT),
        (DeadlineExceededError("x", delivery="not_sent"), 99.0, Outcome.IGNORED, CallStatus.TIMEOUT),
        (DeadlineExceededError("x", delivery="answered"), 99.0, Outcome.IGNORED, CallStatus.TIMEOUT),
        (asyncio.CancelledError(), 99.0, Outcome.IGNORED, CallStatus.CANCELLED),
        (KeyboardInterrupt(), 0.0, Outcome.IGNORED, CallStatus.CANCELLED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_counts_against_a_server(
    error: BaseException, elapsed_s: float, outcome: Outcome, status: CallStatus
) -> None:
    assert classify_error(error, elapsed_s, timeout_floor_s=1.0) == (outcome, status)


@pytest.mark.parametrize("code", [-32603, -32601, -32000, 1, None])
def test_an_error_is_a_sign_of_life_unless_its_code_is_said_to_count(code: int | None) -> None:
    assert classify_rpc_error(code, ()) is Outcome.SUCCESS
    assert classify_rpc_error(code, (-32603, 1)) is (Outcome.FAILURE if code in (-32603, 1) else Outcome.SUCCESS)
