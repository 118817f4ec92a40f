"""What clients are told of failures: where they come from and what to do, and nothing of the inside."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_manager import errors
from mcp_manager.gateway import failures

SECRETS = ("http://10.0.0.7:8080/mcp?token=hunter2", "/opt/bin/server --key hunter2", "stderr: hunter2")
INSIDE = f"cannot reach {SECRETS[0]}; {SECRETS[1]}"


def told(failure: errors.McpManagerError, server_id: str | None = "a") -> Any:
    response = json.loads(failures.as_response(b'"x"', failure, server_id))
    assert response["id"] == "x"
    return response["error"]


def all_kinds(kind: type[errors.McpManagerError]) -> list[type[errors.McpManagerError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in all_kinds(sub))]


@pytest.mark.parametrize("kind", all_kinds(errors.CallError), ids=lambda kind: str(kind.__name__))
def test_nothing_of_the_inside_is_told(kind: type[errors.CallError]) -> None:
    failure = kind(INSIDE, server_id="a", hint=SECRETS[2])
    error = told(failure)
    assert "hunter2" not in json.dumps(error)
    assert "10.0.0.7" not in json.dumps(error)
    assert error["data"]["source"] == "gateway"
    assert error["data"]["server"] == "a"
    assert error["data"]["delivery"] == failure.delivery
    assert -32019 <= error["code"] <= -32000


def test_each_kind_has_a_code_of_its_own() -> None:
    kinds: dict[type[errors.CallError], int] = {
        errors.CallError: -32000,
        errors.DeadlineExceededError: -32001,
        errors.CircuitOpenError: -32003,
        errors.OverloadedError: -32004,
        errors.AuthError: -32005,
        errors.ConnectError: -32006,
        errors.ConnectionLostError: -32007,
        errors.ServerExitedError: -32007,
        errors.SessionLostError: -32008,
        errors.ProtocolError: -32009,
        errors.ToolNotAllowedError: -32010,
        errors.InputRequiredError: -32011,
        errors.TaskError: -32012,
    }
    assert {kind: told(kind("x"))["code"] for kind in kinds} == kinds


def test_a_retry_has_its_time_and_a_doubt_its_warning() -> None:
    later = told(errors.OverloadedError("x", retry_after_s=1.25))
    assert later["data"]["retryAfterMs"] == 1250
    assert "later" in later["data"]["hint"]
    doubtful = told(errors.ConnectionLostError("x", delivery="unknown"))
    assert "may have been executed" in doubtful["data"]["hint"]
    assert "retryAfterMs" not in doubtful["data"]


def test_the_answer_of_a_server_is_passed_as_it_is() -> None:
    error = told(errors.RpcError(-32042, "Visit", {"elicitations": []}))
    assert error == {"code": -32042, "message": "Visit", "data": {"elicitations": []}}


def test_what_the_client_did_wrong_is_told() -> None:
    error = told(errors.InvalidRequestError("Invalid request: params must be an object"))
    assert (error["code"], error["message"]) == (-32600, "Invalid request: params must be an object")
    error = told(errors.ServerNotFoundError("b"), None)
    assert (error["code"], error["data"]["server"]) == (-32602, "b")
    assert "servers()" not in json.dumps(error)


def test_a_gateway_that_stops_says_so() -> None:
    assert told(errors.NotRunningError("the loop"))["code"] == -32013


def test_a_limit_of_sessions_is_named() -> None:
    failure = errors.OverloadedError("all 1 sessions of callers are in use")
    failure.limit = "max_caller_sessions"
    assert "no free session" in told(failure)["message"]


def test_what_nobody_expected_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    error = told(errors.ScaleError(INSIDE))
    assert (error["code"], "hunter2" in json.dumps(error)) == (-32603, False)
    assert len(caplog.records) == 1
