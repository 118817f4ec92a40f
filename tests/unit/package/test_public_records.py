"""Every public record and constant survives a copy and the way to another process."""

from __future__ import annotations

import copy
import enum
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import mcp_manager

CLASSES = [each for name in mcp_manager.__all__ if inspect.isclass(each := getattr(mcp_manager, name))]
STRUCTS = [each for each in CLASSES if issubclass(each, msgspec.Struct)]
ENUMS = [each for each in CLASSES if issubclass(each, enum.Enum)]
WAYS: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(
        lambda record, protocol=protocol: pickle.loads(pickle.dumps(record, protocol))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    ),
]
# What checks itself when it is made is made of what passes.
MADE_OF: dict[str, dict[str, Any]] = {"Caller": {"principal": "é", "headers": {"X-A": "b"}}, "Selector": {"tag": "x"}}


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_records(kind: type[Any]) -> None:
    parameters = inspect.signature(kind).parameters
    required = {name: [f"{name} é"] for name, each in parameters.items() if each.default is inspect.Parameter.empty}
    record = kind(**MADE_OF.get(kind.__name__, required))
    for way in WAYS:
        other = way(record)
        assert type(other) is kind
        assert msgspec.structs.asdict(other) == msgspec.structs.asdict(record)


@pytest.mark.parametrize("kind", ENUMS, ids=lambda kind: kind.__name__)
def test_constants_stay_what_they_are(kind: type[enum.Enum]) -> None:
    for member in kind:
        assert all(way(member) is member for way in WAYS)
