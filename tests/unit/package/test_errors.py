"""Errors that are copied, or cross to another process."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from mcp_manager import errors


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
