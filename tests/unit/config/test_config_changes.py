"""What a change of a configuration requires: every field of a server has its place in one table."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import msgspec
import pytest

from mcp_manager import McpManager, ServerConfig
from mcp_manager.config.changes import EFFECTS, Effect, difference

BEFORE = ServerConfig(name="a", url="http://localhost/mcp")


def changed(**fields: Any) -> ServerConfig:
    return msgspec.structs.replace(BEFORE, **fields)


def test_every_field_is_classified() -> None:
    # A new field: can a session go on when it changes? Then make it so, and write UPDATE. Otherwise write REPLACE.
    assert EFFECTS.keys() == set(ServerConfig.__struct_fields__)


@pytest.mark.parametrize("field", ServerConfig.__struct_fields__)
def test_a_change_of_one_field_requires_what_the_table_says(field: str) -> None:
    found = difference(BEFORE, changed(**{field: ("other",)}))
    # With a command or a server in memory, the transport is another one, too.
    assert found == (EFFECTS[field], (field, "transport") if field in ("command", "server") else (field,))


def test_equal_configurations_require_nothing() -> None:
    assert difference(BEFORE, changed()) == (Effect.NOTHING, ())


@pytest.mark.parametrize(
    ("fields", "effect"),
    [
        ({"instances": 3}, Effect.SCALE),
        ({"instances": 3, "tags": ("x",)}, Effect.UPDATE),
        ({"instances": 3, "tags": ("x",), "headers": {"X-A": "1"}}, Effect.REPLACE),
    ],
)
def test_the_change_that_requires_most_decides(fields: dict[str, Any], effect: Effect) -> None:
    assert difference(BEFORE, changed(**fields)).effect is effect


def test_a_field_that_nobody_classified_requires_new_sessions() -> None:
    class Later(ServerConfig, frozen=True, kw_only=True):
        more: int = 0

    assert difference(Later(more=1), Later(more=2)) == (Effect.REPLACE, ("more",))


def test_the_manual_and_the_docstring_name_what_requires_new_sessions() -> None:
    replacing = {name for name, effect in EFFECTS.items() if effect is Effect.REPLACE}
    manual = files("mcp_manager").joinpath("README.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| (.*) \| a replacement", manual, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == replacing
    assert McpManager.apply.__doc__ is not None
    (sentence,) = re.findall(r"made from:([^.]*)\.", McpManager.apply.__doc__)
    assert set(re.findall(r"``(\w+)``", sentence)) == replacing
