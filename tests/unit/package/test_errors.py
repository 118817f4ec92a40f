"""Errors that are copied, cross to another process, or become plain data."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from mcp_manager import CallToolResult, errors
from mcp_manager.serialization.failures import MEMBERS


def _made() -> list[errors.McpManagerError]:
    made: list[errors.McpManagerError] = [
        errors.ServerNotFoundError("alpha"),
        errors.ServerExistsError("alpha"),
        errors.ToolNotFoundError("serch", nearest="search", missing=["beta"]),
        errors.RpcError(-32001, "no", {"why": ["x"]}, server_id="alpha"),
        errors.UrlElicitationRequiredError(-32042, "log in", None, server_id="alpha", elicitations=[{"url": "u"}]),
    ]
    kinds = [getattr(errors, name) for name in errors.__all__]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, errors.McpManagerError) and kind not in map(type, made):
            made.append(kind("m", server_id="alpha", delivery="unknown", retryable=True, hint="h"))
    for error in made:
        told: dict[str, Any] = {"http_status": 404, "rpc_code": -3, "attempts": 3, "is_local": True}
        told |= {"is_starting": True, "is_challenged": True, "limit": "x", "retry_after_s": 2.0, "exit_code": 3}
        for name, value in told.items():
            if hasattr(error, name):
                setattr(error, name, value)
    return made


@pytest.mark.parametrize("error", _made(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_is_the_same_after_a_copy(
    error: errors.McpManagerError, way: Callable[[errors.McpManagerError], errors.McpManagerError]
) -> None:
    twin = way(error)
    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
    assert twin.delivery == error.delivery and twin.retryable == error.retryable


@pytest.mark.parametrize("error", _made(), ids=lambda error: type(error).__name__)
def test_an_error_as_plain_data_has_every_attribute(error: errors.McpManagerError) -> None:
    told = error.to_dict()
    declared = {name for kind in type(error).__mro__ for name in inspect.get_annotations(kind)}
    public = {name for name in declared | vars(error).keys() if not name.startswith("_")} - {"result"}
    assert told.keys() == {"type"} | public
    assert told["type"] == type(error).__name__
    assert {name: told[name] for name in ("message", "hint", "server_id", "delivery", "retryable")} == {
        "message": error.message,
        "hint": error.hint,
        "server_id": error.server_id,
        "delivery": error.delivery,
        "retryable": error.retryable,
    }
    assert json.loads(error.to_json()) == told == json.loads(json.dumps(told))
    assert list(told) == ["type", *(name for name in MEMBERS if name in told)]


def test_plain_data_has_what_the_class_adds() -> None:
    login = {"url": "https://login.example.com", "elicitationId": "1"}
    error = errors.UrlElicitationRequiredError(-32042, "log in", {"why": [1.5]}, elicitations=[login])
    told = error.to_dict()
    assert (told["code"], told["data"], told["elicitations"]) == (-32042, {"why": [1.5]}, [login])
    wrong = errors.ConfigError("m")
    wrong.problems = (errors.ConfigProblem("fleet.toml", 3, 1, "servers.a.url: wrong"),)
    problem = {"path": "fleet.toml", "line": 3, "column": 1, "message": "servers.a.url: wrong"}
    assert wrong.to_dict()["problems"] == [problem]


def test_plain_data_of_a_tool_error_leaves_out_the_result() -> None:
    error = errors.ToolError("no")
    error.result = CallToolResult(content=[], is_error=True)
    assert "result" not in error.to_dict()


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


class Unshowable:
    def __repr__(self) -> str:
        raise ValueError("no")


def _cyclic() -> list[Any]:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    return cyclic


@pytest.mark.parametrize(
    "data",
    [object(), {("a", 1): 2}, {"a": "\ud800"}, float("nan"), b"\xff", _cyclic(), _deep(), Unshowable(), 2**80],
    ids=lambda data: type(data).__name__,
)
def test_telling_of_an_error_never_fails(data: object) -> None:
    error = errors.RpcError(-1, "no \ud800\x1b", data, server_id="a\udcff")
    told = error.to_dict()
    assert (told["message"], told["server_id"]) == ("no ?\x1b", "a?")
    assert json.loads(error.to_json()) == json.loads(json.dumps(told, allow_nan=False)) == told


def test_servers_that_are_not_named_are_none() -> None:
    assert errors.NotReadyError("m").to_dict()["missing"] == {}
