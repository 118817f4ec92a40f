"""The sampler passes calls on, and leaves some to a function that decides."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import pytest

from mcp_manager._core.call_path import Sampler


def made(*call: Any) -> tuple[str, Any]:
    return "made", call


def decided(*call: Any) -> tuple[str, Any]:
    return "decided", call


CALL = ("supervisor", "method", "request", 1, 2)


def test_a_call_is_left_to_the_decision_when_the_others_have_run_out() -> None:
    sampler = Sampler(made, decided)
    sampler.left_out = 2
    found = [sampler.call(*CALL) for _ in range(4)]
    assert [name for name, _ in found] == ["made", "made", "decided", "decided"]
    assert all(call == CALL for _, call in found)
    sampler.left_out = 1
    assert [sampler.call(*CALL)[0] for _ in range(2)] == ["made", "decided"]


def test_a_call_of_a_caller_that_may_be_in_a_trace_is_left_to_the_decision() -> None:
    variable: ContextVar[Mapping[str, int]] = ContextVar("variable", default=MappingProxyType({}))
    sampler = Sampler(made, decided, variable)
    sampler.left_out = 10
    assert sampler.call(*CALL)[0] == "made"
    token = variable.set({"span": 1})
    assert sampler.call(*CALL)[0] == "decided"
    variable.set({})
    assert sampler.call(*CALL)[0] == "made"
    variable.reset(token)
    # Those that were left to the decision are not counted.
    assert sampler.left_out == 8


def test_every_caller_may_be_in_a_trace() -> None:
    sampler = Sampler(made, decided, asks=True)
    sampler.left_out = 10
    assert sampler.call(*CALL)[0] == "decided"


def test_only_a_context_variable_is_asked() -> None:
    with pytest.raises(TypeError, match="ContextVar"):
        Sampler(made, decided, {})  # type: ignore[arg-type]


def test_an_error_of_the_function_is_that_of_the_call() -> None:
    def fails(*call: Any) -> None:
        raise LookupError("no")

    sampler = Sampler(fails, decided)
    sampler.left_out = 1
    with pytest.raises(LookupError, match="no"):
        sampler.call(*CALL)
