"""The arguments of tools as callers give them: mappings, or objects of typed classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeAlias

import msgspec

from mcp_manager.config.arguments import as_object, shown
from mcp_manager.errors import InvalidRequestError

__all__ = ["ToolArguments", "as_tool_arguments", "as_tool_name"]


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


class _AttrsObject(Protocol):
    __attrs_attrs__: ClassVar[Any]


class _Model(Protocol):
    def model_dump(self, *, mode: str, by_alias: bool) -> dict[str, Any]: ...


ToolArguments: TypeAlias = Mapping[str, Any] | msgspec.Struct | _Dataclass | _AttrsObject | _Model
"""The arguments of a tool: by their names, or as an object whose fields they are."""


def as_tool_name(value: object) -> str:
    """Return a string unchanged; raises :class:`InvalidRequestError` for anything else."""
    if isinstance(value, str):
        return value
    hint = ""
    if isinstance(value, Mapping):
        hint = "the server comes first: call_tool(server_id, name, arguments); call_fleet_tool needs only a name"
    raise InvalidRequestError(f"Invalid request: name must be a string, not {shown(value)}", hint=hint)


def as_tool_arguments(value: Any) -> dict[str, Any]:
    """Return arguments by their names, empty for ``None``.

    Raises
    ------
    InvalidRequestError
        They are neither a mapping nor an object with named fields, or cannot be written as JSON; nothing was sent.
    """
    found: Any = value
    if value is None or isinstance(value, Mapping | type):
        return as_object(found, "arguments")
    try:
        dump = getattr(value, "model_dump", None)
        found = msgspec.to_builtins(value) if dump is None else dump(mode="json", by_alias=True)
    # The object may run code of its user, which may raise anything.
    except Exception as error:
        kind = type(value).__name__
        raise InvalidRequestError(
            f"Invalid request: arguments of type {kind} cannot be written as JSON: {error}"
        ) from None
    return as_object(found, "arguments")
